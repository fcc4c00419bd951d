"""Alpaca's orders: open orders with the legs of brackets, and the report of one order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    about_row,
    at_least_zero,
    decimal,
    optional_text,
    positive,
    required_text,
    written_instant,
)
from killswitch.model.snapshot import Order, OrderSide, Side
from killswitch.model.venue import OrderReport, OrderState
from killswitch.model.venue_orders import order_type
from killswitch_alpaca.positions import is_crypto, symbol_of

ZERO = Decimal(0)
STATES: Final[Mapping[str, OrderState]] = {
    "new": "open", "accepted": "open", "pending_new": "open", "accepted_for_bidding": "open",
    "partially_filled": "open", "held": "open", "pending_cancel": "open", "pending_replace": "open",
    "pending_review": "open", "stopped": "open", "suspended": "open", "calculated": "open", "done_for_day": "open",
    "filled": "filled", "canceled": "canceled", "replaced": "canceled", "expired": "expired", "rejected": "rejected",
}  # fmt: skip
"""State of each status. `held` is a leg that waits for its parent; `done_for_day` continues on the next day."""

SIDES: Final[Mapping[str, OrderSide]] = {"buy": "buy", "sell": "sell", "sell_short": "sell"}
"""Side of each word. Older accounts write a sale that opens a short as `sell_short`."""
INTENTS: Final[Mapping[str, tuple[Side, bool]]] = {
    "buy_to_open": ("long", False), "sell_to_close": ("long", True),
    "sell_to_open": ("short", False), "buy_to_close": ("short", True),
}  # fmt: skip
"""Position side of each `position_intent`, and whether the order can only reduce it."""


def read_open(answer: Sequence[Row], prices: Mapping[str, Decimal]) -> tuple[Order, ...]:
    """Every open order, legs included, once. `prices` give the number of shares of an order by notional."""
    found: dict[str, Order] = {}
    for each in _with_legs(answer):
        if _state(each) == "open":
            order = _order(each, prices)
            found.setdefault(order.id, order)
    return tuple(found.values())


def read_report(found: Row) -> OrderReport:
    """The report of one order. Its fee is unknown: orders do not include fees."""
    name = required_text(found.get("id"), "id")
    with about_row(f"order {name}"):
        filled = at_least_zero(found.get("filled_qty"), "filled_qty")
        size, state = decimal(found.get("qty")), _state(found)
        if size == ZERO or (state == "filled" and filled == ZERO):
            raise UnreadableError(f"status {found.get('status')} contradicts qty {size} and filled_qty {filled}")
        return OrderReport(
            id=name,
            client_order_id=optional_text(found.get("client_order_id")),
            symbol=symbol_of(required_text(found.get("symbol"), "symbol"), found.get("asset_class")),
            state=state,
            amount=filled if size is None else at_least_zero(size, "qty"),
            filled=filled,
            average_price=positive(found.get("filled_avg_price")) if filled else None,
        )


def _with_legs(answer: Sequence[Row]) -> Iterator[Row]:
    for each in answer:
        yield each
        legs = each.get("legs")
        if isinstance(legs, list):
            yield from _with_legs([leg for leg in legs if isinstance(leg, Mapping)])


def _state(found: Row) -> OrderState:
    status = required_text(found.get("status"), "status")
    if status not in STATES:
        raise UnreadableError(f"order {found.get('id')}: unknown status {status!r}")
    return STATES[status]


def _order(found: Row, prices: Mapping[str, Decimal]) -> Order:
    name = required_text(found.get("id"), "id")
    with about_row(f"order {name}"):
        symbol = symbol_of(required_text(found.get("symbol"), "symbol"), found.get("asset_class"))
        side = read_side(found)
        position_side, reduces = _purpose(symbol, side, found.get("position_intent"))
        price, trigger = positive(found.get("limit_price")), positive(found.get("stop_price"))
        return Order(
            id=name,
            symbol=symbol,
            side=side,
            amount=_amount(found, symbol, prices),
            client_order_id=optional_text(found.get("client_order_id")),
            position_side=position_side,
            type=order_type(
                optional_text(found.get("type")) or optional_text(found.get("order_type")),
                conditional=trigger is not None,
                priced=price is not None,
            ),
            price=price,
            trigger_price=trigger,
            filled=decimal(found.get("filled_qty")),
            reduce_only=reduces,
            created_at=written_instant(found.get("created_at")),
        )


def read_side(found: Row) -> OrderSide:
    """The side of an order or a fill."""
    written = required_text(found.get("side"), "side")
    if written not in SIDES:
        raise UnreadableError(f"unknown side {written!r}")
    return SIDES[written]


def _purpose(symbol: str, side: OrderSide, intent: object) -> tuple[Side | None, bool | None]:
    """Position side of the order, and whether it can only reduce; None where unknown.

    Coins cannot be sold short at Alpaca. An order for shares states its purpose, and Alpaca enforces it.
    """
    if is_crypto(symbol):
        return "long", side == "sell"
    return INTENTS.get(str(intent), (None, None))


def _amount(found: Row, symbol: str, prices: Mapping[str, Decimal]) -> Decimal:
    size = decimal(found.get("qty"))
    if size is not None:
        return at_least_zero(size, "qty")
    money, price = decimal(found.get("notional")), positive(found.get("limit_price")) or prices.get(symbol)
    if money is None or price is None:
        raise UnreadableError("it has no qty, and its notional cannot be converted without a price")
    return money / price + (decimal(found.get("filled_qty")) or ZERO)
