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

from collections.abc import Callable, Collection
from functools import cached_property
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


class SentPages:
    """The pages of the active alerts that somebody was sent, as of one tick."""

    def __init__(self, routing: RoutingState) -> None:
        self._sent = routing.sent

    @cached_property
    def _alerts(self) -> dict[str, set[tuple[str, str]]]:
        """Key of a page → the receivers that were sent it, each with the alert."""
        found: dict[str, set[tuple[str, str]]] = {}
        for receiver, alerts in self._sent.items():
            for alert, each in alerts.items():
                for key in each.announcement.page[1:]:
                    found.setdefault(key, set()).add((receiver, alert))
        return found

    def of(self, alert: str) -> tuple[str, ...]:
        """Return the thread of the message with which an alert was sent, and the keys of all its pages, whoever got
        them; empty if it was not sent."""
        found = (alerts[alert].announcement.page for alerts in self._sent.values() if alert in alerts)
        pages = [page for page in found if page]
        return page_of(pages[0][0], *(key for page in pages for key in page[1:])) if pages else ()

    def has_another(self, key: str, alert: str) -> bool:
        """Return whether the page is of another alert."""
        return any(other != alert for _, other in self._alerts.get(key, ()))

    def is_shared(self, key: str, alert: str, over: Collection[str]) -> bool:
        """Return whether the page is also of another alert, not among those that are `over`, at everybody who was sent
        this one: its end ends the page then."""
        others = {receiver for receiver, other in self._alerts.get(key, ()) if other != alert and other not in over}
        return bool(others) and others.issuperset(to for to, alerts in self._sent.items() if alert in alerts)


def place_of(
    notice: Notice, incident: str, unread: Collection[str], sent: SentPages, over: Collection[str] = ()
) -> PageThread:
    """Return where a notice belongs.

    `incident`: that of the close under way on its account; empty without one. `unread`: the accounts that cannot be
    read now. `sent`: what was sent before, so that an end has the thread of its beginning, after a restart too. `over`:
    the alerts that end in this tick.
    """
    account, alert = account_of(notice), f"{BEGINS}{notice.alert}" if notice.alert else ""
    begun = sent.of(alert)
    thread = begun[0] if begun and is_end(notice) else incident or notice_thread(notice)
    outage = digest("page", thread, f"{OUTAGE}{account}")
    own = digest("page", thread, notice.alert)
    if is_end(notice):
        ended = begun[1:] or ((own, outage) if account else (own,))
        return PageThread(thread, resolves=tuple(key for key in ended if not sent.is_shared(key, alert, over)))
    if account and account in unread:
        is_update = bool(notice.part_of) or sent.has_another(outage, alert)
        return PageThread(thread, outage, is_update=is_update, earlier=begun[1:])
    return PageThread(thread, own if notice.alert and not is_urgent(notice) else "", earlier=begun[1:])


def page_of(thread: str, *keys: str) -> tuple[str, ...]:
    """Return what an announcement keeps of its page and of those before it: the thread, and the newest keys."""
    return (thread, *tuple(dict.fromkeys(keys))[-MOST_KEYS:])
