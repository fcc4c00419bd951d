"""`exit_process` ends the run with code 1 after every close of the run, once, and never where nothing is acted on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from killswitch.engine.state import PendingClose
from killswitch.execution.effects.performing import RunEnd
from killswitch.graph.actions.exit_process import ExitProcess
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action, Graph, PolicySet, ScopeRule, SignalRef
from killswitch.model.instant import MINUTE
from killswitch.model.snapshot import Event
from killswitch.model.store import StoredDecision
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import operator_event
from killswitch.runner.loop import Runner
from killswitch.runner.observers import TickReport
from killswitch.runner.performers import OpenCloses
from killswitch.runner.status_blob import LIVE_NAME, RunnerView, decode_view
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.runner_world import ScriptedVenue, World, book, observing

PORTFOLIO = ScopeRule("portfolio", None, None, None, None)
EXIT = ExitProcess()
CLOSE_AND_EXIT = (LockTrading("reduce_only", None), graphs.close(), EXIT)
DOWN = VenueDownError("no answer")


class HoldingVenue(ScriptedVenue):
    """Fills no order before `is_filling` is set: every request is answered as venue down."""

    def __init__(self, equity: str, account: str) -> None:
        super().__init__(book(equity, account), account)
        self.is_filling = True

    async def submit(self, request: OrderRequest) -> OrderReport:
        if not self.is_filling:
            raise VenueDownError("not now")
        return await super().submit(request)


def breaker(*actions: Action, policy: str = "breaker", scope: ScopeRule | None = None) -> Graph:
    """Does these actions when an account (or `scope`) is 10% below its start; accounts are awaited for ten minutes."""
    stage = graphs.stage("stop", 3, 0, actions=actions, close_within=10 * MINUTE)
    fall = graphs.trigger("fall", 0, 0.10)
    made = graphs.graph([SignalRef("equity.loss_from_start")], [fall], [stage], policy=policy)
    return made if scope is None else replace(made, scope=scope)


def only(name: str) -> ScopeRule:
    """The scope of this account."""
    return ScopeRule("account", (name,), None, None, None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


class Script:
    """An observer that calls the step of a tick after it, and stops the run after the last one."""

    def __init__(self, stop: asyncio.Event, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)
        self._stop = stop
        self.reports: list[TickReport] = []

    def ticked(self, report: TickReport) -> None:
        self.reports.append(report)
        if self._steps:
            self._steps.pop(0)()
        elif len(self.reports) > 100:
            self._stop.set()


class Story:
    """Runs on one store with the same venues and policies, and what each of them came to."""

    def __init__(self, world: World, policies: PolicySet | Graph, *venues: ScriptedVenue) -> None:
        self.store: SqlStore = world.open()
        self._world = world
        self._policies = policies if isinstance(policies, PolicySet) else graphs.policy_set(policies)
        self._venues = venues
        self.stop = asyncio.Event()
        self.script = Script(self.stop)

    def run(self, *steps: Callable[[], object], ticks: int | None = None, armed: bool = True) -> RunEnd:
        """One run: the first step happens after the first tick. The run is stopped after a hundred passes."""
        self.stop = asyncio.Event()
        self.script = Script(self.stop, *steps)
        runner: Runner = self._world.runner(
            self.store, self._venues, policies=self._policies, witnesses=(self.script,), armed=armed
        )

        async def go() -> RunEnd:
            return await runner.run(self.stop, ticks)

        return asyncio.run(go())

    def fall(self, *names: str, to: str = "500") -> Callable[[], None]:
        """A step: these accounts (all without a name) fall to this equity."""

        def step() -> None:
            for venue in self._venues:
                if not names or venue.account in names:
                    venue.answer = book(to, venue.account)

        return step

    @property
    def decisions(self) -> list[StoredDecision]:
        """Oldest first."""
        return list(reversed(self.store.decisions(100)))

    @property
    def exits(self) -> list[tuple[str, str | None]]:
        """The journal about exits: kind and status, oldest first."""
        return [
            (each.kind, each.data.get("status"))
            for each in self.store.journal()
            if each.data.get("effect") == "process_exit"
        ]

    @property
    def view(self) -> RunnerView:
        blob = self.store.live(LIVE_NAME)
        assert blob is not None
        return decode_view(blob)


def wait() -> None:
    """A step in which nothing happens."""


EXITED = [("planned", None), ("finished", "exited")]


def test_the_run_ends_with_code_1_after_the_close_and_a_restart_continues(world: World) -> None:
    """The exit is journaled, the reason names the stage and the decision; the latched stage exits no second time, and
    another scope is still closed by the restarted run."""
    main, other = ScriptedVenue(book("1100")), ScriptedVenue(book("1100", "other"), "other")
    policies = graphs.policy_set(
        breaker(*CLOSE_AND_EXIT, scope=only("main")),
        breaker(graphs.close(), policy="second", scope=only("other")),
    )
    story = Story(world, policies, main, other)
    end = story.run(story.fall("main"))
    (decided,) = story.decisions
    assert end == RunEnd(
        "effect",
        "stage stop of breaker on account/main exits the process, and no close is in progress "
        f"(decision {decided.decision.id})",
        1,
    )
    assert len(main.sent) == 1
    assert story.exits == EXITED
    assert story.view.run_end == end
    again = story.run(wait, story.fall("other"), ticks=6)
    assert (again.cause, again.exit_code, len(other.sent)) == ("ticks", 0, 1)
    assert story.exits == EXITED


def test_the_second_close_of_a_partly_unreachable_stage_comes_before_the_exit(world: World) -> None:
    """`two` cannot be read when the portfolio falls: the first close is complete seconds before it answers again."""
    one, two = ScriptedVenue(book("1100", "one"), "one"), ScriptedVenue(book("1100", "two"), "two")
    story = Story(world, breaker(*CLOSE_AND_EXIT, scope=PORTFOLIO), one, two)
    seen: list[tuple[bool, tuple[str, ...]]] = []

    def two_is_down() -> None:
        two.answer = DOWN

    def observe() -> None:
        report = story.script.reports[-1]
        seen.append((bool(one.sent), tuple(each.waits_for for each in report.runner.pending_effects or ())))

    end = story.run(wait, two_is_down, story.fall("one", to="100"), wait, wait, wait, observe, story.fall("two"))
    assert seen == [(True, ("the close of stage stop of breaker on two, which cannot be read",))]
    assert end.exit_code == 1
    assert [len(one.sent), len(two.sent)] == [1, 1], "both closes were completed in the run that exits"
    assert [each.decision.accounts for each in story.decisions] == [("one",), ("two",)]
    assert story.store.unfinished() == []
    assert story.run(ticks=5).exit_code == 0


def test_an_account_that_no_longer_waits_does_not_delay_the_exit(world: World) -> None:
    """The stage gives up on `two` after its `close_within`, ten minutes after its triggers held last."""
    one, two = ScriptedVenue(book("1100", "one"), "one"), ScriptedVenue(book("1100", "two"), "two")
    graph = breaker(*CLOSE_AND_EXIT, scope=PORTFOLIO)
    stage = replace(graph.stages[0], close_within=5_000_000)
    story = Story(world, replace(graph, stages=(stage,)), one, two)

    def two_is_down() -> None:
        two.answer = DOWN

    def recovered() -> None:
        one.answer = book("5000", "one")

    end = story.run(wait, two_is_down, story.fall("one", to="100"), wait, recovered)
    assert (end.exit_code, len(one.sent), len(two.sent)) == (1, 1, 0)
    assert 8 <= len(story.script.reports) <= 12


def test_the_exit_waits_for_the_close_of_another_policy(world: World) -> None:
    """The breaker closes nothing itself; both policies fire in one tick, and the other account's venue fails orders."""
    main, other = ScriptedVenue(book("1100")), HoldingVenue("1100", "other")
    policies = graphs.policy_set(
        breaker(EXIT, scope=only("main")), breaker(graphs.close(), policy="second", scope=only("other"))
    )
    story = Story(world, policies, main, other)
    pending: list[str] = []

    def hold() -> None:
        other.is_filling = False
        story.fall()()

    def let_through() -> None:
        pending.extend(each.waits_for for each in story.script.reports[-1].runner.pending_effects or ())
        other.is_filling = True

    end = story.run(hold, wait, wait, wait, let_through)
    assert pending == ["the close on account other"]
    assert (end.exit_code, len(other.sent)) == (1, 1)


