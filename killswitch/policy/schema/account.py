"""`Account` and `DeadMansSwitch` documents: one account at one venue, and its dead man's switch."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, StrictBool, Tag

from killswitch.model.words import Market
from killswitch.policy.schema.cross_key_checks import Breach, spec_of
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.policy import DEFAULT_CLOSING_SHARE, Match
from killswitch.policy.schema.scalars import (
    LONGEST,
    Duration,
    Endpoint,
    Name,
    ProperShare,
    Reference,
    Word,
    written_micros,
)


class AccountSpec(Part):
    """One account at one venue."""

    adapter: Name
    """The venue adapter, as installed."""
    market: Market
    """The kind of market."""
    currency: Word
    """The currency of account."""
    exchange: Name | None = None
    """Which of the adapter's venues it is, by its name there, as in binanceusdm. Left out: it has one."""
    venue: Name | None = None
    """The venue's name. Left out: the exchange's, or else the adapter's name."""
    endpoint: Endpoint | None = None
    """The address that stands for the venue's own in every request. Left out: the venue's own."""
    endpoint_ws: Endpoint | None = None
    """The same for its streams (ws:// or wss://). Left out: the venue's own."""
    sandbox: StrictBool = False
    """The venue's test system, where it has one. Left out: no."""
    demo: StrictBool = False
    """The venue's demo trading, where it has some. Left out: no."""
    execution: Literal["observe", "live"]
    """`live` acts, and only when the runner was started with --live; `observe` never."""
    credentials: dict[str, Reference] = {}  # noqa: RUF012 # pydantic copies it
    """References to secrets, never the secrets: env:NAME or file:PATH. Left out: none."""
    options: dict[str, object] = {}  # noqa: RUF012 # pydantic copies it
    """Whatever the adapter takes. Left out: none."""
    allow_withdrawal_keys: StrictBool = False
    """Whether credentials that may withdraw are accepted. Left out: no, `venues check` refuses them."""
    allow_unencrypted: StrictBool = False
    """Whether credentials are sent to an `endpoint` beyond this machine without TLS (http://, ws://). Left out: no,
    `run --live` refuses to."""
    outside_hours: Literal["queue", "extended"] | None = None
    """Where the market has hours: what becomes of a close outside them. `queue` holds it until the market opens,
    `extended` sends it at a limit into the extended hours. Left out: it is refused there."""
    closing_share: ProperShare = DEFAULT_CLOSING_SHARE
    """The share of every request limit of the venue that is kept for closing: reading never uses it. Left out: 50%."""


def venue_of(spec: AccountSpec) -> str:
    """The venue's name in scopes and reports."""
    return spec.venue or spec.exchange or spec.adapter


class AccountDocument(VersionedPart):
    """An account, and how it is reached."""

    kind: Literal["Account"]
    spec: AccountSpec


LEAST_REFRESHES = 2
"""So many refreshes must fit into a timeout: one that is lost must not set the timer off."""


def _names_or_match(value: object) -> str:
    return "match" if isinstance(value, dict | Match) else "names"


Names = Annotated[tuple[Word, ...], AtLeastOne()]


class DeadManSpec(Part):
    """A timer at the venue, started anew for as long as the runner is healthy."""

    accounts: Annotated[Annotated[Names, Tag("names")] | Annotated[Match, Tag("match")], Discriminator(_names_or_match)]
    """Whose orders: names of accounts, or what they have in common; `{}` is every account."""
    at_venue: StrictBool
    """`true`: the venue itself cancels all resting orders of the account. There is no other kind yet."""
    timeout: Duration
    """For how long nothing may be heard of the runner before the venue cancels."""
    refresh: Duration
    """How often the timer is started anew, after a tick that has ended well. At most half of `timeout`."""
    accept_unprotected: StrictBool = False
    """Whether the timer may also run while it would cancel protective stops of open positions. Left out: no, it is
    stopped then and a person is told."""


class DeadManDocument(VersionedPart):
    """A dead man's switch: what the venue does when nothing is heard of the runner any more."""

    kind: Literal["DeadMansSwitch"]
    spec: DeadManSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """It is somewhere, and outlives a lost refresh."""
        spec = spec_of(written)
        if spec.get("at_venue") is False:
            yield Breach(
                "KS2230", ("spec", "at_venue"), "a dead man's switch that is not at the venue is not there yet",
                "write `at_venue: true` for accounts whose venue has a timer, or take the document out",
            )  # fmt: skip
        timeout, refresh = written_micros(spec.get("timeout")), written_micros(spec.get("refresh"))
        if timeout and refresh and timeout < refresh * LEAST_REFRESHES <= LONGEST * LEAST_REFRESHES:
            yield Breach(
                "KS2231", ("spec", "refresh"), "one refresh that is lost or late would set the timer off",
                "write at most half of `timeout`, such as `timeout: 60s` and `refresh: 20s`",
            )  # fmt: skip
