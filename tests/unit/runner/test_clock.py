"""Wall clocks that jump during a run: durations follow the monotonic clock, and people are notified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount, Arming
from killswitch.gate.lock_reader import read_lock
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import PolicySet, SignalRef
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import Event, Snapshot
from killswitch.model.store import TickRecord
from killswitch.operations.commands import answer_to, apply_event, operator_event
from killswitch.operations.liveness_probe import probe_of
from killswitch.operations.preview import plan_of, preview
from killswitch.operations.status import runner_state
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.clock import (
    FOLLOWED,
    ClockState,
    EventDates,
    Leap,
    SystemClock,
    Timeline,
    WallClockCheck,
    confirmed_end,
    now_after,
    on_timeline,
)
from killswitch.runner.lease import LeaseHolder, LeaseRefusedError, end_misdated, is_misdated
from killswitch.runner.loop import Runner
from killswitch.runner.status_blob import tick_time
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.lock_turns import LockFolder, Locking
from tests.runner_world import ScriptedVenue, World, book, crash_policy
from tests.worlds import START, account, after

TWO_HOURS = timedelta(hours=2)
ELSEWHERE = "another.host/boot/space/1/1"


class JumpingClock(VirtualClock):
    """Virtual time whose wall clock is off by `jump`; `machine` identifies the origin of its seconds."""

    def __init__(self, start: datetime = START, machine: str = "one machine") -> None:
        super().__init__(start)
        self.jump = timedelta(0)
        self.machine = machine

    def now(self) -> datetime:
        return super().now() + self.jump

    @property
    def origin(self) -> str:
        return self.machine

    def passes(self, seconds: float) -> None:
        asyncio.run(self.sleep(seconds))


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


class JumpingWorld(World):
    """A world whose clock is a JumpingClock."""

    def __init__(self, folder: Path, clock: JumpingClock) -> None:
        super().__init__(folder)
        self.clock: JumpingClock = clock

    def ticks(self, runner: Runner, count: int = 1) -> datetime:
        """Run `count` ticks, a second apart; returns the `as_of` of the last."""

        async def story() -> datetime:
            for _ in range(count):
                await self.clock.sleep(1.0)
                report = await runner.tick()
            await runner.close_within(5.0)
            return report.snapshot.as_of

        return asyncio.run(story())


@pytest.fixture
def world(tmp_path: Path, clock: JumpingClock) -> Iterator[JumpingWorld]:
    made = JumpingWorld(tmp_path, clock)
    yield made
    made.close()


# The timeline


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS, timedelta(minutes=11), -timedelta(minutes=11)])
def test_a_wall_clock_that_jumps_does_not_move_the_timeline(clock: JumpingClock, jump: timedelta) -> None:
    """Ten seconds stay ten seconds, within the 1% at which the two clocks converge."""
    timeline = Timeline(clock)
    timeline.next()
    clock.passes(10.0)
    clock.jump = jump
    elapsed = timeline.next() - START
    assert abs(elapsed - timedelta(seconds=10)) <= timedelta(seconds=0.1)
    clock.passes(10.0)
    clock.jump = timedelta(0)
    assert abs(timeline.next() - after(seconds=20)) <= timedelta(seconds=0.2)


def test_a_small_wall_clock_step_is_followed_and_time_never_runs_back(clock: JumpingClock) -> None:
    """A leap second, or a step of the time synchronisation."""
    timeline = Timeline(clock)
    clock.passes(10.0)
    clock.jump = timedelta(seconds=4)
    assert timeline.next() == after(seconds=14)
    clock.jump = timedelta(0)
    assert timeline.next() > after(seconds=14)
    clock.passes(10.0)
    assert timeline.next() == after(seconds=20)


@pytest.mark.parametrize("rate", [5.9, 2.0, 0.1])
def test_a_drifting_wall_clock_is_followed_by_at_most_five_seconds_and_paged(clock: JumpingClock, rate: float) -> None:
    """However small its steps: after half an hour the timeline is off by 1% and those five seconds."""
    check, problems = WallClockCheck(Timeline(clock)), set()
    for _ in range(1800):
        clock.passes(1.0)
        clock.jump += timedelta(seconds=rate - 1)
        check.check(check.timeline.next())
        problems.add(check.problem)
    elapsed = check.timeline.now() - START
    assert abs(elapsed - timedelta(minutes=30)) <= FOLLOWED + timedelta(seconds=18 + 3)
    assert 2 <= len(problems) <= 13, "one at each doubling, from 5 s to two hours and a half"


def test_restarts_do_not_follow_a_fast_wall_clock_any_further(clock: JumpingClock) -> None:
    """Each process continues with the offset that its predecessor has followed."""
    timeline = Timeline(clock)
    for _ in range(60):
        clock.passes(1.0)
        clock.jump += timedelta(seconds=4)
        timeline = Timeline(clock, timeline.state())
    assert timeline.now() - START <= timedelta(seconds=60) + FOLLOWED + timedelta(seconds=1)


@pytest.mark.parametrize("jump", [timedelta(minutes=5), -timedelta(minutes=5)])
def test_timeline_and_wall_clock_converge_at_one_percent(clock: JumpingClock, jump: timedelta) -> None:
    """Five minutes are made up in 300 s / 0.01 = 30,000 s: they differ before that and agree after it."""
    timeline = Timeline(clock)
    clock.jump = jump
    for _ in range(264):
        clock.passes(100.0)
        timeline.now()
    assert abs(timeline.off()) > FOLLOWED
    for _ in range(72):
        clock.passes(100.0)
        timeline.now()
    assert timeline.off() == timedelta(0)


def test_a_restart_on_the_same_machine_continues_by_the_monotonic_clock(clock: JumpingClock) -> None:
    """A process that died while the wall clock jumped leaves no gap and no leap."""
    stamp = Timeline(clock).state()
    clock.passes(60.0)
    clock.jump = TWO_HOURS
    again = Timeline(clock, stamp)
    assert again.now() == after(seconds=60)
    assert again.leaps == ()


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS])
def test_a_restart_on_another_machine_uses_its_wall_clock_and_never_runs_back(jump: timedelta) -> None:
    """Nothing else shows how long it took. An interval that only the wall clock confirms is recorded as a leap."""
    stamp = Timeline(JumpingClock()).state()
    other = JumpingClock(START + jump, machine="another")
    timeline = Timeline(other, stamp)
    assert timeline.next() > START
    assert timeline.now() >= max(START, START + jump)
    assert timeline.leaps == ((Leap(START, START + TWO_HOURS),) if jump > timedelta(0) else ())


def test_the_system_clock_counts_from_an_origin_that_processes_share() -> None:
    """Two processes of one boot of the machine count alike, so that an age needs no wall clock."""
    first, second = SystemClock(), SystemClock()
    assert first.origin == second.origin
    assert first.monotonic() <= second.monotonic()


# Events


def closing_event(at: datetime) -> Event:
    return operator_event("close", None, "ada", "operator", at)


def test_an_event_that_the_previous_tick_did_not_find_is_no_older_than_that_tick() -> None:
    """Whatever clock dated it. An event that waits for more than a tick ages from the first tick that found it."""
    dates = EventDates()
    dates.dated((), START)
    old, new = closing_event(START - TWO_HOURS), closing_event(START + TWO_HOURS)
    assert [each.at for each in dates.dated((old, new), after(seconds=1))] == [START, after(seconds=1)]
    assert [each.at for each in dates.dated((old, new), after(seconds=9))] == [START, after(seconds=1)]


def test_a_flag_of_a_clock_that_is_ahead_lasts_as_long_as_was_ordered() -> None:
    """Two hours, from the first tick that found it; one of a clock that is behind keeps its end."""
    ahead, behind = (
        Event(name, sent, "flag", author="desk", reason="test", flag="calm", is_set=True, until=sent + TWO_HOURS)
        for name, sent in (("e1", START + TWO_HOURS), ("e2", START - timedelta(minutes=1)))
    )
    dates = EventDates()
    for at in (START, after(seconds=5)):
        assert [each.until for each in dates.dated((ahead, behind), at)] == [START + TWO_HOURS, behind.until]


def test_an_event_that_waited_before_the_first_tick_keeps_its_date() -> None:
    """A command given an hour before any runner lived is an hour old, and is refused for that."""
    assert EventDates().dated((closing_event(START - TWO_HOURS),), START)[0].at == START - TWO_HOURS


@pytest.mark.parametrize("jumps", [(TWO_HOURS, -TWO_HOURS), (-TWO_HOURS, TWO_HOURS), (TWO_HOURS, timedelta(0))])
@pytest.mark.parametrize("force", [False, True])
def test_a_manual_close_is_carried_out_after_any_jump(
    world: JumpingWorld, jumps: tuple[timedelta, ...], force: bool
) -> None:
    """The clock is wrong at the start and is set while the runner lives: the next command is as valid as any."""
    venue, store = ScriptedVenue(book("1100")), world.open()
    world.clock.jump = jumps[0]
    runner = world.runner(store, [venue])
    asyncio.run(runner.start())
    world.ticks(runner, 2)
    world.clock.jump = jumps[1]
    world.ticks(runner)
    # By the wall clock, as a process on another machine dates it, and as ticks are dated, as one on this machine does.
    event = operator_event("close", None, "ada", "operator", world.clock.now(), force=force)
    store.put_event(event)
    world.ticks(runner)
    assert [decision.kind for decision in answer_to(store, event).decisions] == ["manual"]
    assert len(venue.sent) == 1
    again = operator_event("close", None, "ada", "operator", tick_time(store, world.clock))
    store.put_event(again)
    as_of = world.ticks(runner)
    assert as_of - again.at < timedelta(seconds=2)


def test_the_clock_difference_is_paged_once_and_so_is_its_end(world: JumpingWorld) -> None:
    """While it lasts it is a problem in `status`; its notice is not repeated at every tick."""
    store = world.open()
    runner = world.runner(store, [ScriptedVenue(book("1100"))])
    asyncio.run(runner.start())
    world.ticks(runner, 2)
    world.clock.jump = -TWO_HOURS
    world.ticks(runner, 3)
    world.clock.jump = timedelta(0)
    world.ticks(runner, 3)
    pages = [(notice.severity, notice.text) for notice in reversed(store.notices(20)) if "wall clock" in notice.text]
    assert [severity for severity, _ in pages] == ["page", "page"]
    assert "is 2 h behind the dates of the ticks" in pages[0][1]
    assert "is no longer behind the dates of the ticks" in pages[1][1]


def test_a_clock_difference_that_changes_is_reported_anew(clock: JumpingClock) -> None:
    """Back and forth: each jump is another problem; converging slowly is none."""
    check = WallClockCheck(Timeline(clock))
    problems = []
    for jump in (-TWO_HOURS, -TWO_HOURS, TWO_HOURS, TWO_HOURS):
        clock.jump = jump
        clock.passes(60.0)
        check.check(check.timeline.now())
        problems.append(check.problem)
    assert problems[0] == problems[1] != problems[2] == problems[3]
    assert "2 h ahead of" in (problems[2] or "")


# Windows, snapshots


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS])
def test_a_fresh_snapshot_is_never_stale_because_of_a_jump(clock: JumpingClock, jump: timedelta) -> None:
    """Whether the adapter dates it by this machine's wall clock or by the venue's, which is right."""
    timeline = Timeline(clock)
    right = clock.now()
    clock.jump = jump
    clock.passes(1.0)
    for observed in (clock.now(), right + timedelta(seconds=1)):
        snapshot = on_timeline(account("1", observed_at=observed), timeline)
        assert snapshot.observed_at is not None
        assert abs(timeline.now() - snapshot.observed_at) < timedelta(seconds=1)


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS])
def test_a_crash_fires_under_stale_after_in_spite_of_a_jump(world: JumpingWorld, jump: timedelta) -> None:
    """`stale_after` counts from the poll of the venue, in the time of the ticks."""
    venue, store = ScriptedVenue(None), world.open()

    def set_equity(equity: str) -> None:
        venue.answer = book(equity, observed_at=world.clock.now() + timedelta(seconds=1))

    graph = crash_policy()
    graph = replace(graph, equity=replace(graph.equity, stale_after=30 * SECOND))
    runner = world.runner(store, [venue], policies=graphs.policy_set(graph))
    asyncio.run(runner.start())
    set_equity("1100")
    world.ticks(runner)
    world.clock.jump = jump
    set_equity("900")
    world.ticks(runner)
    assert len(venue.sent) == 1


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS])
def test_a_saved_plan_is_applied_across_a_jump(world: JumpingWorld, jump: timedelta) -> None:
    """It is dated like the ticks, both when it is made and when it is applied."""
    venue, store = ScriptedVenue(book("1100")), world.open()
    runner = world.runner(store, [venue])
    asyncio.run(runner.start())
    world.ticks(runner)
    world.clock.jump = jump
    world.ticks(runner)
    now = tick_time(store, world.clock)
    policies = graphs.policy_set(crash_policy())
    shown = preview(
        policies, Snapshot(now, (book("1100"),), "killswitch.snapshot/v1", events=(closing_event(now),)),
        Interpreter(policies), "", frozenset(),
    )  # fmt: skip
    plan = plan_of(shown, tuple(each for each in shown.decisions if each.kind == "manual"))
    assert plan is not None
    event = apply_event(store, plan, "ada", tick_time(store, world.clock))
    store.put_event(event)
    world.ticks(runner)
    assert [notice.text for notice in answer_to(store, event).notices] == []
    assert len(venue.sent) == 1


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS])
def test_a_fall_is_confirmed_across_a_jump(world: JumpingWorld, jump: timedelta) -> None:
    """The window still holds the peak, and the confirmation lasts its seconds: no fewer, and none of the jump's."""
    fall = SignalRef("equity.drawdown", (15 * MINUTE,))
    stage = graphs.stage("close-everything", 3, 0, actions=(graphs.close(),))
    trigger = graphs.trigger("fall", 0, 0.10, confirm=5 * SECOND)
    venue, store = ScriptedVenue(book("1100")), world.open()
    runner = world.runner(
        store, [venue], policies=graphs.policy_set(graphs.graph([fall], [trigger], [stage], policy="crash"))
    )
    asyncio.run(runner.start())
    world.ticks(runner, 10)
    venue.answer = book("900")
    world.ticks(runner, 2)
    world.clock.jump = jump
    world.ticks(runner, 3)
    assert venue.sent == []
    world.ticks(runner, 3)
    assert len(venue.sent) == 1


