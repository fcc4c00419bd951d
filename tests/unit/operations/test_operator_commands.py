"""Operator commands without a runner: what they refuse, what they leave in the store, and where they find the locks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.accounts.opening import open_accounts
from killswitch.cli.live.run import run
from killswitch.cli.live.run_console import RunConsole
from killswitch.cli.live.status import status
from killswitch.cli.operate.verbs import close, reset
from killswitch.cli.session import load_policies
from killswitch.gate.lock_reader import read_lock
from killswitch.incident.record.results import newest_results
from killswitch.incident.record.source_places import TriggerText, WrittenAt
from killswitch.model.decision import Decision, Intent, TriggerReading
from killswitch.model.snapshot import Closing, ClosingStatus, Snapshot
from killswitch.model.store import JournalEntry, Store, TickRecord
from killswitch.model.tracing import Incidents
from killswitch.operations.commands import operator_event, watched_scopes
from killswitch.operations.status import store_status
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.preflight.run_start import claimed
from killswitch.render.formats import instant
from killswitch.runner.assembly import LockPaths
from killswitch.runner.claims import ClaimHolder, RunClaims
from killswitch.runner.lease import this_process
from killswitch.runner.locks.lock_writer import LockWriter
from killswitch.runner.observers import Observer, TickReport
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, World, crash_policy
from tests.shown import status_text
from tests.unit.operations.test_live_verbs import ACCOUNT, WATCH
from tests.unit.runner.test_loop import crash
from tests.unit.telemetry.test_headroom import observed_trigger
from tests.worlds import START

CLOSED_PORT = "http://127.0.0.1:9"
"""An endpoint where no venue answers: the account is down, and everything else works."""


class Deployment:
    """Policies, an armed account that is down, a store, and its lock folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.union = folder / "s", folder / "union.json"
        self.file = folder / "s.locks" / "account__main.json"
        (folder / "p").mkdir()
        (folder / "p" / "watch.yaml").write_text(WATCH, encoding="utf-8")
        (folder / "p" / "account.yaml").write_text(ACCOUNT % f", endpoint: '{CLOSED_PORT}'", encoding="utf-8")

    def run(self, *more: str) -> Result:
        return self.invoke(run, "--policies", str(self.folder / "p"), "--ticks", "1", "--live", *more)

    def invoke(self, command: object, *arguments: str) -> Result:
        arguments = (*arguments, "--store", str(self.store))
        return CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type] # a command

    def pending(self) -> int:
        store = open_store(str(self.store), read_only=True)
        try:
            return len(store.pending_events())
        finally:
            store.close()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.mark.parametrize("command", [close, reset])
@pytest.mark.parametrize("more", [("--live",), ("--policies", "p")])
def test_a_command_on_a_missing_store_is_refused_and_creates_none(
    deployment: Deployment, command: object, more: tuple[str, ...]
) -> None:
    """A command with a mistyped --store must not act on a store other than the runner's."""
    scope = ("account/main",) if command is reset else ()
    more = tuple(str(deployment.folder / "p") if each == "p" else each for each in more)
    refused = deployment.invoke(command, *scope, "--reason", "r", *more)
    assert refused.exit_code == 1
    assert "there is no store at" in refused.stderr
    assert [path.name for path in deployment.folder.iterdir()] == ["p"]


def test_a_reset_creates_no_store_whatever_it_names(deployment: Deployment) -> None:
    """Nothing is latched where no runner ever ran."""
    place = ("--live", "--policies", str(deployment.folder / "p"))
    refused = deployment.invoke(reset, "account/main", "--reason", "r", *place)
    assert "there is no store at" in refused.stderr


def test_a_command_that_tightens_creates_the_store_unless_a_runner_with_another_one_lives(
    deployment: Deployment,
) -> None:
    """On a fresh machine with the policies and the credentials; a mistyped store next to a runner is refused."""
    place = ("--live", "--policies", str(deployment.folder / "p"))
    loaded = load_policies((deployment.folder / "p",))
    holder = ClaimHolder(this_process(), "/elsewhere/ks.sqlite")
    with RunClaims(holder) as claims:
        claimed(
            claims, loaded, open_accounts(loaded.accounts, live=True), LockPaths(deployment.folder / "l", None),
            is_forced=False,
        )  # fmt: skip
        refused = deployment.invoke(close, "--reason", "r", "--wait", "1ms", *place)
    assert "/elsewhere/ks.sqlite" in refused.stderr
    assert not deployment.store.exists()
    closed = deployment.invoke(close, "--reason", "r", "--wait", "1ms", *place)
    assert "no runner ever ran on" in closed.stderr
    assert deployment.pending() == 1, "its account is down: the close waits for it"


