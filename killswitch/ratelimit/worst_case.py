"""Worst-case estimate of closing whole books: requests and seconds within the venues' limits. Sends nothing.

Limits are counted by the budgets that closing itself uses, on a simulated clock: a call is sent as soon as there is
budget, and its units come back `per` seconds after its answer. Accounts that share a limit share it here. The units
that polls are entitled to are deducted from each limit: polls continue, and may just have used them.

For each account: cancels of entry orders, then a batch with at most one order of each position, a query for each order
(as if the venue acknowledged without reporting the fill), a poll; further batches where the venue's maximum splits a
position into several orders; then the other cancels, and a last poll. Every order fills at once, and nothing is
refused: limits do not describe market conditions.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import count, dropwhile

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.venue import Call, VenueTraits
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets, Reservation
from killswitch.ratelimit.poll_cost import PollCost, PolledAccount, poll_costs
from killswitch.ratelimit.shared_limits import highest_cost, units_by_call

LONGEST = 86_400.0
"""Seconds. A longer close is reported as longer than that."""
LEAST_WAIT = 1e-3
"""Smallest step of the simulated clock, in seconds."""


class CloseTask(Struct, frozen=True):
    """The close of one account. `orders`: symbol and number of orders for each position.

    `share`: the part of every limit that polls leave free. `whole_book`: every position is closed completely, at
    a venue that can do so in one request. `batch`: the maximum number of orders in one request. `every`:
    seconds between two orders, where the policy declares a pace; `pause`: seconds between two orders of one position.
    """

    account: str
    venue: str
    traits: VenueTraits
    share: Decimal
    orders: Sequence[tuple[str, int]]
    first: Sequence[str] = ()
    """The symbol of each order that is cancelled before."""
    last: Sequence[str] = ()
    """The symbol of each order that is cancelled at the end."""
    whole_book: bool = False
    batch: int = 1
    every: float = 0.0
    pause: float = 0.0


class CloseEstimate(Struct, frozen=True):
    """The estimate. `seconds`: from the decision to the last poll's answer; None: more than a day.

    `bound_by`: the limit that takes the longest to allow what is needed, regardless of polls; None where everything is
    allowed at once.
    """

    orders: int
    cancels: int
    requests: int
    calls: Mapping[str, int]
    seconds: float | None
    bound_by: str | None


_Phase = tuple[Call, Sequence[str]]
"""A kind of call, and the symbol of each."""


class _SimulatedClose(Struct, eq=False):
    """One account's progress in the simulation."""

    task: CloseTask
    budget: RequestBudget
    phases: deque[_Phase]
    left: deque[str] = field(default_factory=deque)
    phase: Call = "snapshot"
    open: int = 0
    next_send: float = 0.0
    wake_at: float | None = 0.0
    """When it is resumed without an answer."""
    calls: Counter[Call] = field(default_factory=Counter)
    orders: int = 0
    ended: float | None = None


def estimate_close(
    tasks: Sequence[CloseTask], *, trip: float, interval: float, polled: Sequence[PolledAccount] = ()
) -> dict[str, CloseEstimate]:
    """The estimate for each account's task, if all begin at once. `trip`: seconds from a request to its answer.

    `interval`: seconds between two polls of each account, which go on; infinite for none. `readers`: the accounts that
    are polled, of which some may have no task; those with a task count whether they are listed or not. Accounts have
    distinct names. ValueError if traits contradict themselves.
    """
    named = {each.account for each in polled}
    others = [PolledAccount(it.account, it.venue, it.traits, it.share) for it in tasks if it.account not in named]
    costs = {} if interval == math.inf else poll_costs([*polled, *others], interval)
    budgets = RequestBudgets()
    closes = []
    for task in tasks:
        left = _without_poll_units(task, costs.get(task.account, ()))
        closes.append(_SimulatedClose(task, budgets.of(task.account, task.venue, left), deque(_phases(task))))
    _Simulation(closes, trip).run()
    return {close.task.account: _estimate(close) for close in closes}


def _phases(task: CloseTask) -> Iterable[_Phase]:
    if task.first:
        yield "cancel", task.first
    for batch in range(max((parts for _, parts in task.orders), default=0)):
        symbols = [symbol for symbol, parts in task.orders if parts > batch]
        yield "submit", symbols
        yield "find_order", symbols
        yield "snapshot", ("",)
    if task.last:
        yield "cancel", task.last
        yield "snapshot", ("",)


