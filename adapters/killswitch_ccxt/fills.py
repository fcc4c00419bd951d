"""ccxt's trades → our fills, and its ledger → our flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from killswitch.model.snapshot import Fill, Flow, FlowKind, OrderSide
from killswitch_ccxt.numbers import UnreadableError, above_zero, at_least_zero, decimal, instant, needed, text

LEDGER: Final[Mapping[str, FlowKind]] = {
    "deposit": "deposit",
    "withdrawal": "withdrawal",
    "transfer": "transfer",
    "funding": "funding",
    "interest": "interest",
    "rebate": "rebate",
    "cashback": "rebate",
    "referral": "rebate",
    "insurance": "insurance",
}
"""ccxt's kinds of a ledger entry that are flows. Trades, their fees and what they realised are told by fills."""


def fills(
    rows: Iterable[Mapping[str, Any]], refine: Callable[[Fill, Mapping[str, Any]], Fill] | None = None
) -> tuple[Fill, ...]:
    """Every trade, once. `refine` adds what only the venue's own row tells: realised profit, cause, position
    side; also an id of its own where the venue counts the trades of each symbol by themselves."""
    read = ((_fill(row), row.get("info") or {}) for row in rows)
    return once(fill if refine is None else refine(fill, info) for fill, info in read)


def once(found: Iterable[Fill]) -> tuple[Fill, ...]:
    """Each of them once. UnreadableError for one that is told of two sizes: which is true, nobody knows."""
    by_id: dict[str, Fill] = {}
    for fill in found:
        if (known := by_id.setdefault(fill.id, fill)).amount != fill.amount:
            raise UnreadableError(f"fill {fill.id} is told twice, once of {known.amount} and once of {fill.amount}")
    return tuple(by_id.values())


def of_order(found: Iterable[Fill], order_id: str) -> tuple[Fill, ...]:
    """Those of one order. UnreadableError where one does not say of which it is: it may be the one asked for."""
    rows = tuple(found)
    nameless = [fill.id for fill in rows if fill.order is None]
    if nameless:
        raise UnreadableError(f"fills {', '.join(nameless)} do not say of which order they are")
    return tuple(fill for fill in rows if fill.order == order_id)


def flows(
    rows: Iterable[Mapping[str, Any]], kinds: Mapping[str, FlowKind] = LEDGER, currency: str | None = None
) -> tuple[Flow, ...]:
    """The entries of a ledger that are flows, signed: + came in. `currency`: of no other one."""
    found = []
    for row in rows:
        kind = kinds.get(str(row.get("type")))
        if kind is None or (currency is not None and row.get("currency") not in (currency, None)):
            continue
        amount = needed(row.get("amount"), f"the amount of ledger entry {row.get('id')}")
        direction = row.get("direction")
        if direction is not None:
            amount = -abs(amount) if direction == "out" else abs(amount)
        if amount:
            found.append(Flow(_id(row), _at(row), kind, amount, str(row.get("currency") or currency)))
    return tuple(found)


def moved(rows: Iterable[Mapping[str, Any]], kind: FlowKind, sign: int) -> tuple[Flow, ...]:
    """Deposits, withdrawals or transfers that have arrived (`ok`), with the sign that they have for the account."""
    return tuple(
        Flow(_id(row), _at(row), kind, sign * abs(needed(row.get("amount"), "the amount")), str(row.get("currency")))
        for row in rows
        if row.get("status") in ("ok", None)
    )


def _fill(row: Mapping[str, Any]) -> Fill:
    number, symbol = _id(row), row.get("symbol")
    side = row.get("side")
    if not isinstance(symbol, str) or side not in ("buy", "sell"):
        raise UnreadableError(f"fill {number}: it has no symbol or no side")
    order_side: OrderSide = "buy" if side == "buy" else "sell"
    fee, currency = _fee(row)
    return Fill(
        id=number,
        at=_at(row),
        symbol=symbol,
        side=order_side,
        amount=above_zero(row.get("amount"), f"the amount of fill {number}"),
        price=at_least_zero(row.get("price"), f"the price of fill {number}"),
        order=text(row.get("order")),
        fee=fee,
        fee_currency=currency,
    )


def _fee(row: Mapping[str, Any]) -> tuple[Decimal | None, str | None]:
    fee = row.get("fee")
    if not isinstance(fee, Mapping) or fee.get("cost") is None:
        return None, None
    currency = fee.get("currency")
    return decimal(fee["cost"]), text(currency)


def _id(row: Mapping[str, Any]) -> str:
    number = text(row.get("id"))
    if number is None:
        raise UnreadableError("a row without an id")
    return number


def _at(row: Mapping[str, Any]) -> datetime:
    at = instant(row.get("timestamp"))
    if at is None:
        raise UnreadableError(f"row {row.get('id')}: it has no time")
    return at
