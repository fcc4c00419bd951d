"""Verdicts, and the situation that the proofs of one policy share: one step from any state, and runs from the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from killswitch.graph.nodes import Graph
from killswitch.proof.axioms import Inputs, assumptions, new_inputs
from killswitch.proof.conditions import opaque_texts
from killswitch.proof.machine import MachineLowering, MachineTerms, StepTerms
from killswitch.proof.solver import Prover, Term
from killswitch.proof.witness import Witness, evaluations_of, replay

Outcome = Literal["proved", "refuted", "undecided"]


class ProofVerdict(Struct, frozen=True):
    """The verdict on one property of one policy. `text`: why, in a sentence. `seconds`: the time that it took."""

    property: str
    policy: str
    subject: str
    outcome: Outcome
    text: str
    witness: Witness | None = None
    seconds: float = 0.0


LONGEST = 6
"""Evaluations of the longest run that is searched for a witness."""


class Situation:
    """One policy with the terms that its proofs share."""

    def __init__(self, prover: Prover, graph: Graph) -> None:
        self.prover = prover
        self.graph = graph
        self.z3: Any = prover.z3
        self.lowering = MachineLowering(self.z3, graph)
        self.opaque = opaque_texts(graph)
        self.before: MachineTerms = self.lowering.free("before")
        self.inputs: Inputs = new_inputs(self.z3, graph, "next")
        self.step: StepTerms = self.lowering.step(self.before, self.inputs)
        self.input_facts: list[Term] = assumptions(self.z3, graph, self.inputs)
        self.facts: list[Term] = [
            *self.lowering.invariants(self.before), *self.input_facts,
            self.inputs.now > self.before.at,
        ]  # fmt: skip
        self._runs: list[tuple[Inputs, StepTerms, list[Term]]] = []

    def run(self, length: int) -> tuple[list[Inputs], list[StepTerms], list[Term]]:
        """The first evaluations from the initial state: inputs, results, and what is assumed of them."""
        while len(self._runs) < length:
            number = len(self._runs)
            inputs = new_inputs(self.z3, self.graph, f"run{number}")
            before = self._runs[-1][1].state if number else self.lowering.initial()
            facts = [*assumptions(self.z3, self.graph, inputs), self.z3.Not(inputs.by_hand)]
            facts.append(inputs.now > self._runs[-1][0].now if number else inputs.now == 0)
            self._runs.append((inputs, self.lowering.step(before, inputs), facts))
        part = self._runs[:length]
        return [each[0] for each in part], [each[1] for each in part], [fact for each in part for fact in each[2]]

    def witness(
        self,
        wanted: Callable[[Sequence[Inputs], Sequence[StepTerms]], list[Term]],
        shows: Callable[[Witness], bool],
        lengths: Sequence[int],
    ) -> tuple[Witness | None, bool]:
        """The shortest run of these lengths with what is `wanted` that the engine replays and that `shows` it.

        Also whether the search was complete: no question ran out of time, and no run that was found was rejected.
        """  # fmt: skip
        complete = True
        for length in lengths:
            inputs, steps, facts = self.run(length)
            answer, model = self.prover.model(*facts, *wanted(inputs, steps))
            if answer == "sat":
                replayed = replay(self.graph, evaluations_of(model, self.graph, inputs))
                if shows(replayed):
                    return replayed, complete
            complete = complete and answer == "unsat"
        return None, complete


def timed(
    clock: Callable[[], float], policy: str, name: str, found: Iterator[tuple[str, Outcome, str, Witness | None]]
) -> Iterator[ProofVerdict]:
    """The findings of one property, each with its time by `clock` (seconds)."""
    started = clock()
    for subject, outcome, text, witness in found:
        now = clock()
        yield ProofVerdict(name, policy, subject, outcome, text, witness, now - started)
        started = clock()
