"""The cost of polling an account, as a share of a venue's documented limits, counted by the wire-level venue itself."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from killswitch.conformance.harness import Key
from tests.conformance.harnesses import Wired, WireHarness
from tests.wire.server import Seen

SECONDS = 180
BOOK, ORDERS = 4, 20


class Cost(Struct, frozen=True):
    """`requests`: a snapshot, on average. `shares`: limit → the most of it that was used in any of its windows, as a
    fraction of what it allows. `means`: limit → units a snapshot, on average. `refused`: requests that the venue
    rate-limited; `unwell`: snapshots that were not `ok`.
    """

    requests: float
    shares: dict[str, float]
    means: dict[str, float]
    refused: int
    unwell: int


def measure_polling(wired: Wired, *, moving: bool = False, watched: int = 0, seconds: int = SECONDS) -> Cost:
    """A snapshot a second; `moving`: somebody trades every ten seconds; `watched`: symbols of the watch list that are
    not held."""
    harness = WireHarness(wired)
    harness.watched_more = watched
    book: dict[Key, Decimal] = {(symbol, "long"): Decimal(BOOK) for symbol in harness.symbols}

    async def course() -> Cost:
        venue = await harness.open(book, watch=watched > 0)
        for number in range(ORDERS):
            await harness.rest(harness.symbols[number % 2], "buy", Decimal(1))
        unwell = 0
        try:
            await venue.snapshot()  # rules, and everything for the first time
            await asyncio.sleep(1.0)
            begun = harness.wire.now()[0]
            for second in range(seconds):
                if moving and second % 10 == 0:
                    await harness.trade((harness.symbols[0], "long"), Decimal(1))
                unwell += (await venue.snapshot()).quality != "ok"
                await asyncio.sleep(max(0.0, begun + second + 1 - harness.wire.now()[0]))
            seen = [it for it in harness.wire.seen if it.at >= begun]
            limits = {it.name: (it.allowed, it.per) for it in harness.wire.limits}
            shares = {name: most_in(seen, name, per) / allowed for name, (allowed, per) in limits.items()}
            refused = sum(it.mishap == "limited" for it in seen)
            total: Counter[str] = Counter()
            for it in seen:
                total.update(it.units)
            means = {name: units / seconds for name, units in total.items()}
            return Cost(len(seen) / seconds, shares, means, refused, unwell)
        finally:
            await venue.close()
            await harness.close()

    return harness.run(course())


def most_in(seen: Iterable[Seen], limit: str, per: float) -> int:
    """The most units of a limit that were counted in any stretch of `per` seconds. `seen`: as they arrived."""
    within: deque[tuple[float, int]] = deque()
    most = units = 0
    for it in seen:
        if limit not in it.units:
            continue
        while within and it.at >= within[0][0] + per:
            units -= within.popleft()[1]
        within.append((it.at, it.units[limit]))
        units += it.units[limit]
        most = max(most, units)
    return most
