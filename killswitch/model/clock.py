"""Time as something handed down: made by the runner or the lab, never reached for."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """`now` is UTC wall time, `monotonic` seconds for durations, `sleep` waits in the same time."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
