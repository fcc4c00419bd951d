"""The venue's request meter, which decides when a request is refused as too many."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from killswitch.model.instant import SECOND
from killswitch.model.venue import Call, Cost, RateLimit, VenueTraits

NEVER = float("inf")


class Meter:
    """Counts the units used of every limit, exactly: at most `allowed` units in any `per` seconds.

    A refused request uses nothing. Times are microseconds and must not go back by much: counts are dropped only as time
    advances.
    """

    def __init__(self, traits: VenueTraits) -> None:
        self._limits = {limit.name: limit for limit in traits.limits}
        self._costs: dict[Call, list[Cost]] = {}
        for cost in traits.costs:
            self._costs.setdefault(cost.call, []).append(cost)
        self._counts: dict[tuple[str, ...], _UsedUnits] = {}

    def charge(self, account: str, call: Call, symbols: Sequence[str], at: int) -> float | None:
        """Use what the call costs at `at` and return None; or use nothing and return the seconds until it fits.

        `symbols`: one for each order in the call. `NEVER` for a call that is larger than a limit.
        """
        wanted: dict[tuple[str, ...], int] = {}
        for cost in self._costs.get(call, ()):
            for key, units in _units(self._limits[cost.limit], cost, account, symbols).items():
                wanted[key] = wanted.get(key, 0) + units
        waits = [self._count(key).wait(units, at) for key, units in wanted.items()]
        longest = max(waits, default=0.0)
        if longest > 0:
            return longest
        for key, units in wanted.items():
            self._count(key).use(units, at)
        return None

    def used(self, account: str, at: int) -> dict[str, int]:
        """Units used in the last `per` seconds of every limit that is not counted by symbol."""
        keys = {name: _key(limit, account) for name, limit in self._limits.items() if limit.by != "symbol"}
        return {name: self._count(key).used(at) for name, key in keys.items()}

    def _count(self, key: tuple[str, ...]) -> _UsedUnits:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _UsedUnits(self._limits[key[0]])
        return count


class _UsedUnits:
    """Units used of one limit by one account, symbol or address."""

    def __init__(self, limit: RateLimit) -> None:
        self._allowed = limit.allowed
        self._per = round(limit.per * SECOND)
        self._uses: deque[tuple[int, int]] = deque()
        self._sum = 0

    def used(self, at: int) -> int:
        while self._uses and self._uses[0][0] <= at - self._per:
            self._sum -= self._uses.popleft()[1]
        return self._sum

    def wait(self, units: int, at: int) -> float:
        over = self.used(at) + units - self._allowed
        if over <= 0 or units == 0:
            return 0.0
        for when, units_used in self._uses:
            over -= units_used
            if over <= 0:
                return (when + self._per - at) / SECOND
        return NEVER

    def use(self, units: int, at: int) -> None:
        if units:
            self._uses.append((at, units))
            self._sum += units


def _key(limit: RateLimit, account: str) -> tuple[str, ...]:
    return (limit.name,) if limit.by == "address" else (limit.name, account)


def _units(limit: RateLimit, cost: Cost, account: str, symbols: Sequence[str]) -> dict[tuple[str, ...], int]:
    if limit.by == "symbol":
        each = {symbol: symbols.count(symbol) for symbol in symbols}
        return {(limit.name, account, symbol): cost.units + cost.each * count for symbol, count in each.items()}
    return {_key(limit, account): cost.units + cost.each * len(symbols)}
