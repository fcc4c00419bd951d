"""Accounts at wire-level venues for the latency suite: a book with a history, and a real runner.

Everything runs in virtual time, servers, clients and runner alike: seconds are those of the venues' own clocks, and the
same case runs identically on every machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct, field

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import read_policies
from killswitch.graph.nodes import PolicySet
from killswitch.model.clock import Clock
from killswitch.model.snapshot import Side
from killswitch.model.venue import AccountSpec
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.runner.observers import TickReport
from killswitch.store.sqlite import open_store
from killswitch_alpaca import adapter as alpaca
from killswitch_ccxt import adapter as ccxt
from tests.faults.exchange import Exchange, Market, Mode
from tests.virtual_time import VirtualTime
from tests.wire.alpaca.venue import AlpacaWire
from tests.wire.binance.venue import BinanceWire
from tests.wire.bitget.venue import BitgetWire
from tests.wire.bybit.venue import BybitWire
from tests.wire.krakenfutures.venue import KrakenFuturesWire
from tests.wire.mexc.venue import MexcWire
from tests.wire.okx.venue import OkxWire
from tests.wire.server import KEY, PASSPHRASE, SECRET, WireVenue

D = Decimal
TICK: Final = 1.0
ROUND_TRIP: Final = 0.1
WARM_UP: Final = 20.4
"""Seconds of quiet before a scenario, which begins between two ticks."""
EQUITY: Final = D(100_000)
PRICE: Final = D(100)
KEYS: Final = {"key": KEY, "secret": SECRET}
WITH_PHRASE: Final = {**KEYS, "passphrase": PASSPHRASE}
OPEN_MARKET: Final = datetime(2021, 5, 19, 15, tzinfo=UTC)
"""A Wednesday, 11:00 in New York."""
POLICY: Final = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: fall}}
spec:
  mode: enforce
  scope: {scope}
  max_gap: 10m
  triggers:
    fall: {{signal: equity.drawdown, window: 15m, at_least: 10%, on_unknown: hold, grace: 20m}}
  stages:
    - name: close-everything
      level: 1
      any: [fall]
      cooldown: 6h
      reset: manual
      corroborate: true
      actions:
        - lock_trading: {{mode: reduce_only}}
        - cancel_orders: {{kind: entry}}
        - close: {{side: both, fraction: 100%}}
        - cancel_orders: {{kind: all}}
"""
THRESHOLD: Final = D("0.1")
Ability = Literal["spot", "collateral", "funding", "bills", "venue_fills", "marks", "push"]


class Venue(Struct, frozen=True):
    """A wire-level venue. `symbols`: two held long, one held short. `positions_at`: path of its positions.

    `can`: abilities that some cases need. `round_trip`: of one request, in seconds.
    """

    name: str
    server: Callable[..., WireVenue]
    factory: Callable[[AccountSpec], Any]
    exchange: str | None
    currency: str
    symbols: tuple[str, str, str]
    positions_at: str
    credentials: Mapping[str, str] = field(default_factory=lambda: KEYS)
    market: str = "swap"
    can: frozenset[Ability] = frozenset({"funding", "venue_fills", "marks"})
    collateral: tuple[str, str] = ("BTC", "BTC/USDT:USDT")
    round_trip: float = ROUND_TRIP


