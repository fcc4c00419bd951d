"""The wire between closing and an exchange: it has latency, breaks, and garbles; a lost request may still arrive.

A request travels on its own: a client that stopped waiting for the answer, or was killed, does not stop it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    Batching,
    Call,
    FateUnknownError,
    MalformedAnswerError,
    OrderLife,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    RequestExpiredError,
    VenueAdapter,
    VenueDescription,
    VenueDownError,
    VenueError,
)
from tests.faults.exchange import ZERO, Exchange
from tests.faults.meter import Meter
from tests.faults.mishaps import Mishap, Mishaps, Script, drawn
from tests.faults.statement import LIES, gone_wrong, statement
from tests.virtual_time import VirtualTime

T = TypeVar("T")
LATE = 1.0
"""Seconds after which a request arrives whose connection broke: less than closing waits before it believes in an
absence."""
HELD = 8.0
"""Seconds after which a request arrives that was held up on its way."""
SLOW = 3.0
LAG = 4.0
"""A lagging answer is at most this old."""


KNOWN: Final = VenueDescription(order_life=OrderLife(always=LATE))
"""A venue that carries out no request that comes later than `LATE`, and says so."""


class Travelled(Struct, frozen=True):
    """One request: when it was sent, what it was, its mishap, and when its answer was back (None: never)."""

    left: float
    call: Call
    symbols: tuple[str, ...]
    mishap: Mishap


class Wire(VenueAdapter):
    """A VenueAdapter over an exchange, with a round trip of `latency` ± `jitter` seconds."""

    def __init__(
        self,
        exchange: Exchange,
        timeline: VirtualTime,
        mishaps: Mishaps | None = None,
        *,
        latency: float = 0.04,
        jitter: float = 0.005,
        seed: int = 0,
        traits: VenueDescription = KNOWN,
        meter: Meter | None = None,
    ) -> None:
        self.account = exchange.account
        self.exchange = exchange
        # The exchange enforces reduce-only; a test in which it does not says so.
        is_unsaid = traits.enforces_reduce_only is None
        self.traits = self.described = replace(traits, enforces_reduce_only=True) if is_unsaid else traits
        self.meter = meter or Meter(traits)
        self.mishaps: Mishaps = Script() if mishaps is None else mishaps
        self.watch: Callable[[OrderRequest], None] = lambda request: None
        """Told of each order as it leaves."""
        self.travelled: list[Travelled] = []
        self._timeline = timeline
        self._latency = latency
        self._jitter = jitter
        self._seed = seed
        self._calls: Counter[tuple[Call, str]] = Counter()
        self._pictures: list[tuple[float, AccountSnapshot]] = []
        self._lies = 0
        self._lied_at = float("-inf")
        self._tasks: set[asyncio.Task[object]] = set()

    # The adapter

    async def snapshot(self) -> AccountSnapshot:
        mishap = self._next("snapshot", "")
        true = await self._travel("snapshot", (), mishap, self._picture)
        self._lies = self._lies + 1 if mishap in LIES else 0
        if self._lies:
            self._lied_at = self._timeline.elapsed
        older = next((it for at, it in self._pictures if at >= self._timeline.elapsed - LAG), true)
        match mishap:
            case "empty" | "page" | "stale" | "lagging" | "malformed" | "sign" | "nan":
                return gone_wrong(true, mishap, older)
        return true

    async def submit(self, request: OrderRequest) -> OrderReport:
        self.watch(request)
        mishap = self._next("submit", request.symbol)
        left = self._timeline.elapsed
        report = await self._travel("submit", (request.symbol,), mishap, lambda: self._place(request, left))
        return _nonsense(report) if mishap == "nonsense" else report

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        mishap = self._next("find_order", symbol)
        report = await self._travel("find_order", (), mishap, lambda: self.exchange.find(client_order_id))
        if report is None or mishap == "empty":
            return None
        if mishap == "lagging":
            return replace(report, state="open", filled=ZERO, average_price=None, fee=None)
        return _nonsense(report) if mishap == "nonsense" else report

    async def open_orders(self) -> tuple[Order, ...]:
        mishap = self._next("open_orders", "")
        resting = await self._travel("open_orders", (), mishap, self.exchange.resting)
        return () if mishap == "empty" else resting

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        mishap = self._next("fills", symbol)
        found = await self._travel("fills", (), mishap, lambda: self.exchange.fills_of(client_order_id))
        return () if mishap == "empty" else found

    async def cancel(self, symbol: str, order_id: str) -> None:
        mishap = self._next("cancel", symbol)
        await self._travel("cancel", (), mishap, lambda: self.exchange.cancel(order_id, symbol))

    async def close(self) -> None:
        """Nothing to release."""

    def used(self) -> Mapping[str, int]:
        """The venue's own count."""
        return self.meter.used(self._timeline.elapsed)

    def misled_since(self, since: float) -> bool:
        """Whether a snapshot since then has left out positions."""
        return self._lied_at >= since

    # The journey of a request

    def _place(self, request: OrderRequest, left: float) -> OrderReport:
        life = self.traits.order_life
        bounds = [bound for bound in (request.valid_for, life.always) if bound is not None]
        if self._timeline.elapsed - left > min(bounds, default=math.inf):
            raise RequestExpiredError("its time is up")
        return self.exchange.place(request)

    def _next(self, call: Call, symbol: str) -> Mishap:
        number = self._calls[call, symbol]
        self._calls[call, symbol] += 1
        mishap = self.mishaps.at((call, symbol, number), self._timeline.elapsed)
        return "none" if mishap in LIES and self._lies >= 2 and not isinstance(self.mishaps, Script) else mishap

    async def _travel(self, call: Call, symbols: Sequence[str], mishap: Mishap, deed: Callable[[], T]) -> T:
        self.travelled.append(Travelled(self._timeline.elapsed, call, tuple(symbols), mishap))
        trip = self._latency + self._jitter * (2 * drawn(self._seed, len(self.travelled)) - 1)
        journey = asyncio.get_running_loop().create_task(self._journey(call, symbols, mishap, deed, trip / 2))
        self._tasks.add(journey)
        journey.add_done_callback(self._arrived)
        return await asyncio.shield(journey)

    def _arrived(self, journey: asyncio.Task[T]) -> None:
        self._tasks.discard(journey)
        if not journey.cancelled():
            journey.exception()

    async def _journey(
        self, call: Call, symbols: Sequence[str], mishap: Mishap, deed: Callable[[], T], way: float
    ) -> T:
        await asyncio.sleep(way)
        match mishap:
            case "silent":
                await asyncio.Event().wait()
            case "down" | "limited" | "lost" | "late" | "held":
                if mishap in ("late", "held"):
                    after = LATE if mishap == "late" else HELD
                    asyncio.get_running_loop().call_later(after, self._without_answer, call, symbols, deed)
                await asyncio.sleep(way)
                raise _FAILURES[mishap]()
        answer, refusal = self._do(call, symbols, deed)
        if mishap == "twice":
            self._without_answer(call, symbols, deed)
        await asyncio.sleep(way + (SLOW if mishap == "slow" else 0.0))
        if mishap == "done_silent":
            await asyncio.Event().wait()
        if mishap in _FAILURES:
            raise _FAILURES[mishap]()
        if refusal is not None:
            raise refusal
        return answer  # type: ignore[return-value] # it is there where no refusal is

    def _do(self, call: Call, symbols: Sequence[str], deed: Callable[[], T]) -> tuple[T | None, VenueError | None]:
        try:
            self.meter.arrive(self._timeline.elapsed, call, symbols, self.account)
            return deed(), None
        except VenueError as error:
            return None, error

    def _without_answer(self, call: Call, symbols: Sequence[str], deed: Callable[[], object]) -> None:
        """It arrives, and its answer is lost."""
        self._do(call, symbols, deed)

    def _picture(self) -> AccountSnapshot:
        picture = statement(self.exchange)
        self._pictures = [*self._pictures[-20:], (self._timeline.elapsed, picture)]
        return picture


