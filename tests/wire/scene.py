"""Closing over a real wire: what stands in the place of `tests.faults.wire.Wire` is a venue's adapter, the real client
in it, and the venue's own words on loopback.

`carried_by(venue)` makes every Scene, and every run of a campaign, that asks for the plain wire use this one. Symbols
of the exchange (`BTC`) are ccxt's (`BTC/USDT:USDT`) on the way and theirs again on the way back.
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

from msgspec import structs

from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    PLAIN_VENUE,
    AccountSpec,
    Call,
    OrderReport,
    OrderRequest,
    VenueError,
    VenueTraits,
)
from tests.faults import campaign, scene
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Mishaps, Occasion, Script
from tests.faults.statement import LIES
from tests.faults.wire import BatchingWire, Travelled, Wire
from tests.virtual_time import VirtualTime
from tests.wire.carriers import CARRIERS, Carrier
from tests.wire.server import Ask, WireVenue

_NUMBERS: Final = count()


class _Watched:
    """What goes wrong, written down as it happens; by chance no more than two lies in a row, as with the plain wire."""

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


class _Asked:
    """Mixed into a venue's server: only what the adapter was asked for is an occasion for mishaps.

    Of the requests that make up a snapshot, that for the positions.
    """

    asked: Counter[Call]

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        found: tuple[Call, tuple[str, ...]] | None = super().occasion(ask)  # type: ignore[misc] # of the server
        return found if found is not None and self.asked[found[0]] else None


class OverTheWire:
    """A VenueAdapter with what a Scene wants of its wire. Server and client are made in the loop that first asks."""

    carrier: Carrier

    def __init__(
        self,
        exchange: Exchange,
        timeline: VirtualTime,
        mishaps: Mishaps | None = None,
        *,
        latency: float = 0.04,
        jitter: float = 0.0,
        seed: int = 0,
        traits: VenueTraits = PLAIN_VENUE,
    ) -> None:
        self.account = exchange.account
        self.exchange = exchange
        self.mishaps: Mishaps = Script() if mishaps is None else mishaps
        self.watch: Callable[[OrderRequest], None] = lambda request: None
        self.server: WireVenue | None = None
        self._timeline = timeline
        self._watched = _Watched(self.mishaps)
        self._latency = latency
        self._asked: Counter[Call] = Counter()
        self._adapter: Any = None
        self._left: list[Any] = []
        self._home: asyncio.AbstractEventLoop | None = None
        self._started = asyncio.Event()
        self._theirs: dict[str, str] = {}
        own = self._fresh(None).traits
        self.traits = structs.replace(
            traits, client_ids=own.client_ids, batch=min(traits.batch, own.batch), order_life=own.order_life
        )

    @property
    def travelled(self) -> list[Travelled]:
        """What was asked of the adapter, as it arrived."""
        return self._watched.travelled

    def misled_since(self, since: float) -> bool:
        """Whether an answer since then has left something out."""
        return self._watched.lied_at >= since

    def restarted(self) -> None:
        """The process is killed: nothing of the adapter outlives it."""
        if self._adapter is not None:
            self._left.append(self._adapter)
            self._adapter = None

    def used(self) -> Mapping[str, int]:
        """The venue's own count, of limits that the test has named."""
        names = {limit.name for limit in self.traits.limits}
        counted = {} if self._adapter is None else self._adapter.used()
        return {name: units for name, units in counted.items() if name in names}

    # The adapter

    async def snapshot(self) -> AccountSnapshot:
        with self._asking("snapshot"):
            found = await (await self._there()).snapshot()
        told: AccountSnapshot = structs.replace(
            found,
            positions=_each(found.positions, self._back),
            orders=_each(found.orders, self._back),
            fills=_each(found.fills, self._back),
            instruments=_each(found.instruments, self._back),
        )
        return told

    async def submit(self, request: OrderRequest) -> OrderReport:
        adapter = await self._there()
        self.watch(request)
        with self._asking("submit"):
            report: OrderReport = self._back(await adapter.submit(self._there_called(request)))
        return report

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        with self._asking("find_order"):
            found = await (await self._there()).find_order(self.unified(symbol), client_order_id)
        return None if found is None else self._back(found)

    async def open_orders(self) -> tuple[Order, ...]:
        with self._asking("open_orders"):
            return tuple(map(self._back, await (await self._there()).open_orders()))

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        with self._asking("fills"):
            return tuple(map(self._back, await (await self._there()).fills(self.unified(symbol), client_order_id)))

    async def cancel(self, symbol: str, order_id: str) -> None:
        with self._asking("cancel"):
            adapter = await self._there()
            if order_id not in self._theirs:
                # A decision names orders as a snapshot has told them; those of a test are named after the exchange.
                tuple(map(self._back, await adapter.open_orders()))
            theirs = self._theirs.get(order_id) or self.carrier.number(0, order_id)
            await adapter.cancel(self.unified(symbol), theirs)

    async def close(self) -> None:
        """The venue lives on; see `_hold`."""

    def unified(self, symbol: str) -> str:
        """The exchange's symbol as ccxt calls it."""
        spot = self.exchange.mode == "spot"
        if "/" in symbol:
            return symbol
        return f"{symbol}/USDT" if spot else f"{symbol}/USDT:USDT"

    # Inside

    @contextmanager
    def _asking(self, call: Call) -> Iterator[None]:
        self._asked[call] += 1
        try:
            yield
        finally:
            self._asked[call] -= 1

    def _there_called(self, request: OrderRequest) -> OrderRequest:
        return structs.replace(request, symbol=self.unified(request.symbol))

    def _back(self, row: Any) -> Any:
        names = {self.unified(symbol): symbol for symbol in self.exchange.markets}
        named = structs.replace(row, symbol=names.get(row.symbol, row.symbol))
        if isinstance(named, Order | OrderReport):
            ours = self.carrier.number(1, named.id)
            self._theirs[ours] = named.id
            return structs.replace(named, id=ours)
        if isinstance(named, Fill) and named.order is not None:
            return structs.replace(named, order=self.carrier.number(1, named.order))
        return named

    def _fresh(self, address: str | None) -> Any:
        from killswitch_ccxt import adapter

        spot = self.exchange.mode == "spot"
        options: dict[str, object] = {"clock": self._timeline}
        # Rules are shared by those who reach the same system; each test's is one of its own.
        options["ccxt"] = {"numberOfTheTest": next(_NUMBERS)}
        return adapter(
            AccountSpec(
                account=self.account, adapter="ccxt", market="spot" if spot else "swap", currency="USDT",
                endpoint=address, options=options, credentials=dict(self.carrier.credentials),
                exchange=self.carrier.exchange,
            )
        )  # fmt: skip

    async def _there(self) -> Any:
        """The adapter; the venue is started where it does not run in this loop."""
        if self._home is not asyncio.get_running_loop():
            self._home, self._adapter = asyncio.get_running_loop(), None
            self._started = asyncio.Event()
            kind: type[Any] = type("Asked", (_Asked, self.carrier.server), {"asked": self._asked})
            server: WireVenue = kind(self.exchange, mishaps=self._watched, latency=self._latency)
            self.server = server
            for order in self.exchange.orders.values():
                # An exchange of ours takes orders in markets that it does not have.
                self.exchange.markets.setdefault(order.symbol, Market(order.symbol))
            await server.start()
            holding = asyncio.ensure_future(self._hold(server))
            await asyncio.sleep(0)
            self._holding = holding
            self._started.set()
        await self._started.wait()
        if self._adapter is None:
            assert self.server is not None
            self._adapter = self._fresh(self.server.address)
        return self._adapter

    async def _hold(self, server: WireVenue) -> None:
        """Give everything back when the loop ends, which cancels all tasks."""
        try:
            await asyncio.Event().wait()
        finally:
            for adapter in [*self._left, self._adapter]:
                if adapter is not None:
                    await adapter.close()
            await server.stop()
            self._left, self._adapter, self._home = [], None, None


