"""Worst-case estimate of closing whole books: requests and seconds within the venues' limits. Sends nothing.

Limits are counted by the budgets that closing itself uses, on a simulated clock: a call is sent as soon as there is
budget, and its units come back `per` seconds after its answer. Accounts that share a limit share it here. The units
that polls are entitled to are deducted from each limit: polls go on meanwhile, and may just have used them.

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
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count, dropwhile

from msgspec import Struct, structs

from killswitch.model.venue import Call, VenueTraits
from killswitch.ratelimit.budget import RequestBudget, RequestBudgets, Ticket
from killswitch.ratelimit.poll_cost import PollCost, PolledAccount, poll_costs
from killswitch.ratelimit.shared_limits import highest_cost, units_by_call

LONGEST = 86_400.0
"""Seconds. A longer close is reported as longer than that."""
LEAST_WAIT = 1e-3
"""Smallest step of the simulated clock, in seconds."""


@dataclass(frozen=True, slots=True)
class CloseTask:
    """The work for one account. `orders`: symbol and number of orders for each position.

    `share`: the part of every limit that polls leave free. `whole_book`: every position is closed completely, so that
    the venue's whole-book close applies if it has one. `every`: seconds between two orders, where the policy declares a
    pace; `pause`: seconds between two orders of one position.
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


@dataclass(slots=True, eq=False)
class _SimulatedClose:
    """One account's progress in the simulation."""

    task: CloseTask
    budget: RequestBudget
    phases: deque[_Phase]
    left: deque[str] = field(default_factory=deque)
    phase: Call = "snapshot"
    open: int = 0
    next_departure: float = 0.0
    wakes: float | None = 0.0
    """When it is resumed without an answer."""
    calls: Counter[Call] = field(default_factory=Counter)
    orders: int = 0
    ended: float | None = None


def estimate_close(
    tasks: Sequence[CloseTask], *, trip: float, interval: float, readers: Sequence[PolledAccount] = ()
) -> dict[str, CloseEstimate]:
    """The estimate for each account's task, if all begin at once. `trip`: seconds from a request to its answer.

    `interval`: seconds between two polls of each account, which go on; infinite for none. `readers`: the accounts that
    are polled, of which some may have no task; those with a task count whether they are listed or not. Accounts have
    distinct names. ValueError if traits contradict themselves.
    """
    named = {each.account for each in readers}
    others = [PolledAccount(it.account, it.venue, it.traits, it.share) for it in tasks if it.account not in named]
    costs = {} if interval == math.inf else poll_costs([*readers, *others], interval)
    budgets = RequestBudgets()
    courses = []
    for task in tasks:
        left = _without_readings(task, costs.get(task.account, ()))
        courses.append(_SimulatedClose(task, budgets.of(task.account, task.venue, left), deque(_phases(task))))
    _Simulation(courses, trip).run()
    return {course.task.account: _reckoning(course) for course in courses}


def _phases(task: CloseTask) -> Iterable[_Phase]:
    if task.first:
        yield "cancel", task.first
    for wave in range(max((parts for _, parts in task.orders), default=0)):
        symbols = [symbol for symbol, parts in task.orders if parts > wave]
        yield "submit", symbols
        yield "find_order", symbols
        yield "snapshot", ("",)
    if task.last:
        yield "cancel", task.last
        yield "snapshot", ("",)


