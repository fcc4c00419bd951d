"""Bybit's transaction log, read in portions: what is too much for one reading, the next ones go on with.

The log has a row for every fill. Each span of it is asked for page by page, and the cursor of the next page is kept, so
that nothing has to be known of the order in which rows come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from killswitch.model.snapshot import Flow
from killswitch.model.venue import VenueDownError
from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.parts import OVERLAP
from killswitch_ccxt.venues.bybit_log import flow_of

MOST_PAGES: Final = 40
"""Pages of one reading; a second of the log's own limit allows 30 of them."""
ROWS: Final = 50
"""Rows of a page: the most that the venue gives."""
WEEK: Final = 7 * 86_400_000
"""Milliseconds that one question may span. One without an end would stop after a day."""
AHEAD: Final = 60_000
"""Milliseconds beyond our own time that are asked for: the venue's clock may be ahead."""

Page = tuple[Sequence[Mapping[str, Any]], str | None]
"""Rows, and the cursor of the next page; None after the last one."""


@dataclass(slots=True)
class _Span:
    """Rows from `begin` to `end`, in ms; `cursor`: of the page that is next, None where none has been read."""

    begin: int
    end: int
    cursor: str | None = None


class Portions:
    """One account's log."""

    def __init__(self, page: Callable[[dict[str, Any]], Awaitable[Page]]) -> None:
        self._page = page
        self._left: list[_Span] = []
        self._until = 0
        """Up to when, in ms, all is read, or lies in what is left."""
        self._found: dict[str, Flow] = {}

    async def flows(self, since: int, now: int) -> tuple[Flow, ...]:
        """Those since then, and those of earlier questions that were not answered to the end. Times in ms.

        UnreadableError where rows are left for the next reading; what was read is kept for it.
        """
        self._ask_for(since, now)
        await self._first(self._left[0])
        for _ in range(MOST_PAGES - 1):
            if self._left:
                await self._one(self._left[0])
        if self._left:
            raise UnreadableError(
                f"the transaction log has more than {MOST_PAGES * ROWS:,} rows that are not read yet (each fill is "
                "one): the next reading goes on where this one ended"
            )
        return tuple(self._found.values())

    def _ask_for(self, since: int, now: int) -> None:
        if not self._left:
            self._found, begin = {}, since
        elif self._left[-1].cursor is None:
            begin = self._left.pop().begin  # of which nothing was read: it may as well be longer
        else:
            begin = self._until - OVERLAP
        self._left += [_Span(it, min(it + WEEK, now + AHEAD)) for it in range(begin, now + 1, WEEK)]
        self._until = now

    async def _first(self, span: _Span) -> None:
        """Where the venue does not take the cursor of an earlier reading any more, the next one begins anew."""
        try:
            await self._one(span)
        except VenueDownError:
            span.cursor = None
            raise

    async def _one(self, span: _Span) -> None:
        asked = {"accountType": "UNIFIED", "startTime": span.begin, "endTime": span.end, "limit": ROWS}
        rows, cursor = await self._page({**asked, **({"cursor": span.cursor} if span.cursor else {})})
        for row in rows:
            flow = flow_of(row)
            if flow is not None:
                self._found[flow.id] = flow
        span.cursor = cursor
        if cursor is None:
            self._left.remove(span)
