"""Laws of the engine, proved once for a symbolic policy: thresholds, confirmations, cooldowns and levels are unknowns.

The same laws are tested on the engine itself in `tests/property/test_engine_laws.py`.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import AutoReset, Compare, Number, SignalRead
from killswitch.proof.axioms import Inputs, assumptions, new_inputs
from killswitch.proof.conditions import Verdict
from killswitch.proof.machine import MachineLowering, MachineTerms, StepTerms
from killswitch.proof.solver import Prover, Term
from tests.graphs import FALL_1H, close, graph, stage, trigger

z3: Any = pytest.importorskip("z3", reason="the extra `prove` is not installed")

POLICY = graph(
    (FALL_1H,),
    [trigger("low", 0, 0.05), trigger("high", 0, 0.1)],
    [stage("one", 1, 0, actions=[close("long")], reset=AutoReset(2, 60)), stage("two", 2, 1, actions=[close()])],
    reset_when=[Compare("<", SignalRead(0), Number(0.02))],
)
"""Two levels of one loss; the lower may decline and resets by itself. Its numbers are replaced by unknowns."""


class SymbolicMachine(MachineLowering):
    """The lowering with unknown thresholds, confirmations, cooldowns, and times of the calm."""

    def __init__(self) -> None:
        super().__init__(z3, POLICY)
        self.limits = [z3.Real("limit0"), z3.Real("limit1"), z3.Real("limit2")]
        self.cooldowns = {each.name: z3.Int(f"cooldown_{each.name}") for each in POLICY.stages}
        self.levels = {each.name: z3.Int(f"level_{each.name}") for each in POLICY.stages}
        symbolic = [replace(each, confirm=z3.Int(f"confirm{i}")) for i, each in enumerate(POLICY.triggers)]
        rules = {each.name: each.reset and replace(each.reset, hold=z3.Int("hold")) for each in POLICY.stages}
        stages = [
            replace(each, cooldown=self.cooldowns[each.name], level=self.levels[each.name], reset=rules[each.name])
            for each in POLICY.stages
        ]
        self.graph = replace(POLICY, triggers=tuple(symbolic), stages=tuple(stages))
        levels = list(self.levels.values())  # of the stages, the highest first
        self.rules: list[Term] = [each >= 0 for each in (*self.cooldowns.values(), z3.Int("hold"))]
        self.rules += [rule.confirm >= 0 for rule in symbolic]
        self.rules += [levels[0] > levels[1], levels[1] > 0]

    def condition(self, number: int, inputs: Inputs) -> Verdict:
        """The loss is at or beyond limit 0 or 1, or surely below limit 2."""
        read, limit, known = inputs.signals[0], self.limits[number], z3.Not(inputs.signals[0].unknown)
        if number == 2:
            return Verdict(z3.And(known, read.high < limit), z3.And(known, read.low >= limit))
        return Verdict(z3.And(known, read.low >= limit), z3.And(known, read.high < limit))


class Laws:
    """One evaluation from any state that can occur, of a lowering of the symbolic policy."""

    def __init__(self, machine: type[SymbolicMachine]) -> None:
        self.prover = Prover(perf_counter)
        self.lowered = machine()
        self.before: MachineTerms = self.lowered.free("before")
        self.inputs: Inputs = new_inputs(z3, POLICY, "next")
        self.step: StepTerms = self.lowered.step(self.before, self.inputs)
        self.demanded = [self.lowered.demands(each, self.step.triggers) for each in self.lowered.graph.stages]
        self.facts = [
            *self.lowered.rules, *self.lowered.invariants(self.before), *assumptions(z3, POLICY, self.inputs),
            self.inputs.now > self.before.at,
        ]  # fmt: skip

    def holds(self, *breaking: Term) -> bool:
        """Whether nothing breaks it, and the situation itself is possible."""
        assert self.prover.is_impossible(*self.facts) is False
        return self.prover.is_impossible(*self.facts, *breaking) is True


def a_cooldown_keeps_no_higher_level(laws: Laws) -> bool:
    """Whatever is in force, since when, and for how long it rests: a higher level that is demanded fires."""
    higher = laws.lowered.graph.stages[0]
    return laws.holds(
        laws.before.level < higher.level, laws.demanded[0], laws.step.fired != 0,
    )  # fmt: skip


def a_new_loss_after_the_cooldown_is_answered(laws: Laws) -> bool:
    """The cooldown is over, and the unit value below that of the firing: the level in force, or a higher one, fires."""
    before, stages = laws.before, laws.lowered.graph.stages
    demanded = z3.Or(*(
        z3.And(each, stage.level >= before.level, z3.Not(laws.inputs.refused[i]) if i else z3.BoolVal(True))
        for i, (stage, each) in enumerate(zip(stages, laws.demanded, strict=True))
    ))  # fmt: skip
    after = [before.level > 0, laws.inputs.now >= before.cooldown_until, laws.inputs.lost]
    return laws.holds(*after, demanded, laws.step.fired == -1)


def a_level_falls_only_by_a_reset(laws: Laws) -> bool:
    """No firing lowers the level in force, and a reset fires nothing."""
    step = laws.step
    return laws.holds(
        z3.Or(z3.And(z3.Not(step.reset), step.state.level < laws.before.level), z3.And(step.reset, step.fired != -1))
    )


def an_automatic_reset_waits_for_the_cooldown(laws: Laws) -> bool:
    """Nothing is lifted while the last firing still rests."""
    return laws.holds(laws.step.reset, laws.inputs.now < laws.before.cooldown_until)


def the_invariants_are_kept(laws: Laws) -> bool:
    """What is assumed of every state before an evaluation is true of the state after it."""
    after = z3.And(*laws.lowered.invariants(laws.step.state))
    return laws.holds(z3.Not(after))


LAWS = (
    a_cooldown_keeps_no_higher_level, a_new_loss_after_the_cooldown_is_answered, a_level_falls_only_by_a_reset,
    an_automatic_reset_waits_for_the_cooldown, the_invariants_are_kept,
)  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
def test_a_law_of_the_engine_is_proved_for_a_symbolic_policy(law: Any) -> None:
    """By induction: for all thresholds, confirmations, cooldowns, levels and states."""
    assert law(Laws(SymbolicMachine))


def test_targets_stay_within_the_position() -> None:
    """Of any contracts, fraction, share cap and number of closes, what is left is between nothing and the position."""
    prover, held, cap = Prover(perf_counter), z3.Real("held"), z3.Real("cap")
    fractions = [z3.Real(f"fraction{i}") for i in range(3)]
    left = held
    for each in fractions:
        one = held * (1 - each)
        one = z3.If(cap < one, cap, one)
        left = z3.If(one < left, one, left)
    facts = [held >= 0, cap >= 0, *(each > 0 for each in fractions), *(each <= 1 for each in fractions)]
    assert prover.is_impossible(*facts, z3.Or(left < 0, left > held)) is True


class HigherLevelsRest(SymbolicMachine):
    def eligible(self, stage: Any, before: Any, triggers: Any, inputs: Any) -> Any:
        return z3.And(super().eligible(stage, before, triggers, inputs), self.rested(before, inputs.now))


class NothingFiresAgain(SymbolicMachine):
    def same_level(self, stage: Any, before: Any) -> Any:
        return z3.BoolVal(False)


class LowerLevelsFire(SymbolicMachine):
    def same_level(self, stage: Any, before: Any) -> Any:
        return before.level >= stage.level


class ResetsInCooldown(SymbolicMachine):
    def may_reset(self, before: Any, now: Any) -> Any:
        return z3.BoolVal(True)


MUTANTS = (HigherLevelsRest, NothingFiresAgain, LowerLevelsFire, ResetsInCooldown)


@pytest.mark.parametrize(("mutant", "law"), list(zip(MUTANTS, LAWS, strict=False)))
def test_a_broken_engine_breaks_its_law(mutant: type[SymbolicMachine], law: Any) -> None:
    """Each law is refuted of a lowering that breaks the rule behind it."""
    assert not law(Laws(mutant))
