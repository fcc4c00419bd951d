"""What became of an order: asked by its name, then among the open orders, then by its fills. Never answered by sending.

Nothing is journaled while the venue does not say. "No such order" is an answer only from all three, and only when the
request can no longer be carried out, or when whatever comes second under its name is refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from killswitch.execution.client_order_id import over_after
from killswitch.execution.patience import Pace
from killswitch.execution.query.charges import charged
from killswitch.execution.recorded_reports import said, sound, sound_fills
from killswitch.execution.send.order_sender import RecordAll, told
from killswitch.execution.send.requests import NoRoomError, Requests
from killswitch.journal.entries import Abandoned, Absent, Acknowledged, Entry, EntryHead, SetAside
from killswitch.journal.lifecycle import ZERO, State
from killswitch.journal.targets import Line
from killswitch.model.clock import Clock
from killswitch.model.snapshot import Order
from killswitch.model.venue import (
    Call,
    OrderReport,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
    traits_of,
)
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

    `decided`: how many of these were heard.
    """

    count: int = 0
    at: float = -math.inf
    decisive: int = 0
    decided: int = 0
    decisive_at: float = -math.inf
    urgent: bool = True
    """Whether the question of this round may use the room that is kept for closing."""
    can_be_absent: bool = False
    """Whether a denial of this round's question is believed."""


def questions(line: Line) -> list[Question]:
    """Every order of the line whose end is not known."""
    found = [
        Question(
            line, order.name, order.attempt, None, order.may_fill(line.decided), order.sent_at, None, order.valid_for
        )
        for order in line.aside.values()
    ]
    if line.in_flight and line.client_order_id is not None:
        found.append(
            Question(
                line=line,
                name=line.client_order_id,
                attempt=line.attempt,
                order_id=line.order_id,
                may_fill=line.may_fill,
                sent_at=line.sent_at,
                state=line.state,
                valid_for=line.valid_for,
            )
        )
    return found


