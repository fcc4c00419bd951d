"""Prices of markets in one snapshot: of positions, and of the account's watch list, whether or not it is held.

Prices that are compared with each other come from one answer: bid and ask, or mark and index, of two answers differ by
what the market moved between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from statistics import median

from msgspec import Struct

from killswitch.model.instant import SECOND, to_micros
from killswitch.model.magnitude import sane
from killswitch.model.snapshot import WatchedPrice
from killswitch.valuation.account_facts import AccountFacts, PriceRow
from killswitch.valuation.position_measures import ZERO

PRICE_TOLERANCE = Decimal("0.05")
"""Marks of liquid contracts stay within 1–2% of the index even in a crash; a stray print is off by tens."""
ONE_TIME = 5 * SECOND
"""The most by which the times of prices that are compared between venues may differ (microseconds)."""


def mark_of(facts: AccountFacts, symbol: str) -> tuple[float, int | None] | None:
    """The mark of a symbol and its venue time, as in `marks_of`; None without one."""
    only = None if facts.account.watched else facts.held.only_row_of(symbol)
    mark = None if only is None else only.mark_price
    if only is not None and mark is not None and sane(mark) and mark > ZERO:
        return float(mark), facts.printed_at(only)
    found: tuple[float, int | None] | None = None
    for row in facts.priced(symbol):
        if row.mark_price is None or row.mark_price <= ZERO:
            continue
        at = facts.printed_at(row)
        if found is None or (found[1] is None and at is not None and isinstance(row, WatchedPrice)):
            found = float(row.mark_price), at
    if found is None and facts.account.marks:
        closed = (it.mark_price for it in facts.account.marks if it.symbol == symbol)
        found = next(((float(mark), None) for mark in closed if ZERO < mark < _HIGHEST), None)
    return found


def marks_of(facts: AccountFacts) -> dict[str, tuple[float, int | None]]:
    """Symbol → mark and its venue time: of positions first, then of the watch list, then of what was closed lately.

    The watch list is before a position whose mark has no time.
    """
    account = facts.account
    if facts.held.sizes.are_plain and not (account.watched or account.marks):
        plain = _of_positions(facts)
        if plain is not None:
            return plain
    found: dict[str, tuple[float, int | None]] = {}
    common = facts.marked_at
    for position in facts.held.merged:
        mark = position.mark_price
        if mark is not None and mark > ZERO and position.symbol not in found:
            at = common if position.mark_at is None else to_micros(position.mark_at)
            found[position.symbol] = float(mark), at
    for row in facts.watched:
        is_timed = row.at is not None and found.get(row.symbol, (0.0, 0))[1] is None
        if row.mark_price is not None and row.mark_price > ZERO and (is_timed or row.symbol not in found):
            found[row.symbol] = float(row.mark_price), None if row.at is None else to_micros(row.at)
    for closed in account.marks or ():
        if ZERO < closed.mark_price < _HIGHEST and closed.symbol not in found:
            found[closed.symbol] = float(closed.mark_price), None
    return found


def _of_positions(facts: AccountFacts) -> dict[str, tuple[float, int | None]] | None:
    """The marks of positions that are all of different symbols and have one; else None, in a fraction of the time."""
    sizes, marks = facts.held.sizes, facts.held.floats("mark")
    if len(sizes.places) < len(marks) or math.isnan(marks.sum()):
        return None
    common, last, at = facts.marked_at, None, None
    times = []
    for row in facts.held.reported:
        if row.mark_at is not last:
            last = row.mark_at
            at = None if last is None else to_micros(last)
        times.append(common if last is None else at)
    return dict(zip(sizes.symbols, zip(marks.tolist(), times, strict=True), strict=True))


_HIGHEST = Decimal("1e30")


def market_name(symbol: str) -> str | None:
    """Base and quote of a symbol, `BTC/USDT` of `BTC/USDT:USDT`, `BTC_USDT` and `BTC-USDT`; None for a dated contract.

    The price of a dated contract differs from the others by its basis.
    """
    pair, _, settled = symbol.partition(":")
    if "-" in settled:
        return None
    parts = pair.replace("_", "/").replace("-", "/").split("/")
    return "/".join(parts) if len(parts) <= 2 else None


class VenuePrice(Struct, frozen=True):
    """The mark of a market at one venue: the median of its accounts' prices, and the time of the newest."""

    price: Decimal
    at: int


def prices_by_venue(
    market: str, facts: Iterable[AccountFacts], as_of: int, stale_after: int | None
) -> Mapping[str, VenuePrice]:
    """Venue → its price of the market; without accounts that are not usable, and prices older than `stale_after`."""
    found: dict[str, list[tuple[Decimal, int]]] = {}
    for each in facts:
        if not each.is_priced(as_of, stale_after):
            continue
        rows: tuple[PriceRow, ...] = (*each.held.merged, *each.watched)
        for row in rows:
            mark = row.mark_price
            if mark is None or mark <= ZERO or market_name(row.symbol) != market:
                continue
            at = each.printed_at(row)
            at = at if at is not None else each.observed if each.observed is not None else as_of
            if stale_after is None or as_of - at <= stale_after:
                found.setdefault(each.account.venue, []).append((mark, at))
    return {
        venue: VenuePrice(median(price for price, _ in seen), max(at for _, at in seen))
        for venue, seen in found.items()
    }
