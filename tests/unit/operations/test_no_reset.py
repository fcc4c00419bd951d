"""A reset or an unlock before the declared time changes no lock file, and the command fails with the reason."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from killswitch.gate.lock_reader import read_lock
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import read_incidents
from killswitch.model.instant import HOUR
from killswitch.operations.commands import CommandAnswer, answer_to, operator_event
from killswitch.operations.pages.outcome import CommandOutcome, outcome_page
from killswitch.store.sql import SqlStore
from tests.graphs import policy_set
from tests.runner_world import ScriptedVenue, World, book, crash_policy

CRASH = crash_policy()
HOLDING = replace(CRASH, stages=(replace(CRASH.stages[0], no_reset_for=4 * HOUR),))


class Desk:
    """An account that has crashed, and the commands of an operator, each in a run of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store: SqlStore = world.open()
        self.venue = ScriptedVenue(book("1000"))
        self.tick()
        self.venue.answer = book("850")
        self.tick()

    def tick(self, command: str | None = None) -> CommandAnswer | None:
        """A run of two ticks, the first of which processes the command."""

        async def run() -> CommandAnswer | None:
            runner = self.world.runner(self.store, [self.venue], policies=policy_set(HOLDING))
            await runner.start()
            event = None
            if command is not None:
                now = self.world.clock.now()
                event = operator_event(command, "account/main", "risk-desk", "seen", now)  # type: ignore[arg-type] # a kind
                self.store.put_event(event)
            for _ in range(2):
                await self.world.clock.sleep(1.0)
                await runner.tick()
                assert await runner.close_within(60.0)
            await runner.finish()
            return None if event is None else answer_to(self.store, event)

        return asyncio.run(run())

    def waits(self, hours: float) -> None:
        asyncio.run(self.world.clock.sleep(hours * 3600))

    def is_locked(self) -> bool:
        return read_lock(self.world.folder / "locks" / "account__main.json", self.world.clock.now()).locked


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


@pytest.mark.parametrize("kind", ["reset", "unlock"])
def test_the_lock_stays_in_its_file_and_the_command_fails(desk: Desk, kind: str) -> None:
    """The event alone would lift the file, whatever the policies decide."""
    answer = desk.tick(kind)
    assert answer is not None
    assert answer.decisions == ()
    (refusal,) = answer.notices
    outcome = CommandOutcome((), answer.notices, "")
    assert outcome.is_failed
    assert "allows none on account/main before" in str(outcome_page(outcome))
    assert refusal.severity == "page"
    assert desk.is_locked()
    assert desk.store.pending_events() == []


def test_after_four_hours_the_same_command_lifts_it(desk: Desk) -> None:
    """A refused command is not kept for later: it is given again."""
    desk.tick("reset")
    desk.waits(4.1)
    desk.tick()
    assert desk.is_locked()
    answer = desk.tick("reset")
    assert answer is not None
    assert [each.kind for each in answer.decisions] == ["reset"]
    assert not desk.is_locked()


def test_the_report_says_from_when_the_scope_may_be_reset(desk: Desk) -> None:
    """At the command that would do it, and in the record of the firing."""
    (found,) = read_incidents(desk.store)
    incident = incident_of(desk.store, found, StartedAs("ks.sqlite"))
    (firing,) = incident.firings
    assert firing.no_reset_before is not None
    assert (firing.no_reset_before - firing.at).total_seconds() == 4 * 3600
    (purpose,) = [each.purpose for each in incident.commands if each.words[1] == "reset"]
    assert purpose == (
        "Return the scope to normal and accept the loss, once the cause is known and the checklist of the report "
        "is done, and not before 2024-01-01T04:00:03Z: nobody can earlier; it is refused until the reason is filled in"
    )
