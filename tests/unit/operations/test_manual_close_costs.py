"""The costs of a manual close without a runner: the next run reports no unexplained balance change."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.cli.operate.single_tick import run_one_tick
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderReport, OrderRequest
from killswitch.operations.commands import operator_event
from killswitch.store.sql import SqlStore
from tests.runner_world import ScriptedVenue, World, book


class SlippingVenue(ScriptedVenue):
    """Fills at 1 below the mark with a fee of 1, dates the fill by the clock, and keeps it in the account's fills."""

    def __init__(self, world: World, answer: AccountSnapshot, *, reports_realized_pnl: bool) -> None:
        super().__init__(answer)
        self._world = world
        self._reports_realized_pnl = reports_realized_pnl

    async def submit(self, request: OrderRequest) -> OrderReport:
        report = await super().submit(request)
        account = self.answer
        assert isinstance(account, AccountSnapshot)
        assert account.equity is not None
        (fill,) = account.fills or ()
        assert fill.realized_pnl is not None
        slipped = replace(
            fill, at=self._world.clock.now(), price=fill.price - 1,
            realized_pnl=fill.realized_pnl - fill.amount if self._reports_realized_pnl else None,
        )  # fmt: skip
        self.answer = replace(account, equity=account.equity - fill.amount, fills=(slipped,))
        return replace(report, price=slipped.price)


async def run_two_ticks(world: World, store: SqlStore, venue: ScriptedVenue) -> None:
    """An unarmed run of two ticks."""
    runner = world.runner(store, [venue], armed=False)
    await runner.start()
    for _ in range(2):
        await world.clock.sleep(1.0)
        await runner.tick()
    await runner.finish()


@pytest.mark.parametrize("reports_realized_pnl", [True, False])
@pytest.mark.parametrize("is_first_tick", [True, False])
def test_the_next_run_can_explain_the_cost_of_a_manual_close_without_a_runner(
    world: World, reports_realized_pnl: bool, is_first_tick: bool
) -> None:
    """Slippage of 10 and a fee of 1 are explained by the fill's realised P&L, or by the entry price of the position.

    The tick of the command is the first on the store, or follows a run.
    """
    store, venue = world.open(), SlippingVenue(world, book("1200"), reports_realized_pnl=reports_realized_pnl)
    if not is_first_tick:
        asyncio.run(run_two_ticks(world, store, venue))
    event = operator_event("close", "account/main", "risk-desk", "drill", world.clock.now())
    asyncio.run(world.clock.sleep(1.0))
    asyncio.run(run_one_tick(world.runner(store, [venue]), store, event, 600.0))
    account = venue.answer
    assert isinstance(account, AccountSnapshot)
    assert (account.equity, account.positions) == (Decimal(1200 - 10 - 1), ())
    asyncio.run(world.clock.sleep(3600.0))
    asyncio.run(run_two_ticks(world, store, venue))
    assert [(notice.kind, notice.text) for notice in store.notices(20) if notice.kind == "unexplained"] == []
