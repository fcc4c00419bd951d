"""What a hand takes up besides, what it leaves behind, and how it goes on where a runner does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from killswitch.cli.live.status import status
from killswitch.cli.operate import single_tick
from killswitch.cli.operate.command_output import continuation_text, printing_unfinished
from killswitch.cli.operate.verbs import close, reset
from killswitch.cli.wording import headline, table
from killswitch.model.decision import Notice
from killswitch.model.instant import to_micros
from killswitch.model.legible import one_line
from killswitch.model.snapshot import Event
from killswitch.model.store import StoredDecision
from killswitch.operations.commands import CommandAnswer, answer_to, operator_event
from killswitch.store.sqlite import open_store
from tests import incidents
from tests.unit.operations.test_hands import Site
from tests.worlds import START


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def waiting_close(site: Site) -> Event:
    """A close of yesterday that nobody has taken."""
    event = operator_event("close", "account/main", "ada", "the desk", datetime.now(UTC) - timedelta(days=1))
    store = open_store(str(site.store))
    store.put_event(event)
    store.close()
    return event


def test_a_hand_says_which_other_hands_its_tick_takes_up(site: Site) -> None:
    """A reset whose tick carries out a close that somebody else has left behind must not do so in silence."""
    site.run()
    event = waiting_close(site)
    done = site.told(reset, "account/main", "--reason", "r", "--live")
    assert (
        f"also processed here: pending command: close account/main by ada, 1d ago: the desk [{event.id}]" in done.stderr
    )
    assert site.pending() == 0


def test_on_a_machine_where_no_runner_ever_ran_the_way_to_a_store_is_named(site: Site) -> None:
    """A close has to be possible there too; for a reset there is nothing to do."""
    refused = site.told(close, "--reason", "drill", "--live", "--policies", str(site.folder / "p"))
    assert f"`ksctl run --ticks 1 --policies … --store {site.store}` creates it" in refused.stderr
    assert "makes it" not in site.told(reset, "account/main", "--reason", "r").stderr


@dataclass
class OneShot:
    """A runner that ticks and has nothing to close; each tick takes what waits. One hand comes during the first."""

    waiting: list[Event] = field(default_factory=list)
    late: list[Event] = field(default_factory=list)
    ticks: int = 0

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
        assert not self.waiting, "a hand was given, and the runner that it was given to ends"

    async def shut_down(self) -> None: ...


def test_a_hand_that_is_given_while_another_one_is_the_runner_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was told that a runner lives here, and so one does: there is a tick more."""
    monkeypatch.setattr("killswitch.operations.commands.answer_to", lambda *_: CommandAnswer((), ()))
    mine, other = (operator_event("close", None, who, "r", START) for who in ("ada", "bob"))
    shot = OneShot(late=[other])
    asyncio.run(single_tick.run_one_tick(shot, shot, mine, 5.0))  # type: ignore[arg-type] # a runner and a store in one
    assert shot.ticks == 2
    assert "new command: running another tick" in capsys.readouterr().err


class Uncharged(OneShot):
    """Nothing is left to close, and what its orders were charged is told after `told` seconds of a clock."""

    def __init__(self, told: float, late: Sequence[Event] = ()) -> None:
        super().__init__(late=list(late))
        self.seconds = 0.0
        self.told = told

    def monotonic(self) -> float:
        return self.seconds

    async def close_within(self, within: float, *, fees: bool = False) -> bool:
        assert within <= single_tick.COMMAND_POLL_SECONDS
        if not fees or self.seconds >= self.told:
            return True
        self.seconds += max(0.0, min(within, self.told - self.seconds))
        return self.seconds >= self.told


