"""A close that waits for an account that cannot be read: `status`, `plan` and the lock's reason say so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.cli.live.plan_text import plan_text
from killswitch.cli.live.status_text import status_text
from killswitch.gate.lock_reader import read_lock
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import MINUTE
from killswitch.model.venue import VenueDownError
from killswitch.operations.preview import from_store, preview
from killswitch.operations.status import encode_status, store_status
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, World, book

WORDS = (
    "close-all fired at 2024-01-01T00:00:02Z, and its close waits for main, which cannot be read, "
    "until 2024-01-01T00:10:02Z or while its triggers stay true"
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_a_close_that_waits_is_shown_and_its_lock_names_policy_and_trigger(world: World) -> None:
    """The account fails at 1 s and 2 s, which fires; a plan and `status` at 2 s say what waits; it answers at 3 s."""
    stage = graphs.stage(
        "close-all", 2, 0, actions=(LockTrading("reduce_only", None), graphs.close()), close_within=10 * MINUTE
    )
    failing = graphs.trigger("failing", 0, 2.0, rearms=True)
    policies = graphs.policy_set(
        graphs.graph([SignalRef("venue.consecutive_failures")], [failing], [stage], policy="outage")
    )
    store, venue = world.open(), ScriptedVenue(book("1100"))
    shown: list[str] = []

    async def play() -> None:
        runner = world.runner(store, [venue], policies=policies)
        await runner.start()
        await runner.tick()
        venue.answer = VenueDownError("maintenance")
        for _ in range(2):
            await world.clock.sleep(1.0)
            await runner.tick()
        standing = store_status(store, world.clock.now(), 0)
        shown.append(status_text(standing, "s"))
        (machine,) = json.loads(encode_status(standing))["view"]["machines"]
        assert machine["waiting"]["accounts"] == ["main"]
        interpreter, memory = from_store(policies, store)
        down = worlds.account(None, None, quality="down", reason="maintenance")
        at_once = preview(
            policies,
            worlds.snapshot(worlds.after(seconds=2.5), down, scheduled=False),
            interpreter,
            memory,
            frozenset(),
        )
        shown.append(plan_text(at_once))
        venue.answer = book("1100")
        await world.clock.sleep(1.0)
        await runner.tick()
        shown.append(status_text(store_status(store, world.clock.now(), 0), "s"))
        await runner.shut_down()

    asyncio.run(play())
    status, plan, after = shown
    assert f"outage on account/main: {WORDS}" in status
    assert WORDS in plan
    assert WORDS not in after
    lock = read_lock(world.locks.folder / "account__main.json", world.clock.now())
    assert lock.locked
    assert "outage: failing; fired at 2024-01-01T00:00:02Z, when main could not be read" in lock.reason
