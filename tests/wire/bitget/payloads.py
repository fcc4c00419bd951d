"""Bitget's payloads: rows of its v2 answers for USDT futures."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Final

from killswitch.model.snapshot import Fill
from tests.faults.exchange import ZERO, Exchange, Key, Market, Placed
from tests.wire.ledger import Book, Row, RowKind
from tests.wire.server import SECRET

LEVERAGE = Decimal(10)
CLOSED_BY = {"trade": "close", "liquidation": "burst_close", "adl": "reduce_close", "delivery": "delivery_close"}

REJECTIONS: Mapping[str, tuple[str, str]] = {
    "already_flat": ("22002", "No position to close"),
    "below_minimum": ("45110", "less than the minimum amount 5 USDT"),
    "above_maximum": ("45113", "Maximum order value limit triggered"),
    "blocked_by_order": ("40757", "Not enough position is available."),
    "price_band": ("22009", "market price < risk price"),
    "market_closed": ("22004", "This symbol does not support API trade"),
    "insufficient_margin": ("40762", "The order amount exceeds the balance"),
    "duplicate_client_order_id": ("40786", "Duplicate clientOid"),
    "permission": ("40014", "Incorrect permissions, need future trade write permissions"),
    "other": ("40808", "Parameter verification exception size checkBDScale error"),
}
UNILATERAL = "The order type for unilateral position must also be the unilateral position type."
MIX = "/api/v2/mix/"
LIMITS: Mapping[str, tuple[str, int]] = {
    "POST order/place-order": ("place", 10),
    "POST order/batch-place-order": ("batch", 5),
    "POST order/place-plan-order": ("plan", 10),
    "POST order/cancel-order": ("cancel", 10),
    "POST order/cancel-plan-order": ("cancel-plan", 10),
    "POST order/close-positions": ("close", 1),
    "GET order/detail": ("detail", 10),
    "GET order/fills": ("fills", 10),
    "GET order/orders-pending": ("pending", 10),
    "GET order/orders-plan-pending": ("plan-pending", 10),
    "GET order/orders-plan-history": ("plan-history", 10),
    "GET position/all-position": ("position", 5),
    "GET account/accounts": ("accounts", 10),
    "GET account/account": ("account", 10),
    "GET account/bill": ("bill", 10),
}


def base_of(symbol: str) -> str:
    """`BTC/USDT:USDT` and a bare `BTC` are the same swap."""
    return symbol.partition("/")[0]


@cache
def id_of(symbol: str) -> str:
    return f"{base_of(symbol)}USDT"


def order_id(own: str) -> str:
    """The exchange's `x12` in Bitget's format of order ids."""
    return str(1_100_000_000_000_000_000 + int(own[1:]))


def own_id(order: str) -> str:
    """The exchange's id of an order."""
    return f"x{int(order) - 1_100_000_000_000_000_000}"


STATUS: Final[Mapping[str, str]] = {
    "open": "normal", "reduce_only": "limit_open", "halted": "maintain", "cancel_only": "maintain", "delisted": "off",
}  # fmt: skip
"""symbolStatus of a state of ours. For a market that takes limit orders only, or makers only, Bitget has none."""


def contract(symbol: str, market: Market) -> dict[str, object]:
    """A row of `market/contracts`."""
    step = market.step or Decimal("0.001")
    state = STATUS[market.state]
    return {
        "symbol": id_of(symbol), "baseCoin": base_of(symbol), "quoteCoin": "USDT", "buyLimitPriceRatio": "0.9",
        "sellLimitPriceRatio": "0.9", "feeRateUpRatio": "0.1", "makerFeeRate": "0.0002", "takerFeeRate": "0.0006",
        "openCostUpRatio": "0.1", "supportMarginCoins": ["USDT"], "minTradeNum": str(market.minimum),
        "priceEndStep": "1", "volumePlace": str(max(0, -int(step.normalize().as_tuple().exponent))),
        "pricePlace": "2", "sizeMultiplier": str(step), "symbolType": "perpetual", "minTradeUSDT": "0",
        "maxSymbolOrderNum": "200", "maxProductOrderNum": "400", "maxPositionNum": "150", "symbolStatus": state,
        "offTime": "-1", "limitOpenTime": "-1", "deliveryTime": "", "launchTime": "", "fundInterval": "8",
        "minLever": "1", "maxLever": "125", "posLimit": "0.05", "maintainTime": "",
        "maxMarketOrderQty": str(market.maximum or 1_000_000), "maxOrderQty": str(market.maximum or 1_000_000),
    }  # fmt: skip