@pytest.mark.parametrize(
    ("told", "wait", "takes"), [(0.0, 60.0, 0.0), (1.25, 60.0, 1.25), (90.0, 60.0, 3.0), (90.0, 2.0, 2.0)]
)
def test_a_hand_goes_on_for_fees_for_three_seconds_at_the_most(
    told: float, wait: float, takes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A venue that tells them at once is heard; the close does not take longer than it was given, either."""
    shot = Uncharged(told)
    monkeypatch.setattr("killswitch.operations.commands.answer_to", lambda *_: CommandAnswer((), ()))
    monkeypatch.setattr("killswitch.cli.operate.single_tick.time", shot)
    asyncio.run(single_tick.run_one_tick(shot, shot, operator_event("close", None, "ada", "r", START), wait))  # type: ignore[arg-type]
    assert (shot.seconds, shot.ticks) == (takes, 1)


def test_a_hand_that_waits_for_fees_takes_another_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes in the first tick, and is taken half a second later: nobody is told for ninety."""
    mine, other = (operator_event("close", None, who, "r", START) for who in ("ada", "bob"))
    shot = Uncharged(90.0, (other,))
    monkeypatch.setattr("killswitch.operations.commands.answer_to", lambda *_: CommandAnswer((), ()))
    monkeypatch.setattr("killswitch.cli.operate.single_tick.time", shot)
    asyncio.run(single_tick.run_one_tick(shot, shot, mine, 60.0))  # type: ignore[arg-type] # a runner and a store in one
    assert (shot.ticks, shot.seconds) == (2, 0.5 + single_tick.FEE_WAIT_SECONDS)
    assert "new command: running another tick" in capsys.readouterr().err


def test_whoever_breaks_a_close_off_is_told_what_is_left_and_that_nobody_goes_on(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C with a hand that waits: it is named, and so is what would carry it out."""
    site.run()
    event = waiting_close(site)
    store = open_store(str(site.store))
    with pytest.raises(KeyboardInterrupt), printing_unfinished(store):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    assert f"interrupted: pending command: close account/main by ada, 1d ago: the desk [{event.id}]" in said
    assert "no runner works on it: start `ksctl run --live` on this store" in said
    now = to_micros(datetime.now(UTC))
    store.acquire("another.host:4711:x", now, 60_000_000)
    assert "continues it; `ksctl status --watch` follows it" in continuation_text(store)
    store.close()


def test_words_of_others_cannot_move_the_cursor(site: Site) -> None:
    """A reason with an escape sequence and a line break is shown in one line, with both spelled out."""
    evil = "done\x1b[2K\rflat\nall is well"
    plain = r"done\x1b[2K\rflat\nall is well"
    assert one_line(evil) == plain
    made = incidents.firing("d" * 20, START, "trim", 1, 0, kind="manual", author="ada", reason=evil)
    assert plain in headline(made)
    assert table(("why",), [(evil,)], indent="").splitlines() == ["why", plain]
    site.run()
    assert (
        r"\x1b[2K\r"
        in site.told(close, "--reason", evil, "--live", "--author", "ada", "--wait", "1s").stderr
        + site.told(status).stdout
    )
    assert one_line("Größe 5 € – ok") == "Größe 5 € – ok"


class Talkative:
    """A store in which the tick that took a hand has said a thousand things after its answer."""

    def __init__(self, event: Event, after_it: int) -> None:
        at = event.at + timedelta(seconds=1)
        answer = Notice(at, "operator", "account/main", "warning", "page", "the answer", event.id)
        before = [Notice(START, "p", "s", "warning", "page", f"old {n}") for n in range(5000)]
        self.said = [*before, answer, *(Notice(at, "p", "s", "warning", "page", str(n)) for n in range(after_it))]
        self.asked: list[int] = []

    def notices(self, limit: int) -> list[Notice]:
        self.asked.append(limit)
        return self.said[::-1][:limit]

    def decisions(self, _limit: int) -> list[StoredDecision]:
        return []


@pytest.mark.parametrize(("after_it", "asked"), [(10, [50]), (49, [50, 500]), (1000, [50, 500, 5000])])
def test_the_answer_to_a_hand_is_found_however_much_its_tick_says(after_it: int, asked: list[int]) -> None:
    """It is looked for back to when the hand was given, and no further than that."""
    event = operator_event("close", None, "ada", "r", START + timedelta(hours=1))
    store = Talkative(event, after_it)
    assert [each.text for each in answer_to(store, event).notices] == ["the answer"]  # type: ignore[arg-type] # enough of a store
    assert store.asked == asked


@pytest.mark.parametrize("live", [False, True])
def test_a_runner_that_ends_before_it_takes_a_hand_does_not_keep_it_waiting(site: Site, *, live: bool) -> None:
    """Without --live it is said that the order waits; with it, it is taken from here, and waits for the venue only."""
    site.run()
    store = open_store(str(site.store))
    store.acquire("another.host:4711:x", to_micros(datetime.now(UTC)), 1_000_000)
    store.close()
    told = site.told(close, "--reason", "drill", "--wait", "2s", *(("--live",) if live else ()))
    ended = "ended before it processed hand-"
    if live:
        assert ended in told.stderr
        assert "continuing from here" in told.stderr
        assert "some accounts cannot be read: retrying" in told.stderr
        assert "the close is incomplete, and the command waits for the rest (hand-" in told.stderr
    else:
        assert told.exit_code == 1
        assert "the command waits, and the next tick of any runner on this store processes it" in told.stderr
    assert told.exit_code == 1
    assert site.pending() == 1
