"""What hands bring about: resets, and closes by hand."""

from __future__ import annotations

from decimal import Decimal

from killswitch.graph.nodes import CancelOrders, RankingRule
from killswitch.model.decision import Decision, decision_id
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import AccountSnapshot, Event, Snapshot
from killswitch.planning.book import book_change
from killswitch.planning.cancels import cancels
from killswitch.planning.decide import to_intents
from killswitch.planning.ranking import candidates, rank
from killswitch.planning.selection import Target
from killswitch.planning.watch import Watch
from killswitch.signals.view import Instruments, ScopeView, distrust

OPERATOR = "operator"
"""The policy name of what a hand decides."""


class RefusedHandError(Exception):
    """A hand that cannot be followed; the message says why."""


def applies(event: Event, scope: str) -> bool:
    """Whether the event speaks of the scope; one without a scope speaks of all."""
    return event.scope is None or event.scope == scope


def reset_record(watch: Watch, now: int, digest: str, commit: str | None, event: Event | None) -> Decision:
    """The record of a return to normal, by hand or by itself."""
    as_of = from_micros(now)
    return Decision(
        id=decision_id(watch.policy, watch.scope, f"reset/{watch.state.stage}", as_of),
        as_of=as_of,
        policy=watch.policy,
        policy_set=digest,
        commit=commit,
        scope=watch.scope,
        mode=watch.prepared.graph.mode,
        stage=watch.state.stage,
        level=0,
        previous_level=watch.state.level,
        kind="reset",
        author=event.author if event else None,
        reason=event.reason if event else "the stage's condition for reset has held",
    )


def accounts_in(scope: str | None, snapshot: Snapshot) -> tuple[AccountSnapshot, ...]:
    """The accounts of the snapshot that a hand's scope names; empty if it names none."""
    kind, _, name = (scope or "portfolio").partition("/")
    return tuple(
        account
        for account in snapshot.accounts
        if kind == "portfolio" or (account.account if kind == "account" else account.venue) == name
    )


def close_by_hand(
    event: Event,
    snapshot: Snapshot,
    now: int,
    instruments: Instruments,
    ranking: RankingRule,
    digest: str,
    commit: str | None,
) -> tuple[tuple[str, ...], Decision]:
    """Close everything in the event's scope that can be seen, and say of the rest why it was not closed.

    RefusedHandError where the scope names nothing, or nothing of it can be seen.
    """
    scope = event.scope or "portfolio"
    accounts = accounts_in(event.scope, snapshot)
    if not accounts:
        raise RefusedHandError(f"{scope} names no account of this snapshot")
    doubts = [doubt for account in accounts if (doubt := distrust(account, now, None)) is not None]
    if len(doubts) == len(accounts):
        raise RefusedHandError("; ".join(doubts))
    view = ScopeView(now, snapshot.scheduled, accounts, instruments, None).trusted()
    ranked = rank(ranking, candidates(view, None))
    intents, blocked, left = to_intents(view, [Target(r, Decimal(0)) for r in ranked])
    problems = (*doubts, *(each.why for each in blocked))
    return problems, Decision(
        id=decision_id(OPERATOR, scope, event.id, from_micros(now)),
        as_of=from_micros(now),
        policy=OPERATOR,
        policy_set=digest,
        commit=commit,
        scope=scope,
        mode="enforce",
        stage=None,
        level=0,
        previous_level=0,
        kind="manual",
        book=book_change(view, left),
        intents=intents,
        cancels=cancels(view, [CancelOrders("all")]),
        author=event.author,
        reason=event.reason,
    )
