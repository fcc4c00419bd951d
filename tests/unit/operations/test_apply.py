"""`ksctl apply` and the runner: one tick applies a saved plan once, or refuses it and lists what has changed."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.cli.live.plan import plan as plan_verb
from killswitch.cli.live.run import run
from killswitch.cli.live.status import history
from killswitch.cli.operate.verbs import apply, close
from killswitch.cli.policy.verbs import schema
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.venue import VenueDownError
from killswitch.operations.commands import SpentPlanError, answer_to, apply_event, operator_event, refused_apply_event
from killswitch.operations.pages.history import is_of_refusal
from killswitch.operations.preview import closes_under_way, from_store, of_policies, plan_of, preview
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.operator.plan_file import SavedPlan, decode_plan, encode_plan
from killswitch.render.formats import instant
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy, observing, refusing
from tests.unit.operations.test_live_verbs import ACCOUNT, WATCH
from tests.worlds import START

POLICIES = graphs.policy_set(crash_policy())


def saved_plan(world: World, account: AccountSnapshot, *, manual: bool = True) -> SavedPlan:
    """The saved plan of a manual close of `account` at market, or of what the policies would decide."""
    command = operator_event("close", "account/main", "operator-1", "seen", world.clock.now(), cause="exchange-breach")
    events = (command,) if manual else ()
    interpreter = Interpreter(POLICIES)
    interpreter.tick(Snapshot(world.clock.now(), (book("1000"),), "killswitch.snapshot/v1"))
    snapshot = Snapshot(world.clock.now(), (account,), "killswitch.snapshot/v1", events=events)
    previewed = preview(POLICIES, snapshot, interpreter, "", frozenset())
    decisions = (
        tuple(each for each in previewed.decisions if each.kind == "manual") if manual else of_policies(previewed)
    )
    plan = plan_of(previewed, decisions)
    assert plan is not None
    return plan


async def run_ticks(world: World, store: SqlStore, venue: ScriptedVenue, count: int = 1) -> None:
    runner = world.runner(store, [venue])
    await runner.start()
    for _ in range(count):
        await runner.tick()
        assert await runner.close_within(60.0)
        await world.clock.sleep(1.0)
    await runner.finish()


def test_a_runner_applies_a_plan_once(world: World) -> None:
    """The order is sent, the answer is the plan's decision, and the store then refuses the plan."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    plan = saved_plan(world, book("1000"))
    event = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(event)
    asyncio.run(run_ticks(world, store, venue))
    (decision,) = answer_to(store, event).decisions
    assert decision.intents == plan.decisions[0].intents
    assert [(each.side, each.amount) for each in venue.sent] == [("sell", Decimal(10))]
    with pytest.raises(SpentPlanError, match=f"as decision {decision.id}"):
        apply_event(store, plan, "operator-2", world.clock.now())


def test_two_people_who_apply_one_plan_at_once_are_both_on_record_one_as_refused(world: World) -> None:
    """Neither sees the command of the other: one tick carries out the first, and records the second with its author."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    plan = saved_plan(world, book("1000"))
    one = apply_event(store, plan, "operator-1", world.clock.now())
    other = apply_event(store, plan, "operator-2", world.clock.now())
    store.put_event(one)
    store.put_event(other)
    asyncio.run(run_ticks(world, store, venue, 2))
    assert len(venue.sent) == len(store.decisions(10)) == 1
    (decision,) = answer_to(store, one).decisions
    assert decision.author == "operator-1"
    refused = answer_to(store, other)
    assert refused.decisions == ()
    assert [each.text for each in refused.notices] == [
        f"the saved plan was not applied: it has been already, at {instant(decision.as_of)} by operator-1, "
        f"as {decision.id}; the attempt was by operator-2"
    ]
    assert [each.text for each in store.notices(10) if is_of_refusal(each)] == [refused.notices[0].text]


def test_an_attempt_that_the_command_itself_refuses_is_put_on_record_by_the_next_tick(world: World) -> None:
    """Its event holds no plan, so that no version of the program can apply it."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    plan = saved_plan(world, book("1000"))
    first = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(first)
    with pytest.raises(SpentPlanError, match=f"is queued already by operator-1, as {first.id}") as refused:
        apply_event(store, plan, "operator-2", world.clock.now())
    store.put_event(refused_apply_event(plan, "operator-2", world.clock.now(), str(refused.value)))
    asyncio.run(run_ticks(world, store, venue, 2))
    assert len(venue.sent) == len(store.decisions(10)) == 1
    (notice,) = [each for each in store.notices(10) if is_of_refusal(each)]
    assert notice.text.endswith("is queued already by operator-1, as "
                                f"{first.id}: see `ksctl status`; the attempt was by operator-2")  # fmt: skip


