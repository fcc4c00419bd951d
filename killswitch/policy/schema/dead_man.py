"""The `DeadMansSwitch` document: a timer at the venue, or a watcher that listens for heartbeats."""

import re
from collections.abc import Iterator, Mapping
from os.path import normpath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, StrictBool, Tag

from killswitch.policy.schema.cross_key_checks import Breach, items, mapping, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.notification.route import absolute_path
from killswitch.policy.schema.part import AtLeastOne, MistakeError, Part, Scalar
from killswitch.policy.schema.policy import Match
from killswitch.policy.schema.scalars import (
    LONGEST,
    Duration,
    Name,
    Reference,
    Word,
    pattern_json,
    whole_number,
    written_micros,
)

LEAST_REFRESHES = 2
"""The minimum number of refreshes per timeout: a single lost refresh must not trigger the timer."""
LEAST_BEATS = 3
"""The minimum number of heartbeats per timeout: two late ones in a row are no silence."""

Watched = Literal["strategy", "host", "operator", "runner"]
OnOneWay = Literal["page", "fire"]
OnSilence = Literal["page", "lock", "close"]


def _names_or_match(value: object) -> str:
    return "match" if isinstance(value, dict | Match) else "names"


Accounts = Annotated[
    Annotated[Annotated[tuple[Word, ...], AtLeastOne()], Tag("names")] | Annotated[Match, Tag("match")],
    Discriminator(_names_or_match),
]


class DeadManSpec(Part):
    """A timer at the venue, restarted as long as the runner is healthy."""

    accounts: Accounts
    """The accounts whose orders are covered: a list of names, or a match on their properties; `{}` is every account."""
    at_venue: Literal[True]
    """`true`: the venue itself cancels all resting orders of the account. With `false` a watcher listens for
    heartbeats."""
    timeout: Duration
    """How long the venue waits for the runner's next refresh before it cancels orders."""
    refresh: Duration
    """How often the timer is restarted, after a successful tick. At most half of `timeout`."""
    accept_unprotected: StrictBool = False
    """Whether the timer may run while it would cancel protective stops of open positions. Left out: no, the timer is
    stopped then and operators are notified."""


_URL = r"https?://[A-Za-z0-9.\-\[\]:]+(?:/[^\s?#@]*)?"


def heartbeat_url(value: object) -> str:
    """An address without user, query and fragment: a token in it would be in every log on the way."""
    if isinstance(value, str) and re.fullmatch(_URL, value):
        return value
    fix = "write an address such as http://10.0.0.7:8600/v1/heartbeats, without user, query and fragment"
    raise MistakeError("KS2117", "this is not an address from which heartbeats can be read", fix)


HeartbeatUrl = Annotated[str, Scalar(heartbeat_url, pattern_json(_URL, "http://10.0.0.7:8600/v1/heartbeats"))]


class FolderWay(Part):
    """A folder with a file for each heartbeat, on a disk that the watcher and the watched both reach."""

    file: Annotated[str, absolute_path("a folder, without a slash at its end", "/mnt/heartbeats")]
    """The folder. The file is called as the heartbeat; `touch` is a heartbeat, too."""


class AddressWay(Part):
    """An address that answers with the age of a heartbeat."""

    url: HeartbeatUrl
    """The address; `/` and the name of the heartbeat are appended."""
    token: Reference | None = None
    """A reference to the token that is sent with each request, never the token itself: env:NAME or file:PATH. Left out:
    none is sent."""


def _way_form(value: object) -> str:
    return "url" if isinstance(value, AddressWay) or (isinstance(value, dict) and "url" in value) else "file"


Way = Annotated[
    Annotated[FolderWay, Tag("file")] | Annotated[AddressWay, Tag("url")],
    Discriminator(_way_form),
]


class PendingLimit(Part):
    """What happens where no heartbeat was ever heard."""

    limit: Duration
    """How long after the start of the watcher."""
    then: Literal["page", "fire"]
    """`page`: operators are notified, and nothing else happens. `fire`: the switch fires as after a silence."""


