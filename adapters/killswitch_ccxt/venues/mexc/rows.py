"""Conversion of the answers of MEXC's contract API. Sides are codes from 1 to 4; ccxt reads two of them, one
wrongly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    above_zero,
    decimal,
    flag,
    identifier,
    instant,
    object_at,
    one_of,
    optional_text,
    positive,
    required_number,
    required_text,
    rows_at,
    time_of,
    total,
    value_at,
)
from killswitch.model.snapshot import Fill, FillCause, Flow, InstrumentState, Order, OrderSide, Side
from killswitch.model.venue_orders import order_type
from killswitch_ccxt.errors import CLOCK, DENIED, DOWN, GONE, LIMITED, UNKNOWN, Meaning, coded, rejected

FORM: Final = re.compile(r"[1-9]\d{2,4}")
"""The form of MEXC's codes."""
CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("already_flat"), 2009),
    # resting exits have frozen the position; too many resting orders
    **coded(rejected("blocked_by_order"), 2008, 2036),
    **coded(rejected("above_maximum"), 2016, 2025, 2028, 2031, 2038),
    **coded(rejected("price_band"), 2003, 2004, 2007, 2032, 2033, 3004),
    **coded(rejected("market_closed"), 1001, 1002, 6001, 6002, 6005),
    **coded(rejected("insufficient_margin"), 2005, 2018),
    **coded(rejected("duplicate_client_order_id"), 603),
    # A quantity is exact by the venue's step and above its minimum when it is sent: the cause of a refusal is unknown.
    **coded(rejected("other"), 2011, 2015, 600, 601),
    **coded(GONE, 2040, 2041, 5002),
    **coded(LIMITED, 429, 510, 2037),
    **coded(DENIED, 401, 402, 403, 406, 506, 511, 602, 701, 702, 703, 704, 1000),
    **coded(CLOCK, 513),  # our clock is more than ten seconds off
    **coded(DOWN, 604, 801, 11444),
    **coded(UNKNOWN, 500, 501, 503, 504, 9999, 20002, 730000),  # 20002: internal error; 730000: failed, no reason given
}  # fmt: skip
SIDES: Final[Mapping[str, tuple[OrderSide, Side, bool]]] = {
    "1": ("buy", "long", False), "2": ("buy", "short", True),
    "3": ("sell", "short", False), "4": ("sell", "long", True),
}  # fmt: skip
"""Code → side of the order, side of the position, whether it closes."""
STATES: Final = {"1": "open", "2": "open", "3": "closed", "4": "canceled", "5": "rejected"}
MARKETS: Final[Mapping[str, InstrumentState]] = {"2": "delisted", "3": "delisted"}
"""State of a contract: 2 is delivered, 3 offline. 0 is open; 1 (in delivery) and 4 (paused) are temporary, and ccxt
reports them as not active."""
PLAN_STATES: Final = {"1": "open", "2": "canceled", "3": "executed", "4": "expired", "5": "rejected"}
"""States of a conditional order; an executed one has become an order of the order book."""
CAUSES: Final[Mapping[str, FillCause]] = {"2": "liquidation", "4": "adl"}
"""`category` of a deal → cause of the fill."""
TYPES: Final = {"1": "limit", "2": "limit", "3": "limit", "4": "limit", "5": "market", "6": "market"}


def side_code(side: OrderSide, *, closes: bool) -> int:
    """The code of a side: 1 opens a long, 2 closes a short, 3 opens a short, 4 closes a long."""
    if side == "buy":
        return 2 if closes else 1
    return 4 if closes else 3


def sides(row: Row) -> tuple[OrderSide, Side, bool]:
    """Side of the order, side of the position, whether it closes."""
    return one_of(SIDES, _text(row.get("side")), f"side of order {row.get('orderId') or row.get('id')}")


def limit_order(row: Row, symbol: str) -> Order:
    """An open order of the order book."""
    side, position_side, closes = sides(row)
    number = _id(row, "orderId")
    return Order(
        number, symbol, side, above_zero(row.get("vol"), f"the volume of order {number}"),
        client_order_id=_name(row), position_side=position_side, type=TYPES.get(_text(row.get("orderType"))),
        price=positive(row.get("price")), filled=decimal(row.get("dealVol")),
        reduce_only=closes or flag(row.get("reduceOnly")) is True, created_at=instant(row.get("createTime")),
    )  # fmt: skip


def plan_order(row: Row, symbol: str) -> Order:
    """A conditional order. The venue stores no client order id of it."""
    side, position_side, closes = sides(row)
    number, kind = _id(row, "id"), TYPES.get(_text(row.get("orderType")))
    # 1 waits for a rise, 2 for a fall.
    falls = {"1": False, "2": True}.get(str(row.get("triggerType")))
    guards = None if falls is None else (side == "sell") is falls
    return Order(
        number, symbol, side, above_zero(row.get("vol"), f"the volume of plan order {number}"),
        position_side=position_side, price=positive(row.get("price")),
        type=order_type(kind, conditional=True, priced=kind == "limit", guards=guards),
        trigger_price=above_zero(row.get("triggerPrice"), f"the trigger of plan order {number}"),
        reduce_only=closes or flag(row.get("reduceOnly")) is True, created_at=instant(row.get("createTime")),
    )  # fmt: skip