def test_ksctl_apply_of_a_plan_that_was_applied_is_refused_and_both_attempts_are_in_history(
    deployment: Deployment,
) -> None:
    """The first attempt is the decision; the second is refused at once, and listed after the next tick."""
    with closing(open_store(str(deployment.folder / "s"))) as store:
        plan = decode_plan(deployment.plan.read_bytes())
        store.put_event(apply_event(store, plan, "operator-1", plan.as_of))
    refused = deployment.invoke(apply, str(deployment.plan), "--live", "--author", "operator-2")
    assert refused.exit_code == 1
    assert "is queued already by operator-1" in str(refused.exception) + refused.stderr
    assert "the next tick puts this attempt on record" in refused.stderr
    deployment.invoke(run, "--policies", str(deployment.folder / "p"), "--ticks", "1")
    listed = deployment.invoke(history).stdout
    assert "Refused commands" in listed
    assert "the attempt was by operator-2" in listed


def test_a_refused_plan_can_be_applied_again_when_the_account_is_unchanged(world: World) -> None:
    """A refusal does not use up the plan: the next attempt is another event."""
    store = world.open()
    plan = saved_plan(world, book("1000"))
    changed = replace(book("1000"), positions=())
    first = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(first)
    asyncio.run(run_ticks(world, store, ScriptedVenue(changed)))
    (refused,) = answer_to(store, first).notices
    assert "BTC long on main has vanished: it was 10 contracts" in refused.text
    again = apply_event(store, plan, "operator-1", world.clock.now())
    assert again.id != first.id
    store.put_event(again)
    asyncio.run(run_ticks(world, store, ScriptedVenue(book("1000"))))
    assert len(answer_to(store, again).decisions) == 1


def test_a_plan_of_a_stage_locks_and_closes_without_latching(world: World) -> None:
    """The decision has the stage's orders and lock; the stage is not latched."""
    store, venue = world.open(), ScriptedVenue(book("850"))
    plan = saved_plan(world, book("850"), manual=False)
    (planned_decision,) = plan.decisions
    assert (planned_decision.stage, planned_decision.lock is not None) == ("close-everything", True)
    event = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(event)
    asyncio.run(run_ticks(world, store, venue))
    (decision,) = answer_to(store, event).decisions
    assert (decision.kind, decision.stage, decision.lock) == ("manual", None, planned_decision.lock)
    assert json.loads((world.folder / "locks" / "account__main.json").read_text())["locked"] is True
    assert [each.amount for each in venue.sent] == [Decimal(10)]


def test_a_plan_respects_closes_in_progress(world: World) -> None:
    """A stage whose target is already being closed has no orders in a preview, as in a tick."""
    store, venue = world.open(), refusing(book("1000"), VenueDownError("no route"))
    plan = saved_plan(world, book("1000"))
    store.put_event(apply_event(store, plan, "operator-1", world.clock.now()))

    async def run_one_tick_and_stop() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        await runner.shut_down()

    asyncio.run(run_one_tick_and_stop())
    interpreter, _ = from_store(POLICIES, store)
    snapshot = Snapshot(world.clock.now(), (book("850"),), "killswitch.snapshot/v1", closings=closes_under_way(store))
    assert len(snapshot.closings) == 1
    (fired,) = of_policies(preview(POLICIES, snapshot, interpreter, "", frozenset()))
    assert (fired.stage, fired.intents) == ("close-everything", ())


def test_a_plan_leaves_out_observed_stages_and_pending_commands(world: World) -> None:
    """A plan holds what `apply` would perform, and nothing else."""
    policies = graphs.policy_set(observing(crash_policy()))
    interpreter = Interpreter(policies)
    interpreter.tick(Snapshot(world.clock.now(), (book("1000"),), "killswitch.snapshot/v1"))
    pending = operator_event("close", None, "operator-1", "seen", START)
    snapshot = Snapshot(world.clock.now(), (book("850"),), "killswitch.snapshot/v1", events=(pending,))
    previewed = preview(policies, snapshot, interpreter, "", frozenset())
    assert {each.kind for each in previewed.decisions} == {None, "manual"}
    assert plan_of(previewed, of_policies(previewed)) is None


class Deployment:
    """A store after one tick, the policies of an armed account that is down, and a saved plan."""

    def __init__(self, world: World) -> None:
        self.folder = world.folder
        (self.folder / "p").mkdir()
        (self.folder / "p" / "watch.yaml").write_text(WATCH, encoding="utf-8")
        account = ACCOUNT % ", endpoint: 'http://127.0.0.1:9'"
        (self.folder / "p" / "account.yaml").write_text(account, encoding="utf-8")
        self.plan = self.folder / "plan.json"
        self.plan.write_bytes(encode_plan(saved_plan(World(self.folder, datetime.now(UTC)), book("1000"))))
        assert self.invoke(run, "--policies", str(self.folder / "p"), "--ticks", "1").exit_code == 0

    def invoke(self, command: object, *arguments: str) -> Result:
        arguments = (*arguments, "--store", str(self.folder / "s"))
        return CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type] # a command