def test_a_close_is_refused_without_a_runner_and_without_live(deployment: Deployment) -> None:
    """No runner is alive and --live is not given: a usage error that names both options."""
    deployment.run()
    refused = deployment.invoke(close, "--reason", "r")
    assert refused.exit_code == 2
    assert "add --live, or --dry-run to see them" in refused.stderr


def test_an_unarmed_reset_does_not_tick_if_an_account_document_is_live(deployment: Deployment) -> None:
    """A stage that fired in its tick would be latched, only observed, and never acted on by the next runner."""
    deployment.run()
    before = deployment.store.read_bytes()
    refused = deployment.invoke(reset, "account/main", "--reason", "r")
    assert refused.exit_code == 2
    assert "Add --live" in refused.stderr
    assert deployment.store.read_bytes() == before
    assert deployment.invoke(reset, "account/main", "--reason", "r", "--live").exit_code == 0


def test_a_command_that_fails_before_its_tick_leaves_nothing_pending(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command reported a failure; a later runner must not process it silently."""
    deployment.run()

    async def refuse(_: LockWriter) -> tuple[str, ...]:
        raise StoreError("refused for the test")

    monkeypatch.setattr(LockWriter, "recover", refuse)
    refused = deployment.invoke(close, "--reason", "r", "--live")
    assert refused.exit_code == 1
    assert "refused for the test" in refused.stderr
    assert deployment.pending() == 0


@pytest.mark.parametrize("obstacle", ["generation", "folder"])
def test_a_lock_that_cannot_be_written_does_not_prevent_a_manual_close(deployment: Deployment, obstacle: str) -> None:
    """Neither a newer lock file nor an unusable lock folder prevents the command."""
    deployment.run()
    if obstacle == "generation":
        deployment.file.write_text(json.dumps(json.loads(deployment.file.read_text()) | {"generation": 99}))
        expected = "generation 99"
    else:
        deployment.file.unlink()
        for each in deployment.file.parent.iterdir():
            each.unlink()
        deployment.file.parent.rmdir()
        deployment.file.parent.write_text("in the way")
        expected = "no lock can be written in"
    result = deployment.invoke(close, "--reason", "r", "--live", "--wait", "1ms")
    assert "no runner is alive here: running one tick; armed: main" in result.stderr, result.stderr
    assert expected in result.stderr + deployment.invoke(status).stdout
    assert "the close by hand waits: main is down" in result.stdout, "no tick has taken it"


def test_a_command_finds_the_locks_where_the_last_runner_wrote_them(deployment: Deployment) -> None:
    """Neither --lock-dir nor --lock-file has to be repeated: both locks are lifted, and the command reports it."""
    deployment.file = deployment.folder / "elsewhere" / "account__main.json"
    deployment.run("--lock-dir", str(deployment.file.parent), "--lock-file", str(deployment.union))
    deployment.file.write_bytes(b"garbage")
    deployment.union.unlink()
    result = deployment.invoke(reset, "account/main", "--reason", "r", "--live")
    assert result.exit_code == 0, result.stderr
    assert "account/main is not locked" in result.stdout
    assert [json.loads(path.read_text())["locked"] for path in (deployment.file, deployment.union)] == [False, False]


def test_an_unarmed_run_keeps_the_recorded_lock_paths(deployment: Deployment) -> None:
    """It writes no locks, and the next command must still find those of the run before it."""
    deployment.run("--lock-file", str(deployment.union))
    deployment.invoke(run, "--policies", str(deployment.folder / "p"), "--ticks", "1")
    view = json.loads(deployment.invoke(status, "--output", "json").stdout)["view"]
    assert (view["lock_folder"], view["union"]) == (str(deployment.file.parent), str(deployment.union))


def test_a_reset_of_foreign_is_accepted_while_a_foreign_lock_exists(deployment: Deployment) -> None:
    """No policy watches that scope; its lock is sufficient."""
    deployment.union.write_text('{"locked": true}')
    deployment.run("--lock-file", str(deployment.union))
    assert json.loads(deployment.union.read_text())["locked"] is True
    result = deployment.invoke(reset, "foreign", "--reason", "r", "--live")
    assert "foreign is not locked" in result.stdout, result.stderr
    assert json.loads(deployment.union.read_text())["locked"] is False
    assert deployment.invoke(reset, "foreign", "--reason", "r", "--live").exit_code == 1


@pytest.mark.parametrize(
    ("option", "place", "message"),
    [
        ("--lock-file", "nowhere/lock.json", "no lock can be written in"),
        ("--lock-file", "s.locks/portfolio.json", "cannot be the file for all scopes"),
        ("--lock-dir", "p/watch.yaml/locks", "no lock can be written in"),
    ],
)
def test_an_armed_run_that_cannot_write_its_lock_does_not_start(
    deployment: Deployment, option: str, place: str, message: str
) -> None:
    """The run is refused at the start instead of failing at the first crash."""
    refused = deployment.run(option, str(deployment.folder / place))
    assert refused.exit_code == 69
    assert message in refused.stderr
    assert not deployment.store.exists()


def test_an_armed_run_does_not_start_on_the_lock_file_of_a_living_runner(deployment: Deployment) -> None:
    """Each would treat the other's lock as a foreign one that it must not lift."""
    deployment.run("--lock-file", str(deployment.union), "--lock-dir", str(deployment.folder / "other"))
    refused = deployment.run("--lock-file", str(deployment.union))
    assert refused.exit_code == 69
    assert "give each runner a lock file of its own" in refused.stderr


def store_with(folder: Path, journal: Sequence[JournalEntry], *decisions: Decision) -> Store:
    """A store with these decisions and journal entries."""
    store = open_store(str(folder / "kept.sqlite"))
    store.commit_tick(
        TickRecord(
            as_of=START, policy_set="sha256:test", states=(), rows=(), decisions=decisions, notices=(),
            journal=tuple(journal), snapshot=None, consumed_events=(), prune_before=0,
        )
    )  # fmt: skip
    return store


def report(status: ClosingStatus, *decisions: Decision) -> TickReport:
    snapshot = Snapshot(START, (), "killswitch.snapshot/v1", closings=(Closing("d1", status),))
    return TickReport(snapshot, decisions, (), ("d1",), (), 0.0)


def test_a_run_does_not_repeat_the_results_of_earlier_closes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The earlier run printed what ended before the first tick; this run prints closes in progress."""
    store = store_with(tmp_path, ())
    terminal = RunConsole(store, Incidents(), json=False)
    terminal.ticked(report("flat"))
    terminal.ticked(report("flat"))
    assert "closing" not in capsys.readouterr().err
    terminal.ticked(report("closing"))
    assert "closing d1: closing" in capsys.readouterr().err
    store.close()


def test_a_run_on_a_terminal_says_every_minute_that_it_watches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first tick and a minute later, with the trigger nearest to its threshold; nothing where it is no terminal.

    Of 10%, a fall of 6.2% is 62%; 2% of 4% is less; an unknown trigger is counted, and never the nearest.
    """
    triggers = (
        observed_trigger(">=", (0.02, 0.02), (0.02, 0.02), truth=False),
        observed_trigger(">=", (0.062, 0.062), (0.038, 0.038), truth=False),
        observed_trigger(">=", (0.0, 1.0), (-0.9, 0.1), truth=None),
    )
    machine = MachineStatus("p", "account/main", "enforce", 0, None, None, None, None, triggers)

    def printed(*seconds: int) -> list[str]:
        store = store_with(tmp_path, ())
        terminal = RunConsole(store, Incidents(), json=False)
        for second in seconds:
            quiet = report("flat")
            at = replace(quiet.snapshot, as_of=START + timedelta(seconds=second), accounts=(), closings=())
            terminal.ticked(replace(quiet, snapshot=at, machines=lambda: (machine,)))
        store.close()
        return capsys.readouterr().err.splitlines()

    assert printed(0, 60) == []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    lines = "\n".join(printed(0, 1, 59, 61, 62)).replace("\n  ", " ").splitlines()  # wrapped by the width
    line = "watching 0 accounts; nearest: fall of p on account/main, 62% of its threshold; 1 trigger unknown"
    assert [" ".join(each.split()) for each in lines] == [
        f"{instant(START + timedelta(seconds=at))} {line}" for at in (0, 61)
    ]


@pytest.mark.parametrize("decided_here", [True, False], ids=["decided in this run", "decided in an earlier run"])
@pytest.mark.parametrize(("left", "message"), [("0", "flat"), ("5", "at target")])
def test_a_run_prints_why_a_stage_fired_and_the_status_of_its_close_as_history_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str, message: str, decided_here: bool
) -> None:
    """A trim that keeps half is at target, not flat, whether this run or an earlier one decided it."""
    intent = Intent("main", "BTC", "long", "sell", Decimal(5), Decimal(left), reduce_only=True, rank=1)
    fired = Decision(
        id="d1", as_of=START, policy="stop", policy_set="sha256:test", scope="account/main", mode="enforce",
        stage="trim", level=1, previous_level=0, intents=(intent,),
        triggers=(TriggerReading("loss", ("0.051", "0.051"), "0.045", START),),
    )  # fmt: skip
    journal = [
        JournalEntry("d1", "planned", START, "main", "BTC", "long", None, None, {"target": left}),
        JournalEntry("d1", "finished", START, "main", None, None, None, None, {"status": "flat"}),
    ]
    store = store_with(tmp_path, journal, fired)
    terminal = RunConsole(
        store,
        Incidents(),
        json=False,
        thresholds={
            ("stop", "loss"): TriggerText(
                WrittenAt("policy.yaml", 1, "loss:"), "equity.drawdown", "fraction", ">= 4.5%"
            )
        },
    )
    terminal.ticked(report("closing", fired) if decided_here else report("closing"))
    terminal.ticked(report("flat"))
    printed = capsys.readouterr()
    assert f"closing d1: {message}" in printed.err
    ((_, result),) = newest_results(store, 9)
    assert result.standing == message
    if decided_here:
        assert "loss: 5.10% against >= 4.5%" in printed.out
        assert "level 1 trim: stop on account/main  [d1]" in printed.out
    store.close()


