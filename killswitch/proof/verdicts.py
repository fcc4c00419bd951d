"""Verdicts, and the situation that the proofs of one policy share: one step from any state, and runs from the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct

from killswitch.graph.nodes import Graph
from killswitch.proof.axioms import Inputs, assumptions, new_inputs
from killswitch.proof.conditions import opaque_texts
from killswitch.proof.machine import MachineLowering, MachineTerms, StepTerms
from killswitch.proof.solver import Prover, Term, real
from killswitch.proof.witness import Witness, evaluations_of, replay
from killswitch.render.formats import count_of

Outcome = Literal["proved", "refuted", "undecided"]
Result = tuple[str, Outcome, str, Witness | None]
"""Subject, verdict, why, and a witness."""


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
        *,
        is_shown: bool = True,
    ) -> tuple[Witness | None, bool]:
        """The shortest run of these lengths with what is `wanted` that the engine replays and that `shows` it.

        Also whether the search was complete: no question ran out of time, and no run that was found was rejected.
        `is_shown`: whether people see it, so that it should be as plain as it can be.
        """
        complete = True
        for length in lengths:
            inputs, steps, facts = self.run(length)
            answer, model = self.prover.model(*facts, *wanted(inputs, steps))
            if answer == "sat":
                if is_shown:
                    model = plainest(self.prover, self.graph, inputs, [*facts, *wanted(inputs, steps)], model)
                replayed = replay(self.graph, evaluations_of(model, self.graph, inputs))
                if shows(replayed):
                    return replayed, complete
            complete = complete and answer == "unsat"
        return None, complete


def plainest(prover: Prover, graph: Graph, run: Sequence[Inputs], facts: Sequence[Term], model: Any) -> Any:
    """A model of the facts that is easy to read: each of these wishes is met that the earlier ones allow.

    Computed thresholds as they are at the start, scheduled evaluations that nothing declines, no loss since the last
    firing, at most a day, whole minutes or seconds, known values, values that never change.
    """
    z3, kept = prover.z3, list(facts)
    numbers = [read for each in run for read in each.signals]
    computed = {i: each.threshold.adaptive for i, each in enumerate(graph.triggers) if each.threshold is not None}
    initial = {i: rule.initial for i, rule in computed.items() if rule is not None}
    wishes = [
        [limit == real(z3, initial[i]) for each in run for i, limit in each.limits.items()],
        [each.scheduled for each in run],
        [z3.Not(refused) for each in run for refused in each.refused],
        [z3.Not(each.lost) for each in run],
        [run[-1].now <= 86_400_000_000],
        [each.now == 60_000_000 * z3.Int(f"minute{i}") for i, each in enumerate(run)],
        [each.now == 1_000_000 * z3.Int(f"second{i}") for i, each in enumerate(run)],
        [z3.Not(read.unknown) for read in numbers],
        [z3.Implies(z3.Not(read.unknown), read.low == read.high) for read in numbers],
        [
            z3.And(a.low == b.low, a.high == b.high)
            for each in run
            for a, b in zip(each.signals, run[0].signals, strict=True)
        ],
    ]
    answer, found = prover.model(*kept, *(fact for wish in wishes for fact in wish))
    if answer == "sat":  # most often, at the cost of one question
        return found
    for wish in filter(None, wishes):
        answer, found = prover.model(*kept, *wish)
        if answer == "sat":
            kept += wish
            model = found
    return model


def timed(prover: Prover, policy: str, name: str, found: Iterator[Result]) -> Iterator[ProofVerdict]:
    """The findings of one property, each with its time; what is undecided because time ran out says so."""
    started, unanswered = prover.clock(), prover.unanswered
    for subject, outcome, text, witness in found:
        now = prover.clock()
        late = prover.unanswered - unanswered if outcome == "undecided" else 0
        why = "; ".join(each for each in (text, out_of_time(prover, late) if late else "") if each)
        yield ProofVerdict(name, policy, subject, outcome, why, witness, now - started)
        started, unanswered = prover.clock(), prover.unanswered


def opaque_words(texts: Sequence[str]) -> str:
    """What of a policy is not lowered, and what to write instead; empty if everything is."""
    if not texts:
        return ""
    named = ", ".join(dict.fromkeys(texts))
    return f"; it contains {named}, which cannot be lowered: compare each signal with a number, or with another signal"


def out_of_time(prover: Prover, questions: int) -> str:
    """Why questions were not answered, and what to do about it."""
    if prover.is_over:
        return f"the time of all questions together was over before {count_of(questions, 'question')}: raise --timeout"
    return (
        f"z3 did not answer {count_of(questions, 'question')} within {prover.limit:g} s each: raise --limit, or "
        "simplify: fewer triggers in a stage, an expression as several triggers, arithmetic of one signal only"
    )
