"""A simulated venue with latency and limits for measuring closing: it fills every order, and refuses excess requests.

A round trip is drawn when a request is sent, and the request takes effect half way, by the loop's time, however late
our own work reads the answer. So a slow machine does not make the venue slower.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import TypeVar

from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Instrument, Order, Position
from killswitch.model.venue import (
    Batching,
    Call,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueAdapter,
    VenueDescription,
    VenueDownError,
    VenueError,
)
from tests.bench.limits import Trip

T = TypeVar("T")

PRICE, SIZE, FEE = Decimal(100), Decimal(1), Decimal("0.05")
TRIP, JITTER = 0.040, 0.005
"""Mean seconds of a round trip, and the half-width of its uniform distribution."""

NOW = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)
FAULTS = ("down", "limited", "lost before", "lost after", "garbled", "hangs")


class SimulatedVenue(VenueAdapter):
    """One account that is long one contract of each of `count` symbols."""

    def __init__(self, account: str, traits: VenueDescription, count: int, seed: int, *, failing: float = 0.0) -> None:
        """`failing`: the share of calls that fail in one of the ways of FAULTS."""
        self.account = account
        self.traits: VenueDescription = replace(traits, enforces_reduce_only=True)
        self.batches = Batching(traits.batch, self._submit_batch) if traits.batch > 1 else None
        self.trips: list[Trip] = []
        self.refused = 0
        """How often a limit was exceeded."""
        self.failed = 0
        """How often a call was made to fail."""
        self._random = Random(seed)
        self._failing = failing
        self._counts: dict[tuple[str, str], deque[tuple[float, int]]] = {}
        self._limits = {limit.name: limit for limit in traits.limits}
        self._closed_at: dict[str, float] = {}
        self._reports: dict[str, tuple[float, OrderReport]] = {}
        symbols = [f"S{number:04}/USDT:USDT" for number in range(count)]
        self.positions = {
            symbol: Position(symbol=symbol, side="long", contracts=SIZE, mark_price=PRICE, notional=SIZE * PRICE)
            for symbol in symbols
        }
        step = Decimal("0.001")
        self._instruments = tuple(
            Instrument(symbol, contract_size=Decimal(1), amount_step=step, min_amount=step) for symbol in symbols
        )

    @property
    def flat(self) -> bool:
        return len(self._closed_at) == len(self.positions)

    @property
    def overfilled(self) -> bool:
        """Whether the reports of any position add up to more than was held."""
        traded: dict[str, Decimal] = {}
        for _, report in self._reports.values():
            traded[report.symbol] = traded.get(report.symbol, Decimal(0)) + report.filled
        return any(amount > SIZE for amount in traded.values())

    def used(self) -> Mapping[str, int]:
        """The account's use of each limit that is not counted by symbol."""
        now = asyncio.get_running_loop().time()
        return {
            name: self._used(name, "", now)
            for name, limit in self._limits.items()
            if limit.by != "symbol" and (name, "") in self._counts
        }

    async def snapshot(self) -> AccountSnapshot:
        return await self._call("snapshot", (), self._book)

    def book(self) -> AccountSnapshot:
        """The account now, without a request: the snapshot of the tick of the decision."""
        return self._book(asyncio.get_running_loop().time())

    async def submit(self, request: OrderRequest) -> OrderReport:
        answer = await self._call("submit", (request,), lambda at: self._fill(request, at))
        if isinstance(answer, VenueError):
            raise answer
        return answer

    async def _submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        if self.batches is None or len(requests) > self.batches.most:
            raise OrderRejectedError("other", "more orders than a batch may have")
        return await self._call("submit_batch", requests, lambda at: [self._fill(each, at) for each in requests])

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        def found(at: float) -> OrderReport | None:
            since, report = self._reports.get(client_order_id, (at, None))
            return report if since <= at else None

        return await self._call("find_order", (), found)

    async def open_orders(self) -> tuple[Order, ...]:
        nothing: tuple[Order, ...] = ()
        return await self._call("open_orders", (), lambda _: nothing)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        def found(at: float) -> tuple[Fill, ...]:
            since, report = self._reports.get(client_order_id, (at, None))
            if report is None or since > at:
                return ()
            return (Fill(f"f{report.id}", NOW, symbol, "sell", report.filled, PRICE, fee=FEE),)

        return await self._call("fills", (), found)

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self._call("cancel", (), lambda _: None)

    async def close(self) -> None:
        """Release nothing."""

    # Connection

    async def _call(self, call: Call, requests: Sequence[OrderRequest], effect: Callable[[float], T]) -> T:
        loop = asyncio.get_running_loop()
        sent_at, elapsed = loop.time(), TRIP + self._random.uniform(-JITTER, JITTER)
        self.trips.append(Trip(call, sent_at, elapsed, len(requests)))
        reached = sent_at + elapsed / 2
        fault = self._fault()
        if fault in ("down", "lost before"):
            await until(loop, sent_at + elapsed)
            raise VenueDownError("refused") if fault == "down" else FateUnknownError("reset")
        if fault == "limited" or not self._room(call, requests, reached):
            self.refused += fault != "limited"
            await until(loop, sent_at + elapsed)
            raise RateLimitedError("too many requests", 1.0)
        if fault == "hangs":
            if self._random.random() < 0.5:
                effect(reached)
            await asyncio.sleep(3600.0)
        if requests:
            answer = effect(reached)
            await until(loop, sent_at + elapsed)
        else:
            await until(loop, sent_at + elapsed)
            answer = effect(reached)
        if fault == "lost after":
            raise FateUnknownError("reset")
        if fault == "garbled":
            raise MalformedAnswerError("not JSON")
        return answer

    def _fault(self) -> str | None:
        if self._failing == 0.0 or self._random.random() >= self._failing:
            return None
        self.failed += 1
        return self._random.choice(FAULTS)

    # Limits

    def _room(self, call: Call, requests: Sequence[OrderRequest], at: float) -> bool:
        """Count the call against all its limits; False, and nothing is counted, if one of them is exceeded."""
        wanted: dict[tuple[str, str], int] = {}
        for cost in self.traits.costs:
            if cost.call != call:
                continue
            if self._limits[cost.limit].by == "symbol":
                for request in requests:
                    key = (cost.limit, request.symbol)
                    wanted[key] = wanted.get(key, 0) + cost.units + cost.each
            else:
                key = (cost.limit, "")
                wanted[key] = wanted.get(key, 0) + cost.units + cost.each * len(requests)
        if any(self._used(*key, at) + units > self._limits[key[0]].allowed for key, units in wanted.items()):
            return False
        for key, units in wanted.items():
            self._counts.setdefault(key, deque()).append((at, units))
        return True

    def _used(self, limit: str, symbol: str, at: float) -> int:
        """Units counted in the last `per` seconds before `at`."""
        log = self._counts.get((limit, symbol))
        if log is None:
            return 0
        while log and log[0][0] <= at - self._limits[limit].per:
            log.popleft()
        return sum(units for _, units in log)

    # Book

    def _book(self, at: float) -> AccountSnapshot:
        held = [position for symbol, position in self.positions.items() if self._closed_at.get(symbol, at + 1.0) > at]
        return AccountSnapshot(
            account=self.account,
            venue="simulated",
            market="swap",
            currency="USDT",
            quality="ok",
            observed_at=NOW,
            equity=Decimal(1_000_000),
            margin_used=len(held) * SIZE * PRICE / 5,
            position_mode="one_way",
            positions=tuple(held),
            orders=(),
            instruments=self._instruments,
        )

    def _fill(self, request: OrderRequest, at: float) -> OrderReport | VenueError:
        if request.client_order_id in self._reports:
            return OrderRejectedError("duplicate_client_order_id", "there is an order of this name")
        if request.symbol in self._closed_at:
            return OrderRejectedError("already_flat", "nothing to reduce")
        self._closed_at[request.symbol] = at
        report = OrderReport(
            id=str(len(self._reports) + 1),
            client_order_id=request.client_order_id,
            symbol=request.symbol,
            state="filled",
            amount=request.amount,
            filled=request.amount,
            average_price=PRICE,
            fee=FEE,
        )
        self._reports[request.client_order_id] = (at, report)
        return report


async def until(loop: asyncio.AbstractEventLoop, at: float) -> None:
    """Sleep until `at`; an event loop in real time wakes up to a millisecond late, so the last one is busy waiting."""
    if not isinstance(loop, asyncio.SelectorEventLoop) or type(loop).__module__.startswith("tests."):
        await asyncio.sleep(max(0.0, at - loop.time()))
        return
    await asyncio.sleep(max(0.0, at - loop.time() - 0.001))
    while loop.time() < at:  # noqa: ASYNC110 - for less than a millisecond
        await asyncio.sleep(0)
