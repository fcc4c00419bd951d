"""An incident as one immutable record, format `killswitch.incident/v1`: what templates see and `ksctl report` prints.

`None` is *unknown*, or not yet, never zero; amounts are Decimal in the account's currency, times are aware UTC.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.incident.record.closed_positions import ClosedPosition as ClosedPosition
from killswitch.incident.record.decision_basis import Purpose
from killswitch.incident.record.order_lines import Bound, Fate
from killswitch.incident.record.source_places import WrittenAt as WrittenAt
from killswitch.incident.record.totals import Missing, Totals
from killswitch.incident.record.unprotected import Exposure as Exposure
from killswitch.model.decision import Attribution, BookChange, LockOrder
from killswitch.model.words import Cause

INCIDENT_FORMAT = "killswitch.incident/v1"

State = Literal["open", "closed"]
MomentKind = Literal[
    "trigger", "fired", "lock", "sent", "answered", "verified", "finished", "notice", "told", "reset", "hand",
    "protection", "hedge", "suspicion",
]  # fmt: skip
ItemState = Literal["proved", "open"]


class TriggerFact(Struct, frozen=True):
    """A trigger that was confirmed: its value in words beside its threshold as written, and the policy's line."""

    name: str
    signal: str | None
    value: str
    threshold: str
    true_since: datetime | None
    reason: str | None
    line: WrittenAt | None


class Firing(Struct, frozen=True):
    """One decision of the incident. `line` is where the policy says so, as it was written when the stage fired."""

    decision: str
    at: datetime
    stage: str
    level: int
    previous_level: int
    acted: bool
    """Whether anything was to be done about it; else it was recorded only."""
    standing: str
    outcome: str
    """The standing in words."""
    line: WrittenAt | None
    policy_set: str
    commit: str | None
    triggers: tuple[TriggerFact, ...]
    attribution: Attribution | None
    book: BookChange | None
    lock: LockOrder | None
    locked_at: datetime | None
    cooldown_until: datetime | None
    orders: int
    cancels: int
    equity: Decimal | None
    """Of the scope's accounts in the snapshot that was decided on."""
    currency: str | None
    runbook: str | None
    author: str | None
    reason: str | None
    unsent: bool = False
    """Whether orders were decided and none was to be sent: what they would have closed is as it was."""
    kind: Literal["stage", "hand", "hedge"] = "stage"
    """A stage that fired, a close by hand, or a temporary hedge of what could not be closed."""
    cause: Cause | None = None
    """Of a close by hand: the declared word of its reason."""
    unwinding: str | None = None
    """The name of the manner in which its orders were sent; none where it is at market, at once."""
    took: float | None = None
    """Seconds from its first order to the last look that showed one of its positions; none while its close goes on, and
    where no order was sent."""


class OrderOutcome(Struct, frozen=True):
    """One order as it was sent, and what the venue said of it.

    `slippage` is what filling at another price than `arrival_mark`, the mark when it was sent, cost, in the account's
    currency; `delay` what the market moved from `mark`, the decision's, until then. Below zero, they gained.
    """

    number: int
    decision: str
    stage: str
    account: str
    symbol: str
    position_side: str | None
    side: str | None
    attempt: int | None
    client_order_id: str | None
    sent_at: datetime
    answered_at: datetime | None
    amount: Decimal | None
    filled: Decimal | None
    price: Decimal | None
    mark: Decimal | None
    slippage: Decimal | None
    fee: Decimal | None
    outcome: str
    text: str | None
    final: bool
    """Whether the venue has said how it ended."""
    fate: Fate = "final"
    kind: str | None = None
    """`limit_ioc`, `market` or `limit`; none where the program that sent it did not say."""
    rung: int | None = None
    """The step of the ladder, from 0."""
    limit: Decimal | None = None
    """The order's own limit."""
    purpose: Purpose = "reduce"
    realised: Decimal | None = None
    """Before the fee."""
    bound: Bound | None = None
    """The slippage that was declared for it; none where none was."""
    was_unknown: bool = False
    """Whether its fate was unknown for a while."""
    arrival_mark: Decimal | None = None
    delay: Decimal | None = None


class PositionLeft(Struct, frozen=True):
    """A position that the incident's decisions were to reduce, as the venue showed it last.

    `contracts` is None where the venue has not been seen to say, `to_close` what lies above the target.
    """

    decision: str
    account: str
    symbol: str
    side: str | None
    target: Decimal
    contracts: Decimal | None
    to_close: Decimal | None
    verified_at: datetime | None
    dust: bool | None = None
    """Whether it is less than the venue takes; none where its rules are not known."""
    worth: Decimal | None = None
    """What is held, at the decision's mark, in the account's currency."""


class Ended(Struct, frozen=True):
    """How the work of one decision on one account ended; `status` is `closing` where it has not."""

    decision: str
    account: str
    status: str
    at: datetime | None
    reason: str | None


