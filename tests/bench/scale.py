"""One tick of many accounts with 50 positions each and a policy of four signals, against the same arithmetic in NumPy.

A tick is `Interpreter.tick` on a snapshot that is made before its time is taken: drawdown and long share of 15 minutes,
leverage and the largest share of every account; nothing fires. In a second variant, accounts are polled at every second
tick, so that half of the snapshots are unchanged. Ticks are a quarter of an hour apart, so the windows are complete
with the second; with ten accounts they are also a second apart. Times are medians of the processor time of this
process, which other load disturbs least.

    python -m tests.bench scale
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median

import numpy as np

from killswitch.planning.interpreter import Interpreter
from tests.bench.accounts import HELD, Array, ArraySignals, Holdings, snapshots, walk
from tests.bench.measure import Measure
from tests.bench.replay import compiled

TICKS = {10: 50, 100: 15, 1_000: 9, 10_000: 3}
"""Accounts → measured ticks."""
WARM_UP = 2
APART = WINDOW = timedelta(minutes=15)
PROMISED, OF = 250.0, 1_000
"""Milliseconds of a tick, and the accounts for which they are promised."""
LINEAR = 1.3
"""The time of an account may grow by this factor where there are ten times as many."""
POLICY = Path(__file__).with_suffix(".yaml")


def measures() -> Iterator[Measure]:
    """Promised: 250 ms for 1,000 accounts, and a time for each account that does not depend on their number."""
    _check_same()
    each: dict[int, float] = {}
    for accounts, ticks in TICKS.items():
        holdings, marks = Holdings.of(accounts), walk(WARM_UP + ticks)
        ours = _tick_ms(holdings, marks, APART)
        each[accounts] = ours / accounts
        name = f"tick of {accounts:,} accounts × {HELD} positions"
        yield Measure(name, ours, _numpy_ms(holdings, marks), "the same signals in NumPy")
        if accounts == OF:
            yield Measure(name, ours, PROMISED, "promised", 1.0)
            halves = _tick_ms(holdings, marks, APART, halves=True)
            yield Measure(f"{name}, half of them unchanged", halves, ours, "all of them changed")
        if accounts // 10 in each:
            fewer = each[accounts // 10]
            name = f"time of an account among {accounts:,}"
            yield Measure(name, each[accounts] * 1e3, fewer * 1e3, f"among {accounts // 10:,}", LINEAR, "µs")
    few = min(TICKS)
    dense = _tick_ms(Holdings.of(few), walk(1000), timedelta(seconds=1))
    name = f"tick of {few} accounts, windows of 900 snapshots"
    yield Measure(name, dense, each[few] * few, "windows of 2")


def _tick_ms(holdings: Holdings, marks: Array, apart: timedelta, *, halves: bool = False) -> float:
    """The median processor time of a tick in milliseconds, once the windows are complete."""
    interpreter = Interpreter(compiled(POLICY))
    needed = max(WARM_UP, WINDOW // apart + 1)
    times = []
    for number, snapshot in enumerate(snapshots(holdings, marks, apart, halves=halves)):
        if number >= needed and len(holdings.contracts) >= OF:
            gc.collect()
        begun = time.process_time()
        outcome = interpreter.tick(snapshot)
        times.append(time.process_time() - begun)
        if outcome.decisions:
            raise AssertionError("something fires: the ticks are no longer equal")
    return median(times[needed:]) * 1e3


def _numpy_ms(holdings: Holdings, marks: Array) -> float:
    """The median processor time of the same signals in NumPy, in milliseconds."""
    signals, times = ArraySignals(holdings, WINDOW // APART + 1), []
    for prices in marks:
        columns = np.tile(prices, (len(holdings.contracts), 1))
        begun = time.process_time()
        signals.tick(columns)
        times.append(time.process_time() - begun)
    return median(times[WARM_UP:]) * 1e3


def _check_same() -> None:
    """AssertionError unless both give the same values at every tick; the comparison would mean nothing."""
    accounts, ticks = 3, 40
    holdings, marks = Holdings.of(accounts), walk(ticks)
    interpreter, signals = Interpreter(compiled(POLICY)), ArraySignals(holdings, WINDOW // APART + 1)
    for number, snapshot in enumerate(snapshots(holdings, marks, APART)):
        interpreter.tick(snapshot)
        expected = signals.tick(np.tile(marks[number], (accounts, 1)))
        if number < WARM_UP:
            continue
        machines = interpreter.status()
        if len(machines) != accounts:
            raise AssertionError(f"{len(machines)} scopes are watched, not {accounts}")
        for account, machine in enumerate(machines):
            for found in machine.triggers:
                low, high = (math.nan if end is None else end for end in found.value or (None, None))
                value = expected[found.name][account]
                is_same = math.isclose(low, value, abs_tol=1e-9) and math.isclose(high, value, abs_tol=1e-9)
                if not (is_same or (math.isnan(value) and found.truth is None)):
                    raise AssertionError(f"{machine.scope}, {found.name}: {found.value} is not {value}")
