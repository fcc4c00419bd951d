"""What a bot asks the gate before an order, and what the gate answers; formats `pretrade/v1` and `verdict/v1`.

A question is one order, one change of an order, or a list or bracket that is judged as a whole. Every amount has its
unit. Prices are in quote units per base unit. Fields that the gate does not know are refused, so that a misspelt
`reduce_only` is no order without the flag. Cancels are never asked about: they are always allowed.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec import json as msgjson

from killswitch.model.snapshot import OrderSide, Side
from killswitch.planning.reducing import OrderEffect, OrderKind

QUESTION_FORMAT: Final = "killswitch.pretrade/v1"
VERDICT_FORMAT: Final = "killswitch.verdict/v1"

AmountUnit = Literal["contracts", "base", "money"]
"""contracts: the venue's own unit. base: units of the base asset. money: the value in `currency`."""
OrderChange = Literal["new", "amend", "replace"]
"""new: an order that does not exist yet. amend: the venue changes a resting order in one step, and keeps its id.
replace: the resting order is cancelled and another one sent: both count until a read shows that the old one is gone."""

LONGEST_LIST: Final = 100
"""Orders in one question."""


class OrderAsked(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One order of a question. `amount` is the order's total, fills included, in `unit`.

    `amount_is: remaining` is refused: what fills on the way would be added to it.
    """

    symbol: str
    side: OrderSide
    amount: Decimal
    unit: AmountUnit
    currency: str | None = None
    """The currency of an amount in `money`: the market's own. Only and always with that unit."""
    type: OrderKind = "market"
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    reduce_only: bool = False
    """Whether the order carries the venue's flag. It bounds the order only where the venue enforces it."""
    close_position: bool = False
    """Whether the order is the venue's own for the whole position, which has no amount: write 0."""
    position_side: Side | None = None
    """The position that it belongs to, in hedge mode."""
    is_exit: bool = False
    """The bot's claim that the order only reduces, where no flag can state it. Counts only while nothing is proved."""
    client_order_id: str | None = None
    """By this the gate recognises the order at the venue. Without it the bot must report what became of the order."""
    change: OrderChange = "new"
    order: str | None = None
    """The resting order that is changed: its id, or its client order id. Only and always with `amend` and `replace`."""
    amount_is: Literal["total", "remaining"] = "total"
    parent: int | None = None
    """Index, in the same question, of the entry whose fill this order closes: a bracket's stop or target."""
    oco: str | None = None
    """Orders with the same word are one-cancels-the-other. Those that the venue itself links count once."""
    oco_by: Literal["venue", "bot"] = "bot"


class Question(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a bot wants to send to one account.

    `id`: unique per question; the same id within `valid_for` gets the same verdict, and no second reservation. With
    other orders it is denied.
    """

    id: str
    account: str
    orders: tuple[OrderAsked, ...]
    format: Literal["killswitch.pretrade/v1"] = "killswitch.pretrade/v1"
    strategy: str | None = None


Reason = Literal[
    "allowed", "exit",
    "question", "amount_unit", "unknown_account",
    "lock_all",
    "sentinel", "locked", "symbol_locked", "side_locked", "paused", "maintenance", "no_limits",
    "unrecorded", "clock_went_back", "warming_up", "view_stale", "account_unknown", "positions_unknown",
    "orders_unknown", "orders_newer_than_positions", "exit_unproved",
    "duplicate", "position_side", "amendment",
    "banned_symbol", "session", "amount_step", "minimum", "price_band", "order_size", "position_size", "gross",
    "leverage", "concentration", "free_margin", "day_loss", "day_trades", "day_fees", "orders_per_minute",
    "latency", "spread", "positions",
]  # fmt: skip
"""Why a verdict is as it is, in the order of the checks. `allowed` and `exit` are the only ones of an allowed order."""


class LegVerdict(Struct, frozen=True):
    """What the gate found about one order of the question."""

    effect: OrderEffect
    contracts: Decimal | None
    """The amount that was judged and may be sent, in contracts. Of an amount in money it is rounded down."""
    max_reducing: Decimal | None = None
    """Where it is more than an exit: the contracts that would be one; None: unknown, or not asked."""


class UnknownLimit(Struct, frozen=True):
    """A limit that could not be checked, so that it denies; `missing` names what is not known."""

    limit: Reason
    missing: str


class GateVerdict(Struct, frozen=True):
    """The answer. `allowed` is about the question as a whole: a list is never allowed in part.

    `reason` is the first check that denies, in the documented order; `text` is for people, with what to do instead.
    """

    question: str
    allowed: bool
    reason: Reason
    text: str
    legs: tuple[LegVerdict, ...] = ()
    checked: tuple[Reason, ...] = ()
    """The limits that were compared, in their order."""
    denied_by: tuple[Reason, ...] = ()
    """Every limit that is broken or unknown, in their order."""
    not_configured: tuple[Reason, ...] = ()
    """The limits that the account does not declare."""
    unknown: tuple[UnknownLimit, ...] = ()
    conflicts: tuple[str, ...] = ()
    """Ids of plain orders that rest, and that this bounded exit makes able to turn the position: cancel them."""
    valid_for_ms: int = 0
    """How long the order may be sent from when the question was put, by a clock that counts suspend; 0 if denied."""
    retry_after_ms: int | None = None
    """When to ask again, where a fresh read of the account may change the answer."""
    reserved: bool = False
    """Whether the gate holds a reservation for it, and waits to see the order or a report."""
    format: Literal["killswitch.verdict/v1"] = "killswitch.verdict/v1"


SendOutcome = Literal["sent", "not_sent", "refused"]


class OutcomeReport(Struct, frozen=True, forbid_unknown_fields=True):
    """What became of an allowed question, for its reservation.

    `not_sent`: no request left. `refused`: the venue said no, readably. A time-out, a 5xx and a lost connection are
    neither: the order may exist. `sent` ends nothing, and is accepted so that bots can report every outcome.
    """

    question: str
    outcome: SendOutcome
    leg: int | None = None
    """Index of the order; absent: all of them."""


def question_schema() -> dict[str, Any]:
    """The JSON Schema of a question."""
    return msgjson.schema(Question)


def verdict_schema() -> dict[str, Any]:
    """The JSON Schema of a verdict."""
    return msgjson.schema(GateVerdict)


_ENCODER = msgjson.Encoder(decimal_format="string")

decode_question = msgjson.Decoder(Question).decode
"""Decode a question; `msgspec.ValidationError` or `msgspec.DecodeError` names the place of a mistake."""
decode_report = msgjson.Decoder(OutcomeReport).decode
decode_verdict = msgjson.Decoder(GateVerdict).decode


def encode_question(question: Question) -> bytes:
    """Encode a question as JSON; numbers are texts, so that no digit is lost."""
    return _ENCODER.encode(question)


def encode_verdict(verdict: GateVerdict) -> bytes:
    """Encode a verdict as JSON; lists are never null and have the order of the checks."""
    return _ENCODER.encode(verdict)
