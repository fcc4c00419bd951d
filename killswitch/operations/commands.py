"""Operator commands: an event in the store, which the next tick of the runner processes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from hashlib import sha256
from typing import Any, Literal, TypeVar

from msgspec import Struct, structs

from killswitch.accounts.arming import ArmedAccount, scopes_over
from killswitch.gate.lock_merge import UNION_SCOPE
from killswitch.graph.nodes import PolicySet
from killswitch.incident.record.results import DecisionStatus, fold_result
from killswitch.journal.codec import decode_all
from killswitch.model.decision import Decision, Notice, decision_id
from killswitch.model.effects import Lock, of_kind
from killswitch.model.flags import OF_POLICY
from killswitch.model.instant import rfc3339, to_micros
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.operations.status import LockView
from killswitch.planning.notices import RESET
from killswitch.planning.operator.closes import OPERATOR
from killswitch.planning.operator.flags import FLAG_CHANGE
from killswitch.planning.operator.pauses import PAUSE_CHANGE, unknown_policy
from killswitch.planning.operator.plan_file import SavedPlan, decode_plan, encode_plan
from killswitch.planning.operator.saved_plan import applied_ids
from killswitch.runner.status_blob import RunnerView

T = TypeVar("T")
OperatorCommandKind = Literal[
    "close",
    "reset",
    "apply",
    "give_up",
    "restate",
    "lock",
    "unlock",
    "halt",
    "cancel",
    "flag",
    "pause",
    "resume",
    "reload",
    "acknowledge",
    "silence",
]

LOOK_BACK = 50
"""Number of the newest decisions and notices that are searched first for the answer to a command."""

MAX_LOOK_BACK = 10_000
"""Maximum number of decisions and notices that are searched, also for refusals of a plan."""


class RefusedScopeError(Exception):
    """No account or stage machine has this scope; the message lists the known scopes."""


class CommandAnswer(Struct, frozen=True):
    """The answer of a tick to an operator command: its decisions and notices."""

    decisions: tuple[Decision, ...]
    notices: tuple[Notice, ...]


class SpentPlanError(Exception):
    """The store has applied this saved plan, or has it queued; the message says which."""


def operator_event(
    kind: OperatorCommandKind,
    scope: str | None,
    author: str,
    reason: str,
    at: datetime,
    **more: Any,
) -> Event:
    """The event of an operator command issued at `at`. `more`: further fields of an event, of this kind of command."""
    begins = {"flag": FLAG_CHANGE, "pause": PAUSE_CHANGE, "resume": PAUSE_CHANGE}.get(kind, "hand-")
    if begins == PAUSE_CHANGE and not (scope or "").startswith(OF_POLICY):
        begins = "hand-"
    return Event(f"{begins}{secrets.token_hex(8)}", at, kind, scope, author, reason, **more)


def apply_event(store: Store, plan: SavedPlan, author: str, at: datetime) -> Event:
    """The event that applies `plan` at the next tick. SpentPlanError if the store has its decisions, or has it queued.

    Each attempt is an event of its own, so that of operators who apply a plan at the same moment one is carried out,
    and the others are on record as refused.
    """
    require_unspent(store, plan)
    queued = next((each for each in store.pending_events() if each.kind == "apply" and _is_of(each, plan)), None)
    if queued is not None:
        by = queued.author or "unknown"
        raise SpentPlanError(f"the plan {plan.short} is queued already by {by}, as {queued.id}: see `ksctl status`")
    recorded = refused_apply_event(plan, author, at, f"plan {plan.short}")
    return structs.replace(recorded, plan=encode_plan(plan).decode())


def refused_apply_event(plan: SavedPlan, author: str, at: datetime, why: str) -> Event:
    """The event that puts a refused attempt to apply `plan` on record; it has no plan, so that nothing can apply it."""
    attempt = sha256(f"{to_micros(at)}/{author}/{why}".encode()).hexdigest()[:12]
    return Event(id=f"{_begin_of(plan)}{attempt}", at=at, kind="apply", scope=plan.scope, author=author, reason=why)


def _begin_of(plan: SavedPlan) -> str:
    return f"apply-{plan.digest.removeprefix('sha256:')[:20]}-"


def _is_of(event: Event, plan: SavedPlan) -> bool:
    """Whether the event would apply the plan; one that only records a refusal does not."""
    return event.plan is not None and event.plan == encode_plan(plan).decode()


def require_unspent(store: Store, plan: SavedPlan) -> None:
    """SpentPlanError if the plan's decisions are in the store: a plan is applied once."""
    for decision in applied_ids(plan):
        found = store.decision(decision)
        if found is not None:
            raise SpentPlanError(
                f"the plan {plan.short} was applied at {rfc3339(found.decision.as_of)} by "
                f"{found.decision.author or 'unknown'}, as decision {decision}: make a new one"
            )


def require_scope(scope: str | None, known: set[str]) -> None:
    """RefusedScopeError unless `scope` is one of `known`, or None: the portfolio."""
    if scope is None or scope in known:
        return
    near = get_close_matches(scope, known, 1)
    hint = f", did you mean {near[0]}?" if near else "."
    raise RefusedScopeError(f"no account is watched under {scope}{hint} Known: {', '.join(sorted(known)) or 'nothing'}")


def require_policy(scope: str | None, known: Collection[str]) -> None:
    """RefusedScopeError unless `scope` is that of one of these policies, by name."""
    name = (scope or "").removeprefix(OF_POLICY)
    if name not in known:
        raise RefusedScopeError(f"{unknown_policy(name, known)}. Nothing was changed")


