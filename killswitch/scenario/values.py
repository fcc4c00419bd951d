"""What the parts of a stage or a trigger were at a step: every clause with its interval, its truth and its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from killswitch.engine.step import is_confirmed
from killswitch.graph.lowering import FALSE, TRUE, lower_one
from killswitch.graph.nodes import AllOf, AnyOf, ConditionNode, Not, Stage, TextIs
from killswitch.graph.wording import condition_text, signal_text, signals_of
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.scopes.trigger_status import status_of_trigger, why_unknown
from killswitch.signals.arguments import span
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.signal_values import SignalColumns

Truth = Literal["true", "false", "unknown"]


class ClauseValue(Struct, frozen=True):
    """A part of a condition at a step: its text, its truth, and the intervals of the signals that it reads.

    `depth`: how far inside of the whole it is. `reason`: why it is unknown, or what else determines it; may be empty.
    """

    depth: int
    text: str
    truth: Truth
    values: tuple[str, ...] = ()
    reason: str = ""

    @property
    def line(self) -> str:
        """The clause in one line, indented by its depth. The interval of its only signal stands without its name."""
        shown = [self.values[0].rpartition(" = ")[2]] if len(self.values) == 1 else self.values
        values = f"  [{'; '.join(shown)}]" if shown else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{'  ' * self.depth}{self.truth:<7} {self.text}{values}{reason}"


def stage_values(evaluator: ScopeEvaluator, stage: Stage) -> tuple[ClauseValue, ...]:
    """The stage, its triggers, and every clause of them after the last step."""
    confirmed = evaluator.state.triggers.confirmed
    truth: Truth = "true" if is_confirmed(stage, confirmed) else "false"
    found = [ClauseValue(0, f"stage {stage.name}", truth, reason=_why_not_fired(evaluator, stage, truth))]
    for words, triggers in (("any", stage.any_of), ("all", stage.all_of)):
        for index in triggers:
            found += trigger_values(evaluator, index, depth=1, words=f"{words}: ")
    return tuple(found)


def trigger_values(evaluator: ScopeEvaluator, index: int, depth: int = 0, words: str = "") -> tuple[ClauseValue, ...]:
    """Trigger `index` and every clause of its condition after the last step."""
    columns, trigger = evaluator.columns, evaluator.compiled.graph.triggers[index]
    status = status_of_trigger(evaluator, index)
    truth: Truth = "unknown" if status.truth is None else "true" if status.truth else "false"
    if columns is None:
        return (ClauseValue(depth, f"{words}trigger {trigger.name}", truth, reason="nothing was evaluated yet"),)
    reasons = [_confirmation(evaluator, index)] if status.held else []
    if truth == "unknown":
        reasons.insert(0, f"{status.unknown_because or why_unknown(evaluator, trigger)}")
    head = ClauseValue(depth, f"{words}trigger {trigger.name}", truth, reason="; ".join(reasons))
    if trigger.threshold is not None:
        values = _values(evaluator, columns, trigger.condition)
        written = status.threshold or ""
        signal = signal_text(evaluator.compiled.graph.signals[trigger.threshold.index])
        return (head, ClauseValue(depth + 1, f"{signal} {written}", truth, values))
    return (head, *_clauses(evaluator, columns, trigger.condition, depth + 1))


def reset_values(evaluator: ScopeEvaluator, stage: Stage) -> tuple[ClauseValue, ...]:
    """Every clause of the stage's automatic reset after the last step; none without one."""
    columns, reset = evaluator.columns, stage.reset
    if columns is None or reset is None:
        return ()
    since = evaluator.state.reset_since
    lasted = "" if since is None else f"true for {span(evaluator.now - since)} of {span(reset.hold)}"
    condition = evaluator.compiled.graph.conditions[reset.condition]
    head = ClauseValue(0, f"reset of {stage.name}", _truth(condition, columns), reason=lasted)
    return (head, *_clauses(evaluator, columns, condition, 1))


def _why_not_fired(evaluator: ScopeEvaluator, stage: Stage, truth: Truth) -> str:
    """What else determines whether the stage fires: the stage in force, and its cooldown."""
    state = evaluator.state
    if truth != "true":
        return ""
    if state.level > stage.level:
        return f"{state.stage} is in force, and only a higher level fires"
    if state.level == stage.level and state.cooldown_until is not None and evaluator.now < state.cooldown_until:
        return f"it has fired and cools down for {span(state.cooldown_until - evaluator.now)}"
    if state.level == stage.level and state.fired_at != evaluator.now:
        return "it is in force, and fires again only on something new"
    unfired = [alert.text for alert in evaluator.unfired.get(stage.name, ())]
    return "; ".join(unfired)


def _confirmation(evaluator: ScopeEvaluator, index: int) -> str:
    trigger, triggers = evaluator.compiled.graph.triggers[index], evaluator.state.triggers
    if triggers.confirmed >> index & 1:
        return "confirmed"
    if trigger.confirm_ticks:
        return f"not confirmed: {triggers.ticks.get(index, 0)} of {trigger.confirm_ticks} ticks"
    return f"not confirmed: {span(evaluator.now - triggers.since[index])} of {span(trigger.confirm)}"


def _clauses(
    evaluator: ScopeEvaluator, columns: SignalColumns, node: ConditionNode, depth: int
) -> Iterator[ClauseValue]:
    truth = _truth(node, columns)
    if isinstance(node, AllOf | AnyOf | Not):
        words = "not" if isinstance(node, Not) else "all of" if isinstance(node, AllOf) else "any of"
        yield ClauseValue(depth, words, truth)
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from _clauses(evaluator, columns, part, depth + 1)
        return
    text = condition_text(node, evaluator.compiled.graph.signals)
    yield ClauseValue(depth, text, truth, _values(evaluator, columns, node))


def _truth(node: ConditionNode, columns: SignalColumns) -> Truth:
    found = lower_one(node)(columns.lo, columns.hi, columns.text)
    return "true" if found == TRUE else "false" if found == FALSE else "unknown"


def _values(evaluator: ScopeEvaluator, columns: SignalColumns, node: ConditionNode) -> tuple[str, ...]:
    """`equity.drawdown("15m") = 4.2%` for each signal that the clause reads."""
    found = []
    for index in sorted(signals_of(node)):
        signal = evaluator.compiled.graph.signals[index]
        if isinstance(node, TextIs):
            value = columns.text[index] or "unknown"
        else:
            value = interval_text(columns.lo[index], columns.hi[index], BY_NAME[signal.name].unit)
        found.append(f"{signal_text(signal)} = {value}")
    return tuple(found)


def interval_text(low: float, high: float, unit: str) -> str:
    """An interval for people: `4.2%`, `[0.5%, 100%]`, `unknown`."""
    if low == high:
        return _number(low, unit)
    if math.isinf(low) and math.isinf(high):
        return "unknown"
    return f"[{_number(low, unit)}, {_number(high, unit)}]"


def _number(value: float, unit: str) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit == "truth":
        return "true" if value else "false"
    return f"{value * 100:.6g}%" if unit == "fraction" else f"{value:.8g}"
