"""Scope evaluator: one policy on one scope, with its history, its stage machine, and its quiescence."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from msgspec import UNSET, MsgspecError, Struct, UnsetType
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.engine.state import (
    PendingClose,
    StageMachineState,
    StoredState,
    after_outage,
    as_old_as_before,
    from_stored,
    initial,
    level_in_force,
    partial_in_force,
    to_stored,
)
from killswitch.engine.step import (
    StageMachine,
    StepResult,
    is_confirmed,
    quiescent_until,
    refute,
    stage_of_record,
    step,
)
from killswitch.graph.nodes import Stage
from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.effects import Effect, Lock, LockOrder, Transfer
from killswitch.model.flags import Flag
from killswitch.model.instant import DAY
from killswitch.model.snapshot import Closing
from killswitch.model.store import DamagedStateError, HistoryRow, MachineState, decoded
from killswitch.model.words import ChangeCause, Severity
from killswitch.planning.margin_transfers import MovedMargin, moved_by, of_day, rows_of, shown
from killswitch.planning.reload.migration import numbered
from killswitch.planning.scopes.adaptive_thresholds import AdaptiveThreshold, StoredThreshold
from killswitch.planning.scopes.compiled_policy import CompiledPolicy
from killswitch.planning.scopes.corroboration import corroborate
from killswitch.pnl_explain.explanation import ChangeEvent
from killswitch.signals.history.prices import StoredSamples
from killswitch.signals.history.rows import Correction, HistoryState, StoredUnitValueRow, encode_row, restated
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import Interval, unit_value
from killswitch.signals.signal_values import SignalColumns
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import PnlKey, ScopeView


class ActiveSuspicion(Struct, frozen=True, omit_defaults=True):
    """The last effects on suspicion (a lock, and further effects), and the stage that fires if it was a loss."""

    stage: str
    lock: LockOrder | None
    further: tuple[Effect, ...] = ()

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All effects on suspicion."""
        return self.further if self.lock is None else (Lock(self.lock), *self.further)


class LastPage(Struct, frozen=True):
    """The last page about an unexplained fall: its time (microseconds) and its amount.

    `count`: falls since, including the paged one. `fallen`: sum of the falls that did not page. Amounts are in the
    scope's currency.
    """

    at: int
    count: int
    amount: Decimal = ZERO
    fallen: Decimal = ZERO


class StoredEvaluator(Struct):
    """The serialised state of a scope evaluator, without the rows of its history."""

    engine: StoredState
    history: HistoryState
    decision: str | None
    costs: dict[str, Decimal]
    cost: float
    suspicions: list[int] = []
    suspected: ActiveSuspicion | None = None
    paged: LastPage | None = None
    warned: dict[str, int] = {}
    adaptive: dict[str, StoredThreshold] = {}
    counted: list[tuple[int, int]] = []
    reduced: list[int] | UnsetType = UNSET
    """Not stored while no `reduce` has sold."""
    moved: list[MovedMargin] | UnsetType = UNSET
    """Not stored while no margin was moved."""
    approved: list[tuple[str, str]] | UnsetType = UNSET
    """Not stored while nobody has approved a reset."""
    ended_by_reset: tuple[str, ...] | UnsetType = UNSET
    """Not stored while none of them has fired."""


_MEMORY = msgjson.Decoder(StoredEvaluator)
_ROW = msgjson.Decoder(StoredUnitValueRow)
_SAMPLES = msgjson.Decoder(list[StoredSamples])
_ENCODER = msgjson.Encoder(decimal_format="string")


def require_readable(state: MachineState, rows: Iterable[bytes]) -> tuple[StoredEvaluator, list[StoredUnitValueRow]]:
    """Decode the stored state of a scope evaluator; DamagedStateError if `ScopeEvaluator.restore` cannot read it."""
    try:
        return _MEMORY.decode(state.blob), [_ROW.decode(row) for row in rows]
    except (MsgspecError, ValueError) as error:
        what = f"the stored state of {state.policy} on {state.scope} cannot be read ({error})"
        raise DamagedStateError(what) from error


