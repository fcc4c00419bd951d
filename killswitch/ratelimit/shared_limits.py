"""A venue's limits as its accounts share them, and what each kind of call costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from killswitch.model.venue import Call, RateLimit, VenueTraits
from killswitch.ratelimit.bucket import Bucket

_OF_ORDERS = frozenset[Call]({"submit", "submit_batch", "find_order", "fills", "cancel"})
"""Calls about at least one order; the others are about an account."""


class SharedLimit(Struct, eq=False):
    """One limit of one owner, an account or an address with all its accounts. The strictest declaration applies."""

    allowed: int
    per: float
    most_units: int = 0
    """The most that one call costs."""
    by_symbol: bool = False
    """Whether it is counted for each symbol."""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    """By symbol, or by "" for a limit that is not counted for each symbol."""

    def tighten(self, limit: RateLimit, most_units: int) -> None:
        """Apply another declaration. ValueError if a call could then never be made."""
        allowed, most_units = min(self.allowed, limit.allowed), max(self.most_units, most_units)
        if most_units > allowed:
            raise ValueError(
                f"a call costs {most_units} of limit {limit.name!r}, which never allows more than {allowed}"
            )
        self.allowed, self.per, self.most_units = allowed, max(self.per, limit.per), most_units
        for bucket in self.buckets.values():
            bucket.tighten(self.allowed, self.per)

    def bucket(self, symbol: str) -> Bucket:
        """The bucket that an order in `symbol` draws on."""
        key = symbol if self.by_symbol else ""
        found = self.buckets.get(key)
        if found is None:
            found = self.buckets[key] = Bucket(self.allowed, self.per)
        return found


class CallCost(Struct, frozen=True):
    """What one kind of call costs of one limit."""

    limit: SharedLimit
    units: int
    each: int

    def cost(self, symbols: Sequence[str], *, batch: bool) -> Iterator[tuple[Bucket, int]]:
        """The buckets and the units drawn from them; a batch is one request, any other call is one for each symbol."""
        if not self.limit.by_symbol:
            requests = 1 if batch or not symbols else len(symbols)
            yield self.limit.bucket(""), self.units * requests + self.each * len(symbols)
        else:
            for symbol, orders in Counter(symbols).items():
                yield self.limit.bucket(symbol), self.units * (1 if batch else orders) + self.each * orders


def units_by_call(traits: VenueTraits) -> dict[tuple[Call, str], tuple[int, int]]:
    """Units of each request, and of each order in it, by call and limit.

    ValueError if the traits contradict themselves: a limit of nothing, a cost of an undeclared limit, or a cost above
    its limit, so that the call would wait for ever.
    """
    allowed = {}
    for limit in traits.limits:
        if limit.allowed < 1 or not 0 < limit.per < math.inf:
            raise ValueError(f"limit {limit.name!r} allows {limit.allowed} in {limit.per} s, which is not a limit")
        allowed[limit.name] = limit.allowed
    found: dict[tuple[Call, str], tuple[int, int]] = {}
    for cost in traits.costs:
        if cost.limit not in allowed or cost.units < 0 or cost.each < 0:
            raise ValueError(f"{cost.call} costs {cost.units} + {cost.each} each of {cost.limit!r}: no such limit")
        units, each = found.get((cost.call, cost.limit), (0, 0))
        found[cost.call, cost.limit] = units + cost.units, each + cost.each
    for (call, name), (units, each) in found.items():
        if (least := _cost_of_one(call, units, each)) > allowed[name]:
            raise ValueError(f"{call} costs {least} of limit {name!r}, which never allows more than {allowed[name]}")
    return found


def highest_cost(costs: Mapping[tuple[Call, str], tuple[int, int]], limit: str) -> int:
    """The most that one call costs of `limit`, for calls about at most one order."""
    return max((_cost_of_one(call, *cost) for (call, name), cost in costs.items() if name == limit), default=0)


def _cost_of_one(call: Call, units: int, each: int) -> int:
    return units + each * (call in _OF_ORDERS)
