"""Trigger status: value interval, threshold and headroom of every trigger of a scope evaluator."""

from __future__ import annotations

import math
from datetime import datetime

from msgspec import Struct

from killswitch.engine.state import PendingClose, level_in_force, partial_in_force, stage_in_force
from killswitch.graph.nodes import Compare, SignalRead, SignalRef, Trigger
from killswitch.graph.wording import signals_of
from killswitch.model.decision import TriggerReading
from killswitch.model.instant import from_micros
from killswitch.planning.scopes.evaluator import ActiveSuspicion, ScopeEvaluator
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.history.windows import Interval, is_only_young, reason_partly_known
from killswitch.valuation.position_measures import ZERO


class ObservedTrigger(Struct, frozen=True):
    """Status of one trigger. `headroom`: distance of the value to the threshold; negative beyond it."""

    trigger: Trigger
    value: Interval | None
    headroom: Interval | None
    truth: bool | None
    held: bool
    confirmed: bool
    true_since: datetime | None
    unknown_because: str | None


class MachineSummary(Struct, frozen=True):
    """One policy on one scope.

    `level`, `stage`, `fired_at` and `decision` belong to the stage that has fired and was not reset since.
    """

    policy: str
    scope: str
    mode: str
    level: int
    stage: str | None
    fired_at: datetime | None
    cooldown_until: datetime | None
    decision: str | None


class MachineStatus(MachineSummary, frozen=True):
    """Status of a policy on a scope after the last tick."""

    unit_value: Interval | None
    readings: tuple[ObservedTrigger, ...]
    waiting: PendingClose | None = None
    """The pending close of accounts that cannot be read."""
    suspected: ActiveSuspicion | None = None
    """The last lock on suspicion, which may have expired."""
    latched: bool = True
    """False for a stage that fired without latching, because accounts could not be read."""


def status(evaluator: ScopeEvaluator) -> MachineStatus:
    """Status of a scope evaluator, as shown by `plan` and `status`."""
    state, graph = evaluator.state, evaluator.compiled.graph
    partial = partial_in_force(state)
    fired_at, decision = (
        (state.fired_at, evaluator.decision) if partial is None else (partial.fired_at, partial.decision)
    )
    return MachineStatus(
        policy=graph.policy,
        scope=evaluator.scope,
        mode=graph.mode,
        level=level_in_force(state),
        stage=stage_in_force(state),
        fired_at=None if fired_at is None else from_micros(fired_at),
        cooldown_until=None if state.cooldown_until is None else from_micros(state.cooldown_until),
        decision=decision,
        unit_value=evaluator.unit_value(),
        readings=tuple(status_of_trigger(evaluator, i) for i in range(len(graph.triggers))),
        waiting=state.waiting,
        suspected=evaluator.suspected,
        latched=partial is None,
    )


def status_of_trigger(evaluator: ScopeEvaluator, index: int) -> ObservedTrigger:
    """Status of trigger `index` after the last tick."""
    trigger = evaluator.compiled.graph.triggers[index]
    triggers = evaluator.state.triggers
    held, unknown = bool(triggers.held >> index & 1), bool(triggers.unknown >> index & 1)
    value: Interval | None = None
    if trigger.threshold is not None and evaluator.columns is not None:
        column = trigger.threshold.index
        value = evaluator.columns.lo[column], evaluator.columns.hi[column]
    return ObservedTrigger(
        trigger=trigger,
        value=value,
        headroom=_headroom(trigger, value),
        truth=None if unknown or evaluator.columns is None else held,
        held=held,
        confirmed=bool(triggers.confirmed >> index & 1),
        true_since=from_micros(triggers.since[index]) if held else None,
        unknown_because=why_unknown(evaluator, trigger) if unknown else None,
    )


