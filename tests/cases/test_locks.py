"""C20, L3 at the runner: the lock is written before the first order leaves, and stays when the last one is filled."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from killswitch.gate.lock_reader import read_lock
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest
from tests.runner_world import ScriptedVenue, World, book
from tests.unit.runner.test_loop import crash


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
