"""Bybit's payloads: ids, statuses and rows of its v5 answers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from killswitch.model.snapshot import Fill
from tests.faults.exchange import ZERO, Exchange, Key, Market, Placed
from tests.wire.ledger import Book, Row, RowKind
from tests.wire.server import SECRET

LEVERAGE = Decimal(5)
MAINTENANCE = Decimal("0.005")
EXEC_TYPES = {"trade": "Trade", "liquidation": "BustTrade", "adl": "AdlTrade", "delivery": "Delivery"}


class Listing(Struct, frozen=True):
    """A symbol of the exchange as Bybit lists it."""

    symbol: str
    id: str
    base: str
    quote: str
    settle: str
    category: str


@cache
def listing(symbol: str) -> Listing:
    """`BTC/USDT:USDT`, `BTC/USDC:USDC`, `BTC/USD:BTC`, `BTC/USDT` (spot), or a bare `A` for the swap of A in USDT."""
    pair, _, settle = symbol.partition(":")
    base, _, quote = pair.partition("/")
    if not quote:
        return Listing(symbol, f"{base}USDT", base, "USDT", "USDT", "linear")
    if not settle:
        return Listing(symbol, base + quote, base, quote, "", "spot")
    name = f"{base}PERP" if settle == "USDC" else base + quote
    return Listing(symbol, name, base, quote, settle, "inverse" if settle == base else "linear")


@cache
def listed(symbols: tuple[str, ...]) -> Mapping[str, Listing]:
    """By Bybit's id."""
    return MappingProxyType({it.id: it for it in map(listing, symbols)})


def order_id(own: str) -> str:
    """The exchange's `x12` as Bybit writes ids of orders."""
    return f"00000000-0000-4000-8000-{int(own[1:]):012d}"


def own_id(order: str) -> str:
    """The exchange's id of an order; a foreign id gives one that the exchange does not have."""
    return f"x{int(order.rsplit('-', 1)[-1])}" if order.startswith("00000000-") else "none"


def instrument(of: Listing, market: Market) -> dict[str, object]:
    """A row of `market/instruments-info`."""
    step = str(market.step or Decimal("0.001"))
    row: dict[str, object] = {
        "symbol": of.id,
        "status": "Closed" if market.state == "delisted" else "Trading",
        "baseCoin": of.base,
        "quoteCoin": of.quote,
        "priceFilter": {"tickSize": "0.01", "minPrice": "0.01", "maxPrice": "1999999.98"},
    }
    most = str(market.maximum or Decimal(1_000_000))
    if of.category == "spot":
        return row | {
            "marginTrading": "none",
            "lotSizeFilter": {
                "basePrecision": step, "quotePrecision": "0.0000001", "minOrderQty": str(market.minimum),
                "maxOrderQty": most, "minOrderAmt": "1", "maxOrderAmt": "8000000",
            },
        }  # fmt: skip
    return row | {
        "contractType": "InversePerpetual" if of.category == "inverse" else "LinearPerpetual",
        "launchTime": "1585526400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": "2",
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": "0.01", "maxPrice": "1999999.98", "tickSize": "0.01"},
        "lotSizeFilter": {
            "maxOrderQty": most, "maxMktOrderQty": most, "minOrderQty": str(market.minimum),
            "qtyStep": step, "postOnlyMaxOrderQty": most, "minNotionalValue": "0",
        },
        "settleCoin": of.settle,
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"},
    }  # fmt: skip


def ticker(of: Listing, market: Market) -> dict[str, object]:
    """A row of `market/tickers`."""
    price = str(market.price)
    return {
        "symbol": of.id, "lastPrice": str(market.last_price), "markPrice": price,
        "indexPrice": str(market.index_price),
        "bid1Price": str(market.taken_at("sell")), "bid1Size": "10", "ask1Price": str(market.taken_at("buy")),
        "ask1Size": "10", "volume24h": "1000", "turnover24h": "100000", "usdIndexPrice": price,
    }  # fmt: skip


def position(of: Listing, exchange: Exchange, book: Book, key: Key, at: int) -> dict[str, object]:
    """A row of `position/list`; a flat one has no side."""
    lot, mark = book.lots.get(key), str(book.marks[key[0]])
    amount, value = (lot.amount, book.notional(key)) if lot else (ZERO, ZERO)
    index = 0 if exchange.mode != "hedge" else 1 if key[1] == "long" else 2
    side = "" if lot is None and index == 0 else "Buy" if key[1] == "long" else "Sell"
    return {
        "positionIdx": index, "riskId": 1, "riskLimitValue": "150", "symbol": of.id, "side": side,
        "size": str(amount), "avgPrice": str(lot.entry if lot else ZERO), "positionValue": str(value if lot else ""),
        "tradeMode": 0, "positionStatus": "Normal", "autoAddMargin": 0, "adlRankIndicator": 2 if lot else 0,
        "leverage": str(LEVERAGE), "positionBalance": "0", "markPrice": mark, "liqPrice": "", "bustPrice": "",
        "positionMM": str(value * MAINTENANCE), "positionIM": str(value / LEVERAGE), "tpslMode": "Full",
        "takeProfit": "", "stopLoss": "", "trailingStop": "0", "sessionAvgPrice": "",
        "unrealisedPnl": str(book.unrealized(key) if lot else ""),
        "curRealisedPnl": "0", "cumRealisedPnl": "0", "seq": 5723621632, "isReduceOnly": False,
        "mmrSysUpdatedTime": "", "leverageSysUpdatedTime": "", "createdTime": "1676538056258", "updatedTime": str(at),
    }  # fmt: skip


