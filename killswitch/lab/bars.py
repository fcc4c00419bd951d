"""Price bars: a market folder (one file a symbol, Parquet or CSV), aligned over its symbols."""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from killswitch.market.rules import derived
from killswitch.market.tape import MarketBar, carried_bar
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Instrument

COLUMNS = ("ts", "open", "high", "low", "close", "volume")
_MILLISECOND = 1000
_FINEST_DECIMALS = 10
"""More decimals are the noise of binary floats, not a venue's tick."""


class BarsError(Exception):
    """Bars cannot be used: the message has the file, the row where there is one, and the reason."""


class Series(Struct, frozen=True):
    """The bars of one symbol as the venue gave them: `opened` in microseconds, rising; the rest row by row."""

    symbol: str
    opened: Sequence[int]
    open: Sequence[float]
    high: Sequence[float]
    low: Sequence[float]
    close: Sequence[float]
    volume: Sequence[float]


class BarTable:
    """Bars of several symbols over the same instants.

    An instant is one at which at least one symbol has a bar. A symbol without one there carries its last price
    (`Bar.carried`, volume 0); before its first bar it is absent. Where no symbol has a bar, as in a venue's outage,
    there is no instant: no bars are invented.
    """

    def __init__(self, name: str, series: Sequence[Series]) -> None:
        """BarsError for no series, or for fewer than two bars (they define the interval)."""
        self.name = name
        self.series = tuple(sorted(series, key=lambda one: one.symbol))
        """The bars of each symbol, in the order of `symbols`."""
        self.symbols = tuple(one.symbol for one in self.series)
        self.opened: Sequence[int] = sorted({opened for one in self.series for opened in one.opened})
        """When the bars of each instant opened: microseconds, rising."""
        if len(self.opened) < 2:
            raise BarsError(f"{name}: fewer than two bars")
        steps = Counter(b - a for a, b in pairwise(self.opened))
        self.interval = timedelta(microseconds=steps.most_common(1)[0][0])
        """The commonest distance of two bars."""

    def __len__(self) -> int:
        """The number of instants."""
        return len(self.opened)

    def __iter__(self) -> Iterator[tuple[datetime, dict[str, MarketBar]]]:
        """Yield (when the bars closed, the bar of each symbol), oldest first."""
        return self._walk(0)

    def require(self, symbols: frozenset[str]) -> None:
        """BarsError for a symbol that the table does not have."""
        absent = sorted(symbols - set(self.symbols))
        if absent:
            raise BarsError(f"{self.name}: has no {', '.join(absent)}; it has {', '.join(self.symbols)}")

    def since(self, symbols: frozenset[str]) -> Iterator[tuple[datetime, dict[str, MarketBar]]]:
        """Iterate from the first instant by which every one of `symbols` has had a bar.

        BarsError for a symbol that the table does not have.
        """
        self.require(symbols)
        first = max((one.opened[0] for one in self.series if one.symbol in symbols), default=self.opened[0])
        return self._walk(bisect_left(self.opened, first))

    def instruments(self) -> tuple[Instrument, ...]:
        """Derive rules from the prices: the tick is the finest decimal that any price of the symbol uses."""
        return tuple(derived(one.symbol, exact(one.close[0]), _price_step(one)) for one in self.series)

    def _walk(self, first: int) -> Iterator[tuple[datetime, dict[str, MarketBar]]]:
        rows = {one.symbol: 0 for one in self.series}
        last: dict[str, Decimal] = {}
        for number, opened in enumerate(self.opened):
            bars: dict[str, MarketBar] = {}
            for one in self.series:
                row = rows[one.symbol]
                if row < len(one.opened) and one.opened[row] == opened:
                    rows[one.symbol] = row + 1
                    bar = bars[one.symbol] = bar_of(one, row)
                    last[one.symbol] = bar.close
                elif one.symbol in last:
                    bars[one.symbol] = carried_bar(last[one.symbol])
            if number >= first:
                yield from_micros(opened) + self.interval, bars


