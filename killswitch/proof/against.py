"""Comparison of two policy sets: in every situation that either can reach, whenever base fires, head fires as hard.

A situation is the history of inputs and the record of the last firing. The comparison has three parts. *Demand*: a
level that base confirms, head confirms or exceeds (by induction over pairs of triggers). *Memory*: what a firing leaves
behind (cooldown, reset, re-arming). *Response*: what a firing does. It does not state how many firings there are, how
much is closed in all, or how a run ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.actions.close import closes_among
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.nodes import CatastropheStopRule, Graph, PolicySet, SilenceRule, TimerRule
from killswitch.graph.recovery import RecoveryRule
from killswitch.graph.unwinding import UnwindingRule, unwinding_named
from killswitch.proof.alignment import aligned, resolved, same_level
from killswitch.proof.demand import demand_gap
from killswitch.proof.memory import compare_memory, held_up_resets
from killswitch.proof.responses import NOWHERE, Difference, compare_scopes, compare_stages, declines_alike
from killswitch.proof.solver import Prover
from killswitch.proof.witness import Witness

Word = Literal["TIGHTENING", "LOOSENING", "EQUIVALENT", "NEITHER", "UNDECIDED"]


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
        elif prover.is_over:
            changes.append(Change("scope", name, "not compared: the time for the proof was over before", None, None))
        else:
            changes += compare(prover, before[name], after[name])
            messages += _messages(before[name], after[name])
    changes += _of_sets(base, head)
    if [(r.rule, r.targets) for r in base.routes] != [(r.rule, r.targets) for r in head.routes]:
        messages.append("the notification routes differ")
    return SetComparison(tuple(changes), tuple(messages))


def _of_stops(name: str, before: CatastropheStopRule | None, after: CatastropheStopRule | None) -> Iterator[Change]:
    """What one catastrophe stop covers more or less than before; where it differs otherwise, neither is known."""
    if before == after:
        return
    what = "is new" if before is None else "is removed" if after is None else "differs"
    is_other = before is not None and after is not None
    added, removed = (None, None) if is_other else (before is None, after is None)
    yield Change("response", name, f"the catastrophe stop {name} {what}", added, removed)


def _of_sets(base: PolicySet, head: PolicySet) -> Iterator[Change]:
    """What the other documents change: how closes are carried out, timers, limits, what a strategy owns."""
    heads = {graph.policy: graph for graph in head.graphs}
    for graph in base.graphs:
        if graph.policy not in heads:
            continue
        before_rules, rules = _unwindings(base, graph), _unwindings(head, heads[graph.policy])
        if any(rules.get(name, rule) != rule for name, rule in before_rules.items()):
            yield Change("response", graph.policy, "its closes are carried out by other unwindings", False, False)
    shared = [_cap_groups(policies) for policies in (base, head)]
    for group in sorted({*shared[0], *shared[1]}):
        one, other = shared[0].get(group, ()), shared[1].get(group, ())
        if one != other and max(len(one), len(other)) > 1:
            text = f"other closes count for the daily cap that {', '.join(sorted({*one, *other}))} share as {group}"
            yield Change("response", "", text, False, False)
    switches: list[dict[str, TimerRule | SilenceRule]] = [
        {
            **{each.name: replace(each, place=NOWHERE) for each in policies.timers},
            **{each.name: replace(each, place=NOWHERE) for each in policies.silences},
        }
        for policies in (base, head)
    ]
    for name in sorted({*switches[0], *switches[1]}):
        before, after = switches[0].get(name), switches[1].get(name)
        if before != after:
            what = "is new" if before is None else "is removed" if after is None else "differs"
            yield Change("response", name, f"the dead-man switch {name} {what}", before is None, after is None)
    limited = [{each.name: each for each in policies.limits} for policies in (base, head)]
    for name in sorted({*limited[0], *limited[1]}):
        old, new = limited[0].get(name), limited[1].get(name)
        if old != new:
            what = "are new" if old is None else "are removed" if new is None else "differ"
            yield Change("response", name, f"the limits {name} of orders {what}", old is None, new is None)
    for graph in base.graphs:
        yield from _of_ways_back(graph, heads.get(graph.policy, graph))
    stops = [{each.name: replace(each, place=NOWHERE) for each in policies.stops} for policies in (base, head)]
    for name in sorted({*stops[0], *stops[1]}):
        yield from _of_stops(name, stops[0].get(name), stops[1].get(name))
    owned = [{each.name: each for each in policies.strategies} for policies in (base, head)]
    if owned[0] != owned[1]:
        yield Change("scope", "", "what belongs to a strategy differs, which changes the signals", None, None)


def _of_ways_back(base: Graph, head: Graph) -> Iterator[Change]:
    before, after = _way_back(base), _way_back(head)
    if before != after:
        what = "is new" if before is None else "is removed" if after is None else "differs"
        yield Change("response", base.policy, f"its way back {what}", before is None, after is None)


def _way_back(graph: Graph) -> tuple[RecoveryRule, object] | None:
    """The way back and its health condition, without the places that other parts of the policy move."""
    rule = graph.recovery
    if rule is None:
        return None
    healthy = resolved(graph.conditions[rule.health.condition], graph.signals)
    return replace(rule, place=NOWHERE, health=replace(rule.health, condition=0)), healthy


def _cap_groups(policies: PolicySet) -> dict[str, tuple[str, ...]]:
    """Group → the policies whose closes count for its daily cap."""
    found: dict[str, set[str]] = {}
    for graph in policies.graphs:
        for close in (each for stage in graph.stages for each in closes_among(stage.actions)):
            if close.cap_group is not None:
                found.setdefault(close.cap_group, set()).add(graph.policy)
    return {group: tuple(sorted(names)) for group, names in found.items()}


def _unwindings(policies: PolicySet, graph: Graph) -> dict[str | None, UnwindingRule]:
    actions = [action for stage in graph.stages for action in stage.actions]
    names = {name for action in actions for name in action_kind(action).unwindings(action)}
    return {name: unwinding_named(name, policies.unwindings) for name in names}


def compare(prover: Prover, base: Graph, head: Graph) -> list[Change]:
    """All differences of one policy."""
    base, head = aligned(base, head)
    found = [Change("scope", head.policy, *each) for each in compare_scopes(base, head)]
    found += _demand(prover, base, head)
    found += [Change("memory", head.policy, *each) for each in compare_memory(base, head)]
    found += [Change("memory", head.policy, *each) for each in held_up_resets(prover, base, head)]
    found += [Change("response", head.policy, *each) for each in _responses(base, head)]
    return found


def _demand(prover: Prover, base: Graph, head: Graph) -> Iterator[Change]:
    """Whether each confirms what the other does, in both directions."""
    softer, harder = demand_gap(prover, base, head), demand_gap(prover, head, base)
    if softer is not None:
        yield Change("demand", head.policy, softer.text, False if softer.is_shown else None, True, softer.witness, base)
    if harder is not None:
        text = f"head is harder: {harder.text}"
        yield Change("demand", head.policy, text, True, False if harder.is_shown else None, harder.witness, head)


def _responses(base: Graph, head: Graph) -> Iterator[Difference]:
    """What each level does, compared with the same level, or with lower ones where the other set lacks it."""
    if base.mode != head.mode:
        yield f"the mode is {head.mode}", head.mode == "enforce", base.mode == "enforce"
    for one, other in same_level(base, head):
        yield from compare_stages(base, one, head, other)
        if not declines_alike(base, one, head, other) and _is_shared(one.level, base, head):
            yield f"where {other.name} declines, the next stage of level {one.level} may fire instead", False, False
    for graph, others, is_head in ((head, base, True), (base, head, False)):
        levels = {stage.level for stage in others.stages}
        for stage in (each for each in graph.stages if each.level not in levels):
            for lower in (each for each in others.stages if each.level < stage.level):
                found = list(compare_stages(others, lower, graph, stage))
                if any(harder is not True for _, harder, _ in found):
                    text = f"only the highest level fires, and {stage.name} does less than {lower.name} in some respect"
                    yield (text, False, True) if is_head else (f"head lacks {stage.name}: {text}", True, False)


def _is_shared(level: int, *graphs: Graph) -> bool:
    return any(sum(each.level == level for each in graph.stages) > 1 for graph in graphs)


def _messages(base: Graph, head: Graph) -> Iterator[str]:
    """What differs in messages only."""
    for one, other in same_level(base, head):
        if (one.notify, one.runbook) != (other.notify, other.runbook):
            yield f"{head.policy}: {other.name} notifies others, or names another runbook"
    before = {each.name: (each.grace, each.warn_at) for each in base.triggers}
    for each in head.triggers:
        if each.name in before and before[each.name] != (each.grace, each.warn_at):
            yield f"{head.policy}: the grace or the warnings of {each.name} differ"
    if base.labels != head.labels:
        yield f"{head.policy}: its labels differ"
