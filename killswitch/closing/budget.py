"""How many requests a venue takes: what may be sent now, what has to wait for how long, and a share kept for closing.

A limit is "at most `allowed` units in any `per` seconds", whoever draws the windows. Somewhere between the moment a
request leaves and the moment its answer is here the venue counts it, so its units are held from the one until `per`
seconds after the other: no window of the venue, fixed or sliding, can then hold more than `allowed` of ours.

All times are seconds of one monotonic clock, which the caller reads. Nothing here waits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from killswitch.closing.bucket import Bucket
from killswitch.model.venue import PLAIN_VENUE, Call, MeteredVenue, RateLimit, VenueTraits

Purpose = Literal["closing", "reading"]

FIRST_QUIET = 1.0
"""Seconds of silence after a refusal that does not say how long; doubled by each further one in a row."""
LONGEST_QUIET = 60.0
"""The most that this doubling comes to."""
LONGEST_BAN = 3 * 86_400.0
"""Seconds. A longer `retry_after` is no time but a mistake: Binance bans an address for three days at the most."""


class BudgetSpentError(Exception):
    """A call was to be taken that does not fit. `wait`: seconds until it would, infinite if it never can."""

    def __init__(self, call: Call, wait: float) -> None:
        super().__init__(f"{call} does not fit into the venue's request limits for another {wait:g} s")
        self.wait = wait


@dataclass(slots=True, eq=False)
class Ticket:
    """What one call has taken. Opaque: it is given back with the answer, whatever the answer was."""

    left: float
    holds: tuple[tuple[Bucket, int], ...]


@dataclass(slots=True)
class Quiet:
    """Until when a venue does not want to be spoken to: one for all accounts there, none for any other venue."""

    until: float = -math.inf
    refusals: int = 0
    """In a row; those of requests that left before the first of them was heard count as one."""

    def refused(self, now: float, retry_after: float | None) -> None:
        """The venue refused to listen. Its own word on how long counts, as far as it is one."""
        if now >= self.until:
            self.refusals += 1
        wait = min(LONGEST_QUIET, FIRST_QUIET * 2.0 ** min(self.refusals - 1, 30))
        if retry_after is not None and retry_after > 0:  # NaN is not
            wait = min(retry_after, LONGEST_BAN)
        self.until = max(self.until, now + wait)

    def heard(self, left: float) -> None:
        """A request that left at `left` was answered: if the silence was over by then, the venue listens again."""
        if left >= self.until:
            self.refusals = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """One limit as one account meets it, and where its units are held."""

    limit: RateLimit
    shared: dict[str, Bucket]
    """By symbol, or by "" for what is not counted for each symbol apart."""

    def bucket(self, symbol: str) -> Bucket:
        key = symbol if self.limit.by == "symbol" else ""
        found = self.shared.get(key)
        if found is None:
            found = self.shared[key] = Bucket(self.limit.allowed, self.limit.per)
        return found


@dataclass(frozen=True, slots=True)
class _Toll:
    """What one kind of call takes of one limit."""

    place: _Place
    units: int
    each: int
    by_symbol: bool

    def cost(self, symbols: Sequence[str], *, batch: bool) -> Iterator[tuple[Bucket, int]]:
        """Buckets and the units taken of them; a batch is one request, every other call one for each symbol."""
        if not self.by_symbol:
            requests = 1 if batch or not symbols else len(symbols)
            yield self.place.bucket(""), self.units * requests + self.each * len(symbols)
        elif len(symbols) == 1:
            yield self.place.bucket(symbols[0]), self.units + self.each
        else:
            for symbol, orders in Counter(symbols).items():
                yield self.place.bucket(symbol), self.units * (1 if batch else orders) + self.each * orders


class Budget:
    """What one account may ask of its venue. Made by `Budgets.of`, or `unlimited`."""

    def __init__(
        self, places: Sequence[_Place], tolls: Mapping[Call, Sequence[_Toll]], reserved: Decimal, quiet: Quiet
    ) -> None:
        self._places = tuple(places)
        self._tolls = tolls
        self._reserved = reserved
        self._quiet = quiet
        self._observed: dict[str, int] = {}

    @classmethod
    def unlimited(cls) -> Budget:
        """A budget without limits. A refusal of the venue is heeded all the same."""
        return cls((), {}, Decimal(0), Quiet())

    @property
    def quiet_until(self) -> float:
        """Until when the venue wants no request at all; minus infinity if it never refused one."""
        return self._quiet.until

    def wait(self, now: float, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> float:
        """Seconds until the call, with one order for each symbol, fits; 0.0 if it does, infinite if it never can.

        Several symbols are one request for `submit_batch`, and one request each for every other call. Where it has to
        wait for an answer that is not here yet, this is the earliest that can be.
        """
        return self._wait(now, self._cost(call, symbols), purpose)

    def room(self, now: float, call: Call, symbols: Sequence[str], purpose: Purpose = "closing") -> int:
        """How many of `symbols`, from the front, fit now: as one batch for `submit_batch`, as single calls else."""
        if now < self._quiet.until:
            return 0
        needed: dict[Bucket, int] = {}
        batch = call == "submit_batch"
        for fitting, symbol in enumerate(symbols):
            for toll in self._tolls.get(call, ()):
                bucket = toll.place.bucket(symbol)
                more = toll.each if batch and bucket in needed else toll.units + toll.each
                needed[bucket] = needed.get(bucket, 0) + more
                if not bucket.fits(now, needed[bucket], self._reserve(bucket, purpose)):
                    return fitting
        return len(symbols)

    def take(self, now: float, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> Ticket:
        """Count a call that leaves now. BudgetSpentError if it does not fit; nothing is counted then."""
        costs = [*self._cost(call, symbols)]
        if (wait := self._wait(now, costs, purpose)) > 0.0:
            raise BudgetSpentError(call, wait)
        reading = purpose == "reading"
        return Ticket(now, tuple((bucket, bucket.take(now, units, reading=reading)) for bucket, units in costs))

    def answered(self, now: float, ticket: Ticket) -> None:
        """The call is over, by whatever answer or none: its units come back `per` seconds from now. Once each."""
        if ticket.holds:
            for bucket, hold in ticket.holds:
                bucket.answered(now, hold)
            ticket.holds = ()
        self._quiet.heard(ticket.left)

    def observed(self, now: float, used: Mapping[str, int]) -> None:
        """The venue's own counts, by limit: where one is higher than ours, others ask there too, and theirs counts.

        To be told right after an answer. A number that is the one told last is no news: it may be as old as that.
        Limits for each symbol are passed over, since the venue's count does not say of which.
        """
        for place in self._places:
            said = used.get(place.limit.name)
            if said is None or place.limit.by == "symbol" or said == self._observed.get(place.limit.name):
                continue
            self._observed[place.limit.name] = said
            place.bucket("").observed(now, said)

    def heed(self, now: float, adapter: object) -> None:
        """Observe what the adapter has read of the venue's own count, if it reads any. To be told after an answer."""
        if not isinstance(adapter, MeteredVenue):
            return
        try:
            self.observed(now, adapter.used())
        except Exception:  # noqa: BLE001 - an adapter's defect in counting must not cost the answer that it came with
            return

    def refused(self, now: float, retry_after: float | None) -> None:
        """The venue refused to listen (418, 429): all its accounts are quiet for `retry_after` seconds.

        Where it does not say, for a second, doubled by each refusal in a row up to a minute; a request that leaves
        after that and is not refused ends the row. To be told before `answered` of the same call.
        """
        self._quiet.refused(now, retry_after)

    def _wait(self, now: float, costs: Iterable[tuple[Bucket, int]], purpose: Purpose) -> float:
        wait = max(self._quiet.until - now, 0.0)
        for bucket, units in costs:
            wait = max(wait, bucket.wait(now, units, self._reserve(bucket, purpose)))
        return wait

    def _cost(self, call: Call, symbols: Sequence[str]) -> Iterator[tuple[Bucket, int]]:
        for toll in self._tolls.get(call, ()):
            yield from toll.cost(symbols, batch=call == "submit_batch")

    def _reserve(self, bucket: Bucket, purpose: Purpose) -> int | None:
        return int(bucket.allowed * self._reserved) if purpose == "reading" else None


