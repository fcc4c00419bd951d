"""Orders folded from the entries of a journal: how each was sent, and the last answer about it.

The one fold of orders: the executor's lines, the reconciliation with what the venue shows, telemetry, progress and
reports all look at its `JournaledOrder`s. It refuses nothing: two hands may have written a journal, and whatever they
wrote is what is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Acknowledged,
    Answer,
    Charged,
    Entry,
    Filled,
    Guarded,
    Protected,
    Rejected,
    Sending,
    SetAside,
    Undecodable,
    Unknown,
    known,
)
from killswitch.risk.trading_cost import Marked

Status = Literal["sent", "acknowledged", "unknown", "set aside", "filled", "rejected", "absent", "abandoned"]
"""The last answer about an order. `abandoned`: queried until its time was over, without an answer."""

_STATUSES: Final[Mapping[type, Status]] = {
    Acknowledged: "acknowledged",
    Unknown: "unknown",
    Undecodable: "unknown",
    SetAside: "set aside",
    Filled: "filled",
    Rejected: "rejected",
    Absent: "absent",
    Abandoned: "abandoned",
}
_GUARDED: Final[Mapping[str, Status]] = {
    "resting": "acknowledged", "filled": "filled", "canceled": "filled", "expired": "filled",
    "rejected": "rejected", "again": "absent",
}  # fmt: skip
"""What an answer about protection says of the order that was to give it."""
_REFUSED: Final = ("refused", "tried")

FINAL: Final = frozenset[Status]({"filled", "rejected", "absent"})
"""The order has ended at the venue, or never existed there."""
NOTHING: Final = frozenset[Status]({"rejected", "absent"})
"""Of these, those that did nothing."""


@dataclass(slots=True, eq=False)
class JournaledOrder:
    """One order as the journal has it, from one `sending` of its name to the next.

    `sent` is None where the journal speaks of an order without saying how it was sent. `first` is the entry that began
    it, `answer` what was said last of an order that has left, `order_id` the venue's id for it once that was told.
    """

    first: Entry
    sent: Sending | Protected | None
    at: datetime
    """When the newest entry about it was written."""
    most: Decimal | None = None
    """The greatest amount that was ever sent under its name, as far as one can be read."""
    measured: bool = True
    """Whether every amount that was sent under its name can be read."""
    status: Status = "sent"
    answer: Answer | None = None
    order_id: str | None = None
    was_unknown: bool = False
    """Whether its status was unknown for a while."""
    charge: Charged | None = None
    """What its fills say that it cost, where they were asked after the last answer."""
    strange_state: str | None = None
    """A state of which the venue spoke, and that this program does not know."""

    @property
    def name(self) -> str:
        """Its client order id; empty where the row has none."""
        return self.first.client_order_id or ""

    @property
    def attempt(self) -> int | None:
        return self.first.attempt

    @property
    def side(self) -> str | None:
        return None if self.sent is None else self.sent.side

    @property
    def sending(self) -> Sending | None:
        """How it was sent; None for an order that protects a position, and where the journal does not say."""
        return self.sent if isinstance(self.sent, Sending) else None

    @property
    def sent_at(self) -> datetime:
        """When it left; of one of which only its answers are known, when it was spoken of first."""
        return self.first.at

    @property
    def arrival(self) -> Marked | None:
        """The mark when it was sent."""
        return None if self.sending is None else self.sending.marked

    @property
    def valid_for(self) -> float | None:
        """Seconds for which its request was valid; None where it was not bounded, or that cannot be read."""
        seconds = None if self.sending is None else known(self.sending.valid_for)
        return None if seconds is None else float(seconds)

    @property
    def filled(self) -> Decimal | None:
        """The filled amount once it has ended; None while that is unknown, or cannot be read."""
        return known(self.answer.filled) if isinstance(self.answer, Filled) else None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def outcome(self) -> str:
        """How it ended in a word: the venue's state for it, `rejected`, `absent` if the venue never had it…"""
        return self.answer.state or "filled" if isinstance(self.answer, Filled) else self.status

    def may_fill(self, decided: Decimal) -> Decimal:
        """The most that may fill under its name; where an amount cannot be read, at least all that was `decided`."""
        if self.most is None:
            return decided
        return self.most if self.measured else max(self.most, decided)

    def _hear(self, entry: Answer) -> None:
        self.answer, self.status, self.at = entry, _STATUSES[type(entry)], entry.at
        self.charge = None
        self.was_unknown |= self.status in ("unknown", "set aside", "abandoned")
        if isinstance(entry, Acknowledged | Filled):
            self.order_id = entry.order or self.order_id
        elif isinstance(entry, Unknown | SetAside | Abandoned):
            self.strange_state = _strange_state(entry) or self.strange_state


