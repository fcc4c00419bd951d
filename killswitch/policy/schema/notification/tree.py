"""The `NotificationTree` and `Silence` documents: receivers, the root of the routes, and what holds messages back."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from killswitch.model.words import Weekday
from killswitch.policy.schema.cross_key_checks import Breach, Path, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.notification.route import (
    DEFAULT_GIVE_UP_AFTER,
    EscalateStep,
    LabelNames,
    RouteMatch,
    Target,
    target_breaches,
    time_breaches,
)
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part
from killswitch.policy.schema.scalars import Duration, DurationOrZero, Endpoint, Moment, Name, Text, moment
from killswitch.policy.schema.scalars import name as read_name
from killswitch.policy.schema.session import TimeOfDay, TimeZone

_NOT_OF_A_ROOT = {
    "match": "the root takes what no route takes; write the condition at a route",
    "continue": "nothing is next to the root; write it at a route",
    "mute": "the root is the last to be notified, and is never muted; write it at a route",
    "active": "the root is the last to be notified, and is never muted; write it at a route",
    "targets": "write them in `receivers`, and the name at `receiver`",
}


class ReceiverSpec(Part):
    """Whom messages are delivered to."""

    targets: Annotated[tuple[Target, ...], AtLeastOne()]
    """The targets; each receives every message once."""
    fallback: Name | None = None
    """The receiver of a message that a target refuses, or has not accepted after 10s. Left out: the receiver of the
    root."""
    give_up_after: Duration = DEFAULT_GIVE_UP_AFTER
    """How long delivery of a message is retried; then it is given up, and that is reported. Left out: 24h."""


class MuteTimeSpec(Part):
    """A part of some local days."""

    zone: TimeZone
    """The time zone of its times and days, by the IANA database."""
    weekdays: Annotated[tuple[Weekday, ...], AtLeastOne()]
    """The local weekdays on which it begins."""
    from_: Annotated[TimeOfDay, Field(alias="from")]
    """The local time at which it begins."""
    to: TimeOfDay
    """The local time at which it ends; at or before `from` it is on the next day."""


class InhibitRule(Part):
    """Messages that are held while a graver alert is active that the same receiver was sent. It holds nothing that is
    urgent."""

    source: RouteMatch
    """The alerts that inhibit; one condition at least."""
    target: RouteMatch
    """The messages that are held; `{}` is any."""
    equal: LabelNames = ()
    """Labels that both must have, with one value. Left out: none."""


class TreeSpec(Part):
    """The root of the notification routes, and what its routes name."""

    receiver: Name
    """The receiver of what no route takes."""
    receivers: dict[str, ReceiverSpec]
    """The receivers, by name."""
    pages_at: Endpoint | None = None
    """The address of `ksctl serve` as people reach it: messages of firings link to a page that acknowledges them. Left
    out: they have no link."""
    routes: tuple[Name, ...] = ()
    """Names of the routes below the root, in the order in which they are compared. Left out: none."""
    group_by: LabelNames | None = None
    """Labels by which messages that are not urgent are one message: policy, scope, level, event, severity, or labels of
    the policy. Left out: each alert is a message of its own, unless the route waits."""
    group_wait: DurationOrZero | None = None
    """How long the first message of a group waits for others; at most 5m. Left out: it does not."""
    group_interval: DurationOrZero | None = None
    """The least time between two messages of a group, unless something graver arrives. Left out: none."""
    repeat_interval: Duration | None = None
    """When a group that has not changed is sent again. Left out: never."""
    remind: Duration | None = None
    """How often a receiver is reminded of a stage that fired and that nobody has reset. Left out: never."""
    escalate: tuple[EscalateStep, ...] = ()
    """Who else is sent a firing that nobody acknowledges. Left out: nobody."""
    mute_times: dict[str, MuteTimeSpec] = {}  # noqa: RUF012 # pydantic copies it
    """Times that routes name under `mute` and `active`. Left out: none."""
    inhibit: tuple[InhibitRule, ...] = ()
    """What holds messages while something graver is active. Left out: nothing."""

    @classmethod
    def instead_of(cls, key: str) -> str | None:
        """A root has no condition and no mute times."""
        return _NOT_OF_A_ROOT.get(key)


class NotificationTreeDocument(VersionedPart):
    """The root of the notification routes: receivers, mute times, inhibition."""

    kind: Literal["NotificationTree"]
    spec: TreeSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check names, targets, times and inhibitions."""
        spec = spec_of(written)
        yield from time_breaches(spec)
        for key in ("receivers", "mute_times"):
            for name in mapping(spec.get(key)):
                yield from _named(("spec", key, name), name)
        for name, receiver in mapping(spec.get("receivers")).items():
            yield from target_breaches(mapping(receiver).get("targets"), ("spec", "receivers", name, "targets"))
        for number, rule in enumerate(items(spec.get("inhibit"))):
            if mapping(rule).get("source") == {}:
                message = "an empty source is every alert, so that any one would hold the others"
                fix = "name what inhibits, such as `source: {severity: page}`"
                yield Breach("KS2354", ("spec", "inhibit", number, "source"), message, fix)


class MessageSilenceSpec(Part):
    """Messages that are held for a while. It holds nothing that is urgent."""

    match: RouteMatch
    """The messages that are held; one condition at least."""
    author: Text
    """Who has decided it."""
    reason: Text
    """Why."""
    from_: Annotated[Moment | None, Field(alias="from")] = None
    """When it begins, with its zone, such as 2026-12-01T08:00:00Z. Left out: at once."""
    until: Moment
    """When it ends, with its zone, such as 2026-12-01T20:00:00Z."""


class SilenceDocument(VersionedPart):
    """A silence: messages that nobody is sent until it ends, with its author and reason."""

    kind: Literal["Silence"]
    spec: MessageSilenceSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """A silence has a condition, and ends after it begins."""
        spec = spec_of(written)
        if spec.get("match") == {}:
            message = "this silence matches every message"
            yield Breach(
                "KS2353", ("spec", "match"), message, "name what is silenced, such as `match: {policy: swaps}`"
            )
        begin, end = spec.get("from"), spec.get("until")
        if isinstance(begin, str) and isinstance(end, str):
            yield from _order(begin, end)


def _order(begin: str, end: str) -> Iterator[Breach]:
    try:
        ends_before = moment(end) <= moment(begin)
    except MistakeError:
        return  # the value itself is reported
    if ends_before:
        fix = "write a later end, or take the silence out"
        yield Breach("KS2355", ("spec", "until"), "the silence ends before it begins", fix)


def _named(at: Path, name: object) -> Iterator[Breach]:
    try:
        read_name(name)
    except MistakeError as mistake:
        yield Breach(mistake.code, at, mistake.message, mistake.fix)
