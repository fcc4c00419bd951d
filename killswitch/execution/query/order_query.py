"""Queries orders of unknown status by client order id, then among open orders, then by fills. Sends no order.

Nothing is journaled while the venue does not answer. "No such order" counts only if all three agree, and only when the
request can no longer be carried out, when the venue refuses a second order of its name, or when it could only reduce a
position that is closed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.execution.account_context import AccountContext, BudgetExhaustedError
from killswitch.execution.client_order_id import lapses_after
from killswitch.execution.query.fee_queries import total_fee
from killswitch.execution.report_validation import validated_report, venue_text
from killswitch.execution.send.order_sender import report_entry
from killswitch.journal.entries import Abandoned, Absent, Acknowledged, Entry, EntryHead, OrderDetached
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.journal.orders import JournaledOrder
from killswitch.journal.targets import PositionTarget
from killswitch.model.backoff import Backoff
from killswitch.model.snapshot import Order
from killswitch.model.venue import Call, OrderReport, RateLimitedError, VenueDownError, VenueError
from killswitch.ratelimit.budget import Purpose

URGENT_QUERIES = 5
"""Queries of one order that may use the budget reserved for closing before its absence may be accepted; as many after
that, and then one after `idle_poll_interval`, doubled by each answered one: a close cannot end without the answer.
Unanswered queries do not lengthen the interval, so that an outage causes no delay after it."""
_LONGEST_PAUSE = 1024
"""The longest of these intervals, as a multiple of `idle_poll_interval`."""
LEAST_QUERIES = 20
"""Queries that the venue must have answered before an order is abandoned, however long ago it was sent."""


_ROUNDS: Final = 4
"""A query that decides nothing is sent only if the budget has room for this many: decisive ones by name and by fills,
and a reserve."""


class OrderQuestion(Struct, frozen=True):
    """One order to query. `state` is its target's state if the target waits for it, None if the order is detached.

    `valid_for`: validity of its request in seconds, if it had one.
    """

    target: PositionTarget
    name: str
    attempt: int | None
    order_id: str | None
    largest_fill: Decimal
    sent_at: datetime | None
    state: TargetState | None
    valid_for: float | None = None


class _QueryCounters(Struct):
    """Query counters of one order.

    `answered` counts answered queries since `answered_since`; `decisive` counts urgent queries since the order's
    absence may be accepted, and `decisive_answered` those of them that were answered.
    """

    count: int = 0
    at: float = -math.inf
    answered: int = 0
    answered_since: float = math.inf
    decisive: int = 0
    decisive_answered: int = 0
    decisive_at: float = -math.inf
    urgent: bool = True
    """Whether this round's query may use the budget reserved for closing."""
    can_be_absent: bool = False
    """Whether the answer "no such order" is accepted in this round."""
    denied_since: float | None = None
    """Since when the venue has been answering "no such order"."""
    resting: str | None = None
    """The venue's order id, if the order is detached and was found open."""
    first_age: tuple[datetime, float, float] | None = None
    """When it was sent, the monotonic seconds at which its age was first computed, and that age."""


def questions(target: PositionTarget) -> list[OrderQuestion]:
    """Every order of the target whose end is unknown."""
    orders: list[tuple[JournaledOrder, int | None, str | None, TargetState | None]]
    orders = [(order, order.attempt, None, None) for order in target.detached.values()]
    if target.is_in_flight and target.order is not None and target.client_order_id is not None:
        orders.append((target.order, target.attempt, target.order_id, target.state))
    return [
        OrderQuestion(target, it.name, attempt, id_, it.may_fill(target.decided), it.sent_at, state, it.valid_for)
        for it, attempt, id_, state in orders
    ]


