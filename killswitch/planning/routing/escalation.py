"""Firings that escalate until somebody acknowledges them, and reminders of those that nobody resets.

An acknowledgement carries the number of the newest firing that its page showed, not the time of the click: a firing
that arrived while the page was being read has a higher number, and still escalates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from killswitch.planning.routing.state import Acknowledgement, Announcement, Dispatch, OpenPage, SentAlert
from killswitch.planning.routing.tree import RouteNode, RoutingTree, nodes_of

MOST_PAGES = 2_000
"""Open pages that are remembered; of more, acknowledged ones and then the oldest are forgotten."""


def opened(item: Announcement, node: RouteNode, number: int, now: int) -> OpenPage | None:
    """The page that a firing opens at a node; None where nobody is named to escalate to."""
    if not (item.escalates and item.is_urgent and node.escalate):
        return None
    return OpenPage(number, item, node.path, now, tuple(sorted(node.escalate, key=lambda step: step.after)))


def acknowledged(pages: Iterable[OpenPage], given: Acknowledgement) -> tuple[OpenPage, ...]:
    """The pages after an acknowledgement: those that it covers no longer escalate. The first one counts."""
    return tuple(
        replace(page, acknowledged_by=given.by, acknowledged_at=given.at) if _covers(given, page) else page
        for page in pages
    )


def _covers(given: Acknowledgement, page: OpenPage) -> bool:
    item = page.announcement
    is_about = not given.about or not given.about.isdisjoint({item.id, item.alert, item.decision or item.id})
    return page.acknowledged_by is None and page.number <= given.number and is_about


def escalations(
    pages: Iterable[OpenPage], tree: RoutingTree, now: int
) -> tuple[tuple[Dispatch, ...], tuple[OpenPage, ...]]:
    """What is due because nobody has acknowledged it, each receiver once, and the pages after it.

    A receiver that is gone since is the root's.
    """
    due: dict[str, dict[str, tuple[str, Announcement]]] = {}
    after: list[OpenPage] = []
    for page in pages:
        done = page.done
        while page.acknowledged_by is None and done < len(page.steps) and now >= page.at + page.steps[done].after:
            to = page.steps[done].to
            receiver = to if to in tree.receivers else tree.root.receiver
            due.setdefault(receiver, {})[page.announcement.id] = page.node, page.announcement
            done += 1
        after.append(page if done == page.done else replace(page, done=done))
    found = tuple(
        Dispatch(receiver, next(iter(items.values()))[0], tuple(item for _, item in items.values()), "escalation")
        for receiver, items in due.items()
    )
    return found, tuple(after)


def ended(pages: Iterable[OpenPage], alert: str) -> tuple[OpenPage, ...]:
    """The pages without those of an alert that is over."""
    return tuple(page for page in pages if page.announcement.alert != alert)


def bounded(pages: tuple[OpenPage, ...]) -> tuple[OpenPage, ...]:
    """The pages that are remembered: one that was taken to its last step, or acknowledged, is forgotten first."""
    if len(pages) <= MOST_PAGES:
        return pages
    is_settled = {page.number: page.acknowledged_by is not None or page.done == len(page.steps) for page in pages}
    kept = sorted(pages, key=lambda page: (not is_settled[page.number], page.number))[-MOST_PAGES:]
    return tuple(sorted(kept, key=lambda page: page.number))


def reminders(
    sent: Mapping[str, Mapping[str, SentAlert]], tree: RoutingTree, now: int
) -> tuple[tuple[str, SentAlert], ...]:
    """The receiver and the active firings that are due for a reminder, by the `remind` of their node."""
    nodes = {node.path: node for node in nodes_of(tree.root)}
    found: list[tuple[str, SentAlert]] = []
    for receiver, alerts in sent.items():
        for each in alerts.values():
            node = nodes.get(each.node) if each.reminded is not None else None
            if node is not None and node.remind is not None and now - (each.reminded or 0) >= node.remind:
                found.append((receiver, each))
    return tuple(found)
