"""Closing over a real wire: a venue's adapter takes the place of `tests.faults.wire.Wire`, with the real client in it,
and the venue's own payloads on loopback.

`closing_over(venue)` makes every Scene, and every run of a campaign, that asks for the plain wire use this one. Symbols
of the exchange (`BTC`) become ccxt's (`BTC/USDT:USDT`) on the way out, and the exchange's again on the way back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from typing import Any, Final
from unittest.mock import patch

from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    AccountSpec,
    Batching,
    Call,
    OrderReport,
    OrderRequest,
    VenueAdapter,
    VenueDescription,
    VenueError,
    VenueTraits,
)
from tests.faults import campaign, scene
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Mishaps, Occasion, Script
from tests.faults.statement import LIES
from tests.faults.wire import BatchingWire, Travelled, Wire
from tests.virtual_time import VirtualTime
from tests.wire.closing_venues import CLOSING_VENUES, ClosingVenue
from tests.wire.server import Ask, WireVenue

_NUMBERS: Final = count()


class _RecordedMishaps:
    """Records each mishap as it happens; at random no more than two lies in a row, as on the plain wire."""

    def __init__(self, mishaps: Mishaps) -> None:
        self.mishaps = mishaps
        self.travelled: list[Travelled] = []
        self.lied_at = float("-inf")
        self._lies = 0

    def at(self, occasion: Occasion, now: float) -> Mishap:
        call, symbol, _ = occasion
        mishap = self.mishaps.at(occasion, now)
        if mishap in LIES and self._lies >= 2 and not isinstance(self.mishaps, Script):
            mishap = "none"
        if call == "snapshot":
            self._lies = self._lies + 1 if mishap in LIES else 0
        if mishap in LIES:
            self.lied_at = now
        self.travelled.append(Travelled(now, call, (symbol,) if symbol else (), mishap))
        return mishap


class _OnlyOurCalls:
    """Mixed into a venue's server: only calls of the adapter are occasions for mishaps.

    Of the requests that make up a snapshot, only the one for the positions counts.
    """

    pending: Counter[Call]

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        found: tuple[Call, tuple[str, ...]] | None = super().occasion(ask)  # type: ignore[misc] # of the server
        return found if found is not None and self.pending[found[0]] else None


class AdapterWire(VenueAdapter):
    """A VenueAdapter with what a Scene needs of its wire. The first call's loop creates server and client."""

    closing_venue: ClosingVenue

    def __init__(
        self,
        exchange: Exchange,
        timeline: VirtualTime,
        mishaps: Mishaps | None = None,
        *,
        latency: float = 0.04,
        jitter: float = 0.0,
        seed: int = 0,
        traits: VenueDescription = VenueDescription(),  # noqa: B008 - frozen
    ) -> None:
        self.account = exchange.account
        self.exchange = exchange
        self.mishaps: Mishaps = Script() if mishaps is None else mishaps
        self.watch: Callable[[OrderRequest], None] = lambda request: None
        self.server: WireVenue | None = None
        self._timeline = timeline
        self._recorded = _RecordedMishaps(self.mishaps)
        self._latency = latency
        self._pending: Counter[Call] = Counter()
        self._adapter: Any = None
        self._abandoned: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = asyncio.Event()
        self._venue_ids: dict[str, str] = {}
        adapter = self._new_adapter(None)
        own: VenueTraits = adapter.traits
        self.largest_batch = min(traits.batch, 1 if adapter.batches is None else adapter.batches.most)
        self.traits = replace(
            traits, client_ids=own.client_ids, order_life=own.order_life, enforces_reduce_only=own.enforces_reduce_only
        )

    @property
    def travelled(self) -> list[Travelled]:
        """The calls of the adapter, in the order of their arrival."""
        return self._recorded.travelled

    def misled_since(self, since: float) -> bool:
        """Whether an answer since then left something out."""
        return self._recorded.lied_at >= since

    def restarted(self) -> None:
        """The process was killed: its adapter is gone."""
        if self._adapter is not None:
            self._abandoned.append(self._adapter)
            self._adapter = None

    def used(self) -> Mapping[str, int]:
        """The venue's own count, for the limits that the test has named."""
        names = {limit.name for limit in self.traits.limits}
        counted = {} if self._adapter is None else self._adapter.used()
        return {name: units for name, units in counted.items() if name in names}

    # The adapter

    async def snapshot(self) -> AccountSnapshot:
        with self._calling("snapshot"):
            found = await (await self._connected()).snapshot()
        translated: AccountSnapshot = replace(
            found,
            positions=_map_rows(found.positions, self._translated),
            orders=_map_rows(found.orders, self._translated),
            fills=_map_rows(found.fills, self._translated),
            instruments=_map_rows(found.instruments, self._translated),
        )
        return translated

    async def submit(self, request: OrderRequest) -> OrderReport:
        adapter = await self._connected()
        self.watch(request)
        with self._calling("submit"):
            report: OrderReport = self._translated(await adapter.submit(self._unified_request(request)))
        return report

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        with self._calling("find_order"):
            found = await (await self._connected()).find_order(self.unified(symbol), client_order_id)
        return None if found is None else self._translated(found)

    async def open_orders(self) -> tuple[Order, ...]:
        with self._calling("open_orders"):
            return tuple(map(self._translated, await (await self._connected()).open_orders()))

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        with self._calling("fills"):
            return tuple(
                map(self._translated, await (await self._connected()).fills(self.unified(symbol), client_order_id))
            )

    async def cancel(self, symbol: str, order_id: str) -> None:
        with self._calling("cancel"):
            adapter = await self._connected()
            if order_id not in self._venue_ids:
                # A decision has the order ids of a snapshot; a test has those of the exchange.
                tuple(map(self._translated, await adapter.open_orders()))
            venue_id = self._venue_ids.get(order_id) or self.closing_venue.number(0, order_id)
            await adapter.cancel(self.unified(symbol), venue_id)

    async def close(self) -> None:
        """The venue stays up; see `_hold`."""

    def unified(self, symbol: str) -> str:
        """The exchange's symbol in ccxt's unified notation."""
        spot = self.exchange.mode == "spot"
        if "/" in symbol:
            return symbol
        return f"{symbol}/USDT" if spot else f"{symbol}/USDT:USDT"

    # Inside

    @contextmanager
    def _calling(self, call: Call) -> Iterator[None]:
        self._pending[call] += 1
        try:
            yield
        finally:
            self._pending[call] -= 1

    def _unified_request(self, request: OrderRequest) -> OrderRequest:
        return replace(request, symbol=self.unified(request.symbol))

    def _translated(self, row: Any) -> Any:
        names = {self.unified(symbol): symbol for symbol in self.exchange.markets}
        named = replace(row, symbol=names.get(row.symbol, row.symbol))
        if isinstance(named, Order | OrderReport):
            ours = self.closing_venue.number(1, named.id)
            self._venue_ids[ours] = named.id
            return replace(named, id=ours)
        if isinstance(named, Fill) and named.order is not None:
            return replace(named, order=self.closing_venue.number(1, named.order))
        return named

    def _new_adapter(self, address: str | None) -> Any:
        from killswitch_ccxt import adapter

        spot = self.exchange.mode == "spot"
        options: dict[str, object] = {"clock": self._timeline}
        # Accounts of one system share its rules; each test counts as a system of its own.
        options["ccxt"] = {"numberOfTheTest": next(_NUMBERS)}
        return adapter(
            AccountSpec(
                account=self.account, adapter="ccxt", market="spot" if spot else "swap", currency="USDT",
                endpoint=address, options=options, credentials=dict(self.closing_venue.credentials),
                exchange=self.closing_venue.exchange,
            )
        )  # fmt: skip

    async def _connected(self) -> Any:
        """The adapter; starts the venue unless it already runs in this loop."""
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._adapter = asyncio.get_running_loop(), None
            self._started = asyncio.Event()
            kind: type[Any] = type(
                "OnlyOurCalls", (_OnlyOurCalls, self.closing_venue.server), {"pending": self._pending}
            )
            server: WireVenue = kind(self.exchange, mishaps=self._recorded, latency=self._latency)
            self.server = server
            for order in self.exchange.orders.values():
                # Our test exchange accepts orders in markets that it does not have.
                self.exchange.markets.setdefault(order.symbol, Market(order.symbol))
            await server.start()
            holder = asyncio.ensure_future(self._hold(server))
            await asyncio.sleep(0)
            self._holding = holder
            self._started.set()
        await self._started.wait()
        if self._adapter is None:
            assert self.server is not None
            self._adapter = self._new_adapter(self.server.address)
        return self._adapter

    async def _hold(self, server: WireVenue) -> None:
        """Close everything when the loop ends, which cancels all tasks."""
        try:
            await asyncio.Event().wait()
        finally:
            for adapter in [*self._abandoned, self._adapter]:
                if adapter is not None:
                    await adapter.close()
            await server.stop()
            self._abandoned, self._adapter, self._loop = [], None, None


