"""Whether one graph demands, at every evaluation of one history, a level as high as another graph does.

By induction over pairs of triggers from any state that both can share; runs only for witnesses, which the engine
replays. A stage that may decline answers only for stages that decline wherever it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.step import is_confirmed
from killswitch.graph.nodes import Graph, Stage
from killswitch.graph.wording import signals_of
from killswitch.proof.alignment import demand_key, trigger_key
from killswitch.proof.axioms import Inputs, assumptions, new_inputs, related
from killswitch.proof.machine import MachineLowering, MachineTerms, TriggerTerms
from killswitch.proof.responses import acts, declines_no_more
from killswitch.proof.solver import Prover, Term, any_of
from killswitch.proof.verdicts import plainest
from killswitch.proof.witness import Witness, evaluations_of, replay

LONGEST = 4
"""Evaluations of the longest run that is searched for a difference in demand."""


class DemandGap(Struct, frozen=True):
    """A stage of one graph that the other does not answer. `is_shown`: by `witness`; otherwise it is undecided."""

    text: str
    is_shown: bool
    witness: Witness | None


class BothLowered:
    """Two graphs over shared inputs; computed thresholds with equal rules are shared."""

    def __init__(self, prover: Prover, one: Graph, other: Graph) -> None:
        self.prover, self.z3 = prover, prover.z3
        self.graphs = (one, other)
        self.lowered = (MachineLowering(self.z3, one), MachineLowering(self.z3, other))

    def inputs(self, name: str) -> tuple[Inputs, Inputs, list[Term]]:
        """Inputs of one evaluation for both, and what is assumed of them."""
        one, other = self.graphs
        ours = new_inputs(self.z3, one, name)
        theirs = new_inputs(self.z3, other, f"{name}_other")
        rules = {one.triggers[i].threshold: limit for i, limit in ours.limits.items()}
        limits = {i: rules.get(other.triggers[i].threshold, limit) for i, limit in theirs.limits.items()}
        theirs = replace(theirs, signals=ours.signals, now=ours.now, scheduled=ours.scheduled, limits=limits)
        return ours, theirs, [*assumptions(self.z3, one, ours), *assumptions(self.z3, other, theirs)]


def demand_gap(prover: Prover, one: Graph, other: Graph) -> DemandGap | None:
    """What `one` demands and `other` does not answer, shown rather than undecided; None if it answers everything."""
    if demand_key(one) == demand_key(other):
        return None
    both = BothLowered(prover, one, other)
    levels = {stage.level for stage in other.stages}
    gaps = _gaps(both, [stage for stage in one.stages if acts(stage) or stage.level in levels])
    undecided = None
    for each in gaps:
        if each.is_shown:
            return each
        undecided = undecided or each
    return undecided


def _gaps(both: BothLowered, stages: Sequence[Stage]) -> Iterator[DemandGap]:
    """The stages that induction does not prove to be answered."""
    z3, (one, other) = both.z3, both.graphs
    ours, theirs = both.lowered[0].free("ours"), both.lowered[1].free("theirs")
    known = _relations(both, ours, theirs)
    for stage in stages:
        answering = [s for s in other.stages if _answers(one, stage, other, s)]
        answered = any_of(z3, [both.lowered[1].demands(s, theirs.triggers) for s in answering])
        demanded = both.lowered[0].demands(stage, ours.triggers)
        if both.prover.is_impossible(*known, demanded, z3.Not(answered)):
            continue
        witness = _difference(both, stage, answering)
        text = f"{stage.name} (level {stage.level}) is demanded, and the other demands no level as high"
        if any(s.level > stage.level and s not in answering for s in other.stages):
            text += " that fires wherever it does"
        if witness is None:
            text = f"whether {text} is not decided within {LONGEST} evaluations"
        yield DemandGap(text, witness is not None, witness)


def _answers(one: Graph, stage: Stage, other: Graph, its: Stage) -> bool:
    """Whether firing `its` answers that `stage` fires: its level is as high, and it declines no more easily.

    For stages of one level, the comparison of responses states whether it declines more easily.
    """
    return its.level == stage.level or (its.level > stage.level and declines_no_more(one, stage, other, its))


def _relations(both: BothLowered, ours: MachineTerms, theirs: MachineTerms) -> list[Term]:
    """For each pair of triggers that induction proves: the other is confirmed whenever ours is."""
    z3, (one, other) = both.z3, both.graphs
    inputs, others, facts = both.inputs("next")
    facts += [ours.at == theirs.at, inputs.now > ours.at]
    found = []
    for i, j in _pairs(one, other):
        rules = one.triggers[i], other.triggers[j]
        if trigger_key(rules[0]) == trigger_key(rules[1]):
            found.append(z3.Implies(ours.triggers[i].confirmed, theirs.triggers[j].confirmed))
            continue
        ticks = bool(rules[0].confirm_ticks and rules[1].confirm_ticks)

        def relation(a: MachineTerms, b: MachineTerms, i: int = i, j: int = j, ticks: bool = ticks) -> Term:
            less, more = a.triggers[i], b.triggers[j]
            counted = z3.Or(more.confirmed, more.ticks >= less.ticks) if ticks else z3.BoolVal(True)
            held = z3.Implies(less.held, z3.And(more.held, more.since <= less.since, counted))
            return z3.And(held, z3.Implies(less.confirmed, more.confirmed))

        ours_after = both.lowered[0].trigger(i, ours.triggers[i], both.lowered[0].condition(i, inputs), inputs)
        theirs_after = both.lowered[1].trigger(j, theirs.triggers[j], both.lowered[1].condition(j, others), others)
        after = (
            replace(ours, triggers=_with(ours.triggers, i, ours_after)),
            replace(theirs, triggers=_with(theirs.triggers, j, theirs_after)),
        )
        own = [
            *both.lowered[0].trigger_invariants(i, ours.triggers[i], ours.at),
            *both.lowered[1].trigger_invariants(j, theirs.triggers[j], theirs.at),
        ]
        if both.prover.is_impossible(*facts, *own, relation(ours, theirs), z3.Not(relation(*after))):
            found.append(z3.Implies(ours.triggers[i].confirmed, theirs.triggers[j].confirmed))
    return found


def _with(triggers: tuple[TriggerTerms, ...], i: int, changed: TriggerTerms) -> tuple[TriggerTerms, ...]:
    return (*triggers[:i], changed, *triggers[i + 1 :])


def _pairs(one: Graph, other: Graph) -> Iterator[tuple[int, int]]:
    """Pairs of triggers that may be connected: of one name, or else of a common signal."""
    names = {each.name: j for j, each in enumerate(other.triggers)}
    close = related(one.signals)
    for i, each in enumerate(one.triggers):
        same = names.get(each.name)
        if same is not None and trigger_key(other.triggers[same]) == trigger_key(each):
            yield i, same
            continue
        own = signals_of(each.condition)
        mine = own.union(*(pair for pair in close if own & {*pair}))
        for j, candidate in enumerate(other.triggers):
            if j == same or mine & signals_of(candidate.condition):
                yield i, j


def _difference(both: BothLowered, stage: Stage, answering: Sequence[Stage]) -> Witness | None:
    """A run after which ours demands the stage and the other none of these, as both engines replay it."""
    z3, (one, other) = both.z3, both.graphs
    states = both.lowered[0].initial(), both.lowered[1].initial()
    facts: list[Term] = []
    run: list[tuple[Inputs, Inputs]] = []
    ticks = max((each.confirm_ticks for each in one.triggers), default=0)
    for number in range(max(LONGEST, ticks + 1)):
        inputs, others, assumed = both.inputs(f"run{number}")
        facts += [*assumed, inputs.now > run[-1][0].now if run else inputs.now == 0]
        run.append((inputs, others))
        steps = both.lowered[0].step(states[0], inputs), both.lowered[1].step(states[1], others)
        states = steps[0].state, steps[1].state
        facts += [z3.Not(each.reset) for each in steps] + [z3.Not(inputs.by_hand), z3.Not(others.by_hand)]
        higher = [both.lowered[1].demands(s, steps[1].triggers) for s in answering]
        demanded = both.lowered[0].demands(stage, steps[0].triggers)
        wanted = [*facts, demanded, z3.Not(any_of(z3, higher))]
        answer, model = both.prover.model(*wanted)
        if answer != "sat":
            continue
        model = plainest(both.prover, one, [each for pair in run for each in pair], wanted, model)
        shown = replay(one, evaluations_of(model, one, [each for each, _ in run]))
        against = replay(other, evaluations_of(model, other, [each for _, each in run]))
        confirmed = against[-1].moved.triggers.confirmed
        is_answered = any(is_confirmed(each, confirmed) for each in answering)
        if is_confirmed(stage, shown[-1].moved.triggers.confirmed) and not is_answered:
            return shown
    return None
