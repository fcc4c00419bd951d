"""The players of other programs' rules: by hand where that is possible, and against the lab where it is not."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from killswitch.lab.crash import crash_bars
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import book, run, shipped
from tests.evidence.ordinary import equity_of
from tests.evidence.players import FEE, Held, held_of, stopped_equity, v6_equity, worst_fall


def held(*closes: tuple[float, ...], units: tuple[float, ...], equity: float = 100.0, volume: float = 1e9) -> Held:
    prices = np.array(closes)
    return Held(prices, np.full(prices.shape, volume), np.array(units), equity, timedelta(minutes=1))


def test_each_position_is_stopped_on_its_own_at_the_close_that_reaches_the_stop() -> None:
    """Long 2 and short 1 at 100, equity 100, stop 10%: the long goes at 89 for a loss of 22 and the fee on 178."""
    found = stopped_equity(held((100, 100), (91, 95), (89, 95), (50, 109), units=(2.0, -1.0)), 0.10)
    cost = 178 * FEE
    assert found == pytest.approx([100, 87, 83 - cost, 69 - cost], abs=1e-4)


def test_a_stop_takes_a_tenth_of_the_volume_of_each_bar() -> None:
    """10 units at a volume of 40 a bar: 4, 4 and 2; each moves the price by a hundredth of its value or less."""
    path = held((100,), (80,), (80,), (80,), (80,), units=(10.0,), equity=1000, volume=40)
    found = stopped_equity(path, 0.10)
    fills = [4 * 80 * (FEE + 0.1 * 0.1)] * 2 + [2 * 80 * (FEE + 0.1 * 0.05)]
    assert found == pytest.approx([1000, *(800 - np.cumsum(fills)), 800 - sum(fills)])


def test_an_account_without_margin_is_liquidated_and_stays_so() -> None:
    """Long 5 at 100 on 100: at 80 nothing is left, whatever comes after."""
    found = stopped_equity(held((100,), (81,), (80,), (200,), units=(5.0,)), 0.5)
    assert found == pytest.approx([100, 5, 0, 0])


def test_the_three_levels_of_v6_close_half_then_the_losing_side_then_everything() -> None:
    """By hand: a fall of 5% halves the losing long after two minutes; the winning short is kept at level 1."""
    calm = [(100.0, 100.0)] * 61
    found = v6_equity(held(*calm, *[(94.0, 99.0)] * 10, units=(1.0, -1.0), equity=100))
    assert found[70] == pytest.approx(95 - 0.5 * 94 * FEE, abs=1e-3)
    found = v6_equity(held(*calm, *[(88.0, 99.9)] * 5, *[(50.0, 120.0)] * 5, units=(1.0, -1.0), equity=100))
    assert found[-1] == pytest.approx(88.1 - (88 + 99.9) * FEE, abs=1e-3)


def test_v6_and_the_policy_that_was_written_from_its_documents_agree_in_a_crash() -> None:
    """Two implementations without a common line: the same worst drawdown within a point, of a book without a hedge."""
    table, longs = crash_bars(7), book({"BTC_USDT": 150_000, "ETH_USDT": 150_000})
    ours = run(shipped("futures-drawdown"), PriceMatrix(table), longs)
    theirs = v6_equity(held_of(table, longs))
    assert ours.firings
    assert worst_fall(theirs) == pytest.approx(float(ours.worst_drawdown), abs=0.01)
    assert theirs[-1] == pytest.approx(float(ours.final_equity), rel=0.01)


def test_a_book_that_nobody_trades_has_the_equity_of_the_lab() -> None:
    """To a cent in 100,000, at every bar."""
    bars, hedged = PriceMatrix(crash_bars(7)), book({"BTC_USDT": 100_000, "ETH_USDT": -100_000})
    equity = equity_of(bars, hedged.accounts[0])
    bare = run(shipped("futures-drawdown"), bars, hedged, "none", with_curve=True)
    assert bare.course is not None
    assert equity == pytest.approx(bare.course.equity[: len(equity)], abs=1)
