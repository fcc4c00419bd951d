"""Journal entries as typed records, one for each kind, and the observer of closings.

A row of the journal (`killswitch.model.store.JournalEntry`) holds text. `killswitch.journal.codec` decodes it into one
of these, once, where it is read; everything else works on the typed record.

A number, a whole number or an instant in a row has three states: absent (None), `Unreadable`, or a value. Which of the
first two it is may matter to whoever prints it; for sums `known` makes both None. An entry of which this version can
make nothing is `Undecodable`, and every fold counts it at its worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Final, Protocol, TypeVar

from msgspec import Struct

from killswitch.model.decision import Decision
from killswitch.model.instant import rfc3339
from killswitch.model.snapshot import ClosingStatus, Side
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.risk.trading_cost import Marked

PositionKey = tuple[str, Side]
"""Symbol and side of a position of one account."""
Place = tuple[str | None, str | None, str | None]
"""Account, symbol and side of a position, as they stand in a row."""

EXPIRED: Final = "expired"
"""In `Rejected.reason`: the order was valid for too short a time."""
NOT_HEARD: Final = frozenset({"rate_limited", "venue_down", EXPIRED})
"""Reasons of `Rejected` for which the venue did not even look at the order: they spend neither id nor attempt."""
NEXT_SLICE: Final = "next slice"
"""In `Sending.after`: the order before it filled wholly, and this one follows without a look in between."""

_ENDINGS: Final[Mapping[str | None, ClosingStatus]] = {"flat": "flat", "residual": "residual", "blocked": "blocked"}

Value = TypeVar("Value", Decimal, int, datetime)


class Unreadable(Struct, frozen=True):
    """The text of a number or an instant that cannot be read."""

    text: str


Number = Decimal | Unreadable | None
Whole = int | Unreadable | None
When = datetime | Unreadable | None


def known(value: Value | Unreadable | None) -> Value | None:
    """The value; None, unknown, where the row has none or has text that is none."""
    return None if isinstance(value, Unreadable) else value


def text_of(value: Number | Whole | When | str) -> str | None:
    """A value as a row has it, readable or not; None where there is none, and for a flag that is not set."""
    if isinstance(value, bool):
        return "yes" if value else None
    if isinstance(value, datetime):
        return rfc3339(value)
    return value.text if isinstance(value, Unreadable) else None if value is None else str(value)


EntryHead = tuple[str, datetime, str | None, str | None, str | None, str | None, int | None]
"""What an entry about an order begins with: decision, instant, account, symbol, side, client order id, attempt."""


class Recorded(Struct, frozen=True):
    """What every entry says. `sequence` is 0 until the store has given it one."""

    decision: str
    at: datetime
    account: str | None = None
    symbol: str | None = None
    position_side: str | None = None
    client_order_id: str | None = None
    attempt: int | None = None
    sequence: int = 0

    @property
    def key(self) -> PositionKey | None:
        """The position that it is about, of its account; None if it is about none."""
        if self.symbol is None or self.position_side is None:
            return None
        return (self.symbol, "long" if self.position_side == "long" else "short")

    @property
    def place(self) -> Place:
        """The position that it is about, among those of all accounts."""
        return (self.account, self.symbol, self.position_side)


class OrderedLock(Struct, frozen=True):
    """The lock that a decision orders. `until`: absent where it has no end."""

    mode: str | None
    scope: str | None
    until: When


class Planned(Recorded, frozen=True, kw_only=True):
    """What a decision is to do: its target on one position, its cancels on an account, its lock, or another effect."""

    kind: ClassVar[JournalKind] = "planned"
    contracts: Number = None
    target: Number = None
    mark: Number = None
    value: Number = None
    """What one contract moves in the account's currency when the mark doubles."""
    lock: OrderedLock | None = None
    effect: str | None = None
    """The kind of effect that is planned, where it is none of orders, cancels and locks."""

    @property
    def marked(self) -> Marked | None:
        """The mark that was decided on; None where it is unknown."""
        return Marked.of(known(self.mark), known(self.value))