class Asking:
    """Asks one account's venue about orders, all at the same time, each of them at growing intervals."""

    def __init__(
        self,
        account: str,
        venue: VenueAdapter,
        clock: Clock,
        pace: Pace,
        requests: Requests,
        record: RecordAll,
        unhurried: Callable[[Line], bool] = lambda _: False,
        currency: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`unhurried`: whether a line's order rests where nothing can fill.

        Such orders are asked about last and seldom: all of the account's together one at a time, in turn.
        `currency`: what the account is counted in, as far as it has been read.
        """
        self._account = account
        self._venue = venue
        self._clock = clock
        self._pace = pace
        self._requests = requests
        self._record = record
        self._unhurried = unhurried
        self._currency = currency
        self._life = traits_of(venue).order_life
        self._met: dict[str, tuple[datetime, float, float]] = {}
        """Of each order: when it was sent, the monotonic seconds at which its age was looked at first, and that age."""
        self._seldom: frozenset[str] = frozenset()
        """Orders that were unhurried when `ask` was called last."""
        self._turn_at = float("-inf")
        """When one of them had its turn."""
        self._asked: dict[str, _Asked] = {}
        self._heard: dict[str, tuple[int, float]] = {}
        """How often a question about an order was heard, and when for the first time."""
        self._denied: dict[str, float] = {}
        """Since when the venue has been saying that it has no such order."""
        self.resting: dict[str, str] = {}
        """Orders that were set aside and have been found to rest: client order id → the venue's id."""
        self._words: dict[str, str] = {}
        """What was wrong with the last answer about an order, in the adapter's own words."""

    @property
    def next_at(self) -> float:
        """Monotonic seconds from which on the next question is due; infinite if none was asked yet."""
        return min((self._not_before(name) for name in self._asked), default=float("inf"))

    async def ask(self, about: Sequence[Question]) -> None:
        """Ask about those whose time has come, and journal what the venue says."""
        now = self._clock.monotonic()
        self._seldom = frozenset(q.name for q in about if q.state is State.WORKING and self._unhurried(q.line))
        self._asked = {name: self._asked[name] for name in (q.name for q in about) if name in self._asked}
        self._heard = {name: heard for name, heard in self._heard.items() if name in self._asked}
        self._denied = {name: at for name, at in self._denied.items() if name in self._asked}
        self.resting = {name: order for name, order in self.resting.items() if name in self._asked}
        self._words = {name: words for name, words in self._words.items() if name in self._asked}
        self._met = {name: met for name, met in self._met.items() if name in self._asked}
        due = [question for question in about if self._not_before(question.name) <= now]
        if not due or not self._requests.may_act():
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
        due = due[: self._requests.room("find_order", [question.line.symbol for question in due])]
        now = self._clock.monotonic()
        for question in due:
            self._count(question, now)
        reports = await asyncio.gather(*(self._by_name(question) for question in due))
        for question, report in zip(due, reports, strict=True):
            heard = not isinstance(report, RateLimitedError | VenueDownError)
            if heard:
                count, first = self._heard.get(question.name, (0, now))
                self._heard[question.name] = (count + 1, first)
            asked = self._asked[question.name]
            if asked.urgent and asked.can_be_absent and not isinstance(report, NoRoomError):
                asked.decisive, asked.decisive_at = asked.decisive + 1, now
                asked.decided += heard
        self._words |= {q.name: said(e) for q, e in zip(due, reports, strict=True) if isinstance(e, VenueError)}
        unsaid = any(not isinstance(report, OrderReport | RateLimitedError | VenueDownError) for report in reports)
        resting = await self._resting(self._list_purpose(due, reports)) if unsaid else None
        found = await asyncio.gather(
            *(self._answer(question, report, resting) for question, report in zip(due, reports, strict=True))
        )
        answers = [entry for entry in found if entry is not None]
        for entry in answers:
            self._asked.pop(entry.client_order_id or "", None)
        if answers:
            self._record(answers)
        return due, {entry.client_order_id for entry in answers}

    def hurry(self, names: Iterable[str]) -> None:
        """Something has happened to these orders: the next `ask` asks about them, however short ago the last was."""
        for name in names:
            if name in self._asked:
                self._asked[name].at = -math.inf

    def has_asked(self, question: Question) -> bool:
        """Whether the venue was asked about the order, and did not say."""
        return question.name in self._asked

    def give_up(self, now: float, about: Sequence[Question]) -> list[Abandoned]:
        """The ends of those set aside that have been asked about for long enough."""
        return [
            Abandoned(*self._head(question), text=f"asked about for {self._pace.asked_for:g} s without an answer")
            for question in about
            if question.state is None
            and self._heard.get(question.name, (0, now))[0] >= LEAST_QUESTIONS
            and now - self._heard[question.name][1] >= self._pace.asked_for
        ]

    def set_aside(self, question: Question) -> SetAside:
        """The line goes on without the order."""
        return SetAside(*self._head(question), text="its fate is unknown, and the position does not wait for it")

    def _turns(self, due: Sequence[Question]) -> list[Question]:
        """Those that only their turn makes due, the one that has waited longest first.

        Without those that were never asked about, or to which something has happened.
        """
        asked = {q.name: at for q in due if q.name in self._seldom and (at := self._last_asked(q.name)) > float("-inf")}
        return sorted((q for q in due if q.name in asked), key=lambda q: asked[q.name])

    def _last_asked(self, name: str) -> float:
        return self._asked[name].at if name in self._asked else -math.inf

    def _not_before(self, name: str) -> float:
        if name not in self._asked:
            return float("-inf")
        count, at = self._asked[name].count, self._asked[name].at
        if name in self._seldom:
            return at if math.isinf(at) else max(at, self._turn_at) + self._pace.ask_halted
        return at + min(self._pace.poll, self._pace.ask_again * 2.0 ** min(count - 1, 10))

    async def _by_name(self, question: Question) -> OrderReport | VenueError | None:
        try:
            report = await self._requests.make(
                "find_order",
                self._venue.find_order(question.line.symbol, question.name),
                purpose=self._purpose(question),
            )
            return None if report is None else sound(report, question.name, question.may_fill)
        except VenueError as error:
            return error

    async def _resting(self, purpose: Purpose) -> dict[str, Order] | None:
        """The open orders by client id; None if the venue does not say."""
        try:
            orders = await self._requests.make("open_orders", self._venue.open_orders(), purpose=purpose)
            return {order.client_order_id: order for order in orders if order.client_order_id is not None}
        except (VenueError, AttributeError, TypeError):
            return None

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
        return self._requests.room(call, wanted) < len(wanted)

    def _count(self, question: Question, now: float) -> None:
        """Count the question that is about to be put, and decide whose room it uses."""
        asked = self._asked.setdefault(question.name, _Asked())
        asked.count, asked.at = asked.count + 1, now
        asked.can_be_absent = self._decides(question)
        if not asked.can_be_absent:
            asked.urgent = asked.count <= URGENT_QUESTIONS
            return
        pause = self._pace.look_again * 2.0 ** min(max(asked.decided - URGENT_QUESTIONS, 0), 10)
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
        self, question: Question, report: OrderReport | VenueError | None, resting: dict[str, Order] | None
    ) -> Entry | None:
        if report is None:
            self._denied.setdefault(question.name, self._clock.monotonic())
        elif isinstance(report, OrderReport):
            self._denied.pop(question.name, None)
        if isinstance(report, OrderReport):
            if report.state == "open" and question.state is None:
                self.resting[question.name] = report.id
            return self._as_told(question, report)
        if isinstance(report, RateLimitedError | VenueDownError):
            return None
        return await self._otherwise(question, resting, denied=report is None)

    async def _otherwise(self, question: Question, resting: dict[str, Order] | None, *, denied: bool) -> Entry | None:
        """What open orders and fills say of an order that its name did not lead to."""
        if resting is not None and question.name in resting:
            order = resting[question.name]
            if question.state is None:
                self.resting[question.name] = order.id
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
            asked = self._venue.fills(question.line.symbol, question.name)
            told_fills = await self._requests.make("fills", asked, purpose=self._purpose(question))
            fills = sound_fills(told_fills)
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
            fee=charged(fills, self._currency())[0],
        )
        return sound(report, question.name, question.may_fill)

    def _denied_for_long(self, question: Question) -> bool:
        """Whether the venue has been denying the order for longer than its lists may lag."""
        since = self._denied.get(question.name, self._clock.monotonic())
        return question.state is not State.WORKING or self._clock.monotonic() - since >= self._pace.absence_after

    def _can_be_absent(self, question: Question) -> bool:
        """Whether a denial is believed: not while the request runs, for one that does may arrive after any denial."""
        return self._asked[question.name].can_be_absent and question.name not in self._requests.running

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
        now = self._clock.monotonic()
        met = self._met.get(question.name)
        if met is None or met[0] != question.sent_at:
            age = max(0.0, (self._clock.now() - question.sent_at).total_seconds())
            met = self._met[question.name] = (question.sent_at, now, age)
        return met[2] + now - met[1] >= over_after(self._life, self._pace, question.valid_for)

    def is_late(self, question: Question) -> bool:
        """Whether a line no longer waits for the order. A clock that was set back says yes."""
        if question.sent_at is None:
            return True
        since = (self._clock.now() - question.sent_at).total_seconds()
        return since >= self._pace.absence_after or since < 0

    def _head(self, question: Question) -> EntryHead:
        line = question.line
        return (
            line.decision,
            self._clock.now(),
            self._account,
            line.symbol,
            line.position_side,
            question.name,
            question.attempt,
        )