# Locks


class Locks:
    """`LockLifecycle` on a store and a folder, on a timeline of a jumping clock."""

    def __init__(self, world: JumpingWorld) -> None:
        self.world = world
        self.store: SqlStore = world.open()
        self.file = world.locks.folder / "account__main.json"
        self.begin(None)

    def begin(self, last: ClockState | None) -> None:
        self.timeline = Timeline(self.world.clock, last)
        venue = ScriptedVenue(None)
        accounts = {"main": ArmedAccount("main", "paper", "swap", "USDT", venue, armed=True)}
        folder = LockFolder(
            self.world.locks.folder, None, generation=1, alive_for=30.0, wall=self.timeline.wall,
        )  # fmt: skip
        arming = Arming(accounts, graphs.policy_set(crash_policy()))
        self.locking = Locking(folder, self.store, arming, self.timeline.leaps)
        self.locking.recover(self.timeline.now())

    def fires(self, minutes: float) -> None:
        now = self.timeline.next()
        one = Decision(
            id="fires", as_of=now, policy="crash", policy_set="sha256:test", scope="account/main", mode="enforce",
            stage="stop", level=1, previous_level=0,
            lock=LockOrder("account/main", "reduce_only", now + timedelta(minutes=minutes)),
        )  # fmt: skip
        self.store.commit_tick(TickRecord(now, "d", (), (), (one,), (), self.locking.planned(one), None, (), 0))
        self.locking.act((one,), now)

    def later(self, minutes: float) -> bool:
        """Whether bots, which compare the file with the wall clock, find a lock of ours after `minutes`."""
        for _ in range(round(minutes * 6)):
            self.world.clock.passes(10.0)
            self.locking.act((), self.timeline.now())
        found = json.loads(self.file.read_text())
        verdict = read_lock(self.file, self.world.clock.now())
        assert verdict.locked == found["locked"], f"not kept alive: {verdict.reason}"
        return verdict.locked


