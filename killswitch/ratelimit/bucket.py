"""The units of one limit: held from the moment a call is sent until `per` seconds after its answer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from heapq import merge
from itertools import count

from msgspec import Struct

LOST_AFTER = 120.0
"""Seconds after which an unanswered call counts as answered: a lost one must not hold its units for ever."""
BELIEVED_FOR = 60.0
"""Seconds for which the venue's last count of others' use is believed, or `per` where that is shorter. A caller that is
held back by it sends nothing and sees no newer count: of a day's limit, it would be believed for a day."""
ABSURD = 2
"""A count above this multiple of the limit is a defect, since a venue stops answering long before that."""
SHORTEST = 1e-6
"""Seconds. No wait is shorter: clocks need not resolve shorter times, and the wait would never end."""


class _PollClaim(Struct):
    """A poll that waits for units. It counts from `begins` to `until`, and holds back orders from `overdue` on."""

    units: int
    reserve: int
    begins: float
    overdue: float
    until: float


class Bucket:
    """At most `allowed` units in any `per` seconds. Times are monotonic seconds and never go back.

    Polls that wait have claims, and are served in the order of the claims.
    """

    def __init__(self, allowed: int, per: float) -> None:
        self.allowed = allowed
        self.per = per
        self._held = 0
        self._polled = 0
        self._others = 0
        self._others_until = -math.inf
        self._ids = count()
        self._in_flight: dict[int, tuple[float, int, bool]] = {}
        self._returning: deque[tuple[float, int, bool]] = deque()
        self._claims: dict[object, _PollClaim] = {}

    def tighten(self, allowed: int, per: float) -> None:
        """Apply the stricter of this limit and another declaration."""
        self.allowed = min(self.allowed, allowed)
        self.per = max(self.per, per)

    def fits(self, now: float, units: int, reserve: int | None, owner: object = None) -> bool:
        """Whether `units` may be used now.

        `reserve`: units that polls leave to orders; None for an order. `owner`: the owner of a poll that waits its
        turn; without one the call has no turn, and an order leaves the units of the first overdue poll.
        """
        # Units that have come back since only make more room, unless a claim waits for them.
        if not self._claims and self._fit(now, units, reserve, owner, self._held + self._others, self._polled):
            return True
        self._let_return(now)
        return self._fit(now, units, reserve, owner, self._held + self._others, self._polled)

    def wait(self, now: float, units: int, reserve: int | None, owner: object = None) -> float:
        """Seconds until `units` may be used, at the earliest; infinite if never."""
        if units > self.allowed:
            return math.inf
        if self.fits(now, units, reserve, owner):
            return 0.0
        held, polled = self._held + self._others, self._polled
        # Units in flight come back `per` seconds after their answer, at the earliest. A claim may lapse before that.
        ahead = list(self._before(now, owner))
        earliest = min([now + self.per, *(claim.until for claim in ahead)])
        least = units if owner is None else units + sum(claim.units for claim in ahead)
        for returns, back, polling in merge(self._returning, [(self._others_until, self._others, False)]):
            held, polled = held - back, polled - back * polling
            # Units come back one by one, and mostly that is not enough yet.
            if held + least <= self.allowed and self._fit(now, units, reserve, owner, held, polled):
                earliest = min(earliest, returns)
                break
        return max(earliest - now, SHORTEST)

    def hold(self, now: float, units: int, *, polling: bool) -> int:
        """Hold `units` for a call that is sent now; returns the id of the hold."""
        hold_id = next(self._ids)
        self._in_flight[hold_id] = (now, units, polling)
        self._hold(units, polling=polling)
        return hold_id

    def answered(self, now: float, hold_id: int) -> None:
        """Record the answer to the call of this hold. One that was given up as lost has its units back already."""
        if (hold := self._in_flight.pop(hold_id, None)) is not None:
            _, units, polling = hold
            self._returning.append((now + self.per, units, polling))

    def observed(self, now: float, used: int) -> None:
        """Apply the venue's own count: what exceeds ours is used by others, until a newer count or its expiry."""
        if not 0 <= used <= ABSURD * self.allowed:
            return
        self._let_return(now)
        self._others = min(max(0, used - self._held), self.allowed)
        self._others_until = now + min(self.per, BELIEVED_FOR)

    def claim(
        self, now: float, owner: object, units: int, reserve: int, *, begins: float, overdue: float, until: float
    ) -> None:
        """Register a waiting poll of `owner` for `units`: other polls come after it, and orders from `overdue` on.

        Claimed again, it keeps its place and its `overdue`; it lapses at `until`. Before `begins` it has no effect,
        because it could not use the units yet.
        """
        found = self._claims.get(owner)
        if found is not None and now < found.until:
            found.units, found.begins, found.until = units, begins, until
        else:
            self.withdraw(owner)
            self._claims[owner] = _PollClaim(units, reserve, begins, overdue, until)

    def withdraw(self, owner: object) -> None:
        """Remove the claim of `owner`."""
        self._claims.pop(owner, None)

    def _hold(self, units: int, *, polling: bool) -> None:
        self._held += units
        self._polled += units * polling

    def _fit(self, now: float, units: int, reserve: int | None, owner: object, held: int, polled: int) -> bool:
        left = self._kept(now, polled) if owner is None else sum(claim.units for claim in self._before(now, owner))
        if held + left + units > self.allowed:
            return False
        return reserve is None or _may_poll(self.allowed, reserve, polled + left, units)

    def _kept(self, now: float, polled: int) -> int:
        """Units that orders leave to the poll that has waited longest, once it is overdue and may have them."""
        first = next(self._before(now, None), None)
        if first is None or first.overdue > now or not _may_poll(self.allowed, first.reserve, polled, first.units):
            return 0
        return first.units

    def _before(self, now: float, owner: object) -> Iterator[_PollClaim]:
        """The claims that count now, up to that of `owner`."""
        for other, claim in self._claims.items():
            if owner is not None and other is owner:
                return
            if claim.begins <= now < claim.until and claim.units <= self.allowed:
                yield claim

    def _let_return(self, now: float) -> None:
        while self._in_flight:
            hold_id, (left, units, polling) = next(iter(self._in_flight.items()))
            if now - left < LOST_AFTER + self.per:
                break
            del self._in_flight[hold_id]
            self._hold(-units, polling=polling)
        while self._returning and self._returning[0][0] <= now:
            _, units, polling = self._returning.popleft()
            self._hold(-units, polling=polling)
        if self._others_until <= now:
            self._others = 0


def _may_poll(allowed: int, reserve: int, polled: int, units: int) -> bool:
    """Whether polls may use `units` more than `polled`.

    A single poll always may, however large the reserve: without any poll, nothing would ever be closed.
    """
    return polled + units <= max(allowed - reserve, units)
