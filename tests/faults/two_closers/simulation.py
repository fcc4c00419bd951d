"""Two closers of one account, each with a journal of its own, that wake within a second of each other.

The simulation of `field/beyond.md`: the market has no reduce-only, as margin and shares; a query takes 150 ms and an
order is visible after 300 ms, both log-normal. One closer has the right, the other yields.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, Final, TypeVar

from msgspec import Struct

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.snapshot import AccountSnapshot, Order
from killswitch.model.venue import OrderReport, OrderRequest, VenueDescription
from tests.faults.exchange import ZERO, Exchange, Key, Market
from tests.faults.journal_checker import MemoryJournal
from tests.faults.scene import committed, decision_on
from tests.faults.wire import Wire
from tests.virtual_time import VirtualTime

T = TypeVar("T")
QUERY, VISIBLE = 0.15, 0.3
"""Medians: seconds of a query's round trip, and seconds after which a sent order has an effect that others see."""
SPREAD: Final = 0.85
"""Standard deviation of the logarithm of both."""
PLAIN: Final = VenueDescription()
"""A venue that bounds no request in time: an order may appear late, and the same name is never carried out twice."""
ENFORCED: Final = VenueDescription(enforces_reduce_only=True)
PATIENCE = 120.0


class SlowWire(Wire):
    """Queries and orders take log-normal times; what a query shows is as of the middle of it."""

    def __init__(self, exchange: Exchange, timeline: VirtualTime, chance: random.Random, traits: VenueDescription):
        super().__init__(exchange, timeline, traits=traits)
        self._chance = chance
        self.first_order: float | None = None

    def _drawn(self, median: float) -> float:
        return median * math.exp(SPREAD * self._chance.gauss(0.0, 1.0))

    async def snapshot(self) -> AccountSnapshot:
        return await self._query(super().snapshot())

    async def open_orders(self) -> tuple[Order, ...]:
        return await self._query(super().open_orders())

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        return await self._query(super().find_order(symbol, client_order_id))

    async def submit(self, request: OrderRequest) -> OrderReport:
        if self.first_order is None:
            self.first_order = self._timeline.elapsed
        await asyncio.sleep(self._drawn(VISIBLE))
        return await super().submit(request)

    async def _query(self, answer: Coroutine[Any, Any, T]) -> T:
        way = self._drawn(QUERY) / 2
        try:
            await asyncio.sleep(way)
            found = await answer
            await asyncio.sleep(way)
        finally:
            answer.close()  # where the query is cancelled before it is answered
        return found


class Round(Struct, frozen=True):
    """One round: what was sold beyond the positions (contracts), what is left of them, and when each sent first.

    Times are seconds after the closer woke; None if it sent nothing.
    """

    oversold: Decimal
    left: Decimal
    first_orders: tuple[float | None, float | None]


def played(
    seed: int,
    *,
    traits: VenueDescription = PLAIN,
    yields: bool = True,
    closers: int = 2,
    positions: int = 3,
    shares: tuple[str, ...] = (),
) -> Round:
    """Both close `positions` whole, the second one yielding; each wakes at a time within a second of the other.

    `closers`: with 1, only the one that has the right.

    `shares`: how much of what could fill the n-th order of each market gets; all after the last.
    """
    chance, time = random.Random(seed), VirtualTime()
    book: dict[Key, Decimal] = {(f"C{number}", "long"): Decimal(10) for number in range(positions)}
    markets = [Market(symbol, shares=list(map(Decimal, shares))) for symbol, _ in book]
    venue = Exchange(book, lambda: (time.elapsed, time.now()), markets=markets)
    wires = [SlowWire(venue, time, random.Random(chance.random()), traits) for _ in range(2)]
    wakes = [1.0 + chance.uniform(-1.0, 1.0), 1.0]

    async def close(number: int) -> None:
        await time.sleep(wakes[number])
        store = MemoryJournal()
        is_enforced = traits.enforces_reduce_only is True
        decision = decision_on(venue, f"{number}", time.now(), dict.fromkeys(book, ZERO), reduce_only=is_enforced)
        closer = AccountExecutor("main", wires[number], store, time, yields=bool(number) and yields)
        closer.adopt(committed(store, decision))
        while time.elapsed < PATIENCE and await closer.advance():
            if (pause := closer.wait) > 0.0:
                await time.sleep(min(pause, 1.0))

    async def both() -> None:
        await asyncio.gather(*map(close, range(closers)))

    time.run(both())
    short = sum((amount for (_, side), amount in venue.held.items() if side == "short"), ZERO)
    left = sum((amount for (_, side), amount in venue.held.items() if side == "long"), ZERO)
    since = (None if it.first_order is None else it.first_order - at for it, at in zip(wires, wakes, strict=True))
    runner, watcher = since
    return Round(short, left, (runner, watcher))
