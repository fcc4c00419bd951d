"""Typed journal entries, one class for each kind, and the protocol of closing observers.

A journal row (`killswitch.model.store.JournalEntry`) holds text. `killswitch.journal.codec` decodes it once, when it is
read; all other code works on the typed entries. The field names of an entry are keys of stored rows: they never change.

A number, whole number or instant in a row has three states: absent (None), `Unreadable`, or a value. Rendering may
distinguish the first two; `known` maps both to None for arithmetic. A row that this version cannot decode is an
`Undecodable` entry, which every fold treats as the worst case.
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
from killswitch.risk.trading_cost import MarkedContract

PositionKey = tuple[str, Side]
"""Symbol and side of a position of one account."""
Place = tuple[str | None, str | None, str | None]
"""Account, symbol and side of a position, as written in a row."""

EXPIRED: Final = "expired"
"""Value of `Rejected.reason`: the order's validity was too short."""
NOT_PROCESSED: Final = frozenset({"rate_limited", "venue_down", EXPIRED})
"""Values of `Rejected.reason` for orders that the venue did not process: they use up neither id nor attempt."""
NEXT_SLICE: Final = "next slice"
"""Value of `OrderSending.after`: the previous order filled completely, and this one follows without a new snapshot."""
AGAIN: Final = "again"
"""State of `ProtectionAnswered`: the venue did not accept the order, and it is sent again under the same name."""
TRIED: Final = "tried"
"""Beginning of a state of `ProtectionAnswered`: the venue refused the order, and another is sent under another name."""

_ENDINGS: Final[Mapping[str | None, ClosingStatus]] = {"flat": "flat", "residual": "residual", "blocked": "blocked"}

Value = TypeVar("Value", Decimal, int, datetime)


class Unreadable(Struct, frozen=True):
    """Text of a number or an instant that cannot be parsed."""

    text: str


Number = Decimal | Unreadable | None
WholeNumber = int | Unreadable | None
When = datetime | Unreadable | None


def known(value: Value | Unreadable | None) -> Value | None:
    """The value, or None (unknown) if the row has none or it cannot be parsed."""
    return None if isinstance(value, Unreadable) else value


def text_of(value: Number | WholeNumber | When | str) -> str | None:
    """The text of a value in a row, also of an unreadable one; None for no value and for an unset flag."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else None
    if isinstance(value, datetime):
        return rfc3339(value)
    return value.text if isinstance(value, Unreadable) else str(value)


EntryHead = tuple[str, datetime, str | None, str | None, str | None, str | None, int | None]
"""The leading fields of an order entry: decision, instant, account, symbol, side, client order id, attempt."""


class Recorded(Struct, frozen=True):
    """Fields common to all entries. `sequence` is 0 until the store assigns one."""

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
        """Key of the position that the entry is about, within its account; None if it is about no position."""
        if self.symbol is None or self.position_side is None:
            return None
        return (self.symbol, "long" if self.position_side == "long" else "short")

    @property
    def place(self) -> Place:
        """Key of the position that the entry is about, across all accounts."""
        return (self.account, self.symbol, self.position_side)


class OrderedLock(Struct, frozen=True):
    """The lock that a decision orders. `until` is absent for a lock without end."""

    mode: str | None
    scope: str | None
    until: When


class PlannedWork(Recorded, frozen=True, kw_only=True):
    """Planned work of a decision: a target on one position, cancels on an account, a lock, or another effect."""

    kind: ClassVar[JournalKind] = "planned"
    contracts: Number = None
    target: Number = None
    mark: Number = None
    value: Number = None
    """What one contract moves in the account's currency when the mark doubles."""
    lock: OrderedLock | None = None
    effect: str | None = None
    """Kind of the planned effect, for effects other than orders, cancels and locks."""

    @property
    def marked(self) -> MarkedContract | None:
        """The mark at the decision; None if unknown."""
        return MarkedContract.of(known(self.mark), known(self.value))


