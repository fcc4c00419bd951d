"""Orders at Binance's USD-M futures: actions, and the codes of refusals."""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.venue import OrderRejectedError, OrderRequest
from tests.faults.exchange import ZERO, Placed
from tests.wire.binance import payloads as payloads
from tests.wire.server import Ask, RefusedError

if TYPE_CHECKING:
    from tests.wire.binance.venue import BinanceWire

NAMES = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


def place(wire: BinanceWire, ask: Ask) -> object:
    """POST order."""
    return place_one(wire, ask.params)


def place_one(wire: BinanceWire, params: Any) -> dict[str, Any]:
    """One order that is not conditional."""
    if params["type"] not in ("MARKET", "LIMIT"):
        raise payloads.refuse(
            -4120, "Order type not supported for this endpoint. Please use the Algo Order API instead."
        )
    price = Decimal(params["price"]) if params["type"] == "LIMIT" else None
    request = _request(wire, params, params.get("newClientOrderId"), price)
    market = wire.exchange.markets[request.symbol]
    if not request.reduce_only and request.amount * (price or market.price) < wire.min_notional:
        text = f"Order's notional must be no smaller than {wire.min_notional} (unless you choose reduce only)."
        raise payloads.refuse(-4164, text)
    wire.exchange.place(request)
    return wire.row(wire.exchange.orders[wire.exchange.names[request.client_order_id]])


def place_all(wire: BinanceWire, ask: Ask) -> object:
    """POST batchOrders: each order is independent, and answered in its place."""
    rows = json.loads(ask.params["batchOrders"])
    if len(rows) > 5:
        raise payloads.refuse(-4082, "Invalid number of batch place orders.")
    return [_placed_in_batch(wire, row) for row in rows]


def _placed_in_batch(wire: BinanceWire, row: Any) -> object:
    try:
        return place_one(wire, row)
    except RefusedError as error:
        return error.reply.body
    except OrderRejectedError as error:
        return wire.refused(error).body


def place_algo(wire: BinanceWire, ask: Ask) -> object:
    """POST algoOrder."""
    params = ask.params
    if params.get("algoType") != "CONDITIONAL":
        raise payloads.refuse(-1102, "Mandatory parameter 'algoType' was not sent, was empty/null, or malformed.")
    kind, trigger = params["type"], Decimal(params["triggerPrice"])
    price = None if kind.endswith("_MARKET") else Decimal(params["price"])
    when: Literal["falls", "rises"] = "falls" if kind.startswith("STOP") is (params["side"] == "SELL") else "rises"
    request = _request(wire, params, params.get("clientAlgoId"), price, trigger, when)
    now = wire.exchange.markets[request.symbol].price
    if now <= trigger if when == "falls" else now >= trigger:
        raise payloads.refuse(-2021, "Order would immediately trigger.")
    wire.exchange.place(request)
    order = wire.exchange.orders[wire.exchange.names[request.client_order_id]]
    wire.remember_triggers()
    return wire.algo(order)


def _request(
    wire: BinanceWire,
    params: Any,
    name: str | None,
    price: Decimal | None,
    trigger: Decimal | None = None,
    when: Literal["falls", "rises"] | None = None,
) -> OrderRequest:
    symbol = wire.symbol(params["symbol"])
    if name is not None and not NAMES.fullmatch(name):
        raise payloads.refuse(-1100, "Illegal characters found in parameter 'newClientOrderId'.")
    side: OrderSide = "sell" if params["side"] == "SELL" else "buy"
    position_side, reduce_only = _position_side(wire, params, side)
    return OrderRequest(
        client_order_id=name or f"auto_{len(wire.exchange.orders)}", symbol=symbol, side=side,
        position_side=position_side, amount=Decimal(params["quantity"]), reduce_only=reduce_only,
        type="market" if price is None else "limit", price=price,
        time_in_force="ioc" if params.get("timeInForce") == "IOC" else "gtc", trigger_price=trigger, trigger_when=when,
    )  # fmt: skip


