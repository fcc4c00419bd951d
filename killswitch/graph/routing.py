"""Compiled notification routes: which messages each accepts, and its targets."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.model.words import SHADOW, NotificationEvent, Place, Severity
from killswitch.policy.schema.route import RouteMatch, RouteSpec


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
    """One target of a route. `to` is a log level, a path, or a reference to an Apprise URL; never a secret."""

    kind: Literal["log", "file", "apprise"]
    to: str

    @property
    def key(self) -> str:
        """Identity of the target; equal targets of two routes are one."""
        return f"{self.kind} {self.to}"


@frozen_from(RouteSpec, rule="match", by_hand=["targets"])
class Route(Struct, frozen=True):
    """A notification route."""

    name: str
    rule: RouteRule
    targets: tuple[RouteTarget, ...]
    give_up_after: int
    """Microseconds after which an undelivered message is dropped."""
    place: Place
    target_places: tuple[Place, ...] = ()
    """Place of each target in its document."""
