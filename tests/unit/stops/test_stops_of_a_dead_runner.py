"""Catastrophe stops at the paper venue, after the runner is gone: what they are for."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.nodes import CatastropheStopRule
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.words import Place
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.store.sqlite import open_store
from killswitch_paper.local import LocalVenue
from tests import graphs
from tests.markets import START, Desk, bar
from tests.runner_world import crash_policy

D = Decimal
PACE = RunnerPace(1.0, 0.5, stop_timeout=0.5)


def kept(folder: Path, desk: Desk, ticks: int = 3) -> None:
    """A run of a few ticks that keeps stops 20% from the entry, and ends."""
    rule = CatastropheStopRule(
        "far", ("main",), None, D("0.2"), "mark", D("0.02"), D("0.1"), "none", Place("stops.yaml", 1, 1, "")
    )
    policies = replace(graphs.policy_set(crash_policy()), stops=(rule,))
    store = open_store(str(folder / "store.sqlite"))
    clock = VirtualClock(START)
    accounts = {
        "main": ArmedAccount("main", "paper", "swap", "USDT", LocalVenue("main", desk.market, None), armed=True)
    }
    runner = assemble(
        policies, accounts, store, clock, PACE, live=True, timers=True, locks=LockPaths(folder / "locks", None)
    )

    async def play() -> None:
        await runner.start()
        for _ in range(ticks):
            await runner.tick()
            await asyncio.sleep(0.05)
            await clock.sleep(1.0)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(play())
    store.close()


def test_a_stop_closes_the_position_when_no_runner_lives(tmp_path: Path) -> None:
    """10 long from 100: without a runner the price falls to 75 within a bar, and the stop sells at 80."""
    desk = Desk(wallet="10000", leverage="1")
    desk.market.submit("main", desk.order("buy", "10"))
    kept(tmp_path, desk)
    ((stop),) = desk.market.open_orders("main")
    assert (stop.side, stop.amount, stop.trigger_price, stop.reduce_only) == ("sell", D(10), D(80), True)
    desk.pass_bar(A=bar("100", "100", "75", "75"))
    after = desk.market.snapshot("main")
    assert after.positions == ()
    assert after.equity == D(9800)  # 10 × (80 − 100)


def test_a_stop_lies_inside_the_liquidation_price(tmp_path: Path) -> None:
    """At five times leverage the liquidation is above 80: the stop is 2% inside it, and closes the position first."""
    desk = Desk(wallet="200", leverage="5")
    desk.market.submit("main", desk.order("buy", "10"))
    ((position),) = desk.market.snapshot("main").positions or ()
    liquidation = position.liquidation_price
    assert liquidation is not None
    assert liquidation > 80
    kept(tmp_path, desk)
    ((stop),) = desk.market.open_orders("main")
    assert stop.trigger_price is not None
    assert liquidation * D("1.02") <= stop.trigger_price < liquidation * D("1.02") + D("0.01")
    desk.pass_bar(A=bar("100", "100", "70", "70"))
    after = desk.market.snapshot("main")
    assert after.positions == ()
    assert {fill.cause for fill in after.fills or ()} == {"trade"}
