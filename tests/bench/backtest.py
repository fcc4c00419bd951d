"""A backtest of `futures-drawdown` with 8 symbols, against a NumPy pass over the same signals and backtesting.py.

Both references see the same 100,000 bars. The NumPy pass is what one would write by hand for this policy alone:
equity, its falls in both windows, the six thresholds. It has no market, no confirmation, no stages and no histories.
backtesting.py trades one symbol: a long position with an exit on a trailing drawdown of the same size.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from killswitch.lab.backtest import backtest
from killswitch.lab.book import BacktestBook, demo_book
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import calm_bars, local, shipped
from tests.bench.measure import Measure, best_of

BARS, ROUNDS, SEED = 100_000, 5, 1
WINDOWS, THRESHOLDS = (15, 60), ((0.045, 0.07, 0.10), (0.07, 0.10, 0.14))
FLOOR = 200_000
"""Promised account-bars a second."""


def measures() -> Iterator[Measure]:
    """Promised: 200,000 account-bars a second, and at most one and a half times the NumPy pass."""
    matrix, book, policies = PriceMatrix(calm_bars(SEED, BARS)), quiet_book(), shipped("futures-drawdown")

    def ours() -> Run:
        return asyncio.run(backtest(policies, matrix, book, rule="staged", venue=local))

    if ours().firings:
        raise AssertionError("something fires: this must measure bars without venue activity")
    elapsed, reference = best_of(ROUNDS, ours, numpy_pass(matrix, book))
    name = f"backtest of {BARS:,} bars with {len(book.symbols)} symbols"
    yield Measure(name, elapsed * 1e3, reference * 1e3, "the same signals in NumPy", 1.5)
    yield Measure(f"{name}, time for a bar", elapsed / BARS * 1e6, 1e6 / FLOOR, f"{FLOOR:,} a second", 1.0, "µs")
    exits = backtesting_py(matrix)
    elapsed, reference = best_of(2, ours, exits)
    yield Measure(name, elapsed * 1e3, reference * 1e3, "backtesting.py, one symbol, trailing exit", 1.0)


def quiet_book() -> BacktestBook:
    """The demo's book at a fifth of its size, so that a random walk of months fires nothing."""
    demo = demo_book()
    account = demo.accounts[0]
    small = tuple(p.model_copy(update={"notional": p.notional / 5}) for p in account.positions)
    return demo.model_copy(update={"accounts": (account.model_copy(update={"positions": small}),)})


def numpy_pass(matrix: PriceMatrix, book: BacktestBook) -> Callable[[], list[np.ndarray[Any, Any]]]:
    """A function that computes equity, its falls, and where each threshold is passed."""
    account = book.accounts[0]
    columns = matrix.columns([position.symbol for position in account.positions])
    close = np.ascontiguousarray(matrix.close[:, columns])
    sign = np.array([1.0 if position.side == "long" else -1.0 for position in account.positions])
    quantity = sign * [float(position.notional) for position in account.positions] / close[0]
    start = float(account.equity)

    def compute() -> list[np.ndarray[Any, Any]]:
        equity = start + close @ quantity - close[0] @ quantity
        passed = []
        for window, levels in zip(WINDOWS, THRESHOLDS, strict=True):
            highest = trailing_highest(equity, window + 1)
            fall = (highest - equity) / highest
            passed += [fall >= level for level in levels]
        return passed

    return compute


def trailing_highest(value: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """The highest of the last `width` values, as NumPy's own documentation moves a window."""
    padded = np.concatenate([np.full(width - 1, -np.inf), value])
    highest: np.ndarray[Any, Any] = np.lib.stride_tricks.sliding_window_view(padded, width).max(axis=1)
    return highest


def backtesting_py(matrix: PriceMatrix) -> Callable[[], object]:
    """A backtest of one symbol, held long until it has fallen 10% from its highest of the last hour."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about missing packages for notebook charts
        import pandas as pd
        from backtesting import Backtest, Strategy

    class Trailing(Strategy):  # type: ignore[misc] # ships no types
        def init(self) -> None:
            self.highest = self.I(lambda close: trailing_highest(np.asarray(close), 61), self.data.Close)

        def next(self) -> None:
            if not self.position and len(self.data) < 3:
                self.buy()
            elif self.position and self.data.Close[-1] <= 0.9 * self.highest[-1]:
                self.position.close()

    column = matrix.columns(["BTC_USDT"])[0]
    prices = {
        "Open": matrix.close[:, column], "High": matrix.high[:, column],
        "Low": matrix.low[:, column], "Close": matrix.close[:, column],
    }  # fmt: skip
    frame = pd.DataFrame(prices, index=pd.to_datetime(matrix.at, unit="us"))

    def run() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Backtest(frame, Trailing, cash=10_000_000, commission=0.0005).run()

    return run
