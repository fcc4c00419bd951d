"""ccxt's orders as questions for the gate: symbols, amounts, flags and parameters. Pure, and imports no ccxt."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

Params = Mapping[str, Any]
ID_KEYS: Final = ("clientOrderId", "newClientOrderId", "clOrdId", "client_oid", "clientOid", "orderLinkId", "text")
TRIGGER_KEYS: Final = ("triggerPrice", "stopPrice", "stopLossPrice", "takeProfitPrice")
HARMLESS_PARAMS: Final = frozenset({
    *ID_KEYS, *TRIGGER_KEYS, "reduceOnly", "closePosition", "positionSide", "posSide", "hedged", "stopLoss",
    "takeProfit", "timeInForce", "postOnly", "marginMode", "tdMode", "trailingPercent", "trailingAmount",
    "trailingTriggerPrice", "triggerPriceType", "triggerDirection", "workingType", "priceProtect", "recvWindow",
    "selfTradePreventionMode", "newOrderRespType", "leverage", "cost", "expiration", "goodTillDate",
    "killswitchExit",
})  # fmt: skip
"""Parameters that change neither symbol nor side nor amount, or that the question states. ccxt merges any other one
into the request of the venue, where it may change what was judged.
"""
LARGEST_EXPONENT: Final = 30
"""Powers of ten. An amount beyond that is a mistake, and would take long to write out."""


class UnjudgeableOrderError(ValueError):
    """An order that cannot be put into a question; the text says what to write instead."""


def order_asked(
    market: Mapping[str, Any],
    kind: str,
    side: str,
    amount: object,
    price: object,
    params: Params,
    *,
    cash: Collection[str] = (),
    allowed: Collection[str] = (),
    buys_by_cost: bool = False,
) -> dict[str, Any]:
    """A call of `create_order` as an order of `killswitch.pretrade/v1`.

    `market`: ccxt's record of the market. `cash`: assets that count as money: a spot order that receives one and pays
    none is an exit. `allowed`: further parameters. `buys_by_cost`: whether a market buy's amount is its cost.
    UnjudgeableOrderError where the order, or a parameter of an order that opens, is not understood.
    """
    if side not in ("buy", "sell"):
        raise UnjudgeableOrderError(f"the side is {side!r}: write buy or sell")
    asked: dict[str, Any] = {"symbol": market["symbol"], "side": side, "type": _kind(kind, params)}
    asked |= _amount(market, kind, side, amount, params, buys_by_cost)
    if price is not None:
        asked["price"] = _number(price, "price")
    trigger = next((params[key] for key in TRIGGER_KEYS if params.get(key) is not None), None)
    if trigger is not None:
        asked["trigger_price"] = _number(trigger, "trigger price")
    asked |= _claims(market, side, params, cash)
    if _is_whole(market, amount, params):
        asked["close_position"] = True
    name = client_order_id(params)
    if name is not None:
        asked["client_order_id"] = name
    _require_known(asked, params, allowed)
    return asked


def children_of(parent: Mapping[str, Any], params: Params, index: int) -> list[dict[str, Any]]:
    """The stop and the target that the venue attaches to the order at `index` of the question."""
    found = []
    for key, kind in (("stopLoss", "stop"), ("takeProfit", "take_profit")):
        attached = params.get(key)
        trigger = attached.get("triggerPrice") if isinstance(attached, Mapping) else None
        if trigger is None or parent.get("close_position"):
            continue
        other = "sell" if parent["side"] == "buy" else "buy"
        child = {name: parent[name] for name in ("symbol", "amount", "unit", "currency") if name in parent}
        child |= {"side": other, "type": kind, "trigger_price": _number(trigger, key), "reduce_only": True}
        if "position_side" in parent:
            child["position_side"] = parent["position_side"]
        found.append(child | {"parent": index, "oco": f"attached-{index}", "oco_by": "venue"})
    return found


def list_asked(orders: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The keyword arguments of `create_order` for each order of a list. UnjudgeableOrderError for what is none."""
    made = []
    for each in orders:
        if not isinstance(each, Mapping) or not {"symbol", "type", "side", "amount"} <= each.keys():
            raise UnjudgeableOrderError("each order of a list needs symbol, type, side and amount")
        made.append({key: each.get(key) for key in ("symbol", "type", "side", "amount", "price")}
                    | {"params": dict(each.get("params") or {})})  # fmt: skip
    return made


def client_order_id(params: Params) -> str | None:
    """The client order id that the parameters state."""
    return next((str(params[key]) for key in ID_KEYS if params.get(key)), None)


