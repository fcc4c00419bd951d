"""Conversion of Binance's own rows to ccxt's names, and the equity of a futures account.

ccxt's parsers are not used on purpose: ccxt drops positions without an entry price, derives the side of a position
from its notional, needs a further request for margin brackets, and puts the refused rows of a batch before the
others.

Equity is the sum of its parts, at prices that are fetched with them. In multi-assets mode the venue states a total,
too, at an index of another moment, and its documents leave open whether haircuts are in it: a total that changes by
more than the parts would look like a loss. It is used where an asset has no price. In single-asset mode the venue's
totals are of USDT alone, and useless where another asset is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    any_flag,
    decimal,
    flag,
    identifier,
    instant,
    optional_number,
    optional_text,
    positive,
    required_number,
    required_text,
    time_of,
    total,
    value_at,
)
from killswitch.model.snapshot import Balance, FillCause, Flow, FlowKind, InstrumentState
from killswitch_ccxt.answers import NoSuchSymbolError
from killswitch_ccxt.instruments import Quote, quote_of

SymbolOf = Callable[[str], str]
STATES: Final[Mapping[str, str]] = {
    "NEW": "open", "PARTIALLY_FILLED": "open", "PENDING_NEW": "open", "PENDING_CANCEL": "canceling",
    "FILLED": "closed", "CANCELED": "canceled", "REJECTED": "rejected", "EXPIRED": "expired",
    "EXPIRED_IN_MATCH": "expired",
    # Of conditional orders
    "TRIGGERING": "open", "TRIGGERED": "open", "FINISHED": "closed",
}  # fmt: skip
MARKETS: Final[Mapping[str, InstrumentState]] = {
    "SETTLING": "delisted", "CLOSE": "delisted", "DELIVERED": "delisted", "TRADING_CANCEL_ONLY": "cancel_only",
}  # fmt: skip
"""Status of a contract. A delisted perpetual stays `SETTLING` for ever. `PENDING_TRADING`, `PRE_SETTLE`,
`PRE_DELIVERING`, `DELIVERING` and `TRADING_HALT` are temporary, and ccxt reports them as not active."""
PASSING: Final = frozenset({"TRADING", "PENDING_TRADING", "PRE_SETTLE", "PRE_DELIVERING", "DELIVERING", "TRADING_HALT"})
ALGO: Final = "algo-"
"""Prefix of the ids of conditional orders: the venue numbers them separately, and a bare number is ambiguous."""
FLOWS: Final[Mapping[str, FlowKind]] = {
    "FUNDING_FEE": "funding", "SPECIAL_FUNDING_FEE": "funding", "TRANSFER": "transfer",
    "INTERNAL_TRANSFER": "transfer", "CROSS_COLLATERAL_TRANSFER": "transfer",
    "STRATEGY_UMFUTURES_TRANSFER": "transfer", "AUTO_EXCHANGE": "transfer", "COIN_SWAP_DEPOSIT": "deposit",
    "COIN_SWAP_WITHDRAW": "withdrawal", "INSURANCE_CLEAR": "insurance", "WELCOME_BONUS": "rebate",
    "CONTEST_REWARD": "rebate", "BFUSD_REWARD": "rebate", "REFERRAL_KICKBACK": "rebate",
    "COMMISSION_REBATE": "rebate", "API_REBATE": "rebate", "FEE_RETURN": "rebate",
    "POSITION_LIMIT_INCREASE_FEE": "fee", "OPTIONS_PREMIUM_FEE": "fee",
}  # fmt: skip
CAUSES: Final[Mapping[str, FillCause]] = {
    "adl_autoclose": "adl", "autoclose-": "liquidation", "settlement_autoclose-": "delivery",
    "delivery_autoclose-": "delivery",
}  # fmt: skip
"""Prefix of the client ids of the venue's own orders → cause of their fills."""
TRADES: Final = frozenset({"COMMISSION", "REALIZED_PNL"})
"""Types of income that every trade has, unless it moved no money."""
STATED_BY_FILLS: Final = TRADES | {"DELIVERED_SETTELMENT", "OPTIONS_SETTLE_PROFIT"}


