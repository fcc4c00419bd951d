"""Compiled notification routes: which messages each accepts, its receiver, and what may hold its messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.model.words import SHADOW, NotificationEvent, Place, Severity, Weekday
from killswitch.policy.schema.notification.route import EscalateStep, RouteMatch, RouteSpec
from killswitch.policy.schema.notification.tree import InhibitRule, MessageSilenceSpec, MuteTimeSpec, ReceiverSpec
from killswitch.policy.schema.notification.tree import TreeSpec as WrittenTree
from killswitch.signals.sessions import TradingSession


class MessageAttributes(Struct, frozen=True):
    """Attributes of a message. For notices `level` is None, and `labels` and `notify` may be empty."""

    event: NotificationEvent
    severity: Severity
    policy: str
    scope: str
    level: int | None = None
    notify: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@frozen_from(RouteMatch, least_level="level.at_least", severities="severity", policies="policy", scopes="scope")
class RouteRule(Struct, frozen=True):
    """Filter of a route; None and empty values match everything but what sets in shadow would have done."""

    notify: tuple[str, ...] | None
    least_level: int | None
    severities: tuple[Severity, ...] | None
    events: tuple[NotificationEvent, ...] | None
    policies: tuple[str, ...] | None
    scopes: tuple[str, ...] | None
    labels: tuple[tuple[str, str], ...]

    def matches(self, subject: MessageAttributes) -> bool:
        """Whether the message matches all filters; a missing attribute does not match."""
        return (
            (self.notify is None or not set(self.notify).isdisjoint(subject.notify))
            and (self.least_level is None or (subject.level is not None and subject.level >= self.least_level))
            and (self.severities is None or subject.severity in self.severities)
            and (self.events is None or subject.event in self.events)
            and (subject.policy != SHADOW if self.policies is None else subject.policy in self.policies)
            and (self.scopes is None or subject.scope in self.scopes)
            and set(self.labels) <= set(subject.labels)
        )


class RouteTarget(Struct, frozen=True):
    """One target of a route. `to` is a log level, a path, a reference to an Apprise URL, or the name of a
    plug-in; never a secret."""

    kind: Literal["log", "file", "apprise", "custom"]
    to: str

    @property
    def key(self) -> str:
        """Identity of the target; equal targets of two routes are one."""
        return f"{self.kind} {self.to}"


@frozen_from(EscalateStep)
class Escalation(Struct, frozen=True):
    """Another receiver of a firing that nobody has acknowledged `after` so long (microseconds since it was sent)."""

    after: int
    to: str


@frozen_from(RouteSpec, rule="match", continues="continue", children="routes", by_hand=["targets"])
class Route(Struct, frozen=True):
    """A notification route, as its document has it; `killswitch.planning.routing.tree` makes a tree of them.

    None and empty values are inherited, but for `mute`, `active` and the times, which are never. `targets` or
    `receiver`: of both one at most.
    """

    name: str
    rule: RouteRule
    targets: tuple[RouteTarget, ...]
    give_up_after: int
    """Microseconds after which an undelivered message is dropped."""
    place: Place
    target_places: tuple[Place, ...] = ()
    """Place of each target in its document."""
    receiver: str | None = None
    children: tuple[str, ...] = ()
    continues: bool = False
    group_by: tuple[str, ...] | None = None
    group_wait: int | None = None
    """Microseconds; as are the other times."""
    group_interval: int | None = None
    repeat_interval: int | None = None
    remind: int | None = None
    mute: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    escalate: tuple[Escalation, ...] | None = None


@frozen_from(ReceiverSpec, by_hand=["targets"])
class Receiver(Struct, frozen=True):
    """Whom a route delivers to: every target gets every message. `fallback`: the receiver of what a target fails."""

    name: str
    targets: tuple[RouteTarget, ...]
    give_up_after: int
    fallback: str | None = None
    target_places: tuple[Place, ...] = ()


@frozen_from(MuteTimeSpec, begin="from", end="to")
class MuteTime(Struct, frozen=True):
    """A part of some local days; `begin` and `end` are microseconds of the day, and an end that is not after the begin
    is on the next day."""

    name: str
    zone: str
    weekdays: tuple[Weekday, ...]
    begin: int
    end: int

    def covers(self, civil: int) -> bool:
        """Whether the instant (microseconds of civil time) is in it, its begin included and its end excluded."""
        session = TradingSession("", self.zone, self.begin, self.end, self.weekdays)
        return session.is_open(civil)


@frozen_from(InhibitRule)
class Inhibition(Struct, frozen=True):
    """While what matches `source` is active and was sent to a receiver, it is sent nothing that matches `target`."""

    source: RouteRule
    target: RouteRule
    equal: tuple[str, ...] = ()


@frozen_from(MessageSilenceSpec, rule="match", begin="from", end="until")
class MessageSilence(Struct, frozen=True, omit_defaults=True):
    """Messages that are held until `end`; `begin` None: at once. Microseconds of civil time."""

    name: str
    rule: RouteRule
    author: str
    reason: str
    end: int
    begin: int | None = None


@frozen_from(WrittenTree, children="routes", by_hand=["receivers", "mute_times", "inhibit"])
class NotificationRoot(Struct, frozen=True):
    """The root of the tree, with what its nodes name."""

    name: str
    receiver: str
    receivers: tuple[Receiver, ...]
    place: Place
    children: tuple[str, ...] = ()
    mute_times: tuple[MuteTime, ...] = ()
    inhibitions: tuple[Inhibition, ...] = ()
    group_by: tuple[str, ...] | None = None
    group_wait: int | None = None
    group_interval: int | None = None
    repeat_interval: int | None = None
    remind: int | None = None
    escalate: tuple[Escalation, ...] = ()
    pages_at: str | None = None


def label_of(subject: MessageAttributes, key: str) -> str | None:
    """The value of a label that messages are grouped or compared by; None where the message has none."""
    match key:
        case "policy" | "scope" | "event" | "severity":
            return str(getattr(subject, key)) or None
        case "level":
            return None if subject.level is None else str(subject.level)
        case _:
            return dict(subject.labels).get(key)


def receivers_of(routes: Iterable[Route], root: NotificationRoot | None) -> Iterator[tuple[str, Receiver]]:
    """Every receiver with its name for people: those of the tree, and each route with targets of its own."""
    for route in routes:
        if route.targets:
            yield route.name, Receiver(OWN + route.name, route.targets, route.give_up_after, None, route.target_places)
    for receiver in () if root is None else root.receivers:
        yield receiver.name, receiver


OWN: Final = "route/"
"""How the name of the receiver begins that is the targets of a route; no document can have such a name."""
