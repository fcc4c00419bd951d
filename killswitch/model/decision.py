"""Decisions and notices; format `killswitch.decision/v1`. The live runner stores what replay prints."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Final, Literal

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.effects import (
    WITH_OWN_KEYS,
    Cancels,
    Effect,
    Lock,
    Orders,
    accounts_of,
    expiry_of,
    kind_of,
    merge_effects,
    of_kind,
)
from killswitch.model.effects import Cancel as Cancel
from killswitch.model.effects import Intent as Intent
from killswitch.model.effects import LockOrder as LockOrder
from killswitch.model.effects import OwnClose as OwnClose
from killswitch.model.snapshot import Instant, OrderSide, Residual
from killswitch.model.words import CancelWhy as CancelWhy
from killswitch.model.words import Cause as Cause
from killswitch.model.words import LockMode as LockMode
from killswitch.model.words import PolicyMode
from killswitch.model.words import Rung as Rung
from killswitch.model.words import Severity as Severity
from killswitch.model.words import Source as Source

DECISION_FORMAT: Final = "killswitch.decision/v1"
NOTICE_FORMAT: Final = "killswitch.notice/v1"

NoticeKind = Literal[
    "unknown",  # a trigger stayed unknown past its grace, or warns on unknown
    "unexplained",  # a change of equity without an explanation
    "uncorroborated",  # a stage did not fire because its prices were not corroborated
    "nothing_selected",  # a stage would have fired, but selects nothing of a non-empty book
    "blocked",  # a position that the venue's rules do not allow to reduce (dust, halted)
    "warning",  # anything else that needs attention
]


class TriggerReading(Struct, frozen=True, omit_defaults=True):
    """The state of a trigger: its interval `[lo, hi]` (null: unbounded), its threshold, and since when it is true."""

    name: str
    value: tuple[str | None, str | None] | None = None
    threshold: str | None = None
    true_since: Instant | None = None
    reason: str | None = None


class Attribution(Struct, frozen=True, omit_defaults=True):
    """Which side lost, over the window of the trigger that fired; shares are null where unknown.

    `window` is empty if no trigger of the stage has one: then there is no loss to attribute.
    """

    source: Source
    long_share: str | None
    short_share: str | None
    window: str
    reason: str | None = None


class Book(Struct, frozen=True):
    """Gross and net notional in the account's currency, and margin ratio; null where unknown."""

    gross: Decimal | None
    net: Decimal | None
    margin_ratio: Decimal | None


class BookChange(Struct, frozen=True):
    """The book before the decision, and after every intent is filled at the mark."""

    before: Book
    after: Book


class Unwinding(Struct, frozen=True, omit_defaults=True):
    """How the intents of a decision are executed: `name` of the document, ladder and rate.

    `max_orders_per_minute` spaces the decision's orders evenly on each account; `pause` is the seconds between two
    slices of one position. Without a ladder every order is a market order; without a rate, orders are sent as fast as
    the venue allows. `is_sliced`: whether liquidity bounds the size of each order; None in what an older version
    stored, which counts as bounded: a bound that was there must hold.
    """

    name: str
    ladder: tuple[Rung, ...] = ()
    max_orders_per_minute: int | None = None
    pause: float | None = None
    is_sliced: bool | None = None


class Schedule(Struct, frozen=True, omit_defaults=True):
    """When the orders of a decision go, and what they do to the variance of the scope on the way.

    `at`: the earliest time of each intent, in seconds after the first one; empty without a pace, when all go as fast as
    the venue allows. `takes`: the last of them. `peak_variance`: the largest variance after an order ÷ that at the
    start, if every order fills at the mark; absent where no returns are recorded. `groups`: the symbols that close
    together, because they are or may be correlated.
    """

    at: tuple[float, ...] = ()
    takes: float | None = None
    peak_variance: Decimal | None = None
    groups: tuple[tuple[str, ...], ...] = ()


class BaseExposure(Struct, frozen=True, omit_defaults=True):
    """What a scope has of one base asset, and its part of the exposure.

    `units` in base units, negative for short; `price` of one, and `exposure` = beta × units × price, in the scope's
    currency. The beta comes from the `returns` of `series`, whose newest sample has the `age` in seconds. `note`: why
    the beta is unknown and what applies, or why it counts as 0.
    """

    base: str
    units: Decimal
    price: Decimal
    beta: Decimal | None = None
    exposure: Decimal | None = None
    returns: int = 0
    series: str | None = None
    age: float | None = None
    note: str | None = None


class HedgeOrder(Struct, frozen=True, omit_defaults=True):
    """One order of a suggestion; its `value` at the `mark` is in the scope's currency."""

    account: str
    symbol: str
    side: OrderSide
    contracts: Decimal
    mark: Decimal | None = None
    value: Decimal | None = None


