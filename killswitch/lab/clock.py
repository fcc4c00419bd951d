"""Time that passes only when someone sleeps: for demos, measurements and tests of what acts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta


class VirtualClock:
    """A clock that `sleep` advances, at once. It is for one sleeper at a time: the runner's loop is one.

    What else happens in that time (a market moving) hangs on `on_advance`, which is told the new instant.
    """

    def __init__(self, start: datetime, on_advance: Callable[[datetime], None] | None = None) -> None:
        """`start` is an aware UTC datetime."""
        self._start = start
        self._elapsed = 0.0
        self._on_advance = on_advance

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    @property
    def origin(self) -> str:
        """What `monotonic` is counted from: two runs on one such clock know how much time lies between them."""
        return f"virtual {id(self)}"

    def set(self, now: datetime) -> None:
        """Let the time until `now` pass at once. ValueError if that lies behind."""
        elapsed = (now - self._start).total_seconds()
        if elapsed < self._elapsed:
            raise ValueError(f"it is {self.now().isoformat()} already, later than {now.isoformat()}")
        self._elapsed = elapsed

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass, and everything else that is ready run."""
        self._elapsed += max(seconds, 0.0)
        if self._on_advance is not None:
            self._on_advance(self.now())
        await asyncio.sleep(0)
