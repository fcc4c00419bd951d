"""Two graphs made comparable: the same columns in both, keys of what decides a trigger, and stages of one level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    Compare,
    ConditionNode,
    Graph,
    Not,
    NumberNode,
    SignalRead,
    SignalRef,
    Stage,
    TextIs,
    Threshold,
    Trigger,
)
from killswitch.graph.wording import signals_of


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


def resolved(node: ConditionNode, columns: Sequence[SignalRef]) -> object:
    """A condition with its signals in place of their columns: equal where two conditions are."""
    used = tuple(dict.fromkeys(columns[i] for i in sorted(signals_of(node))))
    return used, _condition(node, [used.index(each) if each in used else 0 for each in columns])


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


def trigger_key(trigger: Trigger) -> object:
    """What decides when a trigger is confirmed."""
    return condition_key(trigger), trigger.confirm, trigger.confirm_ticks, trigger.on_unknown


def condition_key(trigger: Trigger) -> object:
    """What decides when the condition of a trigger is true."""
    return trigger.condition, None if trigger.threshold is None else trigger.threshold.adaptive


def triggers_of(graph: Graph, stage: Stage) -> list[Trigger]:
    """The triggers that a stage names, each once."""
    return [graph.triggers[i] for i in dict.fromkeys((*stage.any_of, *stage.all_of))]


def firing_key(graph: Graph, stage: Stage) -> object:
    """What decides when a stage is demanded."""
    keys = [trigger_key(each) for each in graph.triggers]
    return stage.level, tuple(keys[i] for i in stage.any_of), tuple(keys[i] for i in stage.all_of)


def demand_key(graph: Graph) -> object:
    """What decides which levels are demanded."""
    return [firing_key(graph, each) for each in graph.stages]


def same_level(base: Graph, head: Graph) -> Iterator[tuple[Stage, Stage]]:
    """Pairs of stages of one level of which the second may fire where the first does.

    Where several stages share a level the first of them that is demanded fires, so that any may answer any other one,
    unless all of them are demanded alike, in the same order.
    """
    for level in dict.fromkeys(each.level for each in base.stages):
        ours, theirs = ([each for each in graph.stages if each.level == level] for graph in (base, head))
        keys = [[firing_key(graph, s) for s in stages] for graph, stages in ((base, ours), (head, theirs))]
        if keys[0] == keys[1]:
            yield from zip(ours, theirs, strict=True)
        else:
            yield from ((one, other) for one in ours for other in theirs)
