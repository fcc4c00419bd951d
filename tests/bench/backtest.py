"""A backtest of `futures-drawdown` with 8 symbols, against a NumPy pass over the same signals and backtesting.py.

Both references see the same 100,000 bars. The NumPy pass is what one would write by hand for this policy alone:
equity, its falls in both windows, the six thresholds. It has no market, no confirmation, no stages and no histories.
backtesting.py trades one symbol: a long position with an exit on a trailing drawdown of the same size.
"""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import backtest
from killswitch.lab.bars import read_market
from killswitch.lab.book import BacktestBook, demo_book
from killswitch.lab.impact.replays import ReplayedAccount, generated_books
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import POLICIES, calm_bars, local, shipped, written
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


# -- the impact of a change -----------------------------------------------------------------------------------------

REPOSITORY = Path(__file__).resolve().parents[2]
PROMISED = 15.0
"""Seconds of the whole command."""
MOST_OF_BACKTESTS, IMPACT_ROUNDS = 1.2, 3
ACCOUNTS = tuple(ReplayedAccount(name) for name in ("alpha", "beta", "gamma"))
ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {{name: {name}}}
spec: {{adapter: paper, market: swap, currency: USDT, execution: observe}}
"""
CHANGE = ("at_least: 7%, confirm: 1m", "at_least: 6%, confirm: 1m")


def impact() -> Iterator[Measure]:
    """`ksctl impact` over six crash folders with three accounts: under 15 s, at most 1.2 × the sum of its backtests.

    These are each folder read and run with the base, and again with the head, in this process. The proof of the change
    is part of what is measured, and not of the reference.
    """
    shared = Path(os.environ.get("KILLSWITCH_SHARED") or REPOSITORY.parent / "shared") / "data" / "market"
    folders = [folder for folder in sorted(shared.glob("20*")) if folder.is_dir()]
    if len(folders) != 6:
        raise AssertionError(f"{shared} has {len(folders)} crash folders, and six are promised")
    text = (POLICIES / "futures-drawdown" / "policy.yaml").read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        base, head = Path(folder) / "base", Path(folder) / "head"
        for side, policy in ((base, text), (head, text.replace(*CHANGE))):
            side.mkdir()
            accounts = "---\n".join(ACCOUNT.format(name=each.account) for each in ACCOUNTS)
            (side / "accounts.yaml").write_text(accounts, encoding="utf-8")
            (side / "policy.yaml").write_text(policy, encoding="utf-8")

        def compare() -> None:
            crashes = [word for each in folders for word in ("--crashes", str(each))]
            words = ["impact", str(head), "--against", str(base), *crashes, "-o", "json"]
            found = CliRunner().invoke(ksctl, words, catch_exceptions=False)
            if '"conclusion": "analysed"' not in found.stdout:
                raise AssertionError(found.output)

        sets = written(text), written(text.replace(*CHANGE))
        compare()  # imports what it needs
        begun = perf_counter()
        compare()
        elapsed = perf_counter() - begun
        ours, alone = processor_times(compare, lambda: backtests(folders, sets))
    name = "impact over six crash folders with three accounts, two books each"
    yield Measure(name, elapsed * 1e3, PROMISED * 1e3, "promised", 1.0)
    name += ", processor time"
    yield Measure(name, ours * 1e3, alone * 1e3, "the sum of its backtests", MOST_OF_BACKTESTS)


def processor_times(ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float]:
    """The least processor time of each in seconds, in alternate rounds: other load does not change it."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(IMPACT_ROUNDS):
        for spent, work in zip(times, (ours, reference), strict=True):
            gc.collect()
            begun = process_time()
            work()
            spent.append(process_time() - begun)
    return min(times[0]), min(times[1])


def backtests(folders: list[Path], sets: tuple[PolicySet, PolicySet]) -> None:
    """Every backtest of the comparison on its own."""
    for folder in folders:
        for policies in sets:
            matrix = PriceMatrix(read_market(folder))
            for book in generated_books(matrix.symbols, ACCOUNTS):
                asyncio.run(backtest(policies, matrix, book, rule="staged", venue=local))
