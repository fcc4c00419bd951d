"""Lists of Binance that are longer than one answer: read to their end, or not believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from killswitch_ccxt.numbers import UnreadableError

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