class Budgets:
    """The budgets of all accounts of a runner; what venues count for an address is counted once for all of them."""

    def __init__(self) -> None:
        self._quiet: dict[str, Quiet] = {}
        self._shared: dict[tuple[str, str, str], dict[str, Bucket]] = {}

    def of(self, account: str, venue: str, traits: VenueTraits = PLAIN_VENUE, reserved: Decimal = Decimal(0)) -> Budget:
        """The budget of `account`. `reserved`: the fraction of every limit that reading may not use.

        ValueError if the traits contradict themselves: a cost of a limit that is not there, a limit of nothing.
        """
        if not 0 <= reserved < 1:
            raise ValueError(f"the share reserved for closing is {reserved}, which is not from 0 to less than 1")
        places = {limit.name: self._place(account, venue, limit) for limit in traits.limits}
        tolls: dict[Call, dict[str, tuple[int, int]]] = {}
        for cost in traits.costs:
            if cost.limit not in places or cost.units < 0 or cost.each < 0:
                raise ValueError(f"{cost.call} costs {cost.units} + {cost.each} each of {cost.limit!r}: no such limit")
            units, each = tolls.setdefault(cost.call, {}).get(cost.limit, (0, 0))
            tolls[cost.call][cost.limit] = units + cost.units, each + cost.each
        paid = {
            call: [
                _Toll(places[name], units, each, places[name].limit.by == "symbol")
                for name, (units, each) in of.items()
                if units or each
            ]
            for call, of in tolls.items()
        }
        return Budget(tuple(places.values()), paid, reserved, self._quiet.setdefault(venue, Quiet()))

    def _place(self, account: str, venue: str, limit: RateLimit) -> _Place:
        if limit.allowed < 1 or not 0 < limit.per < math.inf:
            raise ValueError(f"limit {limit.name!r} allows {limit.allowed} in {limit.per} s, which is no limit")
        owner = "" if limit.by == "address" else account
        place = _Place(limit, self._shared.setdefault((venue, owner, limit.name), {}))
        for bucket in place.shared.values():
            bucket.tighten(limit.allowed, limit.per)  # two accounts that say it differently: the stricter is true
        return place