class OrderQuery:
    """Queries orders of one account, all at the same time, each at growing intervals."""

    def __init__(self, context: AccountContext, is_resting_in_halt: Callable[[PositionTarget], bool]) -> None:
        """`is_resting_in_halt`: whether a target's order rests in a halted market, where nothing can fill.

        Such orders are queried last and seldom: one at a time for the whole account, in turn.
        """
        self._context, self._pace = context, context.pace
        self._is_resting_in_halt = is_resting_in_halt
        self._life = context.traits.order_life
        self._halted: frozenset[str] = frozenset()
        """Orders that rested in a halted market at the last `query`."""
        self._halted_queried_at = float("-inf")
        """When one of them was last queried."""
        self._counters: dict[str, _QueryCounters] = {}

    @property
    def next_at(self) -> float:
        """Monotonic seconds at which the next query is due; infinite if nothing was queried yet."""
        return min((self._not_before(name) for name in self._counters), default=float("inf"))

    async def query(self, about: Sequence[OrderQuestion]) -> None:
        """Query the orders that are due, and journal the answers."""
        now = self._context.monotonic()
        self._halted = frozenset(
            q.name for q in about if q.state is TargetState.WORKING and self._is_resting_in_halt(q.target)
        )
        self._counters = {name: self._counters[name] for name in (q.name for q in about) if name in self._counters}
        due = [question for question in about if self._not_before(question.name) <= now]
        if not due or not self._context.can_send():
            return
        halted = self._halted_due(due)
        if self._halted:
            due = [question for question in due if question not in halted]
            due.sort(key=lambda question: question.name in self._halted)
            due += halted[:1]
        queried, changed = await self._send_queries(due)
        if halted and halted[0] in queried:
            self._halted_queried_at = now
            if halted[0].name in changed:
                # It rested in a halted market, which may have opened for the other orders, too.
                await self._send_queries([q for q in about if q.name in self._halted and q not in queried])

    async def _send_queries(self, due: Sequence[OrderQuestion]) -> tuple[Sequence[OrderQuestion], set[str | None]]:
        """Query as far as there is budget; returns what was queried, and the names of orders that changed."""
        due = self._within_budget(due)
        due = due[: self._context.room("find_order", [question.target.symbol for question in due])]
        now = self._context.monotonic()
        for question in due:
            self._count_query(question, now)
        find = self._context.find_order
        reports = await asyncio.gather(*(find(q.target.symbol, q.name, q.largest_fill, self._purpose(q)) for q in due))
        for question, report in zip(due, reports, strict=True):
            is_answered = not isinstance(report, RateLimitedError | VenueDownError)
            counters = self._counters[question.name]
            if is_answered:
                counters.answered, counters.answered_since = counters.answered + 1, min(counters.answered_since, now)
            if counters.urgent and counters.can_be_absent and not isinstance(report, BudgetExhaustedError):
                counters.decisive, counters.decisive_at = counters.decisive + 1, now
                counters.decisive_answered += is_answered
        is_list_needed = any(not isinstance(it, OrderReport | RateLimitedError | VenueDownError) for it in reports)
        listed = await self._context.open_orders(purpose=self._list_purpose(due, reports)) if is_list_needed else None
        resting = None if listed is None else {each.client_order_id: each for each in listed}
        entries = await asyncio.gather(
            *(self._answer(question, report, resting) for question, report in zip(due, reports, strict=True))
        )
        answers = [entry for entry in entries if entry is not None]
        for entry in answers:
            self._counters.pop(entry.client_order_id or "", None)
        if answers:
            self._context.record(answers)
        return due, {entry.client_order_id for entry in answers}

    def expedite(self, names: Iterable[str]) -> None:
        """Query these orders at the next `query`, however recent their last query was."""
        for name in names:
            if name in self._counters:
                self._counters[name].at = -math.inf

    def is_unanswered(self, question: OrderQuestion) -> bool:
        """Whether the order was queried without a result."""
        return question.name in self._counters

    def open_order_id(self, name: str) -> str | None:
        """The venue's id of a detached order that was found open; None for any other."""
        return self._counters[name].resting if name in self._counters else None

    def abandoned(self, now: float, about: Sequence[OrderQuestion]) -> list[Abandoned]:
        """Entries that abandon the detached orders that were queried for long enough."""
        return [
            Abandoned(*self._head(question), text=f"queried for {self._pace.abandon_after:g} s without an answer")
            for question in about
            if question.state is None
            and (counters := self._counters.get(question.name)) is not None
            and counters.answered >= LEAST_QUERIES
            and now - counters.answered_since >= self._pace.abandon_after
        ]

    def detached_entry(self, question: OrderQuestion) -> OrderDetached:
        """The entry that detaches the order, so that its target continues without it."""
        return OrderDetached(*self._head(question), text="its status is unknown, and the position does not wait for it")

    def settled_by_position(self, question: OrderQuestion) -> Absent | None:
        """The entry for a detached order whose position other orders have closed; None while the venue may have it.

        The caller has seen the position closed, and the venue limits the order to reducing it.
        """
        counters = self._counters.get(question.name)
        if counters is None or counters.denied_since is None or counters.resting is not None:
            return None
        text = "the venue has no such order, and the position that it could only reduce is closed"
        return Absent(*self._head(question), text=text, early=not self._has_lapsed(question))

    def _halted_due(self, due: Sequence[OrderQuestion]) -> list[OrderQuestion]:
        """The due orders that rest in halted markets, the one queried longest ago first.

        Orders that were never queried, or that were expedited, are left out.
        """
        queried = [q for q in due if q.name in self._halted and q.name in self._counters]
        found = [q for q in queried if self._counters[q.name].at > -math.inf]
        return sorted(found, key=lambda q: self._counters[q.name].at)

    def _not_before(self, name: str) -> float:
        if name not in self._counters:
            return float("-inf")
        count, at = self._counters[name].count, self._counters[name].at
        if name in self._halted:
            return at if math.isinf(at) else max(at, self._halted_queried_at) + self._pace.halted_query_interval
        return at + Backoff(self._pace.first_query_interval, self._pace.poll_interval).after(count)

    def _within_budget(self, due: Sequence[OrderQuestion]) -> Sequence[OrderQuestion]:
        """Drop queries that can decide nothing now, where they would use the budget of those that can.

        While a request may still be delayed, a repeated query only shows whether it has arrived. Some venues allow
        one query of an ended order in ten seconds.
        """
        queried = [q for q in due if q.name in self._counters and q.state is not TargetState.WORKING]
        early = {q.name for q in queried if not self._is_decisive(q)}
        if not early or not self._is_scarce("find_order", [question.target.symbol for question in due]):
            return due
        return [question for question in due if question.name not in early]

    def _is_scarce(self, call: Call, symbols: Sequence[str]) -> bool:
        """Whether the budget lacks room for a query of each symbol and for the decisive queries after it."""
        wanted = [*symbols] * _ROUNDS
        return self._context.room(call, wanted) < len(wanted)

    def _count_query(self, question: OrderQuestion, now: float) -> None:
        """Count the query that is about to be sent, and decide whose budget it uses."""
        counters = self._counters.setdefault(question.name, _QueryCounters())
        counters.count, counters.at = counters.count + 1, now
        counters.can_be_absent = self._is_decisive(question)
        if not counters.can_be_absent:
            counters.urgent = counters.count <= URGENT_QUERIES
            return
        pauses = Backoff(self._pace.idle_poll_interval, self._pace.idle_poll_interval * _LONGEST_PAUSE)
        pause = pauses.after(max(counters.decisive_answered - URGENT_QUERIES, 0) + 1)
        counters.urgent = counters.decisive < URGENT_QUERIES or now - counters.decisive_at >= pause

    def _purpose(self, question: OrderQuestion) -> Purpose:
        """The closing budget for queries that a close needs to end; else the polls' budget."""
        return "closing" if self._counters[question.name].urgent else "reading"

    def _list_purpose(self, due: Sequence[OrderQuestion], reports: Sequence[object]) -> Purpose:
        """The closing budget for the list of open orders, only where it decides whether an order is absent."""
        for question, report in zip(due, reports, strict=True):
            is_conclusive = isinstance(report, OrderReport | RateLimitedError | VenueDownError)
            if (
                not is_conclusive
                and self._counters[question.name].can_be_absent
                and self._purpose(question) == "closing"
            ):
                return "closing"
        return "reading"

    def _report_entry(self, question: OrderQuestion, report: OrderReport) -> Entry | None:
        state = TargetState.WORKING if question.state in (None, TargetState.WORKING) else question.state
        return report_entry(report, state, self._head(question))

    async def _answer(
        self,
        question: OrderQuestion,
        report: OrderReport | VenueError | None,
        resting: Mapping[str | None, Order] | None,
    ) -> Entry | None:
        counters = self._counters[question.name]
        if report is None:
            if counters.denied_since is None:
                counters.denied_since = self._context.monotonic()
        elif isinstance(report, OrderReport):
            counters.denied_since = None
            if report.state == "open" and question.state is None:
                counters.resting = report.id
            return self._report_entry(question, report)
        if isinstance(report, RateLimitedError | VenueDownError):
            return None
        return await self._answer_from_lists(question, resting, denied=report is None)

    async def _answer_from_lists(
        self, question: OrderQuestion, resting: Mapping[str | None, Order] | None, *, denied: bool
    ) -> Entry | None:
        """The entry that follows from open orders and fills, where a query by name found nothing."""
        counters = self._counters[question.name]
        if resting is not None and question.name in resting:
            order = resting[question.name]
            if question.state is None:
                counters.resting = order.id
            is_new = question.state in (TargetState.SENDING, TargetState.UNKNOWN)
            return Acknowledged(*self._head(question), order=venue_text(order.id)) if is_new else None
        symbols = [question.target.symbol] * len(self._counters)
        if denied and not counters.can_be_absent and self._is_scarce("fills", symbols):
            return None  # the request may be delayed; fills are queried once it no longer can arrive
        report = await self._by_fills(question)
        if report is None:
            return None
        # A denial is not accepted while the request runs, since the order may still arrive.
        is_denial_final = denied and counters.can_be_absent and question.name not in self._context.running
        is_absent = is_denial_final and resting is not None and self._denied_for_long(question)
        ended = is_absent and (report.filled > ZERO or question.state is TargetState.WORKING)
        if ended or report.filled >= question.largest_fill:
            return self._report_entry(question, report)
        if not is_absent or report.filled > ZERO:
            return None
        return Absent(*self._head(question), text="the venue has no such order", early=not self._has_lapsed(question))

    async def _by_fills(self, question: OrderQuestion) -> OrderReport | None:
        """A report built from the order's fills; None if the venue does not return them."""
        try:
            fills = await self._context.fills(question.target.symbol, question.name, self._purpose(question))
        except (VenueError, TypeError):
            return None
        filled = sum((fill.amount for fill in fills), ZERO)
        paid = sum((fill.amount * fill.price for fill in fills), ZERO)
        report = OrderReport(
            id=question.order_id or "",
            client_order_id=question.name,
            symbol=question.target.symbol,
            state="expired",
            amount=question.largest_fill,
            filled=filled,
            average_price=paid / filled if filled > ZERO else None,
            fee=total_fee(fills, self._context.currency)[0],
        )
        return validated_report(report, question.name, question.largest_fill)

    def _denied_for_long(self, question: OrderQuestion) -> bool:
        """Whether the venue has denied an open order for longer than its lists may lag; True for any other order."""
        if question.state is not TargetState.WORKING:
            return True
        since = self._counters[question.name].denied_since
        return since is not None and self._context.monotonic() - since >= self._pace.absence_after

    def _is_decisive(self, question: OrderQuestion) -> bool:
        """Whether a denial by the next query may be accepted.

        Where the venue never accepts a client order id twice, and the same one is sent next, that is soon. The id of a
        detached order is not used again: its replacement has another id, and both would be carried out. Where the delay
        of a request has no known bound, a full close that the venue limits to reduce-only does not wait: an order that
        arrives late can only close what was decided to be closed.
        """
        bounded = question.valid_for is not None or self._life.always is not None
        is_name_reserved = question.state is not None and self._life.names == "ever"
        if (
            question.state is TargetState.WORKING
            or is_name_reserved
            or (question.target.is_capped_by_venue and not bounded)
        ):
            return self.is_overdue(question)
        return self._has_lapsed(question)

    def _has_lapsed(self, question: OrderQuestion) -> bool:
        """Whether the request can no longer be carried out, measured by the monotonic clock from the first query on.

        The age of an order sent by another process is taken from the wall clock.
        """
        if question.sent_at is None:
            return True
        now = self._context.monotonic()
        counters = self._counters[question.name]
        if counters.first_age is None or counters.first_age[0] != question.sent_at:
            counters.first_age = (question.sent_at, now, max(0.0, self._context.seconds_since(question.sent_at)))
        _, measured_at, age = counters.first_age
        return age + now - measured_at >= lapses_after(self._life, self._context.pace, question.valid_for)

    def is_overdue(self, question: OrderQuestion) -> bool:
        """Whether the order is so old that its target no longer waits for it; also True if the clock was set back."""
        if question.sent_at is None:
            return True
        since = self._context.seconds_since(question.sent_at)
        return since >= self._pace.absence_after or since < 0

    def _head(self, question: OrderQuestion) -> EntryHead:
        return self._context.entry_head(question.target, question.name, question.attempt)
