"""The status of a policy on a scope: its stage, and value, threshold and headroom of every trigger."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from killswitch.engine.state import level_in_force, may_reset_from, partial_in_force, stage_in_force
from killswitch.graph.nodes import Compare, Disabled, SignalRead, SignalRef, Trigger
from killswitch.graph.wording import signals_of
from killswitch.model.applied_set import identities
from killswitch.model.decision import TriggerReading
from killswitch.model.flags import Flag
from killswitch.model.instant import from_micros
from killswitch.planning.scopes.adaptive_thresholds import AdaptiveThreshold
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.render.formats import amount_text
from killswitch.risk.correlation import Groups
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.history.group_estimates import PairEstimate
from killswitch.signals.history.windows import Interval, is_only_young, reason_partly_known
from killswitch.signals.system_signals import SIGNALS
from killswitch.valuation.position_measures import ZERO

Span = tuple[float | None, float | None]
"""An interval; null is an unbounded end."""


class AdaptiveStatus(Struct, frozen=True):
    """A computed threshold: its present value, the number of its samples and from how many it applies, and whether it
    is frozen now. A multiple of another signal has no samples."""

    value: float
    samples: int
    wanted: int
    frozen: bool


class TriggerStatus(Struct, frozen=True):
    """One trigger: its interval, its threshold as written, and how far it is from being true.

    `window` is in microseconds. `headroom`: distance of the value to the threshold; negative beyond it.
    """

    name: str
    place: str
    signal: str | None
    window: int | None
    unit: str | None
    value: Span | None
    threshold: str | None
    headroom: Span | None
    truth: bool | None
    held: bool
    confirmed: bool
    true_since: datetime | None
    unknown_because: str | None
    adaptive: AdaptiveStatus | None = None
    """Of a computed threshold: what it is computed from."""
    is_young: bool = False
    """Whether it is unknown only because the history is shorter than the windows that it reads."""

    @property
    def reached(self) -> float | None:
        """How much of its threshold the value has reached: 0.62 of `>= 5%` at 3.1%; null if either is not known."""
        if self.value is None or self.headroom is None or self.threshold is None:
            return None
        is_ceiling = self.threshold.startswith(">")
        value, headroom = self.value[1 if is_ceiling else 0], self.headroom[0]
        if value is None or headroom is None:
            return None
        limit = value + headroom if is_ceiling else value - headroom
        part, whole = (value, limit) if is_ceiling else (limit, value)
        return max(part / whole, 0.0) if whole > 0 else None


def headroom(observed: TriggerStatus) -> float | None:
    """Smallest distance of the value from the threshold; None where it is unknown."""
    return None if observed.truth is None or observed.headroom is None else observed.headroom[0]


def headroom_ratio(observed: TriggerStatus) -> float | None:
    """Headroom as a share of the threshold: 1 unused, 0 about to be true, below 0 beyond it."""
    found, value, threshold = headroom(observed), observed.value, observed.threshold
    if found is None or value is None or threshold is None:
        return None
    # The end of the value that the headroom was measured from, and from it the threshold.
    low, high = value
    end = high if threshold.startswith(">") else low
    limit = None if end is None else end + found if threshold.startswith(">") else end - found
    return found / abs(limit) if limit else None


class WaitingStage(Struct, frozen=True):
    """A stage that fired while accounts could not be read, and whose close waits for them.

    `until`: when it stops waiting, unless its triggers are true again before.
    """

    stage: str
    accounts: tuple[str, ...]
    since: datetime
    until: datetime


class SuspectedStage(Struct, frozen=True):
    """A lock on suspicion: the stage would fire if a fall of equity was a loss; it has not fired."""

    stage: str
    mode: str
    until: datetime | None


class GroupStatus(Struct, frozen=True):
    """The last estimate of a correlation group in a scope: when, its known pairs, and the groups of its symbols.

    `together` are those for limits and the order of closing, in which what is in doubt is one group; `apart` those for
    netting and hedges.
    """

    group: str
    at: datetime
    together: Groups
    apart: Groups
    pairs: tuple[PairEstimate, ...]


def group_statuses(evaluator: ScopeEvaluator) -> tuple[GroupStatus, ...]:
    """The estimated correlation groups of the scope, in the order of closing."""
    estimates = evaluator.history.groups
    if estimates is None:
        return ()
    found = [(rule, estimates.estimated(rule.group)) for rule in evaluator.compiled.graph.groups]
    return tuple(
        GroupStatus(rule.name, from_micros(each.at), each.together, each.apart, each.pairs)
        for rule, each in found
        if each is not None
    )


class ResetApprovals(Struct, frozen=True):
    """What the reset of the firing in force on a scope needs. `approved`: who has approved it."""

    needed: int
    approved: tuple[str, ...] = ()

    def missing(self, author: str | None) -> int:
        """How many more people must approve a reset by `author`, who does not count, by whatever name or address."""
        own = frozenset(identities(author or ""))
        others = [each for each in self.approved if own.isdisjoint(identities(each))]
        return max(0, self.needed - len(others))


class MachineStatus(Struct, frozen=True):
    """One policy on one scope after the last tick.

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
    triggers: tuple[TriggerStatus, ...]
    waiting: WaitingStage | None = None
    """The pending close of accounts that cannot be read."""
    suspected: SuspectedStage | None = None
    """The last lock on suspicion; over once `until` has passed."""
    latched: bool = True
    """False for a stage that fired without latching: see `held_back`, else accounts could not be read."""
    held_back: bool = False
    """Whether the stage fired and its `where` was true for no position, so that nothing of it is closed."""
    breaker: BreakerState | None = None
    """The state of a circuit breaker; None for a policy with stages."""
    disabled: Disabled | None = None
    """Why and until when the policy does not fire; None if it is on."""
    paused: Flag | None = None
    """The operator's pause, during which the policy fires nothing new; None without one."""
    no_reset_before: datetime | None = None
    """Before it nothing and nobody resets the scope; None where a reset is possible."""
    reset_approvals: ResetApprovals | UnsetType = UNSET
    """What a reset of the firing in force needs; absent where anybody may give it alone."""
    groups: tuple[GroupStatus, ...] = ()
    """The correlation groups that are estimated in it."""


