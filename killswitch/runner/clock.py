"""The system clock, and the timeline by which a run dates ticks and measures durations.

A wall clock may jump: at a boot with the hardware clock in local time, after a virtual machine was suspended, by a
faulty time synchronisation. No age, lock, window or cooldown may depend on it, so the wall clock gives the time of day
only, and the monotonic clock measures all durations (ADR 0102).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.clock import Clock
from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import AccountSnapshot, Event
from killswitch.render.formats import rounded_duration

FOLLOWED = timedelta(seconds=5)
"""A wall clock that is off by at most this is followed; one that is further off has jumped, and is not followed.

The timeline may differ from the monotonic clock by this much in all, plus as much again for each hour."""
FORGOTTEN = FOLLOWED / timedelta(hours=1)
"""Rate at which followed seconds are forgotten: a clock that drifts by more than 5 s an hour runs wrong."""
SLEW = 0.01
"""While the wall clock is further off, each second of the timeline is shorter or longer by this until both agree."""

_MICROSECOND = timedelta(microseconds=1)


class SystemClock:
    """Wall time in UTC, monotonic seconds since the machine was started, and real sleep.

    The monotonic seconds include the time for which the machine was suspended, where the system counts it (Linux).
    """

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    @cached_property
    def origin(self) -> str | None:
        """The origin of `monotonic`: the boot of this machine. None where the system does not identify it."""
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            return f"{boot}/{Path('/proc/self/ns/time').readlink().name}"  # a namespace may count from elsewhere
        except OSError:
            return None

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Leap(Struct, frozen=True):
    """At a start, the timeline advanced from `since` to `until` on the evidence of the wall clock alone."""

    since: datetime
    until: datetime


class ClockState(Struct, frozen=True):
    """The timeline of a store right after its last tick, from which the next process continues it.

    `monotonic` seconds are counted from `origin`; `leaps` are the newest ones, oldest first. `followed`: the
    seconds by which the timeline has followed the wall clock, as far as they are not forgotten.
    """

    at: datetime
    origin: str | None = None
    monotonic: float = 0.0
    leaps: tuple[Leap, ...] = ()
    followed: float = 0.0

    def elapsed(self, clock: Clock) -> timedelta | None:
        """Time since that state by the monotonic clock; None where the two clocks cannot be compared."""
        origin = _origin(clock)
        seconds = clock.monotonic() - self.monotonic
        return None if origin is None or origin != self.origin or seconds < 0 else timedelta(seconds=seconds)


def now_after(last: ClockState | None, clock: Clock) -> datetime:
    """Now, as the next tick on the store is dated: by the monotonic clock since its last tick where that is known.

    Otherwise (another start of the machine, another machine) by the wall clock, but not before the last tick.
    """
    wall = clock.now()
    if last is None:
        return wall
    elapsed = last.elapsed(clock)
    if elapsed is None:
        return max(wall, last.at)
    paced = last.at + elapsed
    off = wall - paced + _forgotten(timedelta(seconds=last.followed), elapsed)
    return wall if last.at <= wall and abs(off) <= FOLLOWED else paced


def _forgotten(followed: timedelta, elapsed: timedelta) -> timedelta:
    """What is left of `followed` after `elapsed` monotonic time."""
    less = elapsed * FORGOTTEN
    return followed - max(-less, min(followed, less))


LEAPS_KEPT = 64
"""Number of the newest leaps that are remembered; a timed lock outlives no more starts."""


class Timeline:
    """The clock of a run: `now` never goes back, and follows a jump of the wall clock by at most `FOLLOWED`.

    Safe to read from several threads: notifications are sent by their own.
    """

    def __init__(self, clock: Clock, last: ClockState | None = None) -> None:
        """`last`: the state in which the previous run left the store's timeline."""
        self._clock = clock
        self._lock = threading.Lock()
        self._now = now_after(last, clock)
        self._counted = clock.monotonic()
        self._tick = None if last is None else last.at
        self._followed = timedelta(0)
        if last is not None and (elapsed := last.elapsed(clock)) is not None:
            followed = _forgotten(timedelta(seconds=last.followed), elapsed)
            self._followed = followed + self._now - (last.at + elapsed)
        leaps = () if last is None else last.leaps
        self.leap: Leap | None = None
        """The leap of this start, if the machine was restarted since the last tick."""
        if last is not None and last.elapsed(clock) is None and self._now > last.at:
            self.leap = Leap(last.at, self._now)
            leaps = (*leaps, self.leap)[-LEAPS_KEPT:]
        self.leaps = leaps
        """The leaps of this and earlier starts."""

    def now(self) -> datetime:
        """The instant on the timeline."""
        with self._lock:
            wall, counted = self._clock.now(), self._clock.monotonic()
            passed = timedelta(seconds=max(0.0, counted - self._counted))
            self._counted = counted
            self._followed = _forgotten(self._followed, passed)
            off = wall - (self._now + passed)
            if wall >= self._now and abs(self._followed + off) <= FOLLOWED:
                self._followed += off
            else:
                off = max(-passed * SLEW, min(off, passed * SLEW))
            self._now += passed + off
            return self._now

    def next(self) -> datetime:
        """The instant of the tick that decides now: later than that of every earlier tick."""
        now = self.now()
        self._tick = now if self._tick is None else max(now, self._tick + _MICROSECOND)
        return self._tick

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    def wall(self) -> datetime:
        """The wall clock, for instants that other programs compare with theirs."""
        return self._clock.now()

    def off(self) -> timedelta:
        """By how much the timeline is ahead of the wall clock; negative where it is behind."""
        now = self.now()
        return now - self._clock.now()

    def state(self) -> ClockState:
        """The state from which the next process continues the timeline."""
        now = self.now()
        followed = self._followed.total_seconds()
        return ClockState(now, _origin(self._clock), self._clock.monotonic(), self.leaps, followed)


