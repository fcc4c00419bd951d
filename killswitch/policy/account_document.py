"""`Account` documents: one account at one venue, and how it is reached."""

# No `from __future__ import annotations` here: `shape` reads the annotations as objects.

from typing import Annotated, ClassVar, Literal

from killswitch.model.words import Market
from killswitch.policy.documents import DEFAULT_CLOSING_SHARE, ApiVersion, Metadata
from killswitch.policy.scalars import Endpoint, Name, ProperShare, Reference, Word
from killswitch.policy.shape import Part


class AccountSpec(Part):
    """One account at one venue."""

    adapter: Annotated[Name, "The venue adapter, as installed."]
    market: Annotated[Market, "The kind of market."]
    currency: Annotated[Word, "The currency of account."]
    exchange: Annotated[
        Name | None, "Which of the adapter's venues it is, by its name there, as in binanceusdm. Left out: it has one."
    ] = None
    venue: Annotated[Name | None, "The venue's name. Left out: the exchange's, or else the adapter's name."] = None
    endpoint: Annotated[
        Endpoint | None, "The address that stands for the venue's own in every request. Left out: the venue's own."
    ] = None
    endpoint_ws: Annotated[
        Endpoint | None, "The same for its streams (ws:// or wss://). Left out: the venue's own."
    ] = None
    sandbox: Annotated[bool, "The venue's test system, where it has one. Left out: no."] = False
    demo: Annotated[bool, "The venue's demo trading, where it has some. Left out: no."] = False
    execution: Annotated[
        Literal["observe", "live"], "`live` acts, and only when the runner was started with --live; `observe` never."
    ]
    credentials: Annotated[
        dict[str, Reference], "References to secrets, never the secrets: env:NAME or file:PATH. Left out: none."
    ] = {}  # noqa: RUF012 - frozen
    options: Annotated[dict[str, object], "Whatever the adapter takes. Left out: none."] = {}  # noqa: RUF012 - frozen
    allow_withdrawal_keys: Annotated[
        bool, "Whether credentials that may withdraw are accepted. Left out: no, `venues check` refuses them."
    ] = False
    allow_unencrypted: Annotated[
        bool,
        "Whether credentials are sent to an `endpoint` beyond this machine without TLS (http://, ws://). Left out: no, "
        "`run --live` refuses to.",
    ] = False
    outside_hours: Annotated[
        Literal["queue", "extended"] | None,
        "Where the market has hours: what becomes of a close outside them. `queue` holds it until the market opens, "
        "`extended` sends it at a limit into the extended hours. Left out: it is refused there.",
    ] = None
    closing_share: Annotated[
        ProperShare,
        "The share of every request limit of the venue that is kept for closing: reading never uses it. Left out: 50%.",
    ] = DEFAULT_CLOSING_SHARE


def venue_of(spec: AccountSpec) -> str:
    """The venue's name in scopes and reports."""
    return spec.venue or spec.exchange or spec.adapter


class AccountDocument(Part):
    """An account, and how it is reached."""

    KEYS: ClassVar = {"api_version": "apiVersion"}

    api_version: ApiVersion
    kind: Literal["Account"]
    metadata: Metadata
    spec: AccountSpec
