"""The benchmarks of `closing` as three parts: short closes, closes of 1,000 positions, and closes under faults."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.closing import (
    FAST_ENOUGH,
    ROUNDS,
    RUNS,
    STARTED,
    STARTS,
    THREE,
    failing,
    first_order,
    journaled,
    real,
    recorded_flat,
    scheduled,
)
from tests.bench.limits import BINANCE
from tests.bench.measure import Measure

BOOKS = (("binance", {"binance": BINANCE}), ("three venues", THREE))


def short() -> Iterator[Measure]:
    """Short closes, the first order of 1,000, the time to `flat` in the record, the pace of orders, and the journal."""
    for count in (10, 100):
        yield from _of(count)
    yield from _first_orders()
    yield from recorded_flat()
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
        yield Measure(title, best.elapsed, best.floor, "floor", FAST_ENOUGH, "s", best.slowness)
        if best.machine is not None:
            print(
                f"  this machine: {best.commits} durable commits in the way at {best.machine.commit * 1e3:.2f} ms, "
                f"and 2 answers at {best.machine.late * 1e3:.2f} ms of late wake-ups"
            )
        yield Measure(f"{title}, refused for too many requests", best.refused, 1.0, "one", 0.0, "times")


def _first_orders() -> Iterator[Measure]:
    for name, venues in BOOKS:
        started = min(first_order(venues, 1000) for _ in range(STARTS))
        yield Measure(f"closing 1,000 positions on {name}, first order", started * 1e3, 1.0, "1 ms", STARTED)
