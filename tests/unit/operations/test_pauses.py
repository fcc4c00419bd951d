"""`ksctl pause` and `resume`: how they reach a runner, what they refuse, and where a paused policy is shown."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from killswitch.cli.live.status import history
from killswitch.cli.operate.flags import pause, resume
from killswitch.incident.record.results import newest_results
from killswitch.model.snapshot import Event
from killswitch.operations.commands import answer_to, operator_event
from killswitch.operations.preview import from_store, preview
from killswitch.operations.status import encode_status, store_status
from killswitch.operations.status_answer import answer
from killswitch.telemetry.metrics import GaugeValues, paused_policies
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, World, book, crash_policy
from tests.shown import plan_text, status_text
from tests.unit.operations.test_live_verbs import invoke, store_option
from tests.unit.operations.test_operator_commands import Deployment
from tests.worlds import snapshot


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


class Desk:
    """A run of the policy `crash`, which closes at a fall of 10%, and the commands of an operator."""

    def __init__(self, world: World, *, armed: bool = True) -> None:
        self.world, self.store, self.seen = world, world.open(), Seen()
        self.venue = ScriptedVenue(book("1100"))
        self.runner = world.runner(self.store, [self.venue], armed=armed, witnesses=(self.seen,))

    def command(self, kind: str, seconds: float | None = None) -> Event:
        now = self.world.clock.now()
        until = None if seconds is None else now + timedelta(seconds=seconds)
        event = operator_event(kind, "policy/crash", "desk", "bad index", now, until=until)  # type: ignore[arg-type] # literal
        self.store.put_event(event)
        return event

    async def tick(self, equity: str | None = None) -> None:
        if equity is not None:
            self.venue.answer = book(equity)
        await self.runner.tick()
        await self.world.clock.sleep(1.0)

    def run_paused(self) -> None:
        """A run of one tick, with the policy paused for an hour."""

        async def course() -> None:
            await self.runner.start()
            self.command("pause", 3600)
            await self.tick("1100")
            await self.runner.finish()

        asyncio.run(course())

    @property
    def decisions(self) -> list[str | None]:
        return [decision.stage for report in self.seen.reports for decision in report.decisions]


def test_r1_an_open_close_goes_on_through_a_pause(world: World) -> None:
    """R1: the pause is processed by the tick after the firing; the close still ends flat, and the stage latched."""
    desk = Desk(world)

    async def course() -> None:
        await desk.runner.start()
        await desk.tick("1100")
        desk.venue.fail("submit", TimeoutError("no answer"), times=1)
        await desk.tick("900")
        desk.command("pause", 3600)
        for _ in range(5):
            await desk.tick()
        assert await desk.runner.close_within(60.0)
        await desk.runner.finish()

    asyncio.run(course())
    ((decision, result),) = newest_results(desk.store, 5)
    assert (decision.stage, result.standing) == ("close-everything", "flat")
    assert len(desk.venue.sent) == 1
    (machine,) = desk.seen.reports[-1].machines()
    assert (machine.level, machine.paused is not None) == (3, True)


def test_a_paused_policy_sends_nothing_and_fires_once_it_is_resumed(world: World) -> None:
    """The account falls by 18% during the pause: no order, no lock; the tick that resumes it closes."""
    desk = Desk(world)

    async def course() -> None:
        await desk.runner.start()
        paused = desk.command("pause", 3600)
        await desk.tick("1100")
        await desk.tick("900")
        assert (desk.decisions, desk.venue.sent) == ([], [])
        assert [notice.kind for notice in answer_to(desk.store, paused).notices] == ["warning"]
        desk.command("resume")
        await desk.tick()
        assert await desk.runner.close_within(60.0)
        await desk.runner.finish()

    asyncio.run(course())
    assert desk.decisions == ["close-everything"]
    assert len(desk.venue.sent) == 1


def test_a_pause_outlives_the_runner(world: World) -> None:
    """The next run on the store fires nothing either, until the end of the pause."""
    first = Desk(world)

    async def run(desk: Desk, *equities: str) -> None:
        await desk.runner.start()
        for equity in equities:
            await desk.tick(equity)
        await desk.runner.finish()

    first.command("pause", 5)
    asyncio.run(run(first, "1100", "1100"))
    second = Desk(world)
    asyncio.run(run(second, "900", "900", "900", "900"))
    assert second.decisions == ["close-everything"]
    assert [bool(report.decisions) for report in second.seen.reports] == [False, False, False, True]


def test_status_plan_history_metrics_and_alerts_show_a_pause(world: World) -> None:
    """Everywhere: the first line of status, its section, the stage, JSON, the history, a gauge and an active alert."""
    desk = Desk(world, armed=False)
    desk.run_paused()
    found = store_status(desk.store, world.clock.now(), 5)
    assert "1 policy PAUSED" in answer(found)
    shown = status_text(found, "ks.sqlite")
    assert "Paused policies (`ksctl resume policy/NAME --reason ''` ends a pause)" in shown
    assert "crash on account/main: PAUSED until " in shown
    assert "by desk: bad index; it fires nothing new, and what it has begun goes on" in shown
    record = json.loads(encode_status(found))
    assert [(each["scope"], each["author"], each["reason"]) for each in record["pauses"]] == [
        ("policy/crash", "desk", "bad index")
    ]
    assert record["flags"] == []
    assert record["view"]["machines"][0]["paused"]["scope"] == "policy/crash"
    assert [each["key"].partition("/")[0] for each in record["active_alerts"]] == ["paused"]
    past = invoke(history, *store_option(world)).output
    assert "Pauses of policies" in past
    assert "crash is paused until " in past
    values = GaugeValues(machines=desk.seen.reports[-1].machines())
    assert list(paused_policies(values)) == [(1, {"killswitch.policy": "crash", "killswitch.scope": "account/main"})]


def test_the_status_of_a_pause_ends_with_it(world: World) -> None:
    """No line, no zero left over but the gauge."""
    desk = Desk(world, armed=False)

    async def course() -> None:
        await desk.runner.start()
        desk.command("pause", 1)
        for _ in range(4):
            await desk.tick("1100")
        await desk.runner.finish()

    asyncio.run(course())
    found = store_status(desk.store, world.clock.now(), 5)
    assert found.pauses == ()
    assert "PAUSED" not in status_text(found, "ks.sqlite")
    values = GaugeValues(machines=desk.seen.reports[-1].machines())
    assert [value for value, _ in paused_policies(values)] == [0]


def test_pause_without_a_runner_ticks_once(deployment: Deployment) -> None:
    """It says so, as every command does, and needs --live where a document says execution: live."""
    deployment.run()
    site = ("--policies", str(deployment.folder / "p"))
    arguments = ("policy/watch", "--reason", "test", "--for", "2h", *site)
    refused = deployment.invoke(pause, *arguments)
    assert (refused.exit_code, "Add --live" in refused.stderr) == (2, True)
    done = deployment.invoke(pause, *arguments, "--live")
    assert done.exit_code == 0, done.stderr
    assert "watch is paused until " in done.stdout
    resumed = deployment.invoke(resume, "policy/watch", "--reason", "over", "--live", *site)
    assert (resumed.exit_code, "watch is resumed by" in resumed.stdout) == (0, True)
    again = deployment.invoke(resume, "policy/watch", "--reason", "over", "--live", *site)
    assert (again.exit_code, "watch is not resumed: it is not paused" in again.stdout) == (1, True)


def test_a_misspelled_policy_is_refused_with_a_suggestion(deployment: Deployment) -> None:
    """Nothing is changed, and no tick runs."""
    deployment.run()
    before = deployment.store.read_bytes()
    refused = deployment.invoke(pause, "policy/wacth", "--reason", "r", "--for", "1h", "--live")
    assert refused.exit_code == 1
    assert "no policy is called wacth, did you mean watch?" in refused.stderr
    assert deployment.store.read_bytes() == before


@pytest.mark.parametrize(("scope", "says"), [("watch", "write policy/watch"), ("policy/", "name the policy")])
def test_a_name_without_its_kind_is_refused(deployment: Deployment, scope: str, says: str) -> None:
    """It may be a policy or an account."""
    refused = deployment.invoke(pause, scope, "--reason", "r", "--for", "1h")
    assert refused.exit_code == 2
    assert says in refused.stderr


@pytest.mark.parametrize("more", [(), ("--for", "1h", "--side", "long"), ("--until", "08:00 Europe/Berlin")])
def test_a_pause_of_a_policy_has_a_length_and_no_part(deployment: Deployment, more: tuple[str, ...]) -> None:
    """A policy has no side, and what lasts longer is an edit of it."""
    refused = deployment.invoke(pause, "policy/watch", "--reason", "r", *more)
    assert refused.exit_code == 2
    assert "a pause of a policy takes --for" in refused.stderr


def test_a_pause_without_an_end_is_wrong_usage(deployment: Deployment) -> None:
    refused = deployment.invoke(pause, "policy/watch", "--reason", "r")
    assert refused.exit_code == 2
    assert "--for" in refused.stderr


def test_a_plan_on_the_store_of_a_paused_policy_decides_nothing_and_says_so(world: World) -> None:
    """A fall of 18%: without the pause it would close."""
    desk = Desk(world, armed=False)
    desk.run_paused()
    policies = graphs.policy_set(crash_policy())
    interpreter, memory = from_store(policies, desk.store)
    shown = preview(policies, snapshot(world.clock.now(), book("900")), interpreter, memory, frozenset())
    assert shown.decisions == ()
    assert "PAUSED until 2024-01-01T01:00:00Z by desk: bad index; it fires nothing new" in plan_text(shown)
