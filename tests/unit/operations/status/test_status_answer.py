"""`ksctl status` begins with the answer; on trouble it may exit with a code of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.cli.live.status import status
from killswitch.model.venue import VenueDownError
from killswitch.operations.pages.status import status_page
from killswitch.operations.status import StoreStatus, store_status
from killswitch.operations.status_answer import answer, of_scope, troubles
from killswitch.render.document import text
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy, refusing

SCREEN = 23
"""The lines of a screen of 24 above the next prompt."""


def states_of(world: World, *venues: ScriptedVenue, then: tuple[object, ...] = ()) -> list[StoreStatus]:
    """The status after a tick, and after one more with each of the later answers of the first venue."""
    store, found = world.open(), []
    policies = graphs.policy_set(crash_policy())

    async def run() -> None:
        runner = world.runner(store, list(venues), policies=policies)
        await runner.start()
        for later in (None, *then):
            if later is not None:
                venues[0].answer = later  # type: ignore[assignment]  # a snapshot or an error
                await world.clock.sleep(1.0)
            await runner.tick()
            found.append(store_status(store, world.clock.now(), 5))
        await runner.finish()
        await runner.shut_down()

    asyncio.run(run())
    found.append(store_status(store, world.clock.now(), 5))
    store.close()
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def two_venues() -> tuple[ScriptedVenue, ScriptedVenue]:
    return ScriptedVenue(book("1100", "main"), "main"), ScriptedVenue(book("1100", "other"), "other")


def test_two_quiet_accounts_fit_on_a_screen_below_the_answer(world: World) -> None:
    """The fall is 6.2% of a threshold of 10%: the nearest trigger has reached 62% of it."""
    venues = two_venues()
    quiet = states_of(world, *venues, then=(book("1031.8", "main"),))[1]
    assert troubles(quiet) == ()
    shown = text(status_page(quiet, "s"), 80).splitlines()
    assert shown[0] == "all quiet: 2 accounts, 2 triggers, nearest 62% of its threshold"
    assert len(shown) <= SCREEN
    assert max(map(len, shown)) <= 80


def test_the_answer_names_the_latched_stage_the_lock_and_what_is_left(world: World) -> None:
    """A venue that refuses the close: its position is left, and the rest of the page follows below."""
    venue = refusing(book("1100"), VenueDownError("no answer"))
    fired, ended = states_of(world, venue, then=(book("900"),))[1:]
    assert answer(fired).startswith("1 stage latched, trading LOCKED, 1 close in progress, 1 position left")
    assert answer(ended).startswith("runner NOT RUNNING, 1 stage latched, trading LOCKED")
    lines = text(status_page(ended, "s"), 120).splitlines()
    assert [line for line in lines if line in ("Problems", "Closes without a runner", "Accounts", "Stages")] == [
        "Problems", "Closes without a runner", "Accounts", "Stages",
    ]  # fmt: skip
    brief = text(status_page(ended, "s", is_brief=True)).splitlines()
    assert brief[0] == answer(ended)
    assert brief[1:3] == ["", "Problems"]
    assert "Accounts" not in brief


def test_a_close_of_which_nothing_is_known_has_no_number_of_positions(world: World) -> None:
    """It goes on, and no position of it is known: that is never 0 positions left."""
    fired = states_of(world, refusing(book("1100"), VenueDownError("no answer")), then=(book("900"),))[1]
    unread = tuple(replace(each, left=(), result=replace(each.result, positions=())) for each in fired.closings)
    assert "1 close in progress, positions left unknown" in answer(replace(fired, closings=unread))


def test_an_account_that_cannot_be_read_is_never_quiet(world: World) -> None:
    """Its triggers are unknown."""
    down = states_of(world, *two_venues(), then=(VenueDownError("maintenance"),))[1]
    assert "1 account unreadable" in answer(down)
    assert "1 trigger unknown" in answer(down)


def test_a_scope_shows_its_own_accounts_and_wider_scopes_and_every_problem(world: World) -> None:
    """The other account is down: that is a problem of everybody, and no trouble of the triggers here."""
    down = states_of(world, *two_venues(), then=(VenueDownError("maintenance"),))[1]
    assert down.view is not None
    shown = of_scope(down, "account/other")
    assert shown.view is not None
    assert [each.account for each in shown.view.accounts] == ["other"]
    assert {each.scope for each in shown.view.machines} == {"account/other"}
    assert shown.view.problems == down.view.problems
    assert of_scope(down, "portfolio").view == down.view


def invoke(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(
        status, ["--store", str(world.folder / "store.sqlite"), *arguments], standalone_mode=False
    )


def test_trouble_has_an_exit_code_of_its_own_only_where_it_is_wanted(world: World) -> None:
    """No runner is alive: `status` exits with 0 as ever, with --detailed-exitcode it exits with 4."""
    states_of(world, *two_venues())
    assert invoke(world).return_value == 0
    result = invoke(world, "--detailed-exitcode", "--brief", "--scope", "account/main")
    assert result.return_value == 4
    assert result.stdout.startswith("runner NOT RUNNING")
    found = json.loads(invoke(world, "--scope", "account/main", "--output", "json").stdout)
    assert [each["account"] for each in found["view"]["accounts"]] == ["main"]


def test_an_unknown_scope_and_a_probe_of_a_scope_are_refused(world: World) -> None:
    """With the scopes that there are; a probe is of the whole runner."""
    states_of(world, *two_venues())
    assert "did you mean account/main?" in str(invoke(world, "--scope", "account/mian").exception)
    assert "do not combine" in str(invoke(world, "--probe", "live", "--brief").exception)