def ticker(symbol: str, market: Market, at: int) -> dict[str, object]:
    """A row of `market/tickers`."""
    price = str(market.price)
    return {
        "symbol": id_of(symbol), "lastPr": str(market.last_price), "askPr": str(market.taken_at("buy")), "askSz": "10",
        "bidPr": str(market.taken_at("sell")), "bidSz": "10", "indexPrice": str(market.index_price),
        "markPrice": price, "ts": str(at),
        "baseVolume": "1000", "quoteVolume": "100000",
    }  # fmt: skip


def position(exchange: Exchange, book: Book, key: Key) -> dict[str, object]:
    """A row of `position/all-position`. `locked`: the amount that resting closing orders cover."""
    amount, entry, price = book.lots[key].amount, book.lots[key].entry, book.marks[key[0]]
    covering = (it for it in exchange.orders.values() if it.state == "open" and it.key == key and it.reduce_only)
    locked = min(amount, sum((it.amount - it.filled for it in covering if not it.waits), ZERO))
    return {
        "marginCoin": "USDT", "symbol": id_of(key[0]), "holdSide": key[1], "openDelegateSize": "0",
        "marginSize": str(amount * price / LEVERAGE), "available": str(amount - locked), "locked": str(locked),
        "total": str(amount), "leverage": str(LEVERAGE), "achievedProfits": "0", "openPriceAvg": str(entry),
        "marginMode": "crossed", "posMode": "hedge_mode" if exchange.mode == "hedge" else "one_way_mode",
        "unrealizedPL": str(book.unrealized(key)), "liquidationPrice": "0", "keepMarginRate": "0.004",
        "markPrice": str(price),
        "marginRatio": "0.01", "cTime": "1700807507275", "uTime": "1700807507275", "autoMargin": "off",
    }  # fmt: skip


def order(exchange: Exchange, placed: Placed, at: int) -> dict[str, object]:
    """A row of `orders-pending` and `order/detail`. In hedge mode `side` is that of the position's opening."""
    hedged = exchange.mode == "hedge"
    closes = placed.reduce_only or placed.by == "sweep"
    opening = "buy" if placed.key[1] == "long" else "sell"
    if placed.state == "open":
        state = "partially_filled" if placed.filled else "live"
    else:
        state = "filled" if placed.state == "filled" else "canceled"
    return {
        "symbol": id_of(placed.symbol), "size": str(placed.amount), "orderId": order_id(placed.id),
        "clientOid": placed.name or "", "baseVolume": str(placed.filled), "fee": str(-placed.paid * Decimal("0.0005")),
        "price": str(placed.price or ""), "priceAvg": str(placed.paid / placed.filled) if placed.filled else "",
        "status": state, "state": state, "side": opening if hedged else placed.side,
        "force": "ioc" if placed.ioc or placed.type == "market" else "gtc", "totalProfits": "0",
        "posSide": placed.key[1] if hedged else "net", "marginCoin": "USDT", "quoteVolume": str(placed.paid),
        "leverage": str(LEVERAGE), "marginMode": "crossed", "enterPointSource": "API", "marginCoinMode": "",
        "tradeSide": ("close" if closes else "open") if hedged else f"{placed.side}_single",
        "posMode": "hedge_mode" if hedged else "one_way_mode", "orderType": placed.type, "orderSource": "normal",
        "presetStopSurplusPrice": "", "presetStopLossPrice": "", "reduceOnly": "YES" if closes and not hedged else "NO",
        "cTime": str(at), "uTime": str(at),
    }  # fmt: skip