def test_a_stage_of_an_observing_policy_that_awaits_an_account_does_not_delay_the_exit(world: World) -> None:
    """Its close is never carried out, however long `two` is down."""
    one, two = ScriptedVenue(book("1100", "one"), "one"), ScriptedVenue(book("1100", "two"), "two")
    watching = observing(breaker(graphs.close(), policy="watching", scope=PORTFOLIO))
    story = Story(world, graphs.policy_set(watching, breaker(EXIT, scope=only("one"))), one, two)

    def two_is_down() -> None:
        two.answer = DOWN

    end = story.run(wait, two_is_down, story.fall("one", to="100"))
    assert (end.exit_code, len(story.script.reports)) == (1, 4)
    assert [each.mode for each in (d.decision for d in story.decisions)] == ["observe", "enforce"]
    assert any(machine.waiting for machine in story.view.machines), "it awaits the account"


@pytest.mark.parametrize(("armed", "expected"), [({"one"}, ()), ({"one", "two"}, ("two",))])
def test_only_armed_accounts_are_awaited(armed: set[str], expected: tuple[str, ...]) -> None:
    """A close that waits for an account that is not armed is never carried out in this run."""
    waiting = PendingClose("stop", ("fall",), 0, 1, ("two",))
    interpreter = SimpleNamespace(
        pending_closes=lambda: [(breaker(graphs.close()), "portfolio", waiting)], unfinished_closes=dict
    )
    closings = OpenCloses(
        SimpleNamespace(busy=()), SimpleNamespace(busy=()), interpreter,  # type: ignore[arg-type]  # what it reads of them
        SimpleNamespace(names=armed, reached_by=lambda _policy, _scope: frozenset(armed)),  # type: ignore[arg-type]  # what it reads of them
    )  # fmt: skip
    assert closings() == tuple(
        f"the close of stage stop of breaker on {name}, which cannot be read" for name in expected
    )


