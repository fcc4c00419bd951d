"""OKX's payloads: names of instruments and orders, and the rows of its lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Final

from killswitch.model.snapshot import Fill, OrderSide
from tests.faults.exchange import ZERO, Key, Market, Mode, Placed
from tests.wire.ledger import Book, RowKind
from tests.wire.ledger import Row as LedgerRow

Row = dict[str, object]
FIRST_ID: Final = 2_497_956_918_703_000_000
_UNIFIED: Final = re.compile(r"^(?P<base>[^/:]+)/(?P<quote>[^/:-]+)(:(?P<settle>[^-]+)(-(?P<more>.+))?)?$")
LIQUIDATION: Final = {"liquidation": ("104", "105"), "adl": ("125", "126"), "delivery": ("112", "113")}
"""Cause of a fill → `subType` for a long and for a short position."""
STATES: Final = {"open": "live", "reduce_only": "live", "limit_only": "live", "post_only": "live",
                 "cancel_only": "suspend", "halted": "suspend", "delisted": "expired"}  # fmt: skip


@cache
def instrument_id(symbol: str, mode: Mode) -> str:
    """`BTC/USDT:USDT` and similar symbols in OKX's format; a bare name is a market against USDT."""
    found = _UNIFIED.match(symbol)
    if found is None:
        return f"{symbol}-USDT" if mode == "spot" else f"{symbol}-USDT-SWAP"
    pair = f"{found['base']}-{found['quote']}"
    if found["settle"] is None:
        return pair
    return f"{pair}-{found['more'] or 'SWAP'}"


def kind_of(inst_id: str) -> str:
    """`instType` of an instrument."""
    if inst_id.endswith("-SWAP"):
        return "SWAP"
    return {2: "SPOT", 5: "OPTION"}.get(len(inst_id.split("-")), "FUTURES")


def pair_of(inst_id: str) -> tuple[str, str]:
    """Base and quote of an instrument."""
    if inst_id.endswith("-SWAP"):
        base, _, quote = inst_id.removesuffix("-SWAP").rpartition("-")
        return base, quote
    base, quote, *_ = inst_id.split("-")
    return base, quote


def order_id(ours: str) -> str:
    """OKX's id of an order: digits only."""
    return str(FIRST_ID + int(ours.removeprefix("x")))


def ours_of(inst_order: str) -> str:
    return f"x{int(inst_order) - FIRST_ID}"


def text(value: Decimal | None) -> str:
    """A number as text; a missing or NaN number is empty text."""
    return "" if value is None or not value.is_finite() else format(value, "f")


def instrument_row(inst_id: str, market: Market, size: Decimal) -> Row:
    """`public/instruments`."""
    kind = kind_of(inst_id)
    base, quote = pair_of(inst_id)
    more = inst_id.split("-")[2:]
    # An underlying contains a dash itself, so it cannot identify a name with a dash.
    named = kind == "SPOT" or "-" in base
    inverse = quote == "USD" and kind != "SPOT"
    most = text(market.maximum) or "100000000"
    row: Row = {
        "instType": kind, "instId": inst_id, "uly": "" if named else f"{base}-{quote}",
        "instFamily": "" if kind == "SPOT" else f"{base}-{quote}", "state": STATES[market.state],
        "baseCcy": base if named else "", "quoteCcy": quote if named else "",
        "settleCcy": "" if kind == "SPOT" else (base if inverse else quote),
        "ctVal": "" if kind == "SPOT" else text(size), "ctMult": "" if kind == "SPOT" else "1",
        "ctValCcy": "" if kind == "SPOT" else ("USD" if inverse else base),
        "ctType": "" if kind == "SPOT" else ("inverse" if inverse else "linear"),
        "lotSz": text(market.step or Decimal("0.00000001")), "minSz": text(market.minimum), "tickSz": "0.01",
        "maxLmtSz": most, "maxMktSz": most, "maxStopSz": most, "maxTriggerSz": most, "lever": "100",
        "listTime": "1573557408000", "expTime": "", "stk": "", "optType": "", "ruleType": "normal", "instIdCode": 10461,
    }  # fmt: skip
    if kind in ("FUTURES", "OPTION"):
        row["expTime"] = str(_expiry(more[0]))
    if kind == "OPTION":
        row |= {"stk": more[1], "optType": more[2]}
    return row


def _expiry(yymmdd: str) -> int:
    day = datetime.strptime(yymmdd, "%y%m%d").replace(hour=8, tzinfo=UTC)
    return int(day.timestamp() * 1000)