def position(row: Row, symbol_of: SymbolOf) -> dict[str, Any]:
    """A row of positionRisk under ccxt's names. UnreadableError where the size contradicts the side."""
    symbol = symbol_of(str(row.get("symbol")))
    if row.get("positionAmt") is None:
        raise UnreadableError(f"position {symbol} has no size")
    size, stated = required_number(row["positionAmt"], "the size"), str(row.get("positionSide") or "BOTH")
    side = "long" if size > 0 else "short"
    if size and stated not in ("BOTH", side.upper()):
        raise UnreadableError(f"position {symbol}: {size} contracts, and its side is {stated}")
    return {
        "symbol": symbol, "contracts": abs(size), "side": side, "entryPrice": optional_number(row.get("entryPrice")),
        "markPrice": optional_number(row.get("markPrice")),
        "liquidationPrice": optional_number(row.get("liquidationPrice")),
        "initialMargin": optional_number(row.get("initialMargin")), "leverage": optional_number(row.get("leverage")),
        "unrealizedPnl": optional_number(row.get("unRealizedProfit", row.get("unrealizedProfit"))),
        "notional": optional_number(row.get("notional", row.get("notionalValue"))), "info": row,
    }  # fmt: skip


def order(row: Row, symbol_of: SymbolOf) -> dict[str, Any]:
    """An ordinary or conditional order under ccxt's names. UnreadableError without an id or a state."""
    algo = row.get("algoId") is not None
    number = optional_text(row.get("algoId") if algo else row.get("orderId"))
    state = str(row.get("algoStatus") if algo else row.get("status"))
    if number is None or state not in STATES:
        raise UnreadableError(f"order {number}: unknown state {state!r}")
    stated = str(row.get("positionSide") or "BOTH")
    filled = row.get("executedQty", "0" if algo and STATES[state] != "closed" else None)
    if filled is None or required_number(filled, "the filled amount") < 0:
        raise UnreadableError(f"order {number}: unreadable filled amount {filled!r}")
    return {
        "id": f"{ALGO}{number}" if algo else str(number),
        "clientOrderId": row.get("clientAlgoId") if algo else row.get("clientOrderId"),
        "symbol": symbol_of(str(row.get("symbol"))), "status": STATES[state],
        "side": str(row.get("side") or "").lower(),
        "type": str(row.get("orderType") or row.get("type") or "").lower() or None,
        "amount": row.get("quantity") if algo else row.get("origQty"), "filled": filled,
        "average": optional_number(row.get("avgPrice")), "price": row.get("price"),
        "triggerPrice": row.get("triggerPrice") if algo else row.get("stopPrice"),
        "reduceOnly": any_flag(row.get("reduceOnly"), row.get("closePosition")),
        "positionSide": None if stated == "BOTH" else stated.lower(),
        "timestamp": row.get("createTime") or row.get("time") or row.get("updateTime"), "info": row,
    }  # fmt: skip


def trade(row: Row, symbol_of: SymbolOf) -> dict[str, Any]:
    """A row of userTrades under ccxt's names."""
    side = row.get("side") or ("BUY" if flag(row.get("buyer", row.get("isBuyer"))) else "SELL")
    return {
        "id": f"{row['symbol']}:{number}" if (number := optional_text(row.get("id"))) is not None else None,
        "symbol": symbol_of(str(row.get("symbol"))), "side": str(side).lower(), "amount": row.get("qty"),
        "price": row.get("price"), "order": row.get("orderId"), "timestamp": row.get("time"),
        "fee": {"cost": row.get("commission"), "currency": row.get("commissionAsset")}, "info": row,
    }  # fmt: skip


def cause(client_order_id: str) -> FillCause | None:
    """The cause by the client id of the venue's own orders; None for every other order."""
    return next((cause for start, cause in CAUSES.items() if client_order_id.startswith(start)), None)


