"""Drives a paper market with bars: for live runs, and for recordings of books without trades."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Self

from killswitch.lab.bars import BarTable
from killswitch.lab.book import BacktestBook
from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import MarketBar
from killswitch.model.snapshot import Instrument, Snapshot

_NO_LIQUIDATION = MarketRules(liquidates=False)


class Feed:
    """A paper market that holds `book`, and the bars that move it.

    The first bars have closed at creation, and the book is opened at those closes (the first instant by which every
    symbol of the book has a price). Inside a bar the price follows `market.tape.path`.
    """

    def __init__(
        self,
        bars: BarTable,
        book: BacktestBook,
        *,
        seed: int,
        rules: MarketRules | None = None,
        skip: int = 0,
        begins: datetime | None = None,
    ) -> None:
        """`skip` instants are omitted before the book is opened; `begins` replaces the time of the opening.

        BarsError for a symbol that the bars do not have; ValueError for a book that cannot be opened, and for skipping
        every bar.
        """
        self.interval = bars.interval
        self._bars = islice(bars.since(book.symbols), skip, None)
        self._next: tuple[datetime, dict[str, MarketBar]] | None = next(self._bars, None)
        if self._next is None:
            raise ValueError(f"{bars.name}: no bar is left after skipping {skip}")
        closes, first = self._next
        self.market = market_with(book, bars.instruments(), begins or closes, first, seed=seed, rules=rules)
        self._next = next(self._bars, None)

    @property
    def due(self) -> datetime | None:
        """When the next bars close; None at the end."""
        return self._next[0] if self._next else None

    def step(self, at: datetime | None = None) -> datetime | None:
        """Close the next bars, dated `at` instead of their own time if given; return the time, or None at the end."""
        if self._next is None:
            return None
        closes, bars = self._next
        self.market.advance(at or closes, bars)
        self._next = next(self._bars, None)
        return at or closes

    def until(self, at: datetime) -> Self:
        """Close all bars that close at or before `at`."""
        while self._next is not None and self._next[0] <= at:
            self.step()
        return self


def market_with(
    book: BacktestBook,
    instruments: Iterable[Instrument],
    at: datetime,
    bars: Mapping[str, MarketBar],
    *,
    seed: int,
    rules: MarketRules | None,
) -> PaperMarket:
    """Return a market in which `bars` have closed at `at`, and `book` was opened at their closes.

    ValueError for a book that cannot be opened.
    """
    market = PaperMarket(instruments, seed=seed, rules=rules)
    for it in book.accounts:
        market.add_account(it.account, market=it.market, currency=it.currency, wallet=it.equity, venue=it.venue)
    market.advance(at, bars)
    for account in book.accounts:
        for position in account.positions:
            market.open_position(account.account, position.symbol, position.side, position.notional, position.leverage)
    return market


def record(bars: BarTable, book: BacktestBook) -> Iterator[Snapshot]:
    """Yield one snapshot at each bar close, of a book that is opened at the first closes and never traded.

    No orders, fees, funding or liquidations: equity is the book's equity plus the positions' P&L, and may fall below
    zero. Instruments are in the first snapshot. Raises the same errors as `Feed`.
    """
    feed = Feed(bars, book, seed=0, rules=_NO_LIQUIDATION)
    first = True
    at = feed.market.now
    while at is not None:
        accounts = tuple(feed.market.snapshot(name, instruments=first) for name in feed.market.accounts)
        yield Snapshot(as_of=at, accounts=accounts, format="killswitch.snapshot/v1")
        first = False
        at = feed.step()