def read_market(folder: Path) -> BarTable:
    """Read the market in `folder`: files `SYMBOL.parquet` or `SYMBOL.csv` with the columns `ts` (bar open, UTC
    milliseconds, rising), `open`, `high`, `low`, `close` (above zero) and `volume` (not below zero).

    BarsError if a file differs, or there is none.
    """
    if not folder.is_dir():
        raise BarsError(f"{folder}: no such folder")
    files = sorted(path for path in folder.iterdir() if path.suffix in {".parquet", ".csv"})
    if not files:
        raise BarsError(f"{folder}: holds no .parquet and no .csv file")
    twice = [stem for stem, count in Counter(path.stem for path in files).items() if count > 1]
    if twice:
        raise BarsError(f"{folder}: {', '.join(twice)} is there as .parquet and as .csv")
    return BarTable(folder.name, [_read(path) for path in files])


def _read(path: Path) -> Series:
    columns = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    if not columns["ts"]:
        raise BarsError(f"{path}: holds no bar")
    _check(path, columns)
    prices = {name: columns[name] for name in COLUMNS[1:]}
    return Series(path.stem, [round(ts) * _MILLISECOND for ts in columns["ts"]], **prices)


def _read_parquet(path: Path) -> dict[str, list[float]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise BarsError(f"{path}: reading Parquet needs pyarrow; install killswitch[market]") from error
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise BarsError(f"{path}: {error}") from error
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise BarsError(f"{path}: has no column {', '.join(absent)}")
    return {name: table.column(name).to_pylist() for name in COLUMNS}


def _read_csv(path: Path) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    try:
        with path.open(encoding="utf-8", newline="") as source:
            rows = csv.DictReader(source)
            absent = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if absent:
                raise BarsError(f"{path}: has no column {', '.join(absent)}")
            for row in rows:
                for name in COLUMNS:
                    columns[name].append(_number(path, rows.line_num, name, row[name]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BarsError(f"{path}: {error}") from error
    return columns


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        return int(text or "") if column == "ts" else float(text or "")
    except ValueError as error:
        raise BarsError(f"{path}:{line}: {column} is not a number: {text!r}") from error


def _check(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    before = -math.inf
    for row, values in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True), start=1):
        fault = _fault(before, values)
        if fault:
            raise BarsError(f"{path}: row {row}: {fault}")
        before = values[0]


def _fault(before: float, values: tuple[float | None, ...]) -> str | None:
    """Return what is wrong with one row, or None."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) < len(values):
        return "a value is missing or not a number"
    ts, opened, high, low, close, volume = known
    if ts <= before:
        return "ts is not later than that of the row before"
    return bar_fault(opened, high, low, close, volume)


N = TypeVar("N", float, Decimal)


def bar_fault(opened: N, high: N, low: N, close: N, volume: N) -> str | None:
    """Return why these numbers are not a bar, or None."""
    if not 0 < low <= min(opened, close) <= max(opened, close) <= high:
        return f"not a bar: open {opened}, high {high}, low {low}, close {close}"
    return f"volume {volume} is below zero" if volume < 0 else None


def bar_of(one: Series, row: int) -> MarketBar:
    """Return the bar in `row` of a symbol, in the decimals in which it was written."""
    numbers = (one.open, one.high, one.low, one.close, one.volume)
    opened, high, low, close, volume = (exact(column[row]) for column in numbers)
    return MarketBar(opened, high, low, close, volume)


def exact(value: float) -> Decimal:
    """Return the decimal that `value` was written as: the shortest that reads back as the same float."""
    return Decimal(repr(value))


def _price_step(one: Series) -> Decimal:
    decimals = 0
    for prices in (one.open, one.high, one.low, one.close):
        for price in prices:
            written = repr(price)
            if "e" in written:
                exponent = Decimal(written).as_tuple().exponent
                decimals = max(decimals, -exponent if isinstance(exponent, int) else 0)
            elif not written.endswith(".0"):
                decimals = max(decimals, len(written) - written.index(".") - 1)
    return Decimal(1).scaleb(-min(decimals, _FINEST_DECIMALS))