class _Simulation:
    """Sends and answers in the order of time; time 0 is the decision."""

    def __init__(self, courses: Sequence[_SimulatedClose], trip: float) -> None:
        self._courses = courses
        self._trip = trip
        self._events: list[tuple[float, int, _SimulatedClose, Ticket | None]] = []
        self._names = count()

    def run(self) -> None:
        for course in self._courses:
            self._at(0.0, course, None)
        while self._events:
            now, _, course, ticket = heapq.heappop(self._events)
            if now > LONGEST:
                return
            if ticket is not None:
                course.budget.answered(now, ticket)
                course.open -= 1
            elif now != course.wakes:
                continue  # replaced by an earlier one
            else:
                course.wakes = None
            self._go_on(now, course)

    def _at(self, when: float, course: _SimulatedClose, ticket: Ticket | None) -> None:
        heapq.heappush(self._events, (when, next(self._names), course, ticket))

    def _go_on(self, now: float, course: _SimulatedClose) -> None:
        """Send what the budget allows; resumed by an answer, or when there may be more budget."""
        if course.ended is not None:
            return
        while not course.left and not course.open:
            if not course.phases:
                course.ended = now
                return
            self._begin(now, course)
        wait = self._send(now, course)
        if wait is None:
            return
        when = now + max(wait, LEAST_WAIT)
        if course.wakes is None or when < course.wakes:
            course.wakes = when
            self._at(when, course, None)

    def _begin(self, now: float, course: _SimulatedClose) -> None:
        course.phase, symbols = course.phases.popleft()
        course.left = deque(symbols)
        task = course.task
        if course.phase != "submit":
            return
        if course.orders:
            course.next_departure = max(course.next_departure, now + task.pause)
        sweeps = task.traits.whole_book and task.whole_book and not (course.orders or task.every) and len(symbols) > 1
        if sweeps and course.budget.room(now, "submit", symbols) < len(symbols):
            course.phase, course.left = "close_book", deque([""])
            course.phases = deque([("snapshot", ("",)), *dropwhile(lambda each: each[0] != "cancel", course.phases)])

    def _send(self, now: float, course: _SimulatedClose) -> float | None:
        """Seconds until more may be sent; None where nothing is left to send."""
        while course.left:
            if course.phase == "submit":
                if course.next_departure > now:
                    return course.next_departure - now
                wait = self._order(now, course)
            else:
                wait = self._call(now, course, course.phase, course.left[0])
            if wait > 0.0:
                return wait
        return None

    def _order(self, now: float, course: _SimulatedClose) -> float:
        """Send the next order, or a batch; 0.0, or seconds until there is budget."""
        task = course.task
        most = 1 if task.every else task.traits.batch
        symbols = [course.left[i] for i in range(min(most, len(course.left)))]
        fits = course.budget.room(now, "submit_batch", symbols) if len(symbols) > 1 else 0
        if fits > 1:
            self._leave(now, course, "submit_batch", symbols[:fits])
            return 0.0
        wait = self._call(now, course, "submit", symbols[0])
        if wait <= 0.0 and task.every:
            course.next_departure = max(course.next_departure, now - task.every) + task.every
        if wait > 0.0 and len(symbols) > 1:
            wait = min(wait, course.budget.wait(now, "submit_batch", symbols[:2]))
        return wait

    def _call(self, now: float, course: _SimulatedClose, call: Call, symbol: str) -> float:
        wait = course.budget.wait(now, call, (symbol,) if symbol else ())
        if wait <= 0.0:
            self._leave(now, course, call, [symbol])
        return wait

    def _leave(self, now: float, course: _SimulatedClose, call: Call, symbols: Sequence[str]) -> None:
        ticket = course.budget.reserve(now, call, [symbol for symbol in symbols if symbol])
        for _ in symbols:
            course.left.popleft()
        course.calls[call] += 1
        course.open += 1
        if call in ("submit", "submit_batch"):
            course.orders += len(symbols)
        self._at(now + self._trip, course, ticket)


def _without_readings(task: CloseTask, costs: Sequence[PollCost]) -> VenueTraits:
    """The traits with limits less the units of polls, which may just have used the share reserved to them."""
    least = units_by_call(task.traits)
    used = {cost.limit: min(cost.for_reading, max(cost.a_reading, math.ceil(cost.takes))) for cost in costs}
    limits = tuple(
        structs.replace(limit, allowed=max(limit.allowed - used.get(limit.name, 0), highest_cost(least, limit.name), 1))
        for limit in task.traits.limits
    )
    return structs.replace(task.traits, limits=limits)


def _reckoning(course: _SimulatedClose) -> CloseEstimate:
    calls: dict[str, int] = {call: course.calls[call] for call in sorted(course.calls)}
    return CloseEstimate(
        orders=sum(parts for _, parts in course.task.orders),
        cancels=len(course.task.first) + len(course.task.last),
        requests=sum(calls.values()),
        calls=calls,
        seconds=None if course.ended is None else round(course.ended, 3),
        bound_by=_bound_by(course),
    )


def _bound_by(course: _SimulatedClose) -> str | None:
    """The limit with the longest time until the last unit of the total is allowed."""
    traits = course.task.traits
    costs = units_by_call(traits)
    waits: dict[str, float] = {}
    for limit in traits.limits:
        if limit.by == "symbol":
            continue
        units = 0
        for call, made in course.calls.items():
            request, each = costs.get((call, limit.name), (0, 0))
            orders = course.orders - course.calls["submit"] if call == "submit_batch" else made
            units += made * request + each * orders
        waits[limit.name] = (units - 1) // limit.allowed * limit.per
    longest = max(waits, key=waits.__getitem__, default=None)
    return longest if longest is not None and waits[longest] > 0.0 else None
