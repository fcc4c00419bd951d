"""Random edits of random small sets, between ticks of a random market: what is in force stays so, and fires once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import AutoReset, Compare, Graph, Number, PolicySet, SignalRead, SignalRef
from killswitch.model.instant import SECOND
from killswitch.model.snapshot import Event, Snapshot
from killswitch.model.store import HistoryRow
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.reload.continuation import continuation
from tests import graphs, worlds

NAMES = ("trim", "halve", "flat")
LOSS = SignalRef("equity.loss_from_start")
FALL = SignalRef("equity.drawdown", (900 * SECOND,))
SCOPE = "account/main"


@st.composite
def policies(draw: st.DrawFn, name: str) -> Graph:
    """A policy with up to three stages of distinct levels, each with its own trigger and kind of reset."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    levels = draw(st.lists(st.integers(1, 9), min_size=len(names), max_size=len(names), unique=True))
    triggers, stages = [], []
    resets: list[Compare] = []
    for number, (stage, level) in enumerate(zip(names, levels, strict=True)):
        threshold = draw(st.sampled_from((0.03, 0.06, 0.1)))
        confirm = draw(st.sampled_from((0, 2 * SECOND)))
        triggers.append(graphs.trigger(f"on-{stage}", draw(st.sampled_from((0, 1))), threshold, confirm=confirm))
        reset = None
        if draw(st.booleans()):
            reset = AutoReset(len(names) + len(resets), draw(st.sampled_from((0, 3 * SECOND))))
            resets.append(Compare("<", SignalRead(0), Number(draw(st.sampled_from((0.01, 0.05))))))
        actions = (LockTrading("reduce_only", None), graphs.close(fraction="0.5"))
        stages.append(graphs.stage(stage, level, number, cooldown=draw(st.sampled_from((0, 5 * SECOND))), reset=reset,
                                   actions=actions))  # fmt: skip
    return graphs.graph([LOSS, FALL], triggers, stages, reset_when=resets, policy=name)


@st.composite
def sets(draw: st.DrawFn) -> PolicySet:
    """One or two policies, under a digest of their own."""
    names = draw(st.sampled_from((("p",), ("p", "q"), ("q",))))
    digest = f"sha256:{draw(st.integers(0, 10**9))}"
    return PolicySet(digest, None, tuple(draw(policies(name)) for name in names))


def snapshot(second: int, equity: int, events: Sequence[Event] = ()) -> Snapshot:
    held = worlds.position("BTC", "long", str(equity - 1000), contracts="10", entry_price="100",
                           mark_price=str(equity / 10), notional=str(equity))  # fmt: skip
    account = worlds.account(str(equity), (held,), name="main", instruments=(worlds.rules("BTC"),))
    return Snapshot(
        worlds.START + timedelta(seconds=second), (account,), "killswitch.snapshot/v1", events=tuple(events)
    )


