"""The orders of an incident with their outcomes, the positions left, and the sums of the close."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from msgspec import UNSET
from msgspec.structs import replace

from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.document import HeldPosition, Money, PositionLeft
from killswitch.incident.record.firing import scope_accounts
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.results import AccountClose, RecordedDecision, Result
from killswitch.incident.record.totals import add_up
from killswitch.journal.entries import Place, is_plan
from killswitch.model.effects import Orders, of_kind
from killswitch.valuation.position_measures import base_of


def outcomes(recorded: Iterable[Result]) -> tuple[OrderOutcome, ...]:
    """Return the orders of the decisions in the order of sending, numbered from 1."""
    orders = (order for result in recorded for order in result.orders)
    return tuple(
        replace(order, number=number, text=order.text or order.fee_unknown, fee_unknown=UNSET)
        for number, order in enumerate(orders, start=1)
    )


def positions_left(recorded: Iterable[RecordedDecision], closed: Sequence[ClosedPosition]) -> list[PositionLeft]:
    """Return every position that was planned to be reduced, with the smallest target, as the venue showed it last."""
    first: dict[Place, str] = {}
    for each in recorded:
        for entry in each.journal:
            if is_plan(entry):
                first.setdefault(entry.place, each.decision.id)
    return [_position(first.get(one.place, ""), one) for one in closed]


def positions_held(recorded: Sequence[RecordedDecision], closed: Sequence[ClosedPosition]) -> tuple[HeldPosition, ...]:
    """Return the scope's positions in the snapshot of the last decision that has one, without those in `closed`."""
    decision, snapshot = next(
        ((each.decision, each.snapshot) for each in reversed(recorded) if each.snapshot is not None), (None, None)
    )
    if decision is None or snapshot is None:
        return ()
    decided = (of_kind(each.decision.effects, Orders) for each in recorded)
    intents = [intent for orders in decided if orders is not None for intent in orders.intents]
    sold_elsewhere = {(it.account, base_of(it.symbol)) for it in intents if it.purpose == "hop"}
    places = {each.place for each in closed} | {(it.account, it.symbol, it.position_side) for it in intents}
    return tuple(
        HeldPosition(account.account, row.symbol, row.side, row.contracts, row.notional, snapshot.as_of)
        for account in scope_accounts(decision.scope, snapshot)
        for row in account.positions or ()
        if row.contracts
        and (account.account, *row.key) not in places
        and (account.account, base_of(row.symbol)) not in sold_elsewhere
    )


def _position(decision: str, one: ClosedPosition) -> PositionLeft:
    to_close = None if one.left is None else max(Decimal(0), one.left - one.target)
    expected = None if one.left is not None or one.filled is None else max(Decimal(0), one.start - one.filled)
    return PositionLeft(
        decision, one.account, one.symbol, one.side, one.target, one.left, to_close, one.seen_at, one.dust, one.worth,
        expected, one.start,
    )  # fmt: skip


def account_closes(recorded: RecordedDecision) -> list[AccountClose]:
    """Return how the work on each account ended; `closing` for work under way."""
    id_ = recorded.decision.id
    ended = [replace(each, cost=UNSET, delay=UNSET) for each in recorded.result.endings]
    names = dict.fromkeys(e.account for e in recorded.journal if is_plan(e) and e.account is not None)
    finished = {each.account for each in ended}
    return ended + [AccountClose(id_, name, "closing", None, None) for name in names if name not in finished]


def close_money(lines: Sequence[OrderOutcome], currency: str | None, *, has_whole_book: bool) -> Money:
    """Return the sums of all closes; None wherever a part is unknown, or nothing was sent.

    Orders are numbered as in `outcomes`. `has_whole_book` says that a whole-book request closed something as well.
    """
    sums = add_up(lines, has_whole_book=has_whole_book)
    if not any(line.filled for line in lines):
        unclear = has_whole_book or any(line.fate != "final" for line in lines)
        if unclear or not lines:
            return Money(None, None, None, None, currency, sums["missing"] if unclear else ())
    fees, slippage = sums["fees"], sums["slippage"]
    return Money(cost=None if fees is None or slippage is None else fees + slippage, currency=currency, **sums)