class HedgeOption(Struct, frozen=True, omit_defaults=True):
    """One way to take a net exposure out: the fewest orders that reduce, or one instrument that is opened.

    `leaves`: the exposure after it; `variance`: that of the book after it ÷ before. There are no `orders` where it is
    not feasible, or where that is unknown; `why` says so. `cost` against the mark, without fees, and what it `lacks`.
    """

    kind: Literal["reduce", "open"]
    feasible: Literal["yes", "no", "unknown"]
    orders: tuple[HedgeOrder, ...] = ()
    leaves: Decimal | None = None
    variance: Decimal | None = None
    cost: Decimal | None = None
    lacks: tuple[str, ...] = ()
    why: tuple[str, ...] = ()


class NetExposure(Struct, frozen=True, omit_defaults=True):
    """The exposure Σ beta × notional to a hub, as closes in progress leave it, and what would take it out.

    In `currency`, above 0 for long; None with the reason in `unknown`. Nothing is sent for the options. `before`: the
    exposure before the orders of a decision.
    """

    hub: str
    currency: str | None
    net: Decimal | None = None
    bases: tuple[BaseExposure, ...] = ()
    options: tuple[HedgeOption, ...] = ()
    unknown: str | None = None
    before: Decimal | None = None


def urgency_of(unwinding: Unwinding | None) -> tuple[float, float, int]:
    """The urgency of an unwinding: of two for the same target, the smaller one is the more urgent.

    Seconds between two orders, seconds between two slices, and the number of bounded orders before one without a bound.
    """
    if unwinding is None:
        return (0.0, 0.0, 0)
    every = 60.0 / unwinding.max_orders_per_minute if unwinding.max_orders_per_minute else 0.0
    bounded = sum(step.tries for step in unwinding.ladder if step.order == "limit_ioc")
    return (every, unwinding.pause or 0.0, bounded)


HoldCommand = Literal["halt", "cancel", "pause"]
"""An operator command that closes nothing, besides a plain lock."""


class Decision(Struct, frozen=True, omit_defaults=True, rename={"further": "effects"}):
    """A decision of the stage machine or an operator: its effects and the reason.

    `kind` is absent for a stage that fires, `reset` for a return to a lower level and for an operator's unlock,
    `manual` for a manual close, and for an operator's lock, which has no `cause`,
    `suspicion` for the lock of a stage that has not fired while it is not known whether a fall was a loss (it has no
    intents and does not change the level; one whose lock ends at `as_of` withdraws earlier ones), `hedge` for positions
    that hedge others that cannot be closed, which are `covers`,
    `breach` for what a stage takes back of what others opened under its lock. `command` is the operator command of a
    `manual` decision that closes nothing, where it is no plain lock. `cause` is the declared reason of an
    operator command. `fell_at` is the time of the newest fall that a suspicion refers to. `waits_for` are the accounts
    of a manual close that were unreachable: the same command closes them when they answer again. `effects` contains
    every effect; `further`, the key `effects` of the record, only those without a key of their own.
    """

    id: str
    as_of: Instant
    policy: str
    policy_set: str
    scope: str
    mode: PolicyMode
    stage: str | None
    level: int
    previous_level: int
    format: Literal["killswitch.decision/v1"] = DECISION_FORMAT
    kind: Literal["reset", "manual", "hedge", "suspicion", "breach"] | None = None
    commit: str | None = None
    triggers: tuple[TriggerReading, ...] = ()
    attribution: Attribution | None = None
    book: BookChange | None = None
    intents: tuple[Intent, ...] = ()
    cancels: tuple[Cancel, ...] = ()
    lock: LockOrder | None = None
    cooldown_until: Instant | None = None
    author: str | None = None
    reason: str | None = None
    cause: Cause | None = None
    unwinding: Unwinding | None = None
    covers: tuple[Residual, ...] = ()
    fell_at: Instant | None = None
    waits_for: tuple[str, ...] = ()
    further: tuple[Effect, ...] = ()
    no_reset_before: Instant | None = None
    """Before it nothing and nobody resets the scope; absent where a reset is possible at any time."""
    schedule: Schedule | None = None
    """When its orders go; absent where they go by rank, as fast as the venue allows."""
    command: HoldCommand | None = None
    net_exposure: NetExposure | None = None
    """What its orders leave of the exposure to the market; absent where its policy declares none."""
    lifts: tuple[str, ...] | None = None
    """The decisions whose locks an unlock ends; absent: all by hand on its scope."""

    def __post_init__(self) -> None:
        if any(isinstance(effect, WITH_OWN_KEYS) for effect in self.further):
            raise ValueError("orders, cancels and locks have keys of their own and must not be in `effects`")

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All effects, one of each kind, in the order of execution."""
        lock = () if self.lock is None else (Lock(self.lock),)
        return merge_effects((Orders(self.intents), Cancels(self.cancels), *lock, *self.further))

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that the effects act on, in the order of the record."""
        return accounts_of(self.effects)

    @property
    def accounts_at_work(self) -> tuple[str, ...]:
        """The accounts whose executors work on the decision."""
        return accounts_of(effect for effect in self.effects if kind_of(effect).is_worked_off)

    @property
    def until(self) -> datetime | None:
        """The earliest time at which an effect expires, such as a lock; None if none does."""
        return min((end for effect in self.effects if (end := expiry_of(effect)) is not None), default=None)

    @property
    def is_hold(self) -> bool:
        """Whether an operator holds trading back and closes nothing: a lock, a halt, a pause, or cancels alone.

        A manual close has a cause.
        """
        if self.kind != "manual" or self.cause is not None:
            return False
        closes = bool(self.intents or self.cancels or self.waits_for)
        return self.command is not None or (self.lock is not None and not closes)

    @property
    def is_unlock(self) -> bool:
        """Whether it lifts the locks by hand of its scope; a reset of a stage has the level from which it returns."""
        return self.kind == "reset" and self.previous_level == 0

    @property
    def is_suspicion(self) -> bool:
        """Whether no stage has fired: the decision is a lock with cancels of entries, or the withdrawal of one."""
        return self.kind == "suspicion"

    @property
    def is_withdrawal(self) -> bool:
        """Whether it withdraws earlier suspicions of its policy on its scope: all its effects end at once."""
        if not self.is_suspicion:
            return False
        ends = [expiry_of(effect) for effect in self.effects if kind_of(effect).is_reversible]
        return bool(ends) and all(until == self.as_of for until in ends)