class BatchingOverTheWire(OverTheWire):
    """Where the test wants several orders in one request."""

    async def submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        adapter = await self._there()
        for request in requests:
            self.watch(request)
        with self._asking("submit_batch"):
            answers = await adapter.submit_batch([self._there_called(request) for request in requests])
        return [it if isinstance(it, VenueError) else self._back(it) for it in answers]


class NotOverTheWireError(Exception):
    """The test wants a wire of its own, or an account mode that the venue does not have on loopback."""


def carried(carrier: Carrier) -> Callable[[type[Wire], Exchange], type[Any]]:
    """Which wire takes the place of the one that a test asks for. NotOverTheWireError for one that nothing can."""

    def instead(wanted: type[Wire], exchange: Exchange) -> type[Any]:
        if exchange.mode not in carrier.modes:
            raise NotOverTheWireError(f"{carrier.exchange} has no {exchange.mode} account on loopback")
        if wanted not in (Wire, BatchingWire):
            raise NotOverTheWireError(f"the test has a wire of its own: {wanted.__name__}")
        return _on(BatchingOverTheWire if wanted is BatchingWire else OverTheWire, carrier)

    return instead


@contextmanager
def carried_by(exchange: str) -> Iterator[Carrier]:
    """Inside, plain wires are those of this venue."""
    carrier = CARRIERS[exchange]
    single, several = _on(OverTheWire, carrier), _on(BatchingOverTheWire, carrier)
    # Of three wires a run chooses by what its plan says of the venue; none of the venues closes a whole book.
    changed: dict[str, Any] = {
        "Wire": single,
        "BatchingWire": several,
        "BookClosingWire": several,
        "VirtualTimeRun": _KilledWhole,
    }
    with patch.object(scene, "instead", carried(carrier)), patch.multiple("tests.faults.campaign", **changed):
        yield carrier


class _KilledWhole(campaign.VirtualTimeRun):
    """A run in which a killed process loses its adapter too."""

    async def _one_life(self, moments: list[tuple[float, Mapping[Key, Decimal]]], *, last: bool) -> None:
        self.wire.restarted()  # type: ignore[attr-defined] # of the one that carries it
        await super()._one_life(moments, last=last)


def _on(base: type[OverTheWire], carrier: Carrier) -> type[Any]:
    return type(f"{base.__name__}_{carrier.exchange}", (base,), {"carrier": carrier})


def _each(rows: Sequence[Any] | None, change: Callable[[Any], Any]) -> tuple[Any, ...] | None:
    return None if rows is None else tuple(map(change, rows))