BreakerState = Literal["active", "warning", "tripped", "recovering", "disabled", "paused"]


def breaker_state(evaluator: ScopeEvaluator) -> BreakerState | None:
    """The state of a circuit breaker; None for a policy with stages. A tripped one stays so while it is disabled."""
    if not evaluator.compiled.graph.is_breaker:
        return None
    state, now = evaluator.state, evaluator.now
    if level_in_force(state):
        is_rested = now >= may_reset_from(state)
        return "recovering" if is_rested and state.reset_since is not None and not state.by_hand else "tripped"
    if evaluator.compiled.is_disabled(now):
        return "disabled"
    if evaluator.pause is not None:
        return "paused"
    return "warning" if evaluator.warned else "active"


def status(evaluator: ScopeEvaluator) -> MachineStatus:
    """Status of a scope evaluator, as `plan`, `status`, metrics and events show it."""
    state, graph = evaluator.state, evaluator.compiled.graph
    partial = partial_in_force(state)
    fired_at = state.fired_at if partial is None else partial.fired_at
    waiting, suspected = state.waiting, evaluator.suspected
    lock = None if suspected is None else suspected.lock
    return MachineStatus(
        policy=graph.policy,
        scope=evaluator.scope,
        mode=graph.mode,
        level=level_in_force(state),
        stage=stage_in_force(state),
        fired_at=None if fired_at is None else from_micros(fired_at),
        cooldown_until=None if state.cooldown_until is None else from_micros(state.cooldown_until),
        decision=evaluator.decision_in_force,
        triggers=tuple(status_of_trigger(evaluator, i) for i in range(len(graph.triggers))),
        waiting=None if waiting is None else WaitingStage(
            waiting.stage, waiting.accounts, from_micros(waiting.since), from_micros(waiting.until)
        ),
        suspected=None if suspected is None or lock is None else SuspectedStage(
            suspected.stage, lock.mode, lock.until
        ),
        latched=partial is None,
        held_back=partial is not None and partial.held_back,
        breaker=breaker_state(evaluator),
        disabled=graph.disabled if evaluator.compiled.is_disabled(evaluator.now) else None,
        paused=evaluator.pause,
        no_reset_before=None if state.no_reset_before is None else from_micros(state.no_reset_before),
        reset_approvals=approvals_of(evaluator) or UNSET,
        groups=group_statuses(evaluator),
    )  # fmt: skip


