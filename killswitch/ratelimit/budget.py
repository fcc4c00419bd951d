"""Request budgets: what may be sent now, what has to wait for how long, and a share reserved for closing.

A limit is "at most `allowed` units in any `per` seconds", for any placement of the window. A venue counts a request at
some time between sending and answer, so its units are held from sending until `per` seconds after the answer. No window
of the venue, fixed or sliding, can then hold more than `allowed` of ours.

All times are seconds of one monotonic clock, which the caller reads. Nothing here waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from killswitch.model.backoff import Backoff
from killswitch.model.venue import PLAIN_VENUE, Call, RateLimit, VenueAdapter, VenueTraits
from killswitch.ratelimit.bucket import Bucket
from killswitch.ratelimit.shared_limits import CallCost, SharedLimit, highest_cost, units_by_call

Purpose = Literal["closing", "reading", "turn", "poll"]
"""What a call is for. A `turn` is an account poll that comes after the earlier claims of others; a `poll` is one that
also comes at every interval, and keeps its pace. All but closing leave the reserved share."""

PAUSES = Backoff(first=1.0, longest=60.0)
"""Seconds of pause after refusals in a row without a duration."""
PACE = 10.0
"""Seconds, or the poll interval if that is longer: under a limit for a longer time, polls are spaced evenly. Too many
polls would otherwise use a minute's units in half of it, and leave the other half without any."""
LONGEST_BAN = 3 * 86_400.0
"""Seconds. A longer `retry_after` is a mistake: Binance bans an address for three days at most."""


_IN_TURN = frozenset[Purpose]({"turn", "poll"})


class BudgetSpentError(Exception):
    """A call does not fit into the budget. `wait`: seconds until it would, infinite if it never can."""

    def __init__(self, call: Call, wait: float) -> None:
        super().__init__(f"{call} does not fit into the venue's request limits for another {wait:g} s")
        self.wait = wait


class Reservation(Struct, eq=False):
    """The units that one call holds. Opaque: `answered` receives it, whatever the answer was."""

    sent_at: float
    holds: tuple[tuple[Bucket, int], ...]


class RateLimitPause(Struct):
    """Until when a venue must not be called: shared by all its accounts."""

    until: float = -math.inf
    refusals: int = 0
    """In a row; refusals of requests that were sent before the first one arrived count as one."""

    def refused(self, now: float, retry_after: float | None) -> None:
        """Record a rate-limit refusal; `retry_after` applies if it is valid."""
        if now >= self.until:
            self.refusals += 1
        wait = PAUSES.after(self.refusals)
        if retry_after is not None and retry_after > 0:  # NaN is not
            wait = min(retry_after, LONGEST_BAN)
        self.until = max(self.until, now + wait)

    def answered(self, sent_at: float) -> None:
        """Record an answer to a request sent at `sent_at`: if the pause was over by then, the row of refusals ends."""
        if sent_at >= self.until:
            self.refusals = 0