def test_a_latch_and_lock_of_a_renamed_policy_are_shown_and_ended_by_a_reset(tmp_path: Path) -> None:
    """An edit never un-latches: status and run name what remains, and a reset ends it and lifts its lock for good."""
    world = World(tmp_path)
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue))
    renamed = graphs.policy_set(replace(crash_policy(), policy="renamed"))

    async def run_again(*observers: Observer) -> None:
        runner = world.runner(store, [venue], policies=renamed, witnesses=observers)
        await runner.start()
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.finish()

    lock = tmp_path / "locks" / "account__main.json"
    asyncio.run(run_again(RunConsole(store, Incidents(), json=False)))
    expected = "level 3 close-everything of crash on account/main is still latched"
    status_now = store_status(store, world.clock.now(), 0)
    assert expected in status_text(status_now, "s")
    assert status_now.view is not None
    assert "account/main" in watched_scopes(status_now.view)
    assert read_lock(lock, world.clock.now()).locked
    store.put_event(operator_event("reset", "account/main", "operator-1", "reviewed", world.clock.now()))
    asyncio.run(run_again())
    asyncio.run(run_again())
    assert not read_lock(lock, world.clock.now()).locked
    assert expected not in status_text(store_status(store, world.clock.now(), 0), "s")
    world.close()


def test_a_dry_run_with_an_account_down_names_no_command(deployment: Deployment) -> None:
    """Nothing is stored, so that there is no id with which the wait could be given up."""
    deployment.run()
    shown = deployment.invoke(close, "--reason", "r", "--dry-run")
    assert shown.exit_code == 1
    assert "the close by hand waits: main is down" in shown.stderr
    assert "hand-" not in shown.stderr
    assert "--give-up" not in shown.stderr
