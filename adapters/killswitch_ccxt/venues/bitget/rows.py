"""Conversion of Bitget's own rows, where ccxt's unified structures state less.

In hedge mode Bitget writes the side of the position, not of the order: a `buy` that closes is a sale of the long.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from killswitch.model.inspection import KeyRights
from killswitch.model.parsing import (
    Row,
    UnreadableError,
    decimal,
    flag,
    instant,
    optional_text,
    positive,
    required_number,
    required_text,
    total,
)
from killswitch.model.snapshot import Balance, Fill, FillCause, Flow, FlowKind, OrderSide, Rate, Side
from killswitch_ccxt.equity import AccountEquity, unrealized_of
from killswitch_ccxt.fills import ledger_flow
from killswitch_ccxt.instruments import with_maximum
from killswitch_ccxt.orders import SIDES
from killswitch_ccxt.venues.bitget import codes

ZERO: Final = Decimal(0)


def with_order_maximum(rule: Row) -> Row:
    """ccxt's market, with the maximum of any order."""
    info = rule.get("info") or {}
    if not str(info.get("pricePlace")).isdecimal():
        rule = {**rule, "precision": {**(rule.get("precision") or {}), "price": None}}
    return with_maximum(rule, info.get("maxOrderQty"), info.get("maxMarketOrderQty"))


def account_equity(rows: Any, currency: str) -> AccountEquity:
    """The equity from `account/accounts`; with several assets as margin that of all assets, which Bitget states in
    USDT.

    A wallet is the equity of a coin less the unrealised profit in the same row.
    """
    own = next((it for it in rows or () if it.get("marginCoin") == currency), None)
    if own is None:
        raise UnreadableError(f"the answer has no row of {currency}, the account's currency")
    equity = required_number(own.get("accountEquity"), "accountEquity")
    is_union = any(it.get("assetMode") == "union" for it in rows)
    if is_union and currency != "USDT":
        raise UnreadableError(f"several assets are margin, and Bitget states their value in USDT, not in {currency}")
    if is_union:
        equity = sum((required_number(it.get("usdtEquity"), "usdtEquity") for it in rows), start=ZERO)
    used = [decimal(own.get(name)) for name in ("crossedMargin", "isolatedMargin")]
    found = [it for it in map(_balance, rows if is_union else [own]) if it is not None]
    balances = tuple(found) if is_union else tuple(replace(it, price=Decimal(1)) for it in found)
    return AccountEquity(
        equity=equity,
        free=decimal(own.get("crossedMaxAvailable")),
        margin_used=sum((it for it in used if it is not None), start=ZERO) if any(used) else None,
        balances=balances,
        unrealized=unrealized_of(balances) if all(it.price is not None for it in balances) else None,
        rates=_rates(own, currency),
    )


def _balance(row: Row) -> Balance | None:
    """The balance of one coin, priced by Bitget's own value of it in USDT; None for a coin without a balance."""
    equity = required_number(row.get("accountEquity"), "accountEquity")
    profit, dollars = _unrealized(row), decimal(row.get("usdtEquity"))
    wallet = None if profit is None else equity - profit
    if not equity and not wallet:
        return None
    price = dollars / equity if equity and dollars is not None else None
    coin = required_text(row.get("marginCoin"), "the name of a coin")
    return Balance(coin, equity, price, wallet=wallet, equity=equity)


def _unrealized(row: Row) -> Decimal | None:
    """The unrealised profit of all positions in the coin; the sum of the two margin modes where there is no total."""
    stated = decimal(row.get("unrealizedPL"))
    if stated is not None:
        return stated
    return total(decimal(row.get(name)) for name in ("crossedUnrealizedPL", "isolatedUnrealizedPL"))


def _rates(own: Row, currency: str) -> tuple[Rate, ...] | None:
    """The price of the account's currency in USDT."""
    equity, dollars = decimal(own.get("accountEquity")), decimal(own.get("usdtEquity"))
    if currency == "USDT" or not equity or dollars is None:
        return None
    return (Rate("USDT", dollars / equity),)


