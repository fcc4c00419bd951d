"""The venue of a drill: the paper venue, which does something wrong at declared moments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from msgspec.structs import replace

from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    OPTIONAL_ATTRIBUTES,
    FateUnknownError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    VenueAdapter,
    VenueDownError,
)

Fault = Literal["reject", "lost_answer", "outage"]
OUTAGE = 10.0
"""Seconds of the drill's clock for which the venue cannot be read."""


class DrillVenue(VenueAdapter):
    """Passes everything on to the paper venue, but for its faults.

    `reject`: the first order is rejected. `lost_answer`: the second one arrives and its answer does not. `outage`: the
    venue cannot be read for ten seconds after the third.
    """

    def __init__(self, venue: VenueAdapter, faults: Collection[Fault], clock: Clock) -> None:
        self.account = venue.account
        self.traits = venue.traits
        for name in OPTIONAL_ATTRIBUTES:
            setattr(self, name, getattr(venue, name))
        self.batches = None  # a batch would carry several orders past their faults
        self._venue = venue
        self._faults = frozenset(faults)
        self._clock = clock
        self._orders = 0
        self._down_until = 0.0
        self.met: list[Fault] = []
        """The faults that a request has met, in their order."""

    async def snapshot(self) -> AccountSnapshot:
        found = await self._venue.snapshot()
        if self._clock.monotonic() >= self._down_until:
            return found
        return replace(found, quality="down", reason="drill: the venue cannot be read")

    async def submit(self, request: OrderRequest) -> OrderReport:
        self._require_up()
        self._orders += 1
        if self._orders == 1 and "reject" in self._faults:
            self.met.append("reject")
            raise OrderRejectedError("other", "drill: the venue rejects this order")
        report = await self._venue.submit(request)
        if self._orders == 2 and "lost_answer" in self._faults:
            self.met.append("lost_answer")
            raise FateUnknownError("drill: the answer is lost")
        if self._orders == 3 and "outage" in self._faults:
            self.met.append("outage")
            self._down_until = self._clock.monotonic() + OUTAGE
        return report

    def _require_up(self) -> None:
        if self._clock.monotonic() < self._down_until:
            raise VenueDownError("drill: the venue cannot be reached")

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        self._require_up()
        return await self._venue.find_order(symbol, client_order_id)

    async def open_orders(self) -> tuple[Order, ...]:
        self._require_up()
        return await self._venue.open_orders()

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        self._require_up()
        return await self._venue.fills(symbol, client_order_id)

    async def cancel(self, symbol: str, order_id: str) -> None:
        self._require_up()
        await self._venue.cancel(symbol, order_id)

    async def close(self) -> None:
        await self._venue.close()
