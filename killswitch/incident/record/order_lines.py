"""The orders of a decision, folded from its journal: how each was sent, what came of it, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct, structs

from killswitch.incident.record.decision_basis import DecidedOn, Purpose
from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Entry,
    Filled,
    Place,
    Planned,
    Rejected,
    SetAside,
    Undecodable,
    Unknown,
    known,
)
from killswitch.journal.orders import FINAL, JournaledOrder, JournaledOrders, Status
from killswitch.model.decision import Decision, Rung, Unwinding
from killswitch.model.snapshot import Position, Snapshot
from killswitch.risk.trading_cost import Marked, delay_cost, slipped

Fate = Literal["final", "in flight", "set aside", "abandoned"]
"""abandoned: the venue was asked to the end and did not say; it may be filled all the same."""

_CLOSE_ENOUGH = Decimal("0.001")
"""Of the notional: how far a linear contract's P&L may be from (mark − entry) × size and still count as linear."""
RESTING, ACCEPTED = "resting at the venue", "accepted by the venue"
"""The outcome of an order that the venue has, as long as it says no more: a limit order rests, any other does not."""
_OUTCOMES: Mapping[Status, str] = {
    "sent": "no answer yet",
    "acknowledged": ACCEPTED,
    "unknown": "fate unknown, being asked about",
    "set aside": "fate unknown, set aside: its position goes on without it",
    "abandoned": "fate unknown, and asked about no more",
    "absent": "never reached the venue",
}


class Bound(Struct, frozen=True):
    """The slippage that was declared for an order, and what became of it; fractions of the mark that it was sent at.

    `sent` is false for an order that went without a limit: what it slipped, nothing held. `slipped` is null where
    nothing was filled or the price is unknown, below 0 for a better price than the mark. `kept` compares the two.
    `beyond_limit`: the venue filled it at a worse price than the order's own limit.
    """

    declared: Decimal
    sent: bool
    slipped: Decimal | None
    kept: bool | None
    beyond_limit: bool = False