def _hedge_side(info: Row) -> tuple[Side, bool] | None:
    """Position side and whether the order closes, for a row in hedge mode; None for a row in one-way mode."""
    trade_side = str(info.get("tradeSide")).lower()
    if info.get("posMode") != "hedge_mode":
        return None
    named_side: Side | None = (
        "long" if trade_side.endswith("_long") else "short" if trade_side.endswith("_short") else None
    )
    side = SIDES.get(str(info.get("posSide"))) or named_side or ("long" if info.get("side") == "buy" else "short")
    return side, "close" in trade_side


def _side(position_side: Side, *, closes: bool) -> OrderSide:
    return "sell" if (position_side == "long") is closes else "buy"


def refined_order(row: Row) -> Row:
    """ccxt's order with its own side, its purpose, and the numbers that ccxt loses among Decimals."""
    info = row["info"]
    plan, fee = str(info.get("planType")), decimal(info.get("fee"))
    found = {
        **row,
        "timestamp": info.get("cTime"),
        "triggerPrice": positive(info.get("triggerPrice")),
        "fee": None if fee is None else {"cost": -fee},
        "side": info.get("side"),
        "guards": {"loss": True, "profit": False}.get(plan.removeprefix("pos_").removesuffix("_plan")),
        "reduceOnly": plan in ("pos_profit", "pos_loss") or flag(info.get("reduceOnly")),
    }
    hedge = _hedge_side(info)
    if hedge is not None:
        position_side, closes = hedge
        found |= {"positionSide": position_side, "reduceOnly": closes, "side": _side(position_side, closes=closes)}
    return found


def refined_fill(fill: Fill, info: Row) -> Fill:
    """The fill with side, fee, profit and cause. A fee in several parts may be in two coins: it is unknown."""
    costs = [it for it in info.get("feeDetail") or () if isinstance(it, Mapping)]
    paid = [decimal(it.get("totalFee")) for it in costs]
    refined = replace(
        fill,
        at=instant(info.get("cTime")) or fill.at,
        fee=-paid[0] if len(paid) == 1 and paid[0] is not None else None,
        fee_currency=optional_text(costs[0].get("feeCoin")) if costs else None,
        realized_pnl=decimal(info.get("profit")),
        cause=_cause(str(info.get("tradeSide")).lower()),
    )
    hedge = _hedge_side(info)
    if hedge is None:
        return refined
    position_side, closes = hedge
    return replace(refined, position_side=position_side, side=_side(position_side, closes=closes))


def _cause(trade_side: str) -> FillCause:
    if "adl" in trade_side:
        return "adl"
    if "burst" in trade_side or trade_side.startswith("reduce_"):
        return "liquidation"
    return "delivery" if "delivery" in trade_side else "trade"


def flow_of(row: Row) -> Flow | None:
    """A bill as a flow; None where it is none."""
    what = f"bill {row.get('billId')}"
    business = required_text(row.get("businessType"), what)
    kinds: Mapping[str, FlowKind | None] = (
        {business: "transfer"} if business.startswith(codes.TRANSFER_PREFIXES) else codes.FLOWS
    )
    return ledger_flow(
        business, kinds, what,
        number=row.get("billId"), at=row.get("cTime"), amount=row.get("amount"), currency=row.get("coin"),
    )  # fmt: skip


def rights_of(info: Row) -> KeyRights:
    """The permissions of `spot/account/info`, by their short names or by those of older keys."""
    allowed = set(info.get("authorities") or ())
    return KeyRights(
        read=True,
        trade={"coow", "cpow"} <= allowed or "trade" in allowed,
        withdraw=bool(allowed & {"wwow", "withdraw"}),
        transfer=bool(allowed & {"wtow", "transfer"}),
        bound_to_addresses=bool(str(info.get("ips") or "").strip()),
        note="Bitget does not state when a key expires",
    )
