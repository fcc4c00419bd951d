"""A clock that only moves when somebody waits: hours of ticks in a second, the same each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta


class VirtualClock:
    """Time begins at `start` and passes only in `sleep` and `advance_to`.

    Whoever asked with `on_advance` hears of each new time before the sleeper wakes: a paper market closes its bars
    there. With several sleepers at once the time of the later one stands for all; the lab runs one.
    """

    def __init__(self, start: datetime) -> None:
        """`start` is aware; monotonic seconds count from it."""
        self._start = start
        self._now = start
        self._listeners: list[Callable[[datetime], object]] = []

    def on_advance(self, listener: Callable[[datetime], object]) -> None:
        """Call `listener` with the new time whenever time has passed."""
        self._listeners.append(listener)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass; other tasks get their turn."""
        if seconds > 0:
            self.advance_to(self._now + timedelta(seconds=seconds))
        await asyncio.sleep(0)

    def advance_to(self, at: datetime) -> None:
        """Let time pass until `at`; a time that is already past changes nothing."""
        if at <= self._now:
            return
        self._now = at
        for listener in self._listeners:
            listener(at)
