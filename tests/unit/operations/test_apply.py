"""`ksctl apply` and the runner: a saved plan is taken once, by one tick, or refused with what has changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from killswitch.cli.live.plan import plan as plan_verb
from killswitch.cli.live.run import run
from killswitch.cli.operate.verbs import apply, close
from killswitch.cli.policy.verbs import schema
from killswitch.model.snapshot import AccountSnapshot, Snapshot
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import SpentPlanError, answer_to, apply_event, operator_event
from killswitch.operations.preview import closes_under_way, from_store, of_policies, plan_of, preview
from killswitch.planning.operator.plan_file import SavedPlan, encode_plan
from killswitch.planning.tick import Interpreter
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, crash_policy, observing
from tests.unit.operations.test_live_verbs import ACCOUNT, WATCH
from tests.worlds import START

POLICIES = graphs.policy_set(crash_policy())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def planned(world: World, account: AccountSnapshot, *, by_hand: bool = True) -> SavedPlan:
    """What a close by hand of `account` would be now, saved; or what the policies would do."""
    events = (operator_event("close", "account/main", "operator-1", "seen", world.clock.now()),) if by_hand else ()
    interpreter = Interpreter(POLICIES)
    interpreter.tick(Snapshot(world.clock.now(), (book("1000"),), "killswitch.snapshot/v1"))
    seen = Snapshot(world.clock.now(), (account,), "killswitch.snapshot/v1", events=events)
    shown = preview(POLICIES, seen, interpreter, "", frozenset())
    decisions = tuple(each for each in shown.decisions if each.kind == "manual") if by_hand else of_policies(shown)
    found = plan_of(shown, decisions)
    assert found is not None
    return found


async def ticks(world: World, store: SqlStore, venue: ScriptedVenue, count: int = 1) -> None:
    runner = world.runner(store, [venue])
    await runner.start()
    for _ in range(count):
        await runner.tick()
        assert await runner.close_within(60.0)
        await world.clock.sleep(1.0)
    await runner.finish()


def test_a_plan_that_a_runner_takes_is_carried_out_once(world: World) -> None:
    """The order goes out, the answer is the plan's decision, and the store refuses the plan from then on."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    plan = planned(world, book("1000"))
    event = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(event)
    asyncio.run(ticks(world, store, venue))
    (decision,) = answer_to(store, event).decisions
    assert decision.intents == plan.decisions[0].intents
    assert [(each.side, each.amount) for each in venue.sent] == [("sell", Decimal(10))]
    with pytest.raises(SpentPlanError, match=f"as decision {decision.id}"):
        apply_event(store, plan, "operator-2", world.clock.now())


def test_two_hands_with_one_plan_are_one_order_to_apply_it(world: World) -> None:
    """Given at the same moment, both are the same event, which a store takes once and a tick hears once."""
    store, venue = world.open(), ScriptedVenue(book("1000"))
    plan = planned(world, book("1000"))
    one = apply_event(store, plan, "operator-1", world.clock.now())
    other = apply_event(store, plan, "operator-2", world.clock.now())
    store.put_event(one)
    store.put_event(other)
    with pytest.raises(SpentPlanError, match="is queued already"):
        apply_event(store, plan, "operator-3", world.clock.now())
    asyncio.run(ticks(world, store, venue, 2))
    assert len(venue.sent) == len(store.decisions(10)) == 1


def test_a_refused_plan_may_be_tried_again_when_the_world_is_as_it_was(world: World) -> None:
    """A refusal spends nothing: the next attempt is another event."""
    store = world.open()
    plan = planned(world, book("1000"))
    changed = replace(book("1000"), positions=())
    first = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(first)
    asyncio.run(ticks(world, store, ScriptedVenue(changed)))
    (refused,) = answer_to(store, first).notices
    assert "BTC long on main has vanished: it was 10 contracts" in refused.text
    again = apply_event(store, plan, "operator-1", world.clock.now())
    assert again.id != first.id
    store.put_event(again)
    asyncio.run(ticks(world, store, ScriptedVenue(book("1000"))))
    assert len(answer_to(store, again).decisions) == 1