@pytest.fixture
def locks(world: JumpingWorld) -> Locks:
    return Locks(world)


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS, timedelta(days=400)])
def test_a_timed_lock_ends_after_its_duration_in_spite_of_jumps(locks: Locks, jump: timedelta) -> None:
    """Half an hour stays half an hour while the wall clock is two hours ahead, behind, or right again."""
    locks.fires(30)
    locks.world.clock.jump = jump
    assert locks.later(20)
    locks.world.clock.jump = timedelta(0)
    assert locks.later(9)
    assert not locks.later(2)


def test_readers_find_the_lock_file_alive_by_their_own_clock(locks: Locks) -> None:
    """`alive_until` is wall-clock time: an open file outlives a jump by at most its life, and is no lock either."""
    assert not locks.later(0.2)
    for jump in (TWO_HOURS, -TWO_HOURS, timedelta(0)):
        locks.world.clock.jump = jump
        assert not locks.later(0.2)
        ahead = json.loads(locks.file.read_text())["alive_until"] - locks.world.clock.now().timestamp()
        assert 0 < ahead <= 30


@pytest.mark.parametrize("jump", [TWO_HOURS, -TWO_HOURS])
def test_a_run_keeps_its_lock_files_alive_by_the_clock_of_the_readers(world: JumpingWorld, jump: timedelta) -> None:
    """At the tick after a jump, bots on the machine trade as before."""
    runner = world.runner(world.open(), [ScriptedVenue(book("1100"))])
    asyncio.run(runner.start())
    world.ticks(runner)
    world.clock.jump = jump
    world.ticks(runner)
    assert read_lock(world.locks.folder / "account__main.json", world.clock.now()).reason == "open"


