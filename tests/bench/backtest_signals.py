"""A backtest of 100,000 bars with every signal for which bars suffice, against a NumPy pass over the same signals.

Signals of flows, fills, orders and venues have no source in bars, and those of spreads and depth no bid. Most of the
others have no look-ahead, so every bar is ticked. The pass is what one would write by hand for these signals alone,
over sliding windows as in NumPy's own documentation; a short run compares its values with ours. Times are processor
times of this process.

    python -m tests.bench backtest-signals
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import backtest
from killswitch.lab.bars import BarTable
from killswitch.lab.book import BacktestBook
from killswitch.lab.feed import record
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.model.instant import DAY, HOUR, MINUTE
from killswitch.planning.interpreter import Interpreter
from tests.backtests import calm_bars, local, written
from tests.bench.backtest import BARS, SEED, quiet_book, trailing_highest
from tests.bench.measure import Measure

TIMES_NUMPY = 20.0
SAMPLED = 60
"""Returns of an hour of minutes."""
CHECKED = 1_600
"""Bars of which the values of both sides are compared: more than a day, since the market begins at midnight."""
Array = np.ndarray[Any, Any]

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: all-of-bars}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 20m
  triggers:
{triggers}
  stages:
    - {{name: note, level: 1, any: [{names}], cooldown: 6h, reset: manual, actions: []}}
"""


def measures() -> Iterator[Measure]:
    """Promised: at most twenty times the NumPy pass."""
    bars, book = calm_bars(SEED, BARS), quiet_book()
    matrix, policies = PriceMatrix(bars), _policies(book)
    _check_same(calm_bars(SEED, CHECKED), book, policies)
    contracts = _contracts(bars, book)
    numpy_seconds = min(_seconds(lambda: _numpy_pass(matrix, book, contracts)) for _ in range(3))

    def ours() -> None:
        if asyncio.run(backtest(policies, matrix, book, rule="staged", venue=local)).firings:
            raise AssertionError("something fires: this must measure bars without venue activity")

    elapsed = _seconds(ours)
    name = f"backtest of {BARS:,} bars with {len(book.symbols)} symbols and {len(_signals(book))} signals"
    yield Measure(name, elapsed, numpy_seconds, "the same signals in NumPy", TIMES_NUMPY, "s")
    yield Measure(f"{name}, time for a bar", elapsed / BARS * 1e6, numpy_seconds / BARS * 1e6, "NumPy", None, "µs")


