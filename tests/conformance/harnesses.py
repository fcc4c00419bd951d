"""Harnesses of the conformance tests: wire-level venues behind their real clients, and the paper venue in both ways."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any, TypeVar

from msgspec import Struct

from killswitch.conformance.harness import Key, Mishap, Offer
from killswitch.conformance.mutations import Change
from killswitch.market.terms import read_terms
from killswitch.model.snapshot import OrderSide
from killswitch.model.venue import AccountSpec, Call, VenueAdapter
from killswitch_paper import adapter as paper
from killswitch_paper.server import PaperServer, serve
from tests.faults.exchange import ZERO, Exchange, Market
from tests.faults.mishaps import Rule, Script
from tests.markets import START, Desk, instrument
from tests.virtual_time import START as NOON
from tests.virtual_time import VirtualTime
from tests.wire.server import WireVenue

T = TypeVar("T")
_PROCESSES = count()


class Wired(Struct, frozen=True):
    """How one wire-level venue is reached: its server, its adapter, and what can be tested there."""

    server: Callable[..., WireVenue]
    factory: Callable[[AccountSpec], VenueAdapter]
    adapter: str
    exchange: str | None
    symbols: tuple[str, str]
    currency: str
    credentials: Mapping[str, str]
    offers: frozenset[Offer]
    market: str = "swap"
    contract_size: Decimal = Decimal(1)
    amount_step: Decimal = Decimal("0.001")
    more: tuple[str, ...] = ()
    flow: Callable[[Any, Decimal], None] | None = None
    """Writes money that came or went into the venue's own ledger."""
    begins: datetime = NOON
    signed: frozenset[str] = frozenset()
    options: Mapping[str, object] = {}
    transfer_target: str = ""
    """The name of another account that transfers reach."""


class WireHarness:
    """A wire-level venue in virtual time."""

    patience = 90.0
    mutations = 4

    def __init__(self, wired: Wired) -> None:
        self._wired = wired
        self.signed = wired.signed
        self.time = VirtualTime(wired.begins)
        self.script = Script()
        self._wire: WireVenue | None = None
        self.symbols = wired.symbols
        self.more = wired.more
        self.contract_size, self.amount_step = wired.contract_size, wired.amount_step
        self._watch: tuple[str, ...] = ()
        self.watched_more = 0
        """How many of `more` are on the watch list, too."""
        self.offers = wired.offers
        self.secrets = tuple(wired.credentials.values())

    @property
    def wire(self) -> WireVenue:
        assert self._wire is not None, "the venue is not open"
        return self._wire

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.time.run(main)

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False, watch: bool = False) -> VenueAdapter:
        markets = [
            Market(symbol, minimum=Decimal("0.002"), maximum=Decimal(200), price=Decimal(100))
            for symbol in (*self.symbols, *self.more)
        ]
        self._watch = (*self.symbols, *self.more[: self.watched_more]) if watch else ()
        exchange = Exchange(book, self._now, mode="hedge" if hedge else "one_way", markets=markets)
        self._wire = await self._wired.server(exchange, mishaps=self.script, latency=0.02).start()
        return self._adapter()

    async def connect(self, change: Change) -> VenueAdapter:
        self.wire.change = change
        return self._adapter()

    def _adapter(self) -> VenueAdapter:
        options: dict[str, object] = {"clock": self.time, "timeout": 5, **self._wired.options}
        if self._wired.adapter == "ccxt":
            options["ccxt"] = {"processOfTheTest": next(_PROCESSES)}  # who shares the rules of another asks for none
        return self._wired.factory(
            AccountSpec(
                account="main", adapter=self._wired.adapter, market=self._wired.market, currency=self._wired.currency,
                endpoint=self.wire.address, options=options, credentials=dict(self._wired.credentials),
                exchange=self._wired.exchange, endpoint_ws=self.wire.address_ws,
                watch=self._watch,
            )
        )  # fmt: skip

    async def close(self) -> None:
        await self.wire.stop()

    def now(self) -> datetime:
        return self.time.now()

    def equity(self) -> Decimal:
        return self.wire.equity

    def held(self, key: Key) -> Decimal:
        return self.wire.exchange.held.get(key, ZERO)

    def taken(self, client_order_id: str) -> int:
        return sum(order.name == client_order_id for order in self.wire.exchange.orders.values())

    def resting(self) -> int:
        return len(self.wire.exchange.resting())

    async def trade(self, key: Key, contracts: Decimal) -> None:
        self.wire.exchange.trade(key, contracts)

    async def rest(self, symbol: str, side: OrderSide, contracts: Decimal, *, trigger: Decimal | None = None) -> None:
        exchange = self.wire.exchange
        if trigger is None:
            exchange.rest(symbol, side, contracts, type="limit", price=Decimal(60))
        else:
            when = "falls" if trigger < 100 else "rises"
            exchange.rest(symbol, side, contracts, reduce_only=True, trigger_price=trigger, trigger_when=when)

    async def flow(self, amount: Decimal) -> None:
        assert self._wired.flow is not None
        self._wired.flow(self.wire, amount)

    def breaks(self, call: Call, mishap: Mishap) -> None:
        if mishap == "held_long":
            self.wire.held_for, mishap = 40.0, "held"
        self.script.rules.append(Rule(call, mishap))

    @property
    def transfer_target(self) -> str:
        return self._wired.transfer_target

    def moved(self) -> Decimal:
        rows = (row for row in self.wire.ledger.rows if row.kind == "transfer")
        return -sum((row.amount for row in rows), ZERO)

    def strayed(self) -> int:
        return self.wire.strayed

    def _now(self) -> tuple[float, datetime]:
        return self.time.elapsed, self.time.now()