def position_row(inst_id: str, key: Key, book: Book, more: Mapping[str, str]) -> Row:
    """`account/positions`: signed in net mode, and unsigned with its side in long/short mode."""
    hedged = more["posMode"] == "long_short_mode"
    base, quote = pair_of(inst_id)
    lot, mark, contract = book.lots[key], text(book.marks[key[0]]), book.contracts(key[0])
    amount, profit, notional = lot.amount, book.unrealized(key), book.notional(key)
    dollars = lot.amount * contract.size if contract.inverse else notional * Decimal(more["usd"])
    return {
        "instType": kind_of(inst_id), "instId": inst_id, "mgnMode": more["mgnMode"], "posId": "7",
        "posSide": key[1] if hedged else "net", "pos": text(amount if hedged or key[1] == "long" else -amount),
        "availPos": text(amount), "ccy": quote if quote != "USD" else base,
        "posCcy": "", "avgPx": text(lot.entry), "markPx": mark, "last": text(book.lasts[key[0]]),
        "idxPx": text(book.indexes[key[0]]), "upl": text(profit), "uplRatio": "0", "lever": "5",
        "liqPx": "", "imr": "", "mmr": "",
        "margin": text(notional / 5) if more["mgnMode"] == "isolated" else "",
        "notionalUsd": text(dollars),
        "adl": "1", "mgnRatio": "", "cTime": more["time"], "uTime": more["time"], "tradeId": "1", "realizedPnl": "0",
    }  # fmt: skip


def order_row(inst_id: str, order: Placed, more: Mapping[str, str]) -> Row:
    """`trade/orders-pending`, `trade/order`."""
    hedged = more["posMode"] == "long_short_mode"
    kind = "ioc" if order.ioc else order.type
    state = {"open": "partially_filled" if order.filled else "live", "filled": "filled"}.get(order.state, "canceled")
    return {
        "instType": kind_of(inst_id), "instId": inst_id, "ordId": order_id(order.id), "clOrdId": order.name or "",
        "tag": "", "algoId": "", "algoClOrdId": "", "attachAlgoOrds": [], "category": "normal", "ccy": "",
        "side": order.side, "posSide": order.key[1] if hedged else "net", "tdMode": more["mgnMode"],
        "ordType": kind, "px": text(order.price), "sz": text(order.amount), "accFillSz": text(order.filled),
        "avgPx": text(order.paid / order.filled) if order.filled else "", "fee": text(-order.paid / 2000),
        "feeCcy": "USDT", "state": state, "reduceOnly": "false" if hedged else str(order.reduce_only).lower(),
        "fillPx": "", "fillSz": "0", "fillTime": "", "lever": "5", "pnl": "0", "source": "", "tgtCcy": "",
        "slTriggerPx": "", "slOrdPx": "", "tpTriggerPx": "", "tpOrdPx": "",
        "cTime": more["time"], "uTime": more["time"],
    }  # fmt: skip


def algo_row(inst_id: str, order: Placed, more: Mapping[str, str]) -> Row:
    """`trade/orders-algo-pending`: a `conditional` order has stop and target prices, a `trigger` order one price."""
    hedged = more["posMode"] == "long_short_mode"
    limit = "-1" if order.price is None else text(order.price)
    state = "live" if order.waits else ("canceled" if order.state == "canceled" else "effective")
    row: Row = {
        "instType": kind_of(inst_id), "instId": inst_id, "algoId": order_id(order.id), "algoClOrdId": order.name or "",
        "clOrdId": "", "ordId": order_id(order.id) if state == "effective" else "", "ordType": more["ordType"],
        "state": state, "side": order.side,
        "posSide": order.key[1] if hedged else "net", "sz": text(order.amount), "tdMode": more["mgnMode"],
        "reduceOnly": str(order.reduce_only).lower(), "actualSz": "0", "actualPx": "", "triggerTime": "", "tag": "",
        "closeFraction": "", "triggerPx": "", "ordPx": "", "slTriggerPx": "", "slOrdPx": "", "tpTriggerPx": "",
        "tpOrdPx": "", "cTime": more["time"], "uTime": more["time"],
    }  # fmt: skip
    trigger = text(order.trigger_price)
    if more["ordType"] == "trigger":
        return row | {"triggerPx": trigger, "ordPx": limit, "triggerPxType": "last"}
    stop = (order.side == "sell") is (order.trigger_when != "rises")
    return row | ({"slTriggerPx": trigger, "slOrdPx": limit} if stop else {"tpTriggerPx": trigger, "tpOrdPx": limit})


