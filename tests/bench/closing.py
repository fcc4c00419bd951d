"""Closing whole books: the time, against the floor that the venues' limits and the network make unavoidable.

Simulated venues (`venues.py`) with a round trip of 40 ± 5 ms and the documented limits of Binance, Bybit and OKX
(`limits.py`, which has the floor too); the real account executors, run in parallel as the runner does, and a real
store on disk. Time is real, except in the runs in which calls fail: those run in virtual time.
`python -m tests.bench.closing 100 binance bybit` closes once, and prints where the time is spent.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.state.intents import planned_entries
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision, Intent, Unwinding
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry, TickRecord
from killswitch.model.venue import VenueDescription
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.runner.clock import SystemClock
from killswitch.runner.closing_workers import ClosingWorker, ClosingWorkers
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import virtual_time
from tests.bench.limits import BINANCE, BYBIT, OKX, floor, spread
from tests.bench.machine import Machine, between, measured, plain_commit
from tests.bench.measure import Measure
from tests.bench.memory import fast_folder
from tests.bench.venues import SIZE, SimulatedVenue
from tests.conformance.wires import WIRES
from tests.faults.mishaps import Mishap, Rule
from tests.wire.polled_close import PolledClose

T = TypeVar("T")

THREE = {"binance": BINANCE, "bybit": BYBIT, "okx": OKX}
COUNTS = (10, 100, 1000)
FAST_ENOUGH, STARTED, KEPT, UNDER_FAULTS, JOURNALED = 1.10, 5.0, 1.02, 1.5, 1.0
"""The promises: × floor; ms; × the schedule; × floor; × a bare commit for each order."""
ROUNDS = {10: 7, 100: 5, 1000: 1}
"""Closes by number of positions; the best counts, because other processes on the machine disturb short closes."""
STARTS = 7
"""Closes of which only the first order is timed; the best counts."""
RUNS, FAILING, FAILED_BOOK = 10_000, 0.05, 40
PER_MINUTE, SCHEDULED = 600, 60
LOST: tuple[Mishap, ...] = ("lost", "silent", "held")
LOSING, LOST_BOOK, RECORDED = ("binance", "okx"), 62, 2.0
"""Venues that lose requests; positions; and the promise in seconds: a snapshot may wait for one window of a limit."""
RESERVED = Decimal("0.5")
"""The share of every limit that is reserved for closing; nothing else uses the venues here."""


class Close(Struct, frozen=True):
    """One close, in seconds: `elapsed` until the decision's end is durable, `first` until the first order was sent."""

    elapsed: float
    floor: float
    first: float
    refused: int
    venues: Sequence[SimulatedVenue]
    commits: int = 0
    """Durable writes that the end waits for: between the last wave's turn and its last order, and after the proof."""
    machine: Machine | None = None

    @property
    def slowness(self) -> float:
        """Seconds that this machine adds: those commits, and the answers to the last order and to the proof."""
        return 0.0 if self.machine is None else self.machine.share(self.commits, answers=2)

    @property
    def ratio(self) -> float:
        """The multiple of the floor, without the machine's own slowness."""
        return (self.elapsed - self.slowness) / self.floor


