"""A part of a snapshot: what was read last of one thing, when, and when it is due again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
LOOK_BACK = {"fills": 3_600_000, "flows": 86_400_000}
"""Milliseconds before the first reading from which on rows are asked for: what happened while nobody looked."""
OVERLAP = 180_000
"""Milliseconds by which questions for rows overlap: venues write them down late, a minute and more in a storm."""
LONGEST_LOOK_BACK = 86_400_000
"""Milliseconds before the first reading from which on rows are asked for at most, however old the last one is."""
SHUT_RULES = 30.0
"""Seconds between two times that rules are asked for while a market is shut in which something is held: closing waits
for its opening."""
RULES_AGAIN = 60.0
"""Seconds between two times that rules are asked for because a symbol is not in them."""
KNOWN_ROWS = 20_000
"""How many ids of rows are remembered, so that a row is told once."""
KEPT = 4
"""A part is kept for so many of its ages; after that it is unknown."""
LATE_ROWS = 45.0
"""For so many seconds after a movement its symbol's fills are asked for: venues write some of them down late."""
MOST_SYMBOLS = 20
"""Symbols whose fills are asked for in one reading, where the venue wants each named; the others follow."""
AGAIN = 5.0
"""Seconds after which a part whose reading failed is due again, if its age is no less."""


@dataclass(slots=True)
class Part(Generic[T]):
    """What was read last of one thing, when, and when it is due again (seconds of the loop's clock).

    `phase`: the fraction of `every` after which the second reading is due. Accounts that begin together would ask for
    the same parts together for ever, and all of their answers would be here in the same moment.
    """

    every: float
    phase: float = 1.0
    value: T | None = None
    at: float = float("-inf")
    due: float = float("-inf")
    why: str | None = None
    """Why the last reading failed; None if it did not."""

    def known(self, now: float) -> T | None:
        """The value, if it is young enough."""
        return self.value if now - self.at <= KEPT * self.every + AGAIN else None

    def took(self, value: T, now: float) -> None:
        """It was read, by a question that was asked at `now`."""
        first = self.at == float("-inf")
        self.value, self.at, self.why = value, now, None
        self.due = now + self.every * (self.phase if first else 1.0)


def phase_of(account: str) -> float:
    """An account's fraction of every age: above 0, at most 1, and the same in every run."""
    return (int.from_bytes(hashlib.sha256(account.encode()).digest()[:4]) + 1) / 2**32