def test_a_restart_with_a_clock_ahead_lifts_no_timed_lock(locks: Locks) -> None:
    """After a boot with the hardware clock in local time, the rest of the lock remains, and ends after that time."""
    locks.fires(30)
    locks.later(10)
    last = locks.timeline.state()
    locks.world.clock.machine = "after a boot"
    locks.world.clock.jump = TWO_HOURS
    locks.begin(last)
    assert locks.later(19)
    locks.begin(locks.timeline.state())  # killed and restarted on the same machine
    assert locks.later(0.5)
    assert not locks.later(1)


def boots(world: JumpingWorld, ahead: timedelta) -> None:
    """Boot the machine with a hardware clock that is `ahead`."""
    world.clock.machine = f"after a boot, {ahead} ahead"
    world.clock.jump += ahead


def halving(cooldown: int = HOUR) -> PolicySet:
    """Locks as soon as the account is 10% below its start; again when it loses more, an hour later at the earliest."""
    fall = SignalRef("equity.loss_from_start")
    stage = replace(
        graphs.stage("close-everything", 3, 0, actions=(LockTrading("reduce_only", None),)), cooldown=cooldown
    )
    trigger = graphs.trigger("fall", 0, 0.10)
    return graphs.policy_set(graphs.graph([fall], [trigger], [stage], policy="crash"))


