"""What became of an order: asked by its name, then among the open orders, then by its fills. Never answered by sending.

Nothing is journaled while the venue does not say. "No such order" is an answer only from all three, and only when the
request can no longer be carried out, or when whatever comes second under its name is refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from killswitch.execution.account_context import AccountContext, NoRoomError
from killswitch.execution.client_order_id import over_after
from killswitch.execution.query.charges import charged
from killswitch.execution.recorded_reports import said, sound
from killswitch.execution.send.order_sender import told
from killswitch.journal.entries import Abandoned, Absent, Acknowledged, Entry, EntryHead, SetAside
from killswitch.journal.lifecycle import ZERO, State
from killswitch.journal.orders import JournaledOrder
from killswitch.journal.targets import Line
from killswitch.model.snapshot import Order
from killswitch.model.venue import Call, OrderReport, RateLimitedError, VenueDownError, VenueError
from killswitch.ratelimit.budget import Purpose

URGENT_QUESTIONS = 5
"""So many questions about one order may use the room that is kept for closing before its absence may be believed, as
many after that, and then one after `look_again`, doubled by each that is heard: a close cannot end without the answer.
Those that nobody hears come no less often, so that an outage costs no time after it."""
LEAST_QUESTIONS = 20
"""So many must the venue have heard before asking about an order is given up, however long ago it was sent."""


_ROUNDS: Final = 4
"""A question that decides nothing leaves room for so many: those that do, by the name and the fills, and some more."""


@dataclass(frozen=True, slots=True)
class Question:
    """One order that is asked about. `state` is its line's if the line waits for it, None if it was set aside.

    `valid_for`: seconds for which its request was valid, if it said so.
    """

    line: Line
    name: str
    attempt: int | None
    order_id: str | None
    may_fill: Decimal
    sent_at: datetime | None
    state: State | None
    valid_for: float | None = None


@dataclass(slots=True)
class _Asked:
    """How often an order was asked about, and when last; the same of urgent questions since it can be absent.

    `heard`: how many questions were heard, since `heard_since`; `decided`: how many of the urgent ones.
    """

    count: int = 0
    at: float = -math.inf
    heard: int = 0
    heard_since: float = math.inf
    decisive: int = 0
    decided: int = 0
    decisive_at: float = -math.inf
    urgent: bool = True
    """Whether the question of this round may use the room that is kept for closing."""
    can_be_absent: bool = False
    """Whether a denial of this round's question is believed."""
    denied_since: float | None = None
    """Since when the venue has been saying that it has no such order."""
    resting: str | None = None
    """The venue's id, where it was set aside and has been found to rest."""
    met: tuple[datetime, float, float] | None = None
    """When it was sent, the monotonic seconds at which its age was looked at first, and that age."""


def questions(line: Line) -> list[Question]:
    """Every order of the line whose end is not known."""
    about: list[tuple[JournaledOrder, int | None, str | None, State | None]]
    about = [(order, order.attempt, None, None) for order in line.aside.values()]
    if line.in_flight and line.order is not None and line.client_order_id is not None:
        about.append((line.order, line.attempt, line.order_id, line.state))
    return [
        Question(line, order.name, attempt, id_, order.may_fill(line.decided), order.sent_at, state, order.valid_for)
        for order, attempt, id_, state in about
    ]