def test_a_plan_of_a_stage_locks_and_closes_without_latching(world: World) -> None:
    """Orders and lock are the stage's; the stage itself stays with its policy."""
    store, venue = world.open(), ScriptedVenue(book("850"))
    plan = planned(world, book("850"), by_hand=False)
    (planned_decision,) = plan.decisions
    assert (planned_decision.stage, planned_decision.lock is not None) == ("close-everything", True)
    event = apply_event(store, plan, "operator-1", world.clock.now())
    store.put_event(event)
    asyncio.run(ticks(world, store, venue))
    (decision,) = answer_to(store, event).decisions
    assert (decision.kind, decision.stage, decision.lock) == ("manual", None, planned_decision.lock)
    assert json.loads((world.folder / "locks" / "account__main.json").read_text())["locked"] is True
    assert [each.amount for each in venue.sent] == [Decimal(10)]


class Away(ScriptedVenue):
    """Takes no orders."""

    async def submit(self, request: OrderRequest) -> OrderReport:
        raise VenueDownError("no route")


def test_a_plan_knows_what_is_being_closed_already(world: World) -> None:
    """A stage whose target is being worked on orders nothing in a preview, as it would order nothing in a tick."""
    store, venue = world.open(), Away(book("1000"))
    plan = planned(world, book("1000"))
    store.put_event(apply_event(store, plan, "operator-1", world.clock.now()))

    async def interrupted() -> None:
        runner = world.runner(store, [venue])
        await runner.start()
        await runner.tick()
        await runner.shut_down()

    asyncio.run(interrupted())
    interpreter, _ = from_store(POLICIES, store)
    seen = Snapshot(world.clock.now(), (book("850"),), "killswitch.snapshot/v1", closings=closes_under_way(store))
    assert len(seen.closings) == 1
    (fired,) = of_policies(preview(POLICIES, seen, interpreter, "", frozenset()))
    assert (fired.stage, fired.intents) == ("close-everything", ())


def test_what_only_observes_or_happens_anyway_is_in_no_plan(world: World) -> None:
    """A plan holds what `apply` would carry out, and nothing else."""
    policies = graphs.policy_set(observing(crash_policy()))
    interpreter = Interpreter(policies)
    interpreter.tick(Snapshot(world.clock.now(), (book("1000"),), "killswitch.snapshot/v1"))
    waiting = operator_event("close", None, "operator-1", "seen", START)
    seen = Snapshot(world.clock.now(), (book("850"),), "killswitch.snapshot/v1", events=(waiting,))
    shown = preview(policies, seen, interpreter, "", frozenset())
    assert {each.kind for each in shown.decisions} == {None, "manual"}
    assert plan_of(shown, of_policies(shown)) is None


class Site:
    """A store that was ticked once, with policies for an account that is armed and down, and a plan beside it."""

    def __init__(self, world: World) -> None:
        self.folder = world.folder
        (self.folder / "p").mkdir()
        (self.folder / "p" / "watch.yaml").write_text(WATCH, encoding="utf-8")
        account = ACCOUNT % ", endpoint: 'http://127.0.0.1:9'"
        (self.folder / "p" / "account.yaml").write_text(account, encoding="utf-8")
        self.plan = self.folder / "plan.json"
        self.plan.write_bytes(encode_plan(planned(World(self.folder, datetime.now(UTC)), book("1000"))))
        assert self.told(run, "--policies", str(self.folder / "p"), "--ticks", "1").exit_code == 0

    def told(self, command: object, *arguments: str) -> Result:
        arguments = (*arguments, "--store", str(self.folder / "s"))
        return CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type] # a command


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_a_plan_that_is_too_old_is_refused_with_its_age(site: Site) -> None:
    """The book may look the same and mean something else; --max-age says how old it may be."""
    refused = site.told(apply, str(site.plan), "--live", "--max-age", "1ms")
    assert refused.exit_code == 1
    assert "s old, above --max-age 0.001s: make a new plan, or raise --max-age" in refused.stderr