def is_covered(scope: str | None, scopes: Iterable[str]) -> bool:
    """Whether rights in these scopes reach `scope`; None is the portfolio, which only `portfolio` covers."""
    held = frozenset(scopes)
    return "portfolio" in held or (scope is not None and scope in held)


def account_scopes(accounts: Iterable[tuple[str, str]]) -> set[str]:
    """The scopes of accounts by name and venue: each account, each venue, and the portfolio."""
    return {"portfolio"} | {scope for name, venue in accounts for scope in (f"account/{name}", f"venue/{venue}")}


def require_known_or_symbol(scope: str | None, known: set[str]) -> None:
    """RefusedScopeError unless `scope` is one of `known`, or a symbol: any may be named, also before it is held."""
    kind, _, symbol = (scope or "").partition("/")
    if kind != "symbol" or not symbol:
        require_scope(scope, known)


def labels_in(scopes: Iterable[str]) -> set[str]:
    """Those of the scopes that are labels of accounts, as a policy draws them."""
    return {scope for scope in scopes if scope.startswith("label/")}


def machine_scopes(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> set[str]:
    """The scopes that would have a stage machine with these policies and accounts."""
    return {scope for graph in policies.graphs for scope in scopes_over(graph.scope, accounts.values())}


def watched_scopes(view: RunnerView) -> set[str]:
    """The scopes that have a stage machine, or a latch that outlived its policy."""
    return {machine.scope for machine in view.machines} | {orphan.scope for orphan in view.orphans}


def locked_scopes(locks: Iterable[LockView]) -> set[str]:
    """The locked scopes, whichever program locked them: `ksctl reset` lifts a lock also without a policy."""
    return {lock.scope for lock in locks if lock.ordered and lock.has_own and lock.scope is not None} - {UNION_SCOPE}


def is_pending(store: Store, event: Event) -> bool:
    """Whether no tick has processed `event` yet."""
    return any(pending.id == event.id for pending in store.pending_events())


def is_unfinished(store: Store, event: Event) -> bool:
    """Whether the close is in progress, and still waits for accounts that cannot be polled."""
    answer = answer_to(store, event)
    return event.kind == "close" and bool(answer.decisions or answer.notices)


def answer_to(store: Store, event: Event) -> CommandAnswer:
    """The decisions and notices with which a tick has answered `event`."""
    recent = [each.decision for each in _newest(store.decisions, lambda stored: stored.decision.as_of, event.at)]
    notices = _newest(store.notices, lambda notice: notice.as_of, event.at)
    is_answer = _TESTS.get(event.kind, _resets)(event)
    answers = tuple(each for each in notices if each.subject == event.id or _is_reset_notice(each, event))
    if event.kind == "apply" and answers:  # it is applied as a whole or refused: decisions are of another attempt
        return CommandAnswer((), answers)
    return CommandAnswer(tuple(filter(is_answer, recent)), answers)


def _newest(read: Callable[[int], Sequence[T]], when: Callable[[T], datetime], since: datetime) -> Sequence[T]:
    """The newest rows, newest first, including all since `since`: one tick may have many."""
    limit = LOOK_BACK
    while True:
        found = read(limit)
        if len(found) < limit or limit >= MAX_LOOK_BACK or when(found[-1]) < since:
            return found
        limit = min(MAX_LOOK_BACK, limit * 10)


def fired_again(store: Store, answer: CommandAnswer) -> Decision | None:
    """The newest decision that locked a scope again after its reset, as its triggers still held; None without one."""
    resets = [each for each in answer.decisions if each.kind == "reset"]
    newest = (stored.decision for stored in store.decisions(LOOK_BACK))
    locking = (each for each in newest if each.kind is None and of_kind(each.effects, Lock) is not None)
    return next((it for it in locking if any(it.scope == r.scope and it.as_of >= r.as_of for r in resets)), None)


def close_status(store: Store, decision: Decision) -> DecisionStatus:
    """The status of the close of `decision`, from its journal alone; cheap enough for polling."""
    return fold_result(decision, decode_all(store.journal(decision.id)), None).standing


def _commands(event: Event) -> Callable[[Decision], bool]:
    return lambda decision: decision.id == decision_id(OPERATOR, decision.scope, event.id, decision.as_of)


def _resets(event: Event) -> Callable[[Decision], bool]:
    def test(decision: Decision) -> bool:
        matches = (decision.scope, decision.author, decision.reason) == (event.scope, event.author, event.reason)
        return decision.kind == "reset" and matches and decision.as_of >= event.at

    return test


def _applies(event: Event) -> Callable[[Decision], bool]:
    ids = frozenset(() if event.plan is None else applied_ids(decode_plan(event.plan)))
    return lambda decision: decision.id in ids


_TESTS: dict[str, Callable[[Event], Callable[[Decision], bool]]] = {
    "close": _commands,
    "lock": _commands,
    "unlock": _commands,
    "halt": _commands,
    "cancel": _commands,
    "apply": _applies,
    "give_up": lambda event: lambda decision: decision.id == event.decision,
    "restate": lambda _event: lambda _decision: False,  # only notices answer it
    "flag": lambda _event: lambda _decision: False,
    "pause": _commands,  # only notices answer that of a policy
    "resume": _commands,
    "acknowledge": lambda _event: lambda _decision: False,
    "silence": lambda _event: lambda _decision: False,
}


def _is_reset_notice(notice: Notice, event: Event) -> bool:
    matches = (notice.scope, notice.subject) == (event.scope, RESET)
    return event.kind == "reset" and matches and notice.as_of >= event.at
