"""Notification routes as they are run: what each takes, and where it goes."""

from __future__ import annotations

from typing import Literal

from killswitch.model.record import Node
from killswitch.model.words import NotificationEvent, Place, Severity


class Subject(Node):
    """What a message can be asked for. `level` is None, and `labels` and `notify` may be empty, for notices."""

    event: NotificationEvent
    severity: Severity
    policy: str
    scope: str
    level: int | None = None
    notify: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class RouteRule(Node):
    """What a route asks for; None and empty ask for nothing."""

    notify: tuple[str, ...] | None
    least_level: int | None
    severities: tuple[str, ...] | None
    events: tuple[str, ...] | None
    policies: tuple[str, ...] | None
    scopes: tuple[str, ...] | None
    labels: tuple[tuple[str, str], ...]

    def takes(self, subject: Subject) -> bool:
        """Whether the message has everything that is asked for; what it does not have at all is no match."""
        return (
            (self.notify is None or not set(self.notify).isdisjoint(subject.notify))
            and (self.least_level is None or (subject.level is not None and subject.level >= self.least_level))
            and (self.severities is None or subject.severity in self.severities)
            and (self.events is None or subject.event in self.events)
            and (self.policies is None or subject.policy in self.policies)
            and (self.scopes is None or subject.scope in self.scopes)
            and set(self.labels) <= set(subject.labels)
        )


class RouteTarget(Node):
    """One place to send to. `to` is a log level, a path, or a reference to an Apprise URL; never a secret."""

    kind: Literal["log", "file", "apprise"]
    to: str

    @property
    def key(self) -> str:
        """By which it is known: two routes to one place are one target."""
        return f"{self.kind} {self.to}"


class Route(Node):
    """One route."""

    name: str
    rule: RouteRule
    targets: tuple[RouteTarget, ...]
    give_up_after: int
    """Microseconds after which a message that could not be delivered is given up."""
    place: Place
    target_places: tuple[Place, ...] = ()
    """Where each of the targets was written."""