def test_a_boot_with_a_clock_that_is_ahead_ends_no_cooldown_and_is_paged(world: JumpingWorld) -> None:
    """The rest of the cooldown remains: the stage acts no second time two hours early."""
    store, venue = world.open(), ScriptedVenue(book("1100"))

    def begins() -> Runner:
        runner = world.runner(store, [venue], policies=halving())
        asyncio.run(runner.start())
        return runner

    runner = begins()
    world.ticks(runner)
    venue.answer = book("850")
    world.ticks(runner, 10)
    asyncio.run(runner.finish())
    assert len(store.decisions(9)) == 1
    boots(world, TWO_HOURS)
    venue.answer = book("700")
    runner = begins()
    world.ticks(runner, 5)
    assert len(store.decisions(9)) == 1, "it acted a second time"
    (page,) = [each.text for each in store.notices(20) if "no runner has run" in each.text]
    assert page.startswith("by the wall clock alone, no runner has run on this store for 2 h (since 2024-")
    world.clock.passes(HOUR / SECOND - 20)
    world.ticks(runner, 2)
    assert len(store.decisions(9)) == 1
    world.clock.passes(10)
    world.ticks(runner, 2)
    assert len(store.decisions(9)) == 2, "an hour of measured time is over"


@pytest.mark.parametrize(("ahead", "sent"), [(TWO_HOURS, 1), (timedelta(hours=14), 1), (timedelta(hours=16), 0)])
def test_a_manual_close_that_waits_over_a_boot_is_carried_out(world: JumpingWorld, ahead: timedelta, sent: int) -> None:
    """Its age is what was measured. Beyond what a clock in local time explains it is truly old, and paged."""
    store, venue = world.open(), ScriptedVenue(book("1100"))
    runner = world.runner(store, [venue])
    asyncio.run(runner.start())
    world.ticks(runner)
    asyncio.run(runner.finish())
    world.clock.passes(30)
    event = operator_event("close", None, "ada", "operator", tick_time(store, world.clock))
    store.put_event(event)
    boots(world, ahead)
    runner = world.runner(store, [venue])
    asyncio.run(runner.start())
    world.ticks(runner)
    assert len(venue.sent) == sent
    assert [each.severity for each in answer_to(store, event).notices] == ["page"] * (1 - sent)


