"""The units of one limit: held from the moment a call leaves until `per` seconds after its answer."""

from __future__ import annotations

import math
from collections import deque
from itertools import count

LOST_AFTER = 120.0
"""Seconds after which a call without an answer counts as answered: a lost one must not hold its units for ever."""


class Bucket:
    """At most `allowed` units in any `per` seconds. Times are monotonic seconds and never go back."""

    def __init__(self, allowed: int, per: float) -> None:
        self.allowed = allowed
        self._per = per
        self._held = 0
        self._read = 0
        self._names = count()
        self._flying: dict[int, tuple[float, int, bool]] = {}
        self._returning: deque[tuple[float, int, bool]] = deque()

    def tighten(self, allowed: int, per: float) -> None:
        """Take the stricter of this limit and another word on it."""
        self.allowed = min(self.allowed, allowed)
        self._per = max(self._per, per)

    def fits(self, now: float, units: int, reserve: int | None) -> bool:
        """Whether `units` may be taken now. `reserve`: units that readings leave alone; None if it is no reading."""
        if self._fit(units, reserve, self._held, self._read):
            return True  # what has come back meanwhile could only make more room
        self._let_return(now)
        return self._fit(units, reserve, self._held, self._read)

    def wait(self, now: float, units: int, reserve: int | None) -> float:
        """Seconds until `units` may be taken, at the earliest; infinite if that can never be."""
        if units > self.allowed:
            return math.inf
        if self.fits(now, units, reserve):
            return 0.0
        held, read = self._held, self._read
        for returns, back, reading in self._returning:
            held, read = held - back, read - back * reading
            if self._fit(units, reserve, held, read):
                return returns - now
        return self._per  # the rest is on its way, and comes back so long after its answer

    def take(self, now: float, units: int, *, reading: bool) -> int:
        """Hold `units` for a call that leaves now; the name of the hold."""
        name = next(self._names)
        self._flying[name] = (now, units, reading)
        self._hold(units, reading=reading)
        return name

    def answered(self, now: float, name: int) -> None:
        """The call of this hold has been answered. One that was given up as lost has its units back already."""
        if (hold := self._flying.pop(name, None)) is not None:
            _, units, reading = hold
            self._returning.append((now + self._per, units, reading))

    def observed(self, now: float, used: int) -> None:
        """The venue counts `used`; what is more than ours is someone else's, and is gone `per` seconds from now."""
        self._let_return(now)
        if (others := used - self._held) > 0:
            self._returning.append((now + self._per, others, False))
            self._hold(others, reading=False)

    def _hold(self, units: int, *, reading: bool) -> None:
        self._held += units
        self._read += units * reading

    def _fit(self, units: int, reserve: int | None, held: int, read: int) -> bool:
        if held + units > self.allowed:
            return False
        if reserve is None:
            return True
        # A single reading always finds its way in: a watch that never sees anything closes nothing either.
        return read + units <= max(self.allowed - reserve, units)

    def _let_return(self, now: float) -> None:
        while self._flying:
            name, (left, units, reading) = next(iter(self._flying.items()))
            if now - left < LOST_AFTER + self._per:
                break
            del self._flying[name]
            self._hold(-units, reading=reading)
        while self._returning and self._returning[0][0] <= now:
            _, units, reading = self._returning.popleft()
            self._hold(-units, reading=reading)