class BatchingAdapterWire(AdapterWire):
    """The same, where the test sends several orders in one request."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.batches = Batching(self.largest_batch, self._submit_batch) if self.largest_batch > 1 else None

    async def _submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        adapter = await self._connected()
        for request in requests:
            self.watch(request)
        with self._calling("submit_batch"):
            answers = await adapter.batches.submit([self._unified_request(request) for request in requests])
        return [it if isinstance(it, VenueError) else self._translated(it) for it in answers]


class NotOverTheWireError(Exception):
    """The test has a wire of its own, or an account mode that the venue does not support on loopback."""


def wire_substitution(closing_venue: ClosingVenue) -> Callable[[type[Wire], Exchange], type[Any]]:
    """The function that replaces the wire class of a test. It raises NotOverTheWireError where none can."""

    def substitute(wanted: type[Wire], exchange: Exchange) -> type[Any]:
        if exchange.mode not in closing_venue.modes:
            raise NotOverTheWireError(f"{closing_venue.exchange} has no {exchange.mode} account on loopback")
        if wanted not in (Wire, BatchingWire):
            raise NotOverTheWireError(f"the test has a wire of its own: {wanted.__name__}")
        return _bound(BatchingAdapterWire if wanted is BatchingWire else AdapterWire, closing_venue)

    return substitute


@contextmanager
def closing_over(exchange: str) -> Iterator[ClosingVenue]:
    """Inside, plain wires are those of this venue."""
    closing_venue = CLOSING_VENUES[exchange]
    single, several = _bound(AdapterWire, closing_venue), _bound(BatchingAdapterWire, closing_venue)
    # A run chooses one of three wires by its plan's venue; none of these venues closes a whole book.
    changed: dict[str, Any] = {
        "Wire": single,
        "BatchingWire": several,
        "BookClosingWire": several,
        "VirtualTimeRun": _RunLosingItsAdapter,
    }
    with (
        patch.object(scene, "instead", wire_substitution(closing_venue)),
        patch.multiple("tests.faults.campaign", **changed),
    ):
        yield closing_venue


class _RunLosingItsAdapter(campaign.VirtualTimeRun):
    """A run in which a killed process loses its adapter too."""

    async def _one_life(self, moments: list[tuple[float, Mapping[Key, Decimal]]], *, last: bool) -> None:
        self.wire.restarted()  # type: ignore[attr-defined] # an AdapterWire
        await super()._one_life(moments, last=last)


def _bound(base: type[AdapterWire], closing_venue: ClosingVenue) -> type[Any]:
    return type(f"{base.__name__}_{closing_venue.exchange}", (base,), {"closing_venue": closing_venue})


def _map_rows(rows: Sequence[Any] | None, change: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    return None if rows is None else tuple(map(change, rows))
