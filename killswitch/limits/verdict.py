"""The gate's verdict on a question, in one fixed order of checks.

1. the question; 2. a lock of everything; 3. what the orders do: an exit is allowed here, and nothing else is checked;
4. sentinel, lock, pause, maintenance; 5. what is known; 6. duplicates, position side, amendments; 7. the limits. The
first check that denies is the reason. A list is judged leg by leg, each next to the earlier ones, all or none.

Pure: the time, the lock file and the sentinel are arguments, and what is reserved is returned.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.limits import LimitsRule
from killswitch.limits.book import GateBook
from killswitch.limits.checks import CheckedLimits, EntryCase, check_limits
from killswitch.limits.exposure import CountedOnce, CountedOrders, margin_of
from killswitch.limits.moment import (
    Denial,
    GateMoment,
    doubt,
    held_back,
    is_back,
    is_warming_up,
    no_limits,
    times_of,
)
from killswitch.limits.orders_asked import Leg, legs_of, mistake_in
from killswitch.limits.question import GateVerdict, LegVerdict, Question, Reason
from killswitch.limits.reservations import MINUTE, Answered, ApprovedOrder, Reservations
from killswitch.limits.view import GateAccount, GateView
from killswitch.model.snapshot import Side
from killswitch.planning.reducing import Judgement, kind_of, left_of, reduced_by

ZERO: Final = Decimal(0)
RETRY_AFTER_MS: Final = 1000
"""When to ask again where a fresh read may change the answer: a tick."""


class PreparedBook(GateBook):
    """A book that also remembers what the newest reservations add to it."""

    def __init__(self, account: GateAccount, *, is_current: bool) -> None:
        super().__init__(account, is_current=is_current)
        self._counted = CountedOnce(self)
        self.times = times_of(account)

    def counted(self, approved: tuple[ApprovedOrder, ...]) -> CountedOrders:
        """The orders of the account among the reservations, counted."""
        return self._counted.of(approved)


class Judged(Struct, frozen=True):
    """A verdict, and the reservations after it."""

    verdict: GateVerdict
    reservations: Reservations


class _Judging:
    """One question under way: the book, what counts next to it, and what its earlier legs add."""

    def __init__(self, question: Question, book: PreparedBook, reservations: Reservations, moment: GateMoment) -> None:
        self.question = question
        self.book = book
        self.moment = moment
        self.reservations = reservations
        account = book.account
        self.limits = account.limits
        self.valid_for, self.timeout = book.times
        self.counted = book.counted(reservations.approved)
        """What was allowed before; the earlier legs of a list are counted in a copy."""
        self.doubt = doubt(account, moment)
        self.new: list[ApprovedOrder] = []
        self.legs: list[LegVerdict] = []
        self.conflicts: list[str] = []
        self.checked: CheckedLimits | None = None
        self.has_entry = False
        self.entries: dict[int, Decimal] = {}
        """Index → contracts of the legs that are entries, to which children belong."""
        self.children: dict[int, Decimal] = {}
        """Index of a parent → contracts of its children so far."""
        self.linked: dict[str, list[ApprovedOrder]] = {}
        """Word of one-cancels-the-other at the venue → its orders so far, of which only one can fill."""

    def next_to(self, leg: Leg, book: GateBook) -> CountedOrders:
        """What counts next to a leg: everything before it, but what the venue itself cancels when the leg fills."""
        linked = self.linked.get(leg.asked.oco or "", []) if leg.asked.oco_by == "venue" else []
        if not self.new and book is self.book:
            return self.counted
        return CountedOrders(book, [each for each in (*self.counted.orders, *self.new) if each not in linked])


def verdict(
    question: Question, view: GateView, reservations: Reservations, moment: GateMoment, book: PreparedBook | None = None
) -> Judged:
    """The answer to a question, and the reservations after it. `book`: `book_of` this view and moment, if prepared."""
    account = view.account(question.account) if book is None else book.account
    wrong = mistake_in(question)
    if wrong is not None:
        return Judged(_denied(question, "question", wrong), reservations)
    if account is None:
        text = f"the run has no account `{question.account}`"
        return Judged(_denied(question, "unknown_account", text), reservations)
    if moment.lock_state.mode == "all" and not moment.lock_state.only:
        return Judged(_denied(question, "lock_all", f"everything is locked: {moment.lock_state.reason}"), reservations)
    book = book or book_of(account, moment)
    judging = _Judging(question, book, reservations, moment)
    before = reservations.answer_to(question.account, question.id, moment.now)
    if before is not None:
        return Judged(_repeated(before, judging, view), reservations)
    for number, leg in enumerate(legs_of(question, book)):
        denial = _judge_leg(judging, number, leg, view)
        if denial is not None:
            return Judged(_denial_verdict(judging, denial), reservations)
    return _allowed(judging)


def book_of(account: GateAccount, moment: GateMoment) -> PreparedBook:
    """The account prepared for questions at this moment; the same for all questions until its knowledge changes."""
    return PreparedBook(account, is_current=doubt(account, moment) is None)


def _judge_leg(judging: _Judging, number: int, leg: Leg, view: GateView) -> Denial | None:
    """Why the leg is denied; None if it is allowed, and counts from now on."""
    order = leg.order
    if leg.is_nothing:
        return Denial("minimum", f"{leg.asked.amount:f} {leg.asked.currency} are less than the venue's step: no order")
    book = judging.book.without(leg.changed) if leg.is_amendment and leg.changed is not None else judging.book
    if _belongs_to_parent(judging, leg):
        judging.legs.append(LegVerdict("bounded", order.amount))
        _reserve(judging, number, leg, is_bounded=True)
        return None
    denial = _amendment(judging, leg)
    if denial is not None:
        judging.legs.append(LegVerdict("entry", _known(leg)))
        return denial
    counted = judging.next_to(leg, book)
    found = book.judge(order, counted.exits.get(reduced_by(order), ZERO), claims_exit=leg.claims_exit)
    denial = _of_exit(judging, leg, found)
    if denial is None and (found.is_exit or found.effect == "assumed"):
        judging.legs.append(LegVerdict(found.effect, _known(leg)))
        if found.effect == "bounded":
            judging.conflicts += book.conflicts(order, counted.orders)
        _reserve(judging, number, leg, is_bounded=found.effect == "bounded")
        return None
    room = found.room if found.effect in ("mixed", "entry") and found.room else None
    judging.legs.append(LegVerdict(found.effect, _known(leg), max_reducing=room))
    denial = denial or _of_entry(judging, leg, counted, view)
    if denial is None:
        judging.has_entry = True
        judging.entries[number] = order.amount
        _reserve(judging, number, leg, is_bounded=False)
    return denial


def _of_exit(judging: _Judging, leg: Leg, found: Judgement) -> Denial | None:
    """Why an order that reduces, or says so, is denied."""
    symbol, side = reduced_by(leg.order)
    if (found.is_exit or found.effect == "assumed") and judging.moment.lock_state.mode_at(side, symbol) == "all":
        return Denial("lock_all", f"the position is locked: {judging.moment.lock_state.reason}")
    why = judging.doubt
    account, never = judging.book.account, judging.book.holdings.sizes is None
    if found.effect == "assumed" and why is not None and (never or is_warming_up(account, judging.moment)):
        return _unproved(judging, leg, why)
    if found.effect == "unproved" and leg.claims_exit and why is not None:
        return _unproved(judging, leg, why)
    return None


def _unproved(judging: _Judging, leg: Leg, why: tuple[Reason, str]) -> Denial:
    flags = judging.book.holdings.flags or frozenset()
    way_out = "send it reduce-only" if kind_of(leg.order) in flags else "ask again after the next read of the account"
    reason: Reason = why[0] if why[0] in ("warming_up", "positions_unknown") else "exit_unproved"
    return Denial(reason, f"it is not proved that the order only reduces: {why[1]}; {way_out}", retry=True)


def _of_run(judging: _Judging, view: GateView) -> Denial | None:
    """Why the run takes no new risk: it can put nothing on record, or its clock went back."""
    if view.unrecorded is not None:
        return Denial("unrecorded", f"nothing can be put on record, so that no new risk is taken: {view.unrecorded}")
    if judging.moment.clock_went_back or is_back(view, judging.moment.now):
        return Denial(
            "clock_went_back", "the clock went back: entries wait until it agrees with the venue's for a minute"
        )
    return None


def _of_entry(judging: _Judging, leg: Leg, counted: CountedOrders, view: GateView) -> Denial | None:
    """Why an order that can open something is denied."""
    if leg.problem is not None:
        return Denial("amount_unit", leg.problem)
    held = held_back(judging.book.account, judging.moment, leg.order) or _of_run(judging, view)
    if held is not None:
        return held
    if judging.doubt is not None:
        return Denial(*judging.doubt, retry=True)
    limits = judging.limits
    if limits is None:
        return no_limits()
    return _duplicate(judging, leg, counted) or _position_side(judging, leg) or _limits(judging, leg, counted, limits)


def _duplicate(judging: _Judging, leg: Leg, counted: CountedOrders) -> Denial | None:
    """Whether a client order id is in flight or was ever seen."""
    name, book = leg.order.client_order_id, judging.book
    if name is None or leg.is_amendment:
        return None
    if name in counted.ids or name in book.by_id or name in book.seen_ids:
        return Denial("duplicate", f"the client order id {name} is in use, or was used before")
    return None


def _position_side(judging: _Judging, leg: Leg) -> Denial | None:
    """In hedge mode an entry names its position; in one-way mode a position side that is named must be its own."""
    order, mode = leg.order, judging.book.holdings.position_mode
    if mode == "hedge" and order.position_side is None:
        return Denial("position_side", "the account is in hedge mode: name the position side")
    opened: Side = "long" if order.side == "buy" else "short"
    if mode != "hedge" and order.position_side not in (None, opened):
        text = f"a {order.side} that opens belongs to the {opened} side, and this one names {order.position_side}"
        return Denial("position_side", text)
    return None


def _limits(judging: _Judging, leg: Leg, counted: CountedOrders, limits: LimitsRule) -> Denial | None:
    book, moment, order = counted.book, judging.moment, leg.order
    sent = None
    if limits.orders_per_minute is not None and moment.now - moment.started_at >= MINUTE:
        sent = judging.reservations.sent_within_minute(judging.question.account, moment.now) + len(judging.new)
    case = EntryCase(
        book=book,
        limits=limits,
        contract=book.contract(order.symbol),
        order=order,
        worst=counted.worst_case(order),
        now=moment.now,
        sent=sent,
        pending=counted.entries + book.resting_entries,
        reserved_margin=counted.margin,
    )
    judging.checked = found = check_limits(case)
    denials = found.denials
    return Denial(*denials[0], limits=found) if denials else None


def _amendment(judging: _Judging, leg: Leg) -> Denial | None:
    """Whether an amendment names a resting order of the same symbol and side."""
    if not leg.is_amendment:
        return None
    changed = leg.changed
    if changed is None:
        text = f"no resting order {leg.asked.order} is known, so that nothing is known of what it becomes"
        return Denial("amendment", text, retry=True)
    if (changed.symbol, changed.side, changed.position_side) != (
        leg.order.symbol, leg.order.side, leg.order.position_side or changed.position_side,
    ):  # fmt: skip
        return Denial("amendment", "an amendment cannot change the symbol or the side")
    return None


def _belongs_to_parent(judging: _Judging, leg: Leg) -> bool:
    """Whether the leg is the exit of an entry of this list: the other side, and at most its parent; OCO once."""
    parent = leg.asked.parent
    if parent is None or parent not in judging.entries:
        return False
    asked = judging.question.orders[parent]
    if asked.symbol != leg.order.symbol or asked.side == leg.order.side:
        return False
    before = judging.children.get(parent, ZERO)
    is_linked = leg.asked.oco is not None and leg.asked.oco_by == "venue"
    amount = left_of(leg.order)
    total = max(before, amount) if is_linked else before + amount
    if total > judging.entries[parent]:
        return False
    judging.children[parent] = total
    return True


def _known(leg: Leg) -> Decimal | None:
    return None if leg.problem is not None else leg.order.amount


def _reserve(judging: _Judging, number: int, leg: Leg, *, is_bounded: bool) -> None:
    """Count the leg from now on; of one-cancels-the-other at the venue only the largest counts."""
    order, moment = leg.order, judging.moment
    if leg.is_amendment and leg.changed is not None:
        if order.amount <= leg.changed.amount:
            return  # it adds nothing to what rests
        order = replace(order, amount=order.amount - leg.changed.amount, filled=None)
    approved = ApprovedOrder(
        account=judging.question.account,
        question=judging.question.id,
        leg=number,
        order=order,
        is_bounded=is_bounded,
        approved_at=moment.now,
        gone_by=moment.now + judging.valid_for + judging.timeout,
        margin=ZERO if is_bounded else margin_of(judging.book, order) or ZERO,
        amends=leg.changed.id if leg.is_amendment and leg.changed is not None else None,
        total=leg.order.amount if leg.is_amendment else None,
    )
    judging.new.append(approved)
    if leg.asked.oco is not None and leg.asked.oco_by == "venue":
        judging.linked.setdefault(leg.asked.oco, []).append(approved)


def _allowed(judging: _Judging) -> Judged:
    question, found = judging.question, judging.checked
    given = GateVerdict(
        question=question.id,
        allowed=True,
        reason="allowed" if judging.has_entry else "exit",
        text="allowed" if judging.has_entry else "it only reduces",
        legs=tuple(judging.legs),
        checked=() if found is None else found.checked,
        not_configured=() if found is None else found.not_configured,
        conflicts=tuple(dict.fromkeys(judging.conflicts)),
        valid_for_ms=int(judging.valid_for.total_seconds() * 1000),
        reserved=True,
    )
    now = judging.moment.now
    answered = Answered(question.account, now, now + judging.valid_for, given, judging.has_entry, question.orders)
    is_counted = judging.limits is not None and judging.limits.orders_per_minute is not None
    orders = len(question.orders) if is_counted else 0
    return Judged(given, judging.reservations.with_verdict(answered, judging.new, orders))


def _denied(question: Question, reason: Reason, text: str) -> GateVerdict:
    return GateVerdict(question.id, False, reason, text)


def _denial_verdict(judging: _Judging, denial: Denial) -> GateVerdict:
    found = denial.limits or judging.checked
    return GateVerdict(
        question=judging.question.id,
        allowed=False,
        reason=denial.reason,
        text=denial.text,
        legs=tuple(judging.legs),
        checked=() if found is None else found.checked,
        denied_by=() if denial.limits is None else tuple(name for name, _ in denial.limits.denials),
        not_configured=() if found is None else found.not_configured,
        unknown=() if found is None else found.unknown,
        retry_after_ms=RETRY_AFTER_MS if denial.retry else None,
    )


def _repeated(before: Answered, judging: _Judging, view: GateView) -> GateVerdict:
    """The same verdict to the same question; an allowed entry becomes a denial once anything holds it back.

    Other orders under its id are denied: they were never judged, and nothing is reserved for them.
    """
    if before.orders != judging.question.orders:
        text = f"the id {before.verdict.question} was used for other orders a moment ago: give each question its own"
        return _denied(judging.question, "question", text)
    if not before.has_entry:
        return before.verdict
    for leg in legs_of(judging.question, judging.book):
        found = judging.book.judge(leg.order, ZERO, claims_exit=leg.claims_exit)
        held = held_back(judging.book.account, judging.moment, leg.order) or _of_run(judging, view)
        held = None if found.is_exit else held
        if held is not None:
            return _denied(judging.question, held.reason, held.text)
    return before.verdict