def test_a_plan_that_nobody_would_carry_out_is_refused(site: Site) -> None:
    """No runner lives and --live is not given: wrong usage, with the way out."""
    refused = site.told(apply, str(site.plan))
    assert refused.exit_code == 2
    assert refused.stderr.rstrip().endswith("so this command would send the orders itself: add --live")


def test_a_plan_is_refused_where_an_account_of_it_is_not_armed(site: Site) -> None:
    """Half a plan is not the plan."""
    account = site.folder / "p" / "account.yaml"
    account.write_text(account.read_text().replace("live", "observe"), encoding="utf-8")
    refused = site.told(apply, str(site.plan), "--live", "--policies", str(site.folder / "p"))
    assert refused.exit_code == 1
    assert "the plan acts on main, which is not armed here" in refused.stderr


def test_policies_that_are_not_the_plans_are_refused_before_they_become_the_stores(site: Site) -> None:
    """A wrong --policies must neither tick armed nor be what the next hand uses: no byte of the store changes."""
    before = (site.folder / "s").read_bytes()
    refused = site.told(apply, str(site.plan), "--live", "--policies", str(site.folder / "p"))
    assert refused.exit_code == 1
    assert "the plan belongs to the policy set sha256:test, and these policies are sha256:" in refused.stderr
    assert (site.folder / "s").read_bytes() == before


def test_every_change_is_a_line_of_its_own_and_exits_1(site: Site) -> None:
    """Another policy set, and an account that is away: both are told, and nothing is decided."""
    refused = site.told(apply, str(site.plan), "--live")
    assert refused.exit_code == 1
    first, second, *_ = refused.stdout.splitlines()
    assert first.startswith("the saved plan was not applied: the policy set is sha256:")
    assert second.startswith("  account main cannot be read: main is down")
    told = json.loads(site.told(apply, str(site.plan), "--live", "--output", "json").stdout)
    assert (told["decisions"], len(told["notices"])) == ([], 1)


@pytest.mark.parametrize(
    ("text", "says"), [("{}", "this is no killswitch.plan/v1"), ("", "this is no killswitch.plan/v1")]
)
def test_a_file_that_is_no_plan_is_refused_by_name(site: Site, text: str, says: str) -> None:
    """Before any store or venue is touched."""
    site.plan.write_text(text, encoding="utf-8")
    refused = site.told(apply, str(site.plan), "--live")
    assert refused.exit_code == 1
    assert f"{site.plan}: {says}" in refused.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "code", "says"),
    [
        (close, ("--reason", "drill", "--out", "new.json"), 2, "--out saves what --dry-run shows: add --dry-run"),
        (close, ("--reason", "drill", "--dry-run", "--force", "--out", "new.json"), 2, "use one of them"),
        (close, ("--reason", "drill", "--dry-run", "--out", "plan.json", "--policies", "p"), 1, "already exists"),
        (plan_verb, ("--policies", "p", "--out", "plan.json"), 1, "already exists"),
    ],
    ids=["without a dry run", "by force", "close over a file", "plan over a file"],
)
def test_a_plan_is_saved_of_a_dry_run_in_a_new_file_only(
    site: Site, monkeypatch: pytest.MonkeyPatch, command: object, arguments: tuple[str, ...], code: int, says: str
) -> None:
    """An old plan must not pass for the new one."""
    monkeypatch.chdir(site.folder)
    before = site.plan.read_bytes()
    refused = site.told(command, *arguments)
    assert (refused.exit_code, site.plan.read_bytes()) == (code, before)
    assert says in refused.stderr
    assert not (site.folder / "new.json").exists()


def test_the_schema_of_a_plan_is_printed() -> None:
    """For whoever reads or writes plans in another language."""
    done = CliRunner().invoke(schema, ["plan"])
    assert json.loads(done.stdout)["title"] == "killswitch.plan/v1"
