"""The generated crash has the properties of a crash, for any seed."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.lab.bars import BarTable
from killswitch.lab.book import BacktestBook, demo_book
from killswitch.lab.crash import COINS, CrashModel, crash_bars
from killswitch.lab.feed import record
from tests.backtests import calm_bars

seeds = st.integers(0, 10_000)
MODEL = CrashModel()
FALLS = range(MODEL.calm, MODEL.calm + MODEL.crash)


def _closes(table: BarTable) -> dict[str, list[float]]:
    closes: dict[str, list[float]] = {symbol: [] for symbol in table.symbols}
    for _, bars in table:
        for symbol, bar in bars.items():
            closes[symbol].append(float(bar.close))
    return closes


@given(seeds)
@settings(max_examples=10)
def test_every_bar_is_consistent_and_opens_at_the_previous_close(seed: int) -> None:
    """Low ≤ open, close ≤ high, all above zero, volume above zero, and each opens where the last closed."""
    before: dict[str, Decimal] = {}
    for _, bars in crash_bars(seed):
        for symbol, bar in bars.items():
            assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
            assert bar.volume > 0
            assert before.get(symbol, bar.open) == bar.open
            before[symbol] = bar.close


def test_bars_depend_only_on_the_seed() -> None:
    """The same seed gives the same bars, another seed other bars."""
    assert list(crash_bars(4)) == list(crash_bars(4))
    assert list(crash_bars(4)) != list(crash_bars(5))


@given(seeds)
@settings(max_examples=10)
def test_it_falls_by_tens_of_percent_within_the_hour(seed: int) -> None:
    """Each coin falls by its beta times the market's −35% in logs, give or take its own noise."""
    closes = _closes(crash_bars(seed))
    for coin in COINS:
        fell = np.log(closes[coin.symbol][FALLS.stop - 1] / closes[coin.symbol][FALLS.start - 1])
        assert fell == pytest.approx(coin.beta * np.log(1 - MODEL.fall), abs=0.09)


@given(seeds)
@settings(max_examples=10)
def test_correlations_and_volatility_rise_in_the_crash(seed: int) -> None:
    """As in real crashes, coins move more, and more alike, than in the calm hours before."""
    closes = _closes(crash_bars(seed))
    returns = np.array([np.diff(np.log(closes[coin.symbol])) for coin in COINS])
    calm, crash = returns[:, : MODEL.calm - 1], returns[:, MODEL.calm : MODEL.calm + MODEL.crash]
    assert np.corrcoef(crash).mean() > np.corrcoef(calm).mean()
    assert crash.std() > 3 * calm.std()


def _book_of(sides: str) -> BacktestBook:
    """The demo's symbols at 3 times equity in total, each on the side given by its letter."""
    demo = demo_book()
    account = demo.accounts[0]
    positions = tuple(
        one.model_copy(update={"side": "long" if letter == "L" else "short", "notional": Decimal(37500)})
        for one, letter in zip(account.positions, sides, strict=True)
    )
    return demo.model_copy(update={"accounts": (account.model_copy(update={"positions": positions}),)})


BOOKS = {"the demo's": demo_book(), "all long": _book_of("LLLLLLLL"), "all short": _book_of("SSSSSSSS")}


@pytest.mark.parametrize("name", BOOKS)
@pytest.mark.parametrize("seed", range(5))
def test_a_book_falls_far_enough_for_every_stage_and_not_before(name: str, seed: int) -> None:
    """No calm 15 minutes lose 1%·gross; later at least 14% are lost within an hour (level 3)."""
    equity = [float(one.accounts[0].equity or 0) for one in record(crash_bars(seed), BOOKS[name])]

    def worst(window: int, values: list[float]) -> float:
        return max(1 - now / max(values[max(0, i - window) : i + 1]) for i, now in enumerate(values))

    assert worst(60, equity[: MODEL.calm]) < 0.045
    assert worst(60, equity) > 0.14


def test_a_calm_market_has_no_crash() -> None:
    """Long runs can be generated without one."""
    closes = _closes(calm_bars(1, 500))
    assert len(closes["BTC_USDT"]) == 500
    assert max(closes["BTC_USDT"]) / min(closes["BTC_USDT"]) < 1.1


@pytest.mark.parametrize("fields", [{"fall": 1.0}, {"steps": 0}, {"calm": -1}, {"jumps": -1.0}])
def test_an_impossible_model_is_refused(fields: dict[str, float]) -> None:
    """A fall of everything, no prices in a minute, a negative duration."""
    with pytest.raises(ValueError, match="must"):
        CrashModel(**fields)  # type: ignore[arg-type] # wrong on purpose
