"""An interrupted close: `ksctl status` reports that no runner works on it, and stays readable."""

from __future__ import annotations

import asyncio
import json

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import VenueDownError
from killswitch.operations.status import StoreStatus, encode_status, store_status
from killswitch.store.sql import SqlStore
from tests import worlds
from tests.runner_world import World, refusing
from tests.shown import status_text


def book(mark: int, count: int) -> AccountSnapshot:
    """`count` longs of one contract each, bought at 110 with 110 of equity for each."""
    positions = tuple(
        worlds.position(f"COIN{number:02}", "long", str(mark - 110), contracts="1", entry_price="110",
                        mark_price=str(mark), notional=str(mark))
        for number in range(count)
    )  # fmt: skip
    rules = tuple(worlds.rules(each.symbol) for each in positions)
    return worlds.account(str(mark * count), positions, name="main", instruments=rules)


def interrupted_close(world: World, store: SqlStore, count: int, *, clean: bool = True) -> str:
    """A crash is decided and nothing can be closed; the runner stops, cleanly or not. Returns the decision's id."""
    venue = refusing(book(110, count), VenueDownError("maintenance"))

    async def run() -> None:
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

    asyncio.run(run())
    (stored,) = store.decisions(1)
    return stored.decision.id


def status_of(world: World, store: SqlStore) -> StoreStatus:
    return store_status(store, world.clock.now(), 0)


def block(status: StoreStatus, title: str) -> list[str]:
    """The lines below a title; empty if there is no such block."""
    text = "\n\n" + status_text(status, "s")
    return text.partition(f"\n\n{title}\n")[2].partition("\n\n")[0].splitlines()


def test_a_clean_stop_during_a_close_is_a_problem(world: World) -> None:
    """It names the decision, the account, that no runner works on it, and the command that continues it."""
    store = world.open()
    decision = interrupted_close(world, store, 3)
    status = status_of(world, store)
    problem = (
        f"no runner works on the closing of decision {decision} on account main, because none is running: "
        "`ksctl run --live` continues with what is left, `ksctl status --watch` shows its progress"
    )
    assert status.problems == (problem,)
    assert f"  {problem}" in block(status, "Problems")
    assert block(status, "Closes in progress") == []
    assert json.loads(encode_status(status))["problems"] == [problem]


def test_a_close_that_a_living_runner_works_on_is_no_problem(world: World) -> None:
    """The lease is in force: the next tick continues the close."""
    store = world.open()
    interrupted_close(world, store, 3, clean=False)
    status = status_of(world, store)
    assert status.problems == ()
    assert len(block(status, "Closes in progress")) == 2
    assert block(status, "Closes without a runner") == []


def test_twenty_five_positions_fit_on_one_line(world: World) -> None:
    """Four positions are named and the others counted; the remark on old quantities appears at most once."""
    store = world.open()
    decision = interrupted_close(world, store, 25)
    _, row = block(status_of(world, store), "Closes without a runner")
    assert row.strip().startswith(decision)
    assert "25 positions: 1 COIN00 long, 1 COIN01 long, 1 COIN02 long, 1 COIN03 long, 21 more" in row
    assert row.count("when it was decided") <= 1
    assert len(row) < 300
