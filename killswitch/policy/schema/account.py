"""The `Account` document: one account at one venue."""

from typing import Literal

from pydantic import StrictBool

from killswitch.model.words import Market
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.policy import DEFAULT_CLOSING_SHARE
from killswitch.policy.schema.scalars import Endpoint, Name, ProperShare, Reference, Word


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
