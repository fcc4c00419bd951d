"""Suspicion: locks trading while it is unknown whether a fall of equity is a loss.

Reversible effects use the pessimistic bound, irreversible ones the optimistic bound: a stage that would fire if every
unexplained fall were a loss writes its lock for a short time. Of its other effects only cancels are carried out, of the
entries that its own actions would cancel, and only after half of a loss by marks alone. Each fall is suspected once,
after the first answer of the ledger without its row; after three suspicions in ten minutes, suspicions only page. If
the policy says that a suspicion pages, it pages as soon as the fall is observed. Once the falls are explained, the lock
is withdrawn: by the stage that fires, or because none does.
"""

from __future__ import annotations

from msgspec.structs import replace

from killswitch.engine.step import bits, is_confirmed
from killswitch.graph.nodes import PolicySet, Stage
from killswitch.model.decision import Decision, Notice, with_effects
from killswitch.model.effects import Cancels, Lock, expiry_of, merge_effects, of_kind, with_expiry
from killswitch.model.effects import kind_of as effect_kind_of
from killswitch.model.instant import SECOND, from_micros, to_micros
from killswitch.model.snapshot import Event
from killswitch.planning import notices
from killswitch.planning.actions.registry import reversible_effects
from killswitch.planning.resting_orders import entry_indexes
from killswitch.planning.scopes.evaluator import ActiveSuspicion, ScopeEvaluator
from killswitch.planning.scopes.trigger_status import trigger_reading
from killswitch.planning.stage_decision import action_plans, attribution_of, known_book, record_of
from killswitch.pnl_explain.pending_changes import UnexplainedChange
from killswitch.render.formats import amount_text
from killswitch.signals.catalogue import BY_NAME
from killswitch.valuation.position_measures import ZERO
from killswitch.valuation.scope_view import ScopeView

LASTS = 20 * SECOND
"""Maximum duration of a lock on suspicion, from the answer of the ledger without the row."""
MOST = 3
WITHIN = 600 * SECOND
"""Period in which at most `MOST` suspicions lock; further ones only page."""


def suspicion(evaluator: ScopeEvaluator, view: ScopeView, policies: PolicySet) -> Decision | Notice | None:
    """The decision that locks on suspicion, the notice of a suspicion that only pages, or None.

    The falls are marked, so that each is suspected once.
    """
    now, locks = view.as_of, evaluator.compiled.graph.equity.locks_on_suspicion
    if evaluator.history.unknown is not None:
        return None
    falls = [
        change for change in evaluator.history.changes.suspects(now) if _is_suspect(change, now, waits_for_ledger=locks)
    ]
    if not falls:
        return None
    stage = _suspected_stage(evaluator, view, locks=locks)
    if stage is None:
        return None
    for change in falls:
        change.suspected = True
    last = max(evaluator.suspicions, default=None)
    if not evaluator.can_suspect(now, MOST if locks else 0, WITHIN):
        at_once = last is None or now - last >= LASTS  # at most as often as a lock would be written
        return notices.suspected(evaluator, now, stage.name, falls, at_once=at_once)
    since = min(change.unanswered_since or now for change in falls)
    end = from_micros(min(since + LASTS, now + LASTS))
    effects = reversible_effects(evaluator.scope, stage, now)
    fallen = -sum((change.converted_amount for change in falls), ZERO)
    record = replace(
        _record(evaluator, now, stage.name, f"suspicion of {stage.name}", policies),
        triggers=tuple(trigger_reading(evaluator, i) for i in (*stage.any_of, *stage.all_of)),
        reason=(
            f"suspicion: equity fell by {amount_text(fallen, view.currency)} that no price, trade or row explains; "
            f"if it was a loss, {stage.name} fires"
        ),
        fell_at=from_micros(max(change.at for change in falls)),
    )
    bounded = (with_expiry(effect, min(expiry_of(effect) or end, end)) for effect in effects)
    decision = with_effects(record, (*bounded, _entries(evaluator, view, stage, policies)))
    locking = tuple(effect for effect in decision.effects if effect_kind_of(effect).is_reversible)
    if locking:
        lock = of_kind(locking, Lock)
        further = tuple(effect for effect in locking if effect is not lock)
        evaluator.suspected = ActiveSuspicion(stage.name, None if lock is None else lock.order, further)
    return decision


def withdrawal(evaluator: ScopeEvaluator, view: ScopeView, policies: PolicySet) -> Decision | None:
    """The decision that ends the lock early, once all its falls are explained; else None.

    A fall that an operator restates as a flow does not lift the lock: it ends at its time.
    """
    suspected = _unexpired(evaluator, view.as_of)
    if suspected is None:
        return None
    suspects = evaluator.history.changes.suspects(view.as_of)
    kept = (each for each in evaluator.history.changes.all if each.suspected and each.amount < ZERO)
    waits = any(each in suspects or (each.accepted and each.moved) for each in kept)
    if waits or evaluator.history.unknown is not None:
        return None
    evaluator.suspected = None
    known = f"suspicion: over, the fall of equity is explained, and {suspected.stage} does not fire"
    return _end(evaluator, view.as_of, suspected, policies, known)


