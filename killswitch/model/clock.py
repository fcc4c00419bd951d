"""The clock protocol. The runner or the lab provides the clock; no code reads the system time directly."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time: `now` is UTC wall time, `monotonic` counts seconds, and `sleep` waits in the same time."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