def real(
    traits: dict[str, VenueDescription],
    count: int,
    *,
    unwinding: Unwinding | None = None,
    profile: cProfile.Profile | None = None,
) -> Close:
    """Close `count` positions, distributed evenly over the venues, in real time on a store on disk."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as place:
        store = open_store(str(Path(place) / "store.sqlite"))
        venues = _venues(traits, count, seed=count)
        before = measured(Path(place))
        gc.collect()
        gc.freeze()
        try:
            done = asyncio.run(close(venues, store, clock, unwinding, profile))
        finally:
            gc.unfreeze()
            store.close()
        return replace(done, machine=between(before, measured(Path(place))))


async def close(
    venues: Sequence[SimulatedVenue],
    store: SqlStore,
    clock: Clock,
    unwinding: Unwinding | None = None,
    profile: cProfile.Profile | None = None,
) -> Close:
    """Commit a decision to close everything, and run the executors until no work is left.

    `profile` covers the time from the durable decision to the end.
    """
    closings, decision = await _committed(venues, store, clock, unwinding)
    loop = asyncio.get_running_loop()
    writes: list[tuple[float, float]] = []
    if profile is not None:
        profile.enable()
    begun = loop.time()
    with _timed(store, writes):
        closings.adopt([decision])
        while closings.has_work():
            await closings.advance(1.0)
            if closings.is_working:
                await asyncio.sleep(min(closings.wait, 0.001))
    elapsed = loop.time() - begun
    if profile is not None:
        profile.disable()
    counts = [len(venue.positions) for venue in venues]
    _check(venues, closings)
    return Close(
        elapsed,
        max(floor(venue.traits, count, venue.trips) for venue, count in zip(venues, counts, strict=True)),
        min(trip.sent_at for venue in venues for trip in venue.trips if trip.orders) - begun,
        sum(venue.refused for venue in venues),
        venues,
        _commits_in_the_way(venues, begun, [at for at, _ in writes]),
    )


async def _committed(
    venues: Sequence[SimulatedVenue], store: SqlStore, clock: Clock, unwinding: Unwinding | None = None
) -> tuple[ClosingWorkers, Decision]:
    """The executors, and a durable decision to close everything that they have not adopted yet."""
    budgets, workers = RequestBudgets(), {}
    for venue in venues:
        budget = budgets.of(venue.account, venue.account, venue.traits, RESERVED)
        executor = AccountExecutor(venue.account, venue, store, clock, budget=budget, breaker=Breaker())
        workers[venue.account] = ClosingWorker(venue.account, executor, (), clock.monotonic)
    closings = ClosingWorkers(workers)
    await closings.recover(1.0)
    books = [venue.book() for venue in venues]
    decision = _decision(venues, clock, unwinding)
    snapshot = Snapshot(clock.now(), tuple(books), "killswitch.snapshot/v1")
    planned = planned_entries(decision, snapshot=snapshot)
    for book in books:
        closings.observe((book,), at=clock.monotonic())
    closings.prepare([(decision, planned)])
    _commit(store, decision, planned)
    return closings, decision


def _commits_in_the_way(venues: Sequence[SimulatedVenue], begun: float, writes: Sequence[float]) -> int:
    """How many of the durable writes delay the end: all others were made while an answer was on its way.

    Of several venues, the one with the last order of all; its end also waits for what the others write meanwhile.
    """
    last = max(venues, key=lambda venue: venue.trips[-1].sent_at + venue.trips[-1].elapsed)
    sent = max(trip.sent_at for trip in last.trips if trip.orders)
    turn = begun + spread(last.traits, len(last.positions))[0]
    proved = last.trips[-1].sent_at + last.trips[-1].elapsed
    return sum(turn <= at <= sent or at >= proved for at in writes)


def first_order(traits: dict[str, VenueDescription], count: int) -> float:
    """Seconds from the commit of a decision on `count` positions to its first order, in real time, stored on disk."""

    async def first(venues: Sequence[SimulatedVenue], store: SqlStore) -> float:
        closings, decision = await _committed(venues, store, SystemClock())
        begun = asyncio.get_running_loop().time()
        closings.adopt([decision])
        while not (sent := [trip.sent_at for venue in venues for trip in venue.trips if trip.orders]):
            closings.kick()
            await asyncio.sleep(0)
        await closings.abandon()
        return min(sent) - begun

    with tempfile.TemporaryDirectory() as place:
        store = open_store(str(Path(place) / "store.sqlite"))
        venues = _venues(traits, count, seed=count)
        gc.collect()
        gc.freeze()
        try:
            return asyncio.run(first(venues, store))
        finally:
            gc.unfreeze()
            store.close()


def recorded_flat() -> Iterator[Measure]:
    """From flat at the venue to `flat` in the record after lost requests, in the wire-level venues' own time."""
    for name in LOSING:
        gaps: dict[str, float] = {}
        for mishap in LOST:
            for times in (1, 10):
                lost = PolledClose(WIRES[name], more=LOST_BOOK - 2)
                status = lost.play(Rule("submit", mishap, times=times), Rule("submit_batch", mishap, times=times))
                if status != "flat":
                    raise AssertionError(f"{name}, {times} requests {mishap}: the close is {status}")
                gaps[f"{times} {mishap}"] = lost.ended_at - lost.flat_at
        worst = max(gaps, key=gaps.__getitem__)
        title = f"from flat at {name} to flat in the record, {LOST_BOOK} positions, {worst} requests, the worst of six"
        yield Measure(title, gaps[worst], RECORDED, f"{RECORDED:g} s", 1.0, "s")


def scheduled() -> Measure:
    """A close with a declared number of orders a minute: the time from the first to the last, against the schedule."""
    done = real({"binance": BINANCE}, SCHEDULED, unwinding=Unwinding("bench", max_orders_per_minute=PER_MINUTE))
    left = sorted(trip.sent_at for trip in done.venues[0].trips for _ in range(trip.orders))
    elapsed, promised = left[-1] - left[0], (SCHEDULED - 1) * 60 / PER_MINUTE
    # Too fast misses the promise as well as too slow.
    name = f"{SCHEDULED} orders at {PER_MINUTE} a minute"
    return Measure(name, max(elapsed, promised**2 / max(elapsed, 1e-9)), promised, "the schedule", KEPT, "s")


def journaled(count: int = 100) -> Measure:
    """Durable writes of a close of `count` positions, for each order, against a plain commit of one row."""
    writes: list[tuple[float, float]] = []
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as place:
        store = open_store(str(Path(place) / "store.sqlite"))
        with _timed(store, writes):
            asyncio.run(close(_venues({"binance": BINANCE}, count, seed=1), store, clock))
        store.close()
        plain = plain_commit(Path(place) / "bare.sqlite")
    return Measure(
        "journal of one order's close",
        sum(each for _, each in writes) / count * 1e6,
        plain * 1e6,
        "a bare SQLite commit",
        JOURNALED,
        "µs",
    )


