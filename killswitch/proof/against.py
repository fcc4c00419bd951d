"""Comparison of two policy sets: in every situation that either can reach, whenever base fires, head fires as hard.

A situation is the history of inputs and the record of the last firing. The comparison has three parts. *Demand*: a
level that base confirms, head confirms or exceeds (by induction over pairs of triggers). *Memory*: what a firing leaves
behind (cooldown, reset, re-arming). *Response*: what a firing does. It does not state how many firings there are, how
much is closed in all, or how a run ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.analysis.reachability import can_decline
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    Compare,
    ConditionNode,
    Graph,
    Not,
    NumberNode,
    PolicySet,
    SignalRead,
    SignalRef,
    Stage,
    TextIs,
    Threshold,
    Trigger,
)
from killswitch.graph.wording import condition_text, signals_of
from killswitch.proof.axioms import Inputs, assumptions, new_inputs, related
from killswitch.proof.machine import MachineLowering, MachineTerms, TriggerTerms
from killswitch.proof.responses import compare_scopes, compare_stages
from killswitch.proof.solver import Prover, Term, any_of
from killswitch.proof.verdicts import plainest
from killswitch.proof.witness import Witness, evaluations_of, replay

Word = Literal["TIGHTENING", "LOOSENING", "EQUIVALENT", "NEITHER", "UNDECIDED"]
LONGEST = 4
"""Evaluations of the longest run that is searched for a difference in demand."""


class Change(Struct, frozen=True):
    """One difference. `keeps`: whether head is at least as hard; `exceeds_nothing`: whether base is.

    None is undecided. `witness`: a run of base (or of head, if head is harder) that shows it.
    """

    part: Literal["demand", "memory", "response", "scope"]
    policy: str
    text: str
    keeps: bool | None
    exceeds_nothing: bool | None
    witness: Witness | None = None
    graph: Graph | None = None
    """The graph that the witness runs on, with the columns of both."""


class SetComparison(Struct, frozen=True):
    """The verdict on two policy sets, its changes, and the changes of messages."""

    changes: tuple[Change, ...]
    messages: tuple[str, ...]

    def verdict(self, part: str | None = None) -> Word:
        """The verdict on one part, or on everything."""
        of_part = [each for each in self.changes if part in (None, each.part)]
        keeps, mirror = [each.keeps for each in of_part], [each.exceeds_nothing for each in of_part]
        if False in keeps and False in mirror:
            return "NEITHER"
        if None in keeps or None in mirror:
            return "UNDECIDED"
        if False in keeps:
            return "LOOSENING"
        return "TIGHTENING" if False in mirror else "EQUIVALENT"


def compare_sets(prover: Prover, base: PolicySet, head: PolicySet) -> SetComparison:
    """Compare head with base; policies are matched by name."""
    before, after = ({graph.policy: graph for graph in each.graphs} for each in (base, head))
    changes: list[Change] = []
    messages: list[str] = []
    for name in sorted({*before, *after}):
        if name not in after:
            changes.append(Change("scope", name, "the policy is removed", False, True))
        elif name not in before:
            changes.append(Change("scope", name, "the policy is new", True, False))
        else:
            changes += compare(prover, before[name], after[name])
            messages += _messages(before[name], after[name])
    if [(r.rule, r.targets) for r in base.routes] != [(r.rule, r.targets) for r in head.routes]:
        messages.append("the notification routes differ")
    return SetComparison(tuple(changes), tuple(messages))


def compare(prover: Prover, base: Graph, head: Graph) -> list[Change]:
    """All differences of one policy."""
    base, head = aligned(base, head)
    found = [Change("scope", head.policy, *each) for each in compare_scopes(base, head)]
    found += _demand(prover, base, head)
    found += [Change("memory", head.policy, *each) for each in _memory(base, head)]
    found += [Change("response", head.policy, *each) for each in _responses(base, head)]
    return found


# The same columns in both


def aligned(base: Graph, head: Graph) -> tuple[Graph, Graph]:
    """Both graphs with the signals of both as their columns, in one order."""
    columns = tuple(dict.fromkeys((*base.signals, *head.signals)))
    return _moved(base, columns), _moved(head, columns)


def _moved(graph: Graph, columns: tuple[SignalRef, ...]) -> Graph:
    place = [columns.index(each) for each in graph.signals]
    conditions = tuple(_condition(each, place) for each in graph.conditions)
    triggers = tuple(
        replace(each, condition=conditions[i], threshold=_threshold_of(each, place))
        for i, each in enumerate(graph.triggers)
    )
    return replace(graph, signals=columns, conditions=conditions, triggers=triggers)


def _threshold_of(trigger: Trigger, place: Sequence[int]) -> Threshold | None:
    own = trigger.threshold
    if own is None:
        return None
    rule = own.adaptive
    if rule is not None and rule.column is not None:
        rule = replace(rule, column=place[rule.column])
    return replace(own, index=place[own.index], adaptive=rule)


def _condition(node: ConditionNode, place: Sequence[int]) -> ConditionNode:
    if isinstance(node, AllOf | AnyOf):
        return type(node)(tuple(_condition(part, place) for part in node.parts))
    if isinstance(node, Not):
        return Not(_condition(node.part, place))
    if isinstance(node, TextIs):
        return replace(node, index=place[node.index])
    if isinstance(node, Compare):
        return Compare(node.op, _number(node.left, place), _number(node.right, place))
    return node


def _number(node: NumberNode, place: Sequence[int]) -> NumberNode:
    if isinstance(node, SignalRead):
        return SignalRead(place[node.index])
    if isinstance(node, Arithmetic):
        return Arithmetic(node.op, _number(node.left, place), _number(node.right, place))
    return node


# Demand


class _Both:
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


def _demand(prover: Prover, base: Graph, head: Graph) -> Iterator[Change]:
    """Whether each confirms what the other does, in both directions."""
    if _demand_key(base) == _demand_key(head):
        return
    for one, other, is_base in ((base, head, True), (head, base, False)):
        levels = {stage.level for stage in other.stages}
        kept = [stage for stage in one.stages if stage.actions or stage.level in levels]
        result, text, witness = _implied(_Both(prover, one, other), kept)
        if is_base and result is not True:
            yield Change("demand", head.policy, text, result, True, witness, one)
        elif not is_base and result is not True:
            yield Change("demand", head.policy, f"head is harder: {text}", True, result, witness, one)


def _demand_key(graph: Graph) -> object:
    keys = [_key(each) for each in graph.triggers]
    return [(s.level, [keys[i] for i in s.any_of], [keys[i] for i in s.all_of]) for s in graph.stages]


def _key(trigger: Trigger) -> object:
    """What decides when a trigger is confirmed."""
    limit = None if trigger.threshold is None else trigger.threshold.adaptive
    return trigger.condition, limit, trigger.confirm, trigger.confirm_ticks, trigger.on_unknown


def _implied(both: _Both, stages: Sequence[Stage]) -> tuple[bool | None, str, Witness | None]:
    """Whether the other graph always demands the level of each of these stages, or a higher one."""
    z3, other = both.z3, both.graphs[1]
    ours, theirs = both.lowered[0].free("ours"), both.lowered[1].free("theirs")
    known = _relations(both, ours, theirs)
    for stage in stages:
        higher = [both.lowered[1].demands(s, theirs.triggers) for s in other.stages if _answers(stage, s)]
        demanded = both.lowered[0].demands(stage, ours.triggers)
        if not both.prover.is_impossible(*known, demanded, z3.Not(any_of(z3, higher))):
            witness = _difference(both, stage)
            text = f"{stage.name} (level {stage.level}) is demanded, and the other demands no level as high"
            if witness is not None:
                return False, text, witness
            return None, f"whether {text} is not decided within {LONGEST} evaluations", None
    return True, "", None


def _answers(stage: Stage, other: Stage) -> bool:
    """Whether firing `other` answers that `stage` fires: its level is as high, and it declines no more easily.

    For stages of one level, the comparison of responses states whether it declines more easily.
    """
    if other.level <= stage.level:
        return other.level == stage.level
    return not can_decline(other) or (can_decline(stage) and stage.corroborate >= other.corroborate)


def _relations(both: _Both, ours: MachineTerms, theirs: MachineTerms) -> list[Term]:
    """For each pair of triggers that induction proves: the other is confirmed whenever ours is."""
    z3, (one, other) = both.z3, both.graphs
    inputs, others, facts = both.inputs("next")
    facts += [*both.lowered[0].invariants(ours), *both.lowered[1].invariants(theirs), ours.at == theirs.at]
    facts.append(inputs.now > ours.at)
    found = []
    for i, j in _pairs(one, other):
        rules = one.triggers[i], other.triggers[j]
        if _key(rules[0]) == _key(rules[1]):
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
        if both.prover.is_impossible(*facts, relation(ours, theirs), z3.Not(relation(*after))):
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
        if same is not None and _key(other.triggers[same]) == _key(each):
            yield i, same
            continue
        own = signals_of(each.condition)
        mine = own.union(*(pair for pair in close if own & {*pair}))
        for j, candidate in enumerate(other.triggers):
            if j == same or mine & signals_of(candidate.condition):
                yield i, j


def _difference(both: _Both, stage: Stage) -> Witness | None:
    """A run after which ours demands the stage and the other nothing as high, as both engines replay it."""
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
        higher = [both.lowered[1].demands(s, steps[1].triggers) for s in other.stages if _answers(stage, s)]
        demanded = both.lowered[0].demands(stage, steps[0].triggers)
        answer, model = both.prover.model(*facts, demanded, z3.Not(any_of(z3, higher)))
        if answer != "sat":
            continue
        every = [each for pair in run for each in pair]
        model = plainest(both.prover, one, every, [*facts, demanded, z3.Not(any_of(z3, higher))], model)
        shown = replay(one, evaluations_of(model, one, [each for each, _ in run]))
        against = replay(other, evaluations_of(model, other, [each for _, each in run]))
        if shown[-1].demanded >= stage.level > against[-1].demanded:
            return shown
    return None


# Memory


Difference = tuple[str, bool | None, bool | None]
"""Text, whether head is at least as hard, whether base is."""


def _memory(base: Graph, head: Graph) -> Iterator[Difference]:
    for one, other in _same_level(base, head):
        gated = [each.reset.hold for each in (one, other) if each.reset is not None]
        if one.cooldown != other.cooldown:
            text = f"the cooldown of {other.name} is {'shorter' if other.cooldown < one.cooldown else 'longer'}"
            if gated and max(one.cooldown, other.cooldown) > min(gated):
                yield f"{text}, and delays its reset", False, False
            else:
                yield text, other.cooldown < one.cooldown, other.cooldown > one.cooldown
        if _reset_key(base, one) != _reset_key(head, other):
            yield f"the reset of {other.name} differs: it re-arms lower levels and forgets falls", False, False
        if _rearming(base, one) != _rearming(head, other):
            text = f"other conditions of the book re-arm {other.name}: it fires again without a new loss, or no more"
            yield text, False, False
    windowed = any(each.window is not None for each in (*base.signals, *head.signals))
    if base.equity.max_gap != head.equity.max_gap and windowed:
        yield "`max_gap` differs: windows are complete at other times", False, False
    if replace(base.equity, max_gap=0) != replace(head.equity, max_gap=0):
        yield "the rules of the equity history differ, which change the signals themselves", None, None
    if base.disabled != head.disabled:
        yield "the time for which the policy is disabled differs", head.disabled is None, base.disabled is None


def _same_level(base: Graph, head: Graph) -> Iterator[tuple[Stage, Stage]]:
    """Stages of one level; of several of one level those of one name, or else all pairs."""
    for one in base.stages:
        fitting = [each for each in head.stages if each.level == one.level]
        named = [each for each in fitting if each.name == one.name]
        yield from ((one, each) for each in named or fitting)


def _reset_key(graph: Graph, stage: Stage) -> object:
    rule = stage.reset
    held = stage.no_reset_for, stage.no_reset_before
    return held, None if rule is None else (graph.conditions[rule.condition], replace(rule, condition=0))


def _rearming(graph: Graph, stage: Stage) -> frozenset[str]:
    triggers = (graph.triggers[i] for i in (*stage.any_of, *stage.all_of))
    return frozenset(condition_text(each.condition, graph.signals) for each in triggers if each.rearms)


# Response


def _responses(base: Graph, head: Graph) -> Iterator[Difference]:
    """What each level does, compared with the same level, or with lower ones where the other set lacks it."""
    if base.mode != head.mode:
        yield f"the mode is {head.mode}", head.mode == "enforce", base.mode == "enforce"
    for one, other in _same_level(base, head):
        yield from compare_stages(base, one, head, other)
    for graph, others, is_head in ((head, base, True), (base, head, False)):
        levels = {stage.level for stage in others.stages}
        for stage in (each for each in graph.stages if each.level not in levels):
            for lower in (each for each in others.stages if each.level < stage.level):
                found = list(compare_stages(others, lower, graph, stage))
                if any(harder is not True for _, harder, _ in found):
                    text = f"only the highest level fires, and {stage.name} does less than {lower.name} in some respect"
                    yield (text, False, True) if is_head else (f"head lacks {stage.name}: {text}", True, False)


def _messages(base: Graph, head: Graph) -> Iterator[str]:
    """What differs in messages only."""
    for one, other in _same_level(base, head):
        if (one.notify, one.runbook) != (other.notify, other.runbook):
            yield f"{head.policy}: {other.name} notifies others, or names another runbook"
    before = {each.name: (each.grace, each.warn_at) for each in base.triggers}
    for each in head.triggers:
        if each.name in before and before[each.name] != (each.grace, each.warn_at):
            yield f"{head.policy}: the grace or the warnings of {each.name} differ"
    if base.labels != head.labels:
        yield f"{head.policy}: its labels differ"
