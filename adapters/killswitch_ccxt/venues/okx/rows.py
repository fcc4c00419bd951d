"""Conversion of OKX's own rows: equity in several currencies, algo orders, and bills that are flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    flag,
    instant,
    not_negative,
    positive,
    required_number,
    required_text,
    rows_at,
)
from killswitch.model.snapshot import Balance, FillCause, Flow, FlowKind, Side
from killswitch_ccxt.equity import (
    AccountEquity,
    by_asset,
    from_dollars,
    optional_from_dollars,
    rates_in_dollars,
    unrealized_of,
    value_of,
)
from killswitch_ccxt.fills import ledger_flow
from killswitch_ccxt.instruments import Quote, quote_of
from killswitch_ccxt.orders import SIDES

ZERO: Final = Decimal(0)
ROUNDED: Final = Decimal("1e-6")
"""The difference between a total and the sum of its parts, as a share of the total, that counts as rounding."""
BOT_FIELDS: Final = ("stgyEq", "spotCopyTradingEq", "smtSyncEq")
"""Fields with the amount of a currency that bots and copied traders hold: in the equity, and in no position."""
_CAUSES: Final[Mapping[str, FillCause]] = {
    **dict.fromkeys(("100", "101", "102", "103", "104", "105", "106", "107"), "liquidation"),
    **dict.fromkeys(("125", "126", "127", "128"), "adl"),
    **dict.fromkeys(("112", "113"), "delivery"),
}
"""`subType` of a fill → cause."""
_STATES: Final = {"live": "open", "effective": "closed", "partially_effective": "open", "canceled": "canceled",
                  "order_failed": "rejected", "partially_failed": "open", "pause": "open"}  # fmt: skip


def only_row(answer: Any, what: str) -> Row:
    """The one row of an answer."""
    rows = rows_at(answer, "data", what=f"the answer about {what}")
    if not rows:
        raise UnreadableError(f"the answer about {what} has no row")
    return rows[0]


def dollar_price(account: Row, currency: str) -> Decimal | None:
    """OKX's own price of `currency` in USD; None where the account has no row of it."""
    if currency == "USD":
        return Decimal(1)
    for detail in account.get("details") or ():
        if detail.get("ccy") == currency:
            held, value = decimal(detail.get("eq")), decimal(detail.get("eqUsd"))
            each = value / held if held and value else decimal(detail.get("coinUsdPrice"))
            return each if each is not None and each > 0 else None
    return None


def _positions_margin(own: Row, *, isolated: bool) -> Decimal | None:
    """The margin of positions in the currency: the initial margin, where the account's mode has one, without that of
    orders.

    In the other modes, and with isolated positions, which that figure excludes, all frozen margin without that of
    orders. None where it cannot be separated from that of orders or bots.
    """
    initial, orders = None if isolated else decimal(own.get("imr")), decimal(own.get("ordFrozen"))
    frozen = decimal(own.get("frozenBal")) if initial is None else initial
    has_bots = initial is None and any(decimal(own.get(name)) for name in BOT_FIELDS)
    if not frozen or frozen < 0:
        return None if frozen is None or frozen < 0 else frozen
    return None if orders is None or has_bots else max(frozen - orders, ZERO)


def _without_orders(account: Row) -> Decimal | None:
    """The account's initial margin in US dollars without that of orders; None where one of them is missing."""
    margin, orders = not_negative(decimal(account.get("imr"))), decimal(account.get("ordFroz"))
    return margin if not margin else None if orders is None else max(margin - orders, ZERO)