def plan_state(row: Row) -> str:
    """The state of a conditional order."""
    return one_of(PLAN_STATES, _text(row.get("state")), f"state of plan order {_id(row, 'id')}")


def executed_as(row: Row) -> str:
    """The order that a conditional one has become. UnreadableError where the venue does not state it."""
    number = _text(row.get("orderId"))
    if number in ("", "0"):
        raise UnreadableError(f"plan order {_id(row, 'id')} was executed, and the answer lacks the resulting order")
    return number


def stop_orders(row: Row, symbol: str) -> Iterable[Order]:
    """The stop and the target of a position: one row of the venue, up to two orders, cancelled together."""
    number = _id(row, "id")
    position_side: Side = "long" if _text(row.get("positionType")) == "1" else "short"
    amount = required_number(row.get("vol"), f"the volume of stop {number}")
    for name, suffix in (("stopLossPrice", ""), ("takeProfitPrice", "#tp")):
        trigger = positive(row.get(name))
        if trigger is not None:
            yield Order(
                number + suffix, symbol, "sell" if position_side == "long" else "buy", amount,
                position_side=position_side, type="take_profit_market" if suffix else "stop_market",
                trigger_price=trigger, reduce_only=True, created_at=instant(row.get("createTime")),
            )  # fmt: skip


def found_order(row: Row) -> dict[str, Any]:
    """An order under ccxt's names; its fees are in the settlement currency, which is the account's."""
    number = _id(row, "orderId")
    state = one_of(STATES, _text(row.get("state")), f"state of order {number}")
    return {
        "id": number, "clientOrderId": _name(row), "status": state, "amount": row.get("vol"),
        "filled": row.get("dealVol"), "average": row.get("dealAvgPrice"),
        "fee": {"cost": total(decimal(row.get(name)) for name in ("takerFee", "makerFee"))},
    }  # fmt: skip


def deal(row: Row, symbol: str) -> Fill:
    """One fill with its fee; `profit` is not used, because it is not documented whether fees are in it."""
    side, position_side, _ = sides(row)
    number = _id(row, "id")
    return Fill(
        number, time_of(row.get("timestamp"), f"fill {number}"), symbol, side,
        above_zero(row.get("vol"), f"the volume of fill {number}"),
        above_zero(row.get("price"), f"the price of fill {number}"), order=_text(row.get("orderId")) or None,
        position_side=position_side, fee=decimal(row.get("fee")), fee_currency=_text(row.get("feeCurrency")) or None,
        cause=CAUSES.get(_text(row.get("category")), "trade"), client_order_id=_text(row.get("externalOid")) or None,
    )  # fmt: skip


def transfer(row: Row) -> Flow | None:
    """A transfer into the futures wallet or out of it, at the time of its completion; None while it is in progress."""
    if required_text(row.get("state"), "a transfer") != "SUCCESS":
        return None
    number = _id(row, "txid")
    at = max(filter(None, (instant(row.get("createTime")), instant(row.get("updateTime")))), default=None)
    sign = {"IN": 1, "OUT": -1}.get(_text(row.get("type")))
    if sign is None or at is None:
        raise UnreadableError(f"transfer {number} has no direction or no time")
    amount = required_number(row.get("amount"), f"the amount of transfer {number}")
    return Flow(number, at, "transfer", sign * amount, required_text(row.get("currency"), f"transfer {number}"))


def funding(row: Row, currency: str) -> Flow:
    """Funding paid or received for one position."""
    number = _id(row, "id")
    at = time_of(row.get("settleTime"), f"funding {number}")
    amount = required_number(row.get("funding"), f"the amount of funding {number}")
    return Flow(f"f{number}", at, "funding", amount, currency)


def rows_of(answer: Any) -> list[Row]:
    """The rows of an answer. UnreadableError where it has none."""
    data = value_at(answer, "data")
    return rows_at(data, "resultList") if isinstance(data, Mapping) and "resultList" in data else rows_at(data)


def page_of(answer: Any) -> list[Row]:
    """The rows of a list that may be empty."""
    data = object_at(answer, "data")
    is_empty = data.get("resultList") is None and data.get("totalCount") == 0
    return [] if is_empty else rows_of(answer)


def number_of(value: Decimal) -> int | float:
    """The number in the form of JSON. Prices and volumes have few enough digits to be exact."""
    return int(value) if value == value.to_integral_value() else float(value)


def _id(row: Row, name: str) -> str:
    return identifier(row.get(name), f"a row with {name} {row.get(name)!r}")


def _name(row: Row) -> str | None:
    """The client order id; None for one that begins with `_m_`, which the venue has assigned."""
    name = _text(row.get("externalOid"))
    return None if not name or name.startswith("_m_") else name


def _text(value: Any) -> str:
    return optional_text(value) or ""
