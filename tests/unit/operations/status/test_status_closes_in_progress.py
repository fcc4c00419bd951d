"""`status` on closes in progress: each account's own orders, and the positions still held."""

from __future__ import annotations

import asyncio
import json

from msgspec.structs import replace

from killswitch.graph.nodes import ScopeRule
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderRejectedError
from killswitch.operations.status import encode_status, store_status
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy, refusing
from tests.shown import status_text

NOT_ALLOWED = OrderRejectedError("permission", "this key may not trade")


def account_book(equity: str, account: str) -> AccountSnapshot:
    return book(equity, account)


def rows_after_crash(
    world: World, venues: list[ScriptedVenue], later: dict[str, AccountSnapshot | BaseException]
) -> list[str]:
    """The rows of closes in progress after a crash, some passes, and a tick that polls the accounts in `later`."""
    store = world.open()

    async def run() -> None:
        policies = graphs.policy_set(crash_policy(scope=ScopeRule("portfolio", None, None, None, None)))
        runner = world.runner(store, venues, policies=policies)
        await runner.start()
        for equity in ("1100", "900"):
            for venue in venues:
                venue.answer = account_book(equity, venue.account)
            await runner.tick()
            await runner.close_within(3.0)
        for venue in venues:
            venue.answer = later.get(venue.account, venue.answer)
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.close_within(3.0)
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.shut_down()

    asyncio.run(run())
    status = store_status(store, world.clock.now(), 0)
    assert json.loads(encode_status(status))["closings"]
    text = status_text(status, "s")
    return text.partition("\n\nCloses in progress\n")[2].partition("\n\n")[0].splitlines()[1:]


def test_the_remaining_position_is_the_one_of_the_last_poll(world: World) -> None:
    """Orders are refused, and another party has closed 4 of the 10: the row shows 6, no estimate."""
    start = book("900")
    assert start.positions is not None
    fewer = replace(start, positions=tuple(replace(each, contracts=each.contracts - 4) for each in start.positions))
    (row,) = rows_after_crash(world, [refusing(None, NOT_ALLOWED)], {"main": fewer})
    assert "1 position: 6 BTC long" in row
    assert "at the time of the decision" not in row


def test_each_account_shows_its_own_orders(world: World) -> None:
    """Orders on `b` are refused; the one on `main` has filled, and its close has ended."""
    rows = rows_after_crash(world, [ScriptedVenue(None, "main"), refusing(None, NOT_ALLOWED, "b")], {})
    assert [row.split()[1] for row in rows] == ["b"]
    assert "rejected" in rows[0]
    assert "filled" not in rows[0]
