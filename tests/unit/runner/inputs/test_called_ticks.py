"""A call begins a tick at once: an operator command, and the firing of a dead-man's switch, wait for no interval."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.venue import Cost, RateLimit, VenueTraits
from killswitch.operations.commands import operator_event
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.clock import SystemClock
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.observers import TickReport
from killswitch.runner.tick_inputs import COMMANDS_EVERY, CommandWatch
from killswitch.store.sqlite import CommandCounter, open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, book, crash_policy
from tests.unit.accounts.test_push_listener import TRIP, PushingTestVenue, Site, VenueWithoutStream, push
from tests.virtual_time import VirtualTime

INTERVAL = 30.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def close_main(site: Site, runner: Runner | None = None) -> None:
    """An operator commands to close the account; with `runner`, a tick is called for it."""
    now = site.time.now()
    site.store.put_event(operator_event("close", "account/main", "ada", "bot misbehaves", now, cause="operator"))
    if runner is not None:
        runner.call_tick()


def run(site: Site, runner: Runner, *events: tuple[float, Callable[[], object]], ticks: int = 2) -> None:
    """Run for `ticks` scheduled ticks; each event happens at its second."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for second, happens in events:
            loop.call_at(second, happens)
        await runner.run(asyncio.Event(), ticks)

    site.time.run(main())


def decided_at(site: Site) -> list[float]:
    reports = site.seen.reports
    return [(it.snapshot.as_of - site.time.start).total_seconds() for it in reports if it.decisions]


def test_a_called_tick_carries_out_a_command_before_the_next_interval(site: Site) -> None:
    """Commanded and called at 3 s of an interval of 30 s: decided at 3 s, after one poll, and closed."""
    venue = VenueWithoutStream(site.time, "main")
    runner = site.runner(venue, interval=INTERVAL)
    run(site, runner, (3.0, lambda: close_main(site, runner)))
    (at,) = decided_at(site)
    assert 3.0 <= at <= 3.0 + 2 * TRIP
    assert [each.symbol for each in venue.sent] == ["BTC"]


@pytest.mark.parametrize("pushed", [False, True])
def test_a_close_is_looked_at_within_seconds_although_another_account_pushes(site: Site, *, pushed: bool) -> None:
    """Twice a second, in an interval of 30 s: `main` is polled three times after its close, and the command is over."""
    pushes = tuple((0.5 * number, push("orders")) for number in range(1, 60)) if pushed else ()
    venue, other = VenueWithoutStream(site.time, "main"), PushingTestVenue(site.time, "other", pushes)
    runner = site.runner(venue, other, interval=INTERVAL)
    left: list[int] = []
    count_left = (20.0, lambda: left.append(len(site.store.pending_events())))
    run(site, runner, (3.0, lambda: close_main(site, runner)), count_left)
    assert left == [0]


def test_without_a_call_the_command_waits_for_the_interval(site: Site) -> None:
    """The test above shows something only if this holds."""
    venue = VenueWithoutStream(site.time, "main")
    run(site, site.runner(venue, interval=INTERVAL), (3.0, lambda: close_main(site)))
    (at,) = decided_at(site)
    assert at >= INTERVAL


def test_a_called_tick_is_no_scheduled_one_and_delays_none(site: Site) -> None:
    """Three calls: the scheduled ticks stay at their times, and are counted alone."""
    runner = site.runner(VenueWithoutStream(site.time, "main"), interval=INTERVAL)
    run(site, runner, *((second, runner.call_tick) for second in (3.0, 7.0, 29.9)), ticks=3)
    seen = [(it.snapshot.scheduled, it.snapshot.as_of - site.time.start) for it in site.seen.reports]
    assert [is_scheduled for is_scheduled, _ in seen].count(False) == 3
    scheduled = [at.total_seconds() for is_scheduled, at in seen if is_scheduled]
    assert [round(at) for at in scheduled] == [0, 30, 60]
    assert runner.ticks == 3


def test_a_call_before_a_tick_reads_the_commands_is_answered_by_it(site: Site) -> None:
    """Called twice while the first poll of 0.03 s is under way: that tick reads the commands, and no other follows."""
    venue = VenueWithoutStream(site.time, "main")
    runner = site.runner(venue, interval=INTERVAL)
    run(site, runner, *((0.01 * number, runner.call_tick) for number in range(1, 3)))
    assert [it.snapshot.scheduled for it in site.seen.reports] == [True, True]  # the tick under way has read the store


def test_a_command_that_arrives_while_a_tick_acts_is_not_lost(site: Site) -> None:
    """It is stored and called by an observer, after the tick has read the commands: a further tick follows at once."""
    venue = VenueWithoutStream(site.time, "main")
    runner = site.runner(venue, interval=INTERVAL)
    seen, ticked = site.seen, site.seen.ticked

    def command(report: TickReport) -> None:
        ticked(report)
        if len(seen.reports) == 1:
            close_main(site, runner)

    seen.ticked = command  # type: ignore[method-assign] # the observer that commands
    run(site, runner)
    (at,) = decided_at(site)
    assert at < 1.0


def test_all_accounts_are_polled_for_a_called_tick(site: Site) -> None:
    """A push polls its account alone, a call all of them: a close must not be decided on old positions."""
    venues = [VenueWithoutStream(site.time, "main"), PushingTestVenue(site.time, "two", ((10.0, push("orders")),))]
    runner = site.runner(*venues, interval=INTERVAL)
    run(site, runner, (3.0, runner.call_tick), ticks=1 + 1)
    assert [venue.reads for venue in venues] == [3, 4]


