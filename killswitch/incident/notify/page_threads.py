"""Where a message belongs: the incident that it is about, and the page that it updates or ends.

A **thread** is what people read together: all that a run sends about one incident, and otherwise a problem and its end.
A **key** is what a pager deduplicates by, so it decides what rings. What must ring has a key that nothing before it
had: each firing, each close that left something, each urgent notice. One cause rings once: what follows from an account
that does not answer has the key of its outage, within one incident, so that a pager shows it as updates of one page. A
chat, a mail and a phone get each of them either way, at the same instant.

What was sent last of an active alert has the keys of all its pages (`Announcement.page`), because its end may come long
after them, after a restart, or under another name of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
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
MOST_KEYS: Final = 24
"""Keys that are remembered of one alert, the newest: its end is a request to a pager for each of them."""


class PageThread(Struct, frozen=True):
    """The thread of a notice, the key of its page (empty: its own id), and the keys of the pages that its end ends.

    `is_update`: whether a page with this key was sent that is not over, or is sent in this tick. `earlier`: the keys of
    pages before it about the same alert, which is not over.
    """

    thread: str
    key: str = ""
    resolves: tuple[str, ...] = ()
    is_update: bool = False
    earlier: tuple[str, ...] = ()


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


def place_of(
    notice: Notice, incident: str, unread: Iterable[str], routing: RoutingState, ending: Collection[str] = ()
) -> PageThread:
    """Return where a notice belongs.

    `incident`: that of the close under way on its account; empty without one. `unread`: the accounts that cannot be
    read now. `routing`: what was sent before, so that an end has the thread of its beginning, after a restart too.
    `ending`: the alerts, by key, that this tick finds to be over.
    """
    account, alert = account_of(notice), f"{BEGINS}{notice.alert}" if notice.alert else ""
    begun = page_sent(alert, routing)
    thread = begun[0] if begun and is_end(notice) else incident or notice_thread(notice)
    outage = digest("page", thread, f"{OUTAGE}{account}")
    own = digest("page", thread, notice.alert)
    if is_end(notice):
        ended = begun[1:] or ((own, outage) if account else (own,))
        over = {f"{BEGINS}{key}" for key in ending} | {alert}
        return PageThread(thread, resolves=tuple(key for key in ended if not _is_shared(key, alert, over, routing)))
    if account and account in unread:
        others = (name for name, page in _pages_sent(routing) if name != alert and outage in page)
        return PageThread(thread, outage, is_update=bool(notice.part_of) or any(others), earlier=begun[1:])
    return PageThread(thread, own if notice.alert and not is_urgent(notice) else "", earlier=begun[1:])


def page_of(thread: str, *keys: str) -> tuple[str, ...]:
    """Return what an announcement keeps of its page and of those before it: the thread, and the newest keys."""
    return (thread, *tuple(dict.fromkeys(keys))[-MOST_KEYS:])


def page_sent(alert: str, routing: RoutingState) -> tuple[str, ...]:
    """Return the thread of the message with which an active alert was sent, and the keys of all its pages, whoever got
    them; empty if it was not sent."""
    pages = [page for name, page in _pages_sent(routing) if name == alert]
    return page_of(pages[0][0], *(key for page in pages for key in page[1:])) if pages else ()


def _is_shared(key: str, alert: str, over: Collection[str], routing: RoutingState) -> bool:
    """Return whether the page is also of another alert that is not over, at everybody who was sent this one: its end
    ends the page then."""
    sharing = [
        any(key in each.announcement.page[1:] for name, each in alerts.items() if name not in over)
        for alerts in routing.sent.values()
        if alert in alerts or not alert
    ]
    return any(sharing) and (not alert or all(sharing))


def _pages_sent(routing: RoutingState) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each active alert that somebody was sent, with the thread and the keys of its pages."""
    for alerts in routing.sent.values():
        yield from ((name, each.announcement.page) for name, each in alerts.items() if each.announcement.page)
