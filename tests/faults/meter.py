"""The venue's own count of requests: a sliding window for each limit, and a ban for clients that continue."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from killswitch.model.venue import Call, RateLimit, RateLimitedError, VenueTraits

PATIENCE = 5
"""Refusals while over a limit before the address is banned."""
BAN = 60.0
"""Seconds of a ban."""


class Meter:
    """Counts arrivals as the venue does. One for each venue: several accounts at one address share it."""

    def __init__(self, traits: VenueTraits) -> None:
        self._traits = traits
        self._limits = {limit.name: limit for limit in traits.limits}
        self._counted: dict[tuple[str, str], deque[tuple[float, int]]] = {}
        self._refused_in_a_row = 0
        self.banned_until = 0.0
        self.refusals = 0
        self.bans = 0

    def arrive(self, now: float, call: Call, symbols: Sequence[str], account: str) -> None:
        """Count a request with one order for each of `symbols`. Raises RateLimitedError if it is one too many."""
        if now < self.banned_until:
            self.refusals += 1
            raise RateLimitedError("banned (418)", self.banned_until - now)
        taken = self._units(call, symbols, account)
        for bucket, units in taken.items():
            limit, counted = self._limits[bucket[0]], self._counted.setdefault(bucket, deque())
            while counted and counted[0][0] <= now - limit.per:
                counted.popleft()
            if sum(used for _, used in counted) + units > limit.allowed:
                self._refuse(now, limit, counted)
        self._refused_in_a_row = 0
        for bucket, units in taken.items():
            self._counted[bucket].append((now, units))

    def used(self, now: float) -> dict[str, int]:
        """Units counted in the last `per` seconds, the most of all buckets of a limit."""
        most: dict[str, int] = {}
        for (name, _), counted in self._counted.items():
            units = sum(used for at, used in counted if at > now - self._limits[name].per)
            most[name] = max(most.get(name, 0), units)
        return most

    def _refuse(self, now: float, limit: RateLimit, counted: deque[tuple[float, int]]) -> None:
        self.refusals += 1
        self._refused_in_a_row += 1
        if self._refused_in_a_row > PATIENCE:
            self.bans += 1
            self._refused_in_a_row = 0
            self.banned_until = now + BAN
            raise RateLimitedError("banned (418)", BAN)
        wait = counted[0][0] + limit.per - now if counted else limit.per
        raise RateLimitedError(f"too many requests (429): {limit.name}", wait)

    def _units(self, call: Call, symbols: Sequence[str], account: str) -> dict[tuple[str, str], int]:
        taken: dict[tuple[str, str], int] = {}
        for cost in self._traits.costs:
            if cost.call != call:
                continue
            limit = self._limits[cost.limit]
            if limit.by == "symbol":
                for symbol in symbols:
                    bucket = (limit.name, f"{account} {symbol}")
                    taken[bucket] = taken.get(bucket, 0) + cost.units + cost.each
                continue
            bucket = (limit.name, "" if limit.by == "address" else account)
            taken[bucket] = taken.get(bucket, 0) + cost.units + cost.each * len(symbols)
        return taken
