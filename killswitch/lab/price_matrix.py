"""A market's bars as arrays over its instants, with random access for backtests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from killswitch.lab.bars import BarTable, Series, bar_of, exact
from killswitch.market.tape import MarketBar, carried_bar
from killswitch.model.snapshot import Instrument

Floats = NDArray[np.float64]
Instants = NDArray[np.int64]


_MOST_DECIMALS = 12


class PriceSelection(Struct, frozen=True):
    """The prices of some symbols: (symbols × instants), each symbol's adjacent in memory.

    `lowest` and `highest` are of the bar and the previous close, between which a price may jump.
    """

    close: Floats
    lowest: Floats
    highest: Floats


def weighted_sum(prices: Floats, weights: Floats) -> Floats:
    """Return Σ price × weight at each instant; `prices` are (symbols × instants).

    Not `weights @ prices`: BLAS distributes so few symbols over threads, which takes longer than the sum itself, and
    adds in an order that depends on the machine.
    """
    total: Floats = np.einsum("ji,j->i", prices, weights)
    return total


def even_step(at: Instants) -> int | None:
    """Return the distance of neighbours, if it is the same everywhere."""
    steps = np.diff(at)
    if len(steps) == 0:
        return None
    step = int(steps[0])
    return step if bool((steps == step).all()) else None


class PriceMatrix:
    """Random access by instant to the bars of a `BarTable`.

    `at` is when each bar closes (microseconds). `low`, `high` and `close` are (instants × symbols), in the order of
    `symbols`: a symbol without a bar carries its last price, and is NaN before its first one.
    """

    def __init__(self, table: BarTable) -> None:
        self._table = table
        self.name = table.name
        self.interval = table.interval
        self.symbols = table.symbols
        self.instruments: tuple[Instrument, ...] = table.instruments()
        self._series = table.series
        opened = np.asarray(table.opened, dtype=np.int64)
        self.at: Instants = opened + round(self.interval.total_seconds() * 1_000_000)
        self.steps: Instants = np.diff(self.at)
        """The distance of each instant from the one before it."""
        self.step = even_step(self.at)
        """The distance of all neighbours, if it is the same everywhere."""
        own = [np.asarray(one.opened) for one in self._series]
        self._rows = [np.searchsorted(each, opened, side="right") - 1 for each in own]
        self._fresh = [each[np.maximum(rows, 0)] == opened for each, rows in zip(own, self._rows, strict=True)]
        self.close: Floats = self._columns([one.close for one in self._series])
        carried = ~np.stack(self._fresh, axis=1)
        self.low: Floats = np.where(carried, self.close, self._columns([one.low for one in self._series]))
        self.high: Floats = np.where(carried, self.close, self._columns([one.high for one in self._series]))
        self._bars: dict[int, dict[str, MarketBar]] = {}
        self._prices: dict[tuple[int, int], Decimal] = {}
        self._decimals: dict[int, int] = {}
        self._selections: dict[tuple[int, ...], PriceSelection] = {}

    def __len__(self) -> int:
        """The number of instants."""
        return len(self.at)

    def first(self, symbols: frozenset[str]) -> int:
        """Return the first instant by which each of `symbols` has had a bar. BarsError for an unknown symbol."""
        self._table.require(symbols)
        starts = [
            int(np.searchsorted(rows, 0))
            for one, rows in zip(self._series, self._rows, strict=True)
            if one.symbol in symbols
        ]
        return max(starts, default=0)

    def columns(self, symbols: list[str]) -> list[int]:
        """Return the columns of the symbols in the arrays."""
        return [bisect_left(self.symbols, symbol) for symbol in symbols]

    def select(self, columns: tuple[int, ...]) -> PriceSelection:
        """Return the prices of these columns in this order; cached, because many books hold the same symbols."""
        found = self._selections.get(columns)
        if found is None:
            close, low, high = (
                np.ascontiguousarray(table.T[list(columns)]) for table in (self.close, self.low, self.high)
            )
            before = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
            found = self._selections[columns] = PriceSelection(close, np.minimum(before, low), np.maximum(before, high))
        return found

    def price(self, number: int, column: int) -> Decimal:
        """Return a symbol's close in the decimals in which it was written; cached, because every book needs it."""
        found = self._prices.get((number, column))
        if found is None:
            found = self._prices[number, column] = exact(float(self.close[number, column]))
        return found

    def decimals(self, column: int) -> int:
        """Return the decimals in which a symbol's closes are written at most; cached."""
        found = self._decimals.get(column)
        if found is None:
            close = self.close[:, column]
            known, found = close[~np.isnan(close)], 0
            while found < _MOST_DECIMALS and not bool((np.round(known, found) == known).all()):
                found += 1
            self._decimals[column] = found
        return found

    def bars(self, number: int) -> dict[str, MarketBar]:
        """Return the bar of each symbol that has begun by then."""
        found = self._bars.get(number)
        if found is None:
            found = self._bars[number] = {
                one.symbol: self._bar(one, place, number)
                for place, one in enumerate(self._series)
                if self._rows[place][number] >= 0
            }
        return found

    def _bar(self, one: Series, place: int, number: int) -> MarketBar:
        row = int(self._rows[place][number])
        return bar_of(one, row) if self._fresh[place][number] else carried_bar(exact(one.close[row]))

    def _columns(self, fields: Sequence[Sequence[float]]) -> Floats:
        columns = []
        for field, rows in zip(fields, self._rows, strict=True):
            values = np.asarray(field, dtype=np.float64)[np.maximum(rows, 0)]
            columns.append(np.where(rows < 0, np.nan, values))
        return np.stack(columns, axis=1)