def may_be_flagged(market: Mapping[str, Any], params: Params) -> bool:
    """Whether a reduce-only flag can be set: on contracts in one-way mode. In hedge mode the side decides."""
    in_hedge_mode = params.get("hedged") or params.get("posSide") or str(params.get("positionSide") or "BOTH") != "BOTH"
    return bool(market.get("contract")) and not market.get("option") and not in_hedge_mode


def _kind(kind: str, params: Params) -> str:
    if params.get("trailingPercent") is not None or params.get("trailingAmount") is not None:
        return "trailing_stop"
    text = kind.lower().replace("_", "").replace("-", "")
    if params.get("takeProfitPrice") is not None or "takeprofit" in text:
        return "take_profit"
    if any(params.get(key) is not None for key in TRIGGER_KEYS) or "stop" in text:
        return "stop"
    if text not in ("market", "limit"):
        raise UnjudgeableOrderError(f"the type {kind!r} is not known: write market or limit, with a trigger price")
    return text


def _amount(
    market: Mapping[str, Any], kind: str, side: str, amount: object, params: Params, buys_by_cost: bool
) -> dict[str, Any]:
    """Amount and unit: contracts as ccxt counts them, or the cost of a market buy on spot."""
    if _is_whole(market, amount, params):
        return {"amount": "0", "unit": "contracts"}
    is_market_buy = bool(market.get("spot")) and kind.lower() == "market" and side == "buy"
    cost = params.get("cost")
    if cost is not None or (is_market_buy and buys_by_cost):
        if not is_market_buy:
            raise UnjudgeableOrderError("`cost` is known for market buys on spot only: write the amount")
        value = cost if cost is not None else amount
        return {"amount": _number(value, "cost"), "unit": "money", "currency": market["quote"]}
    return {"amount": _number(amount, "amount"), "unit": "contracts"}


def _is_whole(market: Mapping[str, Any], amount: object, params: Params) -> bool:
    """Whether the order is for the whole position. Next to an amount the flag counts for nothing: a venue that does not
    know it carries the amount out."""
    return params.get("closePosition") is True and _has_flags(market, params) and not amount


def _has_flags(market: Mapping[str, Any], params: Params) -> bool:
    """Whether a venue may see to it that the order only reduces: on spot it ignores such flags, except with margin."""
    return not market.get("spot") or bool(params.get("marginMode")) or params.get("tdMode") not in (None, "cash")


def _claims(market: Mapping[str, Any], side: str, params: Params, cash: Collection[str]) -> dict[str, Any]:
    """What the order states about itself. Only `True` is a flag, and a raw spelling that differs withdraws it."""
    found: dict[str, Any] = {}
    spelt = [value for key, value in params.items() if key.replace("_", "").lower() == "reduceonly"]
    # ccxt translates its own spelling only: a venue may ignore another one, and open what says that it reduces.
    if params.get("reduceOnly") is True and all(value is True for value in spelt):
        if _has_flags(market, params):
            found["reduce_only"] = True
        elif side == "sell":
            found["is_exit"] = True  # the bot's word, as no venue sees to it
    stated = str(params.get("positionSide") or params.get("posSide") or "").lower()
    if stated in ("long", "short"):
        found["position_side"] = stated
    elif params.get("hedged") is True:
        opens = "long" if side == "buy" else "short"
        closes = "short" if side == "buy" else "long"
        found["position_side"] = closes if found.get("reduce_only") else opens
    if "position_side" in found and (side == "sell") == (found["position_side"] == "long"):
        found["is_exit"] = True  # in hedge mode the closing side cannot open anything
    if market.get("spot"):
        received, paid = (market["base"], market["quote"]) if side == "buy" else (market["quote"], market["base"])
        if (received in cash and paid not in cash) or params.get("killswitchExit") is True:
            found["is_exit"] = True
    return found


def _require_known(asked: Mapping[str, Any], params: Params, allowed: Collection[str]) -> None:
    if any(asked.get(key) is True for key in ("reduce_only", "close_position")):
        return  # the venue itself bounds it, whatever else it says
    strange = sorted(key for key in params if key not in HARMLESS_PARAMS and key not in allowed)
    if strange:
        raise UnjudgeableOrderError(
            f"the parameter {strange[0]!r} may change what is judged: leave it out, or allow it with "
            f"params=({strange[0]!r},)"
        )


def _number(value: object, what: str) -> str:
    """A number as text. UnjudgeableOrderError unless it is finite and above 0."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal(0)
    if not number.is_finite() or number <= 0 or abs(number.adjusted()) > LARGEST_EXPONENT:
        raise UnjudgeableOrderError(f"the {what} is {value!r}: write a number above 0")
    return format(number, "f")