def test_a_stop_before_the_close_has_ended_exits_with_0_and_the_next_run_exits(world: World) -> None:
    """SIGTERM precedes an exit that still waits: the close continues in the next run, and that one exits, once."""
    main = HoldingVenue("1100", "main")
    story = Story(world, breaker(*CLOSE_AND_EXIT), main)

    def hold() -> None:
        main.is_filling = False
        story.fall()()

    end = story.run(hold, wait, story.stop.set)
    assert (end.cause, end.exit_code, story.exits) == ("stop", 0, EXITED[:1])
    main.is_filling = True
    assert story.run().exit_code == 1
    assert story.exits == EXITED
    assert story.run(ticks=3).exit_code == 0


def test_the_exit_waits_while_the_store_accepts_no_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the next run would find neither trip nor exit, and exit again: it goes on watching, and exits once
    there is space."""
    story, shown = Story(world, breaker(*CLOSE_AND_EXIT), ScriptedVenue(book("1100"))), list[str]()

    def look() -> None:
        shown.extend(each.waits_for for each in story.view.pending_effects or ())

    with monkeypatch.context() as full:
        full.setattr(SqlStore, "in_memory_because", property(lambda _: "the disk is full"))
        end = story.run(story.fall(), wait, wait, look, ticks=8)
    assert (end.cause, story.exits) == ("ticks", EXITED[:1])
    assert shown == ["the store, whose records would be lost with the process: the disk is full"]
    assert story.run(ticks=12).exit_code == 1
    assert story.exits == EXITED
    assert story.run(ticks=3).exit_code == 0


def test_a_stop_in_the_pass_that_exits_does_not_change_the_code(world: World) -> None:
    """The exit is journaled already, so that no later run would exit."""
    main = ScriptedVenue(book("1100"))
    story = Story(world, breaker(EXIT), main)
    end = story.run(story.fall(), story.stop.set)
    assert (end.cause, end.exit_code, story.exits) == ("effect", 1, EXITED)


@pytest.mark.parametrize("why", ["not armed", "the policy observes"])
def test_nothing_exits_where_nothing_is_acted_on(world: World, why: str) -> None:
    """The decision has the effect, and nothing is planned."""
    graph = breaker(*CLOSE_AND_EXIT)
    story = Story(world, observing(graph) if why == "the policy observes" else graph, ScriptedVenue(book("1100")))
    end = story.run(story.fall(), ticks=6, armed=why != "not armed")
    assert (end.cause, end.exit_code, story.exits) == ("ticks", 0, [])
    assert [type(effect).__name__ for effect in story.decisions[0].decision.further] == ["ProcessExit"]


@pytest.mark.parametrize("why", ["not armed", "the policy observes"])
def test_an_exit_of_an_armed_run_waits_while_the_next_one_observes(world: World, why: str) -> None:
    """It is performed by the next run that acts on the policy."""
    main = HoldingVenue("1100", "main")
    graph = breaker(graphs.close(), EXIT)
    story = Story(world, graph, main)

    def hold() -> None:
        main.is_filling = False
        story.fall()()

    story.run(hold, wait, story.stop.set)
    main.is_filling = True
    observer = Story(world, observing(graph) if why == "the policy observes" else graph, main)
    assert observer.run(ticks=5, armed=why != "not armed").exit_code == 0
    assert observer.exits == EXITED[:1]
    assert Story(world, graph, main).run().exit_code == 1


def reset_of(scope: str, store: SqlStore, world: World) -> Event:
    event = operator_event("reset", scope, "ada", "looked at", world.clock.now())
    store.put_event(event)
    return event


def test_a_reset_withdraws_an_exit_that_waits(world: World) -> None:
    """The close of the first account goes on; the operator has decided that the program watches on."""
    main = HoldingVenue("1100", "main")
    story = Story(world, breaker(graphs.close(), EXIT), main)

    def hold() -> None:
        main.is_filling = False
        story.fall()()

    def reset() -> None:
        reset_of("account/main", story.store, world)

    def let_through() -> None:
        main.is_filling = True

    end = story.run(hold, wait, reset, wait, let_through, ticks=12)
    assert (end.exit_code, len(main.sent)) == (0, 1)
    assert story.exits == [("planned", None), ("finished", "withdrawn")]


def test_a_stage_that_was_reset_exits_again_when_it_fires_again(world: World) -> None:
    """A new decision, also within the cooldown of the first one."""
    main = ScriptedVenue(book("1100"))
    story = Story(world, breaker(EXIT), main)
    assert story.run(story.fall()).exit_code == 1

    def reset() -> None:
        reset_of("account/main", story.store, world)

    assert story.run(wait, reset, wait, story.fall(to="300")).exit_code == 1
    assert story.exits == EXITED + EXITED


def test_a_stage_without_latch_exits_once_within_its_cooldown(world: World) -> None:
    """A stage that awaits no account: it fires for `one`, exits, and fires again for `two` after the restart; that
    close is part of the same firing, and exits no second time."""
    one, two = ScriptedVenue(book("1100", "one"), "one"), ScriptedVenue(book("1100", "two"), "two")
    graph = breaker(*CLOSE_AND_EXIT, scope=PORTFOLIO)
    story = Story(world, replace(graph, stages=(replace(graph.stages[0], close_within=0),)), one, two)

    def two_is_down() -> None:
        two.answer = DOWN

    assert story.run(wait, two_is_down, story.fall("one", to="100")).exit_code == 1
    assert [len(one.sent), len(two.sent)] == [1, 0]
    assert story.run(wait, story.fall("two"), ticks=8).exit_code == 0
    assert [len(one.sent), len(two.sent)] == [1, 1]
    assert story.exits == [*EXITED, ("planned", None), ("finished", "exited_before")]


def test_the_exit_waits_for_an_operator_close_of_an_account_that_cannot_be_read(world: World) -> None:
    """The command is pending until the account answers, and only this run knows of it."""
    main, other = ScriptedVenue(book("1100")), ScriptedVenue(book("1100", "other"), "other")
    story = Story(world, breaker(EXIT, scope=only("main")), main, other)
    pending: list[str] = []

    def close_other() -> None:
        other.answer = DOWN
        story.store.put_event(operator_event("close", "account/other", "ada", "drill", world.clock.now()))

    def answer() -> None:
        pending.extend(each.waits_for for each in story.script.reports[-1].runner.pending_effects or ())
        other.answer = book("1100", "other")

    end = story.run(wait, close_other, story.fall("main"), wait, wait, answer)
    assert len(pending) == 1
    assert pending[0].startswith("the operator's close ")
    assert pending[0].endswith(" on other, which cannot be read")
    assert (end.exit_code, len(other.sent)) == (1, 1)
