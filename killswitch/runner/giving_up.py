"""A person gives a close up: what is journaled of it, and what is answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from killswitch.model.decision import Notice
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry, Store
from killswitch.runner.acting import left_to_do

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What the commands of one tick come to; the entries are to be durable with it."""

    entries: tuple[JournalEntry, ...] = ()
    notices: tuple[Notice, ...] = ()


def given_up(events: Iterable[Event], store: Store, at: datetime) -> GivenUp:
    """The end of every close that the events name and that is not over, and an answer to each of them.

    An event names a decision, and an account in its scope, or no scope for every account that still closes for it.
    """
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
        scope = event.scope or "portfolio"
        if accounts:
            text = f"the close {event.decision} is given up on {', '.join(accounts)} by {by}: {why}"
            notices.append(Notice(at, OPERATOR, scope, "warning", "warning", text, event.id))
        else:
            text = f"nothing is being closed for {event.decision} on {scope}: there is nothing to give up"
            notices.append(Notice(at, OPERATOR, scope, "nothing_selected", "page", text, event.id))
    return GivenUp(tuple(entries), tuple(notices))


def accounts_closing(store: Store, decision: str, scope: str | None) -> tuple[str, ...]:
    """The accounts, of those that `scope` names, on which the decision's work is not finished."""
    kind, _, name = (scope or "portfolio").partition("/")
    return tuple(
        account
        for account, decisions in left_to_do(store).items()
        if any(each.id == decision for each in decisions) and (kind == "portfolio" or name == account)
    )
