"""`ksctl restate`: an operator determines what an unexplained change of equity was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from killswitch.cli.live.status import history, status
from killswitch.cli.operate.verbs import restate
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import read_incidents
from killswitch.model.words import ChangeCause
from killswitch.operations.commands import answer_to, operator_event
from killswitch.operations.status import store_status
from killswitch.store.sql import SqlStore
from tests.runner_world import ScriptedVenue, World, book
from tests.unit.operations.test_live_verbs import invoke, store_option
from tests.unit.operations.test_operator_commands import Deployment


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


class Answered(Struct):
    """What a runner made of the command: its notices, and the stage that is latched afterwards."""

    change: str
    texts: tuple[str, ...]
    stage: str | None


async def restated(world: World, store: SqlStore, restated_as: ChangeCause) -> Answered:
    """200 of 1,100 leave without a row in the third tick; the fifth processes the command."""
    venue = ScriptedVenue(None)
    runner = world.runner(store, [venue])
    await runner.start()

    async def tick(equity: str) -> None:
        known = world.clock.now() - timedelta(seconds=1)
        venue.answer = replace(
            book("1100"), equity=Decimal(equity), unrealized=Decimal(0), fills_as_of=known, flows_as_of=known
        )
        await runner.tick()
        await world.clock.sleep(1.0)

    for equity in ("1100", "1100", "900", "900"):
        await tick(equity)
    view = store_status(store, world.clock.now(), 0).view
    assert view is not None
    assert view.changes
    (change,) = view.changes
    event = operator_event(
        "restate", None, "mia", "seen at the bank", world.clock.now(), change=change.id, restated_as=restated_as
    )
    store.put_event(event)
    await tick("900")
    assert not store.pending_events()
    await runner.close_within(5.0)
    await runner.shut_down()
    found = store_status(store, world.clock.now(), 0).view
    assert found is not None
    return Answered(change.id, tuple(each.text for each in answer_to(store, event).notices), found.machines[0].stage)


def test_a_loss_fires_and_is_in_incident_status_and_history(world: World) -> None:
    """200 of 1,100 are 18% of a policy that closes at 10%."""
    store = world.open()
    answered = asyncio.run(restated(world, store, "loss"))
    assert answered.stage == "close-everything"
    (text,) = answered.texts
    assert f"({answered.change}), which counted as transfer, counts as loss; restated as loss by mia" in text
    (incident,) = read_incidents(store)
    moments = incident_of(store, incident, StartedAs("s")).timeline
    assert [each.text for each in moments if "restated as loss by mia (seen at the bank)" in each.text]
    store.close()
    shown = invoke(status, *store_option(world)).stdout
    (line,) = [each for each in shown.splitlines() if each.strip().startswith(answered.change)]
    assert "-200.00 USDT  loss, determined by an operator  crash on account/main" in line
    past = invoke(history, *store_option(world)).stdout
    assert past.count(answered.change) == 2, "the page, and the restatement"
    assert "restated as loss by mia (seen at the bank)" in past


def test_a_flow_fires_nothing(world: World) -> None:
    """The answer says what it counts as, and no stage is latched."""
    store = world.open()
    answered = asyncio.run(restated(world, store, "flow"))
    assert answered.stage is None
    (text,) = answered.texts
    assert "counts as money that moved: latches and locks stay; restated as flow by mia (seen at the bank)" in text


def test_an_unknown_change_is_refused_by_a_tick_of_the_command_itself(tmp_path: Path) -> None:
    """No runner is alive: the command ticks, is refused with the way out, and exits with 1."""
    deployment = Deployment(tmp_path)
    deployment.run()
    refused = deployment.invoke(restate, "change-none", "--as", "loss", "--reason", "r", "--live")
    assert refused.exit_code == 1
    assert refused.stdout == (
        "change-none was not restated: no scope keeps a change of this id: `ksctl status` lists those of the last 48 "
        "hours\n"
    )
    assert deployment.pending() == 0


def test_a_restatement_without_a_runner_needs_live_if_a_document_is_live(tmp_path: Path) -> None:
    """A stage that fired on the loss would be latched without any action."""
    deployment = Deployment(tmp_path)
    deployment.run()
    refused = deployment.invoke(restate, "change-none", "--as", "loss", "--reason", "r")
    assert refused.exit_code == 2
    assert "Add --live" in refused.stderr
    assert deployment.pending() == 0