class BatchingWire(Wire):
    """An adapter that sends several orders in one request; each of them may fail separately."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.batches = Batching(self.described.batch, self._submit_batch) if self.described.batch > 1 else None

    async def _submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        for request in requests:
            self.watch(request)
        own = [self._next("submit", request.symbol) for request in requests]
        symbols = [request.symbol for request in requests]
        whole = self._next("submit_batch", "")
        return await self._travel("submit_batch", symbols, whole, lambda: self._place_all(requests, own))

    def _place_all(self, requests: Sequence[OrderRequest], mishaps: Sequence[Mishap]) -> list[OrderReport | VenueError]:
        return [self._place_one(request, mishap) for request, mishap in zip(requests, mishaps, strict=True)]

    def _place_one(self, request: OrderRequest, mishap: Mishap) -> OrderReport | VenueError:
        if mishap in ("down", "limited", "lost", "silent"):
            return VenueDownError("not taken") if mishap in ("down", "silent") else _venue_error(mishap)
        try:
            report = self.exchange.place(request)
        except VenueError as error:
            return error
        if mishap in _FAILURES:
            return _venue_error(mishap)
        return _nonsense(report) if mishap == "nonsense" else report


class BookClosingWire(BatchingWire):
    """An adapter whose venue also closes everything in one request."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.close_book = self._close_book if self.described.whole_book else None

    async def _close_book(self) -> None:
        mishap = self._next("close_book", "")
        await self._travel("close_book", (), mishap, self.exchange.close_book)


_FAILURES: Mapping[Mishap, Callable[[], BaseException]] = {
    "down": lambda: VenueDownError("maintenance"),
    "limited": lambda: RateLimitedError("slow down", 0.5),
    "lost": lambda: FateUnknownError("the connection broke"),
    "late": lambda: FateUnknownError("the connection broke"),
    "held": lambda: FateUnknownError("the connection broke"),
    "done": lambda: FateUnknownError("the connection broke"),
    "garbled": lambda: MalformedAnswerError("not JSON"),
    "defect": lambda: KeyError("avgPx"),
    "called_off": asyncio.CancelledError,
}


def _venue_error(mishap: Mishap) -> VenueError:
    """The answer of a batch about one of its orders: a defect in reading one is a malformed answer."""
    error = _FAILURES[mishap]()
    return error if isinstance(error, VenueError) else MalformedAnswerError(repr(error))


def _nonsense(report: OrderReport) -> OrderReport:
    return replace(report, filled=Decimal(-1) if report.filled else Decimal("NaN"))
