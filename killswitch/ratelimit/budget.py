"""How many requests a venue takes: what may be sent now, what has to wait for how long, and a share kept for closing.

A limit is "at most `allowed` units in any `per` seconds", whoever draws the windows. Somewhere between the moment a
request leaves and the moment its answer is here the venue counts it, so its units are held from the one until `per`
seconds after the other: no window of the venue, fixed or sliding, can then hold more than `allowed` of ours.

All times are seconds of one monotonic clock, which the caller reads. Nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from killswitch.model.venue import PLAIN_VENUE, Call, MeteredVenue, RateLimit, VenueTraits
from killswitch.ratelimit.bucket import Bucket
from killswitch.ratelimit.limits import Shared, Toll, added_up, dearest

Purpose = Literal["closing", "reading", "turn", "poll"]
"""What a call is for. A `turn` is a reading that comes after those of others that have claimed before; a `poll` is one
that comes at every interval, too, and keeps its pace. All but closing leave the share that is reserved for it."""

FIRST_QUIET = 1.0
"""Seconds of silence after a refusal that does not say how long; doubled by each further one in a row."""
LONGEST_QUIET = 60.0
"""The most that this doubling comes to."""
PACE = 10.0
"""Seconds, or the time between two polls where that is longer: of a limit for more, polls keep a pace.

