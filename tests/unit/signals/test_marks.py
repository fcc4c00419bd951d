"""Marks are sampled in intervals of time, and a return is taken where two samples have all required symbols."""

from __future__ import annotations

import pytest

from killswitch.model.instant import MINUTE, SECOND, to_micros
from killswitch.signals.history.marks import Marks
from killswitch.signals.history.rows import encode_row
from killswitch.signals.history.scope import EquityTerms, History
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position

BTC, ETH = ("main", "BTC"), ("main", "ETH")


def marked(seconds: float, **marks: str | None) -> ScopeView:
    """A scope that holds each symbol at this mark."""
    held = [
        position(symbol, "long", "0", **({} if mark is None else {"mark_price": mark}))
        for symbol, mark in marks.items()
    ]
    return ScopeView(to_micros(after(seconds=seconds)), True, (account("1", held),), {}, None)


def sampled(*views: ScopeView, keep: int = 240 * MINUTE) -> Marks:
    marks = Marks(MINUTE, keep, 10 * MINUTE)
    for view in views:
        marks.sample(view)
    return marks


def returns(
    marks: Marks, now: float, *keys: tuple[str, str], window: int = 60 * MINUTE, every: int = MINUTE
) -> list[list[float]]:
    return marks.returns(keys, to_micros(after(seconds=now)), window, every)


def test_the_first_observation_of_a_minute_is_the_sample() -> None:
    """Ticks of ten seconds make one sample a minute, and a late tick skips none."""
    marks = Marks(MINUTE, 60 * MINUTE, 10 * MINUTE)
    took = [at for at in (0, 10, 59, 61, 110, 120.5) if marks.sample(marked(at, BTC=str(100 + at))) is not None]
    assert took == [0, 61, 120.5]
    assert returns(marks, 121, BTC) == [[pytest.approx(0.61), pytest.approx(220.5 / 161 - 1)]]


def test_a_return_needs_every_mark() -> None:
    """A symbol that was not held yet, or has no mark, leaves no return of any symbol."""
    marks = sampled(
        marked(0, BTC="100"),
        marked(60, BTC="110", ETH="10"),
        marked(120, BTC="121", ETH="11"),
        marked(180, BTC="121", ETH=None),
    )
    assert returns(marks, 180, BTC, ETH) == [[pytest.approx(0.1)], [pytest.approx(0.1)]]
    assert len(returns(marks, 180, BTC)[0]) == 3


def test_no_return_spans_a_gap() -> None:
    """A move over a gap in the observations covers another length of time."""
    marks = sampled(marked(0, BTC="100"), marked(600, BTC="110"), marked(1201, BTC="220"), marked(1260, BTC="242"))
    assert returns(marks, 1260, BTC) == [[pytest.approx(0.1), pytest.approx(0.1)]]


def test_only_the_window_counts_and_older_samples_are_forgotten() -> None:
    """The window's start is included; samples older than the retention are deleted."""
    marks = sampled(*(marked(60 * i, BTC=str(100 + i)) for i in range(10)), keep=5 * MINUTE)
    assert len(returns(marks, 540, BTC, window=2 * MINUTE)[0]) == 2
    assert len(returns(marks, 540, BTC, window=60 * MINUTE)[0]) == 5


def test_a_ranking_may_sample_less_often_than_is_recorded() -> None:
    """Every second minute of marks that were recorded each minute."""
    marks = sampled(*(marked(60 * i, BTC=str(100 * 2**i)) for i in range(7)))
    assert returns(marks, 360, BTC, every=2 * MINUTE) == [[3.0, 3.0, 3.0]]


def test_a_mark_that_is_not_positive_is_not_recorded() -> None:
    """Zero and below are no prices."""
    marks = sampled(marked(0, BTC="0"), marked(60, BTC="100"), marked(120, BTC="-1"))
    assert returns(marks, 120, BTC) == [[]]
    assert marks.every == 60 * SECOND


def test_a_reset_keeps_returns_before_and_after_a_restart() -> None:
    """It re-bases the account's history; the moves of markets remain valid."""
    terms = EquityTerms(10 * MINUTE, 0.001, 60 * SECOND)
    history = History([15 * MINUTE], 60 * MINUTE, terms, Marks(MINUTE, 60 * MINUTE, 10 * MINUTE))
    rows = []
    for minute in range(5):
        history.observe(marked(60 * minute, BTC=str(100 * 2**minute)))
        rows.append(encode_row(history.rows[-1]))
        if minute == 2:
            history.rebase(accept=True)
    again = History([15 * MINUTE], 60 * MINUTE, terms, Marks(MINUTE, 60 * MINUTE, 10 * MINUTE))
    again.restore(history.state(), rows)
    for each in (history, again):
        assert len(each.rows) == 3
        assert each.marks is not None
        assert returns(each.marks, 240, BTC) == [[1.0, 1.0, 1.0, 1.0]]
