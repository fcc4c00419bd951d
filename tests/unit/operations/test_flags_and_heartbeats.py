"""`ksctl flag` and `ksctl deadman heartbeat`: how they reach a runner, what outlives it, and what is shown of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from killswitch.cli.live.status import history, status
from killswitch.cli.operate.deadman import heartbeat
from killswitch.cli.operate.flags import clear_flag, set_flag
from killswitch.graph.nodes import PolicySet
from killswitch.model.decision import Notice
from killswitch.model.snapshot import Event
from killswitch.operations.commands import CommandAnswer, answer_to, operator_event
from killswitch.operations.status import store_status
from killswitch.planning.interpreter import Interpreter
from tests.backtests import written
from tests.runner_world import ScriptedVenue, Seen, World, book
from tests.unit.operations.test_live_verbs import invoke, store_option
from tests.unit.operations.test_operator_commands import Deployment
from tests.worlds import START, after, snapshot
from tests.worlds.firings import POLICY, policy_of

HALTING = policy_of("signal: flag.set, name: halt, is: true")
OTHERWISE = policy_of("signal: flag.set, name: other, is: true")


class Desk:
    """A store, and runners that process commands, each at a tick of its own."""

    def __init__(self, world: World) -> None:
        self.world, self.store, self.seen = world, world.open(), Seen()

    def flag(self, name: str, is_set: bool, scope: str | None = None, seconds: float | None = None) -> Event:
        now = self.world.clock.now()
        until = None if seconds is None else now + timedelta(seconds=seconds)
        return operator_event("flag", scope, "desk", "test", now, flag=name, is_set=is_set, until=until)

    def run(self, *commands: Sequence[tuple[str, bool]], policies: PolicySet = HALTING) -> list[CommandAnswer]:
        """A run with a tick for each list of (flag, is set), a second apart; the answers."""

        async def run() -> list[CommandAnswer]:
            runner = self.world.runner(
                self.store, [ScriptedVenue(book("1100"))], armed=False, policies=policies, witnesses=(self.seen,)
            )
            await runner.start()
            stored = []
            for each in commands:
                for name, is_set in each:
                    stored.append(self.flag(name, is_set))
                    self.store.put_event(stored[-1])
                await runner.tick()
                await self.world.clock.sleep(1.0)
            answers = [answer_to(self.store, each) for each in stored]
            await runner.finish()
            return answers

        return asyncio.run(run())

    @property
    def fired(self) -> list[bool]:
        """Whether each tick so far has fired a stage."""
        return [bool(report.decisions) for report in self.seen.reports]

    def in_force(self) -> list[str]:
        return [flag.name for flag in store_status(self.store, self.world.clock.now(), 0).flags]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def only(answer: CommandAnswer) -> Notice:
    (notice,) = answer.notices
    return notice


# Flags


def test_a_flag_fires_in_the_tick_that_processes_its_command(desk: Desk) -> None:
    """Its answer names the policies that read it: a name that none reads has no effect."""
    set_, misspelt = desk.run([], [("halt", True), ("hlat", True)])
    assert desk.fired == [False, True]
    assert only(set_).text.endswith("is set until it is cleared by desk (test); read by scenario")
    assert only(misspelt).text.endswith("no policy reads it, so it has no effect")
    assert (only(set_).severity, only(set_).kind) == ("info", "warning")


def test_a_second_look_at_prices_sees_the_flag_too() -> None:
    """A stage that corroborates prices evaluates its triggers again, on a snapshot that repeats no command."""
    text = POLICY.format(
        trigger="signal: flag.set, name: halt, is: true", scope="{each: account, match: {}}", max_gap="10m",
        on_unknown="hold", grace="1s", spec="", close="{side: both, fraction: 100%}",
    )  # fmt: skip
    policies = written(text.replace("reset: manual", "reset: manual\n      corroborate: true"))
    command = operator_event("flag", None, "desk", "test", START, flag="halt", is_set=True)
    first = snapshot(START, book("1100"), events=[command])
    interpreter = Interpreter(policies)
    pending = interpreter.evaluate(first)
    assert pending is not None
    assert pending.reread == ("main",)
    outcome = interpreter.decide(pending, snapshot(after(seconds=0.1), book("1100"), scheduled=False))
    assert [decision.stage for decision in outcome.decisions] == ["close-everything"]


def test_flags_outlive_the_runner_and_its_policies(desk: Desk) -> None:
    """A policy that is added later reads what was set before; clearing it is stored, too."""
    desk.run([("halt", True)], policies=OTHERWISE)
    assert desk.in_force() == ["halt"]
    desk.run([])
    assert desk.fired == [False, True]
    desk.run([("halt", False)])
    assert desk.in_force() == []


def test_clearing_what_is_not_set_is_refused_with_what_is(desk: Desk) -> None:
    """A typing error must not look like success."""
    _, cleared = desk.run([("halt", True)], [("hlat", False)])
    assert only(cleared).kind == "nothing_selected"
    assert only(cleared).text == "the flag hlat was not cleared: it is not set. Set now: halt"


def test_the_end_of_a_flag_is_a_notice(desk: Desk) -> None:
    """A flag of one second is over at the next tick but one, and one that was to end before its tick is not set."""
    desk.store.put_event(desk.flag("halt", True, seconds=1))
    desk.store.put_event(desk.flag("late", True, seconds=-1))
    desk.run([], [], [])
    texts = [notice.text for report in desk.seen.reports for notice in report.notices if "flag" in notice.text]
    assert [text.partition(":")[0].partition(" is ")[0] for text in texts] == [
        "the flag halt for portfolio", "the flag late was not set", "the flag halt for portfolio",
    ]  # fmt: skip
    assert texts[2].startswith("the flag halt for portfolio is over")
    assert desk.in_force() == []


def test_status_and_history_list_flags(desk: Desk) -> None:
    """With scope, end, author and reason; the history has when each was set and cleared."""
    desk.run([("halt", True)], [("halt", False)], [("other", True)])
    shown = invoke(status, *store_option(desk.world)).output
    assert "Flags" in shown
    assert "other" in shown
    past = invoke(history, *store_option(desk.world)).output
    assert past.count("the flag halt") == 2
    assert past.count("the flag other") == 1


def test_flag_verbs_without_a_runner_tick_once(deployment: Deployment) -> None:
    """They say so, as every command does, and need --live where a document says execution: live."""
    deployment.run()
    site = ("--policies", str(deployment.folder / "p"))
    refused = deployment.invoke(set_flag, "halt", "--reason", "test", *site)
    assert refused.exit_code == 2
    assert "Add --live" in refused.stderr
    done = deployment.invoke(set_flag, "halt", "--reason", "test", "--for", "2h", "--live", *site)
    assert done.exit_code == 0, done.stderr
    assert "no runner is alive here: running one tick" in done.stderr
    assert "the flag halt for portfolio is set until " in done.stdout
    cleared = deployment.invoke(clear_flag, "halt", "--reason", "over", "--live", *site)
    assert (cleared.exit_code, "the flag halt for portfolio is cleared by" in cleared.stdout) == (0, True)


@pytest.mark.parametrize("name", ["two words", " ", ""])
def test_a_flag_has_a_name_that_a_policy_can_write(deployment: Deployment, name: str) -> None:
    """No spaces: a usage error before anything is opened."""
    refused = deployment.invoke(set_flag, name, "--reason", "test")
    assert refused.exit_code == 2


# Heartbeats


def test_a_heartbeat_is_stored_without_a_runner_with_a_message(world: World) -> None:
    """Nobody watches it, and a misspelled path creates no store."""
    missing = invoke(heartbeat, "bot", *store_option(world))
    assert (missing.exit_code, "there is no store at" in missing.stderr) == (1, True)
    world.open()
    done = invoke(heartbeat, "bot", "--progress", "7", *store_option(world))
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no runner is alive on this store: the heartbeat is stored" in done.stderr
    again = invoke(heartbeat, "bot", "--progress", "7", "--output", "json", *store_option(world))
    assert "the progress of bot is still 7: its age counts from" in again.stderr
    record = json.loads(again.stdout)
    assert record["counts_from"] < record["at"]
    assert "bot" in invoke(status, *store_option(world)).output
