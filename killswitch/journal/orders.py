"""Orders folded from journal entries: how each order was sent, and the last answer about it.

Executor, order reconciliation, telemetry, progress and reports share this fold. It accepts any sequence of entries: two
programs may have written to one journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from killswitch.journal.entries import (
    TRIED,
    Abandoned,
    Absent,
    Acknowledged,
    Answer,
    Charged,
    Entry,
    Filled,
    OrderDetached,
    OrderSending,
    Protected,
    ProtectionAnswered,
    Rejected,
    Undecodable,
    Unknown,
    known,
)
from killswitch.risk.trading_cost import MarkedContract

Status = Literal["sent", "acknowledged", "unknown", "set aside", "filled", "rejected", "absent", "abandoned"]
"""The last answer about an order. `abandoned`: queried until its time was over, without an answer."""

_STATUSES: Final[Mapping[type, Status]] = {
    Acknowledged: "acknowledged",
    Unknown: "unknown",
    Undecodable: "unknown",
    OrderDetached: "set aside",
    Filled: "filled",
    Rejected: "rejected",
    Absent: "absent",
    Abandoned: "abandoned",
}
_PROTECTION_STATUSES: Final[Mapping[str, Status]] = {
    "resting": "acknowledged", "filled": "filled", "canceled": "filled", "expired": "filled",
    "rejected": "rejected", "again": "absent",
}  # fmt: skip
"""State of a `guarded` entry → status of the replacement order."""
_REFUSED: Final = ("refused", TRIED)

FINAL: Final = frozenset[Status]({"filled", "rejected", "absent"})
"""Final statuses: the order has ended at the venue, or never existed there."""
WITHOUT_EFFECT: Final = frozenset[Status]({"rejected", "absent"})
"""Final statuses of orders without effect."""


class JournaledOrder(Struct, eq=False):
    """One order in the journal, from one `sending` entry of its client order id to the next.

    `first` is its first entry. `sent` is None if the journal has only answers about the order. `answer` is the last
    answer. `order_id` is the venue's id, once reported.
    """

    first: Entry
    sent: OrderSending | Protected | None
    at: datetime
    """Time of its newest entry."""
    largest_sent: Decimal | None = None
    """Largest readable amount sent under its client order id."""
    is_measured: bool = True
    """Whether every amount sent under its client order id is readable."""
    status: Status = "sent"
    answer: Answer | None = None
    order_id: str | None = None
    has_been_unknown: bool = False
    """Whether its status was ever unknown."""
    charge: Charged | None = None
    """Fees by its fills, if they were queried after the last answer."""
    unrecognised_state: str | None = None
    """State reported by the venue that this program does not know."""

    @property
    def name(self) -> str:
        """Its client order id; empty if the row has none."""
        return self.first.client_order_id or ""

    @property
    def attempt(self) -> int | None:
        return self.first.attempt

    @property
    def side(self) -> str | None:
        return None if self.sent is None else self.sent.side

    @property
    def sending(self) -> OrderSending | None:
        """Its `sending` entry; None for a protective order, and if the journal has only answers."""
        return self.sent if isinstance(self.sent, OrderSending) else None

    @property
    def sent_at(self) -> datetime:
        """Time of its first entry: when it was sent, if the journal has its `sending` entry."""
        return self.first.at

    @property
    def arrival(self) -> MarkedContract | None:
        """The mark when it was sent."""
        return None if self.sending is None else self.sending.marked

    @property
    def valid_for(self) -> float | None:
        """Validity of its request in seconds; None if unbounded or unreadable."""
        seconds = None if self.sending is None else known(self.sending.valid_for)
        return None if seconds is None else float(seconds)

    @property
    def filled(self) -> Decimal | None:
        """Filled amount of a final order; None while unknown, or if unreadable."""
        return known(self.answer.filled) if isinstance(self.answer, Filled) else None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def outcome(self) -> str:
        """Final state as one word: the venue's state, `rejected`, or `absent` if the venue never had it."""
        return self.answer.state or "filled" if isinstance(self.answer, Filled) else self.status

    def may_fill(self, decided: Decimal) -> Decimal:
        """Upper bound of its fills; at least `decided` if an amount is unreadable."""
        if self.largest_sent is None:
            return decided
        return self.largest_sent if self.is_measured else max(self.largest_sent, decided)

    def _apply_answer(self, entry: Answer) -> None:
        self.answer, self.status, self.at = entry, _STATUSES[type(entry)], entry.at
        self.charge = None
        self.has_been_unknown |= self.status in ("unknown", "set aside", "abandoned")
        if isinstance(entry, Acknowledged | Filled):
            self.order_id = entry.order or self.order_id
        elif isinstance(entry, Unknown | OrderDetached | Abandoned):
            self.unrecognised_state = _unrecognised_state(entry) or self.unrecognised_state


