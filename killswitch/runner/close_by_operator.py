"""Which decisions are acted on, and how an operator ends a close.

A person gives a close up: what is journaled of it, and what is answered.

Which decisions are acted on, and what an earlier run has left to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from msgspec import DecodeError

from killswitch.accounts.armed import Arming
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry, Store
from killswitch.runner.status_blob import LIVE_NAME, decode_view

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What the commands of one tick come to; the entries are to be durable with it."""

    entries: tuple[JournalEntry, ...] = ()
    notices: tuple[Notice, ...] = ()


def given_up(events: Iterable[Event], store: Store, at: datetime, answers: Iterable[Notice] = ()) -> GivenUp:
    """The end of every close that the events name and that is not over, and an answer to each of them.

    An event names a decision, and in its scope an account or a venue, or no scope for every account that still closes
    for it. Each of these accounts is told of by itself, so that routes for its scope take it. `answers`: the notices of
    the tick, which say so where a close by hand that waited is given up.
    """
    answered = {notice.subject for notice in answers}
    entries: list[JournalEntry] = []
    notices: list[Notice] = []
    for event in events:
        if event.kind != "give_up" or event.decision is None:
            continue
        accounts = accounts_closing(store, event.decision, event.scope)
        by, why = event.author or "unknown", event.reason or "no reason given"
        entries += [
            JournalEntry(
                decision=event.decision, kind="given_up", at=at, account=account,
                data={"author": event.author, "reason": event.reason, "event": event.id},
            )
            for account in accounts
            if not any((it.decision, it.account) == (event.decision, account) for it in entries)
        ]  # fmt: skip
        for account in accounts:
            text = f"the close {event.decision} is given up on {account} by {by}: {why}"
            notices.append(Notice(at, OPERATOR, f"account/{account}", "warning", "warning", text, event.id))
        if not accounts and event.id not in answered:
            scope = event.scope or "portfolio"
            text = f"nothing is being closed for {event.decision} on {scope}: there is nothing to give up"
            notices.append(Notice(at, OPERATOR, scope, "nothing_selected", "page", text, event.id))
    return GivenUp(tuple(entries), tuple(notices))


def accounts_closing(store: Store, decision: str, scope: str | None) -> tuple[str, ...]:
    """The accounts, of those that `scope` names, on which the decision's work is not finished."""
    kind, _, name = (scope or "portfolio").partition("/")
    venues = venues_of(store) if kind == "venue" else {}
    return tuple(
        account
        for account, decisions in left_to_do(store).items()
        if any(each.id == decision for each in decisions)
        and (kind == "portfolio" or (kind, name) in (("account", account), ("venue", venues.get(account))))
    )


def venues_of(store: Store) -> dict[str, str]:
    """Account → its venue, as the last tick on this store knew them."""
    blob = store.live(LIVE_NAME)
    try:
        view = None if blob is None else decode_view(blob)
    except DecodeError:
        view = None  # written by another version: an account can be named instead
    return {} if view is None else {each.account: each.venue for each in view.accounts}


REMEMBERED = 10_000
"""How many decisions back a start looks for what still stands."""


def is_acted_on(decision: Decision, arming: Arming) -> bool:
    """Whether anything is done about `decision`, or it is recorded only.

    An observing policy is recorded only, and so is every decision whose scope holds no armed account. A reset
    takes back what the policy did while it was enforced, so it counts whatever the mode is now.
    """
    if decision.mode != "enforce" and decision.kind != "reset":
        return False
    return bool(arming.reached_by(decision.policy, decision.scope))


def observed_latches(store: Store, arming: Arming) -> tuple[Decision, ...]:
    """Firings that still stand on scopes that are armed now, but were only observed when they fired.

    Their stages are latched, so nothing will happen about them by itself: a person must know.
    """
    newest: dict[tuple[str, str], Decision] = {}
    for stored in store.decisions(REMEMBERED):
        if not stored.decision.is_suspicion:  # it latches nothing, and leaves what is latched
            newest.setdefault((stored.decision.policy, stored.decision.scope), stored.decision)
    return tuple(
        decision
        for decision in newest.values()
        if decision.kind is None
        and is_acted_on(decision, arming)
        and (decision.intents or decision.cancels or decision.lock)
        and not any(entry.kind == "planned" for entry in store.journal(decision.id))
    )


def left_to_do(store: Store) -> dict[str, tuple[Decision, ...]]:
    """Account → decisions whose work on it was planned and is not finished, oldest first."""
    found: dict[str, tuple[Decision, ...]] = {}
    for stored in store.unfinished():
        journal = store.journal(stored.decision.id)
        planned = {entry.account for entry in journal if entry.kind == "planned" and entry.account is not None}
        finished = {entry.account for entry in journal if entry.kind == "finished"}
        for account in sorted(planned - finished):
            found[account] = (*found.get(account, ()), stored.decision)
    return found
