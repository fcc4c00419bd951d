"""An incident as one immutable record, format `killswitch.incident/v1`: what templates read and `ksctl report` prints.

`None` means *unknown* or *not yet*, never zero. Amounts are Decimal in the account's currency; times are aware UTC.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from killswitch.graph.freezing import frozen_from
from killswitch.graph.wording import span
from killswitch.incident.record.closed_positions import ClosedPosition
from killswitch.incident.record.loss import Loss
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.results import AccountClose
from killswitch.incident.record.source_places import TriggerFact
from killswitch.incident.record.source_places import WrittenAt as WrittenAt
from killswitch.incident.record.totals import Missing, Totals
from killswitch.incident.record.unprotected import Exposure
from killswitch.model.decision import Attribution, BookChange, LockOrder
from killswitch.model.words import Cause
from killswitch.planning.exposures import Exposures
from killswitch.policy.schema import runbook as schema

INCIDENT_FORMAT = "killswitch.incident/v1"

State = Literal["open", "closed"]
MomentKind = Literal[
    "trigger", "fired", "lock", "sent", "answered", "verified", "finished", "notice", "told", "reset", "hand",
    "protection", "hedge", "suspicion", "breach",
]  # fmt: skip
ItemState = Literal["proved", "open"]


class Firing(Struct, frozen=True):
    """One decision of the incident. `line` is where the policy defines it, as of the firing."""

    decision: str
    at: datetime
    stage: str
    level: int
    previous_level: int
    acted: bool
    """Whether the decision was carried out; otherwise it was recorded only."""
    standing: str
    outcome: str
    """The status as a sentence."""
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
    """Equity of the scope's accounts in the snapshot of the decision."""
    currency: str | None
    runbook: str | None
    author: str | None
    reason: str | None
    unsent: bool = False
    """Whether orders were decided and none was sent: their positions are unchanged."""
    kind: Literal["stage", "hand", "hedge", "breach"] = "stage"
    """A stage that fired, a manual close, a temporary hedge of what could not be closed, or the answer to a lock
    breach."""
    cause: Cause | None = None
    """The declared reason of a manual close."""
    unwinding: str | None = None
    """The name of the execution style of its orders; None for market orders sent at once."""
    took: float | None = None
    """Seconds from its first order to the last snapshot that showed one of its positions; None while the close is
    under way, and where no order was sent."""
    loss: Loss | None = None
    """The fall of the scope's equity from its peak, by the triggers."""
    no_reset_before: datetime | None = None
    """Before it nothing and nobody resets the scope; None where a reset is possible."""
    schedule: str | None = None
    """When its orders were to go, the variance on the way and the groups that close together, as sentences; None where
    they go by rank, as fast as the venue allows."""
    exposed: tuple[str, ...] = ()
    """The exposure to the market that its orders leave, where it comes from, and the orders that would take it out or
    why none would, as sentences; empty where its policy declares no `net_exposure`."""
    worst: str = "unknown: an older version did not record it"
    """The position of the scope with the largest unrealised loss at the decision, or why it is unknown."""
    resting: str = "unknown: an older version did not record it"
    """The orders that rested on the scope's accounts at the decision, or why they are unknown."""


