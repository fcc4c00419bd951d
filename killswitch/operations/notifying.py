"""Which receivers a message would get, what was delivered and what was not, and which firings an id acknowledges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, get_args

from msgspec import Struct

from killswitch.graph.routing import MessageAttributes
from killswitch.incident.notify.message import decode_message
from killswitch.incident.notify.page_threads import digest
from killswitch.incident.record.incident_decisions import group_decisions
from killswitch.model.instant import from_micros
from killswitch.model.legible import one_line
from killswitch.model.store import ROUTING, Store, decoded
from killswitch.model.words import NotificationEvent, Severity
from killswitch.planning.routing.holding import (
    LABEL,
    MATCHED,
    Times,
    is_running,
    muted_by,
    rule_text,
    running_silences,
)
from killswitch.planning.routing.state import OpenPage, RoutingState, read_routing
from killswitch.planning.routing.tree import RoutingTree, trace
from killswitch.render.formats import instant

LOOK_BACK = 500
"""Number of the newest decisions and messages that an id is searched in."""


class UnknownPageError(Exception):
    """No firing that waits for an acknowledgement has this id; the message says which ones do."""


class RouteLine(Struct, frozen=True):
    """One node of the tree as a message meets it. `held`: why a message that is not urgent would wait there."""

    path: str
    depth: int
    is_match: bool
    takes: bool
    receiver: str
    targets: tuple[str, ...]
    held: str | None = None


def match_lines(tree: RoutingTree, subject: MessageAttributes, civil: int, *, is_urgent: bool) -> tuple[RouteLine, ...]:
    """The nodes that are compared with a message at `civil` (microseconds), as a tree: depth first."""
    times = Times(civil, civil)
    silences = running_silences(tree.silences, (), {}, times).values()
    silenced = [
        f"silence {each.silence.name} by {each.silence.author}"
        for each in silences
        if is_running(each, times) and each.silence.rule.matches(subject)
    ]
    found = []
    for each in trace(tree, subject, is_urgent=is_urgent):
        node = each.node
        held = None if is_urgent or not each.takes else next(iter(silenced), None) or muted_by(node, tree, civil)
        targets = tuple(target.key for target in tree.targets(node.receiver)) if each.takes else ()
        found.append(RouteLine(node.path, each.depth, each.is_match, each.takes, node.receiver, targets, held))
    return tuple(found)


def tree_text(lines: Sequence[RouteLine]) -> Iterator[str]:
    """Yield one line for each node, indented by its depth: what matches, who takes the message, and what holds it."""
    for line in lines:
        name = line.path.rpartition("/")[2]
        mark = "takes it" if line.takes else "matches" if line.is_match else "does not match"
        to = f" → {line.receiver.removeprefix('route/')}: {', '.join(line.targets)}" if line.takes else ""
        held = f" (held: {line.held})" if line.held else ""
        yield f"{'  ' * line.depth}{name}: {mark}{to}{held}"


class SilenceView(Struct, frozen=True):
    """A silence that has not ended: who has declared it and why, what it matches, and until when it holds.

    `begin`: when it begins, null where it holds already. `is_document`: it ends with an edit of its document alone.
    """

    id: str
    author: str
    reason: str
    matches: str
    until: datetime
    begin: datetime | None
    is_document: bool

    @property
    def line(self) -> str:
        """The silence in one line, its id first."""
        when = "" if self.begin is None else f"from {instant(self.begin)} "
        source = ", by a document" if self.is_document else ""
        return f"{self.id}  {self.matches}, {when}until {instant(self.until)}, by {self.author}: {self.reason}{source}"


class HeldMessage(Struct, frozen=True):
    """A message that was due at a receiver and is held while it lasts. `why`: `silenced`, `muted` or `inhibited`."""

    receiver: str
    alert: str
    title: str
    severity: Severity
    why: str
    by: str
    since: datetime

    @property
    def line(self) -> str:
        """The message in one line."""
        return (
            f"{instant(self.since)}  {self.severity}  {self.receiver}: {self.title} ({self.why}: {one_line(self.by)})"
        )


def silence_views(state: RoutingState, now: datetime) -> tuple[SilenceView, ...]:
    """The silences of documents and of commands as of the last tick, without ended ones; the first to end first."""
    by_command = {each.name for each in state.commanded}
    found = []
    for running in state.silences.values():
        silence = running.silence
        begin = None if silence.begin is None else from_micros(silence.begin)
        if from_micros(silence.end) > now:
            found.append(
                SilenceView(
                    silence.name, silence.author, silence.reason, rule_text(silence.rule), from_micros(silence.end),
                    begin if begin is not None and begin > now else None, silence.name not in by_command,
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda each: each.until))


def held_messages(state: RoutingState) -> tuple[HeldMessage, ...]:
    """The messages that a silence, a mute time or another alert holds as of the last tick, the oldest first."""
    found = []
    for receiver, alerts in state.held.items():
        for each in alerts.values():
            item = each.announcement
            message = decoded(decode_message, item.content)
            title = item.alert if message is None else message.title
            to = receiver.removeprefix("route/")
            found.append(
                HeldMessage(to, item.alert, title, item.attributes.severity, each.why, each.by, from_micros(item.at))
            )
    return tuple(sorted(found, key=lambda each: each.since))


def matchers_of(written: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What a silence matches, from conditions such as `severity=warning`, `level>=2`, `account=main` or `desk=eu`.

    A key that no message has by itself is a label of the policy. A key that is repeated matches any of its values, but
    for labels, of which each must match. ValueError for what is no condition, or can match nothing.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in written:
        key, equal, value = text.partition("=")
        if not key or not equal or not value:
            raise ValueError(f"{text} is no condition: write KEY=VALUE, such as severity=warning, or level>=2")
        if key in ("level>", "level"):
            if key == "level" or not value.isdigit() or not 1 <= int(value) <= MOST_LEVEL:
                raise ValueError(f"{text}: write level>=N, with a level from 1 to {MOST_LEVEL}")
            key = key.removesuffix(">")
        if key in ("account", "strategy"):
            key, value = "scope", f"{key}/{value}"
        known = _WORDS.get(key)
        if known is not None and value not in known:
            raise ValueError(f"{text}: there is no {key} {value}; there are {', '.join(known)}")
        key = key if key in MATCHED else f"{LABEL}{key}"
        if key in found and (key.startswith(LABEL) or key == "level"):
            raise ValueError(f"{text}: {key.removeprefix(LABEL)} is named twice, and no message has two")
        found[key] = (*found.get(key, ()), value)
    return found


MOST_LEVEL = 9
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {"severity": get_args(Severity), "event": get_args(NotificationEvent)}


class LogRow(Struct, frozen=True):
    """A delivery or a suppression. `state`: `delivered`, `pending`, `given_up` or `suppressed`."""

    at: int
    state: str
    message: str
    to: str
    title: str
    why: str = ""


def log_rows(store: Store, limit: int) -> tuple[LogRow, ...]:
    """The newest deliveries and suppressions, newest first."""
    rows = []
    for each in store.deliveries(limit):
        message = decoded(decode_message, each.message.body)
        title = "it cannot be decoded" if message is None else message.title
        at = each.message.at if each.ended_at is None else each.ended_at
        rows.append(LogRow(at, each.state, each.message.id, each.message.target, title, each.error or ""))
    for other in store.suppressions(limit):
        why = f"{other.why.replace('_', ' ')}: {other.by}" if other.by else other.why.replace("_", " ")
        rows.append(LogRow(other.at, "suppressed", other.message, other.receiver or "nobody", other.alert, why))
    return tuple(sorted(rows, key=lambda row: -row.at)[:limit])


def log_text(rows: Sequence[LogRow]) -> Iterator[str]:
    """Yield one line for each row."""
    for row in rows:
        why = f" ({one_line(row.why)})" if row.why else ""
        yield f"{instant(from_micros(row.at))}  {row.state}  {row.to}  {row.title}{why}  [{row.message}]"


class Acknowledgeable(Struct, frozen=True):
    """The firings that an id is about and nobody has acknowledged; `number` is that of the newest of them."""

    about: str | None
    number: int
    pages: tuple[OpenPage, ...]


def acknowledgeable(store: Store, id_: str, may_see: Callable[[str], bool] = lambda _: True) -> Acknowledgeable:
    """The firings that the beginning of the id of an incident, a decision or a message stands for.

    `may_see`: whether the firings of a scope may be acknowledged; others are as unknown as if they were not there.
    UnknownPageError if none of them waits for an acknowledgement.
    """
    waiting = read_routing(store.live(ROUTING)).unacknowledged
    open_pages = tuple(page for page in waiting if may_see(page.announcement.attributes.scope))
    ids = _decisions_of(store, id_)
    pages = tuple(page for page in open_pages if page.announcement.decision in ids)
    about = next(iter(sorted(ids)), None) if pages else None
    if not pages:  # a message to one target, which may join several
        messages = _messages_of(store, id_)
        pages = tuple(page for page in open_pages for id_, to in messages if digest(page.announcement.id, to) == id_)
        about = pages[0].announcement.decision if len(pages) == 1 else None
    if not pages:
        known = ", ".join(str(page.announcement.decision) for page in open_pages) or "none"
        raise UnknownPageError(f"no firing with the id {id_} waits for an acknowledgement; waiting: {known}")
    return Acknowledgeable(about, max(page.number for page in pages), pages)


def _decisions_of(store: Store, id_: str) -> set[str]:
    """The decisions of the incident that a decision with this beginning belongs to."""
    decisions = [stored.decision for stored in reversed(store.decisions(LOOK_BACK))]
    found: set[str] = {each.id for each in decisions if each.id.startswith(id_)} if id_ else set()
    for incident in group_decisions(decisions):
        ids = {each.id for each in incident.decisions}
        found |= ids if ids & found or incident.id.startswith(id_ or " ") else set()
    return found


def _messages_of(store: Store, id_: str) -> set[tuple[str, str]]:
    """The ids of the message, or of those that it joins, each with its target."""
    found: set[tuple[str, str]] = set()
    for each in store.deliveries(LOOK_BACK):
        message = decoded(decode_message, each.message.body)
        if id_ and message is not None and id_ in (each.message.id, message.id, each.batch):
            found |= {(member, each.message.target) for member in message.members or (message.id,)}
    return found