def _seconds(work: Callable[[], object]) -> float:
    """The processor time of the work, in seconds."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _signals(book: BacktestBook) -> tuple[str, ...]:
    """The signals as expressions write them; `_numpy_pass` computes the same ones in this order."""
    symbol = book.accounts[0].positions[0].symbol
    return (
        'equity.drawdown("1h")', "equity.drawdown_from_peak", "equity.loss_from_start", "equity.profit",
        "equity.best_profit", "equity.given_back", 'equity.loss_since("utc_day")', "pnl.unrealised",
        "pnl.unrealised_share", 'positions.worst_loss("entry")', "positions.worst_bleed", "exposure.gross",
        "exposure.net", "exposure.leverage", "exposure.largest_share", "exposure.imbalance", "exposure.herfindahl",
        'attribution.long_share("1h")', f'market.volatility("{symbol}", "1h", "1m")',
        f'market.volatility_ratio("{symbol}", "15m", "1h", "1m")', f'market.move("{symbol}", "1h")',
        f'market.jump("{symbol}", "1h", "1m")', 'market.correlation("1h", "1m", "mean")',
        'equity.expected_move("1h", "1h", "1m")',
    )  # fmt: skip


def _policies(book: BacktestBook) -> PolicySet:
    """A trigger for each signal, with a threshold that it never reaches."""
    texts = _signals(book)
    triggers = [f"    t{i}: {{when: '{text} > 1e15', on_unknown: hold, grace: 240h}}" for i, text in enumerate(texts)]
    names = ", ".join(f"t{i}" for i in range(len(texts)))
    return written(POLICY.format(triggers="\n".join(triggers), names=names))


def _check_same(bars: BarTable, book: BacktestBook, policies: PolicySet) -> None:
    """AssertionError unless both sides have the same values at the last bar; the comparison would mean nothing."""
    interpreter = Interpreter(policies)
    for snapshot in record(bars, book):
        interpreter.tick(snapshot)
    expected = [column[-1] for column in _numpy_pass(PriceMatrix(bars), book, _contracts(bars, book))]
    found = {each.name: each.value for each in interpreter.status()[0].triggers}
    for i, (text, value) in enumerate(zip(_signals(book), expected, strict=True)):
        low, high = found[f"t{i}"] or (None, None)
        if (
            low is None
            or high is None
            or not all(math.isclose(end, value, rel_tol=1e-6, abs_tol=1e-9) for end in (low, high))
        ):
            raise AssertionError(f"{text}: {(low, high)} is not {value}")


def _contracts(bars: BarTable, book: BacktestBook) -> Mapping[str, float]:
    """Symbol → the contracts that the paper market opens, which it rounds."""
    first = next(iter(record(bars, book)))
    return {each.symbol: float(each.contracts) for each in first.accounts[0].positions or ()}


def _numpy_pass(matrix: PriceMatrix, book: BacktestBook, contracts: Mapping[str, float]) -> list[Array]:
    """The values of `_signals`, an array for each; NaN where a window is not complete."""
    account = book.accounts[0]
    close = np.ascontiguousarray(matrix.close[:, matrix.columns([each.symbol for each in account.positions])])
    sign = np.array([1.0 if each.side == "long" else -1.0 for each in account.positions])
    quantity = sign * np.array([contracts[each.symbol] for each in account.positions])
    made = (close - close[0]) * quantity
    unrealised = made.sum(axis=1)
    equity = float(account.equity) + unrealised
    value, held = equity / equity[0], close * quantity
    size = np.abs(held)
    gross = size.sum(axis=1)
    share = size / gross[:, np.newaxis]
    return [
        *_of_equity(value, np.asarray(matrix.at)),
        unrealised, unrealised / equity, (np.maximum(-made, 0.0) / np.abs(held[0])).max(axis=1), _worst_bleed(made),
        gross, held.sum(axis=1), gross / equity, share.max(axis=1), held.sum(axis=1) / gross, (share**2).sum(axis=1),
        _long_share(value, made, sign), *_of_prices(close, held, equity),
    ]  # fmt: skip


def _of_equity(value: Array, at: Array) -> list[Array]:
    highest, hour = np.maximum.accumulate(value), trailing_highest(value, SAMPLED + 1)
    profit = value - value[0]
    best = np.maximum(np.maximum.accumulate(profit), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        given_back = np.where(best > 0.0, (best - profit) / best, 0.0)
    opened = np.searchsorted(at, at // DAY * DAY, side="right") - 1
    day = np.where(opened >= 0, np.maximum(0.0, 1.0 - value / value[opened]), np.nan)
    return [
        1.0 - value / hour, 1.0 - value / highest, np.maximum(0.0, 1.0 - value), profit, best, given_back, day
    ]  # fmt: skip


def _lagged(values: Array, bars: int) -> Array:
    """The values so many bars earlier."""
    return np.concatenate([np.full_like(values[:bars], np.nan), values[:-bars]])


def _worst_bleed(made: Array) -> Array:
    rates = np.array([(_lagged(made, bars) - made) / (bars * MINUTE / HOUR) for bars in (15, 60, 240)])
    worst: Array = rates.mean(axis=0).max(axis=1)
    return worst


def _long_share(value: Array, made: Array, sign: Array) -> Array:
    padded = np.concatenate([np.full(SAMPLED, -np.inf), value])
    latest = sliding_window_view(padded, SAMPLED + 1)[:, ::-1].argmax(axis=1)
    lost = made[np.arange(len(value)) - latest] - made
    long = np.maximum(lost[:, sign > 0].sum(axis=1), 0.0)
    short = np.maximum(lost[:, sign < 0].sum(axis=1), 0.0)
    with np.errstate(invalid="ignore"):
        found: Array = long / (long + short)
    return found


def _of_prices(close: Array, held: Array, equity: Array) -> list[Array]:
    count, bars = close.shape[1], len(close)
    returns = np.diff(close, axis=0) / close[:-1]

    def whole(values: Array) -> Array:
        return np.concatenate([np.full(bars - len(values), np.nan), values])

    hour = sliding_window_view(returns, SAMPLED, axis=0)
    deviation, short = hour[:, 0].std(axis=1, ddof=1), sliding_window_view(returns[:, 0], 15).std(axis=1, ddof=1)
    year = math.sqrt(365 * DAY / MINUTE)
    jump = np.abs(returns[SAMPLED:, 0]) / deviation[:-1]
    centred = hour - hour.mean(axis=2, keepdims=True)
    sample = centred @ centred.transpose(0, 2, 1) / SAMPLED
    scale = 1.0 / np.sqrt(np.diagonal(sample, axis1=1, axis2=2))
    total = np.einsum("ti,tij,tj->t", scale, sample, scale)
    correlation = (total - count) / (count * (count - 1))
    mean, square = np.trace(sample, axis1=1, axis2=2) / count, (sample**2).sum(axis=(1, 2))
    distance = (square - count * mean**2) / count
    error = (((centred**2).sum(axis=1) ** 2).sum(axis=1) / SAMPLED - square) / (count * SAMPLED)
    weight, exposure = np.minimum(error, distance) / distance, held[SAMPLED:]
    of_sample = np.einsum("ti,tij,tj->t", exposure, sample, exposure)
    variance = (1.0 - weight) * of_sample + weight * mean * (exposure**2).sum(axis=1)
    move = close[:, 0] / _lagged(close[:, 0], SAMPLED) - 1.0
    expected = np.sqrt(variance * HOUR / MINUTE) / equity[SAMPLED:]
    return [
        whole(deviation * year), whole(short[SAMPLED - 15 :] / deviation), move, whole(jump), whole(correlation),
        whole(expected),
    ]  # fmt: skip