def why_unknown(evaluator: ScopeEvaluator, trigger: Trigger) -> str:
    """Why a trigger's condition is unknown."""
    if evaluator.history.unknown is not None:
        return evaluator.history.unknown
    reference = signal_of(evaluator, trigger)
    window = None if reference is None else reference.window
    reasons = (
        None if window is None else reason_partly_known(evaluator.history, window),
        _pending_changes_text(evaluator),
    )
    known = [reason for reason in reasons if reason is not None]
    return "; ".join(known) or f"{' and '.join(unknown_signals(evaluator, trigger))} is not wholly known"


def _pending_changes_text(evaluator: ScopeEvaluator) -> str | None:
    """Text about pending changes of equity that may be deposits or withdrawals; None without any."""
    pending = [change for change in evaluator.history.changes.open if change.kind == "trade"]
    if not pending:
        return None
    amount = sum((change.converted_amount for change in pending), ZERO)
    text = f"a change of {amount.normalize():f} that no row explains yet leaves two values possible"
    if all(change.amount > 0 for change in pending):
        return text
    return f"{text}: a fall may be a withdrawal, and counts as a loss once the ledger has been read past it"


def has_only_young_windows(evaluator: ScopeEvaluator, trigger: Trigger) -> bool:
    """Whether a trigger is unknown only because the history is shorter than the windows that it reads."""
    graph, history, columns = evaluator.compiled.graph, evaluator.history, evaluator.columns
    if columns is None or history.unknown is not None or history.begun_at is None or _pending_changes_text(evaluator):
        return False
    found = False
    for i in signals_of(trigger.condition):
        if columns.lo[i] == columns.hi[i] or (columns.text and columns.text[i] is not None):
            continue
        signal = graph.signals[i]
        if signal.window is None or not is_only_young(history, signal.window):
            return False
        if BY_NAME[signal.name].reads_pnl and history.rows and history.rows[-1].pnl is None:
            return False  # P&L of positions is unknown, also with a longer history
        found = True
    return found


def unknown_signals(evaluator: ScopeEvaluator, trigger: Trigger) -> list[str]:
    """Names of the signals of the trigger without a single known value."""
    graph, columns = evaluator.compiled.graph, evaluator.columns
    if columns is None:
        return ["everything"]
    names = {
        graph.signals[i].name
        for i in signals_of(trigger.condition)
        if columns.lo[i] != columns.hi[i] or (columns.text and columns.text[i] is None and math.isinf(columns.lo[i]))
    }
    return sorted(names) or ["a signal"]


def signal_of(evaluator: ScopeEvaluator, trigger: Trigger) -> SignalRef | None:
    """The signal of a trigger that compares a single one, else None."""
    condition = trigger.condition
    if trigger.threshold is not None:
        return evaluator.compiled.graph.signals[trigger.threshold.index]
    if isinstance(condition, Compare) and isinstance(condition.left, SignalRead):
        return evaluator.compiled.graph.signals[condition.left.index]
    return None


def _headroom(trigger: Trigger, value: Interval | None) -> Interval | None:
    if trigger.threshold is None or value is None:
        return None
    limit = trigger.threshold.value
    if trigger.threshold.op in (">", ">="):
        return limit - value[1], limit - value[0]
    return value[0] - limit, value[1] - limit


def number(value: float) -> str | None:
    """A signal value as a decimal string with ten significant digits; None for an unbounded end."""
    if math.isinf(value):
        return None
    text = f"{value:.10g}"
    return f"{value:.12f}".rstrip("0").rstrip(".") if "e" in text and abs(value) < 1 else text


def trigger_reading(evaluator: ScopeEvaluator, index: int) -> TriggerReading:
    """Status of a trigger in the format of a decision record."""
    shown = status_of_trigger(evaluator, index)
    threshold = shown.trigger.threshold
    return TriggerReading(
        name=shown.trigger.name,
        value=None if shown.value is None else (number(shown.value[0]), number(shown.value[1])),
        threshold=None if threshold is None else number(threshold.value),
        true_since=shown.true_since,
        reason=shown.unknown_because,
    )