def sum_text(money: Decimal) -> str:
    """A sum as text; one that cannot be computed is empty."""
    return str(money) if money.is_finite() else ""


def _status(order: Placed) -> str:
    if order.waits:
        return "Untriggered"
    if order.state == "open":
        return "PartiallyFilled" if order.filled else "New"
    return {"filled": "Filled", "canceled": "Cancelled", "expired": "Cancelled", "rejected": "Rejected"}[order.state]


def order_row(of: Listing, exchange: Exchange, order: Placed, at: int) -> dict[str, object]:
    """A row of `order/realtime` and `order/history`."""
    index = 0 if exchange.mode != "hedge" else 1 if order.key[1] == "long" else 2
    row: dict[str, object] = {
        "orderId": order_id(order.id), "orderLinkId": order.name or "", "blockTradeId": "", "symbol": of.id,
        "price": str(order.price or 0), "qty": str(order.amount), "side": order.side.capitalize(), "isLeverage": "",
        "positionIdx": index, "orderStatus": _status(order), "cancelType": "UNKNOWN", "rejectReason": "EC_NoError",
        "avgPrice": sum_text(order.paid / order.filled) if order.filled else "", "cumExecQty": str(order.filled),
        "leavesQty": str(order.amount - order.filled if order.state == "open" else ZERO), "leavesValue": "0",
        "cumExecValue": sum_text(order.paid), "cumExecFee": sum_text(order.paid * Decimal("0.0005")),
        "cumFeeDetail": {of.settle or of.quote: sum_text(order.paid * Decimal("0.0005"))} if order.filled else {},
        "timeInForce": "IOC" if order.ioc or order.type == "market" else "GTC", "orderType": order.type.capitalize(),
        "stopOrderType": "Stop" if order.trigger_price else "", "orderIv": "",
        "triggerPrice": str(order.trigger_price or ""), "takeProfit": "", "stopLoss": "",
        "triggerDirection": {"rises": 1, "falls": 2, None: 0}[order.trigger_when], "triggerBy": "LastPrice",
        "lastPriceOnCreated": "", "reduceOnly": order.reduce_only, "closeOnTrigger": False, "smpType": "None",
        "placeType": "", "createType": "CreateByUser", "createdTime": str(at), "updatedTime": str(at),
    }  # fmt: skip
    return row if of.category == "spot" else row | {"tpslMode": ""}


def execution(of: Listing, exchange: Exchange, fill: Fill, profit: Decimal) -> dict[str, object]:
    """A row of `execution/list`."""
    assert fill.order is not None
    placed = exchange.orders.get(fill.order)
    closed = fill.amount if (fill.side == "sell") is (fill.position_side == "long") else 0
    return {
        "symbol": of.id, "orderId": order_id(fill.order), "orderLinkId": (placed.name if placed else None) or "",
        "side": fill.side.capitalize(), "orderPrice": str(fill.price), "orderQty": str(fill.amount), "leavesQty": "0",
        "createType": "CreateByUser", "orderType": "Market", "stopOrderType": "UNKNOWN", "execFee": str(fill.fee),
        "execId": fill.id, "execPrice": str(fill.price), "execQty": str(fill.amount),
        "execType": EXEC_TYPES[fill.cause], "execValue": str(fill.price * fill.amount),
        "execTime": str(int(fill.at.timestamp() * 1000)), "feeCurrency": "", "isMaker": False, "feeRate": "0.0005",
        "tradeIv": "", "markIv": "", "markPrice": str(fill.price), "indexPrice": "", "underlyingPrice": "",
        "blockTradeId": "", "closedSize": str(closed), "seq": 4688002127, "execPnl": str(profit),
    }  # fmt: skip


