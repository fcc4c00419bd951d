"""The prices of one account's snapshots: quotes of what is held and watched, and marks of what was closed lately.

A snapshot has no price with a later mark: a quote completes a position where both are of one moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Final

from killswitch.model.snapshot import Mark, Position, WatchedPrice
from killswitch.model.venue import AccountSpec, VenueDownError
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.instruments import Quote, watched_price
from killswitch_ccxt.parts import ReadPart, SnapshotPart
from killswitch_ccxt.positions import with_quote

ONE_MOMENT: Final = 1.0
"""Largest age, in seconds, of a price relative to the mark of the same position."""
WATCH_KEPT: Final = 2.0
"""Intervals after which watched prices are unknown, if they cannot be fetched again."""
MARKS_TIMEOUT: Final = 0.5
"""Timeout, in seconds, of the marks of positions that were closed lately."""


class SnapshotPrices:
    """The quotes and marks of one account, each with its age. Times are seconds of the event loop."""

    def __init__(self, dialect: Dialect, spec: AccountSpec, phase: float, read: ReadPart) -> None:
        self._dialect = dialect
        self._spec = spec
        self._read = read
        ages = dialect.ages
        quotes_age = ages.watch if ages.quotes is None and spec.watch else ages.quotes or 0.0
        self._quotes: SnapshotPart[Mapping[str, Quote]] = SnapshotPart(quotes_age, phase)
        self._marks: SnapshotPart[Mapping[str, Decimal]] = SnapshotPart(ONE_MOMENT)

    def expire(self) -> None:
        """Make the quotes due at the next snapshot, whatever their age."""
        self._quotes.due = float("-inf")

    # Requests

    def due(
        self, positions: Iterable[Position], closed: Sequence[str], requested: float, now: float
    ) -> Iterator[Awaitable[object]]:
        """The requests that are due. `closed`: symbols that were closed lately, whose marks belong to the snapshot that
        was `requested`."""
        if self._quotes.due <= now and (symbols := self._quoted_symbols(positions)):
            fetch_quotes = self._dialect.watched if self._spec.watch else self._dialect.quotes
            yield self._read(self._quotes, partial(fetch_quotes, symbols))
        if set(closed) - set(self._marks_since(requested)):
            yield self.read_marks(closed)

    async def read_marks(self, symbols: Sequence[str]) -> None:
        """Fetch the marks of symbols that were closed lately, up to a timeout."""

        async def fetch() -> Mapping[str, Decimal]:
            try:
                async with asyncio.timeout(MARKS_TIMEOUT):
                    return await self._dialect.marks(symbols)
            except TimeoutError:
                raise VenueDownError(f"no marks within {MARKS_TIMEOUT} s") from None

        await self._read(self._marks, fetch)

    def _quoted_symbols(self, positions: Iterable[Position]) -> list[str]:
        """The symbols whose quotes are fetched together: the watch list, and what is held where positions lack them."""
        held = () if self._dialect.ages.quotes is None else (it.symbol for it in positions)
        return sorted({*held, *self._spec.watch} & self._dialect.rules.keys())

    # Results

    def marks(self, requested: float) -> tuple[Mark, ...]:
        """The marks of symbols that were closed lately, as fetched for the snapshot that was `requested`."""
        return tuple(Mark(symbol, mark) for symbol, mark in sorted(self._marks_since(requested).items()))

    def _marks_since(self, requested: float) -> Mapping[str, Decimal]:
        return self._marks.value or {} if self._marks.at >= requested else {}

    def priced(self, position: Position, requested: float, now: float) -> Position:
        """The position with the prices of the moment of its mark."""
        quote = (self._quotes.recent_value(now) or {}).get(position.symbol)
        if quote is None or (position.mark_price is not None and self._quotes.at < requested - ONE_MOMENT):
            return position
        return with_quote(position, quote, self._dialect.rules[position.symbol], self._spec.currency)

    def watched(self, now: float) -> tuple[WatchedPrice, ...] | None:
        """The prices of the watch list; None without one, and while they are older than twice their interval."""
        if not self._spec.watch or now - self._quotes.at > WATCH_KEPT * self._quotes.every:
            return None
        found, is_spot = self._quotes.value or {}, self._dialect.is_spot
        symbols = (symbol for symbol in self._spec.watch if symbol in found)
        return tuple(watched_price(symbol, found[symbol], is_spot=is_spot) for symbol in symbols)

    def remarks(self) -> list[str]:
        """Why prices of the watch list are unknown."""
        unknown = [symbol for symbol in self._spec.watch if symbol not in self._dialect.rules]
        found = [f"watch: the venue's rules have no {', '.join(unknown)}"] if unknown else []
        failure = self._quotes.failure if self._spec.watch else None
        return [*found, *([f"watch: {failure}"] if failure else [])]
