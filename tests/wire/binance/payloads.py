"""Payloads of Binance's USD-M futures: ids, rows, and the codes of refusals."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from killswitch.model.snapshot import Fill
from killswitch.model.venue import OrderRejectedError, RejectReason
from tests.faults.exchange import ZERO, Exchange, Key, Market, Placed
from tests.wire.ledger import Book, Row, RowKind
from tests.wire.server import RefusedError, Reply

if TYPE_CHECKING:
    from tests.wire.binance.venue import BinanceWire

REFUSALS: Final[Mapping[RejectReason, tuple[int, str]]] = {
    "already_flat": (-2022, "ReduceOnly Order is rejected."),
    "below_minimum": (-4004, "Quantity less than min quantity."),
    "above_maximum": (-4005, "Quantity greater than max quantity."),
    "blocked_by_order": (-4118, "ReduceOnly Order Failed. Please check your existing position and open orders"),
    "price_band": (-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit."),
    "market_closed": (-4108, "This symbol is in delivering or delivered or settling or closed or pre-trading."),
    "insufficient_margin": (-2019, "Margin is insufficient."),
    "duplicate_client_order_id": (-4116, "ClientOrderId is duplicated."),
    "permission": (-2015, "Invalid API-key, IP, or permissions for action."),
    "other": (-1111, "Precision is over the maximum defined for this asset."),
}
STATES: Final = {
    "open": "NEW", "filled": "FILLED", "canceled": "CANCELED", "rejected": "REJECTED", "expired": "EXPIRED",
}  # fmt: skip
STATUS: Final = {"halted": "PRE_SETTLE", "delisted": "SETTLING", "cancel_only": "TRADING_CANCEL_ONLY"}
"""What a symbol's status is called; every other state of ours is a `TRADING` one there."""
ALGO_FIRST: Final = 2_000_000
"""Conditional orders are numbered apart from the others."""


def refuse(code: int, text: str, status: int = 400) -> RefusedError:
    """A refusal by the venue."""
    return RefusedError(Reply({"code": code, "msg": text}, status))


def refusal(error: OrderRejectedError, *, reduce_only_regime: bool = False) -> dict[str, Any]:
    """The payload of a refused order."""
    code, text = REFUSALS[error.reason]
    if reduce_only_regime and error.reason == "market_closed":
        code, text = -4400, "Futures Trading Quantitative Rules violated, only reduceOnly order is allowed."
    return {"code": code, "msg": text}


@cache
def market_id(symbol: str) -> str:
    """`BTC/USDT:USDT` and `BTC` are both `BTCUSDT`."""
    base, _, quote = symbol.partition(":")[0].partition("/")
    return base + (quote or "USDT")


def number(order_id: str) -> int:
    """`x12` is 12."""
    return int(order_id[1:])


def ordinary_id(own: str) -> str:
    """The exchange's `x12` as an order that is not conditional is numbered."""
    return str(number(own))


def own_id(order_id: str) -> str:
    """The exchange's id of an order, as the adapter names it: conditional ones begin with `algo-`."""
    bare = order_id.removeprefix("algo-")
    return f"x{int(bare) - (ALGO_FIRST if bare != order_id else 0)}"


