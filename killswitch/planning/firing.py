"""Firing: turns the highest stage that holds on a second look, and that selects positions, into a decision."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from killswitch.engine.step import fire_partly, latch, stands
from killswitch.graph.nodes import PolicySet, Stage
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning import notices
from killswitch.planning.scopes.corroboration import PricesOf, corroborate, repriced
from killswitch.planning.scopes.evaluator import Watch
from killswitch.planning.stage_decision import Proposal, propose
from killswitch.planning.targets.merge import only, ordered_on
from killswitch.planning.unreachable import (
    LastKnown,
    answers,
    carried_out,
    unread_remarked,
    wait,
    with_last_positions,
)
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView


class SecondLook(Struct, frozen=True):
    """Data fetched again for corroborating stages: prices, and the scope in a second snapshot, or None."""

    prices: PricesOf
    view: ScopeView | None


def fire(
    watch: Watch,
    view: ScopeView,
    stages: tuple[Stage, ...],
    second: SecondLook,
    policies: PolicySet,
    read_last: Mapping[str, AccountSnapshot],
    issued: list[Notice],
) -> list[Decision]:
    """Fire the highest stage that holds and selects something; stages that do not are notified once."""
    for stage in stages:
        owed = stage.name not in watch.eligible  # it fired earlier, so its triggers need not hold any more
        doubt = _doubt(watch, view, stage, second) if stage.corroborate and not owed else None
        if doubt is not None:
            issued += notices.uncorroborated(watch, view.as_of, stage.name, doubt)
            owed = answers(watch, stage, view)
            if not owed:
                continue
        last = with_last_positions(view, read_last)
        proposal = propose(watch, stage, last.view, policies)
        if proposal.partial:
            return _not_latching(watch, last, proposal, issued, owed=owed)
        if proposal.empty_handed:
            _not_latching(watch, last, proposal, issued, owed=owed)
            continue
        issued += [notices.blocked(watch, view.as_of, found) for found in proposal.blocked]
        decision = _without_resting(watch, proposal, view.as_of)
        decision = last.remarked(carried_out(decision, watch.waiting_for(stage), owed=owed))
        watch.state = latch(watch.state, stage, view.as_of, watch.value_at_firing())
        watch.fired(decision.id)
        return [decision]
    return []


def _not_latching(
    watch: Watch, last: LastKnown, proposal: Proposal, issued: list[Notice], *, owed: bool
) -> list[Decision]:
    """Handle a stage that cannot latch: no latch and no cooldown, so that it fires once it can; notify once.

    If a part of the book is unknown, the lock and the closes of the known part are still carried out.
    """
    stage, view, now = proposal.stage, last.view, last.view.as_of
    seen = sorted(account.account for account in view.trusted().accounts) if proposal.partial else ["nothing"]
    waited = watch.waiting_for(stage)
    if proposal.partial:
        wait(watch, stage, view, seen, owed=owed)
    if not watch.remember_barren(stage.name, ",".join(seen)):
        return []
    decision = _without_resting(watch, proposal, now)
    decision = carried_out(decision, waited, owed=owed)
    if proposal.partial:
        decision = unread_remarked(decision, watch, view)
    acted = set(decision.accounts)
    if watch.remember_reported(stage, ",".join(seen)):
        issued.append(notices.nothing_selected(watch, now, proposal, acted if proposal.partial else ()))
    issued += [notices.blocked(watch, now, found) for found in proposal.blocked]
    if not proposal.partial:
        return []
    watch.state = fire_partly(watch.state, stage, now, decision.id)
    watch.act_without_latching(stage, ordered_on(decision), now)
    return [last.remarked(decision)]


def _without_resting(watch: Watch, proposal: Proposal, now: int) -> Decision:
    """The decision without orders for accounts on which its stage has already acted."""
    resting = watch.resting(proposal.stage.name, now)
    return only(proposal.decision, lambda intent: intent.account not in resting)


def _doubt(watch: Watch, view: ScopeView, stage: Stage, second: SecondLook) -> str | None:
    """Why the stage's triggers do not hold on corroborated prices or in the second snapshot; None if they do."""
    if view.unknown is not None and watch.history.dark is None:
        return None  # there are no prices to corroborate
    read = view.read()
    looked = (repriced(read, second.prices) if second.prices else None) or read
    seen = corroborate(looked)
    if seen.failing and (seen.view is None or not _still(watch, seen.view, stage)):
        return "; ".join(seen.failing)
    if looked is not read and not _still(watch, looked, stage):
        return f"at freshly fetched prices equity is {looked.equity} and no trigger of the stage is true"
    return None if second.view is None else _doubt_by_reading(watch, stage, second.view)


def _doubt_by_reading(watch: Watch, stage: Stage, again: ScopeView) -> str | None:
    """Why the triggers do not hold in the second snapshot; None if they do, or if it cannot be read."""
    if again.unknown is not None or _still(watch, again, stage, watch.history.ledger.unit_flow_in(again)):
        return None
    return f"in a second snapshot equity is {again.equity} and no trigger of the stage is true"


def _still(watch: Watch, view: ScopeView, stage: Stage, moved: Decimal = ZERO) -> bool:
    return stands(stage, watch.supposed(view, moved))