They would else use a minute's units up in half of it where there are too many, and see nothing in the other half.
"""
LONGEST_BAN = 3 * 86_400.0
"""Seconds. A longer `retry_after` is no time but a mistake: Binance bans an address for three days at the most."""


_IN_TURN = frozenset[Purpose]({"turn", "poll"})


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


class Budget:
    """What one account may ask of its venue. Made by `Budgets.of`, or `unlimited`."""

    def __init__(
        self,
        limits: Mapping[str, Shared],
        tolls: Mapping[Call, Sequence[Toll]],
        reserved: Decimal,
        quiet: Quiet,
        paces: Sequence[Toll] = (),
    ) -> None:
        """`paces`: what a poll takes beside its tolls, of what polls may use in any `PACE` seconds."""
        self._limits = limits
        self._tolls = tolls
        self._paces = paces
        self._reserved = reserved
        self._quiet = quiet
        self._observed: dict[str, int] = {}
        self._claimed: tuple[Bucket, ...] = ()

    @classmethod
    def unlimited(cls) -> Budget:
        """A budget without limits. A refusal of the venue is heeded all the same."""
        return cls({}, {}, Decimal(0), Quiet())

    @property
    def quiet_until(self) -> float:
        """Until when the venue wants no request at all; minus infinity if it never refused one."""
        return self._quiet.until

    def wait(self, now: float, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> float:
        """Seconds until the call, with one order for each symbol, fits; 0.0 if it does, infinite if it never can.

        Several symbols are one request for `submit_batch`, and one request each for every other call. Where it has to
        wait for an answer that is not here yet, this is the earliest that can be.
        """
        return self._wait(now, self._cost(call, symbols, purpose), purpose)

    def room(self, now: float, call: Call, symbols: Sequence[str], purpose: Purpose = "closing") -> int:
        """How many of `symbols`, from the front, fit now: as one batch for `submit_batch`, as single calls else."""
        if now < self._quiet.until:
            return 0
        needed: dict[Bucket, int] = {}
        batch = call == "submit_batch"
        for fitting, symbol in enumerate(symbols):
            for toll in self._tolls.get(call, ()):
                bucket = toll.limit.bucket(symbol)
                more = toll.each if batch and bucket in needed else toll.units + toll.each
                needed[bucket] = needed.get(bucket, 0) + more
                if not bucket.fits(now, needed[bucket], self._reserve(bucket, purpose)):
                    return fitting
        return len(symbols)

    def take(self, now: float, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> Ticket:
        """Count a call that leaves now. BudgetSpentError if it does not fit; nothing is counted then."""
        costs = [*self._cost(call, symbols, purpose)]
        if (wait := self._wait(now, costs, purpose)) > 0.0:
            raise BudgetSpentError(call, wait)
        reading = purpose != "closing"
        if purpose in _IN_TURN:
            self.withdraw()
        return Ticket(now, tuple((bucket, bucket.take(now, units, reading=reading)) for bucket, units in costs))

    def claim(
        self,
        now: float,
        call: Call,
        symbols: Sequence[str] = (),
        purpose: Literal["turn", "poll"] = "turn",
        *,
        overdue: float,
        until: float,
    ) -> None:
        """A reading waits for its room: the readings of other accounts that share a limit come after it.

        From `overdue` on orders leave it its units, as far as the share for closing allows. To be said again before
        `until`, when it lapses; it keeps its place and the first `overdue` then. Its `take` ends it.
        """
        # What only the pace holds back claims nothing of the venue's limits: others may go meanwhile.
        paced = [*self._pace_cost(purpose)]
        costs = paced if self._wait_for_room(now, paced, purpose) > 0.0 else [*self._cost(call, symbols, purpose)]
        waits = {bucket: self._wait_for_room(now, [(bucket, units)], purpose) for bucket, units in costs}
        for bucket, units in costs:
            # While another limit keeps it waiting for longer than this one takes to come back, it claims nothing here.
            elsewhere = max((wait for other, wait in waits.items() if other is not bucket), default=0.0)
            begins = now + elsewhere - bucket.per
            reserve = self._reserve(bucket, purpose) or 0
            bucket.claim(now, self, units, reserve, begins=begins, overdue=overdue, until=until)
        for bucket in self._claimed:
            if bucket not in waits:
                bucket.withdraw(self)
        self._claimed = tuple(waits)

    def withdraw(self) -> None:
        """No reading waits any more."""
        for bucket in self._claimed:
            bucket.withdraw(self)
        self._claimed = ()

    def answered(self, now: float, ticket: Ticket) -> None:
        """The call is over, by whatever answer or none: its units come back `per` seconds from now. Once each."""
        if ticket.holds:
            for bucket, hold in ticket.holds:
                bucket.answered(now, hold)
            ticket.holds = ()
        self._quiet.heard(ticket.left)

    def observed(self, now: float, used: Mapping[str, int]) -> None:
        """The venue's own counts, by limit: where one is higher than ours, others ask there too, and theirs counts.

        It counts until a newer one says less, for a minute at the most, and not at all if it is beyond reason.
        To be told right after an answer. A number that is the one told last is no news: it may be as old as that.
        Limits for each symbol are passed over, since the venue's count does not say of which.
        """
        for name, limit in self._limits.items():
            said = used.get(name)
            if said is None or limit.by_symbol or said == self._observed.get(name):
                continue
            self._observed[name] = said
            limit.bucket("").observed(now, said)

    def heed(self, now: float, adapter: object) -> None:
        """Observe what the adapter has read of the venue's own count, if it reads any. To be told after an answer."""
        if isinstance(adapter, MeteredVenue):
            with suppress(Exception):  # an adapter's defect in counting must not cost the answer that it came with
                self.observed(now, adapter.used())

    def refused(self, now: float, retry_after: float | None) -> None:
        """The venue refused to listen (418, 429): all its accounts are quiet for `retry_after` seconds.

        Where it does not say, for a second, doubled by each refusal in a row up to a minute; a request that leaves
        after that and is not refused ends the row. To be told before `answered` of the same call.
        """
        self._quiet.refused(now, retry_after)

    def _wait(self, now: float, costs: Iterable[tuple[Bucket, int]], purpose: Purpose) -> float:
        return max(self._quiet.until - now, self._wait_for_room(now, costs, purpose))

    def _wait_for_room(self, now: float, costs: Iterable[tuple[Bucket, int]], purpose: Purpose) -> float:
        owner = self if purpose in _IN_TURN else None
        waits = (bucket.wait(now, units, self._reserve(bucket, purpose), owner) for bucket, units in costs)
        return max(waits, default=0.0)

    def _cost(self, call: Call, symbols: Sequence[str], purpose: Purpose) -> Iterator[tuple[Bucket, int]]:
        for toll in self._tolls.get(call, ()):
            yield from toll.cost(symbols, batch=call == "submit_batch")
        yield from self._pace_cost(purpose)

    def _pace_cost(self, purpose: Purpose) -> Iterator[tuple[Bucket, int]]:
        for toll in self._paces if purpose == "poll" else ():
            yield from toll.cost((), batch=False)

    def _reserve(self, bucket: Bucket, purpose: Purpose) -> int | None:
        return None if purpose == "closing" else int(bucket.allowed * self._reserved)


