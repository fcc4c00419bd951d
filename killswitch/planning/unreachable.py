"""Stages that fire on accounts that cannot be read, or whose positions are not known.

What can be read is closed at once. For the rest the intent to close is kept in the engine's state, by stage: it is
carried out on the first snapshot in which an account can be read, whether or not the triggers still hold, and is given
up when the time that the policy allows has passed since they held last.

Only where an order cannot open anything: on derivatives it goes out reduce-only, and the venue itself cuts it down to
what is there. What was opened since is not closed by it, and a holding that is gone is not sold: on other markets the
account counts as one that cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import Waiting
from killswitch.graph.nodes import Stage
from killswitch.model.decision import Decision, Notice, with_effects
from killswitch.model.effects import only_on
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning import notices
from killswitch.planning.orders.slices import DERIVATIVES
from killswitch.planning.scopes.evaluator import Watch
from killswitch.planning.stage_decision import joined
from killswitch.render.formats import instant
from killswitch.signals.view import ScopeView


def wait(watch: Watch, stage: Stage, view: ScopeView, readable: Collection[str], *, owed: bool) -> None:
    """Keep the stage's close for the accounts that are not `readable`.

    Its time begins anew while the stage may fire, and not where it only carries out what it is `owed`.
    """
    if not stage.close_within:
        return
    waiting = watch.state.waiting
    if waiting is not None and waiting.stage != stage.name and _level(watch, waiting.stage) >= stage.level:
        return
    accounts = tuple(sorted(_accounts(watch, view) - set(readable)))
    same = watch.waiting_for(stage)
    if same is not None and owed:
        waiting = replace(same, accounts=accounts)  # carried out in part
    else:
        since, reported = (view.as_of, ()) if same is None else (same.since, same.reported)
        confirmed = watch.state.triggers.confirmed
        names = tuple(name for i, name in enumerate(watch.prepared.trigger_names) if confirmed >> i & 1)
        waiting = Waiting(stage.name, names, since, view.as_of + stage.close_within, accounts, reported)
    watch.state = replace(watch.state, waiting=waiting)


def due(watch: Watch, view: ScopeView, eligible: tuple[Stage, ...], told: list[Notice]) -> tuple[Stage, ...]:
    """The stages to fire, highest first: the eligible ones, and the one that waits if an account answers again.

    A wait that is over, or whose stage is gone, is dropped.
    """
    waiting = watch.state.waiting
    if waiting is None:
        return eligible
    stage = next((each for each in watch.prepared.graph.stages if each.name == waiting.stage), None)
    if stage is None or (view.as_of > waiting.until and stage not in eligible):
        told.append(notices.no_longer_waits(watch, view.as_of, waiting))
        watch.state = replace(watch.state, waiting=None)
        return eligible
    if stage in eligible or not _answers(watch, view, waiting):
        return eligible
    return tuple(sorted((stage, *eligible), key=lambda each: (-each.level, each is not stage)))


def answers(watch: Watch, stage: Stage, view: ScopeView) -> bool:
    """Whether the stage's close waits, and an account that it waits for can be read."""
    waiting = watch.waiting_for(stage)
    return waiting is not None and _answers(watch, view, waiting)


def carried_out(decision: Decision, waiting: Waiting | None, *, owed: bool) -> Decision:
    """The decision as a stage makes it whose close was `waiting`: with the remark that it fired earlier.

    Where it only carries out what it is `owed` it is about the accounts that were waited for, and no others.
    """
    if waiting is None:
        return decision
    remark = f"fired at {instant(from_micros(waiting.since))}, when {notices.waited_for(waiting)} could not be read"
    decision = replace(decision, reason=joined(remark, decision.reason))
    if not waiting.accounts or not owed:
        return decision
    return with_effects(decision, only_on(decision.effects, waiting.accounts))


def unread_remarked(decision: Decision, watch: Watch, view: ScopeView) -> Decision:
    """The decision with the accounts that nothing is closed on, because they cannot be read."""
    unread = sorted(_accounts(watch, view) - {account.account for account in view.trusted().accounts})
    remark = f"{' and '.join(unread) or 'the account'} cannot be read: nothing is closed or cancelled there yet"
    return replace(decision, reason=joined(decision.reason, remark))


def _answers(watch: Watch, view: ScopeView, waiting: Waiting) -> bool:
    """Whether an account that the close waits for can be read; where none was ever known, the whole scope."""
    readable = {account.account for account in view.trusted().accounts}
    if not waiting.accounts:
        return bool(readable) and readable >= _accounts(watch, view)
    return not readable.isdisjoint(waiting.accounts)


def _level(watch: Watch, name: str) -> int:
    return next((stage.level for stage in watch.prepared.graph.stages if stage.name == name), 0)


def _accounts(watch: Watch, view: ScopeView) -> set[str]:
    """The scope's accounts: those in the snapshot, and those that it had before."""
    return {account.account for account in view.accounts} | set(watch.history.members)


class LastKnown(Struct, frozen=True):
    """A scope with the last known positions where the snapshot gives none, and a remark on each such account."""

    view: ScopeView
    remarks: tuple[str, ...] = ()

    def remarked(self, decision: Decision) -> Decision:
        """The decision with these remarks in its reason."""
        return replace(decision, reason=joined(*self.remarks, decision.reason))


def with_last_positions(view: ScopeView, read_last: Mapping[str, AccountSnapshot]) -> LastKnown:
    """The scope with what its accounts held when they were read last, where they do not say what they hold now."""
    if view.positions_unknown is None:
        return LastKnown(view)
    accounts, remarks = [], []
    for account in view.accounts:
        last = read_last.get(account.account)
        if account.positions is not None or account.market not in DERIVATIVES or last is None:
            accounts.append(account)
            continue
        accounts.append(replace(account, positions=last.positions))
        seen = "" if last.observed_at is None else f" at {last.observed_at.isoformat()}"
        remarks.append(f"{account.account} gives no positions: closed by those last read{seen}, reduce-only")
    return LastKnown(view.of(accounts), tuple(remarks))