RowsSince = Callable[[str, str, int], Sequence[HistoryRow]]
"""(policy, scope, microseconds) → stored history rows from then on, oldest first."""


def decoded_rows(rows: Iterable[HistoryRow]) -> list[StoredUnitValueRow]:
    """The stored rows of a history; msgspec.DecodeError if one is damaged."""
    return [_ROW.decode(row.blob) for row in rows]


def decoded_samples(rows: Iterable[HistoryRow]) -> list[list[StoredSamples]]:
    """The stored samples of prices; msgspec.DecodeError if a row is damaged."""
    return [_SAMPLES.decode(row.blob) for row in rows]


def encode_stored(state: StoredEvaluator) -> bytes:
    """The state of a scope evaluator as JSON."""
    return _ENCODER.encode(state)


class _EarlierState(Struct):
    engine: dict[str, Any]


_EARLIER = msgjson.Decoder(_EarlierState)


def notified_earlier(state: MachineState) -> dict[str, Severity]:
    """Keys of alerts that a version which kept this in the state of the scope has notified, with their severity."""
    place, notified = f"{state.policy}/{state.scope}", dict[str, Severity]()
    stored = decoded(_EARLIER.decode, state.blob)
    engine = {} if stored is None else stored.engine
    for name, trigger in engine.get("triggers", {}).items():
        if trigger.get("reported"):
            notified[f"trigger/{place}/{name}"] = "page"
    waiting = engine.get("waiting") or {}
    waits = (f"{waiting['stage']}/{waiting['since']}/{seen}" for seen in waiting.get("reported", ()))
    for stage, _, why in (record.partition("/") for record in (*engine.get("barren", ()), *waits)):
        if why == "uncorroborated":
            notified.setdefault(f"uncorroborated/{place}/{stage}", "warning")
        elif why == "uncorroborated for long":
            notified[f"uncorroborated/{place}/{stage}"] = "page"
        else:
            notified[f"unfired/{place}/{stage}/{why}"] = "page"
    return notified