def _position_side(wire: BinanceWire, params: Any, side: OrderSide) -> tuple[Side, bool]:
    """The position side of an order, and whether it is reduce-only."""
    reduce_only = str(params.get("reduceOnly", "false")).lower() == "true"
    stated = params.get("positionSide", "BOTH")
    if (stated != "BOTH") is not (wire.exchange.mode == "hedge"):
        raise payloads.refuse(-4061, "Order's position side does not match user's setting.")
    if stated == "BOTH":
        return ("long" if side == "sell" else "short") if reduce_only else ("long" if side == "buy" else "short"), (
            reduce_only
        )
    if "reduceOnly" in params:
        raise payloads.refuse(-1106, "Parameter 'reduceonly' sent when not required.")
    position_side: Side = "long" if stated == "LONG" else "short"
    # In hedge mode the position side is the guard: no order closes more than is held.
    return position_side, (side == "sell") is (position_side == "long")


def _order_of(wire: BinanceWire, ask: Ask, id_key: str, name_key: str, first: int) -> Placed | None:
    if ask.params.get(name_key):
        order_id = wire.exchange.names.get(ask.params[name_key], "")
    elif ask.params.get(id_key):
        order_id = f"x{int(ask.params[id_key]) - first}"
    else:
        raise payloads.refuse(-1102, f"Param '{name_key}' or '{id_key}' must be sent, but both were empty/null!")
    return wire.exchange.orders.get(order_id)


def ordinary(wire: BinanceWire, ask: Ask) -> Placed | None:
    """The requested order, unless it waits for its condition."""
    wire.symbol(ask.params["symbol"])
    order = _order_of(wire, ask, "orderId", "origClientOrderId", 0)
    conditional_by_name = order is not None and order.id in wire.triggers and "origClientOrderId" in ask.params
    return None if order is None or order.waits or conditional_by_name else order


def conditional(wire: BinanceWire, ask: Ask) -> Placed | None:
    """The requested conditional order, in any state."""
    order = _order_of(wire, ask, "algoId", "clientAlgoId", payloads.ALGO_FIRST)
    return order if order is not None and order.id in wire.triggers else None


def find(wire: BinanceWire, ask: Ask) -> object:
    """GET order."""
    order = ordinary(wire, ask)
    if order is None:
        raise payloads.refuse(-2013, "Order does not exist.")
    return wire.row(order)


def find_algo(wire: BinanceWire, ask: Ask) -> object:
    """GET algoOrder."""
    order = conditional(wire, ask)
    if order is None:
        raise payloads.refuse(-2013, "Order does not exist.")
    return wire.algo(order)


def change(wire: BinanceWire, ask: Ask) -> object:
    """PUT order: another price and total of a resting limit order, which keeps its id and its flags."""
    order = ordinary(wire, ask)
    if order is None or order.state != "open" or order.type != "limit":
        raise payloads.refuse(-2013, "Order does not exist.")
    order.amount, order.price = Decimal(ask.params["quantity"]), Decimal(ask.params["price"])
    wire.exchange.match(order)
    wire.exchange.notify_listeners()
    return wire.row(order)


def every(wire: BinanceWire, ask: Ask) -> object:
    """GET allOrders: those of one symbol that are not conditional, in any state."""
    symbol = wire.symbol(ask.params["symbol"])
    return [wire.row(it) for it in wire.exchange.orders.values() if it.symbol == symbol and it.id not in wire.triggers]


def set_leverage(wire: BinanceWire, ask: Ask) -> object:
    """POST leverage: accepted, and without an effect on this exchange."""
    leverage = int(ask.params["leverage"])
    return {"symbol": ask.params["symbol"], "leverage": leverage, "maxNotionalValue": "10000000"}


def set_margin_type(wire: BinanceWire, ask: Ask) -> object:
    """POST marginType: accepted, and without an effect on this exchange."""
    return {"code": 200, "msg": "success"}


def cancel(wire: BinanceWire, ask: Ask) -> object:
    """DELETE order."""
    order = ordinary(wire, ask)
    if order is None or order.state != "open":
        raise payloads.refuse(-2011, "Unknown order sent.")
    wire.exchange.cancel(order.id)
    return wire.row(order)


