"""The orders of a decision, folded from its journal: how each was sent, how it ended, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from killswitch.incident.record.decision_basis import DecisionBasis, Purpose, stage_text
from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Entry,
    Filled,
    OrderDetached,
    Place,
    PlannedWork,
    Rejected,
    Undecodable,
    Unknown,
    known,
)
from killswitch.journal.orders import FINAL, JournaledOrder, JournaledOrders, Status
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Position, Snapshot
from killswitch.model.words import Rung
from killswitch.risk.trading_cost import MarkedContract, delay_cost, slippage

ReportedStatus = Literal["final", "in flight", "set aside", "abandoned"]
"""The status of an order. `abandoned`: the venue was queried to the end without an answer; it may be filled."""

_TOLERANCE = Decimal("0.001")
"""The tolerance, of the notional, between a position's P&L and (mark − entry) × size of a linear contract."""
RESTING, ACCEPTED = "resting at the venue", "accepted by the venue"
"""The outcome of an acknowledged order without a further report: a limit order rests, any other does not."""
NEVER_REACHED, REJECTED = "never reached the venue", "rejected"
"""The outcome of an order that the venue does not have; and of one that it rejected, before a colon and the reason."""
_OUTCOMES: Mapping[Status, str] = {
    "sent": "no answer yet",
    "acknowledged": ACCEPTED,
    "unknown": "status unknown, querying the venue",
    "set aside": "status unknown, detached: its position continues without it",
    "abandoned": "status unknown, no longer queried",
    "absent": NEVER_REACHED,
}


class Bound(Struct, frozen=True):
    """The slippage that was declared for an order, and the outcome; fractions of the mark at which it was sent.

    `sent` is false for an order without a limit, which nothing bounded. `slipped` is null where nothing was filled or
    the price is unknown, and below 0 for a better price than the mark. `kept` compares the two. `beyond_limit` says
    that the venue filled it at a worse price than the order's own limit.
    """

    declared: Decimal
    sent: bool
    slipped: Decimal | None
    kept: bool | None
    beyond_limit: bool = False


class OrderOutcome(Struct, frozen=True, kw_only=True):
    """One order as it was sent, and the venue's answer.

    `slippage` is the cost of filling at another price than `arrival_mark`, the mark when it was sent, in the account's
    currency. `delay` is the cost of the market's move from `mark`, the decision's, until then. Below zero is a gain.
    """

    number: int
    decision: str
    stage: str
    account: str
    symbol: str
    position_side: str | None
    side: str | None
    attempt: int | None
    client_order_id: str | None
    sent_at: datetime
    answered_at: datetime | None = None
    amount: Decimal | None
    filled: Decimal | None = None
    price: Decimal | None = None
    mark: Decimal | None = None
    slippage: Decimal | None = None
    fee: Decimal | None = None
    outcome: str
    text: str | None = None
    final: bool = False
    """Whether the venue has reported its final status."""
    fate: ReportedStatus = "in flight"
    kind: str | None = None
    """`limit_ioc`, `market` or `limit`; None where the program that sent it did not record it."""
    rung: int | None = None
    """The step of the ladder, from 0."""
    limit: Decimal | None = None
    """The limit price of the order."""
    purpose: Purpose = "reduce"
    realised: Decimal | None = None
    """Realised P&L before the fee."""
    bound: Bound | None = None
    """The slippage that was declared for it; None where none was."""
    was_unknown: bool = False
    """Whether its status was unknown for a while."""
    arrival_mark: Decimal | None = None
    delay: Decimal | None = None
    fee_unknown: str | UnsetType | None = UNSET
    """Why its fee is unknown after its fills were queried; names a fee that was paid in another asset. No
    field of an incident, which has it in `text`."""

    @property
    def place(self) -> Place:
        """Account, symbol and side of its position."""
        return (self.account, self.symbol, self.position_side)

    @property
    def did_nothing(self) -> bool:
        """Whether the venue rejected the order or never received it."""
        return self.is_absent or self.is_rejected

    @property
    def is_absent(self) -> bool:
        """Whether the venue reported that it has no such order."""
        return self.outcome == NEVER_REACHED

    @property
    def is_rejected(self) -> bool:
        """Whether the venue rejected the order."""
        return self.outcome.partition(":")[0] == REJECTED


def order_outcomes(decision: Decision, journal: Sequence[Entry], snapshot: Snapshot | None) -> tuple[OrderOutcome, ...]:
    """Return each sent order with the last answer about it, numbered from 1. One sent again under its id is one more.

    `journal` has the decision's entries in sequence. `snapshot` is what it was decided on, where it was kept.
    """
    marks, basis = _marks(journal), DecisionBasis(decision, snapshot)
    orders = [order for order in JournaledOrders(journal).all if _is_own_order(order)]
    return tuple(
        _with_costs(_outcome(basis, each, number), basis, marks.get(each.first.place), each.arrival)
        for number, each in enumerate(orders, start=1)
    )