def approvals_of(evaluator: ScopeEvaluator) -> ResetApprovals | None:
    """What a reset of the scope needs now; None where anybody may give it alone.

    A reset ends every stage that has fired there: the one that most people answer for decides. As with a time without
    a reset, a policy that only observes holds back nothing.
    """
    graph = evaluator.compiled.graph
    if graph.mode != "enforce" or not level_in_force(evaluator.state):
        return None
    ended = {stage_in_force(evaluator.state), *evaluator.ended_by_reset}
    needed = max((stage.reset_approvals for stage in graph.stages if stage.name in ended), default=0)
    if not needed:
        return None
    given = tuple(person for firing, person in evaluator.approved if firing == evaluator.decision_in_force)
    return ResetApprovals(needed, given)


def status_of_trigger(evaluator: ScopeEvaluator, index: int) -> TriggerStatus:
    """Status of trigger `index` after the last tick."""
    trigger = evaluator.compiled.graph.triggers[index]
    threshold, triggers = trigger.threshold, evaluator.state.triggers
    signal = None if threshold is None else evaluator.compiled.graph.signals[threshold.index]
    held, unknown = bool(triggers.held >> index & 1), bool(triggers.unknown >> index & 1)
    value = _value(evaluator, trigger)
    return TriggerStatus(
        name=trigger.name,
        place=f"{trigger.place.file}:{trigger.place.line}",
        signal=None if signal is None else signal.name,
        window=None if signal is None else signal.window,
        unit=None if signal is None else BY_NAME[signal.name].unit,
        value=_span(value),
        threshold=None if threshold is None else f"{threshold.op} {present_threshold(evaluator, index)}",
        adaptive=None if index not in evaluator.adaptive else _adaptive(evaluator.adaptive[index]),
        headroom=_span(_headroom(trigger, value, evaluator.limit_of(index))),
        truth=None if unknown or evaluator.columns is None else held,
        held=held,
        confirmed=bool(triggers.confirmed >> index & 1),
        true_since=from_micros(triggers.since[index]) if held else None,
        unknown_because=why_unknown(evaluator, trigger) if unknown else None,
        is_young=unknown and has_only_young_windows(evaluator, trigger),
    )


def _adaptive(threshold: AdaptiveThreshold) -> AdaptiveStatus:
    return AdaptiveStatus(threshold.value, threshold.samples, threshold.wanted, threshold.frozen)


def present_threshold(evaluator: ScopeEvaluator, index: int) -> str:
    """The threshold of a trigger as people read it, also on the way back, where it counts at a share of it."""
    threshold, share = evaluator.compiled.graph.triggers[index].threshold, evaluator.share_of(index)
    text = "" if threshold is None else _written(evaluator, index, threshold.written)
    return text if share == 1.0 else f"{text} × {share * 100:.3g}%"


def _written(evaluator: ScopeEvaluator, index: int, written: str) -> str:
    """The threshold as written; of a computed one its present value."""
    threshold = evaluator.adaptive.get(index)
    if threshold is None:
        return written
    own = evaluator.compiled.graph.triggers[index].threshold
    is_share = own is not None and BY_NAME[evaluator.compiled.graph.signals[own.index].name].unit == "fraction"
    return f"{threshold.value:.2%}" if is_share else f"{threshold.value:.6g}"


