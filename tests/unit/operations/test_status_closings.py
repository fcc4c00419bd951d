"""What `status` says of closes under way: each account's own orders, and what is held of what waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.cli.live.status_text import status_text
from killswitch.graph.nodes import ScopeRule
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import OrderRejectedError, OrderReport, OrderRequest
from killswitch.operations.status import encode_status, store_status
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy


class Refusing(ScriptedVenue):
    async def submit(self, request: OrderRequest) -> OrderReport:
        self.sent.append(request)
        raise OrderRejectedError("permission", "this key may not trade")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def named(equity: str, account: str) -> AccountSnapshot:
    return book(equity, account)


def crashed(world: World, venues: list[ScriptedVenue], later: dict[str, AccountSnapshot | BaseException]) -> list[str]:
    """The rows of closings after a crash, some passes, and a tick that reads `later` where that differs."""
    store = world.open()

    async def story() -> None:
        policies = graphs.policy_set(crash_policy(scope=ScopeRule("portfolio", None, None, None, None)))
        runner = world.runner(store, venues, policies=policies)
        await runner.start()
        for equity in ("1100", "900"):
            for venue in venues:
                venue.answer = named(equity, venue.account)
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

    asyncio.run(story())
    standing = store_status(store, world.clock.now(), 0)
    assert json.loads(encode_status(standing))["closings"]
    text = status_text(standing, "s")
    return text.partition("\n\nCloses in progress\n")[2].partition("\n\n")[0].splitlines()[1:]


def test_what_is_left_is_what_the_last_tick_has_read(world: World) -> None:
    """Orders are refused, and somebody else has taken 4 of the 10 meanwhile: 6 are left, and nothing is guessed."""
    start = book("900")
    assert start.positions is not None
    fewer = structs.replace(
        start, positions=tuple(structs.replace(each, contracts=each.contracts - 4) for each in start.positions)
    )
    (row,) = crashed(world, [Refusing(None)], {"main": fewer})
    assert "1 position: 6 BTC long" in row
    assert "when it was decided" not in row


def test_each_account_shows_its_own_orders(world: World) -> None:
    """Orders on `b` are refused; the one of `main` has filled, and its close is over."""
    rows = crashed(world, [ScriptedVenue(None, "main"), Refusing(None, "b")], {})
    assert [row.split()[1] for row in rows] == ["b"]
    assert "rejected" in rows[0]
    assert "filled" not in rows[0]