class OrderLine(Struct, frozen=True):
    """One attempt: what was sent, and what the venue said of it. Null where it has not said, or it is not known.

    `kind` is `limit_ioc`, `market` or `limit`, `rung` the step of the ladder (from 0), `limit` its price. `mark` is the
    decision's, `arrival_mark` that at which the order was sent. `slippage` is what the fill was worse than the latter,
    `delay` what the market moved from the first to the second, `realised` is before the fee, all in the account's
    currency.
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
    fate: Fate = "in flight"
    kind: str | None = None
    rung: int | None = None
    limit: Decimal | None = None
    purpose: Purpose = "reduce"
    mark: Decimal | None = None
    slippage: Decimal | None = None
    realised: Decimal | None = None
    bound: Bound | None = None
    was_unknown: bool = False
    """Whether its fate was unknown for a while: no answer said what had happened."""
    arrival_mark: Decimal | None = None
    delay: Decimal | None = None
    fee_unknown: str | None = None
    """Why its fee is not known, once its fills were asked for it; what was paid in another asset is told here."""

    @property
    def did_nothing(self) -> bool:
        """Whether the venue refused it, or never had it."""
        return self.is_absent or self.outcome.startswith("rejected")

    @property
    def is_absent(self) -> bool:
        """Whether the venue, asked for it, had no such order."""
        return self.outcome.startswith("never reached")


def order_lines(decision: Decision, journal: Sequence[Entry], snapshot: Snapshot | None) -> tuple[OrderLine, ...]:
    """Each `sending` with the last thing that was said about it. One sent again under its name is one line more.

    `journal`: the decision's entries in sequence. `snapshot`: what it was decided on, where that was kept.
    """
    marks, decided_on = _marks(journal), DecidedOn(decision, snapshot)
    orders = [order for order in JournaledOrders(journal).all if _is_one_of_ours(order)]
    return tuple(
        _counted(_line(decided_on, each), decided_on, decision.unwinding, marks.get(each.first.place), each.arrival)
        for each in orders
    )


def _is_one_of_ours(order: JournaledOrder) -> bool:
    """Whether it closes or hedges a position; one of which an entry cannot be decoded may have."""
    may_be = order.sending is not None or isinstance(order.first, Undecodable)
    return may_be and order.first.account is not None and order.first.symbol is not None


def position_of(order: OrderLine) -> Place:
    """The position that an order is about."""
    return (order.account, order.symbol, order.position_side)


def _line(decided_on: DecidedOn, order: JournaledOrder) -> OrderLine:
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
        text=_text(order),
        fate=_fate(order.status),
        kind=None if sending is None else sending.order,
        rung=None if sending is None else known(sending.rung),
        limit=None if sending is None else known(sending.price),
        purpose=decided_on.purpose(first.place, first.client_order_id),
        was_unknown=order.was_unknown,
        fee_unknown=None if order.charge is None else order.charge.text,
    )


def _outcome(order: JournaledOrder) -> str:
    match order.answer:
        case Filled():
            return order.outcome
        case Rejected(reason=reason):
            return f"rejected: {reason or 'no reason given'}"
        case Undecodable(why=why):
            return f"fate unknown: {why}"
    if order.status == "acknowledged" and order.sending is not None and order.sending.order == "limit":
        return RESTING
    return _OUTCOMES[order.status]


def _text(order: JournaledOrder) -> str | None:
    """The words of the last answer."""
    match order.answer:
        case Unknown(text=text) | Rejected(text=text) | Absent(text=text) | SetAside(text=text) | Abandoned(text=text):
            return text
    return None


def _fate(status: Status) -> Fate:
    if status in FINAL:
        return "final"
    return status if status in ("set aside", "abandoned") else "in flight"


def _marks(journal: Sequence[Entry]) -> dict[Place, Marked]:
    """Position → its mark as it was decided on."""
    planned = [(entry.place, entry.marked) for entry in journal if isinstance(entry, Planned)]
    return {place: marked for place, marked in reversed(planned) if marked is not None}


def _counted(
    line: OrderLine,
    decided_on: DecidedOn,
    unwinding: Unwinding | None,
    decided: Marked | None,
    arrival: Marked | None,
) -> OrderLine:
    key = position_of(line)
    slippage = None
    if arrival is not None and line.price is not None and line.filled:
        slippage = arrival.cost(line.side, line.filled, line.price)
    return structs.replace(
        line,
        mark=None if decided is None else decided.mark,
        arrival_mark=None if arrival is None else arrival.mark,
        slippage=slippage,
        delay=delay_cost(line.side, line.filled, decided, arrival) if line.filled else None,
        realised=_realised(line, decided_on.held(key)) if line.purpose == "reduce" else None,
        bound=_bound(line, decided_on.band(key), unwinding, arrival),
    )


def _bound(line: OrderLine, band: Decimal | None, unwinding: Unwinding | None, arrival: Marked | None) -> Bound | None:
    """None where no bound was declared for the position, or the order was sent by a program that knew none."""
    if band is None or line.kind is None:
        return None
    by = None
    if arrival is not None and line.price is not None and line.filled:
        by = slipped(line.side, arrival.mark, line.price)
    worse = False
    if line.limit is not None and line.price is not None and line.filled:
        worse = line.price < line.limit if line.side == "sell" else line.price > line.limit
    kept = None if by is None else by <= band
    return Bound(band, line.limit is not None and _is_bounded(line, unwinding), by, kept, worse)


def _is_bounded(line: OrderLine, unwinding: Unwinding | None) -> bool:
    """Whether the rung limits the order by the band; a rung that is not known does not."""
    ladder: Sequence[Rung] = () if unwinding is None else unwinding.ladder
    if line.rung is None or line.rung >= len(ladder):
        return False
    return ladder[line.rung].order != "market"


def _realised(order: OrderLine, position: Position | None) -> Decimal | None:
    """P&L of a fill before fees, from the entry price that was seen; None unless the contract is surely linear."""
    if position is None or order.price is None or order.filled is None or not position.contracts:
        return None
    entry, mark, pnl, notional = (
        position.entry_price, position.mark_price, position.unrealized_pnl, position.notional,
    )  # fmt: skip
    if entry is None or mark is None or pnl is None or notional is None or not mark:
        return None
    size = notional / mark / position.contracts
    sign = 1 if position.side == "long" else -1
    if abs(sign * (mark - entry) * size * position.contracts - pnl) > _CLOSE_ENOUGH * notional:
        return None
    return sign * (order.price - entry) * size * order.filled
