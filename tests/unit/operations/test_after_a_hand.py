"""What a close by hand without a runner leaves behind: the next run finds every change explained."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.cli.operate.single_tick import run_one_tick
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest
from killswitch.operations.commands import operator_event
from killswitch.store.sql import SqlStore
from tests.runner_world import ScriptedVenue, World, book


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


class Slipping(ScriptedVenue):
    """Fills 1 below the mark for a fee of 1, dates the fill by the clock, and keeps it among the rows."""

    def __init__(self, world: World, answer: AccountSnapshot, *, says_gain: bool) -> None:
        super().__init__(answer)
        self._world = world
        self._says_gain = says_gain

    async def submit(self, request: OrderRequest) -> OrderReport:
        report = await super().submit(request)
        account = self.answer
        assert isinstance(account, AccountSnapshot)
        assert account.equity is not None
        (row,) = account.fills or ()
        assert row.realized_pnl is not None
        worse = structs.replace(
            row, at=self._world.clock.now(), price=row.price - 1,
            realized_pnl=row.realized_pnl - row.amount if self._says_gain else None,
        )  # fmt: skip
        self.answer = structs.replace(account, equity=account.equity - row.amount, fills=(worse,))
        return structs.replace(report, price=worse.price)


async def look(world: World, store: SqlStore, venue: ScriptedVenue) -> None:
    """A run of two ticks."""
    runner = world.runner(store, [venue], armed=False)
    await runner.start()
    for _ in range(2):
        await world.clock.sleep(1.0)
        await runner.tick()
    await runner.finish()


@pytest.mark.parametrize("says_gain", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_the_cost_of_a_close_by_hand_without_a_runner_is_explained_to_the_next_run(
    world: World, says_gain: bool, first: bool
) -> None:
    """Slippage of 10 and a fee of 1: by the fill's own result, or by the entry price that it met.

    Whether the hand's tick is the first that the store ever saw, or one after a run's.
    """
    store, venue = world.open(), Slipping(world, book("1200"), says_gain=says_gain)
    if not first:
        asyncio.run(look(world, store, venue))
    event = operator_event("close", "account/main", "risk-desk", "drill", world.clock.now())
    asyncio.run(world.clock.sleep(1.0))
    asyncio.run(run_one_tick(world.runner(store, [venue]), store, event, 600.0))
    account = venue.answer
    assert isinstance(account, AccountSnapshot)
    assert (account.equity, account.positions) == (Decimal(1200 - 10 - 1), ())
    asyncio.run(world.clock.sleep(3600.0))
    asyncio.run(look(world, store, venue))
    assert [(notice.kind, notice.text) for notice in store.notices(20) if notice.kind == "unexplained"] == []