def cancel_algo(wire: BinanceWire, ask: Ask) -> object:
    """DELETE algoOrder."""
    order = conditional(wire, ask)
    if order is None or not order.waits:
        raise payloads.refuse(-2011, "Unknown order sent.")
    wire.exchange.cancel(order.id)
    row = wire.algo(order)
    return {"algoId": row["algoId"], "clientAlgoId": row["clientAlgoId"], "code": "200", "msg": "success"}


def cancel_all(wire: BinanceWire, ask: Ask) -> object:
    """DELETE allOpenOrders: the orders of one symbol; conditional ones stay."""
    _cancel_ordinary(wire, wire.symbol(ask.params["symbol"]))
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def _cancel_ordinary(wire: BinanceWire, symbol: str) -> None:
    for order in list(wire.exchange.orders.values()):
        if order.symbol == symbol and not order.waits:
            wire.exchange.cancel(order.id)


def count_down(wire: BinanceWire, ask: Ask) -> object:
    """POST countdownCancelAll: the timer of one symbol."""
    symbol, wait = wire.symbol(ask.params["symbol"]), int(ask.params["countdownTime"])
    if symbol in wire.timers:
        wire.timers.pop(symbol).cancel()
    if wait:
        loop = asyncio.get_running_loop()
        wire.timers[symbol] = loop.call_later(wait / 1000, _cancel_ordinary, wire, symbol)
    return {"symbol": ask.params["symbol"], "countdownTime": str(wait)}


def trades(wire: BinanceWire, ask: Ask) -> object:
    """GET userTrades: of one symbol, since a time, of one order."""
    symbol = wire.symbol(ask.params["symbol"])
    ledger = wire.ledger
    shown = [it for it in ledger.fills() if it.symbol == symbol]
    rows = [payloads.trade_row(wire.exchange, it, ledger.profits[it.id], wire.fees_in) for it in shown]
    if "orderId" in ask.params:
        rows = [row for row in rows if row["orderId"] == int(ask.params["orderId"])]
    return _since(ask, rows)


def forced(wire: BinanceWire, ask: Ask) -> object:
    """GET forceOrders: the venue's liquidations and deleveragings."""
    return _since(ask, [payloads.forced_row(it) for it in wire.ledger.fills() if it.cause != "trade"])


def incomes(wire: BinanceWire, ask: Ask) -> object:
    """GET income: oldest first, at most a thousand; the test's own rows after the ledger's."""
    kind = ask.params.get("incomeType")
    rows = [row for each in wire.ledger.shown() for row in payloads.income_rows(each)] + wire.incomes
    return _since(ask, [row for row in rows if kind in (None, row["incomeType"])])


def _since(ask: Ask, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    start, end = int(ask.params.get("startTime", 0)), int(ask.params.get("endTime", 10**15))
    wanted = [row for row in rows if start <= row["time"] <= end]
    limit = int(ask.params.get("limit", 500))
    return wanted[:limit] if "startTime" in ask.params else wanted[-limit:]


def wrong_rows(mishap: str, rows: list[Any]) -> list[Any]:
    """A damaged list."""
    match mishap:
        case "empty":
            return []
        case "page":
            return rows[1:]
        case "sign":
            turned = {"positionSide": "LONG", "positionAmt": "-1"}
            return [row | turned if "positionAmt" in row else row for row in rows]
        case "nan":
            return [row | {"positionAmt": "NaN"} if "positionAmt" in row else row for row in rows[:1]] + rows[1:]
        case "nonsense":
            return [row | {"executedQty": "-1"} for row in rows]
        case "defect":
            return [{key: value for key, value in row.items() if key not in ("positionAmt", "orderId")} for row in rows]
    return rows


def wrong_order(mishap: str, row: Any) -> Any:
    """A damaged order."""
    if not isinstance(row, dict) or not {"orderId", "algoId"} & set(row):
        return row
    match mishap:
        case "nonsense":
            return row | {"executedQty": "-1" if Decimal(row.get("executedQty", ZERO)) else "NaN"}
        case "defect":
            return {key: value for key, value in row.items() if key not in ("orderId", "algoId", "executedQty")}
        case "lagging":
            return row | {"status": "NEW", "executedQty": "0.000", "cumQuote": "0", "avgPrice": "0"}
    return row
