"""Rows of MEXC's contract API, as in its documents: codes for sides and states, times in milliseconds."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any, Final

from killswitch.model.snapshot import Fill
from tests.faults.exchange import FEE, Exchange, Key, Market, Placed
from tests.wire.ledger import Book, Row

STATES: Final = {"open": 2, "filled": 3, "canceled": 4, "expired": 4, "rejected": 5}
MARKETS: Final = {"open": 0, "halted": 4, "cancel_only": 4, "delisted": 3}
"""`state` of a contract. For makers only, limit orders only and reducing only MEXC has none."""
LEVERAGE: Final = 20


@cache
def market_id(symbol: str) -> str:
    """`BTC/USDT:USDT` and `BTC` → `BTC_USDT`."""
    base, _, quote = symbol.partition(":")[0].partition("/")
    return f"{base}_{quote or 'USDT'}"


def order_id(own: str) -> str:
    """The exchange's `x12`, which is the venue's id too."""
    return own


def whole(amount: Decimal) -> int | float:
    """An amount in MEXC's JSON format: 10, not 10.0."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def side_code(order: Placed) -> int:
    """1 opens a long, 2 closes a short, 3 opens a short, 4 closes a long."""
    closes = (order.side == "sell") is (order.key[1] == "long")
    if order.side == "buy":
        return 2 if closes else 1
    return 4 if closes else 3


def detail_row(market: Market, size: Decimal) -> dict[str, Any]:
    base, _, rest = market.symbol.partition("/")
    quote, _, settle = (rest or "USDT:USDT").partition(":")
    step = market.step or Decimal("0.001")
    return {
        "symbol": market_id(market.symbol), "displayName": f"{base}_{quote}", "baseCoin": base, "quoteCoin": quote,
        "settleCoin": settle, "contractSize": float(size), "minLeverage": 1, "maxLeverage": 125,
        "priceScale": 2, "volScale": max(0, -int(step.normalize().as_tuple().exponent)), "amountScale": 4,
        "priceUnit": 0.01, "volUnit": float(step),
        "minVol": float(market.minimum), "maxVol": float(market.maximum or 1_000_000),
        "bidLimitPriceRate": 0.1, "askLimitPriceRate": 0.1, "takerFeeRate": 0.0006, "makerFeeRate": 0.0002,
        "maintenanceMarginRate": 0.004, "initialMarginRate": 0.008, "state": MARKETS[market.state],
        "isNew": False, "isHot": True, "isHidden": False, "apiAllowed": True,
    }  # fmt: skip


def ticker_row(market: Market, now: int) -> dict[str, Any]:
    return {
        "contractId": 1, "symbol": market_id(market.symbol), "lastPrice": float(market.last_price),
        "bid1": float(market.taken_at("sell")), "ask1": float(market.taken_at("buy")), "volume24": 1_000_000,
        "amount24": 1e8, "holdVol": 5000, "lower24Price": float(market.price), "high24Price": float(market.price),
        "riseFallRate": 0.0, "riseFallValue": 0.0, "indexPrice": float(market.index_price),
        "fairPrice": float(market.price), "fundingRate": 0.0001, "timestamp": now,
    }  # fmt: skip


def asset_row(book: Book) -> dict[str, Any]:
    """`cashBalance` is without unrealised profit, `equity` with it."""
    margin, profit, equity = book.gross / LEVERAGE, book.unrealized_in("USDT"), book.equity_in("USDT")
    return {
        "currency": "USDT", "positionMargin": float(margin), "availableBalance": float(equity - margin),
        "cashBalance": float(equity - profit), "frozenBalance": 0.0, "equity": float(equity),
        "unrealized": float(profit), "bonus": 0.0,
    }  # fmt: skip


def position_row(key: Key, book: Book, exchange: Exchange, now: int) -> dict[str, Any]:
    """No notional and no mark price, as in the real one. Flat if nothing is held."""
    lot = book.lots.get(key)
    amount, entry = (lot.amount, float(lot.entry)) if lot else (Decimal(0), 0.0)
    frozen = sum(
        (
            it.amount - it.filled
            for it in exchange.orders.values()
            if it.state == "open" and it.key == key and it.reduce_only and not it.waits
        ),
        Decimal(0),
    )
    return {
        "positionId": 1394650 + sorted(exchange.held).index(key), "symbol": market_id(key[0]),
        "positionType": 1 if key[1] == "long" else 2, "openType": 2, "state": 1, "holdVol": whole(amount),
        "frozenVol": float(frozen), "closeVol": 0, "holdAvgPrice": entry, "openAvgPrice": entry, "closeAvgPrice": 0,
        "liquidatePrice": 0, "oim": 1.0, "im": 1.0, "holdFee": 0, "realised": 0, "leverage": LEVERAGE,
        "createTime": now, "updateTime": now, "autoAddIm": False,
    }  # fmt: skip