def _origin(clock: Clock) -> str | None:
    """The origin of the clock's monotonic seconds, if known: only then can another process compare them."""
    origin: str | None = getattr(clock, "origin", None)
    return origin


def confirmed_end(until: datetime, ordered_at: datetime, leaps: Iterable[Leap]) -> datetime:
    """The end of a span from `ordered_at` to `until`, extended by every leap in it.

    Time that only a wall clock has measured does not count: a lock has as much time left after a leap as before it.
    """
    for leap in leaps:
        if ordered_at <= leap.since < until:
            until += leap.until - leap.since
    return until


class WallClockCheck:
    """Detects jumps of the wall clock: an alert while it is not followed."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.problem: str | None = None
        """The message, unchanged for as long as the problem lasts."""
        self._off = timedelta(0)

    def check(self, as_of: datetime) -> None:
        """Compare wall clock and timeline at a tick."""
        off = self.timeline.off()
        if abs(off) <= FOLLOWED:
            self.problem, self._off = None, off
        elif self.problem is None or self._differs(off):
            self.problem, self._off = _jump_message(off, as_of), off

    def _differs(self, off: timedelta) -> bool:
        """Whether the offset has doubled, halved or changed sign since it was reported."""
        then, now = self._off.total_seconds(), off.total_seconds()
        return now * then < 0 or not abs(then) / 2 <= abs(now) <= abs(then) * 2

    @property
    def alerts(self) -> Alerts:
        """A page while the wall clock is not followed. Ahead and behind are two alerts; it grows by doubling."""
        if self.problem is None:
            return NO_ALERTS
        off = self._off.total_seconds()
        side = _side(self._off)
        over = f"the wall clock of this machine is no longer {side} the dates of the ticks"
        size = (Decimal(int(math.log2(abs(off)))),)
        return Alerts((Alert(f"wall-clock/{side.split()[0]}", "page", self.problem, over=over, measure=size),))


def _side(off: timedelta) -> str:
    return "behind" if off > timedelta(0) else "ahead of"


def _jump_message(off: timedelta, as_of: datetime) -> str:
    return (
        f"since {rfc3339(as_of.replace(microsecond=0))} the wall clock of this machine is "
        f"{rounded_duration(abs(off))} {_side(off)} the dates of the ticks: it has jumped or runs wrong, and is not "
        "followed; windows, locks and closes use the monotonic clock; check the time synchronisation of this machine"
    )


PAGED_FROM = timedelta(minutes=5)
"""A leap at a start that is longer is paged: a clock may be wrong, or something should have run and did not."""


def leap_message(leap: Leap | None) -> str | None:
    """The page about a leap at the start; None for a leap as short as an ordinary restart of the machine."""
    if leap is None or leap.until - leap.since < PAGED_FROM:
        return None
    return (
        f"by the wall clock alone, no runner has run on this store for {rounded_duration(leap.until - leap.since)} "
        f"(since {rfc3339(leap.since.replace(microsecond=0))}): this machine was restarted, and nothing else measures "
        "that time, so cooldowns, confirmations and timed locks have as much time left as before it; if the time is "
        "right, end what should be over with `ksctl reset`, which accepts the loss; if not, check the clock of this "
        "machine"
    )


def on_timeline(account: AccountSnapshot, timeline: Timeline) -> AccountSnapshot:
    """The account with `observed_at` dated as ticks are, where the wall clock has jumped.

    Some adapters date it by this machine's wall clock, others by their venue's. Of the two possible instants it is the
    one nearer to now, since a snapshot is recent.
    """
    observed, off = account.observed_at, timeline.off()
    if observed is None or abs(off) <= FOLLOWED:
        return account
    now = timeline.now()
    return replace(account, observed_at=min((observed, observed + off), key=lambda at: abs(now - at)))


DISTRUSTED = timedelta(hours=15)
"""A leap no longer than this may be a hardware clock in local time (a zone is at most 14 hours off), so it makes no
close command too old. A longer leap counts as an outage, after which the book may be another."""


class EventDates:
    """Dates pending operator commands by the first tick that could have processed them.

    A command is dated by the process that sent it, whose wall clock may be another machine's or may have jumped since.
    A command that the previous tick did not find in the store is no older than that tick. One that waited over a
    restart of the machine is no older than has been measured (ADR 0102).
    """

    def __init__(self, leap: Leap | None = None) -> None:
        self._leap = None if leap is None or leap.until - leap.since > DISTRUSTED else leap
        self._before: datetime | None = None
        self._waiting: dict[str, datetime] = {}

    def dated(self, events: Iterable[Event], as_of: datetime) -> tuple[Event, ...]:
        """The events that are pending at the tick of `as_of`, none dated after it."""
        least = self._before
        pending = []
        for event in events:
            at = self._waiting.get(event.id)
            if at is None:
                measured = self._measured(event)
                at = min(measured if least is None else max(measured, least), as_of)
            until = event.until
            if (
                event.kind in ("flag", "pause") and until is not None and event.at > at
            ):  # it lasts no longer than was ordered
                until -= event.at - at
            pending.append(replace(event, at=at, until=until))
        self._before, self._waiting = as_of, {event.id: event.at for event in pending}
        return tuple(pending)

    def _measured(self, event: Event) -> datetime:
        leap = self._leap
        if leap is None or event.at >= leap.until or event.kind not in ("close", "apply"):
            return event.at
        return event.at + (leap.until - max(event.at, leap.since))
