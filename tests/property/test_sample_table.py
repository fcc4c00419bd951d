"""Prices that are sampled together give what each gives by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from killswitch.signals.history.sample_table import UNSTATED, SampleTable
from killswitch.signals.history.samples import SampleSeries

EVERY, KEEP, MAX_GAP = 10, 300, 45
PRICES = st.integers(1, 1000)
STEPS = st.lists(
    st.tuples(
        st.integers(1, 60),  # time since the step before
        st.sampled_from(["all", "all", "all", "first", "cut", "some"]),
        st.tuples(PRICES, PRICES, PRICES),
        st.sampled_from([None, 0, 0, 5, 50]),  # how old the venue's print is
    ),
    max_size=20,
)


@settings(max_examples=50)
@example([(1, "first", (1, 1, 1), None), *[(1, "all", (1, 1, 1), None)] * 9], 9)  # the first one was sampled earlier
@given(STEPS, st.integers(0, 400))
def test_rows_of_one_table_equal_series_of_their_own(steps: list[Any], window: int) -> None:
    """Whatever is missing, cut off, printed twice or old, and however long it lasts."""
    table = SampleTable(EVERY)
    shared = [SampleSeries(EVERY, KEEP, table) for _ in range(3)]
    own = [SampleSeries(EVERY, KEEP) for _ in range(3)]
    rows, at = table.rows_of([0, 1, 2]), 1_000
    for elapsed, what, prices, age in steps:
        at += elapsed
        printed = None if age is None else at - age
        if what == "cut":
            for each in (shared[1], own[1]):
                each.cut()
        chosen = {"first": (0,), "some": (0, 2)}.get(what, (0, 1, 2))
        due = [place for place in chosen if own[place].is_due(at)]
        assert due == [place for place in chosen if shared[place].is_due(at)]
        assert len(due) <= table.count_due(rows, at)
        for place in due:
            own[place].add(at, float(prices[place]), printed, MAX_GAP)
        if len(due) == 3:
            table.add(rows, at, np.array(prices, dtype=np.float64), UNSTATED if printed is None else printed, MAX_GAP)
        else:
            for place in due:
                shared[place].add(at, float(prices[place]), printed, MAX_GAP)
        for one, other in zip(shared, own, strict=True):
            assert values(one, at, window) == values(other, at, window)
        assert values_together(shared, at, window) == values_together(own, at, window)


def values(series: SampleSeries, now: int, window: int) -> object:
    """Everything that signals read of a series."""
    found = series.returns(now, window)
    deviations = [repr(series.deviation(now, window, before_last=flag)) for flag in (False, True)]
    before = series.at_or_before(now - window)
    if before is not None and before[0] < now - KEEP:
        before = None  # nothing reads it: a table drops it with the columns of its other prices
    return found.values.tolist(), deviations, before, series.last_return(now), series.expires(now, window)


def values_together(series: list[SampleSeries], now: int, window: int) -> object:
    """What signals read of several; their times differ where one of them was not sampled."""
    if any(each.last_at is None for each in series):
        return None
    found = SampleSeries.together(series, now, window)
    return None if found is None else (found.begins, found.returns().tolist())
