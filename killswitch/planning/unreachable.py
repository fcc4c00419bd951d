"""Closes of accounts that cannot be read, or whose positions are unknown.

Readable accounts are closed immediately. For the others the engine state keeps a pending close of the stage: it is
carried out on the first snapshot in which an account can be read, whether or not the triggers still hold, and dropped
once they have not held for the time that the policy allows.

Last known positions are closed only if an order cannot open a position: on derivatives, orders are reduce-only and the
venue caps them at the position. Positions opened since are not closed. On other markets an account with unknown
positions counts as unreadable.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import PendingClose
from killswitch.graph.nodes import Stage, Stages
from killswitch.model.decision import Decision, Notice, with_effects
from killswitch.model.effects import only_on
from killswitch.model.instant import from_micros
from killswitch.planning import notices
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.scopes.evaluator import ScopeEvaluator
from killswitch.planning.stage_decision import joined
from killswitch.planning.targets.known_positions import KnownPositions
from killswitch.render.formats import instant
from killswitch.valuation.scope_view import ScopeView


def keep_pending(
    evaluator: ScopeEvaluator, stage: Stage, view: ScopeView, read: Collection[str], *, fired_earlier: bool
) -> None:
    """Keep the stage's close pending for accounts that are not among those `read`.

    Its time limit restarts while the stage may fire. It does not if the stage `fired_earlier` and is only carried out
    now.
    """
    if not stage.close_within:
        return
    waiting = evaluator.state.waiting
    if waiting is not None and waiting.stage != stage.name and _level(evaluator, waiting.stage) >= stage.level:
        return
    accounts = tuple(sorted(_accounts(evaluator, view) - set(read)))
    same = evaluator.pending_close_of(stage)
    if same is not None and fired_earlier:
        waiting = replace(same, accounts=accounts)  # partly carried out
    else:
        since = view.as_of if same is None else same.since
        confirmed = evaluator.state.triggers.confirmed
        names = tuple(name for i, name in enumerate(evaluator.compiled.trigger_names) if confirmed >> i & 1)
        waiting = PendingClose(stage.name, names, since, view.as_of + stage.close_within, accounts)
    evaluator.state = replace(evaluator.state, waiting=waiting)


def stages_due(
    evaluator: ScopeEvaluator, view: ScopeView, eligible: Stages, held: Stages
) -> tuple[Stages, list[Notice]]:
    """Stages to fire, highest first: the eligible ones, and the pending one if an awaited account is readable again.

    `held`: the stages whose triggers hold, also where a pause keeps them from being eligible. A pending close that has
    timed out since they last held, or whose stage was removed, is dropped, with a notice.
    """
    waiting = evaluator.state.waiting
    if waiting is None:
        return eligible, []
    stage = next((each for each in evaluator.compiled.graph.stages if each.name == waiting.stage), None)
    if stage is None or (view.as_of > waiting.until and stage not in held):
        evaluator.state = replace(evaluator.state, waiting=None)
        return eligible, [notices.no_longer_waits(evaluator, view.as_of, waiting)]
    if stage in held and stage not in eligible:
        waiting = replace(waiting, until=view.as_of + stage.close_within)
        evaluator.state = replace(evaluator.state, waiting=waiting)
    if stage in eligible or not _is_any_readable(evaluator, view, waiting):
        return eligible, []
    return tuple(sorted((stage, *eligible), key=lambda each: (-each.level, each is not stage))), []


def is_readable_again(evaluator: ScopeEvaluator, stage: Stage, view: ScopeView) -> bool:
    """Whether the stage has a pending close and an awaited account can be read."""
    waiting = evaluator.pending_close_of(stage)
    return waiting is not None and _is_any_readable(evaluator, view, waiting)


def with_wait_remark(decision: Decision, waiting: PendingClose | None, *, fired_earlier: bool) -> Decision:
    """Add to the decision of a stage whose close was `waiting` that the stage fired earlier.

    The decision of a stage that `fired_earlier` and is only carried out now is limited to the awaited accounts.
    """
    if waiting is None:
        return decision
    accounts = notices.waited_for(waiting)
    unread = f"{accounts} could not be read"
    if decision.scope.startswith("strategy/"):
        unread = f"its own part in {accounts} was unknown, or {unread}"
    remark = f"fired at {instant(from_micros(waiting.since))}, when {unread}"
    decision = replace(decision, reason=joined(remark, decision.reason))
    if not waiting.accounts or not fired_earlier:
        return decision
    return with_effects(decision, only_on(decision.effects, waiting.accounts))


def with_unreadable_remark(decision: Decision, evaluator: ScopeEvaluator, view: ScopeView) -> Decision:
    """Add to the decision the accounts on which nothing is closed because they cannot be read."""
    unreadable = sorted(_accounts(evaluator, view) - {account.account for account in view.trusted().accounts})
    why = f"{' and '.join(unreadable) or 'the account'} cannot be read"
    if view.part is not None and evaluator.history.why_unknown is not None:
        why = evaluator.history.why_unknown
    remark = f"{why}: nothing is closed or cancelled there yet"
    return replace(decision, reason=joined(decision.reason, remark))


def _is_any_readable(evaluator: ScopeEvaluator, view: ScopeView, waiting: PendingClose) -> bool:
    """Whether an awaited account can be read; the whole scope, if no account was ever known."""
    readable = {account.account for account in view.trusted().accounts}
    if not waiting.accounts:
        return bool(readable) and readable >= _accounts(evaluator, view)
    return not readable.isdisjoint(waiting.accounts)


def _level(evaluator: ScopeEvaluator, name: str) -> int:
    return next((stage.level for stage in evaluator.compiled.graph.stages if stage.name == name), 0)


def _accounts(evaluator: ScopeEvaluator, view: ScopeView) -> set[str]:
    """The scope's accounts: those in the snapshot and those seen before."""
    return {account.account for account in view.accounts} | set(evaluator.history.members)


class LastKnown(Struct, frozen=True):
    """A scope with last known positions in place of missing ones, and a remark for each such account.

    `replaced`: the names of these accounts.
    """

    view: ScopeView
    remarks: tuple[str, ...] = ()
    replaced: frozenset[str] = frozenset()

    def remarked(self, decision: Decision) -> Decision:
        """Add these remarks to the decision's reason."""
        return replace(decision, reason=joined(*self.remarks, decision.reason))


def with_last_positions(view: ScopeView, known: KnownPositions) -> LastKnown:
    """The scope with the last known positions of accounts whose positions are missing, all of them or some.

    Some that an answer has left out a moment ago do not make the account `replaced`: the rest of it was read.
    """
    view, left_out = known.completed(view)
    if view.positions_unknown is None or view.part is not None:  # whose the last known positions are is unknown now
        return LastKnown(view, left_out)
    accounts, remarks, replaced = [], list(left_out), set()
    for account in view.accounts:
        last = known.last.get(account.account)
        if account.positions is not None or account.market not in DERIVATIVES or last is None:
            accounts.append(account)
            continue
        accounts.append(replace(account, positions=last.positions))
        replaced.add(account.account)
        seen = "" if last.observed_at is None else f" at {last.observed_at.isoformat()}"
        remarks.append(f"{account.account} has unknown positions: the last known ones{seen} are closed, reduce-only")
    return LastKnown(view.with_accounts(accounts), tuple(remarks), frozenset(replaced))