BATCHES: Mapping[str, object] = {"batch": 5}
"""Terms of the paper venue, and options of its adapter over HTTP."""


class PaperHarness:
    """The paper venue, in this process or over HTTP on loopback. test_paper_client breaks its server."""

    symbols = ("A", "B")
    more = tuple(f"C{number}" for number in range(30))
    contract_size, amount_step = Decimal(1), Decimal("0.001")
    secrets: tuple[str, ...] = ()
    patience = 5.0
    mutations = 24
    signed: frozenset[str] = frozenset()
    offers: frozenset[Offer] = frozenset({"stops", "flows", "minimum", "maximum", "watch"})

    def __init__(self, *, http: bool) -> None:
        self._http = http
        self._desk: Desk | None = None
        self._server: PaperServer | None = None

    @property
    def desk(self) -> Desk:
        assert self._desk is not None, "the venue is not open"
        return self._desk

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return VirtualTime().run(main)

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False, watch: bool = False) -> VenueAdapter:
        rules = [instrument(symbol, min_amount="0.002", max_amount="200") for symbol in (*self.symbols, *self.more)]
        self._desk = Desk(*rules, wallet="10000000", volume="100000", terms=read_terms(BATCHES))
        symbols = self.symbols if watch else ()
        for key, amount in book.items():
            for _ in range(10):  # the venue takes no order of more than 200
                await self.trade(key, amount / 10)
        if not self._http:
            options = {"market": self.desk.market}
            return paper(AccountSpec("main", "paper", "swap", "USDT", None, options, {}, watch=symbols))
        self._server = await serve(self.desk.market, port=0, now=lambda: self.desk.market.now or START)
        return paper(
            AccountSpec("main", "paper", "swap", "USDT", self._server.address, dict(BATCHES), {}, watch=symbols)
        )

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None

    def now(self) -> datetime:
        return self.desk.market.now or START

    def equity(self) -> Decimal:
        return self.desk.seen.equity or ZERO

    def held(self, key: Key) -> Decimal:
        found = {position.key: position.contracts for position in self.desk.seen.positions or ()}
        return found.get(key, ZERO)

    def taken(self, client_order_id: str) -> int:
        market = self.desk.market
        return sum(market.find_order("main", symbol, client_order_id) is not None for symbol in self.symbols)

    def resting(self) -> int:
        return len(self.desk.market.open_orders("main"))

    async def trade(self, key: Key, contracts: Decimal) -> None:
        grows = (contracts > 0) is (key[1] == "long")
        self.desk.send("buy" if grows else "sell", str(abs(contracts)), symbol=key[0])

    async def rest(self, symbol: str, side: OrderSide, contracts: Decimal, *, trigger: Decimal | None = None) -> None:
        if trigger is None:
            self.desk.send(side, str(contracts), symbol=symbol, price="60")
        else:
            self.desk.send(side, str(contracts), symbol=symbol, falls_to=str(trigger), reduce_only=True)

    async def flow(self, amount: Decimal) -> None:
        self.desk.market.flow("main", "deposit" if amount > 0 else "withdrawal", amount)

    def breaks(self, call: Call, mishap: Mishap) -> None:
        raise NotImplementedError("the paper server is not broken here")

    @property
    def transfer_target(self) -> str:
        return "second"

    def moved(self) -> Decimal:
        flows = self.desk.seen.flows or ()
        return -sum((flow.amount for flow in flows if flow.kind == "transfer"), ZERO)

    def strayed(self) -> int:
        raise NotImplementedError("the paper server is not broken here")