def plan(exchange: Exchange, placed: Placed, at: int) -> dict[str, object]:
    """A row of `orders-plan-pending`."""
    row = order(exchange, placed, at)
    for name in ("baseVolume", "status", "state", "priceAvg", "fee", "force", "quoteVolume", "totalProfits"):
        del row[name]
    return row | {
        "planType": "normal_plan", "callbackRatio": "", "triggerPrice": str(placed.trigger_price),
        "triggerType": "mark_price", "planStatus": "live", "stopSurplusTriggerPrice": "",
        "stopSurplusExecutePrice": "", "stopLossTriggerPrice": "", "stopLossExecutePrice": "",
    }  # fmt: skip


def fill(exchange: Exchange, row: Fill, profit: Decimal) -> dict[str, object]:
    """A row of `order/fills`."""
    assert row.order is not None
    hedged = exchange.mode == "hedge"
    placed = exchange.orders.get(row.order)
    closes = (row.side == "sell") is (row.position_side == "long")
    opening = "buy" if row.position_side == "long" else "sell"
    side = f"{row.side}_single"
    if hedged:
        side = CLOSED_BY[row.cause] if closes else "open"
    if row.cause != "trade":
        side = f"{CLOSED_BY[row.cause]}_{row.position_side}" if hedged else f"{CLOSED_BY[row.cause][:5]}_{row.side}"
    fee = {"deduction": "no", "feeCoin": "USDT", "totalDeductionFee": "0", "totalFee": str(-(row.fee or ZERO))}
    return {
        "tradeId": row.id, "symbol": id_of(row.symbol), "orderId": order_id(row.order), "price": str(row.price),
        "baseVolume": str(row.amount), "side": opening if hedged else row.side,
        "quoteVolume": str(row.price * row.amount), "feeDetail": [fee],
        "profit": str(profit), "enterPointSource": "api", "tradeSide": side, "tradeScope": "taker",
        "posMode": "hedge_mode" if hedged else "one_way_mode", "cTime": str(int(row.at.timestamp() * 1000)),
        "clientOid": (placed.name if placed else None) or "",
    }  # fmt: skip


BILLS: Final[Mapping[RowKind, tuple[str, str]]] = {
    "deposit": ("withdraw", "deposit"), "withdrawal": ("withdraw", "deposit"),
    "transfer": ("trans_to_exchange", "trans_from_exchange"),
    "funding": ("contract_settle_fee", "contract_settle_fee"),
    "insurance": ("risk_captital_user_transfer", "risk_captital_user_transfer"),
    "rebate": ("bonus_recycle", "bonus_issue"),
}  # fmt: skip
"""Kind of a change of the wallet → `businessType` of what went, and of what came."""


def bill(row: Row) -> dict[str, object]:
    """A row of `account/bill`: `amount` is without the fee of the trade."""
    fill = row.fill
    if fill is None:
        kind = BILLS[row.kind][row.amount > ZERO]
    elif fill.cause == "trade":
        kind = fill.side
    else:
        causes = {"liquidation": "burst", "adl": "adl", "delivery": "delivery"}
        short = "sell" if fill.side == "sell" else "buy"
        kind = f"adl_{short}_in_single_side_mode" if fill.cause == "adl" else f"{causes[fill.cause]}_{short}"
    return {
        "billId": f"12{row.number:0>9}", "symbol": id_of(row.symbol) if row.symbol else "",
        "amount": str(row.profit if fill else row.amount), "fee": str(-row.fee), "feeByCoupon": "",
        "businessType": kind, "coin": row.asset, "balance": str(row.balance), "cTime": str(row.at_ms),
    }  # fmt: skip


def signed(what: str) -> str:
    """The signature by Bitget's document: HMAC-SHA256 in base64."""
    return base64.b64encode(hmac.new(SECRET.encode(), what.encode(), hashlib.sha256).digest()).decode()
