"""The machine's own time, and the one timeline that ticks are dated on."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from killswitch.model.clock import Clock

_MICROSECOND = timedelta(microseconds=1)


class SystemClock:
    """Wall time in UTC, the operating system's monotonic seconds, and real sleep."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Timeline:
    """Gives each tick an `as_of` that is later than the one before it, also when the wall clock steps back.

    Windows and confirmations are measured between `as_of`s. After a step back they go on at the pace of the
    monotonic clock from the last instant given, until the wall clock has caught up.
    """

    def __init__(self, clock: Clock, after: datetime | None) -> None:
        """`after` is the last `as_of` of the run before this one, from the store."""
        self._clock = clock
        self._last = after
        self._last_monotonic = clock.monotonic()

    def next(self) -> datetime:
        """The instant of the tick that begins to decide now."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        if self._last is not None and wall <= self._last:
            elapsed = timedelta(seconds=monotonic - self._last_monotonic)
            wall = self._last + max(elapsed, _MICROSECOND)
        self._last, self._last_monotonic = wall, monotonic
        return wall