def end_by_reset(evaluator: ScopeEvaluator, now: int, policies: PolicySet, event: Event | None) -> Decision | None:
    """The decision that ends the lock because of a reset; None if nothing is locked on suspicion any more.

    `event`: the manual reset; None for the automatic reset of the stage.
    """
    suspected = _unexpired(evaluator, now)
    if suspected is None:
        return None
    evaluator.suspected = None
    if event is None:
        return _end(evaluator, now, suspected, policies, "suspicion: over, the stage's condition for reset has held")
    why = f"suspicion: over, reset by {event.author or 'unknown'}: {event.reason or 'no reason given'}"
    return replace(_end(evaluator, now, suspected, policies, why), author=event.author)


def _unexpired(evaluator: ScopeEvaluator, now: int) -> ActiveSuspicion | None:
    """The suspicion whose effects have not expired; an expired one is dropped."""
    ends = [] if evaluator.suspected is None else [expiry_of(effect) for effect in evaluator.suspected.effects]
    if all(until is None or to_micros(until) <= now for until in ends):
        evaluator.suspected = None
    return evaluator.suspected


def _end(evaluator: ScopeEvaluator, now: int, suspected: ActiveSuspicion, policies: PolicySet, reason: str) -> Decision:
    record = _record(evaluator, now, suspected.stage, f"end of the suspicion of {suspected.stage}", policies)
    ended = (with_expiry(effect, record.as_of) for effect in suspected.effects)
    return with_effects(replace(record, reason=reason), ended)


def _record(evaluator: ScopeEvaluator, now: int, stage: str, what: str, policies: PolicySet) -> Decision:
    """The common fields of decisions on suspicion."""
    return replace(record_of(evaluator, policies, now, what, stage), kind="suspicion")


def _is_suspect(change: UnexplainedChange, now: int, *, waits_for_ledger: bool) -> bool:
    """Whether a fall is to be suspected now.

    `waits_for_ledger`: only after the first answer of the ledger without its row.
    """
    since = change.unanswered_since
    if change.amount >= ZERO or change.suspected:
        return False
    return not waits_for_ledger if since is None else now - since < LASTS


def _suspected_stage(evaluator: ScopeEvaluator, view: ScopeView, *, locks: bool) -> Stage | None:
    """The highest stage that would fire if every open fall were a loss; None at or below the latched level.

    `locks`: consider only stages with a lock; None while the lock of the latched stage holds. Triggers that confirm
    over time count only if they are confirmed already: a suspicion ends before they would be.
    """
    machine, state = evaluator.machine, evaluator.state
    if locks and _is_locked(evaluator, view.as_of):
        return None
    true = evaluator.conditions_if_lost(view)
    at_once = sum(1 << i for i in bits(true & machine.all) if machine.confirm[i] == 0 and machine.confirm_ticks[i] == 0)
    confirmed = at_once | state.triggers.confirmed
    for stage in evaluator.compiled.graph.stages:
        counts = not locks or bool(reversible_effects(evaluator.scope, stage, view.as_of))
        if counts and stage.level > state.level and is_confirmed(stage, confirmed):
            return stage
    return None


def _is_locked(evaluator: ScopeEvaluator, now: int) -> bool:
    latched, since = evaluator.state.stage, evaluator.state.fired_at
    for stage in evaluator.compiled.graph.stages:
        if stage.name == latched and since is not None:
            effects = reversible_effects(evaluator.scope, stage, since)
            # a lock of a part does not hold what the lock of a higher stage would
            ends = [expiry_of(each) for each in effects if not (isinstance(each, Lock) and each.order.only)]
            return any(until is None or to_micros(until) > now for until in ends)
    return False


def _entries(evaluator: ScopeEvaluator, view: ScopeView, stage: Stage, policies: PolicySet) -> Cancels:
    """The entries that the stage's actions would cancel, only if the loss by marks alone is large enough.

    A cancel is irreversible. Nothing else that the actions plan is done.
    """
    if not _is_lost_halfway(evaluator, stage):
        return Cancels(())
    book = known_book(evaluator, stage, view, policies, attribution_of(evaluator, stage).source)
    entries = {
        (account.account, account.orders[index].symbol, account.orders[index].id)
        for account in book.view.sound
        if account.orders is not None
        for index in entry_indexes(account)
    }
    plans = action_plans(stage, view.as_of, book, Cancels)
    planned = (effect for plan in plans for effect in plan.effects if isinstance(effect, Cancels))
    found = of_kind(merge_effects(planned), Cancels) or Cancels(())
    kept = (each for each in found.cancels if (each.account, each.symbol, each.order) in entries)
    return Cancels(tuple(replace(each, why="entry") for each in kept))


def _is_lost_halfway(evaluator: ScopeEvaluator, stage: Stage) -> bool:
    """Whether the loss by marks alone reaches half of the threshold of a loss that the stage names.

    The lower bound of a column contains no change that may be a deposit or withdrawal.
    """
    if evaluator.columns is None:
        return False
    graph, lows = evaluator.compiled.graph, evaluator.columns.lo
    thresholds = (graph.triggers[index].threshold for index in (*stage.any_of, *stage.all_of))
    # only for sizes of losses is half of a threshold half of a loss
    of_losses = (t for t in thresholds if t is not None and BY_NAME[graph.signals[t.index].name].is_loss_size)
    return any(t.op in (">", ">=") and t.value > 0 and lows[t.index] >= t.value / 2 for t in of_losses)
