"""Counts, durations and sums over all orders of a close; sums say which part of them is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, get_args

from msgspec import Struct

from killswitch.incident.record.order_outcomes import OrderOutcome

Sum = Literal["realised", "fees", "slippage", "delay"]
_FIELDS: dict[Sum, str] = {"realised": "realised", "fees": "fee", "slippage": "slippage", "delay": "delay"}

REASONS = 3
"""The number of reasons for unknown fees that are listed; each order has its own."""
POSITION_UNREAD = "the position was not read before the decision, as with --force: its mark and entry price are unknown"
MARK_UNKNOWN = "the mark is unknown at the time of sending: the account could not be read"


class Missing(Struct, frozen=True):
    """An unknown sum: the sum of its known parts, and the numbers (from 1) of the orders without one.

    `known` is null where no order has a known part: then the sum is unknown, which is not 0. `swept` says that fills of
    a whole-book request are missing as well.
    """

    what: Sum
    known: Decimal | None
    orders: tuple[int, ...]
    swept: bool = False
    why: str | None = None
    """Why the part is unknown, where that is known: the position had not been read, or what the venue answered about
    fees."""


class Totals(Struct, frozen=True):
    """Counts over all orders of a close.

    `unknown` have no final answer yet, including detached and abandoned orders. `kept`, `exceeded` and `unbounded`
    count filled orders with a declared slippage: within it, beyond it, and sent without a limit (these are also in one
    of the other two, where their price is known).
    """

    orders: int = 0
    filled: int = 0
    unknown: int = 0
    set_aside: int = 0
    abandoned: int = 0
    kept: int = 0
    exceeded: int = 0
    unbounded: int = 0
    hops: int = 0
    hedges: int = 0
    first_sent: datetime | None = None
    last_verified: datetime | None = None
    took: float | None = None
    """Seconds from the first order to the last snapshot that showed a position; null while the close is under way,
    and for several closes, each of which has its own."""


def count_orders(orders: Sequence[OrderOutcome], verified: Sequence[datetime], *, ended: bool) -> Totals:
    """Count the orders. `verified` is when the venue last showed each position; `ended` says that all work has
    ended."""
    bounds = [order.bound for order in orders if order.bound is not None and order.filled]
    first = min((order.sent_at for order in orders), default=None)
    last = max(verified, default=None)
    duration = None
    if ended and first is not None and last is not None and last >= first:
        duration = (last - first).total_seconds()
    return Totals(
        orders=len(orders),
        filled=sum(bool(order.filled) for order in orders),
        unknown=sum(order.fate != "final" for order in orders),
        set_aside=sum(order.fate == "set aside" for order in orders),
        abandoned=sum(order.fate == "abandoned" for order in orders),
        kept=sum(bound.kept is True for bound in bounds),
        exceeded=sum(bound.kept is False for bound in bounds),
        unbounded=sum(not bound.sent for bound in bounds),
        hops=sum(order.purpose == "hop" for order in orders),
        hedges=sum(order.purpose == "hedge" for order in orders),
        first_sent=first,
        last_verified=last,
        took=duration,
    )


def add_up(orders: Sequence[OrderOutcome], *, has_whole_book: bool) -> dict[str, Any]:
    """Return each sum over the orders, None if any part or status is unknown; and `missing`, what is unknown.

    Orders are numbered from 1, in the order of sending. `has_whole_book` says that a whole-book request closed
    something as well.
    """
    sums: dict[str, Any] = {}
    missing = []
    for what in get_args(Sum):
        known, unknown = _added(what, orders)
        is_known = not unknown and not has_whole_book
        sums[what] = (known or Decimal(0)) if is_known else None
        if not is_known:
            missing.append(
                Missing(what, known, tuple(unknown), has_whole_book, _why(what, [orders[n - 1] for n in unknown]))
            )
    return {**sums, "missing": tuple(missing)}


def _why(what: Sum, lacking: Sequence[OrderOutcome]) -> str | None:
    """Return why a part of the sum is unknown, where that is known; for fees, the first few reasons."""
    if what in ("slippage", "delay") and any(_is_unmarked(order, order.arrival_mark) for order in lacking):
        return MARK_UNKNOWN
    if what != "fees":
        return POSITION_UNREAD if any(_is_unmarked(order, order.mark) for order in lacking) else None
    reasons = list(dict.fromkeys(order.fee_unknown for order in lacking if isinstance(order.fee_unknown, str)))
    more = len(reasons) - REASONS
    return "; ".join(reasons[:REASONS]) + (f"; and {more} more" if more > 0 else "") if reasons else None


def _is_unmarked(order: OrderOutcome, mark: Decimal | None) -> bool:
    """Whether it was filled at a known price while the `mark` of its position is unknown."""
    return bool(order.filled) and order.fate == "final" and order.price is not None and mark is None


def _added(what: Sum, orders: Sequence[OrderOutcome]) -> tuple[Decimal | None, list[int]]:
    """Return the known part of the sum, and the numbers of the orders without one."""
    known: Decimal | None = None
    unknown = []
    for position, order in enumerate(orders, start=1):
        part = _part(what, order)
        if part is None:
            unknown.append(position)
        elif order.filled and not _is_no_part(what, order):
            known = part + (known or Decimal(0))
    return known, unknown


def _part(what: Sum, order: OrderOutcome) -> Decimal | None:
    """Return what one order adds; 0 where the venue did nothing, or the order does not count for the sum."""
    if order.fate != "final":
        return None
    if order.did_nothing or order.filled == 0 or _is_no_part(what, order):
        return Decimal(0)
    part: Decimal | None = getattr(order, _FIELDS[what])
    return None if order.filled is None else part


def _is_no_part(what: Sum, order: OrderOutcome) -> bool:
    """Whether such orders do not count for the sum: a hedge opens a position and realises nothing."""
    return what == "realised" and order.purpose == "hedge"