def _value(evaluator: ScopeEvaluator, trigger: Trigger) -> Interval | None:
    """The interval of the trigger's signal; None for an expression, and before the first snapshot."""
    if trigger.threshold is None or evaluator.columns is None:
        return None
    column = trigger.threshold.index
    return evaluator.columns.lo[column], evaluator.columns.hi[column]


def _span(interval: Interval | None) -> Span | None:
    if interval is None:
        return None
    low, high = interval
    return (low if math.isfinite(low) else None, high if math.isfinite(high) else None)


def why_unknown(evaluator: ScopeEvaluator, trigger: Trigger) -> str:
    """Why a trigger's condition is unknown."""
    of_system = _why_system_is_partly_known(evaluator, trigger)
    if of_system is not None:
        return of_system
    if evaluator.history.why_unknown is not None:
        return evaluator.history.why_unknown
    reference = signal_of(evaluator, trigger)
    window = None if reference is None else reference.window
    reasons = (
        None if window is None else reason_partly_known(evaluator.history, window),
        _pending_changes_text(evaluator),
    )
    known = [reason for reason in reasons if reason is not None]
    return "; ".join(known) or f"{' and '.join(unknown_signals(evaluator, trigger))} is not wholly known"


def _why_system_is_partly_known(evaluator: ScopeEvaluator, trigger: Trigger) -> str | None:
    """Why the one signal of a trigger is partly known that no account states, as `heartbeat.age`; else None."""
    if trigger.threshold is None:
        return None
    spec = _OF_SYSTEMS.get(evaluator.compiled.graph.signals[trigger.threshold.index].name)
    value = _value(evaluator, trigger)
    if spec is None or value is None or not any(map(math.isfinite, value)):
        return None
    return f"{spec.name}: {spec.partly_known}"


_OF_SYSTEMS = {spec.name: spec for spec in SIGNALS}
"""Signals of the systems around the book."""


def _pending_changes_text(evaluator: ScopeEvaluator) -> str | None:
    """Text about pending changes of equity that may be deposits or withdrawals; None without any."""
    pending = [change for change in evaluator.history.changes.open if change.kind == "trade"]
    if not pending:
        return None
    amount = sum((change.converted_amount for change in pending), ZERO)
    text = f"a change of {amount_text(amount, evaluator.currency)} that no row explains yet leaves two values possible"
    if all(change.amount > 0 for change in pending):
        return text
    return f"{text}: a fall may be a withdrawal, and counts as a loss once the ledger has been read past it"


def has_only_young_windows(evaluator: ScopeEvaluator, trigger: Trigger) -> bool:
    """Whether a trigger is unknown only because the history is shorter than the windows that it reads."""
    graph, history, columns = evaluator.compiled.graph, evaluator.history, evaluator.columns
    if columns is None or history.why_unknown is not None or history.begun_at is None:
        return False
    if _pending_changes_text(evaluator):
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


def _headroom(trigger: Trigger, value: Interval | None, limit: float | None) -> Interval | None:
    if trigger.threshold is None or value is None or limit is None:
        return None
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
    trigger, shown = evaluator.compiled.graph.triggers[index], status_of_trigger(evaluator, index)
    value, threshold = _value(evaluator, trigger), trigger.threshold
    return TriggerReading(
        name=trigger.name,
        value=None if value is None else (number(value[0]), number(value[1])),
        threshold=None if threshold is None else number(evaluator.limit_of(index) or threshold.value),
        true_since=shown.true_since,
        reason=shown.unknown_because or (None if _is_exact(value) else why_unknown(evaluator, trigger)),
    )


def _is_exact(value: Interval | None) -> bool:
    """Whether a value has nothing unknown; an expression has no value."""
    return value is None or value[0] == value[1]