class Kept:
    """What a store would have: rows and states, as each tick has written them."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], Any] = {}
        self._rows: dict[tuple[str, str], list[HistoryRow]] = {}

    def write(self, interpreter: Interpreter) -> None:
        self.states |= {(each.policy, each.scope): each for each in interpreter.states()}
        for row in interpreter.rows():
            self._rows.setdefault((row.policy, row.scope), []).append(row)

    def rows(self, policy: str, scope: str, since: int) -> list[HistoryRow]:
        return [row for row in self._rows.get((policy, scope), ()) if row.at >= since]


def reload(interpreter: Interpreter, kept: Kept, following: PolicySet) -> bool:
    """Reload as a runner does; False if it is refused or held."""
    change = continuation(interpreter.policies, following)
    obstacles = interpreter.reload_obstacles(change)
    if obstacles.refused or obstacles.held:
        return False
    interpreter.reload(interpreter.prepare(following, kept.states.values(), kept.rows))
    return True


def in_force(interpreter: Interpreter) -> dict[str, tuple[str | None, int]]:
    """Policy → stage and level in force on the account, with or without an evaluator."""
    found = {each.policy: (each.stage, each.level) for each in interpreter.status() if each.level}
    return found | {each.policy: (each.stage, each.level) for each in interpreter.orphans()}


class Reloads(RuleBasedStateMachine):
    """A runner's interpreter under edits. A model remembers only names: which stage is in force, and what may fire."""

    @initialize(first=sets())
    def start(self, first: PolicySet) -> None:
        self.interpreter, self.kept = Interpreter(first), Kept()
        self.second, self.equity = 0, 1000
        self.fired_at: dict[str, int] = {}
        """Policy → the equity at its last firing."""
        self._tick()

    def _tick(self, events: Sequence[Event] = ()) -> Outcome:
        self.second += 1
        outcome = self.interpreter.tick(snapshot(self.second, self.equity, events))
        self.kept.write(self.interpreter)
        self.fired_at |= {each.policy: self.equity for each in outcome.decisions if each.kind != "reset"}
        return outcome

    @rule(equity=st.integers(850, 1000), count=st.integers(1, 4))
    def market(self, equity: int, count: int) -> None:
        """The market moves, and stays there for some ticks."""
        self.equity = equity
        for _ in range(count):
            self._tick()

    @rule(following=sets())
    def edit(self, following: PolicySet) -> None:
        """Another set: nothing in force is lost, its level follows the name, and it fires again on a new loss only."""
        before = in_force(self.interpreter)
        taken = reload(self.interpreter, self.kept, following)
        note(f"taken: {taken}, in force: {before}")
        if not taken:
            assert before, "only what is in force can keep a set from being taken"
            assert in_force(self.interpreter) == before
            return
        levels = {(graph.policy, stage.name): stage.level for graph in following.graphs for stage in graph.stages}
        after = in_force(self.interpreter)
        for policy, (stage, _) in before.items():
            assert after[policy][0] == stage
            expected = levels.get((policy, stage or ""))
            if expected is not None:
                assert after[policy][1] == expected
        fired_at = dict(self.fired_at)
        outcome = self._tick()
        for decision in outcome.decisions:
            stage, level = after.get(decision.policy, (None, 0))
            if decision.kind != "reset":
                is_orphan = (decision.policy, stage or "") not in levels  # its number is one of a stage that is gone
                has_lost = self.equity < fired_at.get(decision.policy, 0)
                assert decision.stage != stage or has_lost, "fired again"
                assert is_orphan or decision.level > level or (has_lost and decision.level == level)
            assert decision.kind != "reset" or self._resets_in(following, decision.policy, stage)

    def _resets_in(self, following: PolicySet, policy: str, stage: str | None) -> bool:
        found = (each for graph in following.graphs if graph.policy == policy for each in graph.stages)
        return any(each.name == stage and each.reset is not None for each in found)

    @rule()
    def same_text(self) -> None:
        """An edit that changes nothing changes no byte of the state."""
        before = self.interpreter.states()
        policies = self.interpreter.policies
        assert reload(self.interpreter, self.kept, replace(policies, digest=policies.digest + "0"))
        assert self.interpreter.states() == before

    @rule()
    def operator_reset(self) -> None:
        """An operator resets everything: the only way out for an orphan."""
        at = worlds.START + timedelta(seconds=self.second)
        self.equity = 1000
        self._tick([Event(f"reset-{self.second}", at, "reset", None, "me", "over")])

    @invariant()
    def nothing_is_in_force_twice(self) -> None:
        policies = [each.policy for each in self.interpreter.orphans()]
        watched = [each.policy for each in self.interpreter.status()]
        assert not set(policies) & set(watched)


TestReloads = Reloads.TestCase
TestReloads.settings = settings(max_examples=60, stateful_step_count=14, deadline=None)


@settings(max_examples=40, deadline=None)
@given(first=sets(), walk=st.lists(st.integers(850, 1010), min_size=2, max_size=12), data=st.data())
def test_a_reload_of_the_same_text_is_no_event(first: PolicySet, walk: list[int], data: st.DataObject) -> None:
    """Decisions, states and rows are those of a run without it, bit by bit."""
    one, other, kept = Interpreter(first), Interpreter(first), Kept()
    for second, equity in enumerate(walk, start=1):
        made, expected = (each.tick(snapshot(second, equity)) for each in (one, other))
        assert [replace(each, policy_set="") for each in made.decisions] == [
            replace(each, policy_set="") for each in expected.decisions
        ]
        assert one.states() == other.states()
        assert one.rows() == other.rows()
        kept.write(one)
        if data.draw(st.booleans()):
            assert reload(one, kept, replace(first, digest=f"sha256:{second}"))
