"""Hands where no runner lives: what they refuse, what they leave behind, and where they find the locks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli.live.run import RunConsole, run
from killswitch.cli.live.status import status
from killswitch.cli.live.status_text import status_text
from killswitch.cli.operate.verbs import close, reset
from killswitch.gate.lock_reader import read_lock
from killswitch.incident.record.results import newest_results
from killswitch.incident.record.source_places import TriggerText, WrittenAt
from killswitch.model.decision import Decision, Intent, TriggerReading
from killswitch.model.snapshot import Closing, ClosingStatus, Snapshot
from killswitch.model.store import JournalEntry, Store, TickRecord
from killswitch.operations.commands import operator_event, watched_scopes
from killswitch.operations.status import store_status
from killswitch.runner.locks.lock_writer import LockWriter
from killswitch.runner.observers import Observer, TickReport
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, World, crash_policy
from tests.unit.operations.test_live_verbs import ACCOUNT, WATCH
from tests.unit.runner.test_loop import crash
from tests.worlds import START

NOBODY = "http://127.0.0.1:9"
"""Where no venue answers: the account is down, and everything else goes on."""


class Site:
    """Policies and an account that is armed and down, a store, and a lock folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.union = folder / "s", folder / "union.json"
        self.file = folder / "s.locks" / "account__main.json"
        (folder / "p").mkdir()
        (folder / "p" / "watch.yaml").write_text(WATCH, encoding="utf-8")
        (folder / "p" / "account.yaml").write_text(ACCOUNT % f", endpoint: '{NOBODY}'", encoding="utf-8")

    def run(self, *more: str) -> Result:
        return self.told(run, "--policies", str(self.folder / "p"), "--ticks", "1", "--live", *more)

    def told(self, command: object, *arguments: str) -> Result:
        arguments = (*arguments, "--store", str(self.store))
        return CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type] # a command

    def pending(self) -> int:
        store = open_store(str(self.store), read_only=True)
        try:
            return len(store.pending_events())
        finally:
            store.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("command", [close, reset])
def test_a_hand_at_a_store_that_is_not_there_is_refused_and_makes_none(site: Site, command: object) -> None:
    """A mistyped --store must not act beside the one that the runner has."""
    scope = ("account/main",) if command is reset else ()
    refused = site.told(command, *scope, "--reason", "r", "--live", "--policies", str(site.folder / "p"))
    assert refused.exit_code == 1
    assert "there is no store at" in refused.stderr
    assert [path.name for path in site.folder.iterdir()] == ["p"]


def test_a_close_that_nobody_would_carry_out_is_refused(site: Site) -> None:
    """No runner lives and --live is not given: wrong usage, with both ways out."""
    site.run()
    refused = site.told(close, "--reason", "r")
    assert refused.exit_code == 2
    assert "add --live, or --dry-run to see them" in refused.stderr


def test_an_unarmed_reset_does_not_tick_where_documents_are_live(site: Site) -> None:
    """Whatever fired in its tick would be latched, only observed, and never acted on by the runner after it."""
    site.run()
    before = site.store.read_bytes()
    refused = site.told(reset, "account/main", "--reason", "r")
    assert refused.exit_code == 2
    assert "Add --live" in refused.stderr
    assert site.store.read_bytes() == before
    assert site.told(reset, "account/main", "--reason", "r", "--live").exit_code == 0


