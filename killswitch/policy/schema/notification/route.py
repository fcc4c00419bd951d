"""The `NotificationRoute` document: which messages it matches, and where they are sent."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field

from killswitch.model.instant import HOUR, MINUTE
from killswitch.model.words import NotificationEvent, Severity
from killswitch.policy.schema.cross_key_checks import Breach, Path, items, mapping, only_one, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import (
    REFERENCE,
    Duration,
    DurationOrZero,
    Name,
    OneOrSeveral,
    StageLevel,
    Text,
    Words,
    name,
    one_of_several,
    pattern_json,
    quoted,
    secret_reference,
    text,
    written_micros,
)

TARGETS = ("log", "file", "apprise", "custom")
LONGEST_WAIT = 5 * MINUTE
"""The longest `group_wait`: what waits longer is not a notification any more."""
DEFAULT_GIVE_UP_AFTER = 24 * HOUR

# Host and port alone: a path, a query or a user is where services put their tokens.
_BARE = r"(?:json|jsons|xml|xmls|form|forms)://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?/?"
_SERVICE_URL = f"{REFERENCE}|{_BARE}"


def service_url(value: object) -> str:
    """A reference to an Apprise URL, or a URL with host and port only.

    The message never repeats the value, which may be a secret.
    """
    message = "an Apprise URL holds tokens, so it must be a reference, not a value"
    more = "; only json://HOST:PORT and its like, without user, path and query, may be written out"
    return secret_reference(value, _SERVICE_URL, message, more)


def absolute_path(what: str, example: str) -> Scalar:
    """An absolute path, which ends in no slash. `what` it is of, such as a file, and an `example` of it."""

    def read(value: object) -> str:
        if isinstance(value, str) and re.fullmatch(r"/[^\x00-\x1f]*[^\x00-\x1f/]", value):
            return value
        raise MistakeError("KS2111", f"this is not the absolute path of {what}", f"write it as {example}")

    return Scalar(read, {"type": "string", "pattern": "^/.*[^/]$", "examples": [example]})


def _one_of(literal: object) -> Scalar:
    known = get_args(literal)

    def read(value: object) -> str:
        if isinstance(value, str) and value in known:
            return value
        allowed = ", ".join(known)
        raise MistakeError("KS2004", f"{quoted(value)} is not one of {allowed}", f"write one or more of {allowed}")

    return one_of_several(read, {"enum": list(known)})


LabelNames = OneOrSeveral[Annotated[tuple[str, ...], one_of_several(text, {"type": "string", "minLength": 1})], Text]
Names = OneOrSeveral[Annotated[tuple[str, ...], one_of_several(name, {"type": "string"})], Name]
Events = OneOrSeveral[Annotated[tuple[NotificationEvent, ...], _one_of(NotificationEvent)], NotificationEvent]
Severities = OneOrSeveral[Annotated[tuple[Severity, ...], _one_of(Severity)], Severity]
_URL_EXAMPLES = ("env:RISK_DESK_URL", "file:/run/secrets/risk-desk", "json://127.0.0.1:8080/")
ServiceUrl = Annotated[str, Scalar(service_url, pattern_json(_SERVICE_URL, *_URL_EXAMPLES), is_confidential=True)]
FilePath = Annotated[str, absolute_path("a file", "/var/log/killswitch/notifications.jsonl")]


class LevelRange(Part):
    """A minimum level of stage."""

    at_least: StageLevel
    """This level and those above it."""


class RouteMatch(Part):
    """The messages that a route matches: those that satisfy every key. A key that is left out matches any message."""

    notify: Names | None = None
    """Names under `notify` of the stage; a notice has those of all stages of its policy. Left out: any."""
    level: LevelRange | None = None
    """The level of the stage; notices have none. Left out: any, or none."""
    severity: Severities | None = None
    """The severity: `page` for a stage that fires and a close that leaves a residual, `info` for other ends of a close.
    Left out: any."""
    events: Events | None = None
    """The kinds of events. Left out: any."""
    policy: Names | None = None
    """Names of policies; the runner's own notices have the policy `runner`. What a set in shadow would have done
    differently has the policy `shadow`. Left out: any but `shadow`."""
    scope: Words | None = None
    """Scopes as `ksctl status` shows them, such as account/main. Left out: any."""
    labels: dict[str, Text] = {}  # noqa: RUF012 # pydantic copies it
    """Labels that the policy must all have. Left out: any."""


class LogTarget(Part):
    """The program's log, or stderr if no log is configured."""

    level: Literal["info", "warning", "error"]
    """The log level of the route's messages; lines on stderr have none. It does not filter messages: `match: {severity:
    page}` does."""


class FileTarget(Part):
    """A JSON Lines file; messages are appended and synced to disk."""

    path: FilePath
    """The absolute path. A missing file is created, readable by its owner only."""


class AppriseTarget(Part):
    """A service that Apprise supports: chat, mail, pager, webhook."""

    url: ServiceUrl
    """A reference to its Apprise URL: env:NAME or file:PATH."""


