"""A runner pages for orders of ours that its journal does not know, and for orders that it detaches."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

from killswitch.execution.client_order_id import client_order_id
from killswitch.model.snapshot import Order
from tests import graphs
from tests.runner_world import World, book, crash_policy
from tests.telemetry_world import Exported, OutcomeVenue, crash, runner_of

STRANGE = client_order_id("ee" * 10, 0, 1)


def pages(folder: Path, venue: OutcomeVenue, *, rounds: int = 60) -> list[str]:
    """The notices of a crash at this venue, oldest first, and of a second run over the same store."""
    world, found = World(folder), graphs.policy_set(crash_policy())
    try:

        async def go() -> None:
            runner = runner_of(world, venue, found, Exported(world))
            await crash(world, runner, venue, rounds, venue_fallen)
            await runner.finish()
            await runner.shut_down()
            again = runner_of(world, venue, found, Exported(world))
            await again.start()
            await again.tick()
            await again.finish()
            await again.shut_down()

        venue_fallen = book("900", orders=(Order("77", "BTC", "sell", Decimal(1), client_order_id=STRANGE),))
        asyncio.run(go())
        return [notice.text for notice in world.open().notices(100)][::-1]
    finally:
        world.close()


def test_an_unjournaled_order_of_ours_pages_once_over_two_runs(tmp_path: Path) -> None:
    """Every tick from the fall on sees it; only the first reports it."""
    found = [text for text in pages(tmp_path, OutcomeVenue(book("1100"), [])) if STRANGE in text]
    assert len(found) == 1
    assert "is open at the venue, and the journal has no such order" in found[0]


def test_an_order_of_unknown_status_pages_when_it_is_detached(tmp_path: Path) -> None:
    """The venue fills it, loses the answer and answers no query: the close continues, and a person is notified."""
    venue = OutcomeVenue(book("1100"), ["unsure"])
    venue.deaf = True
    found = [text for text in pages(tmp_path, venue, rounds=30) if "may have filled" in text]
    assert len(found) == 1
    assert "has an unknown status: it may have filled: look at the venue, which is still queried" in found[0]
    assert len(found[0]) < 300, "a message cuts longer lines, and the command at the end with them"