def test_a_hand_that_fails_before_its_tick_leaves_no_order_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said that it failed; a later runner must not carry it out in silence."""
    site.run()

    async def refuse(_: LockWriter) -> tuple[str, ...]:
        raise StoreError("refused for the test")

    monkeypatch.setattr(LockWriter, "recover", refuse)
    refused = site.told(close, "--reason", "r", "--live")
    assert refused.exit_code == 1
    assert "refused for the test" in refused.stderr
    assert site.pending() == 0


@pytest.mark.parametrize("obstacle", ["generation", "folder"])
def test_a_close_by_hand_comes_before_its_lock(site: Site, obstacle: str) -> None:
    """Whoever may write in the lock folder, or a folder that takes nothing more, keeps no close from being given."""
    site.run()
    if obstacle == "generation":
        site.file.write_text(json.dumps(json.loads(site.file.read_text()) | {"generation": 99}))
        words = "generation 99"
    else:
        site.file.unlink()
        for each in site.file.parent.iterdir():
            each.unlink()
        site.file.parent.rmdir()
        site.file.parent.write_text("in the way")
        words = "no lock can be written in"
    given = site.told(close, "--reason", "r", "--live", "--wait", "1ms")
    assert "no runner is alive here: running one tick; armed: main" in given.stderr, given.stderr
    assert words in given.stderr + site.told(status).stdout
    assert "the close by hand waits: main is down" in given.stdout, "no tick has taken it"


def test_a_hand_finds_the_locks_where_the_last_runner_wrote_them(site: Site) -> None:
    """Neither --lock-dir nor --lock-file need be said again: folder and union are both lifted, and it is said."""
    site.file = site.folder / "elsewhere" / "account__main.json"
    site.run("--lock-dir", str(site.file.parent), "--lock-file", str(site.union))
    site.file.write_bytes(b"garbage")
    site.union.unlink()
    done = site.told(reset, "account/main", "--reason", "r", "--live")
    assert done.exit_code == 0, done.stderr
    assert "account/main is not locked" in done.stdout
    assert [json.loads(path.read_text())["locked"] for path in (site.file, site.union)] == [False, False]


def test_an_unarmed_run_does_not_forget_where_the_locks_are(site: Site) -> None:
    """It writes none itself, and the next hand must still find those of the run before it."""
    site.run("--lock-file", str(site.union))
    site.told(run, "--policies", str(site.folder / "p"), "--ticks", "1")
    shown = json.loads(site.told(status, "--output", "json").stdout)["view"]
    assert (shown["lock_folder"], shown["union"]) == (str(site.file.parent), str(site.union))


def test_a_reset_of_foreign_is_accepted_while_such_a_lock_stands(site: Site) -> None:
    """No policy watches that scope; the lock on it is reason enough."""
    site.union.write_text('{"locked": true}')
    site.run("--lock-file", str(site.union))
    assert json.loads(site.union.read_text())["locked"] is True
    done = site.told(reset, "foreign", "--reason", "r", "--live")
    assert "foreign is not locked" in done.stdout, done.stderr
    assert json.loads(site.union.read_text())["locked"] is False
    assert site.told(reset, "foreign", "--reason", "r", "--live").exit_code == 1


@pytest.mark.parametrize(
    ("option", "place", "says"),
    [
        ("--lock-file", "nowhere/lock.json", "no lock can be written in"),
        ("--lock-file", "s.locks/portfolio.json", "cannot be the file for all scopes"),
        ("--lock-dir", "p/watch.yaml/locks", "no lock can be written in"),
    ],
)
def test_an_armed_run_that_could_write_no_lock_does_not_begin(site: Site, option: str, place: str, says: str) -> None:
    """Better refused at the start, in words, than found out at the first crash."""
    refused = site.run(option, str(site.folder / place))
    assert refused.exit_code == 1
    assert says in refused.stderr
    assert not site.store.exists()


def test_an_armed_run_does_not_begin_on_the_lock_file_of_another_that_lives(site: Site) -> None:
    """Each would take the other's lock for one that it must not open."""
    site.run("--lock-file", str(site.union), "--lock-dir", str(site.folder / "other"))
    refused = site.run("--lock-file", str(site.union))
    assert refused.exit_code == 1
    assert "give each runner a lock file of its own" in refused.stderr


def kept(folder: Path, journal: Sequence[JournalEntry], *decisions: Decision) -> Store:
    """A store that remembers these."""
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


def test_a_run_does_not_tell_again_how_earlier_closings_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was over before the first tick is the earlier run's news; what is under way is ours."""
    store = kept(tmp_path, ())
    terminal = RunConsole(store, json=False)
    terminal.ticked(report("flat"))
    terminal.ticked(report("flat"))
    assert "closing" not in capsys.readouterr().err
    terminal.ticked(report("closing"))
    assert "closing d1: closing" in capsys.readouterr().err
    store.close()


@pytest.mark.parametrize("here", [True, False], ids=["decided in this run", "decided in an earlier run"])
@pytest.mark.parametrize(("left", "says"), [("0", "flat"), ("5", "at target")])
def test_a_run_says_why_a_stage_fired_and_how_its_close_ended_in_the_word_of_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str, says: str, here: bool
) -> None:
    """A trim that leaves half by decision has reached its target; the account is not flat. Whoever decided it."""
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
    store = kept(tmp_path, journal, fired)
    terminal = RunConsole(
        store,
        json=False,
        thresholds={
            ("stop", "loss"): TriggerText(
                WrittenAt("policy.yaml", 1, "loss:"), "equity.drawdown", "fraction", ">= 4.5%"
            )
        },
    )
    terminal.ticked(report("closing", fired) if here else report("closing"))
    terminal.ticked(report("flat"))
    said = capsys.readouterr()
    assert f"closing d1: {says}" in said.err
    ((_, result),) = newest_results(store, 9)
    assert result.standing == says
    if here:
        assert "loss: 5.10% against >= 4.5%" in said.out
        assert "level 1 trim: stop on account/main  [d1]" in said.out
    store.close()


def test_a_latch_and_lock_whose_policy_was_renamed_are_shown_and_ended_by_a_hand(tmp_path: Path) -> None:
    """An edit never un-latches: status and run name what is left, and a reset ends it and lifts its lock for good."""
    world = World(tmp_path)
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue))
    renamed = graphs.policy_set(replace(crash_policy(), policy="renamed"))

    async def again(*witnesses: Observer) -> None:
        runner = world.runner(store, [venue], policies=renamed, witnesses=witnesses)
        await runner.start()
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.finish()

    lock = tmp_path / "locks" / "account__main.json"
    asyncio.run(again(RunConsole(store, json=False)))
    words = "level 3 close-everything of crash on account/main is still latched"
    standing = store_status(store, world.clock.now(), 0)
    assert words in status_text(standing, "s")
    assert standing.view is not None
    assert "account/main" in watched_scopes(standing.view)
    assert read_lock(lock, world.clock.now()).locked
    store.put_event(operator_event("reset", "account/main", "operator-1", "reviewed", world.clock.now()))
    asyncio.run(again())
    asyncio.run(again())
    assert not read_lock(lock, world.clock.now()).locked
    assert words not in status_text(store_status(store, world.clock.now(), 0), "s")
    world.close()