class Sending(Recorded, frozen=True, kw_only=True):
    """An order, written before the request leaves."""

    kind: ClassVar[JournalKind] = "sending"
    side: str | None = None
    amount: Number = None
    position: Number = None
    """What was believed to be held before it."""
    order: str | None = None
    """`limit_ioc`, `market` or `limit`."""
    rung: Whole = None
    price: Number = None
    after: str | None = None
    mark: Number = None
    value: Number = None
    valid_for: Number = None
    """Seconds for which the request is valid, if it says so."""

    @property
    def marked(self) -> Marked | None:
        """The mark when it was sent; None where it is unknown."""
        return Marked.of(known(self.mark), known(self.value))


class Acknowledged(Recorded, frozen=True, kw_only=True):
    """The venue has the order, under its own id `order`, and it is not final."""

    kind: ClassVar[JournalKind] = "acknowledged"
    order: str | None = None
    filled: Number = None


class Unknown(Recorded, frozen=True, kw_only=True):
    """No answer said what became of the order. `state`: the one that the venue gave it, where that is none."""

    kind: ClassVar[JournalKind] = "unknown"
    reason: str | None = None
    text: str | None = None
    state: str | None = None


class Rejected(Recorded, frozen=True, kw_only=True):
    """The venue refused the order. `order`: its id there, where it had taken the order up first."""

    kind: ClassVar[JournalKind] = "rejected"
    reason: str | None = None
    text: str | None = None
    order: str | None = None


class Absent(Recorded, frozen=True, kw_only=True):
    """The venue was asked and has no such order.

    `early`: the request may still be carried out. Its name goes on being used until the venue has taken an order of
    that name, for whichever of the two comes second is then refused.
    """

    kind: ClassVar[JournalKind] = "absent"
    text: str | None = None
    early: bool = False


class Filled(Recorded, frozen=True, kw_only=True):
    """The order is final. Where `filled` is no number, it counts as full for what is sent, and is unknown in reports.

    `state`: the venue's word for how it ended, if it is not `filled`.
    """

    kind: ClassVar[JournalKind] = "filled"
    order: str | None = None
    state: str | None = None
    filled: Number = None
    price: Number = None
    fee: Number = None

    @property
    def has_unknown_fee(self) -> bool:
        """Whether something was filled, and the venue's answer does not say what that was charged."""
        return bool(known(self.filled)) and known(self.fee) is None

    def at_worst(self, most: Decimal) -> Decimal:
        """What it filled; all that it could, `most`, where that cannot be read: nothing is closed twice."""
        filled = known(self.filled)
        return most if filled is None else filled


class SetAside(Recorded, frozen=True, kw_only=True):
    """The position no longer waits for this order of unknown fate; it is asked about all the same."""

    kind: ClassVar[JournalKind] = "set_aside"
    text: str | None = None


class Abandoned(Recorded, frozen=True, kw_only=True):
    """Asking about an order of unknown fate has ended without an answer: it counts at its worst for ever."""

    kind: ClassVar[JournalKind] = "abandoned"
    text: str | None = None


class Swept(Recorded, frozen=True, kw_only=True):
    """Every position of the account is asked to be closed in one request; written before it leaves."""

    kind: ClassVar[JournalKind] = "swept"


class Cancelled(Recorded, frozen=True, kw_only=True):
    """The resting order `order` (the venue's id) is gone. `why`: of the cancel, or that it blocked a close."""

    kind: ClassVar[JournalKind] = "cancelled"
    order: str | None = None
    why: str | None = None


class Unprotected(Recorded, frozen=True, kw_only=True):
    """A protective order is about to be cancelled because it blocks a close: what it was, to the letter."""

    kind: ClassVar[JournalKind] = "unprotected"
    order: str | None = None
    order_client_id: str | None = None
    side: str | None = None
    order_position_side: str | None = None
    amount: Number = None
    type: str | None = None
    price: Number = None
    trigger_price: Number = None
    trigger_when: str | None = None


