"""Operator commands that the runner handles itself: `close --give-up`, and commands that it cannot read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from killswitch.accounts.arming import is_in_scope, left_to_do
from killswitch.journal.codec import encode
from killswitch.journal.entries import GivenUp
from killswitch.model.alert import Alert, Alerts, NoticeGroup
from killswitch.model.decision import Notice
from killswitch.model.legible import legible, one_line
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry, Store, UnreadableCommand
from killswitch.runner.status_blob import last_view

OPERATOR = "operator"


def ended_closes(
    events: Iterable[Event], store: Store, at: datetime, answers: Iterable[Notice]
) -> tuple[tuple[JournalEntry, ...], tuple[Notice, ...]]:
    """End every unfinished close that the events name: the journal entries, and a notice for each.

    The caller commits the entries with the tick.

    An event names a decision and, as its scope, an account or a venue; without a scope it ends the whole close.
    Each account has a notice of its own, so that routes match its scope. `answers`: the notices of the tick, including
    those about operator closes that were still waiting.
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
            encode(GivenUp(event.decision, at, account, author=event.author, reason=event.reason, event=event.id))
            for account in accounts
            if not any((it.decision, it.account) == (event.decision, account) for it in entries)
        ]
        for account in accounts:
            text = f"the close {event.decision} is ended on {account} by {by}: {why}"
            notices.append(
                Notice(at, OPERATOR, f"account/{account}", "warning", "warning", text, event.id, title=GIVEN_UP)
            )
        if not accounts and event.id not in answered:
            scope = event.scope or "portfolio"
            text = f"nothing is being closed for {event.decision} on {scope}: there is nothing to end"
            notices.append(
                Notice(at, OPERATOR, scope, "nothing_selected", "page", text, event.id, title=NOTHING_TO_END)
            )
    return tuple(entries), tuple(notices)


def accounts_closing(store: Store, decision: str, scope: str | None) -> tuple[str, ...]:
    """The accounts in `scope` on which the decision's work is not finished."""
    venues = venues_of(store) if (scope or "").startswith("venue/") else {}
    return tuple(
        account
        for account, decisions in left_to_do(store).items()
        if any(each.id == decision for each in decisions) and is_in_scope(scope, account, venues.get(account))
    )


def venues_of(store: Store) -> dict[str, str]:
    """Account → venue, as of the last tick on this store."""
    view = last_view(store)
    return {} if view is None else {each.account: each.venue for each in view.accounts}


GIVEN_UP, NOTHING_TO_END = "a close is ended by hand", "there is no close to end"
"""Titles of notices."""
_LONGEST: Final = 80
"""Most characters of an id or a cause that a message quotes."""


def unreadable_commands(commands: Iterable[UnreadableCommand]) -> Alerts:
    """A page for each unreadable command, once, also where the store cannot mark it as consumed."""
    return Alerts(
        tuple(
            Alert(
                f"command/{_short(each.id)}", "page", unreadable_message(each),
                NoticeGroup("operator", "portfolio", "warning", _short(each.id)), lasts=False,
            )
            for each in commands
        )
    )  # fmt: skip


def unreadable_message(command: UnreadableCommand) -> str:
    """The message about a discarded command: cause and way out."""
    return (
        f"the command {_short(command.id)} cannot be read and is discarded: none of it is carried out "
        f"({command.why[:_LONGEST]}): repeat it with this runner's version of ksctl"
    )


def _short(text: str) -> str:
    return one_line(legible(text))[:_LONGEST]