def order_row(order: Placed, now: int, hedge: bool, size: Decimal = Decimal(1)) -> dict[str, Any]:
    """`orderType`: 1 limit, 3 immediate or cancel, 5 market."""
    return {
        "orderId": order.id, "symbol": market_id(order.symbol), "positionId": 0, "price": float(order.price or 0),
        "vol": whole(order.amount), "leverage": LEVERAGE, "side": side_code(order), "category": 1,
        "orderType": 5 if order.type == "market" else 3 if order.ioc else 1,
        "dealAvgPrice": float(order.paid / order.filled) if order.filled else 0, "dealVol": whole(order.filled),
        "orderMargin": 0, "takerFee": float(order.paid * size * FEE), "makerFee": 0, "profit": 0,
        "feeCurrency": "USDT", "openType": 2,
        "state": STATES[order.state], "externalOid": order.name or f"_m_{order.id}", "errorCode": 0,
        "usedMargin": 0, "createTime": now, "updateTime": now, "positionMode": 1 if hedge else 2,
        "reduceOnly": order.reduce_only and not hedge,
    }  # fmt: skip


def plan_row(order: Placed, now: int, hedge: bool) -> dict[str, Any]:
    """`triggerType`: 1 when it rises to the price, 2 when it falls to it. `trend` 2: by the fair price."""
    return {
        "id": order.id, "symbol": market_id(order.symbol), "leverage": LEVERAGE, "side": side_code(order),
        "triggerPrice": float(order.trigger_price or 0), "price": float(order.price or 0), "vol": float(order.amount),
        "openType": 2, "triggerType": 2 if order.trigger_when == "falls" else 1, "state": 1, "executeCycle": 2,
        "trend": 2, "orderType": 5 if order.type == "market" else 1, "errorCode": 0, "createTime": now,
        "updateTime": now, "positionMode": 1 if hedge else 2,
    }  # fmt: skip


def stop_row(order: Placed, now: int, hedge: bool) -> dict[str, Any]:
    """A stop attached to a position: it contains the position's side, and never that it closes."""
    protects = (order.side == "sell") is (order.trigger_when == "falls")
    price = float(order.trigger_price or 0)
    return {
        "id": order.id, "orderId": "0", "symbol": market_id(order.symbol), "positionId": "1394650",
        "stopLossPrice": price if protects else 0, "takeProfitPrice": 0 if protects else price, "state": 1,
        "triggerSide": 0, "positionType": 1 if order.key[1] == "long" else 2, "vol": float(order.amount),
        "realityVol": 0, "placeOrderId": "", "errorCode": 0, "version": 1, "isFinished": 0, "createTime": now,
        "updateTime": now,
    }  # fmt: skip


def deal_row(fill: Fill, order: Placed | None, fee: Decimal, profit: Decimal) -> dict[str, Any]:
    """`fee`: the venue's own; the exchange behind it trades contracts of one unit, and charges for these."""
    closes = (fill.side == "sell") is (fill.position_side == "long")
    code = (2 if closes else 1) if fill.side == "buy" else (4 if closes else 3)
    return {
        "id": fill.id, "symbol": market_id(fill.symbol), "side": code, "vol": float(fill.amount),
        "price": float(fill.price), "fee": float(fee), "feeCurrency": "USDT", "profit": float(profit),
        "isTaker": True, "category": 2 if fill.cause == "liquidation" else 4 if fill.cause == "adl" else 1,
        "orderId": fill.order, "externalOid": None if order is None else order.name,
        "timestamp": int(fill.at.timestamp() * 1000), "positionMode": 1,
    }  # fmt: skip


def transfer_row(row: Row) -> dict[str, Any]:
    """Money moved into the futures wallet, or out of it."""
    return {
        "id": row.number, "txid": f"m{row.number}", "currency": row.asset, "amount": float(abs(row.amount)),
        "type": "IN" if row.amount > 0 else "OUT", "state": "SUCCESS", "createTime": row.at_ms,
        "updateTime": row.at_ms,
    }  # fmt: skip


def funding_row(row: Row) -> dict[str, Any]:
    """Funding paid or received for a position."""
    return {
        "id": row.number, "symbol": market_id(row.symbol or "BTC/USDT:USDT"), "positionType": 1, "positionValue": 1000,
        "funding": float(row.amount), "rate": 0.0001, "settleTime": row.at_ms,
    }  # fmt: skip
