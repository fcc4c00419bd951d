"""Firing: turns the highest stage that is corroborated and selects positions into a decision."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import level_in_force
from killswitch.engine.step import fire_partly, is_confirmed, latch, triggers_of
from killswitch.graph.actions.registry import action_kind
from killswitch.graph.nodes import PolicySet, Stage, Stages
from killswitch.model.alert import Alert
from killswitch.model.decision import Decision, Notice, with_effects
from killswitch.model.effects import Cancels, Orders, ProcessExit, Transfer, of_kind, tag_of
from killswitch.planning import notices
from killswitch.planning.orders.expected_cost import ExpectedOrder, expected_orders
from killswitch.planning.owners import Owners
from killswitch.planning.scopes.corroboration import PricesOf, corroborate, repriced
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.stage_decision import Blocked, Proposal, joined, propose
from killswitch.planning.targets.known_positions import KnownPositions
from killswitch.planning.targets.merge import Targets, contracts_left, merge, ordered_on, with_intents
from killswitch.planning.unreachable import (
    LastKnown,
    is_readable_again,
    keep_pending,
    with_last_positions,
    with_unreadable_remark,
    with_wait_remark,
)
from killswitch.valuation.scope_view import ScopeView


class RereadData(Struct, frozen=True):
    """Data fetched again for corroborating stages: prices, and the scope in a second snapshot, or None."""

    prices: PricesOf
    view: ScopeView | None


def fire(
    evaluator: ScopeEvaluator,
    view: ScopeView,
    stages: Stages,
    second: RereadData,
    policies: PolicySet,
    known: KnownPositions,
    owners: Owners,
) -> tuple[list[Decision], list[Notice]]:
    """Fire the highest stage that is corroborated and selects positions; what keeps each other one is an alert.

    A stage whose `where` is true for no position carries out everything but its close, and the next stage may fire.
    """
    made: list[Decision] = []
    issued: list[Notice] = []
    for stage in stages:
        before = evaluator.unfired.pop(stage.name, ())
        fired_earlier = stage.name not in evaluator.eligible  # it fired earlier, so its triggers need not hold any more
        why_not = (
            _why_not_corroborated(evaluator, view, stage, second) if stage.corroborate and not fired_earlier else None
        )
        if why_not is not None:
            evaluator.unfired[stage.name] = (
                notices.uncorroborated(evaluator, view.as_of, stage.name, why_not, before),
            )
            fired_earlier = is_readable_again(evaluator, stage, view)
            if not fired_earlier:
                continue
        last = with_last_positions(view, known)
        proposal = propose(evaluator, stage, last.view, policies, owners, last.replaced)
        if proposal.is_partial or proposal.is_held_back:
            decisions, why = _fire_partly(evaluator, last, proposal, before, fired_earlier=fired_earlier)
            made += decisions
            issued += why
            if proposal.is_partial:
                return made, issued
            continue
        if proposal.is_without_selection:
            evaluator.unfired[stage.name] = (
                *evaluator.unfired.get(stage.name, ()),
                notices.nothing_selected(evaluator, proposal, "nothing"),
                *(notices.blocking(evaluator, stage.name, found) for found in proposal.blocked),
            )
            continue
        issued += [notices.blocked(evaluator, view.as_of, found) for found in proposal.blocked]
        decision = _without_resting(evaluator, proposal, view.as_of)
        decision = last.remarked(
            with_wait_remark(decision, evaluator.pending_close_of(stage), fired_earlier=fired_earlier)
        )
        _count(evaluator, proposal, view.as_of)
        evaluator.state = latch(
            evaluator.state, stage, view.as_of, evaluator.value_at_firing(), is_acting=evaluator.is_acting
        )
        evaluator.note_fired(stage)
        evaluator.fired(decision.id)
        return [*made, decision, *proposal.opens], issued
    return made, issued


class LevelPreview(Struct, frozen=True):
    """What a stage would decide if it fired now. Nothing of it is decided.

    `currency`: that of the scope's amounts. `is_in_force`: whether a stage of this level or a higher one is latched.
    `because`: why it would not close what it declares. `expected`: its orders by position, with expected prices and
    costs. `blocked`: positions for which the venue accepts no order now.
    """

    decision: Decision
    currency: str | None
    is_in_force: bool
    expected: tuple[ExpectedOrder, ...]
    blocked: tuple[Blocked, ...]
    because: str | None = None


def preview_levels(
    evaluator: ScopeEvaluator,
    policies: PolicySet,
    known: KnownPositions,
    owners: Owners,
    active: Targets,
) -> Iterator[LevelPreview]:
    """What each stage of the policy would decide on the scope's present view, the lowest first; changes nothing.

    A stage whose triggers are not confirmed is planned as if all of them were. `active`: targets that closes in
    progress work on already.
    """
    view = evaluator.history.view
    if view is None:
        return
    evaluator.under_way = contracts_left(active)
    for stage in reversed(evaluator.compiled.graph.stages):
        last = with_last_positions(view, known)
        with evaluator.assuming(triggers_of(stage)):
            proposal = propose(evaluator, stage, last.view, policies, owners, last.replaced)
            decision, why = _without_resting(evaluator, proposal, view.as_of), None
        if proposal.held_back is not None:
            decision, why = _held_back(decision, proposal.held_back), proposal.held_back
        elif proposal.is_without_selection:
            why = "it selects no position"
        if proposal.is_partial:
            decision, why = with_unreadable_remark(decision, evaluator, view), "a part of the book is unknown"
        (decision,) = merge([last.remarked(decision)], active)
        in_force = level_in_force(evaluator.state) >= stage.level
        expected = expected_orders(last.view.trusted(), decision.intents)
        yield LevelPreview(decision, evaluator.currency, in_force, expected, proposal.blocked, why)


def is_still_held_back(
    evaluator: ScopeEvaluator,
    stage: Stage,
    view: ScopeView,
    policies: PolicySet,
    known: KnownPositions,
    owners: Owners,
) -> bool:
    """Whether the stage has fired, and its `where` is true for no position in this snapshot either.

    Such a stage has nothing to do, and needs no second snapshot.
    """
    if not evaluator.has_not_fired(stage.name, _HELD_BACK):
        return False
    last = with_last_positions(view, known)
    proposal = propose(evaluator, stage, last.view, policies, owners, last.replaced)
    return proposal.is_held_back and proposal.awaits_positions and not proposal.is_partial


def _count(evaluator: ScopeEvaluator, proposal: Proposal, now: int) -> None:
    """Count what the bounds of a day count of a proposal that is carried out."""
    evaluator.count_today(proposal.counted, now)
    if proposal.reduces:
        evaluator.count_reduction(now)
    transfer = of_kind(proposal.decision.effects, Transfer)
    if transfer is not None:
        evaluator.count_transfer(transfer, now)


_HELD_BACK = "where"
"""Why a stage could not latch: its `where` is true for no position."""


def _fire_partly(
    evaluator: ScopeEvaluator, last: LastKnown, proposal: Proposal, before: tuple[Alert, ...], *, fired_earlier: bool
) -> tuple[list[Decision], list[Notice]]:
    """Carry out the lock and the closes of the known part of a book, once for each set of readable accounts.

    The stage neither latches nor cools down, so that it fires once it can. If its `where` is true for no position,
    everything but the close is carried out. `before`: what kept it from latching until now.
    """
    stage, view, now = proposal.stage, last.view, last.view.as_of
    seen = sorted(account.account for account in view.trusted().accounts) if proposal.is_partial else []
    why = ",".join([*seen, _HELD_BACK] if proposal.is_held_back else seen or ["nothing"])
    waited = evaluator.pending_close_of(stage)
    if proposal.is_partial:
        keep_pending(evaluator, stage, view, seen, fired_earlier=fired_earlier)
    kept = {each.key: each for each in before if evaluator.has_not_fired(stage.name, each.key.rpartition("/")[2])}
    is_new = evaluator.record_not_fired(stage.name, why)
    decision = _without_resting(evaluator, proposal, now)
    if proposal.held_back is not None:
        decision = _held_back(decision, proposal.held_back)
    decision = with_wait_remark(decision, waited, fired_earlier=fired_earlier)
    if proposal.is_partial:
        decision = with_unreadable_remark(decision, evaluator, view)
    if proposal.is_partial or not proposal.awaits_positions:  # the decision of a stage that waits for positions pages
        alert = notices.nothing_selected(evaluator, proposal, why, set(decision.accounts))
        found = ({alert.key: alert} | kept).values()
        evaluator.unfired[stage.name] = (*evaluator.unfired.get(stage.name, ()), *found)
    if not is_new:
        return [], []
    issued = [notices.blocked(evaluator, now, found) for found in proposal.blocked]
    _count(evaluator, proposal, now)
    evaluator.state = fire_partly(
        evaluator.state, stage, now, decision.id, held_back=proposal.is_held_back, is_acting=evaluator.is_acting
    )
    evaluator.note_fired(stage)
    evaluator.act_without_latching(stage, ordered_on(decision), now)
    return [last.remarked(decision)], issued


def _held_back(decision: Decision, why: str) -> Decision:
    """The decision of a stage whose close selects nothing: its lock and its cancels of entries.

    Exits keep protecting the positions that stay, and the process goes on, to plan the close again.
    """
    kept = [effect for effect in decision.effects if not isinstance(effect, ProcessExit)]
    cancels = of_kind(kept, Cancels)
    if cancels is not None:
        kept.remove(cancels)
        kept.append(Cancels(tuple(each for each in cancels.cancels if each.why == "entry")))
    remark = f"{why}: nothing is closed, and it is evaluated again at each tick"
    return replace(
        with_effects(decision, kept), cooldown_until=None, unwinding=None, reason=joined(decision.reason, remark)
    )


def _without_resting(evaluator: ScopeEvaluator, proposal: Proposal, now: int) -> Decision:
    """The decision without orders for accounts on which its stage has already acted."""
    kinds = [action_kind(action) for action in proposal.stage.actions]
    if all(kind.is_absolute for kind in kinds if tag_of(Orders) in kind.effects):
        return proposal.decision  # what was sold is no longer in the book, so that nothing is sold twice
    resting = evaluator.cooling_down(proposal.stage.name, now)
    return with_intents(proposal.decision, lambda intent: intent.account not in resting)


def _why_not_corroborated(evaluator: ScopeEvaluator, view: ScopeView, stage: Stage, second: RereadData) -> str | None:
    """Why the stage's triggers do not hold on corroborated prices or in the second snapshot; None if they do.

    What only refuted prices made true is taken back.
    """
    if view.unknown is not None and evaluator.history.unit_range is None:
        return None  # there are no prices to corroborate
    read = view.available()
    repriced_view = (repriced(read, second.prices) if second.prices else None) or read
    corroborated = corroborate(repriced_view, second.prices)
    true = None if corroborated.view is None else evaluator.conditions_for(corroborated.view)
    if corroborated.failing and (true is None or not is_confirmed(stage, true)):
        evaluator.refute(true)
        return "; ".join(corroborated.failing)
    if repriced_view is not read and true is not None and not is_confirmed(stage, true):
        evaluator.refute(true)
        return f"at freshly fetched prices equity is {repriced_view.equity} and no trigger of the stage is true"
    return None if second.view is None else _why_not_in_snapshot(evaluator, stage, second.view)


def _why_not_in_snapshot(evaluator: ScopeEvaluator, stage: Stage, again: ScopeView) -> str | None:
    """Why the triggers do not hold in the second snapshot; None if they do, or if it cannot be read."""
    if again.unknown is not None:
        return None
    true = evaluator.conditions_for(again, evaluator.history.ledger.unit_flow_in(again))
    if is_confirmed(stage, true):
        return None
    evaluator.refute(true)
    return f"in a second snapshot equity is {again.equity} and no trigger of the stage is true"
