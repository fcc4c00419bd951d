"""`ksctl status --watch` prints every change of a running close until no close is in progress."""

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


class WatchedStore:
    """A store on which a living runner closes A and B; each poll of the watcher performs the next step."""

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
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WatchedStore]:
    world = World(tmp_path)
    yield WatchedStore(world.open(), monkeypatch)
    world.close()


def add_steps_to_the_end(watched: WatchedStore, status: str) -> None:
    watched.steps += [
        watched.write("sending", "A", side="sell", amount="1"),
        lambda: None,
        watched.write("filled", "A", state="filled", filled="1", price="10", fee="0"),
        watched.write("verified", "A", position="0", target="0"),
        watched.write("finished", status=status, reason="B is halted"),
    ]


def test_a_watch_without_a_close_in_progress_says_so_and_exits_0(
    watched: WatchedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing has to be awaited."""
    assert follow(watched.store, json=False, terminal=False) == 0
    assert capsys.readouterr().err == "no close is in progress\n"


@pytest.mark.parametrize(("status", "code"), [("flat", 0), ("blocked", 1)])
def test_without_a_terminal_each_change_is_one_line(
    watched: WatchedStore, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    """Each of five changes is one line, a poll without a change none. The exit code tells whether the close is flat."""
    watched.decide()
    add_steps_to_the_end(watched, status)
    assert follow(watched.store, json=False, terminal=False) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "closing: 0 of 2 positions done; orders: 0 sent, 0 filled, 0 unknown;" in lines[0]
    assert "closing: 1 of 2 positions done; orders: 1 sent, 1 filled, 0 unknown;" in lines[3]
    assert f"{status}: {2 if status == 'flat' else 1} of 2 positions done" in lines[4]
    assert ("held up: ? B long on main: B is halted" in lines[4]) is (status == "blocked")


def test_as_json_each_change_is_one_object(watched: WatchedStore, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per change with the format's name; without an expected end, null and the reason."""
    watched.decide()
    add_steps_to_the_end(watched, "flat")
    assert follow(watched.store, json=True, terminal=True) == 0
    first, *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["format"] == "killswitch.progress/v1"
    assert (first["expected_end"], first["unknown_because"]) == (None, "nothing has filled yet")
    assert (last["standing"], last["done"], last["open"]) == ("flat", 2, 0)


def test_a_watch_waits_for_a_command_that_no_tick_has_processed(watched: WatchedStore) -> None:
    """A watch in a second window does not miss a close that was just requested."""
    event = operator_event("close", None, "op", "seen", NOW)
    watched.store.put_event(event)

    def process_command() -> None:
        watched.decide()
        watched.store.commit_tick(TickRecord(NOW, "s", (), (), (), (), (), None, (event.id,), prune_before=0))

    watched.steps = [lambda: None, process_command, watched.write("finished", status="flat")]
    assert follow(watched.store, json=False, terminal=False) == 0
    assert watched.steps == []


def test_a_close_that_begins_and_ends_between_two_polls_is_shown(watched: WatchedStore) -> None:
    """A close on a fast venue must not be missed."""
    watch = CloseWatch(watched.store)
    assert watch.poll(NOW) == ()
    watched.decide()
    watched.write("finished", status="flat")()
    (progress,) = watch.poll(NOW)
    assert (progress.decision, progress.standing) == ("d1", "flat")


def test_a_close_that_ended_before_the_watch_is_not_shown(watched: WatchedStore) -> None:
    """A watch shows closes in progress, and those that begin during it."""
    watched.decide()
    watched.write("finished", status="blocked")()
    assert CloseWatch(watched.store).poll(NOW) == ()


def test_without_a_runner_the_watch_ends_and_says_so(watched: WatchedStore, capsys: pytest.CaptureFixture[str]) -> None:
    """The watch waits for a runner only as long as a restart takes."""
    watched.decide()
    watched.store.release(this_process())
    assert follow(watched.store, json=False, terminal=False) == 1
    captured = capsys.readouterr()
    assert "end unknown: no runner is running to work on it" in captured.out
    assert "`ksctl run --live` resumes the remaining work" in captured.err
    assert watched.slept == pytest.approx(close_progress.MAX_SECONDS_WITHOUT_RUNNER)


def test_an_interrupted_watch_says_that_the_close_continues(
    watched: WatchedStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the watch, not the close: no traceback, and the exit code of an interrupt."""
    watched.decide()

    def interrupt() -> None:
        raise KeyboardInterrupt

    watched.steps = [interrupt]
    assert follow(watched.store, json=False, terminal=False) == 130
    assert capsys.readouterr().err == "stopped watching; closing is not affected\n"


def test_a_terminal_is_redrawn_in_place_within_its_size(
    watched: WatchedStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor moves up by the lines drawn before; a small terminal gets fewer and shorter lines."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "5")
    watched.decide()
    watched.write("rejected", "A")()
    watch, screen = CloseWatch(watched.store), TerminalProgress()
    screen.show(watch.poll(NOW))
    first = capsys.readouterr().out
    screen.show(watch.poll(NOW))
    again = capsys.readouterr().out
    assert all(len(row) < 30 for row in first.splitlines())
    assert len(first.splitlines()) <= 4
    assert again == f"\x1b[{len(first.splitlines())}F\x1b[J{first}"