class JournaledOrders:
    """The orders of a journal, or of a part of it."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """`entries` in sequence."""
        self.all: list[JournaledOrder] = []
        """In the order in which they were sent. One that is sent again under its name is one more."""
        self.newest: dict[str, JournaledOrder] = {}
        """By client order id."""
        self._protecting: dict[str, JournaledOrder] = {}
        """The venue's id of a protective order → the newest order that is to take its place."""
        for entry in entries:
            self.apply(entry)

    def __getitem__(self, name: str) -> JournaledOrder:
        return self.newest[name]

    def get(self, name: str | None) -> JournaledOrder | None:
        """The newest order of that name; None where the journal knows none."""
        return None if name is None else self.newest.get(name)

    def apply(self, entry: Entry) -> JournaledOrder | None:
        """Fold one more entry; the order that it is about, if it is about one."""
        match entry:
            case Sending() | Protected():
                return self._send(entry)
            case Acknowledged() | Unknown() | Rejected() | Absent() | Filled() | SetAside() | Abandoned():
                return self._answer(entry)
            case Undecodable() if entry.client_order_id is not None:
                return self._answer(entry)
            case Guarded():
                return self._guard(entry)
            case Charged():
                order = self.newest.get(entry.client_order_id or "")
                if order is not None:
                    order.charge = entry
                return order
        return None

    def _send(self, entry: Sending | Protected) -> JournaledOrder:
        amount = entry.amount
        order = JournaledOrder(entry, entry, entry.at, known(amount), measured=known(amount) is not None)
        before = self.newest.get(order.name)
        if before is not None:
            order.measured &= before.measured
            order.order_id, order.strange_state = before.order_id, before.strange_state
            if before.most is not None:
                order.most = before.most if order.most is None else max(before.most, order.most)
        self._keep(order)
        if isinstance(entry, Protected) and entry.replaces is not None:
            self._protecting[entry.replaces] = order
        return order

    def _answer(self, entry: Answer) -> JournaledOrder:
        order = self.newest.get(entry.client_order_id or "")
        if order is None:
            order = JournaledOrder(entry, None, entry.at, measured=False)
            self._keep(order)
        order._hear(entry)
        return order

    def _guard(self, entry: Guarded) -> JournaledOrder | None:
        """The venue's answer about the order that was sent last to take the place of a protective one."""
        order = None if entry.replaces is None else self._protecting.get(entry.replaces)
        if order is None:
            return None
        state = entry.state or ""
        order.status = _GUARDED.get(state, "rejected" if state.startswith(_REFUSED) else order.status)
        order.at, order.order_id = entry.at, entry.order or order.order_id
        return order

    def _keep(self, order: JournaledOrder) -> None:
        self.all.append(order)
        self.newest[order.name] = order


def _strange_state(entry: Unknown | SetAside | Abandoned) -> str | None:
    """The state that the venue gave an order, where that is no state: it is in the words of the answer's refusal."""
    _, said, state = (entry.text or "").partition(f"order {entry.client_order_id} is said to be ")
    if isinstance(entry, Unknown) and entry.state:
        return entry.state
    return state if said else None