@pytest.fixture
def deployment(world: World) -> Deployment:
    return Deployment(world)


def test_a_plan_that_is_too_old_is_refused_with_its_age(deployment: Deployment) -> None:
    """The book may look the same and mean something else; --max-age limits the age."""
    refused = deployment.invoke(apply, str(deployment.plan), "--live", "--max-age", "1ms")
    assert refused.exit_code == 1
    assert "s old, above --max-age 0.001s: make a new plan, or raise --max-age" in refused.stderr


def test_a_plan_is_refused_without_a_runner_and_without_live(deployment: Deployment) -> None:
    """No runner is alive and --live is not given: a usage error that names the option."""
    refused = deployment.invoke(apply, str(deployment.plan))
    assert refused.exit_code == 2
    assert refused.stderr.rstrip().endswith("so this command would send the orders itself: add --live")


def test_a_plan_is_refused_if_one_of_its_accounts_is_not_armed(deployment: Deployment) -> None:
    """A plan is never applied in part."""
    account = deployment.folder / "p" / "account.yaml"
    account.write_text(account.read_text().replace("live", "observe"), encoding="utf-8")
    refused = deployment.invoke(apply, str(deployment.plan), "--live", "--policies", str(deployment.folder / "p"))
    assert refused.exit_code == 1
    assert "the plan acts on main, which is not armed here" in refused.stderr


def test_policies_other_than_the_plans_are_refused_before_they_are_stored(deployment: Deployment) -> None:
    """A wrong --policies must neither tick armed nor be used by the next command: no byte of the store changes."""
    before = (deployment.folder / "s").read_bytes()
    refused = deployment.invoke(apply, str(deployment.plan), "--live", "--policies", str(deployment.folder / "p"))
    assert refused.exit_code == 1
    assert "the plan belongs to the policy set sha256:test, and these policies are sha256:" in refused.stderr
    assert (deployment.folder / "s").read_bytes() == before


def test_each_change_is_printed_on_its_own_line_with_exit_code_1(deployment: Deployment) -> None:
    """The policy set differs and an account is down: both are listed, and nothing is decided."""
    refused = deployment.invoke(apply, str(deployment.plan), "--live")
    assert refused.exit_code == 1
    first, second, *_ = refused.stdout.splitlines()
    assert first.startswith("the saved plan was not applied: the policy set is sha256:")
    assert second.startswith("  account main cannot be read: main is down")
    output = json.loads(deployment.invoke(apply, str(deployment.plan), "--live", "--output", "json").stdout)
    assert (output["decisions"], len(output["notices"])) == ([], 1)


@pytest.mark.parametrize(
    ("text", "message"), [("{}", "this is no killswitch.plan/v1"), ("", "this is no killswitch.plan/v1")]
)
def test_a_file_that_is_no_plan_is_refused_with_its_name(deployment: Deployment, text: str, message: str) -> None:
    """The refusal comes before any access to a store or venue."""
    deployment.plan.write_text(text, encoding="utf-8")
    refused = deployment.invoke(apply, str(deployment.plan), "--live")
    assert refused.exit_code == 1
    assert f"{deployment.plan}: {message}" in refused.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "code", "message"),
    [
        (close, ("--reason", "drill", "--out", "new.json"), 2, "--out saves what --dry-run shows: add --dry-run"),
        (close, ("--reason", "drill", "--dry-run", "--force", "--out", "new.json"), 2, "use one of them"),
        (close, ("--reason", "drill", "--dry-run", "--out", "plan.json", "--policies", "p"), 1, "already exists"),
        (plan_verb, ("--policies", "p", "--out", "plan.json"), 1, "already exists"),
    ],
    ids=["without a dry run", "by force", "close over a file", "plan over a file"],
)
def test_a_plan_is_saved_only_from_a_dry_run_and_only_to_a_new_file(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    command: object,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    """An old plan must not be taken for the new one."""
    monkeypatch.chdir(deployment.folder)
    before = deployment.plan.read_bytes()
    refused = deployment.invoke(command, *arguments)
    assert (refused.exit_code, deployment.plan.read_bytes()) == (code, before)
    assert message in refused.stderr
    assert not (deployment.folder / "new.json").exists()


def test_the_schema_of_a_plan_is_printed() -> None:
    """Programs in other languages read and write plans by this schema."""
    result = CliRunner().invoke(schema, ["plan"])
    assert json.loads(result.stdout)["title"] == "killswitch.plan/v1"
