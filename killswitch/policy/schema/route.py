"""What a `NotificationRoute` holds: which messages it takes, and where they go."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict

from killswitch.model.instant import HOUR
from killswitch.model.words import NotificationEvent, Severity
from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, only_one, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.scalars import (
    REFERENCE,
    Duration,
    Name,
    OneOrSeveral,
    StageLevel,
    Text,
    Words,
    name,
    one_of_several,
    secret_reference,
    spelled,
)

TARGETS = ("log", "file", "apprise")
DEFAULT_GIVE_UP_AFTER = 24 * HOUR

# Host and port alone: a path, a query or a user is where services put their tokens.
_BARE = r"(?:json|jsons|xml|xmls|form|forms)://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?/?"


def service_url(value: object) -> str:
    """A reference to an Apprise URL, or one that names host and port only.

    The message never repeats what was written: it may be the secret itself.
    """
    message = "an Apprise URL holds tokens, so it must be a reference, not a value"
    more = "; only json://HOST:PORT and its like, without user, path and query, may be written out"
    return secret_reference(value, f"{REFERENCE}|{_BARE}", message, more)


def absolute(value: object) -> str:
    """A path that means the same file wherever the program was started."""
    if isinstance(value, str) and re.fullmatch(r"/[^\x00-\x1f]*[^\x00-\x1f/]", value):
        return value
    raise MistakeError(
        "KS2111", "this is not a path of a file from the root", "write it as /var/log/killswitch/notifications.jsonl"
    )


def _one_of(words: object) -> Scalar:
    known = get_args(words)

    def read(value: object) -> str:
        if isinstance(value, str) and value in known:
            return value
        allowed = ", ".join(known)
        raise MistakeError("KS2004", f"{spelled(value)} is not one of {allowed}", f"write one or more of {allowed}")

    return one_of_several(read, {"enum": list(known)})


Names = OneOrSeveral[Annotated[tuple[str, ...], one_of_several(name, {"type": "string"})], Name]
Events = OneOrSeveral[Annotated[tuple[str, ...], _one_of(NotificationEvent)], NotificationEvent]
Severities = OneOrSeveral[Annotated[tuple[str, ...], _one_of(Severity)], Severity]
ServiceUrl = Annotated[
    str,
    Scalar(
        service_url,
        {
            "type": "string",
            "pattern": f"^(?:{REFERENCE}|{_BARE})$",
            "examples": ["env:RISK_DESK_URL", "file:/run/secrets/risk-desk", "json://127.0.0.1:8080/"],
        },
        is_confidential=True,
    ),
]
FilePath = Annotated[
    str,
    Scalar(
        absolute, {"type": "string", "pattern": "^/.*[^/]$", "examples": ["/var/log/killswitch/notifications.jsonl"]}
    ),
]


class LevelRange(Part):
    """From which level of stage on."""

    at_least: StageLevel
    """This level and those above it."""


class RouteMatch(Part):
    """Which messages a route takes: those that have everything that is asked for. A key left out asks for nothing."""

    notify: Names | None = None
    """Names under `notify` of the stage; a notice has those of all its policy's. Left out: any."""
    level: LevelRange | None = None
    """Level of the stage. Notices have none. Left out: any, or none."""
    severity: Severities | None = None
    """A stage that fires, and a close that leaves something, page; other ends are info. Left out: any."""
    events: Events | None = None
    """What has happened. Left out: anything."""
    policy: Names | None = None
    """Names of policies; the program's own notices are of `runner`. Left out: any."""
    scope: Words | None = None
    """Scopes as `ksctl status` shows them, such as account/main. Left out: any."""
    labels: dict[str, Text] = {}  # noqa: RUF012 # pydantic copies it
    """Labels of the policy, every one of them. Left out: any."""


class LogTarget(Part):
    """The program's log; without a configured one, a line on stderr."""

    level: Literal["info", "warning", "error"]
    """The level at which a configured log gets every message of the route; a line on stderr has none. It leaves no
    message out: `match: {severity: page}` does."""


class FileTarget(Part):
    """A file of JSON Lines, appended to and synced to disk."""

    path: FilePath
    """From the root. It is made, for its owner alone, where it is not there."""


class AppriseTarget(Part):
    """A service that Apprise reaches: chat, mail, pager, webhook."""

    url: ServiceUrl
    """A reference to its Apprise URL: env:NAME or file:PATH."""


class Target(Part):
    """One place to send to: exactly one key."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    log: LogTarget | None = None
    """The program's log, or stderr. Left out: another key says where."""
    file: FileTarget | None = None
    """A file of JSON Lines. Left out: another key says where."""
    apprise: AppriseTarget | None = None
    """Any service of Apprise. Left out: another key says where."""


class RouteSpec(Part):
    """Which messages go where."""

    match: RouteMatch
    """Which messages; `{}` is every one."""
    targets: Annotated[tuple[Target, ...], AtLeastOne()]
    """Where they go: to each of these, once."""
    give_up_after: Duration = DEFAULT_GIVE_UP_AFTER
    """A message that could not be delivered for so long is given up, and that is reported. Left out: 24h."""


class RouteDocument(VersionedPart):
    """A notification route: which messages go where."""

    kind: Literal["NotificationRoute"]
    spec: RouteSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Each target is one thing."""
        for number, target in enumerate(items(spec_of(written).get("targets"))):
            at = ("spec", "targets", number)
            if target == {}:
                yield Breach("KS2110", at, "the target is nowhere", f"write one of {', '.join(TARGETS)}")
            yield from only_one("KS2110", at, mapping(target), TARGETS, "target", "give it a dash of its own")
