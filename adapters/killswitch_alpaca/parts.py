"""The parts of an account, each with its own age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

ACCOUNT, ORDERS, MOVES, TRADES, CLOCK, QUOTES, MARKS = 4.0, 12.0, 30.0, 60.0, 60.0, 3.0, 1.0
CALENDAR, ASSETS = 6 * 3600.0, 3600.0
"""Seconds after which each part is read again."""
SAVED: Final = 6.0
OWED: Final = -2.0
"""Requests that may be saved up for parts that were touched, and that may be owed before those have to wait."""


@dataclass(slots=True)
class Part:
    """A part of the account: when it was read, in seconds of the loop, and whether something has touched it since."""

    every: float
    longest: float
    """Seconds after which what was read counts no longer."""
    read_at: float | None = None
    touches: int = 0
    """How often something has touched it, ever."""
    known: int = 0
    """How many of these touches what was read knows of."""
    trouble: str | None = None
    """Why the last reading of it failed."""
    as_of: datetime | None = None
    """Alpaca's time when the question left that was answered last."""

    @property
    def touched(self) -> bool:
        """Whether something has touched it that what was read may not show."""
        return self.touches != self.known

    def touch(self) -> None:
        """Something has moved it."""
        self.touches += 1

    def is_due(self, now: float, *, credit: float = 0.0) -> bool:
        """Whether its time has come; or, where `credit` pays for it, whether it was touched."""
        if self.read_at is None or now - self.read_at >= self.every:
            return True
        return self.touched and credit >= 1.0

    def is_good(self, now: float) -> bool:
        """Whether what was read still counts."""
        return self.read_at is not None and now - self.read_at <= self.longest

    def was_read(self, now: float, asked: int, as_of: datetime | None = None) -> None:
        """An answer came. `asked`: `touches` before the question left; what came after it may not be in the answer."""
        self.read_at, self.known, self.trouble, self.as_of = now, asked, None, as_of
