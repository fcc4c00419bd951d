"""The benchmarks of `closing` as three parts: short closes, closes of 1,000 positions, and closes under faults."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.closing import FAST_ENOUGH, ROUNDS, RUNS, STARTED, THREE, failing, journaled, real, scheduled
from tests.bench.limits import BINANCE
from tests.bench.measure import Measure

BOOKS = (("binance", {"binance": BINANCE}), ("three venues", THREE))


def short() -> Iterator[Measure]:
    """Closes of 10 and 100 positions, the pace of orders under a declared limit, and the journal of an order."""
    for count in (10, 100):
        yield from _of(count)
    yield scheduled()
    yield journaled()


def thousand() -> Iterator[Measure]:
    """Closes of 1,000 positions: minutes, which the venues' limits require."""
    yield from _of(1000)


def faults() -> Iterator[Measure]:
    """Thousands of closes while calls fail, in virtual time."""
    yield failing(RUNS)


def _of(count: int) -> Iterator[Measure]:
    for name, venues in BOOKS:
        best = min((real(venues, count) for _ in range(ROUNDS[count])), key=lambda close: close.ratio)
        title = f"closing {count:,} positions on {name}"
        yield Measure(title, best.elapsed, best.floor, "floor", FAST_ENOUGH, "s")
        yield Measure(f"{title}, refused for too many requests", best.refused, 1.0, "one", 0.0, "times")
        if count >= 1000:
            yield Measure(f"{title}, first order", best.first * 1e3, 1.0, "1 ms", STARTED)
