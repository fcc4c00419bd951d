"""Windows are measured in time: both ends are included, and gaps or missing history make them partly known."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown, drawdown_from_peak, loss_from_start, reason_partly_known
from killswitch.valuation.scope_view import ScopeView
from killswitch.valuation.unit_value import UnitValueTrack
from tests.worlds import account, after, fill, position, rules, snapshot
from tests.worlds.signals import view_of

QUARTER = 15 * MINUTE


def history(max_gap: int = 10 * MINUTE) -> History:
    return History((QUARTER, HOUR), HOUR, EquityTerms(max_gap, 0.001, 60 * SECOND))


def observe(past: History, minutes: float, equity: int | None, reason: str = "no answer") -> None:
    if equity is None:
        seen = account(None, None, quality="down", reason=reason)
    else:
        seen = account(str(equity), [position("BTC", "long", str(equity - 100_000))])
    past.observe(ScopeView(to_micros(after(minutes=minutes)), True, (seen,), {}, None))


def test_d1_the_window_is_complete_at_any_poll_interval() -> None:
    """A sample every 5 minutes or every 10 seconds: after an hour both windows are fully known."""
    for step in (1 / 6, 1, 5, 10):
        past = history()
        for number in range(int(60 / step) + 1):
            observe(past, number * step, 100_000)
        assert reason_partly_known(past, QUARTER) is None
        assert reason_partly_known(past, HOUR) is None
        assert drawdown(past, HOUR) == (0.0, 0.0)


def test_only_failed_scheduled_polls_are_counted() -> None:
    """A burst of pushed snapshots repeats that an account is down: that is one failure, not a hundred."""
    past = history()
    down = account(None, None, quality="down", reason="no answer")

    def observe_at(seconds: float, seen: AccountSnapshot, *, scheduled: bool) -> int:
        past.observe(ScopeView(to_micros(after(seconds=seconds)), scheduled, (seen,), {}, None))
        return past.failures

    assert observe_at(0, down, scheduled=True) == 1
    assert [observe_at(0.3 * number, down, scheduled=False) for number in range(1, 4)] == [1, 1, 1]
    assert observe_at(1, down, scheduled=True) == 2
    assert observe_at(1.3, account("100000"), scheduled=False) == 0
    assert observe_at(1.6, down, scheduled=False) == 0
    assert observe_at(2, down, scheduled=True) == 1


def test_a_value_at_the_far_edge_of_the_window_is_included() -> None:
    """A window of 15m at t covers [t − 15m, t], both ends included; a microsecond later the value is out."""
    past = history()
    observe(past, 0, 100_000)
    observe(past, 5, 90_000)
    observe(past, 10, 90_000)
    observe(past, 15, 90_000)
    assert drawdown(past, QUARTER) == pytest.approx((0.1, 0.1))
    observe(past, 15 + 1e-6 / 60 * 1.5, 90_000)
    assert drawdown(past, QUARTER) == (0.0, 0.0)


def test_with_a_short_history_a_fall_is_at_least_the_observed_one() -> None:
    """[observed, 1] while the window begins before the first observation."""
    past = history()
    observe(past, 0, 100_000)
    observe(past, 1, 95_000)
    assert drawdown(past, QUARTER) == (pytest.approx(0.05), 1.0)
    assert reason_partly_known(past, QUARTER) == "history reaches back 60 s of 15 min"


def test_d15_a_fall_across_an_outage_counts() -> None:
    """An outage longer than max_gap makes the window partly known, and the fall across it still counts."""
    past = history()
    for minute in range(61):
        observe(past, minute, 100_000)
    for minute in range(61, 72):
        observe(past, minute, None)
        assert drawdown(past, QUARTER) == (-math.inf, math.inf)
    observe(past, 72, 92_000)
    assert drawdown(past, QUARTER) == (pytest.approx(0.08), 1.0)
    assert reason_partly_known(past, QUARTER) == "a gap of 720 s lies in the window"
    for minute in range(73, 88):
        observe(past, minute, 92_000)
    assert drawdown(past, QUARTER) == (0.0, 0.0)


def test_d15_half_a_minute_without_answers_changes_nothing() -> None:
    """A gap within max_gap leaves the window fully known."""
    past = history()
    for second in range(0, 3601, 10):
        observe(past, second / 60, None if 1800 <= second < 1830 else 100_000 - second)
    assert drawdown(past, QUARTER)[0] == drawdown(past, QUARTER)[1]


def test_a_reset_restarts_windows_and_they_count_as_complete() -> None:
    """The peak before the reset is forgotten (D18: a reset must not fire again at once)."""
    past = history()
    for minute in range(20):
        observe(past, minute, 100_000 - 1000 * minute)
    past.rebase(accept=True)
    assert drawdown(past, HOUR) == (0.0, 0.0)
    observe(past, 20, 80_000)
    assert drawdown(past, HOUR) == pytest.approx((1 - 80 / 81, 1 - 80 / 81))


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 1000)), min_size=1, max_size=60))
def test_the_windowed_maximum_is_that_of_a_plain_search(steps: list[tuple[int, int]]) -> None:
    """The fall in the window equals the one found by a scan of all values in [t − W, t]."""
    track = UnitValueTrack((900,))
    track.open(0, 1000.0)
    seen: list[tuple[int, float]] = []
    at = 0
    for gap, equity in steps:
        at += gap
        track.observe(at, float(equity))
        seen.append((at, equity / 1000.0))
        highest = max(value for when, value in seen if at - 900 <= when <= at)
        assert track.fall(900) == pytest.approx(1 - seen[-1][1] / highest)


def test_the_falls_by_all_interpretations_lie_between_the_ends() -> None:
    """A fall by more than everything counts as a withdrawal once the rest vanishes too.

    By one interpretation of the rest nothing counts after it; by the other the rest was withdrawn as well, at half of
    the first value.
    """
    past = history()
    priced = position("A", "long", entry_price="0.01", mark_price="0.01")
    sale = fill("1", after(minutes=1), "A", "sell", "1", "90")
    observe_answer(past, 0, "0.02", [priced, *(position(symbol, "long", "0") for symbol in "BCD")])
    observe_answer(past, 1, "0.01", [position("A", "long", notional="0.01")], fills=[sale], unrealized=Decimal(0))
    observe_answer(past, 2, "0", [])
    assert drawdown_from_peak(past) == (0.0, 0.5)
    assert loss_from_start(past) == (0.0, 0.5)


def observe_answer(past: History, minute: int, equity: str, held: list[Position], **more: Any) -> None:
    at = after(minutes=minute)
    instruments = [rules(symbol) for symbol in "ABC"]
    seen = account(
        equity, held, instruments=instruments, observed_at=at, flows_as_of=at, fills_as_of=at, **more
    )  # fmt: skip
    past.observe(view_of(snapshot(at, seen)))
