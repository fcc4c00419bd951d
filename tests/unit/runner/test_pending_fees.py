"""Fees of orders are queried in parallel with the ticks and are no part of closing: nobody waits for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from killswitch.cli.operate.single_tick import run_one_tick
from killswitch.model.snapshot import Fill
from killswitch.operations.commands import answer_to, operator_event
from killswitch.runner.closing_worker import ClosingWorker
from killswitch.runner.closing_workers import ClosingWorkers
from tests import worlds
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene
from tests.runner_world import ScriptedVenue, World, book
from tests.unit.execution.test_fee_queries import BTC, BY_FILLS, charges, scene_of


def worked(scene: Scene, story: Callable[[ClosingWorkers], Awaitable[None]]) -> None:
    """`story`, on the closing workers of an account that has just been closed and whose fees are pending."""
    scene.decide({BTC: 0})

    async def play() -> None:
        workers = ClosingWorkers({"main": ClosingWorker("main", scene.closer, (), scene.time.monotonic)})
        workers.adopt(scene.decisions)
        while workers.has_work():
            await workers.advance(1.0)
            await asyncio.sleep(workers.wait if workers.wait < math.inf else 0.01)
        await story(workers)

    scene.time.run(play())


def test_closing_is_over_when_only_fees_are_pending() -> None:
    """No account counts as closing, though passes continue until the fee is known."""

    async def story(workers: ClosingWorkers) -> None:
        assert [it.status for it in workers.progress()] == ["flat"]
        assert (workers.is_working, workers.busy, workers.is_owing_fees) == (False, frozenset(), True)
        while workers.has_work(fees=True):
            assert not workers.is_working, "a pass that only asks closes nothing"
            await asyncio.sleep(workers.wait if workers.wait < math.inf else 0.01)
        assert charges(scene) == [("BTC", "0.5000", None)]
        assert (workers.is_owing_fees, workers.wait) == (False, math.inf)

    scene = scene_of()
    worked(scene, story)


@pytest.mark.parametrize("at_rest", [True, False])
def test_fee_queries_are_cancelled_at_the_end_of_a_run(at_rest: bool) -> None:
    """The adapter is closed after it: no request of ours may be waiting there."""

    async def story(workers: ClosingWorkers) -> None:
        while scene.calls("fills") < 1:
            workers.kick()
            await asyncio.sleep(0.05)
        assert questions()
        await (workers.stop(1.0) if at_rest else workers.abandon())
        assert questions() == []

    scene = scene_of(Rule("fills", "silent", times=99))
    worked(scene, story)


def questions() -> list[str]:
    """The tasks of the process that wait for an answer about fees."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("FeeQueries.")]


# A whole runner


class LateFees(ScriptedVenue):
    """Reports the fee of 1 with the fills only, or never where it `lists` none."""

    traits = BY_FILLS

    def __init__(self, *, lists: bool) -> None:
        super().__init__(book("1000"))
        self.lists = lists
        self.queries = 0
        self.change("submit", lambda report: replace(report, fee=None))

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        self.queries += 1
        row = worlds.fill("f", worlds.START, symbol, "sell", "10", "100", fee="1", fee_currency="USDT")
        return (row,) if self.lists else ()


def test_a_close_is_done_before_its_fees_are_queried(world: World) -> None:
    """`close_within` ends with the close; with `fees` it continues until all queries are done."""
    store, venue = world.open(), LateFees(lists=False)

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        store.put_event(operator_event("close", "account/main", "ada", "r", world.clock.now()))
        await world.clock.sleep(1.0)
        await runner.tick()
        assert await runner.close_within(30.0)
        assert ([it.status for it in runner.closings()], venue.queries) == (["flat"], 0)
        assert not await runner.advance(), "only fees are owed"
        assert not await runner.close_within(2.5, fees=True)
        assert venue.queries == 2
        assert await runner.close_within(60.0, fees=True)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert venue.closed


def test_a_command_without_a_runner_ends_with_the_fee_of_its_close(world: World) -> None:
    """It is in the journal, from which the command reports what it did, when the command ends."""
    store, venue = world.open(), LateFees(lists=True)
    event = operator_event("close", "account/main", "ada", "r", world.clock.now())
    asyncio.run(run_one_tick(world.runner(store, [venue]), store, event, 30.0))
    (decision,) = answer_to(store, event).decisions
    assert [it.data["fee"] for it in store.journal(decision.id) if it.kind == "charged"] == ["1"]