USDT: Final = ("ETH/USDT:USDT", "SOL/USDT:USDT", "XRP/USDT:USDT")
USD: Final = ("ETH/USD:USD", "SOL/USD:USD", "XRP/USD:USD")
_DERIVATIVES: Final[frozenset[Ability]] = frozenset({"funding", "venue_fills", "marks"})
_WITH_BILLS: Final[frozenset[Ability]] = _DERIVATIVES | {"bills"}
VENUES: Final[Mapping[str, Venue]] = {
    it.name: it
    for it in (
        Venue(
            "binance", BinanceWire, ccxt, "binanceusdm", "USDT", USDT, "/positionRisk",
            can=_WITH_BILLS | {"collateral", "push"},
        ),
        Venue(
            "okx", OkxWire, ccxt, "okx", "USDT", USDT, "/account/positions", WITH_PHRASE,
            can=_WITH_BILLS | {"collateral", "push", "spot"},
        ),
        Venue("bybit", BybitWire, ccxt, "bybit", "USDT", USDT, "/position/list",
              can=_WITH_BILLS | {"collateral", "push", "spot"}),
        Venue("bitget", BitgetWire, ccxt, "bitget", "USDT", USDT, "/all-position", WITH_PHRASE, can=_WITH_BILLS),
        Venue(
            "krakenfutures", KrakenFuturesWire, ccxt, "krakenfutures", "USD", USD, "/openpositions",
            {"key": KEY, "secret": "U0VDUkVULVBMQU5URUQ="}, can=_WITH_BILLS | {"collateral", "push"},
            collateral=("BTC", "BTC/USD:USD"),
        ),
        Venue("mexc", MexcWire, ccxt, "mexc", "USDT", USDT, "/open_positions", can=_DERIVATIVES | {"push"}),
        # Its client works in threads, for which virtual time does not advance: its requests take no time.
        Venue(
            "alpaca", AlpacaWire, alpaca, None, "USD", ("AAPL", "MSFT", "TSLA"), "/v2/positions", market="equity",
            can=frozenset(), round_trip=0.0,
        ),
    )
}  # fmt: skip


class Observations(Struct):
    """The observed effects of a run, in seconds of the venues' clock."""

    order_at: float | None = None
    """Arrival of the first closing order at a venue."""
    decided_at: float | None = None
    problems: list[str] = field(default_factory=list)