class Money(Struct, frozen=True):
    """What the close realised (before fees) and what it cost; None where any part of it is unknown.

    `cost` is fees and slippage. `delay` is apart: what the market moved between decision and orders, below zero where
    it gained.
    """

    realised: Decimal | None
    fees: Decimal | None
    slippage: Decimal | None
    cost: Decimal | None
    currency: str | None
    missing: tuple[Missing, ...] = ()
    """Which sums are unknown, what is known of them, and the orders that lack. Empty before the first fill."""
    delay: Decimal | None = None


class Moment(Struct, frozen=True):
    """One line of the timeline."""

    at: datetime
    kind: MomentKind
    level: int | None
    text: str


class CourseAt(Struct, frozen=True):
    """The value of a unit at one moment; at the first firing it is 100."""

    at: datetime
    value: float


class PendingChange(Struct, frozen=True):
    """A change of equity of which it is not known yet whether it was a loss or gain, or money that moved."""

    at: datetime
    share: float
    """Of the equity before it; below zero for a fall."""


class Course(Struct, frozen=True):
    """How a unit's value went, from an hour before the first firing on; money that moved does not move it."""

    points: tuple[CourseAt, ...]
    peak: float
    """Highest in the hour before the firing."""
    lowest: float
    """Lowest since the firing."""
    last: float
    sparkline: str
    base_at: datetime | None = None
    """When the value was that is 100, where it was not known at the first firing: an account could not be read then."""
    pending: tuple[PendingChange, ...] = ()
    """Falls that count as money that moved here, and rises that count as gains, until it is known what they were."""


class Person(Struct, frozen=True):
    """Someone to reach. A `reach` that is kept as a reference is named, never resolved."""

    name: str
    role: str
    reach: str


class Step(Struct, frozen=True):
    """Whom to turn to when an incident has stood for so long."""

    after: str
    contact: str
    role: str
    reach: str


class Link(Struct, frozen=True):
    """A page to open, by its title."""

    title: str
    url: str


class RunbookFacts(Struct, frozen=True, omit_defaults=True):
    """What the policy set says of one stage's runbook. `template` is its own, in `folder`; null is the shipped one."""

    name: str
    folder: str | None = None
    template: str | None = None
    contacts: tuple[Person, ...] = ()
    escalation: tuple[Step, ...] = ()
    links: tuple[Link, ...] = ()


class Item(Struct, frozen=True):
    """One line of the checklist: proved by what is recorded, or left to a person. `proof` says why, in words."""

    key: str
    title: str
    state: ItemState
    proof: str


class Command(Struct, frozen=True):
    """A command for this incident: what it is for, its words, and the line as the shell takes it."""

    purpose: str
    words: tuple[str, ...]
    line: str


class Reset(Struct, frozen=True):
    """How the scope returned to normal."""

    decision: str
    at: datetime
    author: str | None
    reason: str | None


class Reason(Struct, frozen=True):
    """A declared reason of a close by hand: its word, how the report is headed, and what kind of thing it is."""

    cause: Cause
    heading: str
    tone: str


class Incident(Struct, frozen=True):
    """The life of one escalation on one policy and scope; its id is that of the decision that opened it."""

    id: str
    title: str
    policy: str
    scope: str
    mode: str
    by_hand: bool
    state: State
    opened_at: datetime
    closed_at: datetime | None
    lasted: str
    level: int
    stage: str
    """The highest level that was reached, and its stage."""
    as_of: datetime
    """The newest thing that is known of it."""
    firings: tuple[Firing, ...]
    reset: Reset | None
    timeline: tuple[Moment, ...]
    orders: tuple[OrderOutcome, ...]
    endings: tuple[Ended, ...]
    left: tuple[PositionLeft, ...]
    """What was to be closed and is not, or is not known to be."""
    settled: tuple[PositionLeft, ...]
    """What the venue shows at its target."""
    money: Money
    course: Course | None
    contacts: tuple[Person, ...]
    escalation: tuple[Step, ...]
    links: tuple[Link, ...]
    checklist: tuple[Item, ...]
    commands: tuple[Command, ...]
    doubts: tuple[str, ...]
    """What could not be found out, and why."""
    reason: Reason | None = None
    """Of a close by hand with a declared reason other than `operator`."""
    totals: Totals = Totals()
    positions: tuple[ClosedPosition, ...] = ()
    """What became of every position that was to be reduced."""
    exposures: tuple[Exposure, ...] = ()
    """Protective orders that were cancelled for a close, and what took their place."""
    swept: tuple[str, ...] = ()
    """Accounts whose whole book was asked to be closed in one request."""
    remarks: tuple[str, ...] = ()
    """What did not go plainly, in words: unknown orders, others' trades, dust, missing protection, broken bounds."""
    format: str = INCIDENT_FORMAT
