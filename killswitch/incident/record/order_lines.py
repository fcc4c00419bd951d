"""The orders of a decision, folded from its journal: how each was sent, how it ended, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct, structs

from killswitch.incident.record.decision_basis import DecisionBasis, Purpose
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
from killswitch.model.decision import Decision, Rung
from killswitch.model.snapshot import Position, Snapshot
from killswitch.risk.trading_cost import MarkedContract, delay_cost, slippage

ReportedStatus = Literal["final", "in flight", "set aside", "abandoned"]
"""The status of an order. `abandoned`: the venue was queried to the end without an answer; it may be filled."""

_TOLERANCE = Decimal("0.001")
"""The tolerance, of the notional, between a position's P&L and (mark − entry) × size of a linear contract."""
RESTING, ACCEPTED = "resting at the venue", "accepted by the venue"
"""The outcome of an acknowledged order without a further report: a limit order rests, any other does not."""
_OUTCOMES: Mapping[Status, str] = {
    "sent": "no answer yet",
    "acknowledged": ACCEPTED,
    "unknown": "status unknown, querying the venue",
    "set aside": "status unknown, detached: its position continues without it",
    "abandoned": "status unknown, no longer queried",
    "absent": "never reached the venue",
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


class OrderLine(Struct, frozen=True):
    """One attempt: what was sent, and the venue's answer. Null where there is none, or it is unknown.

    `kind` is `limit_ioc`, `market` or `limit`, `rung` the step of the ladder (from 0), `limit` its price. `mark` is the
    decision's, `arrival_mark` the one at which the order was sent. `slippage` is the cost of the fill against the
    latter, `delay` the market's move from the first to the second, `realised` the P&L before the fee; all in the
    account's currency.
    """

    account: str
    symbol: str
    position_side: str | None
    side: str | None
    attempt: int | None
    client_order_id: str | None
    sent_at: datetime
    amount: Decimal | None
    outcome: str
    answered_at: datetime | None = None
    filled: Decimal | None = None
    price: Decimal | None = None
    fee: Decimal | None = None
    text: str | None = None
    fate: ReportedStatus = "in flight"
    kind: str | None = None
    rung: int | None = None
    limit: Decimal | None = None
    purpose: Purpose = "reduce"
    mark: Decimal | None = None
    slippage: Decimal | None = None
    realised: Decimal | None = None
    bound: Bound | None = None
    was_unknown: bool = False
    """Whether its status was unknown for a while because no answer reported it."""
    arrival_mark: Decimal | None = None
    delay: Decimal | None = None
    fee_unknown: str | None = None
    """Why its fee is unknown after its fills were queried; names a fee that was paid in another asset."""

    @property
    def did_nothing(self) -> bool:
        """Whether the venue rejected the order or never received it."""
        return self.is_absent or self.outcome.startswith("rejected")

    @property
    def is_absent(self) -> bool:
        """Whether the venue reported that it has no such order."""
        return self.outcome.startswith("never reached")


def order_lines(decision: Decision, journal: Sequence[Entry], snapshot: Snapshot | None) -> tuple[OrderLine, ...]:
    """Return each sent order with the last answer about it. An order sent again under its id is one more line.

    `journal` has the decision's entries in sequence. `snapshot` is what it was decided on, where it was kept.
    """
    marks, basis = _marks(journal), DecisionBasis(decision, snapshot)
    orders = [order for order in JournaledOrders(journal).all if _is_own_order(order)]
    return tuple(_with_costs(_line(basis, each), basis, marks.get(each.first.place), each.arrival) for each in orders)


def _is_own_order(order: JournaledOrder) -> bool:
    """Whether it closes or hedges a position; an order with an undecodable entry may do so."""
    may_be = order.sending is not None or isinstance(order.first, Undecodable)
    return may_be and order.first.account is not None and order.first.symbol is not None


def position_of(order: OrderLine) -> Place:
    """Return the position that an order is about."""
    return (order.account, order.symbol, order.position_side)


def _line(basis: DecisionBasis, order: JournaledOrder) -> OrderLine:
    first, sending, answer = order.first, order.sending, order.answer
    return OrderLine(
        account=first.account or "",
        symbol=first.symbol or "",
        position_side=first.position_side,
        side=order.side,
        attempt=order.attempt,
        client_order_id=first.client_order_id,
        sent_at=order.sent_at,
        amount=None if sending is None else known(sending.amount),
        outcome=_outcome(order),
        answered_at=None if answer is None else answer.at,
        filled=known(answer.filled) if isinstance(answer, Filled | Acknowledged) else None,
        price=known(answer.price) if isinstance(answer, Filled) else None,
        fee=known(order.charge.fee) if order.charge else known(answer.fee) if isinstance(answer, Filled) else None,
        text=answer.text if isinstance(answer, Unknown | Rejected | Absent | OrderDetached | Abandoned) else None,
        fate=_reported_status(order.status),
        kind=None if sending is None else sending.order,
        rung=None if sending is None else known(sending.rung),
        limit=None if sending is None else known(sending.price),
        purpose=basis.purpose(first.place, first.client_order_id),
        was_unknown=order.has_been_unknown,
        fee_unknown=None if order.charge is None else order.charge.text,
    )


def _outcome(order: JournaledOrder) -> str:
    match order.answer:
        case Filled():
            return order.outcome
        case Rejected(reason=reason):
            return f"rejected: {reason or 'no reason given'}"
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
    line: OrderLine, basis: DecisionBasis, decided: MarkedContract | None, arrival: MarkedContract | None
) -> OrderLine:
    slippage = None
    if arrival is not None and line.price is not None and line.filled:
        slippage = arrival.cost(line.side, line.filled, line.price)
    return structs.replace(
        line,
        mark=None if decided is None else decided.mark,
        arrival_mark=None if arrival is None else arrival.mark,
        slippage=slippage,
        delay=delay_cost(line.side, line.filled, decided, arrival) if line.filled else None,
        realised=_realised(line, basis.held(position_of(line))) if line.purpose == "reduce" else None,
        bound=_bound(line, basis, arrival),
    )


def _bound(line: OrderLine, basis: DecisionBasis, arrival: MarkedContract | None) -> Bound | None:
    """Return None where no bound was declared, or the program that sent the order had none."""
    band = basis.band(position_of(line))
    if band is None or line.kind is None:
        return None
    price = line.price if line.filled else None
    slipped = None if arrival is None or price is None else slippage(line.side, arrival.mark, price)
    worse = False
    if line.limit is not None and price is not None:
        worse = price < line.limit if line.side == "sell" else price > line.limit
    kept = None if slipped is None else slipped <= band
    return Bound(band, line.limit is not None and _is_bounded(line, basis.ladder), slipped, kept, worse)


def _is_bounded(line: OrderLine, ladder: Sequence[Rung]) -> bool:
    """Whether its step of the ladder limits the order by the band; an unknown step does not."""
    return line.rung is not None and line.rung < len(ladder) and ladder[line.rung].order != "market"


def _realised(order: OrderLine, position: Position | None) -> Decimal | None:
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
