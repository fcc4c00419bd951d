"""Invariants of one policy: by induction over one or two evaluations from any state, else in bounded runs.

An invariant is judged after the firing of an evaluation, at the signals that the evaluation has read and at the level
in force then. It is violated where it is surely false: where a signal is unknown, it may be neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from killswitch.engine.state import level_in_force
from killswitch.graph.invariants import Invariant
from killswitch.graph.lowering import FALSE, lower_one
from killswitch.graph.nodes import Compare, Graph, Number, SignalRef
from killswitch.graph.wording import signals_of
from killswitch.proof.axioms import Inputs, assumptions, new_inputs
from killswitch.proof.conditions import ConditionLowering, SignalInput, Verdict, opaque_texts
from killswitch.proof.machine import MachineTerms, StepTerms
from killswitch.proof.solver import Prover, Term
from killswitch.proof.verdicts import LONGEST, ProofVerdict, Result, Situation, opaque_words, timed
from killswitch.proof.witness import Replayed
from killswitch.render.formats import count_of

HOLDS = "an invariant holds"
STEPS = 2
"""Evaluations of an induction: that all but the last satisfy the invariant may be assumed."""


def prove_invariants(prover: Prover, graph: Graph, invariants: Sequence[Invariant]) -> Iterator[ProofVerdict]:
    """The verdict on each invariant of the policy."""
    for each in invariants:
        if each.policy == graph.policy:
            yield from timed(prover, graph.policy, HOLDS, (_verdict(prover, graph, one) for one in (each,)))


def with_columns(graph: Graph, invariant: Invariant) -> Graph:
    """The graph with the columns of the invariant after its own; a witness of the invariant runs on it."""
    return replace(graph, signals=invariant.signals)


def _verdict(prover: Prover, graph: Graph, invariant: Invariant) -> Result:
    found = Situation(prover, with_columns(graph, invariant))
    violated = _Violation(prover.z3, invariant)
    if _is_empty(found, violated):
        text = (
            "it follows from the ranges of its signals alone, whatever the policy does, so that it states nothing; "
            f"check its numbers (is a percent sign missing?): {invariant.text}"
        )
        return invariant.name, "undecided", text, None
    for steps in range(1, STEPS + 1):
        if _is_inductive(found, violated, steps):
            return invariant.name, "proved", f"in every situation: {invariant.text}", None

    def wanted(inputs: Sequence[Inputs], run: Sequence[StepTerms]) -> list[Term]:
        return [violated.term(inputs[-1], run[-1].state)]

    is_false = is_violated(invariant)
    witness, complete = found.witness(wanted, lambda shown: is_false(shown[-1]), range(1, LONGEST + 1))
    if witness is not None:
        why = f"; it matters because: {invariant.because}" if invariant.because else ""
        text = f"surely false after {count_of(len(witness), 'evaluation')}: {invariant.text}{why}"
        return invariant.name, "refuted", text, witness
    opaque = [*found.opaque, *opaque_texts(replace(found.graph, conditions=violated.conditions))]
    bound = f"it holds in every run of at most {LONGEST} evaluations, and longer ones are not decided"
    bound = bound if complete else f"no counterexample was found in runs of at most {LONGEST} evaluations"
    return invariant.name, "undecided", f"no induction proves it; {bound}{opaque_words(opaque)}", None


def _is_empty(found: Situation, violated: _Violation) -> bool:
    """Whether no values of the signals violate it, whichever level were in force."""
    z3, graph = found.z3, found.graph
    inputs, level = new_inputs(z3, graph, "any"), z3.Int("any_level")
    state = replace(found.step.state, level=level)
    return found.prover.is_impossible(*assumptions(z3, graph, inputs), level >= 0, violated.term(inputs, state)) is True


def _is_inductive(found: Situation, violated: _Violation, steps: int) -> bool:
    """Whether no state that an evaluation leaves is followed by `steps` evaluations of which only the last violates."""
    z3, facts = found.z3, list(found.facts)
    inputs, step = found.inputs, found.step
    for number in range(1, steps):
        facts.append(z3.Not(violated.term(inputs, step.state)))
        following = new_inputs(z3, found.graph, f"induction{number}")
        facts += [*assumptions(z3, found.graph, following), following.now > inputs.now]
        inputs, step = following, found.lowering.step(step.state, following)
    return found.prover.is_impossible(*facts, violated.term(inputs, step.state)) is True


class _Violation:
    """Where an invariant is surely false."""

    def __init__(self, z3: Any, invariant: Invariant) -> None:
        self._z3 = z3
        self._invariant = invariant

    def term(self, inputs: Inputs, state: MachineTerms) -> Term:
        """Whether it is surely false of these inputs and the state after them."""
        level = self._z3.ToReal(state.level)
        column = SignalInput(level, level, self._z3.BoolVal(False), self._z3.IntVal(0))
        lowering = _WithLevel(self._z3, self._invariant.signals)
        return lowering.verdict(self._invariant.condition, (*inputs.signals, column)).false

    @property
    def conditions(self) -> tuple[Any, ...]:
        """The parts of it that read signals only."""
        from killswitch.graph.invariants import comparisons

        level = self._invariant.level_column
        return tuple(each for each in comparisons(self._invariant.condition) if level not in signals_of(each))


class _WithLevel(ConditionLowering):
    """Conditions of which the column after the signals is the level in force."""

    def __init__(self, z3: Any, signals: Sequence[SignalRef]) -> None:
        super().__init__(z3, signals)
        self._level = len(signals)

    def _compare(self, node: Compare, inputs: Sequence[SignalInput]) -> Verdict:
        if self._level not in signals_of(node):
            return super()._compare(node, inputs)
        level = inputs[self._level].low
        ends = [self._z3_number(side, level) for side in (node.left, node.right)]
        true = {
            "<": ends[0] < ends[1], "<=": ends[0] <= ends[1], ">": ends[0] > ends[1], ">=": ends[0] >= ends[1],
            "==": ends[0] == ends[1], "!=": ends[0] != ends[1],
        }[node.op]  # fmt: skip
        return Verdict(true, self.z3.Not(true))

    def _z3_number(self, side: object, level: Term) -> Term:
        return self.z3.RealVal(int(side.value)) if isinstance(side, Number) else level


def is_violated(invariant: Invariant) -> Callable[[Replayed], bool]:
    """Whether the engine's own evaluation finds the invariant surely false after an evaluation of a witness."""
    evaluate = lower_one(invariant.condition)

    def judged(each: Replayed) -> bool:
        level = float(level_in_force(each.state))
        low, high = [*each.seen.low, level], [*each.seen.high, level]
        return evaluate(low, high, [*each.seen.text, None]) == FALSE

    return judged
