"""Events of a run: `killswitch.event/v1`, one JSON object a line, each with `format`, `at` and `kind`."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec import json as msgjson

from killswitch.model.snapshot import ClosingStatus, Instant, OrderSide, Quality, Residual, Side
from killswitch.model.words import Cause, LockMode, PolicyMode

EVENT_FORMAT: Final = "killswitch.event/v1"
Format = Literal["killswitch.event/v1"]
Span = tuple[float | None, float | None]
"""An interval; null is an unbounded end."""


class AccountState(Struct, frozen=True):
    """One account in the snapshot of a tick. Unknown numbers are null."""

    account: str
    quality: Quality
    reason: str | None
    currency: str
    equity: Decimal | None
    gross: Decimal | None
    """Sum of the notionals of all positions."""
    positions: int | None


class ExposureOf(Struct, frozen=True):
    """The open positions of the portfolio, an account, a strategy or an asset, in the portfolio's currency.

    Unknown numbers are null, and `unknown` says why. `realised`: what its fills have made since `realised_since`, net
    of fees and without funding; null where `realised_unknown` says why.
    """

    of: Literal["portfolio", "account", "strategy", "asset"]
    name: str
    gross: Decimal | None
    net: Decimal | None
    unrealised: Decimal | None
    unknown: str | None
    realised: Decimal | None = None
    realised_unknown: str | UnsetType = UNSET
    realised_since: Instant | UnsetType = UNSET


class Nearest(Struct, frozen=True):
    """The trigger with the least headroom for its threshold: how far its value may still move."""

    trigger: str
    headroom: float
    share: float
    """Headroom as a share of the threshold: 1 nothing used up, 0 about to be true, below 0 beyond it."""


class Machine(Struct, frozen=True):
    """One policy on one scope. `nearest` is null where no headroom is known; `unknown` names the unknown triggers."""

    policy: str
    scope: str
    mode: PolicyMode
    level: int
    stage: str | None
    nearest: Nearest | None
    unknown: tuple[str, ...]


class _Event(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """The fields that begin every line."""

    format: Format = EVENT_FORMAT
    at: Instant


class _DecisionEvent(_Event, frozen=True, kw_only=True):
    """The fields that begin the line of every decision."""

    decision: str
    policy: str
    scope: str


class Portfolio(_Event, frozen=True, kw_only=True, tag="portfolio"):
    """A tick: every account, and every policy on every scope."""

    accounts: tuple[AccountState, ...]
    machines: tuple[Machine, ...]
    currency: str | None = None
    """The currency of `exposures`; null while it is unknown."""
    profit: Decimal | None = None
    """The profit of the portfolio, as a fraction of its start; null while it is unknown, or no policy watches it."""
    exposures: tuple[ExposureOf, ...] = ()


class Warned(_Event, frozen=True, kw_only=True, tag="warning"):
    """A warning: a notice, an account that cannot be read, or lost lines."""

    source: Literal["notice", "account", "events"]
    severity: Literal["info", "warning", "page"]
    text: str
    policy: str | None = None
    scope: str | None = None
    notice: str | None = None
    """The kind of a notice, as in `killswitch.notice/v1`."""


class TriggerValue(Struct, frozen=True):
    """A trigger as the decision records it."""

    name: str
    value: tuple[str | None, str | None] | None
    threshold: str | None


class ToClose(Struct, frozen=True):
    """One order to be sent: `contracts` of it, until `target` contracts are left."""

    account: str
    symbol: str
    position_side: Side
    side: OrderSide
    contracts: Decimal
    target: Decimal


class Trip(_DecisionEvent, frozen=True, kw_only=True, tag="trip"):
    """A stage has fired, or an operator closes (named by `by`; then there is no stage)."""

    stage: str | None
    level: int
    previous_level: int
    mode: PolicyMode
    acted_on: bool
    """Whether orders are sent; otherwise the decision is recorded only."""
    triggers: tuple[TriggerValue, ...]
    closes: tuple[ToClose, ...]
    cancels: int
    lock: LockMode | None
    by: str | None
    reason: str | None
    cause: Cause | None = None
    """The declared reason of a manual close."""
    hedge: bool = False
    """Whether `closes` open a temporary hedge of what cannot be closed, and close nothing."""
    effects: tuple[str, ...] | UnsetType = UNSET
    """Further effects, one line each; absent if there are none."""


class Reset(_DecisionEvent, frozen=True, kw_only=True, tag="reset"):
    """A scope has returned to normal, by itself or by an operator (`by`)."""

    previous_level: int
    by: str | None
    reason: str | None


class Suspicion(_DecisionEvent, frozen=True, kw_only=True, tag="suspicion"):
    """Trading is locked while it is not known whether a fall was a loss. No stage has fired: this is no trip."""

    stage: str | None
    """The stage that fires if it was a loss."""
    mode: PolicyMode
    acted_on: bool
    """Whether trading is locked; otherwise the decision is recorded only."""
    cancels: int
    lock: LockMode | None
    until: Instant | None
    """When the lock ends; equal to `at` if the earlier locks are withdrawn."""
    reason: str | None


class ObservedClose(_Event, frozen=True, kw_only=True, tag="close"):
    """A close has progressed or ended. `cost` is fees and slippage so far, null if a part is unknown."""

    decision: str
    scope: str | None
    status: ClosingStatus
    ended: bool
    residual: tuple[Residual, ...]
    cost: Decimal | None


OrderStateName = Literal[
    "sending", "acknowledged", "unknown", "filled", "rejected", "absent", "abandoned", "set aside",
]  # fmt: skip


class OrderChanged(_Event, frozen=True, kw_only=True, tag="order"):
    """An order of a close has changed its state, as it was journaled; `sending` is written before the request leaves.

    `text` is the venue's own, with secrets redacted. Unknown numbers are null.
    """

    decision: str
    account: str | None
    symbol: str | None
    position_side: str | None
    order: str
    """The client order id."""
    state: OrderStateName
    side: str | None = None
    amount: Decimal | None = None
    filled: Decimal | None = None
    price: Decimal | None = None
    text: str | None = None


class Latched(Struct, frozen=True):
    """A stage in force."""

    policy: str
    scope: str
    stage: str | None
    level: int
    decision: str | None


class Shutdown(_Event, frozen=True, kw_only=True, tag="shutdown"):
    """The run ends: the stages in force and the unfinished closes."""

    why: str
    ticks: int
    latched: tuple[Latched, ...]
    unfinished: tuple[str, ...]
    """Decisions whose close continues at the next start."""


RunEvent = Portfolio | Warned | Trip | Suspicion | Reset | ObservedClose | OrderChanged | Shutdown

_ENCODER = msgjson.Encoder(decimal_format="string")
_DECODER = msgjson.Decoder(RunEvent)

decode_event = _DECODER.decode
"""Decode a line; `msgspec.ValidationError` names the fault and its place."""


def encode_event(event: RunEvent) -> bytes:
    """Encode an event as one line with its line end."""
    return _ENCODER.encode(event) + b"\n"


def event_schema() -> dict[str, object]:
    """The JSON Schema of a line."""
    schema = msgjson.schema(RunEvent)
    for each in schema["$defs"].values():
        if "kind" in each["properties"]:
            each["required"].insert(0, "format")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": EVENT_FORMAT, **schema}