class Protected(Recorded, frozen=True, kw_only=True):
    """An order leaves that is to stand in the place of the protective order `replaces` (the venue's id)."""

    kind: ClassVar[JournalKind] = "protected"
    replaces: str | None = None
    side: str | None = None
    amount: Number = None
    type: str | None = None
    price: Number = None
    trigger_price: Number = None
    trigger_when: str | None = None


class Guarded(Recorded, frozen=True, kw_only=True):
    """What the venue said to that, or why none is needed any more. `order`: the venue's id of the new one."""

    kind: ClassVar[JournalKind] = "guarded"
    replaces: str | None = None
    state: str | None = None
    order: str | None = None


class Verified(Recorded, frozen=True, kw_only=True):
    """The venue's own account of the position, beside the target.

    `is_last`: what was seen last where the work ends short of its target; nothing follows from it.
    """

    kind: ClassVar[JournalKind] = "verified"
    position: Number = None
    target: Number = None
    is_last: bool = False


class GivenUp(Recorded, frozen=True, kw_only=True):
    """A person ends the decision's work on the account. `event`: the id of the operator command."""

    kind: ClassVar[JournalKind] = "given_up"
    author: str | None = None
    reason: str | None = None
    event: str | None = None


class Locked(Recorded, frozen=True, kw_only=True):
    """The decision's lock was written. `status`: its mode."""

    kind: ClassVar[JournalKind] = "locked"
    scope: str | None = None
    status: str | None = None


class Charged(Recorded, frozen=True, kw_only=True):
    """What an order has cost in fees by its fills, or in `text` why nobody can say."""

    kind: ClassVar[JournalKind] = "charged"
    fee: Number = None
    text: str | None = None


class Finished(Recorded, frozen=True, kw_only=True):
    """The decision's work on an account has ended; or, where it is of no account, another effect or its lock has.

    `left`: position → contracts above its target. `cost` is fees and slippage, never below 0; `delay` is signed.
    """

    kind: ClassVar[JournalKind] = "finished"
    status: str | None = None
    reason: str | None = None
    cost: Number = None
    delay: Number = None
    left: Mapping[PositionKey, Number] = {}
    scope: str | None = None
    effect: str | None = None
    """The kind of effect that has ended, where it is none of orders, cancels and locks."""

    @property
    def ended_as(self) -> ClosingStatus:
        """How the work ended; `abandoned` for a status that this version does not know."""
        return _ENDINGS.get(self.status, "abandoned")


class Undecodable(Recorded, frozen=True, kw_only=True):
    """A row of which this version can make nothing: of a kind that it does not know, or malformed. `why` says which."""

    row: JournalEntry
    why: str


def is_plan(entry: Entry) -> bool:
    """Whether it plans something: also where only its kind can be read, which is what the store goes by."""
    return isinstance(entry, Planned) or (isinstance(entry, Undecodable) and entry.row.kind == Planned.kind)


def is_end(entry: Entry) -> bool:
    """Whether it ends something: also where only its kind can be read, which is what the store goes by."""
    return isinstance(entry, Finished) or (isinstance(entry, Undecodable) and entry.row.kind == Finished.kind)


Answer = Acknowledged | Unknown | Rejected | Absent | Filled | SetAside | Abandoned | Undecodable
"""An answer about an order that was sent."""
Entry = (
    Planned | Sending | Acknowledged | Unknown | Rejected | Absent | Filled | SetAside | Abandoned | Swept | Cancelled
    | Unprotected | Protected | Guarded | Verified | GivenUp | Locked | Charged | Finished | Undecodable
)  # fmt: skip


class ClosingWatch(Protocol):
    """Observer of closings: receives each decision that an account takes up, then each journal entry about it.

    It never raises, and never waits.
    """

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        """Work on `decision` begins on `account`, or goes on: `journal` is what has been written about it."""
        ...

    def wrote(self, entry: Entry) -> None:
        """An entry has become durable."""
        ...


class _NoWatch:
    """A ClosingWatch that nobody listens to."""

    __slots__ = ()

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        pass

    def wrote(self, entry: Entry) -> None:
        pass


NO_WATCH: Final[ClosingWatch] = _NoWatch()
