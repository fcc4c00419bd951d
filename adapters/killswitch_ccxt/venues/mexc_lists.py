"""MEXC's lists, read page by page to their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from killswitch_ccxt.client import Client
from killswitch_ccxt.dialect import Row
from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.venues.mexc_rows import page_of, rows_of

PAGE: Final = 100
PAGES: Final = 20


async def every_row(client: Client, method: str, asked: Mapping[str, Any]) -> list[Row]:
    """Every row of a list. UnreadableError where it does not come to an end."""
    found: list[Row] = []
    for page in range(1, PAGES + 1):
        rows = rows_of(await client.call(method, {**asked, "page_num": page, "page_size": PAGE}))
        found += rows
        if len(rows) < PAGE:
            return found
    raise UnreadableError(f"{method}: more than {PAGES * PAGE} rows")


async def back_to(client: Client, method: str, since: int, at: str) -> list[Row]:
    """Rows of a list that begins with the newest, back to `since` (UTC ms) by their field `at`.

    UnreadableError where that is too far back.
    """
    found: list[Row] = []
    for page in range(1, PAGES + 1):
        rows = page_of(await client.call(method, {"page_num": page, "page_size": PAGE}))
        found += rows
        if len(rows) < PAGE or int(rows[-1].get(at) or since) < since:
            return found
    raise UnreadableError(f"{method}: more than {PAGES * PAGE} rows since the last reading")