class CustomTarget(Part):
    """A target of your own: a plug-in, or a callback where the program is embedded."""

    name: Name
    """The name of its entry point in the group `killswitch.notification_targets`, or of the callback."""


class Target(Part):
    """One notification target: exactly one key."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    log: LogTarget | None = None
    """The program's log, or stderr. Left out: another key is the target."""
    file: FileTarget | None = None
    """A JSON Lines file. Left out: another key is the target."""
    apprise: AppriseTarget | None = None
    """A service that Apprise supports. Left out: another key is the target."""
    custom: CustomTarget | None = None
    """A target of your own. Left out: another key is the target."""

    @classmethod
    def instead_of(cls, key: str) -> str | None:
        """Services are not keys: Apprise sends to them, by a URL that is a secret."""
        name = f"{key.upper().replace('-', '_')}_URL" if re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", key) else "SERVICE_URL"
        return f"write `apprise: {{url: env:{name}}}`, and the service's Apprise URL in that environment variable"


class EscalateStep(Part):
    """Another receiver of a firing that nobody acknowledges."""

    after: Duration
    """The time since the firing was sent."""
    to: Name
    """The receiver."""


class RouteSpec(Part):
    """Which messages are sent to whom. A route that no tree and no other route names is next to all others: each target
    that accepts a message gets it."""

    match: RouteMatch
    """The messages of the route; `{}` matches every message."""
    targets: Annotated[tuple[Target, ...], AtLeastOne()] = ()
    """The targets; each receives every message once. Left out: those of `receiver`."""
    receiver: Name | None = None
    """The receiver, of those of the `NotificationTree`. Left out: that of the route above, unless there are
    `targets`."""
    routes: tuple[Name, ...] = ()
    """Names of the routes below this one, in the order in which they are compared; what none of them takes, this one
    takes. Left out: none."""
    continue_: Annotated[bool, Field(alias="continue")] = False
    """Whether the next route is compared too after this one has matched. Left out: false."""
    group_by: LabelNames | None = None
    """Labels by which messages that are not urgent are one message: policy, scope, level, event, severity, or labels of
    the policy. Left out: as the route above."""
    group_wait: DurationOrZero | None = None
    """How long the first message of a group waits for others; at most 5m. Left out: it does not."""
    group_interval: DurationOrZero | None = None
    """The least time between two messages of a group, unless something graver arrives. Left out: none."""
    repeat_interval: Duration | None = None
    """When a group that has not changed is sent again. Left out: never."""
    remind: Duration | None = None
    """How often a receiver is reminded of a stage that fired and that nobody has reset. Left out: as the route
    above."""
    mute: tuple[Name, ...] = ()
    """Times of the tree at which the route holds messages that are not urgent. Left out: none."""
    active: tuple[Name, ...] = ()
    """Times of the tree outside which the route holds messages that are not urgent. Left out: always active."""
    escalate: tuple[EscalateStep, ...] | None = None
    """Who else is sent a firing that nobody acknowledges. Left out: as the route above."""
    give_up_after: Duration = DEFAULT_GIVE_UP_AFTER
    """How long delivery of a message is retried; then it is given up, and that is reported. Left out: 24h."""


class RouteDocument(VersionedPart):
    """A notification route: which messages are sent to which targets."""

    kind: Literal["NotificationRoute"]
    spec: RouteSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check that each target has exactly one key, that the receiver is clear, and the times."""
        spec = spec_of(written)
        yield from target_breaches(spec.get("targets"), ("spec", "targets"))
        if "targets" in spec and "receiver" in spec:
            message = "the route has both targets and a receiver"
            yield Breach("KS2350", ("spec", "receiver"), message, "keep one of the two")
        yield from time_breaches(spec)


def target_breaches(targets: object, at: Path) -> Iterator[Breach]:
    """Check that each target has exactly one key."""
    for number, target in enumerate(items(targets)):
        if target == {}:
            yield Breach("KS2110", (*at, number), "the target is empty", f"write one of {', '.join(TARGETS)}")
        fix = "write it as a list item of its own"
        yield from only_one("KS2110", (*at, number), mapping(target), TARGETS, "target", fix)


def time_breaches(spec: dict[str, object]) -> Iterator[Breach]:
    """Check that no message waits too long, and that none is repeated before its group may be sent again."""
    wait, interval, repeat = (
        written_micros(spec.get(key)) for key in ("group_wait", "group_interval", "repeat_interval")
    )
    if wait is not None and wait > LONGEST_WAIT:
        message = "a group would wait for so long that its first message is late"
        yield Breach("KS2351", ("spec", "group_wait"), message, "write at most 5m")
    if repeat is not None and interval is not None and repeat < interval:
        message = "an unchanged group would be sent more often than a changed one"
        yield Breach("KS2352", ("spec", "repeat_interval"), message, "write at least the `group_interval`")
