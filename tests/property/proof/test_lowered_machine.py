"""The lowered evaluation of a stage machine, compared with the engine on random graphs and inputs."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from killswitch.engine.state import StageMachineState, initial
from killswitch.graph.nodes import Graph
from killswitch.proof.axioms import Inputs
from killswitch.proof.conditions import SignalInput, Verdict
from killswitch.proof.machine import MachineLowering, MachineTerms, TriggerTerms
from killswitch.proof.solver import real
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import TextSignal
from tests.property.proof.random_machines import Engine, Evaluated, Observation, graph_in, observation_in

z3 = pytest.importorskip("z3", reason="the extra `prove` is not installed")


GRAPHS, EVALUATIONS = 500, 40
"""20,000 pairs of a random graph and random inputs."""


def inputs_of(policy: Graph, seen: Observation, by_hand: bool) -> Inputs:
    """The observation as constants of the solver."""
    signals = []
    for i, each in enumerate(policy.signals):
        spec, text = BY_NAME[each.name], seen.text[i]
        if isinstance(spec, TextSignal):
            place = 0 if text is None else spec.values.index(text)
            signals.append(SignalInput(real(z3, 0.0), real(z3, 0.0), z3.BoolVal(text is None), z3.IntVal(place)))
            continue
        unknown = seen.low[i] == float("-inf")
        low, high = (0.0, 0.0) if unknown else (seen.low[i], seen.high[i])
        signals.append(SignalInput(real(z3, low), real(z3, high), z3.BoolVal(unknown), z3.IntVal(0)))
    return Inputs(
        tuple(signals), z3.IntVal(seen.now), z3.BoolVal(seen.scheduled), z3.BoolVal(seen.lost),
        tuple(z3.BoolVal(each) for each in seen.refused), z3.BoolVal(by_hand), {},
    )  # fmt: skip


def simplified(state: MachineTerms) -> MachineTerms:
    triggers = tuple(TriggerTerms(*(z3.simplify(term) for term in fields(each))) for each in state.triggers)
    return MachineTerms(triggers, *(z3.simplify(term) for term in fields(state)[1:]))


def fields(record: Any) -> list[Any]:
    return [getattr(record, name) for name in record.__struct_fields__]


def shown(state: MachineTerms, policy: Graph) -> dict[str, object]:
    """The lowered state, without what has no meaning in it."""
    found: dict[str, object] = {"level": state.level.as_long(), "stage": state.stage.as_long()}
    if state.level.as_long():
        found |= {"fired_at": state.fired_at.as_long(), "cooldown_until": state.cooldown_until.as_long()}
        found |= {"by_hand": z3.is_true(state.by_hand), "resetting": z3.is_true(state.resetting)}
    if z3.is_true(state.resetting):
        found["reset_since"] = state.reset_since.as_long()
    for i, each in enumerate(state.triggers):
        held, confirmed = z3.is_true(each.held), z3.is_true(each.confirmed)
        found[f"t{i}"] = (held, confirmed, z3.is_true(each.unknown), z3.is_true(each.spent))
        found[f"since{i}"] = each.since.as_long() if held else None
        is_counting = held and not confirmed and policy.triggers[i].confirm_ticks
        found[f"ticks{i}"] = each.ticks.as_long() if is_counting else None
        found[f"unknown{i}"] = each.unknown_since.as_long() if z3.is_true(each.unknown) else None
    return found


def expected(state: StageMachineState, policy: Graph) -> dict[str, object]:
    """The engine's state in the same form."""
    names = [each.name for each in policy.stages]
    found: dict[str, object] = {"level": state.level, "stage": names.index(state.stage) if state.stage else -1}
    if state.level:
        found |= {"fired_at": state.fired_at, "cooldown_until": state.cooldown_until}
        found |= {"by_hand": state.by_hand, "resetting": state.reset_since is not None}
    if state.level and state.reset_since is not None:
        found["reset_since"] = state.reset_since
    t = state.triggers
    for i in range(len(policy.triggers)):
        held, confirmed = bool(t.held >> i & 1), bool(t.confirmed >> i & 1)
        found[f"t{i}"] = (held, confirmed, bool(t.unknown >> i & 1), bool(state.spent >> i & 1))
        found[f"since{i}"] = t.since.get(i) if held else None
        is_counting = held and not confirmed and policy.triggers[i].confirm_ticks
        found[f"ticks{i}"] = t.ticks.get(i) if is_counting else None
        found[f"unknown{i}"] = t.unknown_since.get(i)
    return found


def difference(lowering: type[MachineLowering], seed: int, evaluations: int = EVALUATIONS) -> str | None:
    """The first difference between the lowering and the engine on one random graph; None without one."""
    random = Random(seed)
    policy = graph_in(random)
    lowered, engine = lowering(z3, policy), Engine(policy)
    terms, state, seen = lowered.initial(), initial(), None
    for number in range(evaluations):
        seen = observation_in(random, policy, seen)
        result: Evaluated = engine.evaluate(state, seen)
        stepped = lowered.step(terms, inputs_of(policy, seen, result.by_hand))
        terms, state = simplified(stepped.state), result.state
        fired = z3.simplify(stepped.fired).as_long()
        happened = None if fired == -1 else policy.stages[fired].name
        if (happened, z3.is_true(z3.simplify(stepped.reset))) != (result.fired, result.reset):
            return f"graph {seed}, evaluation {number}: {happened} instead of {result.fired}"
        if shown(terms, policy) != expected(state, policy):
            return f"graph {seed}, evaluation {number}: {shown(terms, policy)} instead of {expected(state, policy)}"
    broken = [fact for fact in lowered.invariants(terms) if not z3.is_true(z3.simplify(fact))]
    return f"graph {seed}: {broken}" if broken else None