def test_a_manual_close_that_was_old_before_the_boot_is_refused(world: JumpingWorld) -> None:
    """Eleven minutes were measured: the book may have changed by now, whatever the wall clock shows."""
    store, venue = world.open(), ScriptedVenue(book("1100"))
    runner = world.runner(store, [venue])
    asyncio.run(runner.start())
    store.put_event(operator_event("close", None, "ada", "operator", START - timedelta(minutes=11)))
    dates = EventDates(Leap(START, START + TWO_HOURS))
    (event,) = dates.dated(store.pending_events(), START + TWO_HOURS)
    assert event.at == START + TWO_HOURS - timedelta(minutes=11)


@pytest.mark.parametrize(("ours", "wall"), [(START, START + TWO_HOURS), (START + TWO_HOURS, START)])
def test_a_foreign_lock_ends_when_both_clocks_have_passed_its_end(
    tmp_path: Path, ours: datetime, wall: datetime
) -> None:
    """A wall clock dates it, and ours may have jumped since: neither cuts its hour short."""
    union = tmp_path / "union.json"
    union.write_text(json.dumps({"locked": True, "expires_ts": after(hours=1).timestamp()}))
    folder = LockFolder(tmp_path / "locks", union, generation=1, alive_for=30.0, wall=lambda: wall)
    folder.renew(ours)
    assert json.loads(union.read_text())["locked"]
    folder.renew(ours + timedelta(minutes=59))
    assert json.loads(union.read_text())["locked"]
    folder.renew(ours + timedelta(minutes=61))
    assert not json.loads(union.read_text())["locked"]


def test_an_expired_lock_stays_expired_and_an_endless_one_has_no_end() -> None:
    """A leap prolongs only locks that were in force when it began, and each leap by its own length."""
    leaps = (Leap(START, after(hours=2)), Leap(after(hours=3), after(hours=4)))
    half = timedelta(minutes=30)
    assert confirmed_end(START - half, START - 2 * half, leaps) == START - half
    assert confirmed_end(START + half, START, leaps) == START + half + TWO_HOURS
    assert confirmed_end(START + 4 * half, START - half, leaps) == START + 4 * half + timedelta(hours=3)
    assert confirmed_end(after(hours=5), after(hours=4, minutes=1), leaps) == after(hours=5)


# The lease


def elsewhere(store: SqlStore, clock: JumpingClock, ttl: float = 30.0) -> LeaseHolder:
    """A runner in another container, which nothing here can prove to be dead."""
    holder = LeaseHolder(store, clock, ttl, ELSEWHERE)
    holder.acquire()
    return holder