def failing(runs: int) -> Measure:
    """Mean seconds of closing against the mean floor, while a share of all calls fails."""
    elapsed = floors = 0.0
    for seed in range(runs):
        done = failed_run(seed)
        elapsed += done.elapsed
        floors += done.floor
    name = f"closing {FAILED_BOOK} positions while {FAILING:.0%} of calls fail, {runs:,} runs"
    return Measure(name, elapsed / runs, floors / runs, "floor", UNDER_FAULTS, "s")


def failed_run(seed: int, count: int = FAILED_BOOK) -> Close:
    """One close on Bybit's limits, the slowest of the three, in virtual time; every other one without batches."""
    timeline = virtual_time.VirtualTime()
    with tempfile.TemporaryDirectory(dir=fast_folder()) as place:
        store = open_store(str(Path(place) / "store.sqlite"))
        traits = BYBIT if seed % 2 else replace(BYBIT, batch=1)
        venue = SimulatedVenue("bybit", traits, count, seed, failing=FAILING)
        try:
            return timeline.run(close([venue], store, timeline))
        finally:
            store.close()


def _venues(traits: dict[str, VenueDescription], count: int, seed: int) -> list[SimulatedVenue]:
    share, rest = divmod(count, len(traits))
    return [
        SimulatedVenue(name, each, share + (number < rest), seed * 10 + number)
        for number, (name, each) in enumerate(traits.items())
    ]


def _decision(venues: Sequence[SimulatedVenue], clock: Clock, unwinding: Unwinding | None) -> Decision:
    intents = tuple(
        Intent(
            account=venue.account,
            symbol=symbol,
            position_side="long",
            side="sell",
            contracts=SIZE,
            target=SIZE - SIZE,
            reduce_only=True,
            rank=rank,
        )
        for venue in venues
        for rank, symbol in enumerate(venue.positions, start=1)
    )
    return Decision(
        id="bench", as_of=clock.now(), policy="p", policy_set="sha256:0", scope="portfolio", mode="enforce",
        stage="close", level=1, previous_level=0, intents=intents, unwinding=unwinding,
    )  # fmt: skip


def _commit(store: SqlStore, decision: Decision, planned: Sequence[JournalEntry]) -> None:
    """Commit as the runner does: decision and planned entries in one transaction."""
    store.commit_tick(
        TickRecord(
            as_of=decision.as_of, policy_set="sha256:0", states=(), rows=(), decisions=(decision,), notices=(),
            journal=tuple(planned), snapshot=None, consumed_events=(), prune_before=0,
        )
    )  # fmt: skip


def _check(venues: Sequence[SimulatedVenue], closings: ClosingWorkers) -> None:
    """AssertionError unless every book is flat and nothing was overfilled."""
    statuses = {closing.status for closing in closings.progress()}
    if statuses != {"flat"} or not all(venue.flat for venue in venues):
        raise AssertionError(f"the book is not flat: {statuses}")
    if any(venue.overfilled for venue in venues):
        raise AssertionError("more was closed than was there")


@contextmanager
def _timed(store: SqlStore, writes: list[tuple[float, float]]) -> Iterator[None]:
    """List when each of the store's two functions that write the journal began, and how long it took, in seconds."""
    one, many = store.append, store.append_all

    def append(entry: JournalEntry) -> int:
        return _timing(lambda: one(entry), writes)

    def append_all(entries: Sequence[JournalEntry]) -> None:
        _timing(lambda: many(entries), writes)

    store.append, store.append_all = append, append_all  # type: ignore[method-assign] # timed, not changed
    try:
        yield
    finally:
        store.append, store.append_all = one, many  # type: ignore[method-assign] # as it was


def _timing(work: Callable[[], T], writes: list[tuple[float, float]]) -> T:
    begun = time.monotonic()
    try:
        return work()
    finally:
        writes.append((begun, time.monotonic() - begun))


def main(count: int, names: Sequence[str]) -> None:
    """Close once, and once more under the profiler; print the functions with the most own and cumulative time."""
    traits = {name: THREE[name] for name in names or ("binance",)}
    done = real(traits, count)
    print(
        f"{count:,} positions on {', '.join(traits)}: {done.elapsed:.3f} s, floor {done.floor:.3f} s, "
        f"ratio {done.elapsed / done.floor:.2f}, without the machine's own {done.slowness * 1e3:.1f} ms "
        f"{done.ratio:.2f}, first order after {done.first * 1e3:.1f} ms, refused {done.refused} times"
    )
    profile = cProfile.Profile()
    real(traits, count, profile=profile)
    statistics = pstats.Stats(profile)
    statistics.sort_stats("tottime").print_stats(15)
    statistics.sort_stats("cumulative").print_stats("killswitch", 15)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
