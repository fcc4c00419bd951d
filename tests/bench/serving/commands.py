"""From an operator's halt to the lock on disk and to the first cancel at the venue, at an interval of ten minutes.

A real run against the paper venue on loopback. The time counts from directly before the command is stored, as `ksctl
halt` and the intake of a server do it. What starting `ksctl` takes is measured by the part `startup`. The order counts
as cancelled once a read of the venue lacks it, which is later than the cancel was sent.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from killswitch.gate.lock_reader import read_lock
from killswitch.model.venue import AccountSpec, OrderRequest, VenueAdapter
from killswitch.operations.commands import operator_event
from killswitch.operations.lifting import manual_holds
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from killswitch_paper import adapter
from tests.bench.measure import Measure
from tests.e2e.processes import UNTRIGGERED, Site, paper

ROUNDS = 100
LIMIT_MS = 250.0
LOOK = 0.001
"""Seconds between two looks at the lock file."""
GIVE_UP = 10.0
"""Seconds after which a round counts as failed."""


def halts() -> Iterator[Measure]:
    """The p99 of both times against 250 ms."""
    with TemporaryDirectory() as folder, paper("--crash", "7", "--speed", "0") as address:
        site = Site(Path(folder), address, policy=UNTRIGGERED)
        with site.running("--live", "--interval", "10m"):
            store = open_store(str(site.store))
            try:
                locked, cancelled = asyncio.run(_rounds(site, store))
            finally:
                store.close()
    for what, times in (("the lock on disk", locked), ("the first cancel at the venue", cancelled)):
        p99 = statistics.quantiles(times, n=100)[98]
        against = f"median {statistics.median(times):.1f} ms, the limit"
        yield Measure(f"from a halt to {what}, p99 of {ROUNDS}", p99, LIMIT_MS, against, 1.0)


async def _rounds(site: Site, store: SqlStore) -> tuple[list[float], list[float]]:
    """Milliseconds to the lock and to the cancel, of each round."""
    venue = adapter(AccountSpec("main", "paper", "swap", "USDT", site.address, {}, {}))
    locked, cancelled = [], []
    try:
        entry = await _entry(venue)
        for number in range(ROUNDS):
            await venue.submit(replace(entry, client_order_id=f"bench{number}"))
            begun = time.perf_counter()
            event = operator_event("halt", None, "bench", "bench", datetime.now(UTC), lock="reduce_only")
            store.put_event(event)
            locked.append(await _until_locked(site, begun, is_locked=True))
            while await venue.open_orders():
                pass  # each read is a request on loopback
            cancelled.append(1000 * (time.perf_counter() - begun))
            ids = tuple(each.decision for each in manual_holds(store, datetime.now(UTC)))
            store.put_event(operator_event("unlock", "portfolio", "bench", "bench", datetime.now(UTC), ids=ids))
            await _until_locked(site, time.perf_counter(), is_locked=False)
    finally:
        await venue.close()
    return locked, cancelled


async def _entry(venue: VenueAdapter) -> OrderRequest:
    """An entry at half the price of a position, which rests."""
    seen = await venue.snapshot()
    position = (seen.positions or ())[0]
    assert position.mark_price is not None
    (rules,) = [each for each in seen.instruments or () if each.symbol == position.symbol]
    step = rules.price_step or Decimal("0.01")
    price = (position.mark_price / 2 // step) * step
    return OrderRequest("bench", position.symbol, "buy", "long", position.contracts, False, "limit", price)


async def _until_locked(site: Site, begun: float, *, is_locked: bool) -> float:
    """Milliseconds until the account's lock file says so."""
    path = site.locks / "account__main.json"
    while read_lock(path, datetime.now(UTC)).locked is not is_locked:
        if time.perf_counter() - begun > GIVE_UP:
            raise AssertionError(f"{path} is not {'locked' if is_locked else 'open'} within {GIVE_UP:g} s")
        await asyncio.sleep(LOOK)
    return 1000 * (time.perf_counter() - begun)
