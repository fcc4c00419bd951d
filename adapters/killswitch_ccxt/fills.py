"""Conversion of ccxt's trades to fills, and of its ledger to flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

from killswitch.model.parsing import (
    Row,
    UnreadableError,
    above_zero,
    at_least_zero,
    decimal,
    identifier,
    one_of,
    optional_text,
    required_number,
    required_text,
    time_of,
)
from killswitch.model.snapshot import Fill, Flow, FlowKind
from killswitch_ccxt.orders import ORDER_SIDES

FillOrFlow = TypeVar("FillOrFlow", Fill, Flow)
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
"""ccxt's types of a ledger entry that are flows. Fills state trades, their fees and their realised profit."""


def fills(rows: Iterable[Row], refine: Callable[[Fill, Row], Fill] | None = None) -> tuple[Fill, ...]:
    """Every trade, once.

    `refine` adds what only the venue's own row states: realised profit, cause, position side, and an id of its own
    where the venue numbers the trades of each symbol separately.
    """
    read = ((_fill(row), row.get("info") or {}) for row in rows)
    return unique((fill if refine is None else refine(fill, info) for fill, info in read), "fill ")


def unique(rows: Iterable[FillOrFlow], kind: str = "") -> tuple[FillOrFlow, ...]:
    """Each row once. UnreadableError for one with two different amounts: neither can be trusted."""
    by_id: dict[str, FillOrFlow] = {}
    for row in rows:
        if (known := by_id.setdefault(row.id, row)).amount != row.amount:
            raise UnreadableError(f"{kind}{row.id} is listed twice, with the amounts {known.amount} and {row.amount}")
    return tuple(by_id.values())


def fills_of_order(found: Iterable[Fill], order_id: str) -> tuple[Fill, ...]:
    """The fills of one order. UnreadableError for a fill without an order: it may belong to this one."""
    rows = tuple(found)
    nameless = [fill.id for fill in rows if fill.order is None]
    if nameless:
        raise UnreadableError(f"fills {', '.join(nameless)} have no order id")
    return tuple(fill for fill in rows if fill.order == order_id)


def flows(rows: Iterable[Row]) -> tuple[Flow, ...]:
    """The entries of a ledger that are flows; positive amounts are inflows."""
    found = []
    for row in rows:
        kind = LEDGER.get(str(row.get("type")))
        if kind is None:
            continue
        amount = required_number(row.get("amount"), f"the amount of ledger entry {row.get('id')}")
        direction = row.get("direction")
        if direction is not None:
            amount = -abs(amount) if direction == "out" else abs(amount)
        if amount:
            found.append(_flow(row, kind, amount, row.get("currency") or None))
    return tuple(found)


def completed_moves(rows: Iterable[Row], kind: FlowKind, sign: int) -> tuple[Flow, ...]:
    """Completed deposits, withdrawals or transfers (`ok`), with the sign that they have for the account."""
    return tuple(
        _flow(row, kind, sign * abs(required_number(row.get("amount"), "the amount")), row.get("currency"))
        for row in rows
        if row.get("status") in ("ok", None)
    )


def _flow(row: Row, kind: FlowKind, amount: Decimal, currency: object) -> Flow:
    number = identifier(row.get("id"), f"a {kind}")
    paid_in = required_text(currency, f"the currency of {kind} {number}")
    return Flow(number, time_of(row.get("timestamp"), f"{kind} {number}"), kind, amount, paid_in)


def ledger_flow(
    type_name: str, kinds: Mapping[str, FlowKind | None], what: str, *, number: Any, at: Any, amount: Any, currency: Any
) -> Flow | None:
    """A row of a venue's ledger of the type `type_name`; None for a type that is no flow, and for an amount of zero.

    A type that is not among `kinds` is a rebate or a fee, by its sign: profit or loss. So a loss never hides as money
    that was withdrawn, though money that is withdrawn in a new way counts as a loss until its type is known. Such a
    flow has the type in its id.
    """
    if kinds.get(type_name, "fee") is None:
        return None
    what = f"{what} ({type_name})"
    change = required_number(amount, f"the amount of {what}")
    if not change:
        return None
    name = identifier(number or None, what)  # no venue numbers a row 0
    kind = kinds.get(type_name) or ("rebate" if change > 0 else "fee")
    name = name if type_name in kinds else f"{type_name}:{name}"
    return Flow(name, time_of(at, what), kind, change, required_text(currency, f"the currency of {what}"))


def _fill(row: Row) -> Fill:
    number, symbol = identifier(row.get("id"), "a fill"), row.get("symbol")
    if not isinstance(symbol, str):
        raise UnreadableError(f"fill {number} has no symbol")
    fee, currency = _fee(row)
    return Fill(
        id=number,
        at=time_of(row.get("timestamp"), f"fill {number}"),
        symbol=symbol,
        side=one_of(ORDER_SIDES, row.get("side"), f"side of fill {number}"),
        amount=above_zero(row.get("amount"), f"the amount of fill {number}"),
        price=at_least_zero(row.get("price"), f"the price of fill {number}"),
        order=optional_text(row.get("order")),
        fee=fee,
        fee_currency=currency,
    )


def _fee(row: Row) -> tuple[Decimal | None, str | None]:
    fee = row.get("fee")
    if not isinstance(fee, Mapping) or fee.get("cost") is None:
        return None, None
    currency = fee.get("currency")
    return decimal(fee["cost"]), optional_text(currency)