class JournaledOrders:
    """The orders of a journal, or of a part of it."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """`entries` in sequence."""
        self.all: list[JournaledOrder] = []
        """All orders as sent. An order sent again under its client order id is a further order."""
        self.newest: dict[str, JournaledOrder] = {}
        """By client order id."""
        self._protecting: dict[str, JournaledOrder] = {}
        """Venue id of a protective order → its newest replacement order."""
        for entry in entries:
            self.apply(entry)

    def __getitem__(self, name: str) -> JournaledOrder:
        return self.newest[name]

    def get(self, name: str | None) -> JournaledOrder | None:
        """The newest order with that client order id; None if the journal has none."""
        return None if name is None else self.newest.get(name)

    def apply(self, entry: Entry) -> JournaledOrder | None:
        """Fold one more entry and return the order that it is about, if any."""
        match entry:
            case OrderSending() | Protected():
                return self._send(entry)
            case Acknowledged() | Unknown() | Rejected() | Absent() | Filled() | OrderDetached() | Abandoned():
                return self._answer(entry)
            case Undecodable() if entry.client_order_id is not None:
                return self._answer(entry)
            case ProtectionAnswered():
                return self._answer_protection(entry)
            case Charged():
                order = self.newest.get(entry.client_order_id or "")
                if order is not None:
                    order.charge = entry
                return order
        return None

    def _send(self, entry: OrderSending | Protected) -> JournaledOrder:
        amount = entry.amount
        order = JournaledOrder(entry, entry, entry.at, known(amount), is_measured=known(amount) is not None)
        before = self.newest.get(order.name)
        if before is not None:
            order.is_measured &= before.is_measured
            order.order_id, order.unrecognised_state = before.order_id, before.unrecognised_state
            amounts = [each for each in (before.largest_sent, order.largest_sent) if each is not None]
            order.largest_sent = max(amounts, default=None)
        self._keep(order)
        if isinstance(entry, Protected) and entry.replaces is not None:
            self._protecting[entry.replaces] = order
        return order

    def _answer(self, entry: Answer) -> JournaledOrder:
        order = self.newest.get(entry.client_order_id or "")
        if order is None:
            order = JournaledOrder(entry, None, entry.at, is_measured=False)
            self._keep(order)
        order._apply_answer(entry)
        return order

    def _answer_protection(self, entry: ProtectionAnswered) -> JournaledOrder | None:
        """Apply the venue's answer about the newest replacement of a protective order."""
        order = None if entry.replaces is None else self._protecting.get(entry.replaces)
        if order is None:
            return None
        state = entry.state or ""
        order.status = _PROTECTION_STATUSES.get(state, "rejected" if state.startswith(_REFUSED) else order.status)
        order.at, order.order_id = entry.at, entry.order or order.order_id
        return order

    def _keep(self, order: JournaledOrder) -> None:
        self.all.append(order)
        self.newest[order.name] = order


def unrecognised_state_text(name: str | None, state: str) -> str:
    """Text of an answer that gives the order `name` an unknown state. Stored rows contain it, so it never changes."""
    return f"order {name} is said to be {state}"


def _unrecognised_state(entry: Unknown | OrderDetached | Abandoned) -> str | None:
    """The unknown state that the venue reported for an order: typed in the entry, else quoted in its text."""
    _, marker, state = (entry.text or "").partition(unrecognised_state_text(entry.client_order_id, ""))
    if isinstance(entry, Unknown) and entry.state:
        return entry.state
    return state if marker else None