def income(rows: Iterable[Row]) -> tuple[Flow, ...]:
    """The flows of an income history. An unknown type is a fee or a rebate, by its sign: it is profit or loss, and no
    deposit or withdrawal."""
    found = []
    for row in rows:
        kind = required_text(row.get("incomeType"), f"the type of income {row.get('tranId')}")
        amount = required_number(row.get("income"), "the amount of an income")
        if kind in STATED_BY_FILLS or not amount:
            continue
        identifier(row.get("tranId"), f"income {kind}")
        name = ":".join(optional_text(row.get(key)) or "" for key in ("incomeType", "tranId", "asset", "symbol"))
        flow = FLOWS.get(kind) or ("rebate" if amount > 0 else "fee")
        found.append(Flow(name, time_of(row.get("time"), name), flow, amount, required_text(row.get("asset"), name)))
    return tuple(found)


def traded(rows: Iterable[Row], symbol_of: SymbolOf) -> dict[str, datetime]:
    """Symbol → its latest trade in an income history, without symbols that the rules do not have."""
    found: dict[str, datetime] = {}
    for row in rows:
        at = instant(row.get("time"))
        if row.get("incomeType") not in TRADES or at is None:
            continue
        try:
            symbol = symbol_of(str(row.get("symbol")))
        except NoSuchSymbolError:
            continue
        found[symbol] = max(at, found.get(symbol, at))
    return found


def quote(row: Row) -> Quote:
    """The quote of a symbol's merged rows of bookTicker, ticker/price and premiumIndex; the time is that of the last
    one."""
    return quote_of(row, "bidPrice askPrice price indexPrice markPrice", instant(row.get("time")))


def bounded(found: Quote, rule: Row) -> Quote:
    """The quote with the prices between which a futures order may be: the mark times the multipliers of the symbol's
    filter PERCENT_PRICE (https://developers.binance.com/docs/derivatives/usds-margined-futures/common-definition)."""
    filters = value_at(rule, "info", "filters")
    rows = (it for it in filters if isinstance(it, Mapping)) if isinstance(filters, list) else ()
    limits = next((it for it in rows if it.get("filterType") == "PERCENT_PRICE"), {})
    up, down = positive(limits.get("multiplierUp")), positive(limits.get("multiplierDown"))
    if found.mark is None or up is None or down is None:
        return found
    return replace(found, lowest=found.mark * down, highest=found.mark * up)


def merged(answers: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Venue's name of a symbol → the fields of all its rows in several answers, each a row or a list of rows."""
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for row in answer if isinstance(answer, list) else [answer]:
            found.setdefault(str(row.get("symbol")), {}).update(row)
    return found


def prices_in_currency(dollars: Mapping[str, Decimal], currency: str) -> dict[str, Decimal]:
    """Asset → price in the account's currency, from prices in USD; only the currency itself where it has no price."""
    own = Decimal(1) if currency == "USD" else dollars.get(currency)
    found = {} if own is None else {asset: price / own for asset, price in dollars.items()}
    return found | {currency: Decimal(1)}


def balances(rows: Iterable[Row], prices: Mapping[str, Decimal]) -> tuple[Balance, ...]:
    """Every asset with a balance; `prices` in the account's currency.

    UnreadableError where an asset has a wallet and no margin balance.
    """
    found = []
    for row in rows:
        asset = required_text(row.get("asset"), "the name of an asset")
        equity = decimal(row.get("marginBalance", row.get("balance")))
        wallet = optional_number(row.get("walletBalance"))
        if equity or wallet:
            equity = required_number(equity, f"the margin balance of {asset}")
            found.append(Balance(asset, equity, prices.get(asset), wallet=wallet, equity=equity))
    return tuple(sorted(found, key=lambda it: it.asset))


def unrealized(rows: Iterable[Row], prices: Mapping[str, Decimal]) -> Decimal | None:
    """The unrealised profit of all assets with a price, in the account's currency; None where one is missing."""
    profits = []
    for row in rows:
        asset, profit = str(row.get("asset")), optional_number(row.get("unrealizedProfit"))
        wallet, equity = optional_number(row.get("walletBalance")), optional_number(row.get("marginBalance"))
        if profit is None and wallet is not None and equity is not None:
            profit = equity - wallet
        if asset in prices:
            profits.append(None if profit is None else profit * prices[asset])
    return total(profits)
