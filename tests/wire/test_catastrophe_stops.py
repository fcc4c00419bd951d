"""Catastrophe stops over venues' own payloads, with the real clients: in step, never too large, never left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec, Call
from killswitch.runner.assembly import LockPaths, assemble
from killswitch_ccxt import adapter
from tests import graphs
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Rule, Script
from tests.faults.wire import Wire
from tests.rotation import each_taking_turns, taking_turns
from tests.runner_world import crash_policy
from tests.unit.stops.test_stops_of_a_run import LONG, PACE, SHORT, Site, rule
from tests.wire.adapter_wire import wire_substitution
from tests.wire.closing_venues import CLOSING_VENUES
from tests.wire.krakenfutures.venue import SECRET as KRAKEN_SECRET
from tests.wire.krakenfutures.venue import InverseKrakenFuturesWire, KrakenFuturesWire
from tests.wire.server import KEY

D = Decimal
_NUMBERS = count()
WIRES = [name for name, each in CLOSING_VENUES.items() if each.names_stops]
"""MEXC gives conditional orders no client order id, and its adapter offers no catastrophe stops."""


def wire_of(name: str, exchange: Exchange) -> type[Any]:
    """The adapter of a venue on loopback, whose venue states that every position was entered at 100."""
    base = wire_substitution(CLOSING_VENUES[name])(Wire, exchange)

    async def snapshot(self: Any) -> AccountSnapshot:
        found: AccountSnapshot = await base.snapshot(self)
        entered = tuple(replace(each, entry_price=D(100)) for each in found.positions or ())
        return found if found.positions is None else replace(found, positions=entered)

    return type(base.__name__, (base,), {"snapshot": snapshot})


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def in_step(site: Site) -> list[Decimal]:
    """What the resting stops of the side that is held cover beyond the position: never above 0."""
    held = sum(site.exchange.held.values(), D(0))
    return [sum((amount for _, amount, _ in site.stops()), D(0)) - held]


@pytest.mark.parametrize("name", taking_turns(WIRES, "a catastrophe stop is in step"))
def test_a_stop_is_in_step_within_two_ticks_at_every_venue(name: str, site: Site) -> None:
    """Placed, made smaller, turned, and gone when the position is: two ticks after each change by others."""
    wire = wire_of(name, site.exchange)
    found: list[object] = []

    def look() -> None:
        found.append(site.stops())

    def flip() -> None:
        site.exchange.trade(LONG, D(-6))
        site.exchange.trade(SHORT, D(4))

    changes: dict[int, Callable[[], object]] = {
        4: look, 5: lambda: site.exchange.trade(LONG, D(-4)), 8: look, 9: flip, 12: look,
        13: lambda: site.exchange.trade(SHORT, D(-4)), 16: look,
    }  # fmt: skip
    site.run(site.runner(wire=wire), 18, changes)
    assert found == [[("sell", D(10), D(80))], [("sell", D(6), D(80))], [("buy", D(4), D(120))], []]


class KrakenSite(Site):
    """Kraken Futures on loopback with its real client: linear contracts in dollars, or inverse ones in bitcoin."""

    def __init__(self, folder: Path, *, inverse: bool) -> None:
        super().__init__(folder)
        self.symbol = "BTC/USD:BTC" if inverse else "BTC/USD:USD"
        self.long: Key = (self.symbol, "long")
        # One contract is a dollar there, and a bitcoin here. The price of the inverse one is no round number of ticks.
        held, price = (D(500), D("100.13")) if inverse else (D(10), D(100))
        market = Market(self.symbol, price=price, step=D(1) if inverse else D("0.001"), minimum=D(1 if inverse else 0))
        self.exchange = Exchange({self.long: held}, lambda: (self.time.elapsed, self.time.now()), markets=[market])
        server = InverseKrakenFuturesWire if inverse else KrakenFuturesWire
        self.server = server(self.exchange, mishaps=Script(), equity=D(100))
        self.currency = self.server.currency

    def keep(self, ticks: int, changes: dict[int, Callable[[], object]], *mishaps: Rule) -> None:
        """A run with the stops of the document `far`, and changes by others after ticks."""
        self.server.mishaps = Script(*mishaps)

        async def play() -> None:
            await self.server.start()
            wallet = {"wallet": "fi_xbtusd"} if self.currency == "BTC" else {}
            options = {"clock": self.time, "ccxt": {"numberOfTheTest": next(_NUMBERS)}, **wallet}
            keys = {"key": KEY, "secret": KRAKEN_SECRET}
            spec = AccountSpec(
                "main", "ccxt", "swap", self.currency, self.server.address, options, keys, "krakenfutures"
            )
            venue = adapter(spec)
            policies = replace(graphs.policy_set(crash_policy()), stops=(rule(),))
            accounts = {"main": ArmedAccount("main", "kraken", "swap", self.currency, venue, armed=True)}
            try:
                runner = assemble(
                    policies, accounts, self.store, self.time, PACE, live=True, observers=(self.seen,), timers=True,
                    locks=LockPaths(self.folder / "locks", None),
                )  # fmt: skip
                running = asyncio.ensure_future(runner.run(asyncio.Event(), ticks))
                for tick in range(ticks):
                    await asyncio.sleep(0.5)
                    changes.get(tick, lambda: None)()
                    await asyncio.sleep(0.5)
                await running
            finally:
                await venue.close()
                await self.server.stop()

        self.time.run(play())


@pytest.fixture(params=[False, True], ids=["linear", "inverse"])
def kraken(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[KrakenSite]:
    made = KrakenSite(tmp_path, inverse=request.param)
    yield made
    made.store.close()


def test_a_stop_is_in_step_at_kraken_futures_in_its_own_contracts_and_price_steps(kraken: KrakenSite) -> None:
    """20% of the price below the entry, rounded to the tick of 0.01 towards the mark: 100.13 × 0.8 is 80.104."""
    trigger, held = (D("80.11"), D(500)) if kraken.currency == "BTC" else (D(80), D(10))
    found: list[object] = []

    def look() -> None:
        found.append(kraken.stops())

    changes: dict[int, Callable[[], object]] = {
        5: look, 6: lambda: kraken.exchange.trade(kraken.long, -held / 5 * 2), 10: look,
        12: lambda: kraken.exchange.trade(kraken.long, -held / 5 * 3), 16: look,
    }  # fmt: skip
    kraken.keep(18, changes)
    assert found == [[("sell", held, trigger)], [("sell", held / 5 * 3, trigger)], []]
    assert kraken.server.refusals == []
    assert kraken.notices() == []


def test_a_stop_that_fires_at_kraken_futures_closes_the_position_and_nothing_more(kraken: KrakenSite) -> None:
    kraken.keep(12, {5: lambda: kraken.exchange.reprice(kraken.symbol, D(79))})
    assert kraken.exchange.held[kraken.long] == 0
    assert kraken.stops() == [] and kraken.exchange.resting() == ()


@pytest.mark.parametrize(
    "fault", [("submit", "lost"), ("submit", "done"), ("submit", "garbled"), ("cancel", "lost"), ("cancel", "done")]
)
def test_a_fault_at_kraken_futures_leaves_the_stop_in_step(kraken: KrakenSite, fault: tuple[Call, Mishap]) -> None:
    """The first and the third request of a kind fail: never more than the position, and in step again at the end."""
    call, mishap = fault
    held = kraken.exchange.held[kraken.long]
    beyond: list[Decimal] = []

    def look() -> None:
        beyond.append(sum((amount for _, amount, _ in kraken.stops()), D(0)) - kraken.exchange.held[kraken.long])

    changes: dict[int, Callable[[], object]] = {60: lambda: kraken.exchange.trade(kraken.long, -held / 5 * 2)}
    changes |= dict.fromkeys((20, 40, 59, 110, 160, 219), look)
    kraken.keep(220, changes, Rule(call, mishap), Rule(call, mishap, after=2))
    assert max(beyond) <= 0
    assert sum((amount for _, amount, _ in kraken.stops()), D(0)) == held / 5 * 3


FAULTS: list[tuple[Call, Mishap]] = [
    ("submit", "lost"), ("submit", "late"), ("submit", "done"), ("submit", "garbled"), ("submit", "slow"),
    ("cancel", "lost"), ("cancel", "done"), ("cancel", "down"), ("find_order", "lost"), ("open_orders", "down"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), each_taking_turns(WIRES, "a fault and a catastrophe stop", FAULTS))
def test_a_fault_over_the_wire_leaves_the_stop_in_step(name: str, fault: tuple[Call, Mishap], site: Site) -> None:
    """The first and the third request of a kind fail: no more than the position rests, and it is in step again."""
    call, mishap = fault
    mishaps = Script(Rule(call, mishap), Rule(call, mishap, after=2))
    beyond: list[Decimal] = []
    changes: dict[int, Callable[[], object]] = {
        10: lambda: site.exchange.trade(LONG, D(-4)), 80: lambda: site.exchange.trade(LONG, D(6)),
    }  # fmt: skip
    for tick in (20, 40, 60, 79, 95, 130, 155):
        changes[tick] = lambda: beyond.extend(in_step(site))
    site.run(site.runner(mishaps, wire=wire_of(name, site.exchange)), 160, changes)
    assert sum((amount for _, amount, _ in site.stops()), D(0)) == 12
    assert {(side, trigger) for side, _, trigger in site.stops()} == {("sell", D(80))}
    assert max(beyond[1:]) <= 0
