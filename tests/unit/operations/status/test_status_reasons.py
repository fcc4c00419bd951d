"""`ksctl status` prints a long reason once, under the table of accounts, and marks late ticks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from killswitch.model.venue import VenueDownError
from killswitch.operations.status import store_status
from tests.runner_world import ScriptedVenue, World, book
from tests.shown import status_text

WHY = "the venue has been in maintenance since noon and asks to be left alone, and this goes on for a while " * 2


def test_status_reports_ticks_that_run_behind_their_interval(tmp_path: Path) -> None:
    """The interval is a second; the third tick comes six seconds after the second. Ten punctual ticks later it is over.

    While a venue hangs, every other tick waits for it: the newest tick alone would not show it.
    """
    world = World(tmp_path)
    store = world.open()
    texts: list[str] = []

    async def run() -> None:
        runner = world.runner(store, [ScriptedVenue(book("1100"))])
        await runner.start()
        for pause in (1.0, 6.0, *[1.0] * 10):
            await runner.tick()
            texts.append(status_text(store_status(store, world.clock.now(), 0), "s"))
            await world.clock.sleep(pause)
        await runner.shut_down()

    try:
        asyncio.run(run())
    finally:
        world.close()
    assert ["BEHIND: up to 6.0 s between" in each for each in texts] == [False, False, *[True] * 9, False]


def test_the_reason_of_a_down_account_is_printed_once_and_its_triggers_refer_to_it(tmp_path: Path) -> None:
    """The table keeps its width; every trigger that is unknown because of it refers to the reason."""
    world = World(tmp_path)
    store = world.open()

    async def run() -> None:
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
        asyncio.run(run())
        text = status_text(store_status(store, world.clock.now(), 0), "store.sqlite")
    finally:
        world.close()
    accounts = text.split("Accounts\n", 1)[1].split("\n\n", 1)[0].splitlines()
    assert " down [1] " in accounts[1]
    assert len(accounts[1]) < 120
    assert accounts[2].strip().startswith("[1] main: ")
    triggers = text.split("Triggers of ", 1)[1]
    assert "main is down, see above" in triggers
    assert "maintenance" not in triggers.split("\n\n", 1)[0]
