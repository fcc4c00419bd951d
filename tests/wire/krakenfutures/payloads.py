"""Rows of Kraken Futures, as in its documents and answers: numbers are JSON numbers, times ISO text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Final

from killswitch.model.snapshot import Fill
from tests.faults.exchange import Exchange, Key, Market, Placed
from tests.wire.ledger import Book, Lot, Row, RowKind

KINDS: Final = {"market": "mkt", "limit": "lmt"}
WORDS: Final = {"open": "placed", "filled": "placed", "expired": "placed"}
STATUS: Final = {"open": "ENTERED_BOOK", "filled": "FULLY_EXECUTED", "canceled": "CANCELLED", "expired": "CANCELLED",
                 "rejected": "REJECTED"}  # fmt: skip


@cache
def market_id(symbol: str) -> str:
    """`BTC/USD:USD` → `PF_XBTUSD`, `BTC/USD:BTC` → `PI_XBTUSD`."""
    base, _, rest = symbol.partition("/")
    quote, _, settle = rest.partition(":")
    return f"{'PI' if settle == base else 'PF'}_{'XBT' if base == 'BTC' else base}{quote}"


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instrument_row(market: Market) -> dict[str, Any]:
    """Without minimum sizes: the precision of the size is the only limit."""
    inverse = market_id(market.symbol).startswith("PI_")
    step = Decimal(1) if inverse else market.step or Decimal(1)
    exponent = step.normalize().as_tuple().exponent
    return {
        "symbol": market_id(market.symbol),
        "type": "futures_inverse" if inverse else "flexible_futures",
        "tickSize": 0.01,
        "contractSize": 1,
        "tradeable": market.state not in ("halted", "delisted"),
        "impactMidSize": 1.0,
        "maxPositionSize": float(market.maximum or 1_000_000),
        "openingDate": "2022-03-22T13:18:45.000Z",
        "marginLevels": [{"numNonContractUnits": 0, "initialMargin": 0.02, "maintenanceMargin": 0.01}],
        "fundingRateCoefficient": 24,
        "contractValueTradePrecision": -int(exponent),
        "postOnly": market.state == "post_only",
        "mtf": True,
        "tags": [],
    }


def ticker_row(market: Market, at: datetime) -> dict[str, Any]:
    return {
        "symbol": market_id(market.symbol),
        "last": float(market.last_price), "lastTime": iso(at), "tag": "perpetual", "pair": "X:USD",
        "markPrice": float(market.price), "indexPrice": float(market.index_price),
        "bid": float(market.taken_at("sell")), "bidSize": 1000.0,
        "ask": float(market.taken_at("buy")), "askSize": 1000.0,
        "vol24h": 100000.0, "volumeQuote": 1e7, "openInterest": 5000.0, "open24h": float(market.price),
        "suspended": market.state == "halted", "postOnly": market.state == "post_only", "change24h": 0.0,
    }  # fmt: skip


def account_rows(book: Book) -> dict[str, Any]:
    """A multi-collateral account in dollars, and an empty cash account; the wallet of inverse contracts in bitcoin."""
    if book.currency == "BTC":
        held = float(book.wallets["BTC"])
        single = {
            "type": "marginAccount", "currency": "xbt", "balances": {"xbt": held},
            "auxiliary": {"af": float(book.total - book.gross / 50), "pv": float(book.total)},
            "marginRequirements": {"im": float(book.gross / 50), "mm": float(book.gross / 100)},
        }  # fmt: skip
        return {"fi_xbtusd": single}
    gross, profit, equity = float(book.gross), float(book.unrealized_total), float(book.total)
    balance = equity - profit
    currencies = {
        asset: {"quantity": float(amount), "value": float(amount * book.price(asset)),
                "collateral": float(amount * book.price(asset)), "available": float(amount)}
        for asset, amount in book.wallets.items()
    }  # fmt: skip
    flex = {
        "type": "multiCollateralMarginAccount", "currencies": currencies,
        "initialMargin": gross / 50, "initialMarginWithOrders": gross / 50,
        "maintenanceMargin": gross / 100, "balanceValue": balance, "portfolioValue": equity,
        "collateralValue": balance, "pnl": profit, "unrealizedFunding": 0.0, "totalUnrealized": profit,
        "totalUnrealizedAsMargin": profit, "availableMargin": equity - gross / 50, "marginEquity": equity,
    }  # fmt: skip
    return {"cash": {"type": "cashAccount", "balances": {"usd": 0.0}}, "flex": flex}


def position_row(key: Key, lot: Lot, at: datetime) -> dict[str, Any]:
    """No notional, leverage, liquidation price or mark, as in the real one."""
    return {
        "side": key[1], "symbol": market_id(key[0]), "price": float(lot.entry), "fillTime": iso(at),
        "size": float(lot.amount), "unrealizedFunding": 0.0, "pnlCurrency": "USD",
    }  # fmt: skip


LOG_INFOS: Final[Mapping[RowKind, str]] = {
    "trade": "futures trade", "deposit": "cross-exchange transfer", "withdrawal": "cross-exchange transfer",
    "transfer": "cross-exchange transfer", "funding": "funding rate change", "insurance": "interest payment",
    "rebate": "transfer",
}  # fmt: skip


def log_row(row: Row) -> dict[str, Any]:
    """An entry of the account log."""
    contract = market_id(row.symbol).lower() if row.symbol else None
    info = LOG_INFOS[row.kind]
    if row.fill is not None and row.fill.cause == "liquidation":
        info = "futures liquidation"
    return {
        "id": 700_000 + row.number, "date": iso(row.at), "asset": row.asset.lower(), "info": info,
        "booking_uid": f"b-{row.number}", "margin_account": "flex", "old_balance": float(row.balance - row.amount),
        "new_balance": float(row.balance), "contract": contract, "realized_pnl": float(row.profit),
        "fee": float(row.fee), "realized_funding": float(row.amount) if row.kind == "funding" else None,
        "trade_price": float(row.fill.price) if row.fill else None, "execution": row.fill.id if row.fill else None,
    }  # fmt: skip


def open_row(order: Placed, at: datetime) -> dict[str, Any]:
    trigger = order.trigger_price
    row: dict[str, Any] = {
        "order_id": order.id, "symbol": market_id(order.symbol), "side": order.side,
        "orderType": "lmt" if trigger is None else "take_profit" if _profits(order) else "stop",
        "unfilledSize": float(order.amount - order.filled), "filledSize": float(order.filled),
        "receivedTime": iso(at), "lastUpdateTime": iso(at), "reduceOnly": order.reduce_only,
        "status": "partiallyFilled" if order.filled else "untouched",
    }  # fmt: skip
    if order.price is not None:
        row["limitPrice"] = float(order.price)
    if trigger is not None:
        row |= {"stopPrice": float(trigger), "triggerSignal": "mark"}
    return row | ({"cliOrdId": order.name} if order.name is not None else {})


def _profits(order: Placed) -> bool:
    return (order.side == "sell") is (order.trigger_when == "rises")


def _order(order: Placed, at: datetime, filled: Decimal) -> dict[str, Any]:
    return {
        "orderId": order.id, "cliOrdId": order.name, "type": KINDS[order.type] if not order.ioc else "ioc",
        "symbol": market_id(order.symbol), "side": order.side, "quantity": float(order.amount),
        "filled": float(filled), "limitPrice": float(order.price) if order.price is not None else None,
        "reduceOnly": order.reduce_only, "timestamp": iso(at), "lastUpdateTimestamp": iso(at),
    }  # fmt: skip


def event_rows(order: Placed, exchange: Exchange, at: datetime) -> dict[str, Any]:
    """The events of an order in `sendorder`: placed, executed, or a taker order without a match."""
    head = {"order_id": order.id, "receivedTime": iso(at)}
    if order.name is not None:
        head["cliOrdId"] = order.name
    if order.waits:
        trigger = {
            "uid": order.id, "clientId": order.name, "type": "take_profit" if _profits(order) else "stop",
            "symbol": market_id(order.symbol), "side": order.side, "quantity": float(order.amount),
            "limitPrice": float(order.price) if order.price is not None else None,
            "triggerPrice": float(order.trigger_price or 0), "triggerSide": "trigger_below"
            if order.trigger_when == "falls" else "trigger_above", "triggerSignal": "mark_price",
            "reduceOnly": order.reduce_only, "timestamp": iso(at), "lastUpdateTimestamp": iso(at),
        }  # fmt: skip
        return head | {"status": "placed", "orderEvents": [{"type": "PLACE", "orderTrigger": trigger}]}
    events: list[dict[str, Any]] = []
    before = Decimal(0)
    for fill in exchange.fills:
        if fill.order == order.id:
            events.append(
                {
                    "type": "EXECUTION", "executionId": fill.id, "price": float(fill.price),
                    "amount": float(fill.amount), "orderPriorEdit": None,
                    "orderPriorExecution": _order(order, at, before), "takerReducedQuantity": None,
                }
            )  # fmt: skip
            before += fill.amount
    if order.state == "expired" and not events:
        refused = {"type": "REJECT", "reason": "IOC_WOULD_NOT_EXECUTE", "order": _order(order, at, Decimal(0))}
        return head | {"status": "iocWouldNotExecute", "orderEvents": [refused]}
    if order.state == "expired":
        events.append({"type": "CANCEL", "uid": order.id, "order": _order(order, at, order.filled)})
    elif not events:
        events.append({"type": "PLACE", "order": _order(order, at, Decimal(0)), "reducedQuantity": None})
    return head | {"status": "placed", "orderEvents": events}


def status_row(order: Placed, at: datetime) -> dict[str, Any]:
    row = _order(order, at, order.filled) | {"type": "TRIGGER_ORDER" if order.waits else "ORDER"}
    if order.waits:
        row["priceTriggerOptions"] = {"triggerPrice": float(order.trigger_price or 0), "triggerSignal": "MARK_PRICE"}
    status = "TRIGGER_PLACED" if order.waits else STATUS[order.state]
    return {"order": row, "status": status, "updateReason": None, "error": None}


def fill_row(fill: Fill, name: str | None) -> dict[str, Any]:
    cause = {"trade": "taker", "liquidation": "liquidation", "adl": "unwindCounterparty", "delivery": "takerAfterEdit"}
    row = {
        "fill_id": fill.id, "symbol": market_id(fill.symbol), "side": fill.side, "order_id": fill.order,
        "size": float(fill.amount), "price": float(fill.price), "fillTime": iso(fill.at),
        "fillType": cause[fill.cause],
    }  # fmt: skip
    return row | ({"cliOrdId": name} if name is not None else {})


def history_rows(exchange: Exchange, now: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """The events of orders, newest first."""
    rows = []
    for order in list(exchange.orders.values())[::-1]:
        inner = {
            "uid": order.id, "accountUid": "f7d5571c", "tradeable": market_id(order.symbol), "timestamp": now,
            "direction": order.side.capitalize(), "quantity": str(order.amount), "filled": str(order.filled),
            "limitPrice": str(order.price or 0), "orderType": "Limit" if order.price else "Market",
            "clientId": order.name or "", "reduceOnly": order.reduce_only, "lastUpdateTimestamp": now,
        }  # fmt: skip
        if order.state in ("canceled", "expired"):
            event: dict[str, Any] = {"OrderCancelled": {"order": inner, "reason": "cancelled_by_user"}}
        elif order.state == "filled":
            event = {"OrderUpdated": {"newOrder": inner, "oldOrder": inner, "reason": "full_fill"}}
        else:
            event = {"OrderPlaced": {"order": inner, "reason": "new_user_order", "reducedQuantity": ""}}
        rows.append({"uid": f"e{order.id}", "timestamp": now, "event": event})
    return {"accountUid": "f7d5571c", "len": len(rows), "elements": rows[: int(params.get("count", 1000))]}
