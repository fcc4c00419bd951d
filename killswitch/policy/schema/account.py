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
    """Which of the adapter's venues, by the adapter's name for it, as in binanceusdm. Left out: the adapter has only
    one."""
    venue: Name | None = None
    """The venue's name. Left out: the name of the exchange, or else of the adapter."""
    endpoint: Endpoint | None = None
    """The address that replaces the venue's own in every request. Left out: the venue's own."""
    endpoint_ws: Endpoint | None = None
    """The same for its streams (ws:// or wss://). Left out: the venue's own."""
    sandbox: StrictBool = False
    """Whether to use the venue's test system, if it has one. Left out: no."""
    demo: StrictBool = False
    """Whether to use the venue's demo trading, if it has one. Left out: no."""
    execution: Literal["observe", "live"]
    """`live` sends orders, but only if the runner is started with --live; `observe` never does."""
    credentials: dict[str, Reference] = {}  # noqa: RUF012 # pydantic copies it
    """References to secrets, never the secrets themselves: env:NAME or file:PATH. Left out: none."""
    options: dict[str, object] = {}  # noqa: RUF012 # pydantic copies it
    """Options of the adapter. Left out: none."""
    allow_withdrawal_keys: StrictBool = False
    """Whether credentials with the right to withdraw are accepted. Left out: no, `venues check` rejects them."""
    allow_unencrypted: StrictBool = False
    """Whether credentials may be sent to an `endpoint` on another machine without TLS (http://, ws://). Left out: no,
    `run --live` refuses to start."""
    outside_hours: Literal["queue", "extended"] | None = None
    """What happens to a close outside the market's hours. `queue` holds it until the market opens, `extended` sends
    limit orders in extended hours. Left out: the close is rejected."""
    watch: tuple[Word, ...] = ()
    """The symbols, as the venue writes them, whose prices are read whether or not they are held, so that signals of
    markets know them before a position is opened. Left out: only what is held is known.
    """
    closing_share: ProperShare = DEFAULT_CLOSING_SHARE
    """The share of each of the venue's rate limits that is reserved for closing; polling never uses it. Left out: 50%.
    """


def venue_of(spec: AccountSpec) -> str:
    """The venue's name in scopes and reports."""
    return spec.venue or spec.exchange or spec.adapter


class AccountDocument(VersionedPart):
    """An account, and how to connect to it."""

    kind: Literal["Account"]
    spec: AccountSpec


LEAST_REFRESHES = 2
"""The minimum number of refreshes per timeout: a single lost refresh must not trigger the timer."""


def _names_or_match(value: object) -> str:
    return "match" if isinstance(value, dict | Match) else "names"


Names = Annotated[tuple[Word, ...], AtLeastOne()]
CoveredAccounts = Annotated[
    Annotated[Names, Tag("names")] | Annotated[Match, Tag("match")], Discriminator(_names_or_match)
]
"""Accounts by their names, or by a match on their properties."""


class DeadManSpec(Part):
    """A timer at the venue, restarted as long as the runner is healthy."""

    accounts: CoveredAccounts
    """The accounts whose orders are covered: a list of names, or a match on their properties; `{}` is every account."""
    at_venue: StrictBool
    """`true`: the venue itself cancels all resting orders of the account. No other kind is supported yet."""
    timeout: Duration
    """How long the venue waits for the runner's next refresh before it cancels orders."""
    refresh: Duration
    """How often the timer is restarted, after a successful tick. At most half of `timeout`."""
    accept_unprotected: StrictBool = False
    """Whether the timer may run while it would cancel protective stops of open positions. Left out: no, the timer is
    stopped then and operators are notified."""


class DeadManDocument(VersionedPart):
    """A dead man's switch: the venue cancels orders when the runner stops refreshing a timer."""

    kind: Literal["DeadMansSwitch"]
    spec: DeadManSpec

    @classmethod
    def breaches(cls, written: object) -> Iterator[Breach]:
        """Check that the switch is at the venue, and that one lost refresh does not trigger it."""
        spec = spec_of(written)
        if spec.get("at_venue") is False:
            fix = "write `at_venue: true` for accounts whose venue has a timer, or remove the document"
            yield Breach("KS2230", ("spec", "at_venue"), "only a dead man's switch at the venue is supported", fix)
        timeout, refresh = written_micros(spec.get("timeout")), written_micros(spec.get("refresh"))
        if timeout and refresh and timeout < refresh * LEAST_REFRESHES <= LONGEST * LEAST_REFRESHES:
            fix = "write at most half of `timeout`, such as `timeout: 60s` and `refresh: 20s`"
            yield Breach("KS2231", ("spec", "refresh"), "a single lost or late refresh would trigger the timer", fix)