def test_a_venue_that_does_not_answer_holds_a_called_tick_up_for_the_read_timeout(site: Site) -> None:
    """Its account is shown as polled last, and not as down: nothing is known to be wrong with it yet."""
    quiet, quick = ScriptedVenue(None, "quiet"), VenueWithoutStream(site.time, "main")
    quiet.answer = VenueWithoutStream(site.time, "quiet").answer
    runner = site.runner(quick, quiet, interval=INTERVAL)
    run(
        site, runner, (3.0, lambda: setattr(quiet, "answer", None)),
        (5.0, lambda: close_main(site, runner)), ticks=2,
    )  # fmt: skip
    (at,) = decided_at(site)
    assert 5.5 <= at <= 5.6
    (called,) = [it.snapshot for it in site.seen.reports if it.decisions]
    assert [it.quality for it in called.accounts] == ["ok", "ok"]


def limited(site: Site, polls_a_minute: int) -> VenueWithoutStream:
    venue = VenueWithoutStream(site.time, "main")
    limit = RateLimit("requests", polls_a_minute, 60.0)
    venue.traits = VenueTraits((limit,), (Cost("snapshot", "requests", units=1),))
    return venue


def test_a_call_displaces_no_scheduled_poll(site: Site) -> None:
    """Limits that leave room for the polls of the interval only: two calls wait for the scheduled tick.

    The command is carried out then, on positions of that moment, and no account is ever shown as down.
    """
    venue = limited(site, 3)
    runner = site.runner(venue, interval=INTERVAL)
    run(site, runner, (5.0, lambda: close_main(site, runner)), (9.0, runner.call_tick))
    (at,) = decided_at(site)
    assert at >= INTERVAL
    assert {it.quality for report in site.seen.reports for it in report.snapshot.accounts} == {"ok"}
    assert [report.snapshot.scheduled for report in site.seen.reports] == [True, True]


def test_a_call_right_after_a_poll_needs_no_other(site: Site) -> None:
    """One second after the scheduled tick, at the same limits: the last snapshot is young enough to close on."""
    venue = limited(site, 3)
    runner = site.runner(venue, interval=INTERVAL)
    run(site, runner, (1.0, lambda: close_main(site, runner)))
    (at,) = decided_at(site)
    assert at < 1.1
    assert [each.symbol for each in venue.sent] == ["BTC"]


def test_a_call_of_another_thread_wakes_the_loop(tmp_path: Path) -> None:
    """In real time, with an interval of an hour: a tick that a thread calls ends the run, and no interval does."""
    store = open_store(str(tmp_path / "store.sqlite"))
    seen, stop = Seen(), asyncio.Event()
    venue = ScriptedVenue(book("1000"))
    accounts = {"main": ArmedAccount("main", "main", "swap", "USDT", venue, armed=False)}
    runner = assemble(
        graphs.policy_set(crash_policy()), accounts, store, SystemClock(), RunnerPace(3600.0, 5.0),
        live=False, locks=LockPaths(tmp_path / "locks", None), observers=(seen,),
    )  # fmt: skip
    ticked = seen.ticked

    def command(report: TickReport) -> None:
        ticked(report)
        if len(seen.reports) == 1:
            threading.Thread(target=runner.call_tick).start()
        else:
            stop.set()

    seen.ticked = command  # type: ignore[method-assign] # the observer that commands
    asyncio.run(asyncio.wait_for(runner.run(stop), 60))
    assert [it.snapshot.scheduled for it in seen.reports] == [True, False]
    store.close()
    runner.call_tick()  # after the end of the run: nothing happens


# Commands in the store


class Counter(CommandCounter):
    """A store whose newest command is what the test says."""

    def __init__(self) -> None:
        self.now: int | None = None
        self.closed = False

    def newest(self) -> int | None:
        return self.now

    def close(self) -> None:
        self.closed = True


def test_the_watch_calls_a_tick_for_each_look_that_finds_a_new_command() -> None:
    """Not for what was there at first, nor while the store is unreadable; afterwards for what came meanwhile."""
    counter, calls = Counter(), [0]
    watch = CommandWatch(counter, lambda: calls.__setitem__(0, calls[0] + 1))
    found = []
    for newest in (None, 7, 7, 8, 8, None, 8, None, 11, 11):
        counter.now = newest
        assert watch.look() == COMMANDS_EVERY
        found.append(calls[0])
    assert found == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    watch.stop()
    assert (watch.look(), counter.closed) == (None, True)


def test_the_newest_command_is_read_while_another_connection_writes(tmp_path: Path) -> None:
    """Zero in an empty store, higher with each command, also after they are consumed; unknown where it is no store."""
    path = tmp_path / "store.sqlite"
    counter = CommandCounter(str(path))
    assert counter.newest() is None
    store = open_store(str(path))
    assert counter.newest() == 0
    found = []
    for number in range(3):
        event = operator_event("lock", "account/main", "ada", "audit", VirtualTime().now())
        store.put_event(replace(event, id=f"hand-{number}"))
        found.append(counter.newest())
    assert found == sorted(set(map(int, filter(None, found))))
    store.close()
    counter.close()
    assert counter.newest() == found[-1]
    counter.close()


def test_a_damaged_store_leaves_commands_to_the_scheduled_ticks(tmp_path: Path) -> None:
    """Nothing is raised on the thread, and a store that is put back is read again."""
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"no database" * 1000)
    counter = CommandCounter(str(path))
    assert counter.newest() is None
    path.unlink()
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE events (sequence INTEGER PRIMARY KEY, id TEXT)")
        made.execute("INSERT INTO events VALUES (5, 'x')")
    made.close()
    assert counter.newest() == 5
    counter.close()
