"""What an operator command needs before anything changes: an executor, a scope that is known, and an armed account.

Each function raises and says what to repeat the command with.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import click

from killswitch.accounts.arming import ArmedAccount, Arming, is_in_scope, strategy_accounts
from killswitch.accounts.opening import LoadedPolicies
from killswitch.cli.operate.command_output import CommandRequest
from killswitch.cli.session import opened_store
from killswitch.graph.nodes import PolicySet
from killswitch.operations import commands
from killswitch.operations.status import StoreStatus, locks_at, runner_state
from killswitch.planning.operator.closes import OPERATOR
from killswitch.planning.operator.plan_file import SavedPlan
from killswitch.runner.assembly import LockPaths
from killswitch.runner.status_blob import RunnerView
from killswitch.store.errors import StoreMissingError
from killswitch.store.sqlite import sign_of_life

REACHING = ("close", "lock", "halt", "cancel", "pause")
"""The kinds of commands that reach armed accounts by any scope that an account, a strategy or a symbol is in."""
LIFTING = ("unlock", "resume")
"""The kinds of commands that lift locks by hand of any such scope."""
_ARMING = "with --live, for accounts whose document says execution: live"


def require_executor(request: CommandRequest, store_at: str, *, live: bool) -> None:
    """Refuse a missing store, and orders that no process would send, before any change."""
    try:
        with opened_store(store_at, read_only=True) as store:
            runner = runner_state(store.lease(), datetime.now(UTC), sign_of_life(store_at))
            if request.plan is not None:
                commands.require_unspent(store, request.plan)
    except StoreMissingError as error:
        if not request.has_orders:
            raise
        # A misspelled path must not create a second store; a new machine gets the command that creates one.
        remedy = f"`ksctl run --ticks 1 --policies … --store {store_at}` creates it and, without --live, sends nothing"
        raise StoreMissingError(f"{error}. If no runner ever ran here, {remedy}; then repeat this command") from error
    if request.has_orders and not live and runner.liveness == "unrecorded":
        raise click.UsageError(
            f"the runner (pid {runner.pid}) is alive, but its store takes no writes, so that no command reaches it: "
            f"free the disk of the store and repeat this, or stop it first (kill -TERM {runner.pid}) and add --live"
        )
    if request.has_orders and not live and runner.liveness != "alive":
        raise click.UsageError(
            "no runner is alive on this store, so this command would send the orders itself: add --live"
            + (", or --dry-run to see them" if request.kind == "close" else "")
        )


def require_of_runner(request: CommandRequest, status: StoreStatus, view: RunnerView, locked: set[str]) -> None:
    """Refuse what the running runner does not watch, or is not armed for. `locked`: the scopes with a lock."""
    if request.plan is not None:
        armed = {each.account: each.armed for each in view.accounts}
        _require_armed(request.plan, armed, f"by the runner (pid {status.runner.pid}): restart it with --live and a")
    elif request.is_of_policy:
        commands.require_policy(request.scope, _pausable(request, status, {each.policy for each in view.machines}))
    else:
        whole = commands.account_scopes((it.account, it.venue) for it in view.accounts)
        watched = commands.watched_scopes(view)
        known = _scopes_of(request, whole, watched | locked, {*(view.strategies or ()), *commands.labels_in(watched)})
        _require_scope(request, known)
        if request.kind in REACHING:
            _require_armed_account(request, status, view)


def require_of_tick(
    request: CommandRequest,
    policies: PolicySet,
    opened: dict[str, ArmedAccount],
    locks: LockPaths,
    view: RunnerView | None,
) -> None:
    """Refuse what a tick of this process would not know, or an account that it would not be armed for."""
    if request.plan is not None:
        armed = {name: account.armed for name, account in opened.items()}
        _require_armed(request.plan, armed, "here: that takes --live and a")
    elif request.is_of_policy:
        if request.kind == "pause":  # a policy that is gone may be paused: the tick answers its resume
            commands.require_policy(request.scope, {graph.policy for graph in policies.graphs})
    elif request.kind in REACHING:
        arming = Arming(opened, policies)
        _require_scope(request, closable_scopes(policies, opened))
        if request.kind != "close" and not arming.reached_by(OPERATOR, request.scope or "portfolio"):
            raise click.ClickException(
                f"no account of {request.scope} is armed, so {_nothing_done(request)}: repeat it {_ARMING}"
            )
    else:
        locked = commands.locked_scopes(locks_at(locks.folder, locks.union, datetime.now(UTC)))
        # A latch outlives its policy and its account: the last runner published its scope.
        latched = set() if view is None else commands.watched_scopes(view)
        whole = commands.account_scopes((name, each.venue) for name, each in opened.items())
        watched = commands.machine_scopes(policies, opened) | locked | latched
        _require_scope(request, _scopes_of(request, whole, watched, closable_scopes(policies, opened)))


def _pausable(request: CommandRequest, status: StoreStatus, watching: set[str]) -> set[str]:
    """The policies that the command accepts; a policy that is gone may be resumed."""
    return watching if request.kind == "pause" else watching | {each.policy for each in status.pauses if each.policy}


def _scopes_of(request: CommandRequest, whole: set[str], watched: set[str], parts: set[str]) -> set[str]:
    """The scopes that the command accepts, besides symbols. `whole`: the accounts, their venues and the portfolio;
    `parts`: the strategies with a lock file, and the labels.
    """
    if request.kind == "flag":
        return whole
    if request.kind in REACHING:
        return whole | parts
    return watched | whole | parts if request.kind in LIFTING else watched


def _require_scope(request: CommandRequest, known: set[str]) -> None:
    """RefusedScopeError for a scope that the command does not accept."""
    takes_symbols = request.kind in (*REACHING, *LIFTING)
    require = commands.require_known_or_symbol if takes_symbols else commands.require_scope
    require(request.scope, known)


def require_its_policies(plan: SavedPlan, loaded: LoadedPolicies) -> None:
    """Refuse policies other than those of the plan: the store would adopt them, and the plan would be refused."""
    if plan.policy_set != loaded.policies.digest:
        raise click.ClickException(
            f"the plan belongs to the policy set {plan.policy_set[:19]}, and these policies are "
            f"{loaded.policies.digest[:19]}: name the plan's own with --policies. Nothing was changed"
        )


def _require_armed_account(request: CommandRequest, status: StoreStatus, view: RunnerView) -> None:
    if (request.scope or "").startswith(("strategy/", "label/")):
        return  # the runner knows which accounts it reaches
    if not any(each.armed and is_in_scope(request.scope, each.account, each.venue) for each in view.accounts):
        raise click.ClickException(
            f"the runner (pid {status.runner.pid}) is armed for no account of {request.scope or 'the portfolio'}, so "
            f"{_nothing_done(request)}: restart it {_ARMING}"
        )


def _nothing_done(request: CommandRequest) -> str:
    """What a command does not do without an armed account."""
    return {
        "lock": "no lock would be written",
        "pause": "no lock would be written",
        "halt": "nothing would be locked or cancelled",
    }.get(request.kind, "nothing would be sent")


def _require_armed(plan: SavedPlan, armed: Mapping[str, bool], remedy: str) -> None:
    """Refuse a plan that acts on an account that is not armed: a plan is applied as a whole."""
    acted_on = {name for decision in plan.decisions for name in decision.accounts}
    unarmed = sorted(name for name in acted_on if not armed.get(name, False))
    if unarmed:
        raise click.ClickException(
            f"the plan acts on {', '.join(unarmed)}, which is not armed {remedy} document that says execution: live"
        )


def closable_scopes(policies: PolicySet, accounts: dict[str, ArmedAccount]) -> set[str]:
    """The scopes that an operator can lock and close, besides symbols."""
    strategies = strategy_accounts(policies, accounts.values())
    labels = commands.labels_in(commands.machine_scopes(policies, accounts))
    whole = commands.account_scopes((name, each.venue) for name, each in accounts.items())
    return whole | labels | {f"strategy/{name}" for name in strategies}