def rules(market: Market, min_notional: Decimal) -> dict[str, Any]:
    """One symbol of exchangeInfo."""
    base = market.symbol.partition("/")[0]
    step, most = str(market.step or "0.00000001"), str(market.maximum or 10_000_000)
    lot = {"stepSize": step, "minQty": str(market.minimum), "maxQty": most}
    return {
        "symbol": market_id(market.symbol), "pair": market_id(market.symbol), "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000, "onboardDate": 1569398400000, "status": STATUS.get(market.state, "TRADING"),
        "maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000", "baseAsset": base, "quoteAsset": "USDT",
        "marginAsset": "USDT", "pricePrecision": 2, "quantityPrecision": 3, "baseAssetPrecision": 8,
        "quotePrecision": 8, "underlyingType": "COIN", "underlyingSubType": [], "triggerProtect": "0.0500",
        "liquidationFee": "0.012500", "marketTakeBound": str(market.band or "0.30"),
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "4529764", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": str(min_notional)},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.3000", "multiplierDown": "0.7000",
             "multiplierDecimal": "4"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET",
                       "TRAILING_STOP_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }  # fmt: skip


def position_row(exchange: Exchange, book: Book, key: Key, now: int) -> dict[str, Any]:
    """One row of positionRisk (v3), and of the account, which names the profit differently."""
    mark, lot = book.marks[key[0]], book.lots.get(key)
    amount = (lot.amount if lot else ZERO) * (1 if key[1] == "long" else -1)
    entry, profit = (str(lot.entry), str(book.unrealized(key))) if lot else ("0.0", "0.00000000")
    side = key[1].upper() if exchange.mode == "hedge" else "BOTH"
    margin = book.notional(key) / 5 if lot else ZERO
    return {
        "symbol": market_id(key[0]), "positionSide": side, "positionAmt": str(amount), "entryPrice": entry,
        "breakEvenPrice": entry, "markPrice": str(mark), "unRealizedProfit": profit, "unrealizedProfit": profit,
        "liquidationPrice": "0", "isolatedMargin": "0", "notional": str(amount * mark), "marginAsset": "USDT",
        "isolatedWallet": "0", "initialMargin": str(margin), "maintMargin": str(margin / 10),
        "positionInitialMargin": str(margin), "openOrderInitialMargin": "0", "adl": 2, "bidNotional": "0",
        "askNotional": "0", "updateTime": now,
    }  # fmt: skip


def order_row(exchange: Exchange, order: Placed, now: int) -> dict[str, Any]:
    """An order, as in every answer about it."""
    average = order.paid / order.filled if order.filled else ZERO
    status = "PARTIALLY_FILLED" if order.state == "open" and order.filled else STATES[order.state]
    return {
        "orderId": number(order.id), "symbol": market_id(order.symbol), "status": status,
        "clientOrderId": order.name or f"web_{order.id}", "price": str(order.price or 0), "avgPrice": str(average),
        "origQty": str(order.amount), "executedQty": str(order.filled), "cumQty": str(order.filled),
        "cumQuote": str(order.paid), "timeInForce": "IOC" if order.ioc else "GTC", "type": order.type.upper(),
        "reduceOnly": order.reduce_only, "closePosition": False, "side": order.side.upper(),
        "positionSide": order.key[1].upper() if exchange.mode == "hedge" else "BOTH", "stopPrice": "0",
        "workingType": "CONTRACT_PRICE", "priceProtect": False, "origType": order.type.upper(), "priceMatch": "NONE",
        "selfTradePreventionMode": "EXPIRE_MAKER", "goodTillDate": 0, "time": now, "updateTime": now,
    }  # fmt: skip


def conditional_type(order: Placed) -> str:
    """The type of a conditional order: a stop where the price goes against it, else a take-profit."""
    stop = (order.trigger_when == "falls") is (order.side == "sell")
    return ("STOP" if stop else "TAKE_PROFIT") + ("_MARKET" if order.type == "market" else "")


def algo_row(exchange: Exchange, order: Placed, trigger: Decimal, now: int) -> dict[str, Any]:
    """A conditional order. After its trigger, its state is that of an ordinary order."""
    triggered = order.trigger_price is None
    status = "NEW" if order.state == "open" else STATES[order.state]
    return {
        "algoId": ALGO_FIRST + number(order.id), "clientAlgoId": order.name or f"web_{order.id}",
        "algoType": "CONDITIONAL", "orderType": conditional_type(order), "symbol": market_id(order.symbol),
        "side": order.side.upper(), "positionSide": order.key[1].upper() if exchange.mode == "hedge" else "BOTH",
        "timeInForce": "GTC", "quantity": str(order.amount), "algoStatus": "FINISHED" if triggered else status,
        "actualOrderId": str(number(order.id)) if triggered else "", "triggerPrice": str(trigger),
        "price": str(order.price or 0), "workingType": "MARK_PRICE", "priceMatch": "NONE", "closePosition": False,
        "priceProtect": False, "reduceOnly": order.reduce_only, "createTime": now, "updateTime": now,
        "triggerTime": now if triggered else 0, "goodTillDate": 0,
    }  # fmt: skip


def trade_row(
    exchange: Exchange, fill: Fill, profit: Decimal = ZERO, fees_in: tuple[str, Decimal] | None = None
) -> dict[str, Any]:
    """One row of userTrades. `profit`: its realised profit. `fees_in`: the asset of the fees, and its price."""
    asset, price = (fill.fee_currency, Decimal(1)) if fees_in is None else fees_in
    hedge = exchange.mode == "hedge" and fill.position_side is not None
    return {
        "symbol": market_id(fill.symbol), "id": number(fill.id), "orderId": number(fill.order or "x0"),
        "side": fill.side.upper(), "price": str(fill.price), "qty": str(fill.amount), "realizedPnl": str(profit),
        "marginAsset": "USDT", "quoteQty": str(fill.price * fill.amount), "commission": str((fill.fee or ZERO) / price),
        "commissionAsset": asset, "time": int(fill.at.timestamp() * 1000),
        "positionSide": str(fill.position_side).upper() if hedge else "BOTH", "buyer": fill.side == "buy",
        "maker": False,
    }  # fmt: skip


def forced_row(fill: Fill) -> dict[str, Any]:
    """One row of forceOrders: a liquidation or deleveraging by the venue."""
    return {
        "orderId": number(fill.order or "x0"), "symbol": market_id(fill.symbol), "status": "FILLED",
        "clientOrderId": "autoclose-1" if fill.cause == "liquidation" else "adl_autoclose", "price": "0",
        "avgPrice": str(fill.price), "origQty": str(fill.amount), "executedQty": str(fill.amount),
        "cumQuote": str(fill.amount * fill.price), "timeInForce": "IOC", "type": "LIMIT", "reduceOnly": False,
        "side": fill.side.upper(), "positionSide": "BOTH", "origType": "LIMIT",
        "time": int(fill.at.timestamp() * 1000), "updateTime": int(fill.at.timestamp() * 1000),
    }  # fmt: skip


def account_body(wire: BinanceWire) -> dict[str, Any]:
    """The account (v2 and v3 alike); with several margin assets the totals are in USD, else of USDT alone."""
    book, now = wire.book("equity"), wire.now_ms()
    positions = [position_row(wire.exchange, book, key, now) for key in book.lots]
    used = sum((Decimal(row["initialMargin"]) for row in positions), ZERO)
    if wire.multi_assets:
        equity, profit = book.total, book.unrealized_total
    else:
        equity, profit = book.equity_in("USDT"), book.unrealized_in("USDT")
    return {
        "feeTier": 0, "canTrade": True, "canDeposit": True, "canWithdraw": True, "updateTime": 0,
        "multiAssetsMargin": wire.multi_assets, "tradeGroupId": -1, "totalInitialMargin": str(used),
        "totalMaintMargin": str(used / 10), "totalWalletBalance": str(equity - profit),
        "totalUnrealizedProfit": str(profit), "totalMarginBalance": str(equity),
        "totalPositionInitialMargin": str(used), "totalOpenOrderInitialMargin": "0",
        "totalCrossWalletBalance": str(equity - profit), "totalCrossUnPnl": str(profit),
        "availableBalance": str(equity - used), "maxWithdrawAmount": str(equity - used),
        "assets": [_asset_row(book, asset, used if asset == "USDT" else ZERO, now) for asset in book.assets],
        "positions": positions,
    }  # fmt: skip


def _asset_row(book: Book, asset: str, used: Decimal, now: int) -> dict[str, Any]:
    wallet, profit = book.wallets.get(asset, ZERO), book.unrealized_in(asset)
    margin = wallet + profit
    return {
        "asset": asset, "walletBalance": str(wallet), "unrealizedProfit": str(profit), "marginBalance": str(margin),
        "maintMargin": str(used / 10), "initialMargin": str(used), "positionInitialMargin": str(used),
        "openOrderInitialMargin": "0", "crossWalletBalance": str(wallet), "crossUnPnl": str(profit),
        "availableBalance": str(margin - used), "maxWithdrawAmount": str(margin - used), "marginAvailable": True,
        "updateTime": now,
    }  # fmt: skip


INCOMES: Final[Mapping[RowKind, str]] = {
    "deposit": "TRANSFER", "withdrawal": "TRANSFER", "transfer": "TRANSFER", "funding": "FUNDING_FEE",
    "insurance": "INSURANCE_CLEAR", "rebate": "COMMISSION_REBATE",
}  # fmt: skip


def income_rows(row: Row) -> list[dict[str, Any]]:
    """Rows of the income history for one wallet change; a trade has one for its profit and one for its fee."""

    def one(kind: str, income: Decimal, trade: str = "") -> dict[str, Any]:
        return {
            "symbol": market_id(row.symbol) if row.symbol else "", "incomeType": kind, "income": str(income),
            "asset": row.asset, "info": trade or kind, "time": row.at_ms, "tranId": 9_689_322_000 + row.number,
            "tradeId": trade,
        }  # fmt: skip

    if row.fill is None:
        return [one(INCOMES[row.kind], row.amount)]
    trade = str(number(row.fill.id))
    profits = [one("REALIZED_PNL", row.profit, trade)] if row.profit else []
    return [*profits, one("COMMISSION", -row.fee, trade)]