class RequestBudget:
    """The budget of one account. Created by `RequestBudgets.of`, or `unlimited`."""

    def __init__(
        self,
        limits: Mapping[str, SharedLimit],
        call_costs: Mapping[Call, Sequence[CallCost]],
        reserved: Decimal,
        pause: RateLimitPause,
        paces: Sequence[CallCost] = (),
    ) -> None:
        self._limits = limits
        self._call_costs = call_costs
        self._reserved = reserved
        self._pause = pause
        self._paces = paces
        """Additional costs of a poll, under limits for the polls of any `PACE` seconds."""
        self._observed: dict[str, int] = {}
        self._claimed: tuple[Bucket, ...] = ()

    @classmethod
    def unlimited(cls) -> RequestBudget:
        """A budget without limits. Rate-limit refusals of the venue still apply."""
        return cls({}, {}, Decimal(0), RateLimitPause())

    @property
    def paused_until(self) -> float:
        """Until when the venue accepts no request at all; minus infinity if it never refused one."""
        return self._pause.until

    def wait(self, now: float, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> float:
        """Seconds until the call, with one order for each symbol, fits; 0.0 if it does, infinite if it never can.

        Several symbols are one request for `submit_batch`, and one request each for every other call. If it has to wait
        for an answer that has not arrived, this is the earliest possible time.
        """
        return self._wait(now, self._cost(call, symbols, purpose), purpose)

    def room(self, now: float, call: Call, symbols: Sequence[str], purpose: Purpose = "closing") -> int:
        """How many of `symbols`, from the front, fit now: as one batch for `submit_batch`, else as single calls."""
        if now < self._pause.until:
            return 0
        needed: dict[Bucket, int] = {}
        batch = call == "submit_batch"
        for fitted, symbol in enumerate(symbols):
            for call_cost in self._call_costs.get(call, ()):
                bucket = call_cost.limit.bucket(symbol)
                more = call_cost.each if batch and bucket in needed else call_cost.units + call_cost.each
                needed[bucket] = needed.get(bucket, 0) + more
                if not bucket.fits(now, needed[bucket], self._reserve(bucket, purpose)):
                    return fitted
        return len(symbols)

    def reserve(self, now: float, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> Reservation:
        """Reserve the units of a call that is sent now. BudgetSpentError, without a reservation, if it does not fit."""
        costs = [*self._cost(call, symbols, purpose)]
        if (wait := self._wait(now, costs, purpose)) > 0.0:
            raise BudgetSpentError(call, wait)
        polling = purpose != "closing"
        if purpose in _IN_TURN:
            self.withdraw()
        return Reservation(now, tuple((bucket, bucket.hold(now, units, polling=polling)) for bucket, units in costs))

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
        """Register a poll that waits for budget: polls of other accounts that share a limit come after it.

        From `overdue` on, orders leave it its units, as far as the share for closing allows. It must be renewed before
        `until`, when it lapses, and keeps its place and its first `overdue` then. `reserve` ends it.
        """
        # A poll that only its pace delays claims nothing of the venue's limits, so that others may be sent.
        paced = [*self._pace_cost(purpose)]
        costs = paced if self._wait_for_room(now, paced, purpose) > 0.0 else [*self._cost(call, symbols, purpose)]
        waits = {bucket: self._wait_for_room(now, [(bucket, units)], purpose) for bucket, units in costs}
        for bucket, units in costs:
            # While another limit delays it for longer than this one takes to come back, it claims nothing here.
            elsewhere = max((wait for other, wait in waits.items() if other is not bucket), default=0.0)
            begins = now + elsewhere - bucket.per
            reserve = self._reserve(bucket, purpose) or 0
            bucket.claim(now, self, units, reserve, begins=begins, overdue=overdue, until=until)
        for bucket in self._claimed:
            if bucket not in waits:
                bucket.withdraw(self)
        self._claimed = tuple(waits)

    def withdraw(self) -> None:
        """Remove the claim."""
        for bucket in self._claimed:
            bucket.withdraw(self)
        self._claimed = ()

    def answered(self, now: float, reservation: Reservation) -> None:
        """Record the end of a call, answered or not: its units come back `per` seconds from now. Once per call."""
        if reservation.holds:
            for bucket, hold in reservation.holds:
                bucket.answered(now, hold)
            reservation.holds = ()
        self._pause.answered(reservation.sent_at)

    def observed(self, now: float, used: Mapping[str, int]) -> None:
        """Apply the venue's own counts, by limit: what exceeds ours is used by others, and counts.

        A count is valid until a newer one is lower, for a minute at most, and is ignored if it is beyond reason. Call
        it right after an answer. A number that equals the last one is ignored: it may be as old. Limits for each symbol
        are skipped, since the venue's count does not name the symbol.
        """
        for name, limit in self._limits.items():
            reported = used.get(name)
            if reported is None or limit.by_symbol or reported == self._observed.get(name):
                continue
            self._observed[name] = reported
            limit.bucket("").observed(now, reported)

    def observe_venue(self, now: float, adapter: VenueAdapter) -> None:
        """Observe the venue's own counts, if the adapter reads any. Call it after an answer."""
        if adapter.used is not None:
            with suppress(Exception):  # an adapter's defect in counting must not lose the answer
                self.observed(now, adapter.used())

    def refused(self, now: float, retry_after: float | None) -> None:
        """Record a rate-limit refusal (418, 429): all accounts of the venue pause for `retry_after` seconds.

        Without a duration, they pause for a second, doubled by each refusal in a row up to a minute; a request that is
        sent after that and not refused ends the row. Call it before `answered` of the same call.
        """
        self._pause.refused(now, retry_after)

    def _wait(self, now: float, costs: Iterable[tuple[Bucket, int]], purpose: Purpose) -> float:
        return max(self._pause.until - now, self._wait_for_room(now, costs, purpose))

    def _wait_for_room(self, now: float, costs: Iterable[tuple[Bucket, int]], purpose: Purpose) -> float:
        owner = self if purpose in _IN_TURN else None
        waits = (bucket.wait(now, units, self._reserve(bucket, purpose), owner) for bucket, units in costs)
        return max(waits, default=0.0)

    def _cost(self, call: Call, symbols: Sequence[str], purpose: Purpose) -> Iterator[tuple[Bucket, int]]:
        for call_cost in self._call_costs.get(call, ()):
            yield from call_cost.cost(symbols, batch=call == "submit_batch")
        yield from self._pace_cost(purpose)

    def _pace_cost(self, purpose: Purpose) -> Iterator[tuple[Bucket, int]]:
        for call_cost in self._paces if purpose == "poll" else ():
            yield from call_cost.cost((), batch=False)

    def _reserve(self, bucket: Bucket, purpose: Purpose) -> int | None:
        return None if purpose == "closing" else int(bucket.allowed * self._reserved)


class RequestBudgets:
    """The budgets of all accounts of a runner; limits by address are shared by all of them."""

    def __init__(self, interval: float = 1.0) -> None:
        """Create them; `interval` is the number of seconds between two polls of an account."""
        self._interval = interval
        self._round = max(PACE, interval)
        self._pauses: dict[str, RateLimitPause] = {}
        self._shared: dict[tuple[str, str, str], SharedLimit] = {}
        self._paces: dict[tuple[str, str, str], SharedLimit] = {}

    def of(
        self, account: str, venue: str, traits: VenueTraits = PLAIN_VENUE, reserved: Decimal = Decimal(0)
    ) -> RequestBudget:
        """The budget of `account`. `reserved`: the fraction of every limit that polls may not use.

        ValueError if the traits contradict themselves: a cost of an undeclared limit, a cost above its limit, a limit
        of nothing.
        """
        if not 0 <= reserved < 1:
            raise ValueError(f"the share reserved for closing is {reserved}; it must be at least 0 and less than 1")
        costs = units_by_call(traits)
        most = {limit.name: highest_cost(costs, limit.name) for limit in traits.limits}
        limits = {limit.name: self._limit(account, venue, limit, most[limit.name]) for limit in traits.limits}
        call_costs: dict[Call, list[CallCost]] = {}
        for (call, name), (units, each) in costs.items():
            if units or each:
                call_costs.setdefault(call, []).append(CallCost(limits[name], units, each))
        paces = [
            CallCost(self._pace(account, venue, limit, limits[limit.name], units), units, 0)
            for limit in traits.limits
            if (units := costs.get(("snapshot", limit.name), (0, 0))[0]) and limit.per > self._round + self._interval
        ]
        return RequestBudget(limits, call_costs, reserved, self._pauses.setdefault(venue, RateLimitPause()), paces)

    def _limit(self, account: str, venue: str, limit: RateLimit, most: int) -> SharedLimit:
        """The shared limit; if two accounts declare it differently, the stricter declaration applies."""
        made = SharedLimit(limit.allowed, limit.per, by_symbol=limit.by == "symbol")
        shared = self._shared.setdefault(_limit_key(account, venue, limit), made)
        shared.tighten(limit, most)
        return shared

    def _pace(self, account: str, venue: str, limit: RateLimit, strictest: SharedLimit, a_poll: int) -> SharedLimit:
        """What polls may use of a long limit in a short time: at least one poll.

        It is the limit's part for that time and one interval more: polls come in steps, and the units of the one before
        are held beyond its answer, so any such time may contain the polls of one more step.
        """
        shared = self._paces.setdefault(_limit_key(account, venue, limit), SharedLimit(0, self._round))
        shared.most_units = max(shared.most_units, a_poll)
        share = Fraction(self._round + self._interval) / Fraction(strictest.per)
        shared.allowed = shared.bucket("").allowed = max(math.ceil(strictest.allowed * share), shared.most_units)
        return shared


def _limit_key(account: str, venue: str, limit: RateLimit) -> tuple[str, str, str]:
    """The key of a limit: owned by an account, or by an address with all its accounts."""
    return (venue, "" if limit.by == "address" else account, limit.name)