class OrderSending(Recorded, frozen=True, kw_only=True):
    """An order, journaled before its request is sent."""

    kind: ClassVar[JournalKind] = "sending"
    side: str | None = None
    amount: Number = None
    position: Number = None
    """Position assumed before the order."""
    order: str | None = None
    """`limit_ioc`, `market` or `limit`."""
    rung: WholeNumber = None
    price: Number = None
    after: str | None = None
    mark: Number = None
    value: Number = None
    valid_for: Number = None
    """Validity of the request in seconds; absent for an unbounded request."""

    @property
    def marked(self) -> MarkedContract | None:
        """The mark when the order was sent; None if unknown."""
        return MarkedContract.of(known(self.mark), known(self.value))


class Acknowledged(Recorded, frozen=True, kw_only=True):
    """The venue has accepted the order under its id `order`; the order is not final."""

    kind: ClassVar[JournalKind] = "acknowledged"
    order: str | None = None
    filled: Number = None


class Unknown(Recorded, frozen=True, kw_only=True):
    """The status of the order is unknown. `state`: the venue's state, if this program does not know it."""

    kind: ClassVar[JournalKind] = "unknown"
    reason: str | None = None
    text: str | None = None
    state: str | None = None


class Rejected(Recorded, frozen=True, kw_only=True):
    """The venue rejected the order. `order`: the venue's id, if the venue had accepted the order first."""

    kind: ClassVar[JournalKind] = "rejected"
    reason: str | None = None
    text: str | None = None
    order: str | None = None


class Absent(Recorded, frozen=True, kw_only=True):
    """The venue reports that it has no such order.

    `early`: the request may still be executed. Its client order id is reused until the venue has accepted an order
    with that id, so that the venue refuses the second of the two as a duplicate; that of a detached order is not, which
    could only reduce a position that is closed.
    """

    kind: ClassVar[JournalKind] = "absent"
    text: str | None = None
    early: bool = False


class Filled(Recorded, frozen=True, kw_only=True):
    """The order is final. An unreadable `filled` counts as a full fill for sending and as unknown in reports.

    `state`: the venue's final state of the order, if it is not `filled`.
    """

    kind: ClassVar[JournalKind] = "filled"
    order: str | None = None
    state: str | None = None
    filled: Number = None
    price: Number = None
    fee: Number = None

    @property
    def has_unknown_fee(self) -> bool:
        """Whether the order filled and the venue's answer has no readable fee."""
        return bool(known(self.filled)) and known(self.fee) is None

    def worst_case_fill(self, most: Decimal) -> Decimal:
        """The filled amount; `most`, the worst case, if it is unreadable, so that nothing is closed twice."""
        filled = known(self.filled)
        return most if filled is None else filled


class OrderDetached(Recorded, frozen=True, kw_only=True):
    """The position stops waiting for this order of unknown status; the order is still queried."""

    kind: ClassVar[JournalKind] = "set_aside"
    text: str | None = None


class Abandoned(Recorded, frozen=True, kw_only=True):
    """Querying an order of unknown status ended without an answer: it permanently counts as the worst case."""

    kind: ClassVar[JournalKind] = "abandoned"
    text: str | None = None


class WholeBookClose(Recorded, frozen=True, kw_only=True):
    """Whole-book close: one request closes every position of the account; journaled before it is sent."""

    kind: ClassVar[JournalKind] = "swept"


class Cancelled(Recorded, frozen=True, kw_only=True):
    """The resting order `order` (venue id) is canceled. `why`: reason of the cancel, or that it blocked a close."""

    kind: ClassVar[JournalKind] = "cancelled"
    order: str | None = None
    why: str | None = None


class Unprotected(Recorded, frozen=True, kw_only=True):
    """A protective order is about to be canceled because it blocks a close: its terms, verbatim."""

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
    """An order that replaces the protective order `replaces` (venue id) is about to be sent."""

    kind: ClassVar[JournalKind] = "protected"
    replaces: str | None = None
    side: str | None = None
    amount: Number = None
    type: str | None = None
    price: Number = None
    trigger_price: Number = None
    trigger_when: str | None = None