def _is_own_order(order: JournaledOrder) -> bool:
    """Whether it closes or hedges a position; an order with an undecodable entry may do so."""
    may_be = order.sending is not None or isinstance(order.first, Undecodable)
    return may_be and order.first.account is not None and order.first.symbol is not None


def _outcome(basis: DecisionBasis, order: JournaledOrder, number: int) -> OrderOutcome:
    first, sending, answer = order.first, order.sending, order.answer
    return OrderOutcome(
        number=number,
        decision=basis.decision.id,
        stage=stage_text(basis.decision),
        account=first.account or "",
        symbol=first.symbol or "",
        position_side=first.position_side,
        side=order.side,
        attempt=order.attempt,
        client_order_id=first.client_order_id,
        sent_at=order.sent_at,
        amount=None if sending is None else known(sending.amount),
        outcome=_outcome_text(order),
        answered_at=None if answer is None else answer.at,
        filled=known(answer.filled) if isinstance(answer, Filled | Acknowledged) else None,
        price=known(answer.price) if isinstance(answer, Filled) else None,
        fee=known(order.charge.fee) if order.charge else known(answer.fee) if isinstance(answer, Filled) else None,
        text=answer.text if isinstance(answer, Unknown | Rejected | Absent | OrderDetached | Abandoned) else None,
        final=order.status in FINAL,
        fate=_reported_status(order.status),
        kind=None if sending is None else sending.order,
        rung=None if sending is None else known(sending.rung),
        limit=None if sending is None else known(sending.price),
        purpose=basis.purpose(first.place, first.client_order_id),
        was_unknown=order.has_been_unknown,
        fee_unknown=None if order.charge is None else order.charge.text,
    )


def _outcome_text(order: JournaledOrder) -> str:
    match order.answer:
        case Filled():
            return order.outcome
        case Rejected(reason=reason):
            return f"{REJECTED}: {reason or 'no reason given'}"
        case Undecodable(why=why):
            return f"status unknown: {why}"
    if order.status == "acknowledged" and order.sending is not None and order.sending.order == "limit":
        return RESTING
    return _OUTCOMES[order.status]


def _reported_status(status: Status) -> ReportedStatus:
    if status in FINAL:
        return "final"
    return status if status in ("set aside", "abandoned") else "in flight"


def _marks(journal: Sequence[Entry]) -> dict[Place, MarkedContract]:
    """Return the mark of each position at the decision."""
    planned = [(entry.place, entry.marked) for entry in journal if isinstance(entry, PlannedWork)]
    return {place: marked for place, marked in reversed(planned) if marked is not None}


def _with_costs(
    order: OrderOutcome, basis: DecisionBasis, decided: MarkedContract | None, arrival: MarkedContract | None
) -> OrderOutcome:
    slippage = None
    if arrival is not None and order.price is not None and order.filled:
        slippage = arrival.cost(order.side, order.filled, order.price)
    return replace(
        order,
        mark=None if decided is None else decided.mark,
        arrival_mark=None if arrival is None else arrival.mark,
        slippage=slippage,
        delay=delay_cost(order.side, order.filled, decided, arrival) if order.filled else None,
        realised=_realised(order, basis.held(order.place)) if order.purpose == "reduce" else None,
        bound=_bound(order, basis, arrival),
    )


def _bound(order: OrderOutcome, basis: DecisionBasis, arrival: MarkedContract | None) -> Bound | None:
    """Return None where no bound was declared, or the program that sent the order had none."""
    band = basis.band(order.place)
    if band is None or order.kind is None:
        return None
    price = order.price if order.filled else None
    slipped = None if arrival is None or price is None else slippage(order.side, arrival.mark, price)
    worse = False
    if order.limit is not None and price is not None:
        worse = price < order.limit if order.side == "sell" else price > order.limit
    kept = None if slipped is None else slipped <= band
    return Bound(band, order.limit is not None and _is_bounded(order, basis.ladder), slipped, kept, worse)


def _is_bounded(order: OrderOutcome, ladder: Sequence[Rung]) -> bool:
    """Whether its step of the ladder limits the order by the band; an unknown step does not."""
    return order.rung is not None and order.rung < len(ladder) and ladder[order.rung].order != "market"


def _realised(order: OrderOutcome, position: Position | None) -> Decimal | None:
    """Return the P&L of a fill before fees, from the entry price; None unless the contract is surely linear."""
    if position is None or order.price is None or order.filled is None or not position.contracts:
        return None
    entry, mark = position.entry_price, position.mark_price
    pnl, notional = position.unrealized_pnl, position.notional
    if entry is None or mark is None or pnl is None or notional is None or not mark:
        return None
    size = notional / mark / position.contracts
    sign = 1 if position.side == "long" else -1
    if abs(sign * (mark - entry) * size * position.contracts - pnl) > _TOLERANCE * notional:
        return None
    return sign * (order.price - entry) * size * order.filled
