"""Bars that are walked in finer steps: nothing recorded is lost, and symbols move together as they did."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.lab.bars import BarTable, Series
from killswitch.lab.crash import crash_bars
from killswitch.lab.price_matrix import PriceMatrix
from tests.evidence.bridging import bridged
from tests.evidence.markets import MINUTE, crash_begin, interval_of, joined

FIVE = 5 * MINUTE
STEP = MINUTE // 2
CENTS = st.integers(1, 400)


@st.composite
def tables(draw: st.DrawFn) -> BarTable:
    """Bars of five minutes, with gaps between close and open, and with extremes at their ends and beyond."""
    series = []
    for symbol in draw(st.sampled_from((("A",), ("A", "B")))):
        rows = draw(st.lists(st.tuples(CENTS, CENTS, st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=8))
        opened, close = ([row[place] / 100 for row in rows] for place in (0, 1))
        high = [max(row[:2]) / 100 + row[2] / 100 for row in rows]
        low = [max(0.01, round(min(row[:2]) / 100 - row[3] / 100, 2)) for row in rows]
        skipped = draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 2))
        kept = [number for number in range(len(rows)) if number not in skipped]
        at = [number * FIVE for number in kept]
        a, b, c, d = ([round(column[number], 2) for number in kept] for column in (opened, high, low, close))
        series.append(Series(symbol, at, a, b, c, d, [float(n) for n in kept]))
    return BarTable("drawn", series)


@given(tables(), st.integers(0, 3))
@settings(max_examples=60)
def test_the_steps_of_a_bar_have_its_open_high_low_close_and_volume(table: BarTable, seed: int) -> None:
    """To the last decimal; each step is a bar, in the symbol's decimals, and none is where no bar was."""
    interval = interval_of(table)
    for one, fine in zip(table.series, bridged(table, STEP, seed).series, strict=True):
        steps = interval // STEP
        opened, high, low, close, volume = (
            np.asarray(each).reshape(-1, steps) for each in (fine.open, fine.high, fine.low, fine.close, fine.volume)
        )
        assert np.asarray(fine.opened).reshape(-1, steps)[:, 0].tolist() == list(one.opened)
        assert (opened[:, 0].tolist(), close[:, -1].tolist()) == (list(one.open), list(one.close))
        assert (high.max(axis=1).tolist(), low.min(axis=1).tolist()) == (list(one.high), list(one.low))
        assert np.allclose(volume.sum(axis=1), one.volume)
        assert (low <= np.minimum(opened, close)).all() and (high >= np.maximum(opened, close)).all()
        assert np.array_equal(np.round(close, 2), close)
        assert np.array_equal(opened[:, 1:], close[:, :-1])


def test_equal_seeds_walk_alike_and_others_differ() -> None:
    """Of a market by the minute, joined to five."""
    table = joined(crash_bars(7), FIVE)
    walks = [PriceMatrix(bridged(table, STEP, seed)).close for seed in (1, 1, 2)]
    assert np.array_equal(walks[0], walks[1])
    assert not np.array_equal(walks[0], walks[2])


def test_bars_that_are_fine_enough_are_not_walked() -> None:
    """And a step that does not divide them is refused."""
    table = crash_bars(7)
    assert bridged(table, MINUTE, 1) is table
    with pytest.raises(ValueError, match="cannot be walked in steps of 40000000"):
        bridged(table, 40_000_000, 1)


def test_symbols_that_moved_together_move_together_inside_the_bars() -> None:
    """Two equal symbols have equal steps; two that never had to do with each other do not."""
    generator = np.random.default_rng(3)
    closes = [np.round(100 * np.exp(np.cumsum(generator.normal(0, 0.01, 400))), 4) for _ in range(2)]

    def bars(symbol: str, close: np.ndarray) -> Series:
        opened = np.concatenate([[100.0], close[:-1]])
        high, low = np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996
        a, b, c, d = (array("d", np.round(each, 4).tobytes()) for each in (opened, high, low, close))
        return Series(symbol, [number * FIVE for number in range(400)], a, b, c, d, [1.0] * 400)

    walked = PriceMatrix(
        bridged(BarTable("t", [bars("A", closes[0]), bars("B", closes[0]), bars("C", closes[1])]), STEP, 1)
    )
    returns = np.diff(np.log(walked.close), axis=0)
    assert np.allclose(walked.close[:, 0], walked.close[:, 1], rtol=1e-3)
    assert abs(np.corrcoef(returns[:, 0], returns[:, 2])[0, 1]) < 0.1


def test_joined_bars_are_those_of_a_venue_that_records_coarser_ones() -> None:
    """Ten minutes, the first at 00:02: bars of three, five and two minutes."""
    opened = [minute * MINUTE for minute in range(2, 12)]
    prices = [float(number) for number in range(10, 20)]
    one = Series("A", opened, prices, [p + 2 for p in prices], [p - 2 for p in prices], [p + 1 for p in prices], prices)
    (found,) = joined(BarTable("t", [one]), FIVE).series
    assert list(found.opened) == [0, FIVE, 2 * FIVE]
    assert [list(each) for each in (found.open, found.high, found.low, found.close)] == [
        [10, 13, 18], [14, 19, 21], [8, 11, 16], [13, 18, 20],
    ]  # fmt: skip
    assert list(found.volume) == [33, 75, 37]


def test_a_crash_begins_at_the_peak_before_the_largest_fall_of_a_day() -> None:
    """Slow falls over more than a day do not count: 10% in three days, then 8% in an hour from hour 102 on."""
    hours = [100 - 10 * hour / 72 for hour in range(72)] + [90.0] * 30 + [90.5] + [82.8] * 10
    one = Series("A", [n * 60 * MINUTE for n in range(len(hours))], hours, hours, hours, hours, [1.0] * len(hours))
    assert crash_begin(BarTable("t", [one])) == 102 * 60 * MINUTE