class ProtectionAnswered(Recorded, frozen=True, kw_only=True):
    """The venue's answer to `Protected`, or why no replacement is needed. `order`: venue id of the new order."""

    kind: ClassVar[JournalKind] = "guarded"
    replaces: str | None = None
    state: str | None = None
    order: str | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether it is not known whether the position has its protective order: no answer, or it is tried again."""
        state = self.state or "unknown"
        return state in ("unknown", AGAIN) or state.startswith(TRIED)


class Verified(Recorded, frozen=True, kw_only=True):
    """The position that the venue shows, and the target.

    `is_last`: last observed position of work that ends short of its target; it causes no transition.
    """

    kind: ClassVar[JournalKind] = "verified"
    position: Number = None
    target: Number = None
    is_last: bool = False


class Restored(Recorded, frozen=True, kw_only=True):
    """The store was restored from a backup, which is older than the venue.

    Orders that the backup does not have may have been sent: their numbers of attempts are below `attempt`, so that none
    is used twice, and the position is verified before the next order.
    """

    kind: ClassVar[JournalKind] = "restored"
    epoch: str | None = None
    """The id of the chain of the record that began with the restore."""


class GivenUp(Recorded, frozen=True, kw_only=True):
    """An operator ends the decision's work on the account. `event`: id of the operator command."""

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
    """The fees of an order by its fills; `text` gives the reason if they are unknown."""

    kind: ClassVar[JournalKind] = "charged"
    fee: Number = None
    text: str | None = None


class Finished(Recorded, frozen=True, kw_only=True):
    """The decision's work on an account has ended; without an account, its lock or another effect has.

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
    """Kind of the effect that has ended, for effects other than orders, cancels and locks."""

    @property
    def final_status(self) -> ClosingStatus:
        """Final status of the work; `abandoned` for a status that this version does not know."""
        return _ENDINGS.get(self.status, "abandoned")


class Undecodable(Recorded, frozen=True, kw_only=True):
    """A row that this version cannot decode: its kind is unknown or it is malformed. `why` gives the reason."""

    row: JournalEntry
    why: str


def is_plan(entry: Entry) -> bool:
    """Whether the entry is a plan; an undecodable entry counts by its kind, as in the store."""
    return isinstance(entry, PlannedWork) or (isinstance(entry, Undecodable) and entry.row.kind == PlannedWork.kind)


def is_end(entry: Entry) -> bool:
    """Whether the entry ends something; an undecodable entry counts by its kind, as in the store."""
    return isinstance(entry, Finished) or (isinstance(entry, Undecodable) and entry.row.kind == Finished.kind)


Answer = Acknowledged | Unknown | Rejected | Absent | Filled | OrderDetached | Abandoned | Undecodable
"""An answer about an order that was sent."""
Entry = (
    PlannedWork | OrderSending | Acknowledged | Unknown | Rejected | Absent | Filled | OrderDetached | Abandoned
    | WholeBookClose | Cancelled
    | Unprotected | Protected | ProtectionAnswered | Verified | Restored | GivenUp | Locked | Charged | Finished
    | Undecodable
)  # fmt: skip


class ClosingObserver(Protocol):
    """Observer of closings: receives each decision when an account starts on it, then each journal entry about it.

    Implementations neither raise nor block.
    """

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        """Work on `decision` starts or resumes on `account`; `journal` holds the entries written so far."""
        ...

    def wrote(self, entry: Entry) -> None:
        """An entry is durable."""
        ...


class _NoClosingObserver:
    """A ClosingObserver that does nothing."""

    __slots__ = ()

    def begun(self, decision: Decision, account: str, journal: Sequence[Entry]) -> None:
        pass

    def wrote(self, entry: Entry) -> None:
        pass


NO_CLOSING_OBSERVER: Final[ClosingObserver] = _NoClosingObserver()