def fill_row(inst_id: str, fill: Fill, number: int, name: str | None, mode: Mode, profit: Decimal) -> Row:
    """`trade/fills`: a charged fee is negative. `number`: the number of the trade at its instrument."""
    long = fill.position_side == "long"
    opens = (fill.side == "buy") is long
    ordinary = "1" if fill.side == "buy" else "2"
    if mode == "hedge":
        ordinary = {(True, True): "3", (True, False): "4", (False, True): "5", (False, False): "6"}[opens, long]
    kind = LIQUIDATION[fill.cause][0 if long else 1] if fill.cause in LIQUIDATION else ordinary
    stamp = str(int(fill.at.timestamp() * 1000))
    return {
        "instType": kind_of(inst_id), "instId": inst_id, "tradeId": str(number), "billId": f"3{fill.id[1:]:0>9}",
        "ordId": order_id(fill.order) if fill.order else "", "clOrdId": name or "", "tag": "", "subType": kind,
        "fillPx": text(fill.price), "fillSz": text(fill.amount), "side": fill.side, "execType": "T",
        "posSide": fill.position_side if mode == "hedge" else "net", "feeCcy": fill.fee_currency or "",
        "fee": text(-fill.fee) if fill.fee is not None else "", "fillPnl": text(profit), "ts": stamp, "fillTime": stamp,
    }  # fmt: skip


BILLS: Final[Mapping[RowKind, tuple[str, str]]] = {
    "trade": ("2", ""), "deposit": ("1", "11"), "withdrawal": ("1", "12"), "transfer": ("1", ""),
    "funding": ("8", ""), "insurance": ("10", ""), "rebate": ("251", ""),
}  # fmt: skip
"""Kind of a change of a wallet → `type` and `subType` of its bill."""
BILLS_OF_CAUSES: Final = {"liquidation": "5", "adl": "9", "delivery": "3"}


def bill_row(row: LedgerRow, inst_id: str) -> Row:
    """`account/bills`: every change of a currency's cash, with the balance after it."""
    kind, detail = BILLS[row.kind]
    fill = row.fill
    if row.kind in ("transfer", "funding"):
        detail = {"transfer": ("12", "11"), "funding": ("173", "174")}[row.kind][row.amount > ZERO]
    elif fill is not None:
        kind, detail = BILLS_OF_CAUSES.get(fill.cause, kind), "1" if fill.side == "buy" else "2"
    return {
        "billId": f"6{row.number:0>9}", "type": kind, "subType": detail, "ccy": row.asset, "balChg": text(row.amount),
        "bal": text(row.balance), "posBalChg": "0", "posBal": "0", "pnl": text(row.profit), "fee": text(-row.fee),
        "sz": text(fill.amount) if fill else text(abs(row.amount)), "px": text(fill.price) if fill else "",
        "ordId": order_id(fill.order) if fill and fill.order else "", "tradeId": "", "clOrdId": "", "tag": "",
        "instType": kind_of(inst_id) if inst_id else "", "instId": inst_id, "mgnMode": "cross" if inst_id else "",
        "execType": "T" if fill else "", "from": "", "to": "", "interest": "0", "notes": "",
        "ts": str(row.at_ms), "fillTime": str(row.at_ms) if fill else "",
    }  # fmt: skip


def balance_row(book: Book, stamp: str, margin: Decimal = ZERO) -> Row:
    """`account/balance`. Totals are in US dollars. `margin`: maintenance margin of cross positions, in USDT."""

    def detail(ccy: str, cash: Decimal, profit: Decimal, price: Decimal, margin: Decimal = ZERO) -> Row:
        equity = cash + profit
        return {
            "ccy": ccy, "eq": text(equity), "cashBal": text(cash), "availBal": text(equity - margin),
            "availEq": text(equity - margin),
            "frozenBal": text(margin), "ordFrozen": "0", "upl": text(profit), "eqUsd": text(equity * price),
            "isoEq": "0", "liab": "",
            "imr": text(margin), "mmr": text(margin), "disEq": text(equity * price), "interest": "", "uTime": stamp,
        }  # fmt: skip

    details = [
        detail(
            asset, book.wallets.get(asset, ZERO), book.unrealized_in(asset), book.price(asset),
            margin if asset == book.currency else ZERO,
        )
        for asset in book.assets
    ]  # fmt: skip
    if book.spot:
        held = ((symbol.partition("/")[0], lot.amount, book.marks[symbol]) for (symbol, _), lot in book.lots.items())
        own = book.price(book.currency)
        details += [detail(asset, amount, ZERO, mark * own) for asset, amount, mark in held]
    return {
        "adjEq": "", "imr": "", "mmr": "", "mgnRatio": "", "isoEq": "0", "ordFroz": "", "upl": "", "notionalUsd": "",
        "totalEq": text(book.total), "details": details, "uTime": stamp,
    }  # fmt: skip


def trigger_direction(side: OrderSide, params: Mapping[str, object], market: Market) -> tuple[Decimal, str, object]:
    """The trigger price, whether the price `falls` or `rises` to it, and the order's price, of an algo order."""
    if params.get("triggerPx"):
        price = Decimal(str(params["triggerPx"]))
        return price, "falls" if price < market.price else "rises", params.get("orderPx")
    stop = params.get("slTriggerPx")
    price = Decimal(str(stop or params["tpTriggerPx"]))
    when = "falls" if (side == "sell") is bool(stop) else "rises"
    return price, when, params.get("slOrdPx") if stop else params.get("tpOrdPx")