def key_info(at: int) -> dict[str, object]:
    """`user/query-api` of a key that may trade, is bound to an address, and is not about to expire."""
    return {
        "id": "13770661", "note": "switch", "apiKey": "KEY-PLANTED", "readOnly": 0, "secret": "",
        "permissions": {
            "ContractTrade": ["Order", "Position"], "Spot": ["SpotTrade"], "Wallet": [], "Options": ["OptionsTrade"],
            "Derivatives": ["DerivativesTrade"], "CopyTrading": [], "BlockTrade": [], "Exchange": [], "NFT": [],
        },
        "ips": ["192.0.2.7"], "type": 1, "deadlineDay": -2, "expiredAt": "1970-01-01T00:00:00Z",
        "createdAt": "2022-10-16T02:24:40Z", "unified": 0, "uta": 1, "userID": 24600000, "parentUid": "0",
        "inviterID": 0, "vipLevel": "No VIP", "mktMakerLevel": "0", "affiliateID": 0, "rsaPublicKey": "",
        "isMaster": True,
    }  # fmt: skip


LOG_TYPES: Final[Mapping[RowKind, tuple[str, str]]] = {
    "trade": ("TRADE", "TRADE"), "deposit": ("TRANSFER_OUT", "TRANSFER_IN"),
    "withdrawal": ("TRANSFER_OUT", "TRANSFER_IN"), "transfer": ("TRANSFER_OUT", "TRANSFER_IN"),
    "funding": ("SETTLEMENT", "SETTLEMENT"), "insurance": ("INSURANCE_FUND", "INSURANCE_FUND"),
    "rebate": ("BONUS", "BONUS"),
}  # fmt: skip
"""Kind of a change of a wallet → `type` of what went, and of what came."""


def log_row(row: Row) -> dict[str, object]:
    """A row of `account/transaction-log`. `fee` is + for what was paid, `funding` + for what was received."""
    of, fill = (listing(row.symbol) if row.symbol else None), row.fill
    kind = LOG_TYPES[row.kind][row.amount > ZERO]
    if fill is not None:
        kind = {"liquidation": "LIQUIDATION", "adl": "ADL", "delivery": "DELIVERY"}.get(fill.cause, kind)
    return {
        "id": f"l-{row.number}", "symbol": of.id if of else "", "category": of.category if of else "",
        "side": fill.side.capitalize() if fill else "None", "transactionTime": str(row.at_ms), "type": kind,
        "transSubType": "", "qty": str(fill.amount if fill else ZERO), "size": "", "currency": row.asset,
        "tradePrice": str(fill.price) if fill else "", "funding": str(row.amount) if row.kind == "funding" else "",
        "fee": str(row.fee), "cashFlow": str(row.profit if fill else row.amount), "change": str(row.amount),
        "cashBalance": str(row.balance), "feeRate": "", "bonusChange": "", "tradeId": fill.id if fill else "",
        "orderId": order_id(fill.order) if fill and fill.order else "", "orderLinkId": "",
    }  # fmt: skip


def wallet(book: Book) -> dict[str, object]:
    """The row of `account/wallet-balance`: totals in dollars, coins in units of the coin."""
    # The venue values with prices of its own: a price that it reports as NaN leaves its totals as they are.
    margin = ZERO if book.spot else book.gross / LEVERAGE
    coins = [
        _coin(
            asset, book.wallets.get(asset, ZERO), book.unrealized_in(asset), book.price(asset),
            margin if asset == book.currency else ZERO,
        )
        for asset in book.assets
    ]  # fmt: skip
    if book.spot:
        own = book.price(book.currency)
        held = ((listing(symbol).base, lot.amount, book.marks[symbol]) for (symbol, _), lot in book.lots.items())
        coins += [_coin(asset, amount, ZERO, mark * own) for asset, amount, mark in held]
    total, profit = book.total, book.unrealized_total
    return {
        "totalEquity": str(total), "accountIMRate": "0", "totalMarginBalance": str(total), "accountMMRate": "0",
        "totalInitialMargin": str(margin), "accountType": "UNIFIED", "totalAvailableBalance": str(total - margin),
        "totalPerpUPL": str(profit), "totalWalletBalance": str(total - profit), "accountLTV": "0",
        "totalMaintenanceMargin": str(margin * MAINTENANCE * LEVERAGE), "coin": coins,
    }  # fmt: skip


def _coin(name: str, wallet: Decimal, profit: Decimal, price: Decimal, margin: Decimal = ZERO) -> dict[str, object]:
    equity = wallet + profit
    return {
        "availableToBorrow": "", "bonus": "0", "accruedInterest": "0", "availableToWithdraw": "", "coin": name,
        "totalOrderIM": "0", "equity": str(equity), "totalPositionMM": "0", "usdValue": str(equity * price),
        "unrealisedPnl": str(profit), "borrowAmount": "0", "totalPositionIM": str(margin), "walletBalance": str(wallet),
        "cumRealisedPnl": "0", "locked": "0", "collateralSwitch": True, "marginCollateral": True,
        "spotBorrow": "0", "spotHedgingQty": "0",
    }  # fmt: skip


def signed(what: str) -> str:
    """The signature by Bybit's document: HMAC-SHA256 in hex."""
    return hmac.new(SECRET.encode(), what.encode(), hashlib.sha256).hexdigest()