def account_equity(account: Row, currency: str, price: Decimal | None, as_of: datetime | None = None) -> AccountEquity:
    """The equity of the trading account, with its parts from the same answer.

    Where the account holds only `currency`, the figures of that currency, exactly. Otherwise the totals, which OKX
    states in US dollars, at the `price` of `currency` in USD. UnreadableError where that price is unknown.
    """
    listed = by_asset(account.get("details"), "ccy")
    details = [it for asset, it in listed.items() if required_number(it.get("eq"), f"the equity in {asset}")]
    own: Row = listed.get(currency, {})
    has_debts = any(decimal(it.get("liab")) for it in details)
    has_isolated = any(decimal(it.get("isoEq")) for it in details)
    dollars = required_number(account.get("totalEq"), "the account's total equity")
    if not details and dollars:
        raise UnreadableError(f"the answer has a total equity of {dollars} USD and no balance")
    is_alone = all(it.get("ccy") == currency for it in details)

    in_currency = partial(optional_from_dollars, price=price, currency=currency)
    balances = tuple(_balance(it, currency, in_currency) for it in details)
    parts = value_of(balances)
    total = parts if is_alone else from_dollars(dollars, price, currency)
    # The total is the sum of the list, rounded differently.
    equity = parts if abs(parts - total) <= ROUNDED * abs(total) else total
    maintenance = decimal(own.get("mmr")) if is_alone else in_currency(account.get("mmr"))
    available = decimal(own.get("availEq")) if own.get("availEq") else decimal(own.get("availBal"))
    return AccountEquity(
        equity=equity,
        free=available if is_alone else in_currency(account.get("availEq")),
        margin_used=_positions_margin(own, isolated=has_isolated)
        if is_alone
        else in_currency(_without_orders(account)),
        # The account's own figure excludes isolated positions, and includes loans.
        maintenance_margin=None if has_isolated or has_debts else maintenance,
        balances=balances,
        unrealized=unrealized_of(balances),
        rates=rates_in_dollars(price, currency),
        as_of=as_of,
        is_complete=False if any(decimal(it.get(name)) for it in details for name in BOT_FIELDS) else None,
    )


def _balance(detail: Row, currency: str, in_currency: Callable[[Any], Decimal | None]) -> Balance:
    """The balance of one currency. Its wallet is the equity without the unrealised profit.

    `cashBal` is less than that: it excludes what an isolated position or a bot holds.
    """
    ccy = required_text(detail.get("ccy"), "the currency of a balance")
    equity = required_number(detail.get("eq"), "an equity")
    dollars, profit = in_currency(detail.get("eqUsd")) if ccy != currency else None, decimal(detail.get("upl"))
    if profit is None and decimal(detail.get("cashBal")) == equity:
        profit = ZERO  # accounts that have no positions leave it empty
    return Balance(
        ccy, equity, Decimal(1) if ccy == currency else None if dollars is None else dollars / equity,
        wallet=None if profit is None else equity - profit, equity=equity,
    )  # fmt: skip


def kind_of(rule: Row) -> str:
    """`instType` of one of ccxt's markets."""
    return "SPOT" if rule.get("spot") else "SWAP" if rule.get("swap") else "FUTURES"


def index_of(rule: Row) -> str:
    """OKX's name of the index that a contract follows: `BTC-USDT`."""
    return str((rule.get("info") or {}).get("uly") or "") or f"{rule.get('base')}-{rule.get('quote')}"


def prices(rules: Mapping[str, Row], rows: Sequence[Row]) -> dict[str, Quote]:
    """Symbol → its prices, from rows of mark prices, tickers and index tickers; the time is that of the mark."""
    marks = {row.get("instId"): row for row in rows if "markPx" in row}
    last = {row.get("instId"): row for row in rows if "last" in row}
    indexes = {row.get("instId"): row for row in rows if "idxPx" in row}
    found = {}
    for symbol, rule in rules.items():
        mark, ticker = marks.get(rule["id"], {}), last.get(rule["id"], {})
        if mark or ticker:
            row = {**ticker, **indexes.get(index_of(rule), {}), **mark}
            found[symbol] = quote_of(row, "bidPx askPx last idxPx markPx", instant(mark.get("ts") or ticker.get("ts")))
    return found


def price_limits(row: Row) -> dict[str, Decimal | None]:
    """The lowest price to sell at and the highest to buy at, from a row of price limits; none where these are off."""
    if flag(row.get("enabled")) is not True:
        return {}
    return {"lowest": positive(row.get("sellLmt")), "highest": positive(row.get("buyLmt"))}


def plain_order(row: Row, info: Row) -> dict[str, Any]:
    """ccxt's order of a row of plain orders.

    ccxt replaces the id of an order that a stop has sent by the stop's, and treats attached stops as the order's own
    trigger.
    """
    return {
        **row, "timestamp": info.get("cTime"), "id": info.get("ordId"), "clientOrderId": info.get("clOrdId"),
        "triggerPrice": None, "stopLossPrice": None, "takeProfitPrice": None,
        "amount": info.get("sz"), "filled": info.get("accFillSz"), **_position_side(info),
    }  # fmt: skip


