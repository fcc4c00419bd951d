"""Conversion of ccxt's orders: open ones for snapshots, reports for closing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    at_least_zero,
    decimal,
    flag,
    identifier,
    instant,
    one_of,
    optional_text,
    positive,
)
from killswitch.model.snapshot import Order, OrderSide, Side
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderReport,
    OrderRequest,
    OrderState,
    VenueError,
)
from killswitch.model.venue_orders import order_type

STATES: Final[Mapping[str, OrderState]] = {
    "open": "open",
    "closed": "filled",
    "canceled": "canceled",
    "canceling": "open",
    "rejected": "rejected",
    "expired": "expired",
}
ORDER_SIDES: Final[Mapping[str, OrderSide]] = {"buy": "buy", "sell": "sell"}
SIDES: Final[Mapping[str, Side]] = {"long": "long", "short": "short"}
ReportOf = Callable[[Row, OrderRequest], OrderReport]


def open_orders(rows: Iterable[Row]) -> tuple[Order, ...]:
    """Every open order, once. UnreadableError names a row that cannot be parsed, and an order with two amounts."""
    found: dict[str, Order] = {}
    for order in map(_resting, rows):
        known = found.get(order.id, order)
        if (known.symbol, known.side, known.amount) != (order.symbol, order.side, order.amount):
            raise UnreadableError(f"order {order.id} is listed twice, and the two rows differ")
        found[order.id] = order
    return tuple(found.values())


def report(row: Row, symbol: str, currency: str | None = None) -> OrderReport:
    """The report of one order of `symbol`. A fee in another asset than the account's `currency` is unknown.

    An answer that only acknowledges the order is the report of an open order without fills. UnreadableError where the
    answer is contradictory or cannot be parsed.
    """
    number = identifier(row.get("id"), "an order")
    status = row.get("status")
    state = STATES["open"] if status is None else one_of(STATES, status, f"state of order {number}")
    amount, filled = decimal(row.get("amount")), decimal(row.get("filled"))
    if amount == 0 or (amount or 0) < 0 or (filled or 0) < 0:
        raise UnreadableError(f"order {number} has the amount {amount}, of which {filled} is filled")
    if filled is None:
        if state == "filled" and amount is None:
            raise UnreadableError(f"order {number} is filled, and the filled amount is missing")
        if state not in ("open", "rejected", "filled"):
            raise UnreadableError(f"order {number} is {state}, and the filled amount is missing")
        filled = amount if state == "filled" and amount is not None else Decimal(0)
    if state == "filled" and filled == 0:
        raise UnreadableError(f"order {number} is filled, and its filled amount is 0")
    if state == "filled" and amount is not None and filled < amount:
        state = "canceled"  # it ended before its amount was filled
    return OrderReport(
        id=number,
        client_order_id=optional_text(row.get("clientOrderId")),
        symbol=symbol,
        state=state,
        amount=amount if amount is not None else filled,
        filled=filled,
        average_price=positive(row.get("average")),
        fee=_fee(row, currency),
    )


def _resting(row: Row) -> Order:
    number, symbol = identifier(row.get("id"), "an order"), row.get("symbol")
    if not isinstance(symbol, str):
        raise UnreadableError(f"order {number} has no symbol")
    side = one_of(ORDER_SIDES, row.get("side"), f"side of order {number}")
    reduce_only = flag(row.get("reduceOnly"))
    trigger = positive(row.get("triggerPrice"))
    if trigger is None and reduce_only:
        # On an order that opens, these belong to a stop that is attached for later: the order itself is not
        # conditional.
        trigger = positive(row.get("stopLossPrice")) or positive(row.get("takeProfitPrice"))
    price = positive(row.get("price"))
    position_side = SIDES.get(str(row.get("positionSide")).lower())
    if position_side is None and reduce_only:
        position_side = "long" if side == "sell" else "short"
    return Order(
        id=number,
        symbol=symbol,
        side=side,
        amount=at_least_zero(row.get("amount"), f"the amount of order {number}"),
        client_order_id=optional_text(row.get("clientOrderId")),
        position_side=position_side,
        type=order_type(
            optional_text(row.get("type")),
            conditional=trigger is not None,
            priced=price is not None,
            guards=row.get("guards"),
        ),
        price=price,
        trigger_price=trigger,
        filled=decimal(row.get("filled")),
        reduce_only=reduce_only,
        created_at=instant(row.get("timestamp")),
    )


def _fee(row: Row, currency: str | None) -> Decimal | None:
    fee = row.get("fee")
    if not isinstance(fee, Mapping):
        return None
    asset, cost = fee.get("currency"), decimal(fee.get("cost"))
    return cost if not cost or None in (asset, currency) or asset == currency else None


async def row_report(row: Row | None, request: OrderRequest, report: ReportOf) -> OrderReport:
    """The `report` of one order of a batch by its row. FateUnknownError where the answer has no row of it."""
    if row is None:
        raise FateUnknownError(f"the answer to a batch has no row of {request.client_order_id}")
    return report(row, request)


async def outcome(sending: Awaitable[OrderReport]) -> OrderReport | VenueError:
    """The result of one order of a batch: its report, or the error. An unreadable answer is a MalformedAnswerError."""
    try:
        return await sending
    except VenueError as error:
        return error
    except UnreadableError as error:
        return MalformedAnswerError(str(error))