class Site:
    """Accounts at one kind of venue, the runner that watches them, and its observed effects."""

    def __init__(
        self,
        venue: Venue,
        folder: Path,
        time: VirtualTime,
        *,
        accounts: tuple[str, ...] = ("main",),
        mode: Mode = "one_way",
        portfolio: bool = False,
        pushed: bool = False,
        tick: float = TICK,
    ) -> None:
        """`portfolio`: one scope for all accounts, else one each. `pushed`: the venue's stream is subscribed to."""
        self.venue = venue
        self._tick = tick
        self.time = time
        self.clock: Clock = time
        """The clock of runner and clients."""
        self.spot = mode == "spot"
        self.observed = Observations()
        self.wires = {name: self._wire(name, mode) for name in accounts}
        self._folder = folder
        self._portfolio = portfolio
        self._pushed = pushed
        self._running: asyncio.Task[None] | None = None
        self._began = 0.0
        self.runner_started_at = 0.0
        """Seconds at which the latest runner was started."""

    @property
    def symbols(self) -> tuple[str, str, str]:
        """Two symbols held long, and one held short (in a spot account: not held)."""
        symbols = self.venue.symbols
        if self.spot:
            symbols = tuple(symbol.partition(":")[0] for symbol in symbols)  # type: ignore[assignment] # as many as before
        return symbols

    @property
    def wire(self) -> WireVenue:
        """The only account's venue, or the first one's."""
        return next(iter(self.wires.values()))

    def _wire(self, name: str, mode: Mode) -> WireVenue:
        first, second, third = self.symbols
        held: dict[tuple[str, Side], Decimal] = {(first, "long"): D(600), (second, "long"): D(400)}
        if self.spot:
            held = {(first, "long"): D(350), (second, "long"): D(250)}
        else:
            held[third, "short"] = D(200)
        names = dict.fromkeys((first, second, third))
        markets = [Market(it, price=PRICE, maximum=D(100_000), slip=D("0.0005")) for it in names]
        if self.venue.market != "equity" and not self.spot:
            markets.append(Market(self.venue.collateral[1], price=D(50_000)))
        exchange = Exchange(
            held, lambda: (self.time.elapsed, self.time.now()), account=name, mode=mode, markets=markets
        )
        deposit = EQUITY if not self.spot else D(5_000)
        more: dict[str, Any] = {"usd": D(1)} if self.venue.name == "okx" else {}
        wire = self.venue.server(exchange, latency=self.venue.round_trip, equity=deposit, **more)
        if isinstance(wire, MexcWire):
            wire.sizes |= dict.fromkeys(exchange.markets, D(1))
        if isinstance(wire, AlpacaWire):
            wire.round_the_clock = True
        return wire

    # Actions of a scenario

    @property
    def now(self) -> float:
        """Seconds since the scenario began."""
        return self.time.elapsed - self._began

    def begin(self) -> None:
        """Begin the scenario now."""
        self._began = self.time.elapsed

    async def until(self, seconds: float) -> None:
        """Wait for a moment of the scenario."""
        await self.time.sleep(self._began + seconds - self.time.elapsed)

    def fall(self, by: Decimal, account: str | None = None) -> None:
        """Set the marks of the longs to this share below their first price."""
        wire = self.wires[account] if account else self.wire
        for symbol in self.symbols[:2]:
            wire.exchange.reprice(symbol, PRICE * (1 - by))

    # The run

    async def open(self) -> None:
        """Start the venues."""
        for wire in self.wires.values():
            await wire.start()

    async def close(self) -> None:
        """Kill the runner and stop the venues."""
        await self.kill()
        for wire in self.wires.values():
            await wire.stop()
            self.observed.problems += [f"{wire.exchange.account}: {it}" for it in dict.fromkeys(wire.refusals)]

    def start(self) -> None:
        """Start a runner on the store, as a new process would."""
        self.runner_started_at = self.time.elapsed
        self._running = asyncio.ensure_future(self._run())

    def stop_ticking(self) -> None:
        """Begin to kill the runner, from where nothing can be awaited."""
        if self._running is not None:
            self._running.cancel()

    async def kill(self) -> None:
        """Kill the runner: it finishes nothing, and its connections break."""
        if self._running is not None:
            self._running.cancel()
            (ended,) = await asyncio.gather(self._running, return_exceptions=True)
            if isinstance(ended, Exception):
                self.observed.problems.append(f"{type(ended).__name__}: {ended}")
            self._running = None

    def ticked(self, report: TickReport) -> None:
        """Record the first decision of a tick."""
        if self.observed.decided_at is None and any(it.kind is None for it in report.decisions):
            self.observed.decided_at = self.time.elapsed

    def observe(self) -> Observations:
        """The effects observed so far."""
        at = [
            it.at + wire.latency / 2
            for wire in self.wires.values()
            for it in wire.seen
            if it.call in ("submit", "submit_batch", "close_book")
        ]
        self.observed.order_at = min(at, default=None)
        return self.observed

    async def _run(self) -> None:
        store = open_store(str(self._folder / "store.sqlite"))
        try:
            runner = assemble(
                self._policies(), {name: self._account(name) for name in self.wires}, store, self.clock,
                RunnerPace(self._tick, 5.0), live=True, locks=LockPaths(self._folder / "locks", None),
                observers=(self,),
            )  # fmt: skip
            await runner.run(asyncio.Event())
        finally:
            store.close()

    def _policies(self) -> PolicySet:
        path = self._folder / "policy.yaml"
        scope = f"{{each: {'portfolio' if self._portfolio else 'account'}, match: {{}}}}"
        path.write_text(POLICY.format(scope=scope), encoding="utf-8")
        return read_policies([path]).policies

    def _account(self, name: str) -> ArmedAccount:
        venue, wire = self.venue, self.wires[name]
        market = "spot" if self.spot else venue.market
        options: dict[str, object] = {"clock": self.clock, "timeout": 5}
        spec = AccountSpec(
            account=name, adapter="alpaca" if venue.exchange is None else "ccxt", market=market,
            currency=venue.currency, endpoint=wire.address, options=options, credentials=dict(venue.credentials),
            exchange=venue.exchange, endpoint_ws=wire.address_ws if self._pushed else None,
        )  # fmt: skip
        adapter = venue.factory(spec)
        return ArmedAccount(name, venue.exchange or venue.name, market, venue.currency, adapter, armed=True)  # type: ignore[arg-type] # a market