class SilenceSpec(Part):
    """A watcher, a process of its own, that listens for the heartbeats of a bot, a host, a person or the runner."""

    accounts: Accounts
    """The accounts that are locked or closed: a list of names, or a match on their properties; `{}` is every one."""
    at_venue: Literal[False]
    """`false`: `ksctl deadman watch` listens. With `true` the venue itself has a timer."""
    watches: Watched
    """What must be heard: a `strategy`, a `host`, an `operator`, or the `runner` of the policies."""
    beats: Name
    """The name of its heartbeat, as it is sent."""
    ways: Annotated[tuple[Way, ...], AtLeastOne()]
    """How heartbeats arrive. Two ways must share no disk, process, host or path, or they fail together."""
    every: Duration
    """How often a heartbeat is sent."""
    timeout: Duration
    """How long a silence may last; at least three times `every`."""
    check: Duration
    """How often the watcher looks."""
    checks: Annotated[int, whole_number(1, 100)]
    """At how many checks in a row the silence must be longer than `timeout`."""
    pending: PendingLimit
    """Until a heartbeat is heard for the first time the switch is pending, and does not fire."""
    on_one_way: OnOneWay
    """While one way answers only errors, the silence of the others: `fire` counts it, `page` notifies operators."""
    progress_timeout: Duration | None = None
    """How long the progress that heartbeats carry may stay the same; then they count as none. Left out: progress is
    ignored, and a thread that beats next to a loop that hangs is not noticed."""
    on_silence: OnSilence
    """What happens then: `page` notifies operators, `lock` locks the accounts as well, `close` closes them, too."""
    force: StrictBool = False
    """Whether the close goes to the market at once. Left out: no, it tries once within 5% of the mark first."""


def _is_at_venue(value: object) -> str:
    if isinstance(value, SilenceSpec) or (isinstance(value, dict) and value.get("at_venue") is False):
        return "silence"
    return "venue"


class DeadManDocument(VersionedPart):
    """A dead man's switch: what happens when somebody who must be heard is silent."""

    kind: Literal["DeadMansSwitch"]
    spec: Annotated[
        Annotated[DeadManSpec, Tag("venue")] | Annotated[SilenceSpec, Tag("silence")], Discriminator(_is_at_venue)
    ]

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check that one lost refresh, or two late heartbeats, do not trigger the switch, and that ways are apart."""
        spec = spec_of(written)
        if spec.get("at_venue") is False:
            yield from _silence(spec)
        else:
            timeout, refresh = written_micros(spec.get("timeout")), written_micros(spec.get("refresh"))
            if timeout and refresh and timeout < refresh * LEAST_REFRESHES <= LONGEST * LEAST_REFRESHES:
                fix = "write at most half of `timeout`, such as `timeout: 60s` and `refresh: 20s`"
                yield Breach(
                    "KS2231", ("spec", "refresh"), "a single lost or late refresh would trigger the timer", fix
                )


def _silence(spec: Mapping[str, object]) -> Iterator[Breach]:
    every, timeout, check = (written_micros(spec.get(key)) for key in ("every", "timeout", "check"))
    if every and timeout and timeout < every * LEAST_BEATS:
        fix = "write at least three times `every`, such as `every: 10s` and `timeout: 60s`"
        yield Breach("KS2232", ("spec", "timeout"), "two late heartbeats in a row would count as silence", fix)
    seen: dict[str, str] = {}
    for number, way in enumerate(items(spec.get("ways"))):
        source = _source(mapping(way))
        if source is not None and source in seen:
            message = f"this way shares {source} with another one, so that both fail together"
            fix = "name another host or another disk, or leave one of the two ways out"
            yield Breach("KS2233", ("spec", "ways", number), message, fix)
        elif source is not None:
            seen[source] = source
    moving = written_micros(spec.get("progress_timeout"))
    if every and moving and moving < every * LEAST_BEATS:
        message = "two heartbeats of one loop that takes its time would count as none"
        fix = "write at least three times `every`, and longer than the longest loop"
        yield Breach("KS2234", ("spec", "progress_timeout"), message, fix)
    checks = spec.get("checks")
    if check and timeout and isinstance(checks, int) and not isinstance(checks, bool) and check * checks > timeout:
        message = "the checks in a row take longer than the timeout itself, which delays the close by as much"
        fix = "check more often, or fewer times, such as `timeout: 60s`, `check: 5s` and `checks: 3`"
        yield Breach("KS2235", ("spec", "check"), message, fix)
    if spec.get("force") is True and spec.get("on_silence") in ("page", "lock"):
        message, fix = "only a close can be forced", "write `on_silence: close`, or leave `force` out"
        yield Breach("KS2236", ("spec", "force"), message, fix)


def _source(way: Mapping[str, object]) -> str | None:
    """What a way depends on, for people: the host of an address, or the folder; None if it cannot be read."""
    url, folder = way.get("url"), way.get("file")
    if isinstance(url, str):
        try:
            host = urlsplit(url).hostname
        except ValueError:
            return None
        return None if host is None else f"the host {host}"
    # Two folders of one disk fail together as well, but which disk a folder is on is seen on the host only.
    return f"the folder {normpath(folder)}" if isinstance(folder, str) else None
