"""What a `DeadMansSwitch` holds: whose resting orders the venue cancels when nothing is heard of the runner."""

# No `from __future__ import annotations` here: `shape` reads the annotations as objects.

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from killswitch.policy.checks import Breach
from killswitch.policy.documents import ApiVersion, Match, Metadata
from killswitch.policy.scalars import Duration, Word, duration
from killswitch.policy.shape import AtLeastOne, Choice, MistakeError, Part

LEAST_REFRESHES = 2
"""So many refreshes must fit into a timeout: one that is lost must not set the timer off."""


def _names_or_match(value: object) -> int:
    return 1 if isinstance(value, dict) else 0


class DeadManSpec(Part):
    """A timer at the venue, started anew for as long as the runner is healthy."""

    accounts: Annotated[
        tuple[str, ...] | Match,
        Choice(_names_or_match, Annotated[tuple[Word, ...], AtLeastOne()], Match),
        "Whose orders: names of accounts, or what they have in common; `{}` is every account.",
    ]
    at_venue: Annotated[
        bool, "`true`: the venue itself cancels all resting orders of the account. There is no other kind yet."
    ]
    timeout: Annotated[Duration, "For how long nothing may be heard of the runner before the venue cancels."]
    refresh: Annotated[
        Duration, "How often the timer is started anew, after a tick that has ended well. At most half of `timeout`."
    ]
    accept_unprotected: Annotated[
        bool,
        "Whether the timer may also run while it would cancel protective stops of open positions. Left out: no, it is "
        "stopped then and a person is told.",
    ] = False


class DeadManDocument(Part):
    """A dead man's switch: what the venue does when nothing is heard of the runner any more."""

    KEYS: ClassVar = {"api_version": "apiVersion"}

    api_version: ApiVersion
    kind: Literal["DeadMansSwitch"]
    metadata: Metadata
    spec: DeadManSpec


def dead_man(written: object) -> Iterator[Breach]:
    """It is somewhere, and outlives a lost refresh."""
    spec = written.get("spec") if isinstance(written, dict) else None
    if not isinstance(spec, dict):
        return
    if spec.get("at_venue") is False:
        yield Breach(
            "KS2230", ("spec", "at_venue"), "a dead man's switch that is not at the venue is not there yet",
            "write `at_venue: true` for accounts whose venue has a timer, or take the document out",
        )  # fmt: skip
    timeout, refresh = _micros(spec.get("timeout")), _micros(spec.get("refresh"))
    if timeout is not None and refresh is not None and refresh * LEAST_REFRESHES > timeout:
        yield Breach(
            "KS2231", ("spec", "refresh"), "one refresh that is lost or late would set the timer off",
            "write at most half of `timeout`, such as `timeout: 60s` and `refresh: 20s`",
        )  # fmt: skip


def _micros(written: object) -> int | None:
    try:
        return duration(written)
    except MistakeError:
        return None
