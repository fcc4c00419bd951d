"""A close that waits for an unavailable account is shown by `status`, by `plan` and in the lock's reason."""

from __future__ import annotations

import asyncio
import json

from killswitch.gate.lock_reader import read_lock
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import MINUTE
from killswitch.model.venue import VenueDownError
from killswitch.operations.preview import from_store, preview
from killswitch.operations.status import encode_status, store_status
from tests import graphs, worlds
from tests.runner_world import ScriptedVenue, World, book
from tests.shown import plan_text, status_text

WAITING_TEXT = (
    "close-all fired at 2024-01-01T00:00:02Z, and its close waits for main, which cannot be read, "
    "until 2024-01-01T00:10:02Z or while its triggers stay true"
)


def test_a_waiting_close_is_shown_and_its_lock_names_policy_and_trigger(world: World) -> None:
    """Failed polls at 1 s and 2 s fire; a plan and `status` at 2 s show the waiting close; the venue answers at 3 s."""
    stage = graphs.stage(
        "close-all", 2, 0, actions=(LockTrading("reduce_only", None), graphs.close()), close_within=10 * MINUTE
    )
    failing = graphs.trigger("failing", 0, 2.0, rearms=True)
    policies = graphs.policy_set(
        graphs.graph([SignalRef("venue.consecutive_failures")], [failing], [stage], policy="outage")
    )
    store, venue = world.open(), ScriptedVenue(book("1100"))
    texts: list[str] = []

    async def run() -> None:
        runner = world.runner(store, [venue], policies=policies)
        await runner.start()
        await runner.tick()
        venue.answer = VenueDownError("maintenance")
        for _ in range(2):
            await world.clock.sleep(1.0)
            await runner.tick()
        status = store_status(store, world.clock.now(), 0)
        texts.append(status_text(status, "s"))
        (machine,) = json.loads(encode_status(status))["view"]["machines"]
        assert machine["waiting"]["accounts"] == ["main"]
        interpreter, history_text = from_store(policies, store)
        down = worlds.account(None, None, quality="down", reason="maintenance")
        immediate_preview = preview(
            policies,
            worlds.snapshot(worlds.after(seconds=2.5), down, scheduled=False),
            interpreter,
            history_text,
            frozenset(),
        )
        texts.append(plan_text(immediate_preview))
        venue.answer = book("1100")
        await world.clock.sleep(1.0)
        await runner.tick()
        texts.append(status_text(store_status(store, world.clock.now(), 0), "s"))
        await runner.shut_down()

    asyncio.run(run())
    status, plan, after = texts
    assert f"outage on account/main: {WAITING_TEXT}" in status
    assert WAITING_TEXT in plan
    assert WAITING_TEXT not in after
    lock = read_lock(world.locks.folder / "account__main.json", world.clock.now())
    assert lock.locked
    assert "outage: failing; fired at 2024-01-01T00:00:02Z, when main could not be read" in lock.reason
