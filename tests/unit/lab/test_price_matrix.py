"""The price matrix: the bars of a table, by number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.lab.bars import BarsError, BarTable, Series, read_market
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.model.instant import from_micros

MINUTE = 60_000_000


def series(symbol: str, minutes: list[int], prices: list[float]) -> Series:
    highs, lows = [p * 1.01 for p in prices], [p * 0.99 for p in prices]
    return Series(symbol, [m * MINUTE for m in minutes], prices, highs, lows, prices, [1.0] * len(prices))


@st.composite
def tables(draw) -> BarTable:
    """Two to four symbols with missing minutes, each with its own first bar."""
    found = []
    for symbol in "ABCD"[: draw(st.integers(2, 4))]:
        minutes = sorted(draw(st.sets(st.integers(0, 30), min_size=2, max_size=25)))
        prices = draw(st.lists(st.integers(1, 10_000), min_size=len(minutes), max_size=len(minutes)))
        found.append(series(symbol, minutes, [p / 100 for p in prices]))
    return BarTable("drawn", found)


@given(tables())
def test_a_price_matrix_gives_the_bars_of_its_table_in_order(table) -> None:
    """The same instants and the same bars, carried prices included."""
    matrix = PriceMatrix(table)
    walked = list(table)
    assert len(matrix) == len(walked)
    for number, (closes, bars) in enumerate(walked):
        assert from_micros(int(matrix.at[number])) == closes
        assert matrix.bars(number) == bars
        for place, symbol in enumerate(matrix.symbols):
            if symbol not in bars:
                assert math.isnan(matrix.close[number, place])
                continue
            assert matrix.price(number, place) == bars[symbol].close
            assert float(bars[symbol].low) == matrix.low[number, place]
            assert float(bars[symbol].high) == matrix.high[number, place]


@given(tables(), st.data())
def test_a_book_begins_at_the_same_bar_in_table_and_matrix(table, data) -> None:
    """The first instant by which each of the book's symbols has had a bar."""
    held = frozenset(data.draw(st.sets(st.sampled_from(table.symbols), min_size=1)))
    first, _ = next(table.since(held))
    matrix = PriceMatrix(table)
    assert from_micros(int(matrix.at[matrix.first(held)])) == first


def test_an_unknown_symbol_is_named_with_those_that_exist() -> None:
    """The message says what to write instead."""
    matrix = PriceMatrix(BarTable("two", [series("A", [0, 1], [1.0, 2.0]), series("B", [0, 1], [1.0, 2.0])]))
    with pytest.raises(BarsError, match="two: has no C; it has A, B"):
        matrix.first(frozenset({"A", "C"}))


def test_a_real_market_with_missing_minutes_equals_its_table(shared: Path) -> None:
    """2021-05-19: the files differ in length."""
    table = read_market(shared / "data" / "market" / "2021-05-19_binance-spot_1m")
    matrix = PriceMatrix(table)
    for number, (_, bars) in enumerate(table):
        if number % 97 == 0:
            assert matrix.bars(number) == bars
    assert len(matrix) == len(table)
