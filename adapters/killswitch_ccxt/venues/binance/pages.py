"""Binance's long lists, and what the fills in them come from.

Only the venue's list of forced orders tells them, and it weighs as much as four lists of trades. So each order is
looked up once, and those that we sent never are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import structs

from killswitch.model.snapshot import Fill, FillCause
from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.venues.binance import rows as binance_rows

Row = Mapping[str, Any]
Ask = Callable[[Row], Awaitable[Any]]
PAGE: Final = 1000
"""The most rows of one answer. Unasked the venue gives half as many, or fewer."""
PAGES: Final = 20
"""Answers to one question, at most."""


async def trades(ask: Ask, asked: Row, first: Row) -> list[Row]:
    """Every trade from where `first` begins (a time or a number) on: the venue takes a time for the first page only.

    UnreadableError where the list does not end: half of it would be taken for all that was filled.
    """
    found: dict[str, Row] = {}
    begin = first
    for _ in range(PAGES):
        rows = await ask({**asked, **begin, "limit": PAGE})
        known = len(found)
        for row in rows:
            if found.setdefault(str(row["id"]), row) != row:
                raise UnreadableError(f"trade {row['id']} of {asked.get('symbol')} is told twice, and the two differ")
        if len(rows) < PAGE:
            return list(found.values())
        if len(found) == known:
            break
        begin = {"fromId": max(int(row["id"]) for row in rows) + 1}
    raise UnreadableError(f"trades of {asked.get('symbol')}: the list does not end after {len(found)} rows")


async def in_time(ask: Ask, asked: Row, since: int) -> list[Row]:
    """Every row of a list that begins with the oldest from a time on; UnreadableError where it does not end."""
    found: list[Row] = []
    for _ in range(PAGES):
        rows = await ask({**asked, "startTime": since, "limit": PAGE})
        found.extend(rows)
        if len(rows) < PAGE:
            return found
        newest = int(rows[-1]["time"])
        if newest <= since:
            break
        since = newest
    raise UnreadableError(f"the list does not end after {len(found)} rows")


async def numbered(ask: Ask, asked: Row) -> list[Row]:
    """Every row of a list that is paged by `offset`; UnreadableError where it does not end."""
    found: list[Row] = []
    for page in range(PAGES):
        rows = await ask({**asked, "offset": page * PAGE, "limit": PAGE})
        found.extend(rows)
        if len(rows) < PAGE:
            return found
    raise UnreadableError(f"the list does not end after {len(found)} rows")


FORCED: Final = 100
"""The most forced orders of one answer."""
BEFORE: Final = 60_000
"""Milliseconds before its first fill from which on a forced order is looked for."""
ONE_BY_ONE: Final = 2
"""Up to so many symbols are asked for one by one, at 20 each: all at once weigh 50."""
MOST: Final = 50_000
"""Orders of which is remembered who sent them."""


class Causes:
    """Of one account. `ask` asks the venue for forced orders; `id_of` is its name of a symbol."""

    def __init__(self, ask: Callable[[Row], Awaitable[Sequence[Row]]], id_of: Callable[[str], str]) -> None:
        self._ask = ask
        self._id_of = id_of
        # Orders are numbered for each symbol by itself.
        self._known: dict[tuple[str, str | None], FillCause] = {}

    def sent(self, symbol: str, order_id: str) -> None:
        """An order of ours."""
        self._remember(symbol, order_id, "trade")

    async def told(self, found: Sequence[Fill]) -> tuple[Fill, ...]:
        """The fills, each with its cause."""
        unknown = [fill for fill in found if (fill.symbol, fill.order) not in self._known]
        forced = await self._forced(unknown) if unknown else {}
        for fill in unknown:
            self._remember(fill.symbol, fill.order, forced.get((self._id_of(fill.symbol), fill.order)) or "trade")
        return tuple(structs.replace(fill, cause=self._known.get((fill.symbol, fill.order), "trade")) for fill in found)

    async def _forced(self, found: Sequence[Fill]) -> dict[tuple[str, str | None], FillCause | None]:
        asked = {"startTime": int(min(fill.at for fill in found).timestamp() * 1000) - BEFORE, "limit": FORCED}
        symbols = sorted({fill.symbol for fill in found})
        rows = await self._ask(asked) if len(symbols) > ONE_BY_ONE else ()
        if len(symbols) <= ONE_BY_ONE or len(rows) >= FORCED:
            answers = await asyncio.gather(*(self._ask(asked | {"symbol": self._id_of(it)}) for it in symbols))
            rows = [row for answer in answers for row in answer]
        return {
            (str(row.get("symbol")), str(row["orderId"])): binance_rows.cause(str(row.get("clientOrderId")))
            for row in rows
        }

    def _remember(self, symbol: str, order_id: str | None, cause: FillCause) -> None:
        self._known[symbol, order_id] = cause
        if len(self._known) > MOST:
            self._known.pop(next(iter(self._known)))