class Asking:
    """Asks one account's venue about orders, all at the same time, each of them at growing intervals."""

    def __init__(self, context: AccountContext, unhurried: Callable[[Line], bool]) -> None:
        """`unhurried`: whether a line's order rests where nothing can fill.

        Such orders are asked about last and seldom: all of the account's together one at a time, in turn.
        """
        self._context = context
        self._unhurried = unhurried
        self._life = context.traits.order_life
        self._seldom: frozenset[str] = frozenset()
        """Orders that were unhurried when `ask` was called last."""
        self._turn_at = float("-inf")
        """When one of them had its turn."""
        self._asked: dict[str, _Asked] = {}

    @property
    def next_at(self) -> float:
        """Monotonic seconds from which on the next question is due; infinite if none was asked yet."""
        return min((self._not_before(name) for name in self._asked), default=float("inf"))

    async def ask(self, about: Sequence[Question]) -> None:
        """Ask about those whose time has come, and journal what the venue says."""
        now = self._context.clock.monotonic()
        self._seldom = frozenset(q.name for q in about if q.state is State.WORKING and self._unhurried(q.line))
        self._asked = {name: self._asked[name] for name in (q.name for q in about) if name in self._asked}
        due = [question for question in about if self._not_before(question.name) <= now]
        if not due or not self._context.may_act():
            return
        turns = self._turns(due)
        if self._seldom:
            due = [question for question in due if question not in turns]
            due.sort(key=lambda question: question.name in self._seldom)
            due += turns[:1]
        asked, moved = await self._put(due)
        if turns and turns[0] in asked:
            self._turn_at = now
            if turns[0].name in moved:
                # It rested where nothing is traded: there may have been an opening, which the others have seen too.
                await self._put([q for q in about if q.name in self._seldom and q not in asked])

    async def _put(self, due: Sequence[Question]) -> tuple[Sequence[Question], Collection[str | None]]:
        """Ask, as far as there is room; what was asked about, and the names of the orders of which there was news."""
        due = self._sparing(due)
        due = due[: self._context.room("find_order", [question.line.symbol for question in due])]
        now = self._context.clock.monotonic()
        for question in due:
            self._count(question, now)
        reports = await asyncio.gather(*(self._by_name(question) for question in due))
        for question, report in zip(due, reports, strict=True):
            heard = not isinstance(report, RateLimitedError | VenueDownError)
            asked = self._asked[question.name]
            if heard:
                asked.heard, asked.heard_since = asked.heard + 1, min(asked.heard_since, now)
            if asked.urgent and asked.can_be_absent and not isinstance(report, NoRoomError):
                asked.decisive, asked.decisive_at = asked.decisive + 1, now
                asked.decided += heard
        unsaid = any(not isinstance(report, OrderReport | RateLimitedError | VenueDownError) for report in reports)
        listed = await self._context.open_orders(purpose=self._list_purpose(due, reports)) if unsaid else None
        resting = None if listed is None else {each.client_order_id: each for each in listed}
        found = await asyncio.gather(
            *(self._answer(question, report, resting) for question, report in zip(due, reports, strict=True))
        )
        answers = [entry for entry in found if entry is not None]
        for entry in answers:
            self._asked.pop(entry.client_order_id or "", None)
        if answers:
            self._context.record(answers)
        return due, {entry.client_order_id for entry in answers}

    def hurry(self, names: Iterable[str]) -> None:
        """Something has happened to these orders: the next `ask` asks about them, however short ago the last was."""
        for name in names:
            if name in self._asked:
                self._asked[name].at = -math.inf

    def has_asked(self, question: Question) -> bool:
        """Whether the venue was asked about the order, and did not say."""
        return question.name in self._asked

    def resting_as(self, name: str) -> str | None:
        """The venue's id of an order that was set aside and has been found to rest; None of any other."""
        return self._asked[name].resting if name in self._asked else None

    def give_up(self, now: float, about: Sequence[Question]) -> list[Abandoned]:
        """The ends of those set aside that have been asked about for long enough."""
        return [
            Abandoned(
                *self._head(question), text=f"asked about for {self._context.pace.asked_for:g} s without an answer"
            )
            for question in about
            if question.state is None
            and (asked := self._asked.get(question.name)) is not None
            and asked.heard >= LEAST_QUESTIONS
            and now - asked.heard_since >= self._context.pace.asked_for
        ]

    def set_aside(self, question: Question) -> SetAside:
        """The line goes on without the order."""
        return SetAside(*self._head(question), text="its fate is unknown, and the position does not wait for it")

    def _turns(self, due: Sequence[Question]) -> list[Question]:
        """Those that only their turn makes due, the one that has waited longest first.

        Without those that were never asked about, or to which something has happened.
        """
        asked = [q for q in due if q.name in self._seldom and q.name in self._asked]
        found = [q for q in asked if self._asked[q.name].at > -math.inf]
        return sorted(found, key=lambda q: self._asked[q.name].at)

    def _not_before(self, name: str) -> float:
        if name not in self._asked:
            return float("-inf")
        count, at = self._asked[name].count, self._asked[name].at
        if name in self._seldom:
            return at if math.isinf(at) else max(at, self._turn_at) + self._context.pace.ask_halted
        return at + min(self._context.pace.poll, self._context.pace.ask_again * 2.0 ** min(count - 1, 10))

    async def _by_name(self, question: Question) -> OrderReport | VenueError | None:
        symbol, name, most = question.line.symbol, question.name, question.may_fill
        return await self._context.find_order(symbol, name, most, self._purpose(question))

    def _sparing(self, due: Sequence[Question]) -> Sequence[Question]:
        """Without those that could decide nothing now, where they would take the room of the questions that do.

        Of an order that may still be on its way a repeated question only tells whether it has arrived. Some venues
        allow a question about an ended order once in ten seconds.
        """
        early = {q.name for q in due if q.name in self._asked and q.state is not State.WORKING and not self._decides(q)}
        if not early or not self._is_scarce("find_order", [question.line.symbol for question in due]):
            return due
        return [question for question in due if question.name not in early]

    def _is_scarce(self, call: Call, symbols: Sequence[str]) -> bool:
        """Whether there is no room for a question about each, and for those that decide."""
        wanted = [*symbols] * _ROUNDS
        return self._context.room(call, wanted) < len(wanted)

    def _count(self, question: Question, now: float) -> None:
        """Count the question that is about to be put, and decide whose room it uses."""
        asked = self._asked.setdefault(question.name, _Asked())
        asked.count, asked.at = asked.count + 1, now
        asked.can_be_absent = self._decides(question)
        if not asked.can_be_absent:
            asked.urgent = asked.count <= URGENT_QUESTIONS
            return
        pause = self._context.pace.look_again * 2.0 ** min(max(asked.decided - URGENT_QUESTIONS, 0), 10)
        asked.urgent = asked.decisive < URGENT_QUESTIONS or now - asked.decisive_at >= pause

    def _purpose(self, question: Question) -> Purpose:
        """What a close must know to end is closing's; what goes on for minutes leaves it the room that is its own."""
        asked = self._asked.get(question.name)
        return "closing" if asked is None or asked.urgent else "reading"

    def _list_purpose(self, due: Sequence[Question], reports: Sequence[object]) -> Purpose:
        """The open orders are dear: they are closing's where they decide whether an order is absent."""
        for question, report in zip(due, reports, strict=True):
            settled = isinstance(report, OrderReport | RateLimitedError | VenueDownError)
            if not settled and self._asked[question.name].can_be_absent and self._purpose(question) == "closing":
                return "closing"
        return "reading"

    def _as_told(self, question: Question, report: OrderReport) -> Entry | None:
        state = State.WORKING if question.state in (None, State.WORKING) else question.state
        return told(report, state, self._head(question))

    async def _answer(
        self, question: Question, report: OrderReport | VenueError | None, resting: Mapping[str | None, Order] | None
    ) -> Entry | None:
        asked = self._asked[question.name]
        if report is None:
            asked.denied_since = self._context.clock.monotonic() if asked.denied_since is None else asked.denied_since
        elif isinstance(report, OrderReport):
            asked.denied_since = None
            if report.state == "open" and question.state is None:
                asked.resting = report.id
            return self._as_told(question, report)
        if isinstance(report, RateLimitedError | VenueDownError):
            return None
        return await self._otherwise(question, resting, denied=report is None)

    async def _otherwise(
        self, question: Question, resting: Mapping[str | None, Order] | None, *, denied: bool
    ) -> Entry | None:
        """What open orders and fills say of an order that its name did not lead to."""
        if resting is not None and question.name in resting:
            order = resting[question.name]
            if question.state is None:
                self._asked[question.name].resting = order.id
            news = question.state in (State.SENDING, State.UNKNOWN)
            return Acknowledged(*self._head(question), order=said(order.id)) if news else None
        if (
            denied
            and not self._asked[question.name].can_be_absent
            and self._is_scarce("fills", [question.line.symbol] * len(self._asked))
        ):
            return None  # it may be on its way, and whether it has filled is asked when it no longer can be
        report = await self._by_fills(question)
        if report is None:
            return None
        gone = denied and resting is not None and self._can_be_absent(question) and self._denied_for_long(question)
        if report.filled >= question.may_fill or (gone and (report.filled > ZERO or question.state is State.WORKING)):
            return self._as_told(question, report)
        if not gone or report.filled > ZERO:
            return None
        early = not self._is_over(question)
        return Absent(*self._head(question), text="the venue has no such order", early=early)

    async def _by_fills(self, question: Question) -> OrderReport | None:
        """The order as its fills tell it; None if the venue does not say."""
        try:
            fills = await self._context.fills(question.line.symbol, question.name, self._purpose(question))
        except (VenueError, TypeError):
            return None
        filled = sum((fill.amount for fill in fills), ZERO)
        paid = sum((fill.amount * fill.price for fill in fills), ZERO)
        report = OrderReport(
            id=question.order_id or "",
            client_order_id=question.name,
            symbol=question.line.symbol,
            state="expired",
            amount=question.may_fill,
            filled=filled,
            average_price=paid / filled if filled > ZERO else None,
            fee=charged(fills, self._context.currency)[0],
        )
        return sound(report, question.name, question.may_fill)

    def _denied_for_long(self, question: Question) -> bool:
        """Whether the venue has been denying the order for longer than its lists may lag."""
        if question.state is not State.WORKING:
            return True
        since = self._asked[question.name].denied_since
        return since is not None and self._context.clock.monotonic() - since >= self._context.pace.absence_after

    def _can_be_absent(self, question: Question) -> bool:
        """Whether a denial is believed: not while the request runs, for one that does may arrive after any denial."""
        return self._asked[question.name].can_be_absent and question.name not in self._context.running

    def _decides(self, question: Question) -> bool:
        """Whether a denial that is asked for now may be believed.

        Where names are kept for ever, and the same one is sent next, that is soon. Of an order that was set aside the
        name is spent: what it was to do is done under another one, and both would be carried out. Where nobody knows
        how long that may be, a full close that the venue limits to reduce-only does not wait for it: whatever comes
        late can only close what was decided to be closed.
        """
        bounded = question.valid_for is not None or self._life.always is not None
        kept = question.state is not None and self._life.names == "ever"
        if question.state is State.WORKING or kept or (question.line.guarded and not bounded):
            return self.is_late(question)
        return self._is_over(question)

    def _is_over(self, question: Question) -> bool:
        """Whether the request can no longer be carried out, by a clock that nobody sets once the order is asked about.

        An order of another process has the age that the wall clock tells.
        """
        if question.sent_at is None:
            return True
        now = self._context.clock.monotonic()
        asked = self._asked[question.name]
        if asked.met is None or asked.met[0] != question.sent_at:
            asked.met = (question.sent_at, now, max(0.0, self._context.since(question.sent_at)))
        _, met_at, age = asked.met
        return age + now - met_at >= over_after(self._life, self._context.pace, question.valid_for)

    def is_late(self, question: Question) -> bool:
        """Whether a line no longer waits for the order. A clock that was set back says yes."""
        if question.sent_at is None:
            return True
        since = self._context.since(question.sent_at)
        return since >= self._context.pace.absence_after or since < 0

    def _head(self, question: Question) -> EntryHead:
        return self._context.head(question.line, question.name, question.attempt)