class ScopeEvaluator:
    """State of one policy on one scope.

    `decision` is its last firing. `costs`: decisions whose close it waits for (its own, and those that its orders were
    merged into) → cost so far; `cost` is their sum in unit value.
    """

    ended_by_reset: tuple[str, ...] = ()
    """The stages whose reset others approve and that have fired since the scope was normal: a reset ends them all,
    whichever stage is in force."""

    def __init__(self, compiled: CompiledPolicy, scope: str) -> None:
        self.compiled, self.scope = compiled, scope
        self.is_acting = True
        """Whether what it decides is carried out on any of its accounts."""
        self.history = History(
            compiled.windows, compiled.keep, compiled.terms, compiled.collectors, compiled.graph.hedges
        )
        self.state: StageMachineState = initial()
        self.adaptive = _adaptive_thresholds(compiled)
        """The computed thresholds, by the number of their trigger."""
        self.loss_share = 1.0
        """The share of their value at which thresholds of losses count, on the way back after a reset."""
        self.warn_share: float | None = None
        """The factor by which shares of thresholds warn earlier; None: as declared."""
        self.machine = self._present_machine()
        """The machine with the present thresholds."""
        self.columns: SignalColumns | None = None
        self._before_step = self.state.triggers
        self.eligible: frozenset[str] = frozenset()
        """Stages that may fire according to the last step."""
        self.decision: str | None = None
        self.costs: dict[str, Decimal] = {}
        self.cost = 0.0
        self.unknown = NO_ALERTS
        """The triggers that were unknown at the last step."""
        self.near = NO_ALERTS
        """The warnings of shares of thresholds, that recoveries are used up, and what a pause keeps from firing."""
        self.pause: Flag | None = None
        """The pause of the policy at this tick."""
        self.warned: dict[str, int] = {}
        """Trigger and share of a warning in force → when the value was last near it (microseconds)."""
        self.counted: list[tuple[int, int]] = []
        """When closes that count for a daily cap selected positions (microseconds), and how many."""
        self.reduced: list[int] = []
        """When a `reduce` of the policy sold on the scope (microseconds), within a day."""
        self.moved: list[MovedMargin] = []
        """The margin that the policy has moved to the scope within a day."""
        self.approved: list[tuple[str, str]] = []
        """Who has approved the reset of a firing: the decision, and the person."""
        self.moving_with: Sequence[ScopeEvaluator] = ()
        """The evaluators whose policies may move margin, of whatever scope: their sources may be the same."""
        self.under_way: Mapping[PnlKey, Decimal] = {}
        """The contracts that closes in progress, and earlier decisions of this tick, leave of each position."""
        self.capped_with: Mapping[str, Sequence[ScopeEvaluator]] = {}
        """Cap group → the evaluators of the scope whose policies name it, with this one."""
        self.unfired: dict[str, tuple[Alert, ...]] = {}
        """Stage → why it did not fire, or did not latch, though its triggers are confirmed."""
        self.paged: LastPage | None = None
        """The last page about an unexplained fall, and the falls counted since."""
        self.suspicions: list[int] = []
        """Times of recent suspicions, whether or not they locked."""
        self.suspected: ActiveSuspicion | None = None
        """The current suspicion."""

    @property
    def now(self) -> int:
        """The instant of the last view (microseconds); 0 before the first."""
        return 0 if self.history.view is None else self.history.view.as_of

    def fires(self, now: int) -> bool:
        """Whether it may fire something new at `now` (microseconds): it is neither disabled nor paused."""
        return self.pause is None and not self.compiled.is_disabled(now)

    @property
    def policy(self) -> str:
        return self.compiled.graph.policy

    @property
    def currency(self) -> str | None:
        """The currency of the scope's amounts; None before the first view."""
        view, reference = self.history.view, self.compiled.graph.equity.reference
        return reference.currency if reference is not None else None if view is None else view.currency

    def observe(self, view: ScopeView, closings: tuple[Closing, ...]) -> list[ChangeEvent]:
        """Add the scope's view to the history, and the cost of its last close."""
        self._count_costs(closings)
        events = self.history.observe(view)
        self._adjust(view, events)
        return events

    @staticmethod
    def observe_each(
        scopes: Sequence[tuple[ScopeEvaluator, ScopeView]], closings: tuple[Closing, ...]
    ) -> list[list[ChangeEvent]]:
        """The same for several scopes of a policy; the events of each."""
        for evaluator, _ in scopes:
            evaluator._count_costs(closings)
        events = History.observe_each([(evaluator.history, view) for evaluator, view in scopes])
        for (evaluator, view), changed in zip(scopes, events, strict=True):
            evaluator._adjust(view, changed)
        return events

    def _count_costs(self, closings: tuple[Closing, ...]) -> None:
        """Add the cost of its last close, before it observes the snapshot that shows it."""
        units = self.history.track.units
        for closing in closings:
            if closing.decision in self.costs and closing.cost is not None and units > 0.0:
                # in unit value at the time of payment: later deposits and withdrawals do not change it
                self.cost += float(closing.cost - self.costs[closing.decision]) / units
                self.costs[closing.decision] = closing.cost

    def _adjust(self, view: ScopeView, events: Iterable[ChangeEvent]) -> None:
        """Adjust what depends on the history, which has observed the view with these events."""
        if self.moved:
            self.moved = shown(self.moved, view.all_accounts, rows_of(self.all_moved()), view.as_of)
        if self.compiled.corroborates and view.unknown is None and self.history.has_jumped():
            # a stray price upwards would be a peak from which good prices seem to fall
            seen = corroborate(view)
            if seen.failing and seen.view is not None and seen.view.equity is not None:
                self.history.limit_peak(seen.view.equity)
        if any(each.kind == "anew" for each in events) and self.state.fired_value is not None:
            self.state = replace(self.state, fired_value=self.history.track.value)
        for correction in self.history.corrected_now:
            self._correct_firing(correction)

    def restate(self, change: str, cause: ChangeCause, now: int) -> None:
        """Restate an unexplained change as an operator knows its cause; latch and suspicion stay."""
        for correction in self.history.restate(change, cause, now):
            self._correct_firing(correction)

    def _correct_firing(self, correction: Correction) -> None:
        """Adjust the unit value of the last firing to a correction of the past."""
        fired, fired_at = self.state.fired_value, self.state.fired_at
        if fired is None or fired_at is None:
            return
        value = restated(fired_at, fired, correction)
        self.state = replace(self.state, fired_value=value)
        self.cost *= value / fired if fired > 0.0 else 1.0

    def left_today(self, cap: int, now: int, group: str | None = None) -> int:
        """How many positions closes with this daily cap may still select at `now`; `group`: see `capped_with`."""
        together = (self,) if group is None else self.capped_with.get(group, (self,))
        return max(0, cap - sum(count for each in together for at, count in each.counted if now - at < DAY))

    def count_today(self, positions: int, now: int) -> None:
        """Count the positions that a capped close has selected at `now`; those of more than a day ago are dropped."""
        if positions:
            self.counted = [*(each for each in self.counted if now - each[0] < DAY), (now, positions)]

    def reductions_left(self, cap: int, now: int) -> int:
        """How often a `reduce` with this bound may still sell at `now`."""
        return max(0, cap - sum(now - at < DAY for at in self.reduced))

    def count_reduction(self, now: int) -> None:
        """Count that a `reduce` has sold at `now`; those of more than a day ago are dropped."""
        self.reduced = [*(at for at in self.reduced if now - at < DAY), now]

    def count_transfer(self, transfer: Transfer, now: int) -> None:
        """Count that margin is moved at `now`; those of more than a day ago are dropped."""
        self.moved = [*of_day(self.moved, now), moved_by(transfer, now)]

    def all_moved(self) -> list[MovedMargin]:
        """The margin that this and other policies have moved within a day, to whatever scope."""
        return [each for one in dict.fromkeys((self, *self.moving_with)) for each in one.moved]

    @property
    def decision_in_force(self) -> str | None:
        """The decision of the stage in force, latched or not, as status shows it; None if nothing has fired."""
        partial = partial_in_force(self.state)
        return self.decision if partial is None else partial.decision or None

    def note_fired(self, stage: Stage) -> None:
        """Remember a stage whose reset others approve, until a reset."""
        if stage.reset_approvals and stage.name not in self.ended_by_reset:
            self.ended_by_reset = (*self.ended_by_reset, stage.name)

    def fired(self, decision: str) -> None:
        """Start waiting for the close of `decision`."""
        self.decision, self.costs, self.cost = decision, {decision: ZERO}, 0.0
        self.suspected = None

    def share_cost(self, decision: str, paid: Decimal) -> None:
        """Share the cost beyond `paid` of a decision that this one's orders were merged into."""
        self.costs.setdefault(decision, paid)

    def step(self, view: ScopeView, columns: SignalColumns | None = None) -> StepResult:
        """Evaluate the conditions on the last observed view, and step the machine.

        `columns`: those of the view, if they were read together with others.
        """
        columns = self.columns = columns or self.compiled.reader.read(self.history, view)
        if self.adaptive:
            self._adapt(view, columns)
        latched = self.state.level > 0
        before = self._before_step = self.state.triggers
        moved = step(
            self.machine,
            self.state,
            (columns.lo, columns.hi, columns.text),
            view.as_of,
            scheduled=view.scheduled,
            unit_value=self.unit_value() if latched else None,
            cost=self.cost,
        )
        self.state = moved.state
        self.eligible = frozenset([stage.name for stage in moved.eligible])
        if self.compiled.corroborates and not moved.eligible and moved.state.triggers.held & ~before.held:
            seen = corroborate(view)  # a stray price starts no confirmation
            if seen.failing:
                self.refute(None if seen.view is None else self.conditions_for(seen.view))
        return moved

    def _adapt(self, view: ScopeView, columns: SignalColumns) -> None:
        """Move the computed thresholds by what is known now."""
        cooldown = self.state.cooldown_until
        acts = level_in_force(self.state) > 0 or (cooldown is not None and view.as_of < cooldown)
        book = None if view.positions_unknown is not None or view.unknown is not None else view.columns
        for i, threshold in self.adaptive.items():
            own = self.compiled.graph.triggers[i].threshold
            if own is not None:
                other = threshold.rule.column
                threshold.observe(
                    view.as_of, (columns.lo[own.index], columns.hi[own.index]),
                    None if other is None else (columns.lo[other], columns.hi[other]),
                    acts=acts, is_empty=book is None or not len(book),
                )  # fmt: skip

    def _evaluate(self, low: list[float], high: list[float], text: list[str | None]) -> tuple[int, int]:
        """The conditions that are true and those that are unknown, at the present thresholds."""
        if self.loss_share < 1.0:
            low, high = self._grown(low), self._grown(high)
        true, unknown = self.compiled.machine.evaluate(low, high, text)
        for i, threshold in self.adaptive.items():
            own = self.compiled.graph.triggers[i].threshold
            if own is None:
                continue
            reaches = operator.gt if own.op == ">" else operator.ge
            is_true = reaches(low[own.index], threshold.value)
            may_be = reaches(high[own.index], threshold.value)
            true = true & ~(1 << i) | is_true << i
            unknown = unknown & ~(1 << i) | (may_be and not is_true) << i
        return true, unknown

    def limit_of(self, index: int) -> float | None:
        """The present threshold of trigger `index`; None for an expression."""
        own = self.compiled.graph.triggers[index].threshold
        if own is None:
            return None
        value = self.adaptive[index].value if index in self.adaptive else own.value
        return value * self.share_of(index)

    def share_of(self, index: int) -> float:
        """The share of its value at which the threshold of trigger `index` counts now."""
        own = self.compiled.graph.triggers[index].threshold
        return self.loss_share if own is not None and own.index in self.compiled.losses else 1.0

    def attend(self, loss_share: float, warn_share: float | None) -> None:
        """Evaluate as the way back declares from the next step on; 1 and None is as written."""
        self.warn_share = warn_share
        if loss_share != self.loss_share:
            self.loss_share = loss_share
            self.machine = self._present_machine()

    def is_true(self, condition: int) -> bool:
        """Whether a condition of the graph was surely true at the last step; False while that is unknown."""
        columns = self.columns
        if columns is None or self.history.unknown is not None:
            return False
        return bool(self.machine.evaluate(columns.lo, columns.hi, columns.text)[0] >> condition & 1)

    def _present_machine(self) -> StageMachine:
        is_plain = not self.adaptive and self.loss_share == 1.0
        machine = self.compiled.machine
        return machine if is_plain else replace(machine, evaluate=self._evaluate)

    def _grown(self, values: list[float]) -> list[float]:
        """The columns with losses as shares of what the way back allows: loss ÷ (equity × limit ÷ full size)."""
        grown = list(values)
        for index in self.compiled.losses:
            grown[index] /= self.loss_share
        return grown

    def refute(self, true: int | None) -> None:
        """Take back the truths of the last step that only refuted prices made.

        `true`: the mask of the conditions that are true at corroborated prices; None if these are unknown. Triggers of
        stages that act without corroboration keep theirs.
        """
        columns = self.columns
        if columns is None:
            return
        now, _ = self.machine.evaluate(columns.lo, columns.hi, columns.text)
        refuted = now & ~(true or 0) & self.machine.all & self.compiled.corroborated
        self.state = refute(self.state, self._before_step, refuted)

    def restart_grace(self, triggers: Collection[int]) -> None:
        """Restart the grace of triggers that cannot be known yet, so that only lasting unknowns are reported."""
        since = self.state.triggers.unknown_since
        restarted = since | {i: self.history.last_at or since[i] for i in triggers}
        self.state = replace(self.state, triggers=replace(self.state.triggers, unknown_since=restarted))

    def unit_value(self) -> Interval | None:
        """Current unit value, comparable with that of the last firing; None if unknown."""
        if self.history.unknown is not None and self.history.unit_range is None:
            return None
        since = self.state.fired_at if self.state.fired_at is not None else self.history.last_at
        return unit_value(self.history, since or 0)

    def value_at_firing(self) -> Interval | None:
        """Unit value to store with a firing now: the last known one; None if none was ever known."""
        if self.history.last_at is None:
            return None
        value = self.history.track.value
        return (value, value) if self.history.unit_range is None else (self.unit_value() or (value, value))

    def conditions_for(self, view: ScopeView, moved: Decimal = ZERO) -> int:
        """Mask of the conditions that are true for this view, after a net deposit of `moved` since."""
        equity = ZERO if view.equity is None else view.equity - moved
        is_partly_known = self.history.unit_range is not None
        history = self.history.with_available_view(view) if is_partly_known else self.history.with_equity(equity)
        return self._true(history, view)

    def conditions_if_lost(self, view: ScopeView) -> int:
        """Mask of the conditions that are true if every open fall of equity is a loss."""
        return self._true(self.history.with_worst_interpretation(), view)

    def _true(self, history: History, view: ScopeView) -> int:
        columns = self.compiled.reader.read(history, view)
        return self.machine.evaluate(columns.lo, columns.hi, columns.text)[0]

    def can_suspect(self, now: int, most: int, within: int) -> bool:
        """Record a suspicion; True if at most `most` suspicions lie within the period before now."""
        self.suspicions = [at for at in self.suspicions if now - at < within]
        self.suspicions.append(now)
        return len(self.suspicions) <= most

    def has_paged(self, at: int) -> bool:
        """Whether the last page about an unexplained fall was made at `at` (microseconds) or later."""
        return self.paged is not None and at <= self.paged.at

    def record_not_fired(self, stage: str, why: str) -> bool:
        """Record that `stage` could not latch; True the first time, so that it acts once."""
        new = not self.has_not_fired(stage, why)
        if new:
            self.state = replace(self.state, barren=(*self.state.barren, f"{stage}/{why}"))
        return new

    def has_not_fired(self, stage: str, why: str) -> bool:
        """Whether it is recorded that `stage` could not latch for this reason, and acted once."""
        return f"{stage}/{why}" in self.state.barren

    def drop_not_fired(self, eligible: Collection[str]) -> None:
        """Drop the records of stages that are no longer eligible, so that they act again."""
        barren = self.state.barren
        kept = tuple([record for record in barren if stage_of_record(record) in eligible]) if barren else barren
        if kept != barren:
            self.state = replace(self.state, barren=kept)

    def fired_on(self, stage: Stage) -> int:
        """Mask of the confirmed triggers; for a stage with a pending close, of those at its firing."""
        confirmed, waiting = self.state.triggers.confirmed, self.pending_close_of(stage)
        if waiting is not None and not is_confirmed(stage, confirmed):
            return sum(1 << i for i, name in enumerate(self.compiled.trigger_names) if name in waiting.triggers)
        return confirmed

    def pending_close_of(self, stage: Stage) -> PendingClose | None:
        """The pending close of `stage` for accounts that cannot be read, or None."""
        waiting = self.state.waiting
        return waiting if waiting is not None and waiting.stage == stage.name else None

    @contextmanager
    def assuming(self, triggers: int) -> Iterator[None]:
        """The triggers of this mask count as confirmed meanwhile."""
        state = self.state
        confirmed = state.triggers.confirmed | triggers
        self.state = replace(state, triggers=replace(state.triggers, confirmed=confirmed))
        try:
            yield
        finally:
            self.state = state

    def resets_accepting(self) -> bool:
        """Whether the automatic reset of the stage in force also accepts the loss."""
        stage = self.machine.in_force(self.state)
        return stage is not None and stage.reset is not None and stage.reset.accept

    def cooling_down(self, stage: str, now: int) -> frozenset[str]:
        """Accounts on which `stage` has acted without latching, within its cooldown."""
        current = [key for key, until in self.state.acted.items() if until > now]
        return frozenset(key.partition("/")[2] for key in current if stage_of_record(key) == stage)

    def act_without_latching(self, stage: Stage, accounts: Collection[str], now: int) -> None:
        """Start the stage's cooldown on these accounts."""
        until = {f"{stage.name}/{account}": now + stage.cooldown for account in accounts}
        kept = {key: at for key, at in self.state.acted.items() if at > now}
        self.state = replace(self.state, acted={**kept, **until})

    @property
    def alerts(self) -> Alerts:
        """What is wrong since the last step; unknown is what a pending close waits for while its stage may not fire."""
        waiting = self.state.waiting
        unknown = () if waiting is None else (f"unfired/{self.policy}/{self.scope}/{waiting.stage}",)
        return (
            self.unknown + self.near + Alerts(tuple(each for found in self.unfired.values() for each in found), unknown)
        )

    # Serialising

    def serialised(self) -> bytes:
        """Serialise everything except the rows, as JSON."""
        return encode_stored(self.stored(self.history.state()))

    def stored(self, history: HistoryState) -> StoredEvaluator:
        """The state to store with this state of the history."""
        names = self.compiled.trigger_names
        return StoredEvaluator(
            to_stored(self.state, names), history, self.decision, self.costs, self.cost,
            self.suspicions, self.suspected, self.paged, self.warned,
            {names[i]: each.state() for i, each in self.adaptive.items()}, self.counted, self.reduced or UNSET,
            self.moved or UNSET, self.approved or UNSET, self.ended_by_reset or UNSET,
        )  # fmt: skip

    def reload(self, compiled: CompiledPolicy, after: StoredEvaluator | None, history: History | None = None) -> None:
        """Continue under the next text of the policy, between two ticks; what is wrong is judged by the next step.

        `after`: the state under that text; None if it does the same as before. `history`: one with what it needs.
        """
        self.history = self.history if history is None else history
        if after is not None:
            self.state = from_stored(after.engine, compiled.trigger_names)
            self.suspected, self.warned = after.suspected, dict(after.warned)
            self.adaptive = _adaptive_thresholds(compiled)
            self._restore_adaptive(after.adaptive, compiled.trigger_names)
            self.columns, self._before_step, self.eligible = None, self.state.triggers, frozenset()
            self.unknown, self.near, self.unfired = NO_ALERTS, NO_ALERTS, {}
        self.ended_by_reset = _present_names(self.ended_by_reset, compiled.graph.stages)
        self.compiled = compiled
        self.machine = self._present_machine()

    def newest_row(self, at: int) -> bytes | None:
        """The history row appended by the tick at `at`, or None."""
        rows = self.history.rows
        return _ENCODER.encode(encode_row(rows[-1])) if rows and rows[-1].at == at else None

    def newest_samples(self, at: int) -> bytes | None:
        """The samples of prices added by the tick at `at`, or None."""
        prices, view = self.history.prices, self.history.view
        new = () if prices is None or view is None or view.as_of != at else prices.new_samples()
        return _ENCODER.encode(new) if new else None

    def restore(
        self,
        stored: bytes,
        rows: list[bytes],
        outage: tuple[int, int] | None = None,
        samples: Sequence[bytes] = (),
    ) -> None:
        """Restore a stored state; `rows` and `samples` oldest first. DamagedStateError if it is damaged.

        `outage`: start and end of the time without measurements.
        """
        kept, stored_rows = require_readable(MachineState(self.policy, self.scope, stored), rows)
        try:
            stored_samples = [_SAMPLES.decode(each) for each in samples]
            engine = numbered(kept.engine, self.compiled.graph.stages)
            if outage is not None:
                stages = self.compiled.graph.stages
                no_reset_for = max((stage.no_reset_for or 0 for stage in stages), default=0)
                engine = after_outage(engine, *outage, {each.name: each.cooldown for each in stages}, no_reset_for)
            self.state = from_stored(engine, self.compiled.trigger_names)
            self.history.restore(kept.history, stored_rows, stored_samples)
        except (MsgspecError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            what = (
                f"the stored state of {self.policy} on {self.scope} is inconsistent ({type(error).__name__}: {error})"
            )
            raise DamagedStateError(what) from error
        self.decision, self.costs, self.cost = kept.decision, kept.costs, kept.cost
        self.suspicions, self.suspected, self.paged = kept.suspicions, kept.suspected, kept.paged
        self.warned, self.counted, self.reduced = dict(kept.warned), kept.counted, kept.reduced or []
        self.moved, self.approved = kept.moved or [], kept.approved or []
        self.ended_by_reset = _present_names(kept.ended_by_reset or (), self.compiled.graph.stages)
        if outage is not None:  # what limits a day is not used up by time that no clock has measured
            self.suspicions = [as_old_as_before(at, *outage) for at in self.suspicions]
            self.counted = [(as_old_as_before(at, *outage), count) for at, count in self.counted]
            self.reduced = [as_old_as_before(at, *outage) for at in self.reduced]
            self.moved = [replace(each, at=as_old_as_before(each.at, *outage)) for each in self.moved]
        self._restore_adaptive(kept.adaptive, self.compiled.trigger_names)

    def _restore_adaptive(self, stored: Mapping[str, StoredThreshold], names: tuple[str, ...]) -> None:
        for i, threshold in self.adaptive.items():
            if (found := stored.get(names[i])) is not None:
                threshold.restore(found)


def _present_names(names: Sequence[str], stages: Sequence[Stage]) -> tuple[str, ...]:
    """The stages under the names that they have in this text."""
    renamed = {stage.formerly: stage.name for stage in stages if stage.formerly is not None}
    return tuple(renamed.get(name, name) for name in names)


def _adaptive_thresholds(compiled: CompiledPolicy) -> dict[int, AdaptiveThreshold]:
    """The computed thresholds of a scope at their initial values, by the number of their trigger."""
    return {
        i: AdaptiveThreshold(trigger.threshold.adaptive, compiled.terms.max_gap)
        for i, trigger in enumerate(compiled.graph.triggers)
        if trigger.threshold is not None and trigger.threshold.adaptive is not None
    }


class Quiescence(Struct, frozen=True):
    """A quiescent scope evaluator: until `until` (microseconds) only a change of its conditions has an effect.

    `true` and `unknown` are the masks of its conditions; `places` are the indexes of its accounts in the snapshot.
    """

    evaluator: ScopeEvaluator
    places: tuple[int, ...]
    until: int
    true: int
    unknown: int


def quiescence_of(evaluator: ScopeEvaluator, places: tuple[int, ...] | None, now: int) -> Quiescence | None:
    """The quiescence of the scope evaluator after its last step at `now`; None if it is not quiescent."""
    columns = evaluator.columns
    if places is None or columns is None or not evaluator.history.is_explained or evaluator.history.last_at != now:
        return None
    if evaluator.compiled.warns or evaluator.adaptive or evaluator.history.groups is not None:
        return None  # a warning begins, and groups are estimated, between changes of conditions
    if not evaluator.fires(now):
        return None  # an end of the time comes between changes of conditions
    true, unknown = evaluator.machine.evaluate(columns.lo, columns.hi, columns.text)
    view = evaluator.history.view
    is_empty = view is not None and view.columns is not None and not view.columns.symbols
    until = quiescent_until(evaluator.machine, evaluator.state, true, unknown, now, is_still=is_empty)
    return Quiescence(evaluator, places, until, true, unknown) if until > now else None
