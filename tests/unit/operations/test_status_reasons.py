"""`ksctl status` says a long reason once, under the table of accounts, and nowhere wider than that."""

from __future__ import annotations

import asyncio
from pathlib import Path

from killswitch.cli.live.status_text import status_text
from killswitch.model.venue import VenueDownError
from killswitch.operations.status import store_status
from tests.runner_world import ScriptedVenue, World, book

WHY = "the venue has been in maintenance since noon and asks to be left alone, and this goes on for a while " * 2


def test_ticks_that_come_later_than_they_are_to_say_so(tmp_path: Path) -> None:
    """One a second is wanted; the third one comes six seconds after the second. Ten in time later that is over.

    Where a venue hangs, every other tick waits for it: the newest one alone would not show it.
    """
    world = World(tmp_path)
    store = world.open()
    shown: list[str] = []

    async def play() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))])
        await runner.start()
        for pause in (1.0, 6.0, *[1.0] * 10):
            await runner.tick()
            shown.append(status_text(store_status(store, world.clock.now(), 0), "s"))
            await world.clock.sleep(pause)
        await runner.shut_down()

    try:
        asyncio.run(play())
    finally:
        world.close()
    assert ["BEHIND: up to 6.0 s between" in each for each in shown] == [False, False, *[True] * 9, False]


def test_why_an_account_is_down_is_said_once_and_its_triggers_point_to_it(tmp_path: Path) -> None:
    """The table keeps its width; every trigger that is unknown because of it says where to look."""
    world = World(tmp_path)
    store = world.open()

    async def story() -> None:
        venue = ScriptedVenue(book("1000"))
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        venue.answer = VenueDownError(WHY.strip())
        await world.clock.sleep(1.0)
        await runner.tick()
        await runner.finish()
        await runner.shut_down()

    try:
        asyncio.run(story())
        said = status_text(store_status(store, world.clock.now(), 0), "store.sqlite")
    finally:
        world.close()
    accounts = said.split("Accounts\n", 1)[1].split("\n\n", 1)[0].splitlines()
    assert " down [1] " in accounts[1]
    assert len(accounts[1]) < 120
    assert accounts[2].strip().startswith("[1] main: ")
    triggers = said.split("Triggers of ", 1)[1]
    assert "main is down, see above" in triggers
    assert "maintenance" not in triggers.split("\n\n", 1)[0]
