"""What orders were charged is asked beside the ticks, and is no part of closing: nobody waits for it as for a close."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.cli.operate.single_tick import run_one_tick
from killswitch.model.snapshot import Fill
from killswitch.model.venue import OrderReport, OrderRequest
from killswitch.operations.commands import answer_to, operator_event
from killswitch.runner.closing_worker import ClosingWorker
from killswitch.runner.closing_workers import ClosingWorkers
from tests import worlds
from tests.faults.mishaps import Rule
from tests.faults.scene import Scene
from tests.runner_world import ScriptedVenue, World, book
from tests.unit.execution.test_charges import BTC, BY_FILLS, scene_of, told


def worked(scene: Scene, story: Callable[[ClosingWorkers], Awaitable[None]]) -> None:
    """`story`, on the closings of an account that has just been closed, and owes what it was charged."""
    scene.decide({BTC: 0})

    async def play() -> None:
        works = ClosingWorkers({"main": ClosingWorker("main", scene.closer, (), scene.time.monotonic)})
        works.adopt(scene.decisions)
        while works.has_work():
            await works.advance(1.0)
            await asyncio.sleep(works.wait if works.wait < math.inf else 0.01)
        await story(works)

    scene.time.run(play())


def test_closing_is_over_when_only_fees_are_owed() -> None:
    """Nobody is said to be closing, though passes go on until the fee is known."""

    async def story(works: ClosingWorkers) -> None:
        assert [it.status for it in works.progress()] == ["flat"]
        assert (works.is_working, works.busy, works.is_owing_fees) == (False, frozenset(), True)
        while works.has_work(fees=True):
            assert not works.is_working, "a pass that only asks closes nothing"
            await asyncio.sleep(works.wait if works.wait < math.inf else 0.01)
        assert told(scene) == [("BTC", "0.5000", None)]
        assert (works.is_owing_fees, works.wait) == (False, math.inf)

    scene = scene_of()
    worked(scene, story)


@pytest.mark.parametrize("at_rest", [True, False])
def test_questions_under_way_are_called_off_at_the_end_of_a_run(at_rest: bool) -> None:
    """The adapter is closed after it: nothing of ours may be waiting there."""

    async def story(works: ClosingWorkers) -> None:
        while scene.calls("fills") < 1:
            works.kick()
            await asyncio.sleep(0.05)
        assert questions()
        await (works.stop(1.0) if at_rest else works.abandon())
        assert questions() == []

    scene = scene_of(Rule("fills", "silent", times=99))
    worked(scene, story)


def questions() -> list[str]:
    """The tasks of the program that wait for an answer about charges."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("FeeQueries.")]


# A whole runner


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.close()


class Listing(ScriptedVenue):
    """Tells the fee of 1 with the fills only, or never where it `lists` none."""

    traits = BY_FILLS

    def __init__(self, *, lists: bool) -> None:
        super().__init__(book("1000"))
        self.lists = lists
        self.asked = 0

    async def submit(self, request: OrderRequest) -> OrderReport:
        return structs.replace(await super().submit(request), fee=None)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        self.asked += 1
        row = worlds.fill("f", worlds.START, symbol, "sell", "10", "100", fee="1", fee_currency="USDT")
        return (row,) if self.lists else ()


def test_a_close_is_done_before_anybody_asks_what_it_was_charged(world: World) -> None:
    """`close_within` ends with the close; with `fees` it goes on until the venue has been asked to the end."""
    store, venue = world.open(), Listing(lists=False)

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        store.put_event(operator_event("close", "account/main", "ada", "r", world.clock.now()))
        await world.clock.sleep(1.0)
        await runner.tick()
        assert await runner.close_within(30.0)
        assert ([it.status for it in runner.closings()], venue.asked) == (["flat"], 0)
        assert not await runner.advance(), "only fees are owed"
        assert not await runner.close_within(2.5, fees=True)
        assert venue.asked == 2
        assert await runner.close_within(60.0, fees=True)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    assert venue.closed


def test_a_hand_that_is_the_runner_ends_with_the_fee_of_its_close(world: World) -> None:
    """It is in the journal, from which the hand tells what it did, when the hand ends."""
    store, venue = world.open(), Listing(lists=True)
    event = operator_event("close", "account/main", "ada", "r", world.clock.now())
    asyncio.run(run_one_tick(world.runner(store, [venue]), store, event, 30.0))
    (decision,) = answer_to(store, event).decisions
    assert [it.data["fee"] for it in store.journal(decision.id) if it.kind == "charged"] == ["1"]