@pytest.mark.parametrize("first", range(0, GRAPHS, 50))
def test_a_lowered_evaluation_is_that_of_the_engine(first: int) -> None:
    """On random graphs and inputs, every state, firing and reset is the same, and the assumed invariants hold."""
    assert [found for seed in range(first, first + 50) if (found := difference(MachineLowering, seed))] == []


class HeldUnknownIsFalse(MachineLowering):
    def held(self, number: int, before: Any, true: Any, missing: Any) -> Any:
        return true


class UnknownTripsAlways(MachineLowering):
    def held(self, number: int, before: Any, true: Any, missing: Any) -> Any:
        return z3.Or(true, missing)


class UnknownCompletes(MachineLowering):
    def completes(self, asserted: Any, held: Any) -> Any:
        return held


class LastsLonger(MachineLowering):
    def has_lasted(self, now: Any, since: Any, time: int) -> Any:
        return now - since > time


class CountsEveryEvaluation(MachineLowering):
    def ticks(self, before: Any, inputs: Any) -> Any:
        return z3.If(before.held, before.ticks, 0) + 1


class KeepsTicks(MachineLowering):
    def ticks(self, before: Any, inputs: Any) -> Any:
        return before.ticks + z3.If(inputs.scheduled, 1, 0)


class SpentForever(MachineLowering):
    def spent(self, before: Any, true: Any, missing: Any) -> Any:
        return before.spent


class UnknownRearms(MachineLowering):
    def spent(self, before: Any, true: Any, missing: Any) -> Any:
        return z3.And(before.spent, true)


class ResetsInCooldown(MachineLowering):
    def may_reset(self, before: Any, now: Any) -> Any:
        return z3.BoolVal(True)


class FiresInCooldown(MachineLowering):
    def rested(self, before: Any, now: Any) -> Any:
        return z3.BoolVal(True)


class LowerLevelsFire(MachineLowering):
    def same_level(self, stage: Any, before: Any) -> Any:
        return before.level >= stage.level


class SameLevelNever(MachineLowering):
    def same_level(self, stage: Any, before: Any) -> Any:
        return z3.BoolVal(False)


class OneOfAllIsEnough(MachineLowering):
    def demands(self, stage: Any, triggers: Any) -> Any:
        return z3.Or(*(triggers[i].confirmed for i in (*stage.any_of, *stage.all_of)))


class LowestFires(MachineLowering):
    def chosen(self, eligible: Any, inputs: Any) -> Any:
        return super().chosen(
            [z3.And(e, *(z3.Not(o) for o in eligible[i + 1 :])) for i, e in enumerate(eligible)], inputs
        )


class NobodyDeclines(MachineLowering):
    def chosen(self, eligible: Any, inputs: Any) -> Any:
        return [z3.And(e, *(z3.Not(o) for o in eligible[:i])) for i, e in enumerate(eligible)]


class NoCooldown(MachineLowering):
    def cooldown_end(self, stage: Any, before: Any, now: Any) -> Any:
        return now


class SomeIntervalIsEnough(MachineLowering):
    def condition(self, number: int, inputs: Any) -> Verdict:
        found = super().condition(number, inputs)
        return Verdict(z3.Not(found.false), found.false)


class UnknownIsKnown(MachineLowering):
    def condition(self, number: int, inputs: Any) -> Verdict:
        known = [SignalInput(each.low, each.high, z3.BoolVal(False), each.text) for each in inputs.signals]
        return super().condition(number, Inputs(tuple(known), *fields(inputs)[1:]))


class RealArithmetic(MachineLowering):
    """5 × 0.045 is at least 0.225 over the reals, and not over floats."""

    def condition(self, number: int, inputs: Any) -> Verdict:
        self.conditions.threshold = self._over_reals  # type: ignore[method-assign] # the mutated lowering
        return super().condition(number, inputs)

    def _over_reals(self, node: Any, folded: Any, op: str, number: float, read: Any) -> Verdict:
        plain = type(self.conditions).threshold
        if folded.of(1.0) == 5.0 and folded.of(2.0) == 10.0:
            from killswitch.proof.conditions import FoldedSignal

            same = FoldedSignal(folded.index, True, lambda value: value, is_plain=True)
            return plain(self.conditions, node, same, op, number / 5.0, read)  # type: ignore[arg-type] # z3 has no types
        return plain(self.conditions, node, folded, op, number, read)  # type: ignore[arg-type] # z3 has no types


MUTANTS = (
    HeldUnknownIsFalse, UnknownTripsAlways, UnknownCompletes, LastsLonger, CountsEveryEvaluation, KeepsTicks,
    SpentForever, UnknownRearms, ResetsInCooldown, FiresInCooldown, LowerLevelsFire, SameLevelNever, OneOfAllIsEnough,
    LowestFires, NobodyDeclines, NoCooldown, SomeIntervalIsEnough, UnknownIsKnown, RealArithmetic,
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_lowering_is_noticed(mutant: type[MachineLowering]) -> None:
    """The comparison is strict enough: each of these rules, broken, differs from the engine on some graph."""
    assert any(difference(mutant, seed) for seed in range(GRAPHS))
