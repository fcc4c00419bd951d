"""Comparison of what a firing leaves behind: cooldowns, resets, what re-arms a level, and what the signals remember."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from killswitch.graph.actions.registry import action_kind
from killswitch.graph.analysis.reachability import can_decline, is_confirmed_with
from killswitch.graph.nodes import Graph, SignalRef, Stage, Trigger
from killswitch.graph.wording import signals_of
from killswitch.model.effects import Lock, tag_of
from killswitch.proof.alignment import condition_key, firing_key, same_level, triggers_of
from killswitch.proof.axioms import assumptions, is_never_unknown, new_inputs
from killswitch.proof.machine import MachineLowering
from killswitch.proof.responses import Difference, declines_alike, picks, selects_losing
from killswitch.proof.solver import Prover
from killswitch.signals.catalogue import BY_NAME


def compare_memory(base: Graph, head: Graph) -> Iterator[Difference]:
    """What differs in memory between two graphs of the same columns."""
    for one, other in same_level(base, head):
        yield from _cooldowns(one, other)
        if _reset_key(base, one) != _reset_key(head, other):
            yield f"the reset of {other.name} differs: it re-arms lower levels and forgets falls", False, False
        yield from _approvals(one, other)
        yield from _rearming(base, one, head, other)
    if base.equity.max_gap != head.equity.max_gap and _reads_gaps(base, head):
        yield "`max_gap` differs: windows are complete at other times", False, False
    if replace(base.equity, max_gap=0) != replace(head.equity, max_gap=0):
        yield "the rules of the equity history differ, which change the signals themselves", None, None
    ends = [0 if each.disabled is None else each.disabled.until for each in (base, head)]
    if ends[0] != ends[1]:
        yield "the time for which the policy is disabled differs", ends[1] < ends[0], ends[0] < ends[1]
    yield from _latched(base, head)


def held_up_resets(prover: Prover, base: Graph, head: Graph) -> Iterator[Difference]:
    """Resets that a stage holds up in one graph only: while one that is due to fire declines, nothing resets."""
    for graph, other, name in ((base, head, "base"), (head, base, "head")):
        for stage, holding in _held_up(prover, graph, [each for each in graph.stages if not _has(other, graph, each)]):
            text = f"in {name}, {holding.name} may be due and decline at the reset of {stage.name}, which it holds up"
            yield text, False, False


def _has(graph: Graph, of: Graph, stage: Stage) -> bool:
    """Whether the graph has a stage that is demanded and declines exactly where this one does."""
    return any(
        firing_key(graph, each) == firing_key(of, stage) and declines_alike(graph, each, of, stage)
        for each in graph.stages
    )


def _held_up(prover: Prover, graph: Graph, changed: Sequence[Stage]) -> Iterator[tuple[Stage, Stage]]:
    """Stages that reset by themselves, each with one of `changed` that may be due in the same evaluation."""
    declining = [each for each in changed if can_decline(each)]
    if not declining or all(each.reset is None for each in graph.stages):
        return
    lowering = MachineLowering(prover.z3, graph)
    before, inputs = lowering.free("before"), new_inputs(prover.z3, graph, "next")
    facts = [*lowering.invariants(before), *assumptions(prover.z3, graph, inputs), inputs.now > before.at]
    verdicts = [lowering.condition(i, inputs) for i in range(len(graph.conditions))]
    triggers = [lowering.trigger(i, each, verdicts[i], inputs) for i, each in enumerate(before.triggers)]
    _, _, is_due = lowering.watch_reset(before, verdicts, inputs)
    for number, stage in enumerate(graph.stages):
        for each in declining if stage.reset is not None else ():
            eligible = lowering.eligible(each, before, triggers, inputs)
            if not prover.is_impossible(*facts, before.stage == number, is_due, eligible):
                yield stage, each


def _cooldowns(one: Stage, other: Stage) -> Iterator[Difference]:
    """A shorter cooldown is harder, unless it ends later than the calm of the reset, which it then delays."""
    if one.cooldown == other.cooldown:
        return
    gated = [each.reset.hold for each in (one, other) if each.reset is not None]
    text = f"the cooldown of {other.name} is {'shorter' if other.cooldown < one.cooldown else 'longer'}"
    if gated and max(one.cooldown, other.cooldown) > min(gated):
        yield f"{text}, and delays its reset", False, False
    else:
        yield text, other.cooldown < one.cooldown, other.cooldown > one.cooldown


def _approvals(one: Stage, other: Stage) -> Iterator[Difference]:
    """More people for a reset by hand are harder while the stage holds a lock; without one it is only silent longer."""
    if one.reset_approvals == other.reset_approvals:
        return
    fewer = other.reset_approvals < one.reset_approvals
    are_locked = all(any(tag_of(Lock) in action_kind(it).effects for it in stage.actions) for stage in (one, other))
    text = f"{'fewer' if fewer else 'more'} people approve a reset of {other.name} by hand"
    yield f"{text}: {other.reset_approvals}, from {one.reset_approvals}", are_locked and not fewer, are_locked and fewer


def _reset_key(graph: Graph, stage: Stage) -> object:
    rule = stage.reset
    held = stage.no_reset_for, stage.no_reset_before
    return held, None if rule is None else (graph.conditions[rule.condition], replace(rule, condition=0))


def _rearming(base: Graph, one: Stage, head: Graph, other: Stage) -> Iterator[Difference]:
    """Whether each re-arms its level at least where the other does, and is confirmed again no later."""
    keeps, mirror = _rearms_no_less(base, one, head, other), _rearms_no_less(head, other, base, one)
    if not (keeps and mirror):
        text = f"other conditions of the book re-arm {other.name}: it fires again without a new loss, or no more"
        yield text, keeps, mirror


def _rearms_no_less(base: Graph, one: Stage, head: Graph, other: Stage) -> bool:
    """Whether each condition that re-arms `one` re-arms `other` too, confirmed whenever it is there.

    A lower threshold does not: what is false less often is true again less often.
    """
    theirs = [each for each in triggers_of(head, other) if each.rearms]
    return all(
        any(condition_key(its) == condition_key(mine) and _is_confirmed_with(head, its, mine) for its in theirs)
        for mine in triggers_of(base, one)
        if mine.rearms
    )


def _is_confirmed_with(graph: Graph, its: Trigger, mine: Trigger) -> bool:
    """Whether `its` is confirmed whenever `mine` is, of one condition; answers to unknown count where it may be."""
    if all(is_never_unknown(graph.signals[i].name) for i in signals_of(its.condition)):
        its = replace(its, on_unknown=mine.on_unknown)
    return is_confirmed_with(its, mine)


def _reads_gaps(base: Graph, head: Graph) -> bool:
    """Whether anything in either graph may depend on `max_gap`.

    Signals without arguments and collectors read the present, or a start and a peak, over gaps of any length.
    """
    stages = [(graph, stage) for graph in (base, head) for stage in graph.stages]
    return (
        any(_reads_history(each) for each in (*base.signals, *head.signals))
        or any(picks(stage) or selects_losing(stage) for _, stage in stages)
        or any(each.threshold is not None and each.threshold.adaptive for each in (*base.triggers, *head.triggers))
    )


def _reads_history(signal: SignalRef) -> bool:
    return bool(signal.arguments) or bool(BY_NAME[signal.name].collects)


def _outlasts(graph: Graph, stage: Stage, other: Graph, lower: Stage) -> bool:
    """Whether the stage may be in force when `lower` would have been reset, or would fire again after its cooldown."""
    if stage.cooldown > lower.cooldown or (stage.no_reset_for or 0) > (lower.no_reset_for or 0):
        return True
    return _reset_key(graph, stage) != _reset_key(other, lower) and lower.reset is not None


def _latched(base: Graph, head: Graph) -> Iterator[Difference]:
    """Levels of one graph only: nothing is claimed of a scope that is latched there when the policy is exchanged."""
    for graph, other, name in ((base, head, "base"), (head, base, "head")):
        levels = {each.level for each in other.stages}
        lacking = [each for each in graph.stages if each.level not in levels]
        if lacking:
            named = ", ".join(f"{each.name} (level {each.level})" for each in lacking)
            yield (
                f"only {name} has {named}: nothing is claimed of a scope that is latched there, which in the other set "
                "stays latched until a person resets it",
                True,
                True,
            )
        for stage in lacking:
            for lower in (each for each in other.stages if each.level < stage.level):
                if _outlasts(graph, stage, other, lower):
                    text = (
                        f"{stage.name}, which only {name} has, stays in force longer than {lower.name} would, "
                        "whose firings it silences"
                    )
                    yield (text, False, True) if graph is head else (text, True, False)
