"""Pending commands that a tick without a runner processes or leaves, and a command whose runner ends first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from killswitch.cli.live.status import status
from killswitch.cli.operate import single_tick
from killswitch.cli.operate.command_output import continuation_text, printing_unfinished
from killswitch.cli.operate.verbs import close, reset
from killswitch.model.decision import Notice
from killswitch.model.instant import to_micros
from killswitch.model.legible import one_line
from killswitch.model.snapshot import Event
from killswitch.model.store import StoredDecision
from killswitch.operations.commands import CommandAnswer, answer_to, operator_event
from killswitch.operations.pages.wording import headline
from killswitch.render.layout import table
from killswitch.runner.lease import this_process
from killswitch.store.sqlite import open_store
from tests import incidents
from tests.unit.operations.test_operator_commands import Deployment
from tests.worlds import START


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def pending_close(deployment: Deployment) -> Event:
    """A close command of yesterday that no tick has processed."""
    event = operator_event("close", "account/main", "ada", "the desk", datetime.now(UTC) - timedelta(days=1))
    store = open_store(str(deployment.store))
    store.put_event(event)
    store.close()
    return event


def test_a_command_names_the_pending_commands_that_its_tick_processes(deployment: Deployment) -> None:
    """A reset whose tick processes a close that another operator left pending must not do so silently."""
    deployment.run()
    event = pending_close(deployment)
    result = deployment.invoke(reset, "account/main", "--reason", "r", "--live")
    assert (
        f"also processed here: pending command: close account/main by ada, 1d ago: the desk [{event.id}]"
        in result.stderr
    )
    assert deployment.pending() == 0


def test_a_close_on_a_missing_store_names_the_command_that_creates_it(deployment: Deployment) -> None:
    """A close has to be possible where no runner ever ran; a reset has nothing to do there."""
    refused = deployment.invoke(close, "--reason", "drill", "--live")
    assert f"`ksctl run --ticks 1 --policies … --store {deployment.store}` creates it" in refused.stderr
    assert "creates it" not in deployment.invoke(reset, "account/main", "--reason", "r").stderr


class FakeRunner:
    """A runner with nothing to close. Each tick processes the pending commands; one arrives during the first."""

    def __init__(self, waiting: Sequence[Event] = (), late: Sequence[Event] = ()) -> None:
        self.waiting = list(waiting)
        self.late = list(late)
        self.ticks = 0

    def put_event(self, event: Event) -> None:
        self.waiting.append(event)

    def pending_events(self) -> list[Event]:
        return list(self.waiting)

    async def start(self) -> None: ...

    async def tick(self) -> None:
        self.ticks += 1
        self.waiting, self.late = self.late, []

    async def close_within(self, within: float, *, fees: bool = False) -> bool:
        assert within <= single_tick.COMMAND_POLL_SECONDS
        return True

    async def finish(self) -> None:
        assert not self.waiting, "a command was stored, and the runner ends without processing it"

    async def shut_down(self) -> None: ...


def test_a_command_that_arrives_while_another_one_is_the_runner_is_processed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its author was told that a runner is alive here: one more tick runs."""
    monkeypatch.setattr("killswitch.operations.commands.answer_to", lambda *_: CommandAnswer((), ()))
    mine, other = (operator_event("close", None, who, "r", START) for who in ("ada", "bob"))
    runner = FakeRunner(late=[other])
    asyncio.run(single_tick.run_one_tick(runner, runner, mine, 5.0))  # type: ignore[arg-type] # a runner and a store in one
    assert runner.ticks == 2
    assert "new command: running another tick" in capsys.readouterr().err


class FakeRunnerWithLateFees(FakeRunner):
    """Nothing is left to close, and the fees of the orders are known after `fees_after` seconds of a clock."""

    def __init__(self, fees_after: float, late: Sequence[Event] = ()) -> None:
        super().__init__(late=list(late))
        self.seconds = 0.0
        self.fees_after = fees_after

    def monotonic(self) -> float:
        return self.seconds

    async def close_within(self, within: float, *, fees: bool = False) -> bool:
        assert within <= single_tick.COMMAND_POLL_SECONDS
        if not fees or self.seconds >= self.fees_after:
            return True
        self.seconds += max(0.0, min(within, self.fees_after - self.seconds))
        return self.seconds >= self.fees_after


