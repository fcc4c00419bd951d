"""A close that was left in the middle: `ksctl status` says that nobody works on it, and stays readable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.cli.live.status_text import status_text
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.operations.status import StoreStatus, encode_status, store_status
from killswitch.store.sql import SqlStore
from tests import worlds
from tests.runner_world import ScriptedVenue, World


class Deaf(ScriptedVenue):
    """Shows its book and takes no order."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        raise VenueDownError("maintenance")


def book(mark: int, count: int) -> AccountSnapshot:
    """So many longs of one contract each, bought at 110 with 110 of equity for each."""
    held = tuple(
        worlds.position(f"COIN{number:02}", "long", str(mark - 110), contracts="1", entry_price="110",
                        mark_price=str(mark), notional=str(mark))
        for number in range(count)
    )  # fmt: skip
    rules = tuple(worlds.rules(each.symbol) for each in held)
    return worlds.account(str(mark * count), held, name="main", instruments=rules)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def stopped_in_the_middle(world: World, store: SqlStore, count: int, *, clean: bool = True) -> str:
    """A crash is decided and nothing can be closed; the runner stops, cleanly or not. The decision's id."""
    venue = Deaf(book(110, count))

    async def story() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = book(90, count)
        for _ in range(3):
            await world.clock.sleep(1.0)
            await runner.tick()
        if clean:
            await runner.finish()
        await runner.shut_down()

    asyncio.run(story())
    (stored,) = store.decisions(1)
    return stored.decision.id


def told(world: World, store: SqlStore) -> StoreStatus:
    return store_status(store, world.clock.now(), 0)


def block(standing: StoreStatus, title: str) -> list[str]:
    """The lines below a title; empty where it is not there."""
    text = "\n\n" + status_text(standing, "s")
    return text.partition(f"\n\n{title}\n")[2].partition("\n\n")[0].splitlines()


def test_a_clean_stop_in_the_middle_of_a_close_is_a_problem(world: World) -> None:
    """It names the decision, the account, that nobody works on it, and what goes on with it."""
    store = world.open()
    decision = stopped_in_the_middle(world, store, 3)
    standing = told(world, store)
    words = (
        f"no runner works on the closing of decision {decision} on account main, because none is running: "
        "`ksctl run --live` continues with what is left, `ksctl status --watch` shows its progress"
    )
    assert standing.problems == (words,)
    assert f"  {words}" in block(standing, "Problems")
    assert block(standing, "Closes in progress") == []
    assert json.loads(encode_status(standing))["problems"] == [words]


def test_a_close_that_a_living_runner_works_on_is_no_problem(world: World) -> None:
    """The lease stands: the next tick goes on with it."""
    store = world.open()
    stopped_in_the_middle(world, store, 3, clean=False)
    standing = told(world, store)
    assert standing.problems == ()
    assert len(block(standing, "Closes in progress")) == 2
    assert block(standing, "Closes without a runner") == []


def test_twenty_five_positions_fit_into_one_line(world: World) -> None:
    """Four are named and the others counted; what "not seen" means is said once, in words."""
    store = world.open()
    decision = stopped_in_the_middle(world, store, 25)
    _, row = block(told(world, store), "Closes without a runner")
    assert row.strip().startswith(decision)
    assert "25 positions: 1 COIN00 long, 1 COIN01 long, 1 COIN02 long, 1 COIN03 long, 21 more" in row
    assert row.count("when it was decided") <= 1
    assert len(row) < 300
