"""The answer of `ksctl status`: what is wrong, or that all is quiet; of every scope or of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from killswitch.gate.lock_merge import UNION_SCOPE
from killswitch.operations.commands import account_scopes, require_known_or_symbol
from killswitch.operations.status import OpenClosing, StoreStatus
from killswitch.planning.scopes.trigger_status import TriggerStatus
from killswitch.render.formats import count_of
from killswitch.runner.status_blob import RunnerView


def answer(status: StoreStatus) -> str:
    """What is wrong, the worst first; where nothing is, how near the nearest trigger is."""
    found = troubles(status)
    if not found:
        return _quiet(status)
    triggers = () if status.view is None else _triggers(status.view)
    young = sum(each.is_young for each in triggers)
    return ", ".join((*found, *((f"{count_of(young, 'trigger')} with a short history",) if young else ())))


def troubles(status: StoreStatus) -> tuple[str, ...]:
    """What a person must know of now, the worst first; empty where all is quiet."""
    return (*_runner(status), *_stages(status), *_pauses(status), *_locks(status), *_closings(status), *_rest(status))


def of_scope(status: StoreStatus, scope: str) -> StoreStatus:
    """What of the status is of `scope`: its accounts, and every scope that shares one. Problems stay, whosever they
    are. RefusedScopeError for a scope that no account or policy of the last tick has.
    """
    view = status.view
    if view is None:
        return status
    known = account_scopes((each.account, each.venue) for each in view.accounts) | {it.scope for it in view.machines}
    require_known_or_symbol(scope, known | set(view.strategies or ()))
    kind, _, name = scope.partition("/")
    is_part = kind in ("strategy", "symbol", "label")  # its accounts are not known here, so that all are shown
    names = {
        each.account
        for each in view.accounts
        if is_part or kind == "portfolio" or (kind, name) in (("account", each.account), ("venue", each.venue))
    }
    venues = {each.venue for each in view.accounts if each.account in names}
    scopes = {scope, "portfolio", *(f"account/{each}" for each in names), *(f"venue/{each}" for each in venues)}
    if is_part:
        scopes = {scope}
    machines = tuple(each for each in view.machines if each.scope in scopes)
    return replace(
        status,
        view=replace(
            view,
            accounts=tuple(each for each in view.accounts if each.account in names),
            machines=machines,
            orphans=tuple(each for each in view.orphans if each.scope in scopes),
        ),
        locks=tuple(each for each in status.locks if each.scope in (None, UNION_SCOPE) or each.scope in scopes),
        closings=tuple(each for each in status.closings if each.account in names),
        by_hand=tuple(each for each in status.by_hand if each.scope in scopes),
        suspicions=tuple(each for each in status.suspicions if each.scope in scopes),
        flags=tuple(each for each in status.flags if each.scope in scopes),
        pauses=tuple(each for each in status.pauses if each.policy in {machine.policy for machine in machines}),
        pending=tuple(each for each in status.pending if (each.scope or "portfolio") in scopes),
        notices=tuple(each for each in status.notices if each.scope in scopes),
    )


def _runner(status: StoreStatus) -> Iterator[str]:
    runner, view = status.runner, status.view
    if runner.liveness == "unrecorded":
        yield "runner NOT RECORDED"
    elif runner.liveness != "alive":
        yield "runner NOT TICKING" if runner.is_process_running else "runner NOT RUNNING"
    if view is None:
        yield f"stages unknown: {status.view_problem}"


def _stages(status: StoreStatus) -> Iterator[str]:
    machines = () if status.view is None else status.view.machines
    fired = [each for each in machines if each.level]
    orphans = () if status.view is None else status.view.orphans
    latched = sum(each.latched and each.mode == "enforce" for each in fired) + len(orphans)
    observed = sum(each.latched and each.mode != "enforce" for each in fired)
    for count, state in (
        (latched, "latched"),
        (observed, "latched (observed only)"),
        (sum(not each.latched for each in fired), "fired, not latched"),
        (sum(each.waiting is not None for each in machines), "waiting for accounts"),
    ):
        if count:
            yield f"{count_of(count, 'stage')} {state}"


def _pauses(status: StoreStatus) -> Iterator[str]:
    if status.pauses:
        yield f"{count_of(len(status.pauses), 'policy')} PAUSED"


def _locks(status: StoreStatus) -> Iterator[str]:
    locked = [each for each in status.locks if each.locked]
    if not locked:
        return
    if len(locked) == len(status.locks):
        yield "trading LOCKED"
    else:
        yield f"trading LOCKED on {locked[0].scope if len(locked) == 1 else f'{len(locked)} scopes'}"


def _closings(status: StoreStatus) -> Iterator[str]:
    if status.closings:
        yield f"{count_of(len({each.decision for each in status.closings}), 'close')} in progress"
        yield _positions([unmet_positions(each) for each in status.closings], "left")
    elif status.view is not None and any(each.level for each in status.view.machines):
        yield _positions([each.positions for each in status.view.accounts], "open")


def _rest(status: StoreStatus) -> Iterator[str]:
    view = status.view
    triggers = () if view is None else _triggers(view)
    for count, noun, state in (
        (0 if view is None else sum(each.quality != "ok" for each in view.accounts), "account", " unreadable"),
        (sum(each.truth is True for each in triggers), "trigger", " true"),
        (sum(each.truth is None and not each.is_young for each in triggers), "trigger", " unknown"),
        (len(() if view is None else view.problems) + len(status.problems), "problem", ""),
        (len(status.active_alerts), "active alert", ""),
        (sum(each.given_up for each in status.notifications), "message", " given up"),
        (len(status.pending), "pending command", ""),
        (0 if view is None else len(view.suspended), "account", " suspended at the broker"),
    ):
        if count:
            yield f"{count_of(count, noun)}{state}"


def unmet_positions(closing: OpenClosing) -> int | None:
    """The positions beyond their target, those that nobody has read since as of the decision; None: nothing known."""
    if closing.left:
        return len(closing.left)
    positions = [each for each in closing.result.positions if each.account == closing.account]
    return sum((each.start if each.left is None else each.left) > each.target for each in positions) or None


def _positions(counts: Sequence[int | None], state: str) -> str:
    known = [each for each in counts if each is not None]
    if not known:
        return f"positions {state} unknown"
    unknown = len(counts) - len(known)
    return f"{count_of(sum(known), 'position')} {state}" + (
        f" (unknown on {count_of(unknown, 'account')})" if unknown else ""
    )


def _quiet(status: StoreStatus) -> str:
    view = status.view
    if view is None:
        return "all quiet"
    triggers = _triggers(view)
    young = sum(each.is_young for each in triggers)
    nearest = max((each.reached for each in triggers if each.truth is False and each.reached is not None), default=None)
    parts = (
        count_of(len(view.accounts), "account"),
        count_of(len(triggers), "trigger") + (f" ({young} with a short history)" if young else ""),
        *(() if nearest is None else (f"nearest {nearest:.0%} of its threshold",)),
    )
    return f"all quiet: {', '.join(parts)}"


def _triggers(view: RunnerView) -> tuple[TriggerStatus, ...]:
    return tuple(trigger for machine in view.machines for trigger in machine.triggers)
