"""`ksctl status --watch`: every change of a running close, until nothing is closing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.cli.live import close_progress
from killswitch.cli.live.close_progress import CloseWatch, TerminalProgress, follow
from killswitch.model.decision import Decision, Intent
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.store import JournalEntry, JournalKind, TickRecord
from killswitch.operations.commands import operator_event
from killswitch.runner.lease import this_process
from killswitch.store.sql import SqlStore
from tests.runner_world import World

NOW = datetime.now(UTC)


class Closing:
    """A store on which a living runner closes A and B; every look of a watcher lets the next step happen."""

    def __init__(self, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.steps: list[Callable[[], None]] = []
        self.slept = 0.0
        store.acquire(this_process(), to_micros(NOW), 3600 * SECOND)
        monkeypatch.setattr(close_progress.time, "sleep", self._sleep)
        monkeypatch.setattr(close_progress.time, "monotonic", lambda: self.slept)

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds
        assert self.slept < 60, "watching has no end"
        if self.steps:
            self.steps.pop(0)()

    def decide(self, id_: str = "d1") -> None:
        intents = tuple(
            Intent("main", symbol, "long", "sell", Decimal(1), Decimal(0), reduce_only=True, rank=1) for symbol in "AB"
        )
        decision = Decision(
            id=id_, as_of=NOW, policy="operator", policy_set="sha256:test", scope="account/main", mode="enforce",
            stage=None, level=0, previous_level=0, kind="manual", intents=intents, author="op", reason="seen",
        )  # fmt: skip
        planned = tuple(
            JournalEntry(id_, "planned", NOW, "main", each, "long", data={"contracts": "1", "target": "0"})
            for each in "AB"
        )
        self.store.commit_tick(
            TickRecord(NOW, "sha256:test", (), (), (decision,), (), planned, None, (), prune_before=0)
        )

    def write(self, kind: JournalKind, symbol: str | None = None, **data: str) -> Callable[[], None]:
        entry = JournalEntry(
            "d1", kind, NOW + timedelta(seconds=1), "main", symbol, symbol and "long", symbol and f"o-{symbol}",
            data=dict(data),
        )  # fmt: skip
        return lambda: self.store.append(entry) and None


@pytest.fixture
def closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Closing]:
    world = World(tmp_path)
    yield Closing(world.open(), monkeypatch)
    world.close()


def to_the_end(closing: Closing, status: str) -> None:
    closing.steps += [
        closing.write("sending", "A", side="sell", amount="1"),
        lambda: None,
        closing.write("filled", "A", state="filled", filled="1", price="10", fee="0"),
        closing.write("verified", "A", position="0", target="0"),
        closing.write("finished", status=status, reason="B is halted"),
    ]


def test_nothing_closing_is_said_and_fine(closing: Closing, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to wait for."""
    assert follow(closing.store, json=False, terminal=False) == 0
    assert capsys.readouterr().err == "no close is in progress\n"


@pytest.mark.parametrize(("status", "code"), [("flat", 0), ("blocked", 1)])
def test_elsewhere_than_on_a_terminal_each_change_is_a_line(
    closing: Closing, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    """Five things happen, one look shows nothing new: no line for it. The exit says whether it is flat."""
    closing.decide()
    to_the_end(closing, status)
    assert follow(closing.store, json=False, terminal=False) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "closing: 0 of 2 positions done; orders: 0 sent, 0 filled, 0 unknown;" in lines[0]
    assert "closing: 1 of 2 positions done; orders: 1 sent, 1 filled, 0 unknown;" in lines[3]
    assert f"{status}: {2 if status == 'flat' else 1} of 2 positions done" in lines[4]
    assert ("held up: ? B long on main: B is halted" in lines[4]) is (status == "blocked")


def test_as_json_each_change_is_an_object(closing: Closing, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a change, with the format's name, and null with the reason where no end can be expected."""
    closing.decide()
    to_the_end(closing, "flat")
    assert follow(closing.store, json=True, terminal=True) == 0
    first, *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["format"] == "killswitch.progress/v1"
    assert (first["expected_end"], first["unknown_because"]) == (None, "nothing has filled yet")
    assert (last["standing"], last["done"], last["open"]) == ("flat", 2, 0)


def test_a_hand_that_waits_for_its_tick_is_waited_for(closing: Closing) -> None:
    """Watched from a second window, a close that was just given is not missed."""
    event = operator_event("close", None, "op", "seen", NOW)
    closing.store.put_event(event)

    def take() -> None:
        closing.decide()
        closing.store.commit_tick(TickRecord(NOW, "s", (), (), (), (), (), None, (event.id,), prune_before=0))

    closing.steps = [lambda: None, take, closing.write("finished", status="flat")]
    assert follow(closing.store, json=False, terminal=False) == 0
    assert closing.steps == []


def test_a_close_that_begins_and_ends_between_two_looks_is_shown(closing: Closing) -> None:
    """A fast venue must not make a close invisible."""
    watch = CloseWatch(closing.store)
    assert watch.poll(NOW) == ()
    closing.decide()
    closing.write("finished", status="flat")()
    (shown,) = watch.poll(NOW)
    assert (shown.decision, shown.standing) == ("d1", "flat")


def test_what_ended_before_is_not_shown(closing: Closing) -> None:
    """Watching is about what is under way, and what begins meanwhile."""
    closing.decide()
    closing.write("finished", status="blocked")()
    assert CloseWatch(closing.store).poll(NOW) == ()


def test_without_a_runner_watching_ends_and_says_so(closing: Closing, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody works on is not waited for longer than a restart takes."""
    closing.decide()
    closing.store.release(this_process())
    assert follow(closing.store, json=False, terminal=False) == 1
    captured = capsys.readouterr()
    assert "end unknown: no runner is running to work on it" in captured.out
    assert "`ksctl run --live` resumes the remaining work" in captured.err
    assert closing.slept == pytest.approx(close_progress.MAX_SECONDS_WITHOUT_RUNNER)


def test_an_interrupted_watch_says_that_the_closing_goes_on(
    closing: Closing, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the looking, not the close: no traceback, and the exit code of an interrupt."""
    closing.decide()

    def interrupt() -> None:
        raise KeyboardInterrupt

    closing.steps = [interrupt]
    assert follow(closing.store, json=False, terminal=False) == 130
    assert capsys.readouterr().err == "stopped watching; the close continues\n"


def test_a_terminal_is_redrawn_in_place_and_never_overrun(
    closing: Closing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many lines up as were drawn; a small terminal gets fewer and shorter lines."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "5")
    closing.decide()
    closing.write("rejected", "A")()
    watch, screen = CloseWatch(closing.store), TerminalProgress()
    screen.show(watch.poll(NOW))
    first = capsys.readouterr().out
    screen.show(watch.poll(NOW))
    again = capsys.readouterr().out
    assert all(len(row) < 30 for row in first.splitlines())
    assert len(first.splitlines()) <= 4
    assert again == f"\x1b[{len(first.splitlines())}F\x1b[J{first}"