def algo_order(row: Row, info: Row, held: Mapping[tuple[str, Side], Decimal] | None) -> dict[str, Any]:
    """ccxt's order of a row of algo orders. `held`: contracts of each position, for an order that closes a fraction.

    An OCO order is reported as its stop.
    """
    stop, target = positive(info.get("slTriggerPx")), positive(info.get("tpTriggerPx"))
    chosen = "sl" if stop is not None else "tp"
    price = positive(info.get("ordPx") or info.get(f"{chosen}OrdPx"))
    kind = str(info.get("ordType"))
    if kind in ("conditional", "oco"):
        if stop is None and target is None:
            raise UnreadableError(f"order {info.get('algoId')} has a trigger without a price")
        kind = ("stop" if stop is not None else "take_profit") + ("_market" if price is None else "_limit")
    trigger = stop or target or positive(info.get("triggerPx")) or positive(info.get("moveTriggerPx"))
    sides = _position_side(info)
    return {
        **row, "timestamp": info.get("cTime"), "id": info.get("algoId"), "clientOrderId": info.get("algoClOrdId"),
        "type": kind, "price": price,
        "triggerPrice": trigger or positive(info.get("activePx")), "stopLossPrice": None, "takeProfitPrice": None,
        "amount": _amount(row, info, held, sides), "filled": info.get("actualSz") or None,
        "status": _STATES.get(str(info.get("state")), info.get("state")), **sides,
    }  # fmt: skip


def _amount(row: Row, info: Row, held: Mapping[tuple[str, Side], Decimal] | None, sides: Row) -> Any:
    fraction = decimal(info.get("closeFraction"))
    if decimal(info.get("sz")) or fraction is None:
        return info.get("sz")
    if held is None:
        raise UnreadableError(f"order {info.get('algoId')} closes {fraction} of a position that was not fetched yet")
    side: Side = sides.get("positionSide") or ("long" if info.get("side") == "sell" else "short")
    return held.get((str(row.get("symbol")), side), ZERO) * fraction


def _position_side(info: Row) -> dict[str, Any]:
    """Position side and reduce-only. In long/short mode OKX has `false` for orders that can only close."""
    side = SIDES.get(str(info.get("posSide")))
    if side is None:
        return {"reduceOnly": info.get("reduceOnly")}
    return {"positionSide": side, "reduceOnly": (info.get("side") == "sell") is (side == "long")}


def cause_of(info: Row) -> FillCause:
    """The cause of a fill."""
    return _CAUSES.get(str(info.get("subType")), "trade")


FLOW_TYPES: Final[Mapping[str, FlowKind]] = {
    "1": "transfer",
    "7": "interest",
    "8": "funding",
    "10": "insurance",
    "12": "transfer",  # to and from trading bots
    "18": "fee",  # a share of the profit
    "26": "transfer",  # structured products
    "33": "transfer",  # loans from outside the trading account
    "250": "fee",
    "251": "rebate",
}
"""`type` of a bill → kind of flow. Deposits arrive in the funding account, and from there as transfers."""
NO_FLOWS: Final = frozenset(
    {
        # Stated by fills: trade, delivery, liquidation, ADL, delta hedge, block trade, spread, move, settlement
        "2", "3", "5", "9", "13", "14", "24", "32", "34",
        # Conversions between coins of the account: forced repayment, conversions, one-click repay, simple trade
        "4", "11", "27", "28", "29", "30",
        # Margin that moves inside the account, and debts: a loan is in the balance and off the equity at once
        "6", "15", "16", "22",
    }
)  # fmt: skip
"""`type` of a bill that leaves the equity unchanged, or that fills state."""
MOST_BILL_PAGES: Final = 3
"""Pages of all bills that are read. Longer lists consist of trades, and each kind of flow is requested separately."""
BILL_REQUEST_INTERVAL: Final = 0.35
"""Seconds between two of these requests: OKX allows five a second, those before them included."""


def flows(bills: Iterable[Row]) -> tuple[Flow, ...]:
    """The bills that are flows. The change of an isolated position's own margin is in `posBalChg`, not in `balChg`."""
    return tuple(flow for flow in map(_flow, bills) if flow is not None)


def _flow(bill: Row) -> Flow | None:
    number = bill.get("billId")
    kind = required_text(bill.get("type"), f"bill {number}")
    if kind in NO_FLOWS:
        return None
    change = bill.get("balChg")
    amount = change if required_number(change, f"the change of bill {number}") else bill.get("posBalChg") or change
    flow = ledger_flow(
        kind, FLOW_TYPES, f"bill {number}", number=number, at=bill.get("ts"), amount=amount, currency=bill.get("ccy")
    )
    return flow if flow is None or kind in FLOW_TYPES else replace(flow, id=f"type {flow.id}")
