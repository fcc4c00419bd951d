"""A run takes another policy set between two ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount, Arming
from killswitch.accounts.next_set import NextSet, last_good
from killswitch.accounts.opening import LoadedPolicies
from killswitch.graph.nodes import AutoReset, Graph, ScopeRule, SignalRef
from killswitch.model.applied_set import Approval, PolicyFile, PolicyOrigin
from killswitch.model.instant import MINUTE
from killswitch.runner.hot_reload import HotReload, ProposedReload
from killswitch.runner.loop import Runner
from tests import graphs
from tests.runner_world import ScriptedVenue, Seen, World, book, crash_policy
from tests.worlds import after


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def proposed(*policies: Graph, digest: str = "next", text: bytes = b"text") -> NextSet:
    """A set of these policies, with one file and its commit."""
    compiled = replace(graphs.policy_set(*policies), digest=f"sha256:{digest}")
    origin = PolicyOrigin(source="desk", commit="c1")
    return NextSet(LoadedPolicies(compiled, (), ()), (PolicyFile("desk.yaml", text),), origin)


async def ticks(runner: Runner, world: World, count: int = 1) -> None:
    for _ in range(count):
        await runner.tick()
        await world.clock.sleep(1.0)


def prepared(runner: Runner, of: NextSet) -> ProposedReload:
    """The proposal, once the next tick can take it."""
    proposal = runner.propose(of)
    assert proposal.is_prepared.wait(30.0)
    return proposal


def run(world: World, scenario: Callable[[Runner], Coroutine[Any, Any, None]], venue: ScriptedVenue, *,
        policy: Graph | None = None, seen: Seen | None = None) -> None:  # fmt: skip
    async def running() -> None:
        store = world.open()
        witnesses = () if seen is None else (seen,)
        policies = None if policy is None else graphs.policy_set(policy)
        runner = world.runner(store, [venue], witnesses=witnesses, policies=policies)
        await runner.start()
        await scenario(runner)
        await runner.finish()
        await runner.shut_down()

    asyncio.run(running())


def loosened(policy: Graph, threshold: float = 0.2) -> Graph:
    """The policy with another threshold of its only trigger."""
    trigger = graphs.trigger("fall", 0, threshold)
    return replace(policy, triggers=(trigger,), conditions=(trigger.condition,))


def test_a_proposed_set_is_in_force_from_the_next_tick_on(world: World) -> None:
    """P2: the tick that takes it records the set, and evaluates by it; a decision carries the new digest."""
    venue, seen = ScriptedVenue(book("1100")), Seen()

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        tighter = loosened(crash_policy(), 0.05)
        proposal = prepared(runner, proposed(tighter))
        venue.answer = book("1030")  # 6.4% below the start: the set of the start does not fire, the next one does
        await ticks(runner, world)
        assert proposal.answer.result(0).status == "taken"
        assert runner.in_force.digest == "sha256:next"
        await ticks(runner, world)

    run(world, scenario, venue, seen=seen)
    fired = [each for report in seen.reports for each in report.decisions]
    assert [(each.stage, each.policy_set) for each in fired] == [("close-everything", "sha256:next")]
    change = world.open(read_only=True).set_changes(5)[0]
    assert (change.digest, change.origin.commit) == ("sha256:next", "c1")


def test_the_store_keeps_the_files_of_a_set_for_ever(world: World) -> None:
    """P4: the last good set is its content, and an earlier set is still there after the next one."""

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        for number, text in enumerate((b"one", b"two")):
            prepared(runner, proposed(loosened(crash_policy(), 0.3 + number / 10), digest=str(number), text=text))
            await ticks(runner, world)

    run(world, scenario, ScriptedVenue(book("1100")))
    store = world.open(read_only=True)
    kept = last_good(store)
    assert kept is not None
    assert (kept.digest, kept.files) == ("sha256:1", (PolicyFile("desk.yaml", b"two"),))
    assert store.policy_files("sha256:0") == (PolicyFile("desk.yaml", b"one"),)
    assert store.policy_files("sha256:absent") is None


def test_a_latch_stays_and_nothing_fires_a_second_time(world: World) -> None:
    """R1, R3: a renumbered stage that is latched neither fires again nor is reset by the reload."""
    venue, seen = ScriptedVenue(book("1100")), Seen()

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        venue.answer = book("980")
        await ticks(runner, world, 2)
        policy = crash_policy()
        renumbered = replace(policy, stages=(replace(policy.stages[0], level=7),))
        proposal = prepared(runner, proposed(renumbered))
        await ticks(runner, world, 3)
        assert proposal.answer.result(0).status == "taken"
        (status,) = runner.interpreter.status()
        assert (status.stage, status.level) == ("close-everything", 7)

    run(world, scenario, venue, seen=seen)
    assert len([each for report in seen.reports for each in report.decisions]) == 1
    assert len(venue.sent) == 1


def test_a_latch_under_manual_stays_manual(world: World) -> None:
    """R2: a stage that is latched under `reset: manual` is not reset by the condition that an edit gives it."""
    venue = ScriptedVenue(book("1100"))
    policy = crash_policy()
    auto = replace(policy.stages[0], reset=AutoReset(1, 0))
    always = graphs.trigger("always", 0, -1.0).condition
    above = replace(policy, stages=(auto,), conditions=(*policy.conditions, always))

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        venue.answer = book("980")
        await ticks(runner, world, 2)
        prepared(runner, proposed(above))
        await ticks(runner, world, 5)
        (status,) = runner.interpreter.status()
        assert status.stage == "close-everything"

    run(world, scenario, venue)


def test_an_undeclared_rename_is_refused_while_anything_is_in_force(world: World) -> None:
    """R6: the latch would be lost under another name; declared, it moves, and with it everything stored."""
    venue = ScriptedVenue(book("1100"))

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        venue.answer = book("980")
        await ticks(runner, world, 2)
        renamed = replace(crash_policy(), policy="plunge")
        refused = prepared(runner, proposed(renamed))
        await ticks(runner, world)
        answer = refused.answer.result(0)
        assert answer.status == "refused"
        assert "formerly: crash" in answer.reasons[0]
        declared = prepared(runner, proposed(replace(renamed, formerly="crash")))
        await ticks(runner, world, 2)
        assert declared.answer.result(0).status == "taken"
        (status,) = runner.interpreter.status()
        assert (status.policy, status.stage) == ("plunge", "close-everything")
        assert runner.interpreter.orphans() == ()

    run(world, scenario, venue)
    store = world.open(read_only=True)
    assert [(each.policy, each.scope) for each in store.states()] == [("plunge", "account/main")]
    assert store.rows("crash", "account/main", 0) == []
    assert len(store.rows("plunge", "account/main", 0)) > 3


def test_a_policy_that_is_gone_stays_in_force_as_an_orphan(world: World) -> None:
    """R7: the latch of a removed policy stays, is shown, and no reload lifts its lock."""
    venue = ScriptedVenue(book("1100"))

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        venue.answer = book("980")
        await ticks(runner, world, 3)
        other = replace(crash_policy(), policy="other")
        both = prepared(runner, proposed(crash_policy(), other, digest="both"))
        await ticks(runner, world)
        assert both.answer.result(0).status == "taken"
        prepared(runner, proposed(other, digest="one"))
        await ticks(runner, world)
        assert runner.in_force.digest == "sha256:one"
        (orphan,) = runner.interpreter.orphans()
        assert (orphan.policy, orphan.stage) == ("crash", "close-everything")

    run(world, scenario, venue)
    assert (world.folder / "locks" / "account__main.json").exists()


def test_the_lock_of_a_policy_that_is_gone_reaches_what_it_reached() -> None:
    """R1: a reload neither narrows it, nor extends it to accounts that the policy did not watch."""
    accounts = {
        name: ArmedAccount(name, "paper", "swap", "USDT", ScriptedVenue(book("1100", name), name), armed=True)
        for name in ("main", "hedge")
    }
    of_one = replace(crash_policy(), scope=ScopeRule("portfolio", ("main",), None, None, None))
    arming = Arming(accounts, graphs.policy_set(of_one))
    before = arming.locked_by("crash", "portfolio"), arming.narrower("crash", "portfolio")
    arming.reload(graphs.policy_set(replace(crash_policy(), policy="other")))
    assert (arming.locked_by("crash", "portfolio"), arming.narrower("crash", "portfolio")) == before
    assert before[0] == {"main"}


def drawdown(minutes: int, threshold: float) -> Graph:
    """The crash policy on the drawdown of a window."""
    trigger = graphs.trigger("fall", 0, threshold)
    signal = SignalRef("equity.drawdown", (minutes * MINUTE,))
    return replace(crash_policy(), signals=(signal,), triggers=(trigger,), conditions=(trigger.condition,))


def test_a_longer_window_sees_the_peak_before_the_reload(world: World) -> None:
    """R9: the history is continued from the store, with what happened between its preparation and the swap.

    1010 is 8.2% below the peak of 1100 before the reload, and 6.5% below that of 1080 after the preparation.
    """
    venue, seen = ScriptedVenue(book("1100")), Seen()

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world, 2)
        venue.answer = book("1060")
        await ticks(runner, world, 2)
        proposal = prepared(runner, proposed(drawdown(60, 0.08)))
        venue.answer = book("1080")
        await ticks(runner, world, 2)
        assert proposal.answer.result(0).status == "taken"
        venue.answer = book("1010")
        await ticks(runner, world, 2)

    run(world, scenario, venue, policy=drawdown(15, 0.5), seen=seen)
    fired = [each.stage for report in seen.reports for each in report.decisions]
    assert fired == ["close-everything"]


def test_what_a_start_refuses_a_reload_refuses(world: World) -> None:
    """P5: the check of a start refuses it; the set in force runs on."""

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        before = runner.in_force.digest
        lacks = ("it lacks a capability",)
        refusing = HotReload(runner.interpreter, runner.store, runner.in_force, (lambda _: lacks,))
        proposal = refusing.propose(proposed(loosened(crash_policy())))
        assert proposal.is_prepared.wait(30.0)
        assert refusing.take(world.clock.now()) is None
        assert proposal.answer.result(0).reasons == lacks
        assert runner.in_force.digest == before

    run(world, scenario, ScriptedVenue(book("1100")))


APPROVED = Approval(id="a1", principal="ben@example.com", key="k", expires_at=after(seconds=5))


@pytest.mark.parametrize(("base", "waits", "status"), [
    ("", 0, "taken"), ("", 10, "refused"), ("sha256:another", 0, "refused"),
])  # fmt: skip
def test_a6_a_set_is_not_taken_once_its_approval_has_expired_or_its_base_has_moved(
    world: World, base: str, waits: int, status: str
) -> None:
    """A1, A6: whatever kept it waiting, a close or its preparation; without a base it may follow any set."""

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        following = proposed(loosened(crash_policy()))
        origin = replace(following.origin, approvals=(APPROVED,))
        proposal = prepared(runner, replace(following, origin=origin, base=base))
        await world.clock.sleep(waits)
        await ticks(runner, world)
        assert proposal.answer.result(0).status == status

    run(world, scenario, ScriptedVenue(book("1100")))


def test_a_newer_set_supersedes_one_that_was_not_taken_yet(world: World) -> None:
    """P6: the newest only."""

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        first = prepared(runner, proposed(loosened(crash_policy(), 0.3), digest="one"))
        second = prepared(runner, proposed(loosened(crash_policy(), 0.4), digest="two"))
        await ticks(runner, world)
        assert (first.answer.result(0).status, second.answer.result(0).status) == ("superseded", "taken")
        assert [each.digest for each in runner.store.set_changes(9)] == ["sha256:two"]

    run(world, scenario, ScriptedVenue(book("1100")))


def test_a_preparation_rests_between_policies_and_a_tick_ends_its_rest(world: World) -> None:
    """Else it would share the interpreter with the ticks, and double each one while it lasts."""

    async def scenario(runner: Runner) -> None:
        await ticks(runner, world)
        many = graphs.policy_set(*(replace(loosened(crash_policy()), policy=f"p{n}") for n in range(50)))
        rests: list[bool] = []
        ready = runner.interpreter.prepare(many, runner.store.states(), runner.store.rows, lambda: rests.append(True))
        assert len(ready.compiled) == 50
        assert len(rests) >= 50
        with runner.reloads.ticking():
            proposal = runner.propose(proposed(loosened(crash_policy())))
        assert proposal.is_prepared.wait(30.0)

    run(world, scenario, ScriptedVenue(book("1100")))