def with_effects(decision: Decision, effects: Iterable[Effect]) -> Decision:
    """A copy of the decision with these effects instead of its own."""
    merged = merge_effects(effects)
    orders, cancels, lock = of_kind(merged, Orders), of_kind(merged, Cancels), of_kind(merged, Lock)
    return replace(
        decision,
        intents=() if orders is None else orders.intents,
        cancels=() if cancels is None else cancels.cancels,
        lock=None if lock is None else lock.order,
        further=tuple(effect for effect in merged if not isinstance(effect, WITH_OWN_KEYS)),
    )


def without_details(decision: Decision) -> Decision:
    """A copy with who, where, when, its lock, and at most one order and one cancel: for whoever reads thousands.

    A decision over a large book has a megabyte of intents. What kind of decision it is, is kept.
    """
    return replace(
        decision, triggers=(), attribution=None, book=None, intents=decision.intents[:1], cancels=decision.cancels[:1],
        unwinding=None, covers=(), further=(), schedule=None, net_exposure=None,
    )  # fmt: skip


class Notice(Struct, frozen=True, omit_defaults=True):
    """A message for operators that is not a decision.

    `at_once`: it differs from earlier notices of its kind, so that it is sent separately and not grouped with them.
    `title`: what kind of thing it is about, in a few words; empty: `kind` says it. `alert`: the key of the alert that
    begins or ends with it, where that ends with a notice too; `is_over`: whether it ends. `part_of`: the key of the
    active alert of which it is a consequence. `closing_on`: the account of the close that it is about. These four are
    for addressing it in its tick, and in no record: the alerts are stored with the tick.
    """

    as_of: Instant
    policy: str
    scope: str
    kind: NoticeKind
    severity: Severity
    text: str
    subject: str | None = None
    at_once: bool = False
    title: str = ""
    alert: str = ""
    is_over: bool = False
    part_of: str = ""
    closing_on: str = ""
    format: Literal["killswitch.notice/v1"] = NOTICE_FORMAT


def decision_id(policy: str, scope: str, stage: str | None, as_of: datetime) -> str:
    """The id of a decision: a digest of policy, scope, stage and as_of, the same on every machine."""
    text = "\x00".join((policy, scope, stage or "", as_of.isoformat()))
    return blake2b(text.encode(), digest_size=10).hexdigest()


_ENCODER = msgjson.Encoder(decimal_format="string")
_RECORD_KEYS = ("commit", "attribution", "lock", "cooldown_until")

decode_decision = msgjson.Decoder(Decision).decode


def decision_record(decision: Decision) -> dict[str, object]:
    """The public record of a decision: `format` comes first, and required keys are present even if null."""
    encoded: dict[str, object] = msgjson.decode(_ENCODER.encode(decision))
    record: dict[str, object] = {"format": DECISION_FORMAT, **encoded}
    for key in _RECORD_KEYS:
        record.setdefault(key, None)
    for key in ("triggers", "intents", "cancels"):
        record.setdefault(key, [])
    return record


def encode_decision(decision: Decision) -> bytes:
    """The decision as one JSON line, as in `ksctl replay --output json` and in the store."""
    return msgjson.encode(decision_record(decision))


def encode_notice(notice: Notice) -> bytes:
    """One notice as a JSON line."""
    recorded = replace(notice, alert="", is_over=False, part_of="", closing_on="")
    return msgjson.encode({"format": NOTICE_FORMAT, **msgjson.decode(_ENCODER.encode(recorded))})