@pytest.mark.parametrize("jump", [-TWO_HOURS, TWO_HOURS])
def test_a_living_runner_renews_its_lease_at_the_first_tick_after_a_jump(
    world: JumpingWorld, clock: JumpingClock, jump: timedelta
) -> None:
    """The lease is dated by the wall clock that others use, at most one lease duration ahead."""
    store = world.open()
    holder = elsewhere(store, clock)
    clock.jump = jump
    clock.passes(1.0)
    holder.renew()
    lease = store.lease()
    assert lease is not None
    assert lease.expires_at - to_micros(clock.now()) == 30 * SECOND


def test_the_lease_of_a_dead_runner_ends_after_one_duration_however_far_ahead_it_is_dated(
    world: JumpingWorld, clock: JumpingClock
) -> None:
    """Killed while the clock was ahead, in a container that is gone: the next start waits one duration and says so."""
    store = world.open()
    clock.jump = TWO_HOURS
    dead = elsewhere(store, clock)
    clock.jump = timedelta(0)
    lease = store.lease()
    assert runner_state(lease, clock.now()).liveness == "silent"
    waited: list[float] = []
    messages: list[str] = []
    taker = LeaseHolder(store, clock, 30.0, "here/2/2", pause=waited.append, on_wait=messages.append)
    assert taker.acquire().generation == dead.generation + 1
    assert sum(waited) == 30.0
    assert "set back" in messages[0]


def test_a_living_runner_is_not_succeeded_because_of_its_lease_date(world: JumpingWorld, clock: JumpingClock) -> None:
    """It renews its lease meanwhile, and the start is refused as usual."""
    store = world.open()
    clock.jump = TWO_HOURS
    living = elsewhere(store, clock, ttl=300.0)
    clock.jump = timedelta(0)

    def pause(seconds: float) -> None:
        clock.passes(seconds)
        if clock.monotonic() >= 20.0:
            living.renew()

    with pytest.raises(LeaseRefusedError):
        LeaseHolder(store, clock, 30.0, "here/2/2", pause=pause).acquire()
    assert clock.monotonic() == 20.0


def test_a_long_lease_is_not_taken_for_misdated(world: JumpingWorld, clock: JumpingClock) -> None:
    """The duration that its holder recorded counts, not that of the process that inspects it."""
    store = world.open()
    elsewhere(store, clock, ttl=3600.0)
    lease = store.lease()
    assert lease is not None
    assert not is_misdated(lease, clock.now())
    with pytest.raises(LeaseRefusedError):
        LeaseHolder(store, clock, 30.0, "here/2/2", pause=lambda _: pytest.fail("nothing to wait for")).acquire()


def test_a_lease_that_is_renewed_at_the_last_moment_is_kept(world: JumpingWorld, clock: JumpingClock) -> None:
    """Only the very lease that was watched is ended."""
    store = world.open()
    clock.jump = TWO_HOURS
    living = elsewhere(store, clock)
    lease = store.lease()
    assert lease is not None
    clock.jump = timedelta(0)
    living.renew()
    store.release_unrenewed(lease)
    assert store.lease() is not None
    end_misdated(store, lease, lambda _: None)
    assert store.lease() is not None


# Queries from other processes


def test_the_probe_measures_the_age_of_a_tick_by_the_monotonic_clock(world: JumpingWorld) -> None:
    """A hung runner is not `live` because the clock was set back; one that ticks is not dead because it jumped."""
    store = world.open()
    runner = world.runner(store, [ScriptedVenue(book("1100"))])
    asyncio.run(runner.start())
    world.ticks(runner)
    for jump in (TWO_HOURS, -TWO_HOURS):
        world.clock.jump = jump
        assert probe_of(store, "live", world.clock.now(), clock=world.clock).passed
    world.clock.passes(120.0)
    assert not probe_of(store, "live", world.clock.now(), clock=world.clock).passed


def test_commands_are_dated_as_the_next_tick_is(clock: JumpingClock) -> None:
    """On the runner's machine to the moment; elsewhere by the wall clock, and not before the last tick."""
    timeline = Timeline(clock)
    clock.jump = -TWO_HOURS
    timeline.next()
    stamp = timeline.state()
    clock.passes(3.0)
    assert abs(now_after(stamp, clock) - timeline.now()) < timedelta(seconds=0.1)
    assert now_after(stamp, JumpingClock(START - TWO_HOURS, "another")) == START
    assert now_after(None, clock) == clock.now()
