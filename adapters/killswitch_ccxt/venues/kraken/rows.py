"""Conversion of Kraken's answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    at_least_zero,
    decimal,
    one_of,
    positive,
    required_number,
    total,
)
from killswitch.model.snapshot import FlowKind, InstrumentState
from killswitch_ccxt.errors import DENIED, DOWN, GONE, LIMITED, UNKNOWN, Meaning, coded, limited, rejected

CODES: Final[Mapping[str, Meaning]] = {
    **coded(rejected("insufficient_margin"), "EOrder:Insufficient funds", "EOrder:Insufficient margin",
        "EOrder:Margin level too low", "EOrder:Margin allowance exceeded"),
    **coded(rejected("below_minimum"), "EOrder:Order minimum not met", "EOrder:Cost minimum not met",
        "EGeneral:Invalid arguments:volume minimum not met"),
    **coded(rejected("above_maximum"), "EOrder:Margin position size exceeded", "EOrder:Positions limit exceeded"),
    **coded(rejected("blocked_by_order"), "EOrder:Orders limit exceeded", "EOrder:Scheduled orders limit exceeded"),
    **coded(rejected("already_flat"), "EOrder:Unknown position", "EOrder:Reduce only:No position exists",
        "EOrder:Reduce only:Cannot increase position"),
    **coded(UNKNOWN,
        # The order matches what it can before the rest is refused with this code: a part may be filled.
        "EOrder:Reduce only:Position is closed",
        # The engine does not state whether it accepted the order before it stopped, or before the deadline.
        "EService:Deadline elapsed", "EService:Unavailable", "EService:Busy", "EService:Timeout",
        "EGeneral:Internal error", "EDatabase:Internal error"),
    **coded(rejected("permission"), "EOrder:Reduce only:Non-PC", "EOrder:Reduce only:Non-ECP",
        "EOrder:Reduce only:One-sided margin", "EBM:limit exceeded", "EOrder:Cannot open position",
        "EOrder:Trading agreement required"),
    **coded(rejected("price_band"), "EOrder:Post only order", "EOrder:Invalid price"),
    **coded(rejected("other"), "EOrder:Tick size check failed", "EOrder:Cannot open opposing position",
        "EGeneral:Invalid arguments"),
    **coded(GONE, "EOrder:Unknown order"),
    **coded(LIMITED, "EOrder:Rate limit exceeded", "EOrder:Domain rate limit exceeded", "EAPI:Rate limit exceeded",
        "EGeneral:Too many requests", "EAuth:Rate limit exceeded", "EAuth:Too many requests"),
    **coded(limited(900.0), "EGeneral:Temporary lockout"),  # after bad signatures or nonces, for fifteen minutes
    **coded(rejected("market_closed"), "EService:Market in cancel_only mode", "EService:Market in post_only mode",
        "EService:Market in limit_only mode", "EQuery:Unknown asset pair", "EQuery:Invalid asset pair"),
    **coded(DENIED, "EAPI:Invalid key", "EAPI:Invalid signature", "EAPI:Feature disabled",
        "EGeneral:Permission denied", "EAccount:Invalid permissions", "EAuth:Account temporary disabled",
        "EAuth:Account unconfirmed", "ETrade:Locked", "ETrade:User Locked", "ESession:Invalid session"),
    **coded(DOWN, "EAPI:Invalid nonce"),
}  # fmt: skip
STATES: Final[Mapping[str, InstrumentState]] = {
    "maintenance": "halted", "cancel_only": "cancel_only", "post_only": "post_only", "limit_only": "limit_only",
    "reduce_only": "reduce_only", "work_in_progress": "halted", "delisted": "delisted",
}  # fmt: skip
"""States of the venue as a whole and of one pair; `online` is not among them."""
LEDGER: Final[Mapping[str, FlowKind]] = {
    "deposit": "deposit", "withdrawal": "withdrawal", "transfer": "transfer", "rollover": "interest",
    "staking": "interest", "reward": "interest", "dividend": "interest", "credit": "rebate",
}  # fmt: skip
ORDER_STATES: Final = {
    "pending": "open", "open": "open", "closed": "closed", "canceled": "canceled", "expired": "expired",
}  # fmt: skip


def refusal_codes(errors: object) -> Iterable[str]:
    """All codes of a refusal, the whole text first, then without its details."""
    for error in errors if isinstance(errors, list) else ():
        parts = str(error).split(":")
        for count in range(len(parts), 1, -1):
            yield ":".join(parts[:count])


def held_amounts(result: object) -> dict[str, tuple[Decimal, Decimal | None]]:
    """The venue's name of an asset → amount held, and amount in open orders; without zeros.

    UnreadableError where an amount is missing: then the equity is unknown.
    """
    if not isinstance(result, Mapping) or not result:
        raise UnreadableError("the answer has no balances")
    found = {}
    for asset, row in result.items():
        balance = row if isinstance(row, Mapping) else {"balance": row}
        # What is owed has a field of its own.
        amount = at_least_zero(balance.get("balance"), f"the balance of {asset}")
        # Only an account with a credit line has the field.
        borrowed = at_least_zero(balance.get("credit_used", 0), f"the credit used in {asset}")
        if amount - borrowed:
            found[str(asset)] = (amount - borrowed, decimal(balance.get("hold_trade")))
    return found


def margin_rows(result: object) -> dict[tuple[str, str], dict[str, Decimal | None]]:
    """Pair and `buy` or `sell` → open volume, its cost, margin, profit and leverage.

    The venue lists each position (an object by id), or the sum of a pair (a list): both are read.
    """
    rows = list(result.values()) if isinstance(result, Mapping) else result
    if not isinstance(rows, list):
        raise UnreadableError("the answer has no positions")
    found: dict[tuple[str, str], dict[str, Decimal | None]] = {}
    for row in rows:
        pair, kind = row.get("pair"), row.get("type")
        if not isinstance(pair, str) or kind not in ("buy", "sell"):
            raise UnreadableError(f"a margin position of {pair} has no side")
        volume = required_number(row.get("vol"), f"the volume of the position in {pair}")
        left = volume - at_least_zero(row.get("vol_closed"), f"the closed volume of the position in {pair}")
        if left < 0:
            raise UnreadableError(f"the position in {pair} has more closed volume than the {volume} that was opened")
        if not left:
            continue
        cost = decimal(row.get("cost"))
        position = {
            "volume": left, "margin": decimal(row.get("margin")), "net": decimal(row.get("net")),
            "cost": None if cost is None else cost * left / volume, "leverage": positive(row.get("leverage")),
        }  # fmt: skip
        earlier = found.get((pair, kind))
        found[pair, kind] = (
            position if earlier is None else {name: _sum(name, earlier[name], position[name]) for name in position}
        )
    return found


def _sum(name: str, one: Decimal | None, other: Decimal | None) -> Decimal | None:
    if name == "leverage":
        return one if one == other else None
    return total((one, other))


def triggered(info: Row) -> dict[str, Any]:
    """Trigger and limit price of an order under ccxt's names, from the venue's own fields."""
    description = info.get("descr") or {}
    kind = str(description.get("ordertype") or info.get("ordertype") or "")
    unattached = {"stopLossPrice": None, "takeProfitPrice": None, "type": kind}
    if not kind.startswith(("stop-loss", "take-profit", "trailing-stop")):
        price = positive(description.get("price")) or positive(info.get("limitprice")) if kind == "limit" else None
        return {"price": price, "triggerPrice": None, **unattached}
    trigger = positive(info.get("stopprice")) or _absolute(description.get("price"))
    if trigger is None:
        raise UnreadableError(f"a {kind} order has no trigger price")
    is_limited = kind.endswith("-limit")
    limit = positive(info.get("limitprice")) or _absolute(description.get("price2")) if is_limited else None
    return {"price": limit, "triggerPrice": trigger, **unattached}


def _absolute(price: object) -> Decimal | None:
    """An absolute price; None for a distance (`+5%`)."""
    text = str(price or "")
    return None if not text or text[0] in "+-#" or text.endswith("%") else positive(text)


def found_order(number: str, row: Row, name: str) -> dict[str, Any]:
    """An order under ccxt's names."""
    status = one_of(ORDER_STATES, row.get("status"), f"state of order {number}")
    return {
        "id": number, "clientOrderId": row.get("cl_ord_id") or name, "status": status, "amount": row.get("vol"),
        "filled": row.get("vol_exec"), "average": positive(row.get("price")), "fee": {"cost": row.get("fee")},
    }  # fmt: skip
