"""C20, L3 at the runner: the lock is written before the first order leaves, and stays when the last one is filled.

L5: it is not prolonged, and not written again, while the account recovers.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from msgspec.structs import replace

from killswitch.gate.lock_reader import read_file, read_lock
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Graph, SignalRef
from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book
from tests.unit.runner.test_loop import crash
from tests.worlds import START, after


class Rebuying(ScriptedVenue):
    """A bot of the trading firm buys back what was just sold, `times` times, and records the lock's verdicts."""

    def __init__(self, world: World, times: int) -> None:
        super().__init__(None)
        self._world = world
        self._times = times
        self.locked: list[tuple[bool, str | None]] = []

    async def submit(self, request: OrderRequest) -> OrderReport:
        verdict = read_lock(self._world.folder / "locks" / "account__main.json", self._world.clock.now())
        self.locked.append((verdict.locked, verdict.mode))
        before = self.answer
        assert isinstance(before, AccountSnapshot)
        report = await super().submit(request)
        if self._times > 0:
            self._times -= 1
            after = self.answer
            assert isinstance(after, AccountSnapshot)
            self.answer = replace(after, positions=before.positions)
        return report


def test_l3_the_bot_that_buys_while_the_switch_sells_is_locked_out_from_before_the_first_order(world: World) -> None:
    """It ignores the lock three times: each time the position is sold again; the lock is reduce-only throughout."""
    store, venue = world.open(), Rebuying(world, 3)
    seen = asyncio.run(crash(world, store, venue))
    assert len(venue.sent) == 4
    assert set(venue.locked) == {(True, "reduce_only")}
    assert seen.reports[-1].snapshot.closings[0].status == "flat"
    assert isinstance(venue.answer, AccountSnapshot)
    assert venue.answer.positions == ()


def test_c20_after_the_close_the_lock_stays_and_a_reopened_position_is_not_closed(world: World) -> None:
    """Everything is flat; a bot opens the symbol again: the lock still forbids it, and nothing is sold undecided."""
    store, venue = world.open(), ScriptedVenue(None)
    asyncio.run(crash(world, store, venue))

    async def reopened() -> None:
        runner = world.runner(store, [venue])
        venue.answer = book("850")
        await runner.start()
        for _ in range(5):
            await world.clock.sleep(1.0)
            await runner.tick()
            assert await runner.close_within(10.0)
        await runner.finish()

    asyncio.run(reopened())
    assert len(venue.sent) == 1
    verdict = read_lock(world.folder / "locks" / "account__main.json", world.clock.now())
    assert (verdict.locked, verdict.mode) == (True, "reduce_only")


def trades_worse() -> Graph:
    """Locks for 30 minutes at a fall of 5% within an hour; the stage may fire again after 10 minutes."""
    lock = graphs.stage("rest", 1, 0, cooldown=10 * MINUTE, actions=(LockTrading("reduce_only", 30 * MINUTE),))
    return graphs.graph([SignalRef("equity.drawdown", (HOUR,))], [graphs.trigger("fall", 0, 0.05)], [lock])


def until(world: World) -> datetime | None:
    """The end of the account's lock as its file says it; None for an open file."""
    found = read_file(world.folder / "locks" / "account__main.json").lock
    assert found is not None
    return datetime.fromtimestamp(found.expires_ts, START.tzinfo) if found.locked else None


async def played(world: World, equities: dict[int, str]) -> list[datetime | None]:
    """The end of the lock after each of these minutes, at which the account is worth so much."""
    venue = ScriptedVenue(book("1100"))
    runner = world.runner(world.open(), [venue], policies=graphs.policy_set(trades_worse()))
    await runner.start()
    ends = []
    for minute, equity in equities.items():
        await world.clock.sleep((after(minutes=minute) - world.clock.now()).total_seconds())
        venue.answer = book(equity)
        await runner.tick()
        ends.append(until(world))
    await runner.finish()
    return ends


@pytest.mark.parametrize("winner", ["1031", "1040", "1044"])
def test_l5_a_winner_neither_prolongs_the_lock_nor_writes_it_again(world: World, winner: str) -> None:
    """It falls from 1,100 to 1,030 at minute 1: locked until minute 31. What it gains after is still 5% under the peak
    of the hour, after the cooldown and after the end of the lock: open from minute 31 on."""
    minutes = dict.fromkeys((2, 11, 12, 20, 30), winner)
    ends = asyncio.run(played(world, {0: "1100", 1: "1030", **minutes, 31: winner, 32: winner, 50: winner}))
    assert ends == [None, *[after(minutes=31)] * 6, None, None, None]


def test_l5_a_loser_locks_again(world: World) -> None:
    """A new loss after the cooldown fires again, and its lock counts from then."""
    ends = asyncio.run(played(world, {0: "1100", 1: "1030", 5: "1031", 12: "1020"}))
    assert ends == [None, after(minutes=31), after(minutes=31), after(minutes=42)]