class PositionLeft(Struct, frozen=True):
    """A position that the incident's decisions were to reduce, as the venue showed it last.

    `contracts` is None where the venue has not shown it; `to_close` is what exceeds the target.
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
    """Whether it is below the venue's minimum; None where the venue's rules are unknown."""
    worth: Decimal | None = None
    """The value of the position at the decision's mark, in the account's currency."""
    expected: Decimal | None = None
    """What our own orders leave of it, while the venue has not shown it; None where it has, or a fill is unknown."""
    start: Decimal | None = None
    """The contracts at the decision."""


class HeldPosition(Struct, frozen=True):
    """A position of the scope that no decision was to reduce, as of `seen_at`, the snapshot of the last decision.

    `worth` is its value in the account's currency; None where the venue did not give it.
    """

    account: str
    symbol: str
    side: str
    contracts: Decimal
    worth: Decimal | None
    seen_at: datetime


class Money(Struct, frozen=True):
    """What the close realised before fees, and what it cost; None where any part is unknown.

    `cost` is fees and slippage. `delay` is separate: the market's move between decision and orders, below zero for a
    gain.
    """

    realised: Decimal | None
    fees: Decimal | None
    slippage: Decimal | None
    cost: Decimal | None
    currency: str | None
    missing: tuple[Missing, ...] = ()
    """The unknown sums with their known parts and the orders that are missing. Empty before the first fill."""
    delay: Decimal | None = None


class TimelineEntry(Struct, frozen=True):
    """One line of the timeline."""

    at: datetime
    kind: MomentKind
    level: int | None
    text: str


class EquityPoint(Struct, frozen=True):
    """The value of a unit at one moment; 100 at the first firing."""

    at: datetime
    value: float


class PendingChange(Struct, frozen=True):
    """A change of equity that may still prove to be a profit or loss, or a transfer."""

    at: datetime
    share: float
    """As a fraction of the equity before it; below zero for a fall."""


class EquityCurve(Struct, frozen=True):
    """The equity curve of the scope as the value of a unit, from an hour before the first firing; transfers do not
    move it."""

    points: tuple[EquityPoint, ...]
    peak: float
    """The highest value in the hour before the firing."""
    lowest: float
    """The lowest value since the firing."""
    last: float
    sparkline: str
    """The curve as lines of block characters, as wide as a terminal of 80 columns, with the times of its ends."""
    base_at: datetime | None = None
    """When the value was 100, if it was unknown at the first firing because an account could not be read."""
    pending: tuple[PendingChange, ...] = ()
    """Falls that count as transfers here, and rises that count as gains, until they are explained."""


REFERENCED = "kept in "
"""How a `reach` begins that only its place is shown of."""


def contact_text(reach: str) -> str:
    """Return how someone is reached; a reference is named and never resolved, because it may lead to a secret."""
    return f"{REFERENCED}{reach}" if reach.startswith(("env:", "file:")) else reach


@frozen_from(schema.Contact, reach=("reach", contact_text))
class Person(Struct, frozen=True):
    """A contact. A `reach` that is a reference is named and never resolved."""

    name: str
    role: str
    reach: str


@frozen_from(schema.EscalationStep, after=("after", span))
class EscalationContact(Struct, frozen=True):
    """Whom to contact when an incident has lasted this long."""

    after: str
    contact: str
    role: str
    reach: str


@frozen_from(schema.LinkTo)
class Link(Struct, frozen=True):
    """A page to open, with its title."""

    title: str
    url: str


@frozen_from(schema.RunbookSpec, by_hand=["contacts", "escalation"])
class RunbookFacts(Struct, frozen=True, omit_defaults=True):
    """What the policy set declares about the runbook of a stage.

    `template` is its own, in `folder`; null means the shipped one.
    """

    name: str
    folder: str | None = None
    template: str | None = None
    contacts: tuple[Person, ...] = ()
    escalation: tuple[EscalationContact, ...] = ()
    links: tuple[Link, ...] = ()


class ChecklistItem(Struct, frozen=True):
    """One line of the checklist: proved by the record, or open for a person. `proof` gives the reason."""

    key: str
    title: str
    state: ItemState
    proof: str


class Command(Struct, frozen=True):
    """A command for this incident: its purpose, its words, and the line for a shell."""

    purpose: str
    words: tuple[str, ...]
    line: str


class IncidentReset(Struct, frozen=True):
    """How the scope returned to normal."""

    decision: str
    at: datetime
    author: str | None
    reason: str | None


class DeclaredReason(Struct, frozen=True):
    """The declared reason of a manual close: its key, the heading of the report, and an explanation."""

    cause: Cause
    heading: str
    tone: str


class SidePnl(Struct, frozen=True):
    """P&L of one side of the scope: unrealised at the first firing, and realised by the incident's orders before fees.

    Null where a part is unknown.
    """

    side: str
    unrealised: Decimal | None
    realised: Decimal | None


class IncidentBook(Struct, frozen=True):
    """Exposure and P&L of the whole book: of the portfolio, and by account, strategy and asset, in one currency.

    `when`: in the tick that opened the incident, in the newest one, or in the last one before its reset. Of many assets
    only the largest are in it.
    """

    when: Literal["opened", "newest", "closed"]
    book: Exposures


class NewestExposure(Struct, frozen=True):
    """Net and gross exposure of the scope in the newest tick after its last firing; None is unknown."""

    at: datetime
    net: Decimal | None
    gross: Decimal | None
    currency: str | None
    unknown: str | None = None
    """Why one of them is."""


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
    """The newest moment that is known."""
    firings: tuple[Firing, ...]
    reset: IncidentReset | None
    timeline: tuple[TimelineEntry, ...]
    orders: tuple[OrderOutcome, ...]
    endings: tuple[AccountClose, ...]
    left: tuple[PositionLeft, ...]
    """What was to be closed and is not, or is not known to be."""
    settled: tuple[PositionLeft, ...]
    """What the venue shows at its target."""
    money: Money
    course: EquityCurve | None
    contacts: tuple[Person, ...]
    escalation: tuple[EscalationContact, ...]
    links: tuple[Link, ...]
    checklist: tuple[ChecklistItem, ...]
    commands: tuple[Command, ...]
    doubts: tuple[str, ...]
    """What could not be found out, and why."""
    reason: DeclaredReason | None = None
    """The declared reason of a manual close, unless it is `operator`."""
    totals: Totals = Totals()
    positions: tuple[ClosedPosition, ...] = ()
    """What happened to every position that was to be reduced."""
    exposures: tuple[Exposure, ...] = ()
    """Protective orders that were cancelled for a close, and what replaced them."""
    swept: tuple[str, ...] = ()
    """Accounts whose venue was requested to close the whole book at once."""
    remarks: tuple[str, ...] = ()
    """Irregularities as sentences: unknown orders, trades of others, dust, missing protection, exceeded bounds."""
    held: tuple[HeldPosition, ...] = ()
    """What no decision was to reduce. Empty also where no snapshot was kept."""
    books: tuple[IncidentBook, ...] = ()
    """Exposure and P&L of the whole book when it opened, and at its end or newest tick. Empty where none was kept."""
    sides: tuple[SidePnl, ...] = ()
    """P&L of the long and of the short side. Empty where no snapshot was kept."""
    ahead: str | None = None
    """The stage above the one in force with its thresholds, and how far each is as of the newest tick; None once the
    incident is closed, and of a close by hand."""
    newest: NewestExposure | None = None
    """The exposure that the scope has now, or had at its reset; None where no later tick was kept, or its scope is no
    part of the kept book."""
    obstacles: tuple[str, ...] = ()
    """Why what is left is not closed, as it was notified last; empty once nothing is left."""
    format: str = INCIDENT_FORMAT
