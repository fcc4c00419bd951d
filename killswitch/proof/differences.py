"""Runs on which two policies differ: both evaluate the same inputs, do the same at first, and then one does more.

A comparison needs no run for what it states of memory and response; people do. The run is searched with both machines
unrolled, and replayed by the engine for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import Graph
from killswitch.proof.against import Change
from killswitch.proof.alignment import aligned
from killswitch.proof.axioms import Inputs, assumptions, new_inputs
from killswitch.proof.machine import MachineLowering, StepTerms
from killswitch.proof.solver import Prover, Term
from killswitch.proof.verdicts import LONGEST, plainest
from killswitch.proof.witness import Evaluation, Witness, evaluations_of, replay


class RunApart(Struct, frozen=True):
    """A run of both policies on the same inputs; `graphs` and `runs` are those of base and head."""

    graphs: tuple[Graph, Graph]
    runs: tuple[Witness, Witness]

    @property
    def last_levels(self) -> tuple[int, int]:
        """The levels that base and head fire at the last evaluation; 0 for none."""
        levels = [_level(graph, run[-1].fired) for graph, run in zip(self.graphs, self.runs, strict=True)]
        return levels[0], levels[1]


def _level(graph: Graph, fired: str | None) -> int:
    return next((each.level for each in graph.stages if each.name == fired), 0)


def run_of_change(base: Graph, head: Graph, change: Change) -> RunApart | None:
    """The run of a difference in demand that the comparison has found, for both policies; None if it has none."""
    if change.witness is None or change.graph is None:
        return None
    graphs = aligned(base, head)
    seen = [each.seen for each in change.witness]
    runs = [replay(graph, [_for(graph, change.graph, each) for each in seen]) for graph in graphs]
    return RunApart(graphs, (runs[0], runs[1]))


def _for(graph: Graph, other: Graph, seen: Evaluation) -> Evaluation:
    """The inputs of an evaluation of `other` for `graph`: stages and triggers of one name decline and compute alike."""
    refused = {other.stages[i].name for i in seen.refused}
    limits = {other.triggers[i].name: limit for i, limit in seen.limits.items()}
    computed = [i for i, each in enumerate(graph.triggers) if each.threshold is not None and each.threshold.adaptive]
    return replace(
        seen,
        refused=frozenset(i for i, each in enumerate(graph.stages) if each.name in refused),
        limits={i: limits[graph.triggers[i].name] for i in computed if graph.triggers[i].name in limits},
    )


def run_apart(prover: Prover, base: Graph, head: Graph, *, base_is_harder: bool) -> RunApart | None:
    """The shortest run at whose end one fires harder, or one resets alone, after both have done the same.

    `base_is_harder`: base fires a level that head does not reach, and else the reverse. Nothing declines.
    """
    z3, graphs = prover.z3, aligned(base, head)
    lowered = [MachineLowering(z3, graph) for graph in graphs]
    states = [each.initial() for each in lowered]
    facts: list[Term] = []
    runs: list[tuple[Inputs, Inputs]] = []
    for number in range(LONGEST):
        ours, theirs, assumed = _shared(z3, graphs, f"apart{number}")
        facts += [*assumed, ours.now > runs[-1][0].now if runs else ours.now == 0]
        runs.append((ours, theirs))
        steps = [each.step(state, read) for each, state, read in zip(lowered, states, (ours, theirs), strict=True)]
        states = [each.state for each in steps]
        levels = [_fired_level(z3, graph, step) for graph, step in zip(graphs, steps, strict=True)]
        harder, softer = levels if base_is_harder else levels[::-1]
        other_reset = z3.And(steps[0].reset != steps[1].reset, steps[1].reset if base_is_harder else steps[0].reset)
        wanted = [z3.Or(harder > softer, other_reset)]
        answer, model = prover.model(*facts, *wanted)
        if answer == "sat":
            inputs = [each for each, _ in runs]
            model = plainest(prover, graphs[0], inputs, [*facts, *wanted], model)
            shown = [
                replay(graph, evaluations_of(model, graph, [each[i] for each in runs]))
                for i, graph in enumerate(graphs)
            ]
            found = RunApart(graphs, (shown[0], shown[1]))
            if _differs(found, base_is_harder=base_is_harder):
                return found
        facts += [levels[0] == levels[1], steps[0].reset == steps[1].reset]
    return None


def with_memory_of(base: Graph, head: Graph) -> Graph:
    """Base with the cooldowns and resets of the stages of head, so that a run shows what these alone change."""
    base, head = aligned(base, head)
    conditions, stages = list(base.conditions), []
    for stage in base.stages:
        other = next((each for each in head.stages if (each.name, each.level) == (stage.name, stage.level)), None)
        if other is None:
            stages.append(stage)
            continue
        rule = other.reset
        if rule is not None:
            conditions.append(head.conditions[rule.condition])
            rule = replace(rule, condition=len(conditions) - 1)
        stages.append(
            replace(
                stage, cooldown=other.cooldown, reset=rule, no_reset_for=other.no_reset_for,
                no_reset_before=other.no_reset_before, reset_approvals=other.reset_approvals,
            )
        )  # fmt: skip
    return replace(base, conditions=tuple(conditions), stages=tuple(stages))


def run_of_memory(prover: Prover, base: Graph, head: Graph, *, base_is_harder: bool) -> RunApart | None:
    """A run that only cooldowns and resets make different, and that base and head replay as different too."""
    found = run_apart(prover, base, with_memory_of(base, head), base_is_harder=base_is_harder)
    if found is None:
        return run_apart(prover, base, head, base_is_harder=base_is_harder)
    graphs = aligned(base, head)
    seen = [each.seen for each in found.runs[0]]
    head_run = replay(graphs[1], [_for(graphs[1], graphs[0], each) for each in seen])
    both = RunApart(graphs, (found.runs[0], head_run))
    return both if _differs(both, base_is_harder=base_is_harder) else None


def _shared(z3: Any, graphs: Sequence[Graph], name: str) -> tuple[Inputs, Inputs, list[Term]]:
    """Inputs of one evaluation for both, which decline nothing, and what is assumed of them."""
    ours, theirs = new_inputs(z3, graphs[0], name), new_inputs(z3, graphs[1], f"{name}_other")
    rules = {graphs[0].triggers[i].threshold: limit for i, limit in ours.limits.items()}
    limits = {i: rules.get(graphs[1].triggers[i].threshold, limit) for i, limit in theirs.limits.items()}
    theirs = replace(
        theirs, signals=ours.signals, now=ours.now, scheduled=ours.scheduled, lost=ours.lost, limits=limits
    )
    facts = [*assumptions(z3, graphs[0], ours), *assumptions(z3, graphs[1], theirs)]
    for each in (ours, theirs):
        facts += [z3.Not(term) for term in (*each.refused, each.by_hand)]
    return ours, theirs, facts


def _fired_level(z3: Any, graph: Graph, step: StepTerms) -> Term:
    """The level that an evaluation fires; 0 for none."""
    level: Term = z3.IntVal(0)
    for number, stage in enumerate(graph.stages):
        level = z3.If(step.fired == number, stage.level, level)
    return level


def _differs(found: RunApart, *, base_is_harder: bool) -> bool:
    base, head = found.last_levels
    resets = [run[-1].reset for run in found.runs]
    if base_is_harder:
        return base > head or (resets[1] and not resets[0])
    return head > base or (resets[0] and not resets[1])
