"""Puts between closing and an honest venue what goes wrong between them; the venue itself stays honest."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.store import Store
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueDownError,
)
from tests.honest_venue import HonestVenue, VirtualClock

Fault = Literal[
    "none",
    "down",  # surely not done
    "limited",  # surely not done
    "lost",  # a timeout, not done
    "done",  # a timeout, done
    "garbled",  # done, and the answer makes no sense
    "defect",  # done, and the adapter raises what it should not
    "late",  # a timeout, and the request arrives a second later
    "empty",  # an answer with nothing in it
    "stale",  # the answer of a while ago, and it says so
    "lagging",  # the answer of a while ago, and it does not say so
]
FAULTS: tuple[Fault, ...] = (
    "none", "down", "limited", "lost", "done", "garbled", "defect", "late", "empty", "stale", "lagging",
)  # fmt: skip
ARRIVES_AFTER = 1.0
"""Seconds after which a late request arrives: less than closing waits before it believes in an absence."""


class FaultyVenue(HonestVenue):
    """Takes the next fault from `plan` at each request; without one nothing goes wrong."""

    def __init__(self, positions: dict[str, Decimal], *, clock: VirtualClock, store: Store) -> None:
        super().__init__(positions)
        self.plan: list[Fault] = []
        self._clock = clock
        self._store = store
        self._under_way: list[tuple[float, OrderRequest]] = []
        self._older: list[AccountSnapshot] = []

    async def submit(self, request: OrderRequest) -> OrderReport:
        self._assert_journaled(request)
        await self.arrive()
        fault = self._next()
        if fault == "late":
            self._under_way.append((self._clock.monotonic() + ARRIVES_AFTER, request))
            raise FateUnknownError("timeout")
        return await self._through(fault, lambda: super(FaultyVenue, self).submit(request))

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        await self.arrive()
        fault = self._next()
        if fault == "empty":
            return None
        return await self._through(fault, lambda: super(FaultyVenue, self).find_order(symbol, client_order_id))

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self._through(self._next(), lambda: super(FaultyVenue, self).cancel(symbol, order_id))

    async def snapshot(self) -> AccountSnapshot:
        await self.arrive()
        fault, true = self._next(), await super().snapshot()
        older = self._older[-3:][0] if self._older else true
        self._older.append(true)
        if fault == "empty":
            return replace(true, positions=())
        if fault == "stale":
            return replace(older, quality="stale", reason="cached")
        if fault == "lagging":
            return older
        return await self._through(fault, super().snapshot)

    async def arrive(self) -> None:
        """What was on its way and is due reaches the venue; its answer finds nobody."""
        due = [request for at, request in self._under_way if at <= self._clock.monotonic()]
        self._under_way = [(at, request) for at, request in self._under_way if at > self._clock.monotonic()]
        for request in due:
            try:
                await super().submit(request)
            except Exception as error:  # noqa: BLE001 - nobody is there to hear the refusal
                self.state["log"].append(f"unheard: {error}")

    def _next(self) -> Fault:
        return self.plan.pop(0) if self.plan else "none"

    async def _through(self, fault: Fault, call: Callable[[], object]) -> object:
        match fault:
            case "down":
                raise VenueDownError("maintenance")
            case "limited":
                raise RateLimitedError("slow down", 0.5)
            case "lost" | "late":
                raise FateUnknownError("timeout")
        answer = await call()  # type: ignore[misc] # every call here is a coroutine function
        match fault:
            case "done":
                raise FateUnknownError("timeout")
            case "garbled":
                raise MalformedAnswerError("not JSON")
            case "defect":
                raise KeyError("avgPx")
        return answer

    def _assert_journaled(self, request: OrderRequest) -> None:
        """An order may leave only after a `sending` entry that says so, to the contract."""
        name = request.client_order_id
        written = ("sending", "protected")
        sendings = [it for it in self._store.journal() if it.kind in written and it.client_order_id == name]
        assert sendings, f"{name} was sent and nothing is journaled"
        assert sendings[-1].data["amount"] == str(request.amount)
