"""Where a message belongs: the incident that it is about, and the page that it updates or ends.

A **thread** is what people read together: all that a run sends about one incident, and otherwise a problem and its end.
A **key** is what a pager deduplicates by, so it decides what rings. What must ring has a key that nothing before it
had: each firing, each close that left something, each urgent notice. One cause rings once: what follows from an account
that does not answer has the key of its outage, within one incident, so that a pager shows it as updates of one page. A
chat, a mail and a phone get each of them either way, at the same instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from killswitch.engine.notice_titles import OVER, is_urgent, notice_title
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import ENDED_SHORT, IN_PROGRESS, Snapshot
from killswitch.planning.routing.state import RoutingState

OUTAGE: Final = "outage/"
"""How the key of the alert begins of an account that cannot be read; its name follows."""


BEGINS: Final = "alert/"
"""How the alerts begin of which `killswitch.engine.alerts` decides when they are over."""


class PageThread(Struct, frozen=True):
    """The thread of a notice, the key of its page (empty: its own id), and the keys of the pages that its end ends.

    `is_update`: whether a page with this key was sent that is not over, or is sent in this tick.
    """

    thread: str
    key: str = ""
    resolves: tuple[str, ...] = ()
    is_update: bool = False


def digest(*parts: str) -> str:
    """Return an id that depends on the parts alone."""
    return blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()


def notice_thread(notice: Notice) -> str:
    """Return the thread of a notice of no incident: that of the problem, and of the notice that it is over."""
    subject, title = notice.subject or "", notice_title(notice).removeprefix(OVER)
    return digest("thread", notice.policy, notice.scope, notice.kind, subject, title)


def firing_keys(decision: Decision) -> tuple[str, ...]:
    """Return the keys of the pages about a decision: that it fired, and what its close has left.

    They are the ids of these messages before they have a target.
    """
    ends = (digest("closing", decision.id, status) for status in ENDED_SHORT)
    return (digest("fired", decision.id), *ends)


def is_end(notice: Notice) -> bool:
    """Return whether the notice says that something is over."""
    return notice.is_over or notice.title.startswith(OVER)


def account_of(notice: Notice) -> str:
    """Return the account whose outage or whose close the notice is about; empty of any other notice."""
    begun = notice.alert.removeprefix(OUTAGE) if notice.alert.startswith(OUTAGE) else ""
    return notice.closing_on or begun


def incident_on(
    account: str, snapshot: Snapshot, incident_of: Callable[[str], tuple[str, frozenset[str]] | None]
) -> str:
    """Return the incident of the newest close under way on the account; empty if there is none."""
    for closing in reversed(snapshot.closings):
        if closing.status in IN_PROGRESS and (found := incident_of(closing.decision)) is not None:
            incident, accounts = found
            if account in accounts:
                return incident
    return ""


def place_of(notice: Notice, incident: str, unread: Iterable[str], routing: RoutingState) -> PageThread:
    """Return where a notice belongs.

    `incident`: that of the close under way on its account; empty without one. `unread`: the accounts that cannot be
    read now. `routing`: what was sent before, so that an end has the thread of its beginning, after a restart too.
    """
    account, begun = account_of(notice), _page_sent(notice.alert, routing)
    thread = begun[0] if begun and is_end(notice) else incident or notice_thread(notice)
    outage = digest("page", thread, f"{OUTAGE}{account}")
    own = digest("page", thread, notice.alert)
    if is_end(notice):
        ended = (begun[1] if begun else own, outage) if account else (begun[1] if begun else own,)
        return PageThread(thread, resolves=tuple(dict.fromkeys(ended)))
    if account and account in unread:
        others = (name for name, page in _pages_sent(routing) if name != f"{BEGINS}{notice.alert}" and outage in page)
        return PageThread(thread, outage, is_update=bool(notice.part_of) or any(others))
    return PageThread(thread, own if notice.alert and not is_urgent(notice) else "")


def _page_sent(alert: str, routing: RoutingState) -> tuple[str, ...]:
    """Return thread and key of the message with which an active alert was sent; empty if it was not."""
    return next((page for name, page in _pages_sent(routing) if alert and name == f"{BEGINS}{alert}"), ())


def _pages_sent(routing: RoutingState) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each active alert that somebody was sent, with thread and key of its message."""
    for alerts in routing.sent.values():
        yield from ((name, each.announcement.page) for name, each in alerts.items() if each.announcement.page)
