"""The worst case of an account with one more entry: contracts and value of its position, gross, margin and fees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.limits.book import GateBook, side_of
from killswitch.limits.reservations import ApprovedOrder
from killswitch.model.snapshot import Order
from killswitch.planning.reducing import PositionName, left_of
from killswitch.valuation.position_measures import ZERO


class Worst(Struct, frozen=True):
    """An account at worst, in contracts and in its currency. None is unknown.

    `contracts`, `value`: of the position that the order opens. `of_base`: of all positions in its base asset.
    `entering_value`: of everything that may still fill and open, for fees.
    """

    contracts: Decimal
    value: Decimal | None
    order_value: Decimal | None
    gross: Decimal | None
    gross_missing: str
    of_base: Decimal | None
    margin: Decimal | None
    entering_value: Decimal | None


def worst_case(book: GateBook, order: Order, extra: Sequence[ApprovedOrder]) -> Worst:
    """The worst case with the order and with what was allowed before it."""
    opening = [each.order for each in extra if not each.is_bounded]
    added = [*opening, order]
    name: PositionName = (order.symbol, side_of(order))
    contract = book.contract(order.symbol)
    each = contract.value_at(order.price or order.trigger_price)
    order_value = None if each is None else left_of(order) * each
    touched = {it.symbol for it in added}
    totals = book.totals
    gross, missing = totals.gross_without(touched)
    of_base = totals.base_without(contract.base, touched)
    for symbol in touched:
        value = book.worst_value(symbol, added)
        if value is None:
            gross, missing = None, f"the value of {symbol}"
        gross = None if gross is None or value is None else gross + value
        if book.contract(symbol).base == contract.base:
            of_base = None if of_base is None or value is None else of_base + value
    return Worst(
        contracts=book.side_contracts(name, added),
        value=book.side_value(name, added),
        order_value=order_value,
        gross=gross,
        gross_missing=missing,
        of_base=of_base,
        margin=margin_of(book, order),
        entering_value=_entering_value(book, added),
    )


def margin_of(book: GateBook, order: Order) -> Decimal | None:
    """The margin that an order needs at most, in the account's currency; None if its value is unknown.

    Its value divided by the venue's leverage of the position; where that is unknown, its whole value.
    """
    contract = book.contract(order.symbol)
    each = contract.value_at(order.price or order.trigger_price)
    if each is None:
        return None
    return left_of(order) * each / max(contract.leverage or Decimal(1), Decimal(1))


def _entering_value(book: GateBook, added: Iterable[Order]) -> Decimal | None:
    total = ZERO
    for value in book.entering_value.values():
        if value is None:
            return None
        total += value
    for order in added:
        each = book.contract(order.symbol).value_at(order.price or order.trigger_price)
        if each is None:
            return None
        total += left_of(order) * each
    return total