@pytest.mark.parametrize(
    ("fees_after", "wait", "expected_seconds"),
    [(0.0, 60.0, 0.0), (1.25, 60.0, 1.25), (90.0, 60.0, 3.0), (90.0, 2.0, 2.0)],
)
def test_a_command_waits_for_fees_for_at_most_three_seconds(
    fees_after: float, wait: float, expected_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fees that are known in time are used; the wait does not exceed --wait either."""
    runner = FakeRunnerWithLateFees(fees_after)
    monkeypatch.setattr("killswitch.operations.commands.answer_to", lambda *_: CommandAnswer((), ()))
    monkeypatch.setattr("killswitch.cli.operate.single_tick.time", runner)
    asyncio.run(single_tick.run_one_tick(runner, runner, operator_event("close", None, "ada", "r", START), wait))  # type: ignore[arg-type]  # a double of what it calls
    assert (runner.seconds, runner.ticks) == (expected_seconds, 1)


def test_a_command_that_waits_for_fees_still_processes_another_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It arrives in the first tick and is processed half a second later; the fees take ninety seconds."""
    mine, other = (operator_event("close", None, who, "r", START) for who in ("ada", "bob"))
    runner = FakeRunnerWithLateFees(90.0, (other,))
    monkeypatch.setattr("killswitch.operations.commands.answer_to", lambda *_: CommandAnswer((), ()))
    monkeypatch.setattr("killswitch.cli.operate.single_tick.time", runner)
    asyncio.run(single_tick.run_one_tick(runner, runner, mine, 60.0))  # type: ignore[arg-type] # a runner and a store in one
    assert (runner.ticks, runner.seconds) == (2, 0.5 + single_tick.FEE_WAIT_SECONDS)
    assert "new command: running another tick" in capsys.readouterr().err


def test_an_interrupted_close_names_what_is_left_and_that_no_runner_works_on_it(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C with a pending command: the command is named, and so is what would process it."""
    deployment.run()
    event = pending_close(deployment)
    store = open_store(str(deployment.store))
    with pytest.raises(KeyboardInterrupt), printing_unfinished(store):
        raise KeyboardInterrupt
    printed = capsys.readouterr().err
    assert f"interrupted: pending command: close account/main by ada, 1d ago: the desk [{event.id}]" in printed
    assert "no runner is working on it: start `ksctl run --live` on this store" in printed
    now = to_micros(datetime.now(UTC))
    store.acquire("another.host:4711:x", now, 60_000_000)
    assert "continues it; `ksctl status --watch` follows it" in continuation_text(store)
    store.close()


def test_escape_sequences_in_a_reason_cannot_move_the_cursor(deployment: Deployment) -> None:
    """A reason with an escape sequence and a line break is printed on one line, with both escaped."""
    evil = "done\x1b[2K\rflat\nall is well"
    plain = r"done\x1b[2K\rflat\nall is well"
    assert one_line(evil) == plain
    made = incidents.firing("d" * 20, START, "trim", 1, 0, kind="manual", author="ada", reason=evil)
    assert plain in headline(made)
    assert table(("why",), [(evil,)], indent="").splitlines() == ["why", plain]
    deployment.run()
    assert (
        r"\x1b[2K\r"
        in deployment.invoke(close, "--reason", evil, "--live", "--author", "ada", "--wait", "1s").stderr
        + deployment.invoke(status).stdout
    )
    assert one_line("Größe 5 € – ok") == "Größe 5 € – ok"


class StoreWithManyNotices:
    """A store in which the tick that processed a command stored up to a thousand notices after its answer."""

    def __init__(self, event: Event, after_it: int) -> None:
        at = event.at + timedelta(seconds=1)
        answer = Notice(at, "operator", "account/main", "warning", "page", "the answer", event.id)
        before = [Notice(START, "p", "s", "warning", "page", f"old {n}") for n in range(5000)]
        self.stored_notices = [
            *before,
            answer,
            *(Notice(at, "p", "s", "warning", "page", str(n)) for n in range(after_it)),
        ]
        self.limits: list[int] = []

    def notices(self, limit: int) -> list[Notice]:
        self.limits.append(limit)
        return self.stored_notices[::-1][:limit]

    def decisions(self, _limit: int) -> list[StoredDecision]:
        return []


@pytest.mark.parametrize(("after_it", "limits"), [(10, [50]), (49, [50, 500]), (1000, [50, 500, 5000])])
def test_the_answer_to_a_command_is_found_however_many_notices_follow(after_it: int, limits: list[int]) -> None:
    """The search goes back to the time of the command, and no further."""
    event = operator_event("close", None, "ada", "r", START + timedelta(hours=1))
    store = StoreWithManyNotices(event, after_it)
    assert [each.text for each in answer_to(store, event).notices] == ["the answer"]  # type: ignore[arg-type] # enough of a store
    assert store.limits == limits


@pytest.mark.parametrize("live", [False, True])
def test_a_command_continues_when_the_runner_ends_before_processing_it(deployment: Deployment, *, live: bool) -> None:
    """Without --live the command stays pending and says so; with --live it runs here, and waits for the venue only."""
    deployment.run()
    store = open_store(str(deployment.store))
    store.acquire("another.host:4711:x", to_micros(datetime.now(UTC)), 1_000_000)
    store.close()
    fees_after = deployment.invoke(close, "--reason", "drill", "--wait", "2s", *(("--live",) if live else ()))
    ended = "ended before it processed hand-"
    if live:
        assert ended in fees_after.stderr
        assert "continuing from here" in fees_after.stderr
        assert "some accounts cannot be read: retrying" in fees_after.stderr
        assert "the close is incomplete, and the command waits for the rest (hand-" in fees_after.stderr
    else:
        assert fees_after.exit_code == 1
        assert "the command waits, and the next tick of any runner on this store processes it" in fees_after.stderr
    assert fees_after.exit_code == 1
    assert deployment.pending() == 1


def test_a_runner_that_hangs_is_not_said_to_have_ended(deployment: Deployment) -> None:
    """Its process is there, and its lease is over: whoever reads "ended" starts a second one."""
    deployment.run()
    store = open_store(str(deployment.store))
    store.acquire(this_process(), to_micros(datetime.now(UTC)), 1_000_000)
    store.close()
    result = deployment.invoke(close, "--reason", "drill", "--wait", "2s")
    assert result.exit_code == 1
    assert "hangs, and has not processed hand-" in result.stderr
    assert "the command waits, and the next tick of any runner on this store processes it" in result.stderr