class Budgets:
    """The budgets of all accounts of a runner; what venues count for an address is counted once for all of them."""

    def __init__(self, interval: float = 1.0) -> None:
        """`interval`: seconds between two polls of an account."""
        self._interval = interval
        self._quiet: dict[str, Quiet] = {}
        self._shared: dict[tuple[str, str, str], Shared] = {}
        self._paces: dict[tuple[str, str, str], Shared] = {}

    def of(self, account: str, venue: str, traits: VenueTraits = PLAIN_VENUE, reserved: Decimal = Decimal(0)) -> Budget:
        """The budget of `account`. `reserved`: the fraction of every limit that reading may not use.

        ValueError if the traits contradict themselves: a cost of a limit that is not there, or of more than it allows,
        a limit of nothing.
        """
        if not 0 <= reserved < 1:
            raise ValueError(f"the share reserved for closing is {reserved}, which is not from 0 to less than 1")
        costs = added_up(traits)
        limits = {limit.name: self._limit(account, venue, limit, dearest(costs, limit.name)) for limit in traits.limits}
        tolls: dict[Call, list[Toll]] = {}
        for (call, name), (units, each) in costs.items():
            if units or each:
                tolls.setdefault(call, []).append(Toll(limits[name], units, each))
        paces = [
            Toll(self._pace(account, venue, limit, limits[limit.name], units), units, 0)
            for limit in traits.limits
            if (units := costs.get(("snapshot", limit.name), (0, 0))[0]) and limit.per > self._round + self._interval
        ]
        return Budget(limits, tolls, reserved, self._quiet.setdefault(venue, Quiet()), paces)

    @property
    def _round(self) -> float:
        return max(PACE, self._interval)

    def _limit(self, account: str, venue: str, limit: RateLimit, most: int) -> Shared:
        """Two accounts that say it differently: the stricter is true."""
        made = Shared(limit.allowed, limit.per, by_symbol=limit.by == "symbol")
        shared = self._shared.setdefault(_owned(account, venue, limit), made)
        shared.tighten(limit, most)
        return shared

    def _pace(self, account: str, venue: str, limit: RateLimit, strictest: Shared, a_poll: int) -> Shared:
        """What polls may use of a long limit in a short time: one of them always may.

        It is what the limit leaves for that time and one interval more: polls come in steps, and the units of the one
        before are held beyond its answer, so that the polls of one step more may lie in any such time.
        """
        shared = self._paces.setdefault(_owned(account, venue, limit), Shared(0, self._round))
        shared.dearest = max(shared.dearest, a_poll)
        share = Fraction(self._round + self._interval) / Fraction(strictest.per)
        shared.allowed = shared.bucket("").allowed = max(math.ceil(strictest.allowed * share), shared.dearest)
        return shared


def _owned(account: str, venue: str, limit: RateLimit) -> tuple[str, str, str]:
    """Whose limit it is: an account's, or that of an address with all its accounts."""
    return (venue, "" if limit.by == "address" else account, limit.name)