class _Simulation:
    """Sends and answers in the order of time; time 0 is the decision."""

    def __init__(self, closes: Sequence[_SimulatedClose], trip: float) -> None:
        self._closes = closes
        self._trip = trip
        self._events: list[tuple[float, int, _SimulatedClose, Reservation | None]] = []
        self._ids = count()

    def run(self) -> None:
        for close in self._closes:
            self._schedule(0.0, close, None)
        while self._events:
            now, _, close, reservation = heapq.heappop(self._events)
            if now > LONGEST:
                return
            if reservation is not None:
                close.budget.answered(now, reservation)
                close.open -= 1
            elif now != close.wake_at:
                continue  # replaced by an earlier one
            else:
                close.wake_at = None
            self._resume(now, close)

    def _schedule(self, when: float, close: _SimulatedClose, reservation: Reservation | None) -> None:
        heapq.heappush(self._events, (when, next(self._ids), close, reservation))

    def _resume(self, now: float, close: _SimulatedClose) -> None:
        """Send what the budget allows; resumed by an answer, or when there may be more budget."""
        if close.ended is not None:
            return
        while not close.left and not close.open:
            if not close.phases:
                close.ended = now
                return
            self._begin(now, close)
        wait = self._send(now, close)
        if wait is None:
            return
        when = now + max(wait, LEAST_WAIT)
        if close.wake_at is None or when < close.wake_at:
            close.wake_at = when
            self._schedule(when, close, None)

    def _begin(self, now: float, close: _SimulatedClose) -> None:
        close.phase, symbols = close.phases.popleft()
        close.left = deque(symbols)
        task = close.task
        if close.phase != "submit":
            return
        if close.orders:
            close.next_send = max(close.next_send, now + task.pause)
        in_one_request = task.whole_book and not (close.orders or task.every) and len(symbols) > 1
        if in_one_request and close.budget.room(now, "submit", symbols) < len(symbols):
            close.phase, close.left = "close_book", deque([""])
            close.phases = deque([("snapshot", ("",)), *dropwhile(lambda each: each[0] != "cancel", close.phases)])

    def _send(self, now: float, close: _SimulatedClose) -> float | None:
        """Seconds until more may be sent; None where nothing is left to send."""
        while close.left:
            if close.phase == "submit":
                if close.next_send > now:
                    return close.next_send - now
                wait = self._order(now, close)
            else:
                wait = self._call(now, close, close.phase, close.left[0])
            if wait > 0.0:
                return wait
        return None

    def _order(self, now: float, close: _SimulatedClose) -> float:
        """Send the next order, or a batch; 0.0, or seconds until there is budget."""
        task = close.task
        most = 1 if task.every else task.batch
        symbols = [close.left[i] for i in range(min(most, len(close.left)))]
        fits = close.budget.room(now, "submit_batch", symbols) if len(symbols) > 1 else 0
        if fits > 1:
            self._send_call(now, close, "submit_batch", symbols[:fits])
            return 0.0
        wait = self._call(now, close, "submit", symbols[0])
        if wait <= 0.0 and task.every:
            close.next_send = max(close.next_send, now - task.every) + task.every
        if wait > 0.0 and len(symbols) > 1:
            wait = min(wait, close.budget.wait(now, "submit_batch", symbols[:2]))
        return wait

    def _call(self, now: float, close: _SimulatedClose, call: Call, symbol: str) -> float:
        wait = close.budget.wait(now, call, (symbol,) if symbol else ())
        if wait <= 0.0:
            self._send_call(now, close, call, [symbol])
        return wait

    def _send_call(self, now: float, close: _SimulatedClose, call: Call, symbols: Sequence[str]) -> None:
        reservation = close.budget.reserve(now, call, [symbol for symbol in symbols if symbol])
        for _ in symbols:
            close.left.popleft()
        close.calls[call] += 1
        close.open += 1
        if call in ("submit", "submit_batch"):
            close.orders += len(symbols)
        self._schedule(now + self._trip, close, reservation)


def _without_poll_units(task: CloseTask, costs: Sequence[PollCost]) -> VenueTraits:
    """The traits with limits less the units of polls, which may just have used the share reserved to them."""
    least = units_by_call(task.traits)
    used = {cost.limit: min(cost.for_reading, max(cost.a_reading, math.ceil(cost.takes))) for cost in costs}
    limits = tuple(
        replace(limit, allowed=max(limit.allowed - used.get(limit.name, 0), highest_cost(least, limit.name), 1))
        for limit in task.traits.limits
    )
    return replace(task.traits, limits=limits)


def _estimate(close: _SimulatedClose) -> CloseEstimate:
    calls: dict[str, int] = {call: close.calls[call] for call in sorted(close.calls)}
    return CloseEstimate(
        orders=sum(parts for _, parts in close.task.orders),
        cancels=len(close.task.first) + len(close.task.last),
        requests=sum(calls.values()),
        calls=calls,
        seconds=None if close.ended is None else round(close.ended, 3),
        bound_by=_bound_by(close),
    )


def _bound_by(close: _SimulatedClose) -> str | None:
    """The limit with the longest time until the last unit of the total is allowed."""
    traits = close.task.traits
    costs = units_by_call(traits)
    waits: dict[str, float] = {}
    for limit in traits.limits:
        if limit.by == "symbol":
            continue
        units = 0
        for call, made in close.calls.items():
            request, each = costs.get((call, limit.name), (0, 0))
            orders = close.orders - close.calls["submit"] if call == "submit_batch" else made
            units += made * request + each * orders
        waits[limit.name] = (units - 1) // limit.allowed * limit.per
    longest = max(waits, key=waits.__getitem__, default=None)
    return longest if longest is not None and waits[longest] > 0.0 else None
