"""Marks are sampled in stretches of time, and returns are taken where two samples have all that is asked for."""

from __future__ import annotations

import pytest

from killswitch.model.instant import MINUTE, SECOND, to_micros
from killswitch.signals.history.marks import Marks
from killswitch.signals.history.rows import encode_row
from killswitch.signals.history.scope import EquityTerms, History
from killswitch.signals.scope_view import ScopeView
from tests.worlds import account, after, position

BTC, ETH = ("main", "BTC"), ("main", "ETH")


def seen(seconds: float, **marks: str | None) -> ScopeView:
    """A scope that holds each symbol, marked so."""
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
    """Ticks of ten seconds make a sample a minute, and a tick that is late skips none."""
    marks = Marks(MINUTE, 60 * MINUTE, 10 * MINUTE)
    took = [at for at in (0, 10, 59, 61, 110, 120.5) if marks.sample(seen(at, BTC=str(100 + at))) is not None]
    assert took == [0, 61, 120.5]
    assert returns(marks, 121, BTC) == [[pytest.approx(0.61), pytest.approx(220.5 / 161 - 1)]]


def test_a_return_is_taken_only_where_every_mark_is_there() -> None:
    """A symbol that was not held yet, or has no mark, leaves no return of any."""
    marks = sampled(
        seen(0, BTC="100"),
        seen(60, BTC="110", ETH="10"),
        seen(120, BTC="121", ETH="11"),
        seen(180, BTC="121", ETH=None),
    )
    assert returns(marks, 180, BTC, ETH) == [[pytest.approx(0.1)], [pytest.approx(0.1)]]
    assert len(returns(marks, 180, BTC)[0]) == 3


def test_no_return_spans_a_gap() -> None:
    """What moved while nobody looked is of another length of time."""
    marks = sampled(seen(0, BTC="100"), seen(600, BTC="110"), seen(1201, BTC="220"), seen(1260, BTC="242"))
    assert returns(marks, 1260, BTC) == [[pytest.approx(0.1), pytest.approx(0.1)]]


def test_only_the_window_counts_and_older_samples_are_forgotten() -> None:
    """The window's start included; what is older than is kept is gone."""
    marks = sampled(*(seen(60 * i, BTC=str(100 + i)) for i in range(10)), keep=5 * MINUTE)
    assert len(returns(marks, 540, BTC, window=2 * MINUTE)[0]) == 2
    assert len(returns(marks, 540, BTC, window=60 * MINUTE)[0]) == 5


def test_a_ranking_may_sample_less_often_than_is_recorded() -> None:
    """Every second minute of what was recorded each minute."""
    marks = sampled(*(seen(60 * i, BTC=str(100 * 2**i)) for i in range(7)))
    assert returns(marks, 360, BTC, every=2 * MINUTE) == [[3.0, 3.0, 3.0]]


def test_a_mark_that_is_none_is_not_recorded() -> None:
    """Zero and below are no prices."""
    marks = sampled(seen(0, BTC="0"), seen(60, BTC="100"), seen(120, BTC="-1"))
    assert returns(marks, 120, BTC) == [[]]
    assert marks.every == 60 * SECOND


def test_a_reset_forgets_no_returns_whether_before_or_after_a_restart() -> None:
    """It re-bases what is known of the account; markets have moved all the same."""
    terms = EquityTerms(10 * MINUTE, 0.001, 60 * SECOND)
    history = History([15 * MINUTE], 60 * MINUTE, terms, Marks(MINUTE, 60 * MINUTE, 10 * MINUTE))
    rows = []
    for minute in range(5):
        history.observe(seen(60 * minute, BTC=str(100 * 2**minute)))
        rows.append(encode_row(history.rows[-1]))
        if minute == 2:
            history.rebase(accept=True)
    again = History([15 * MINUTE], 60 * MINUTE, terms, Marks(MINUTE, 60 * MINUTE, 10 * MINUTE))
    again.restore(history.state(), rows)
    for each in (history, again):
        assert len(each.rows) == 3
        assert each.marks is not None
        assert returns(each.marks, 240, BTC) == [[1.0, 1.0, 1.0, 1.0]]
