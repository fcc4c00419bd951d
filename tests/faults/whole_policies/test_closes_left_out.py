"""C1 over the wire: what answers leave out is closed by a close by hand all the same, and nothing is sold twice.

Bybit's own payloads and the real client, in a run in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import Event
from killswitch.model.venue import AccountSpec
from killswitch.operations.commands import operator_event
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.store.sqlite import open_store
from killswitch_ccxt import adapter
from tests import graphs
from tests.faults.exchange import Exchange, Key, Market
from tests.faults.mishaps import Mishap, Rule, Script
from tests.virtual_time import VirtualTime
from tests.wire.bybit.venue import BybitWire
from tests.wire.server import KEY, SECRET

D = Decimal
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
LONG_BTC: Key = (BTC, "long")
LONG_ETH: Key = (ETH, "long")
CALM: PolicySet = graphs.policy_set(graphs.graph([], [], [], policy="calm"))
PACE = RunnerPace(1.0, 0.5, stop_timeout=0.5)
_NUMBERS = count()


class Desk:
    """An account with two positions, runs on it, and a close of everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = VirtualTime()
        self.store = open_store(str(folder / "store.sqlite"))
        self.script = Script()
        markets = [Market(BTC), Market(ETH)]
        held = {LONG_BTC: D(5), LONG_ETH: D(7)}
        self.exchange = Exchange(held, lambda: (self.time.elapsed, self.time.now()), markets=markets)
        self.venue = BybitWire(self.exchange, equity=D(100_000), mishaps=self.script)
        self.command: Event | None = None

    def give(self) -> None:
        self.command = operator_event("close", None, "ann", "left out", self.time.now(), cause="exchange-breach")
        self.store.put_event(self.command)

    def run(self, ticks: int, *at: tuple[float, Callable[[], object]]) -> None:
        """One run; each of `at` is called after so many of its seconds."""

        async def play() -> None:
            await self.venue.start()
            options: dict[str, object] = {"clock": self.time, "ccxt": {"numberOfTheTest": next(_NUMBERS)}}
            keys = {"key": KEY, "secret": SECRET}
            spec = AccountSpec("main", "ccxt", "swap", "USDT", self.venue.address, options, keys, "bybit")
            venue = adapter(spec)
            accounts = {"main": ArmedAccount("main", "bybit", "swap", "USDT", venue, armed=True)}
            try:
                runner = assemble(
                    CALM, accounts, self.store, self.time, PACE, live=True, is_run=True,
                    locks=LockPaths(self.folder / "locks", None),
                )  # fmt: skip
                running = asyncio.ensure_future(runner.run(asyncio.Event(), ticks))
                began = self.time.elapsed
                for second, call in at:
                    await asyncio.sleep(began + second - self.time.elapsed)
                    call()
                await running
            finally:
                await venue.close()
                await self.venue.stop()

        self.time.run(play())

    def lie(self, mishap: Mishap, times: int) -> None:
        """From now on, so many polls of the account are answered wrongly."""
        self.script.rules.append(Rule("snapshot", mishap, times=times))

    @property
    def held(self) -> dict[Key, Decimal]:
        return {key: amount for key, amount in self.exchange.held.items() if amount}

    @property
    def sold(self) -> dict[str, Decimal]:
        """Symbol → contracts that all orders have sold."""
        found: dict[str, Decimal] = {}
        for placed in self.exchange.orders.values():
            found[placed.symbol] = found.get(placed.symbol, D(0)) + placed.filled
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("mishap", ["page", "empty"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_an_answer_leaves_out_is_closed_by_a_close_by_hand(desk: Desk, mishap: Mishap, times: int) -> None:
    """The run has seen both positions; the polls of the tick that processes the command miss one, or both."""

    def give() -> None:
        desk.lie(mishap, times)
        desk.give()

    desk.run(40, (5.0, give))
    assert desk.held == {}
    assert desk.sold == {BTC: D(5), ETH: D(7)}
    assert list(desk.store.pending_events()) == []


def test_what_the_first_answer_of_a_run_leaves_out_is_closed_with_a_later_one(desk: Desk) -> None:
    """Nothing was known of it before: the command is still active when it is shown."""
    desk.give()
    desk.lie("page", 1)
    desk.run(40)
    assert desk.held == {}
    assert desk.sold == {BTC: D(5), ETH: D(7)}


def test_a_restart_in_between_goes_on(desk: Desk) -> None:
    """The first run ends with the tick that saw one of two positions, and the next sees both."""
    desk.give()
    desk.lie("page", 1)
    desk.run(1)
    desk.run(40)
    assert desk.held == {}
    assert desk.sold == {BTC: D(5), ETH: D(7)}
    assert list(desk.store.pending_events()) == []
