"""Protective orders that block a close: cancelled one position at a time, and restored for the remaining size.

| state       | means                                                          | leaves it by                       |
|-------------|----------------------------------------------------------------|------------------------------------|
| `OFF`       | journaled before the cancel was sent; it may still be open     | `protected`, `guarded`             |
| `RESTORING` | journaled before its replacement was sent                      | `guarded`: the venue's answer      |
| `DONE`      | restored, no longer needed, or impossible to restore           | nothing                            |

After a crash in between, the restart finds `OFF` or `RESTORING` and continues: the open orders show whether the old
order is still open, and the replacement's name changes only when the venue has refused it, so that the venue refuses a
second replacement as a duplicate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Literal

from msgspec import Struct

from killswitch.execution.client_order_id import catastrophe_stop_work, client_order_id
from killswitch.execution.report_validation import finite
from killswitch.journal.entries import (
    AGAIN,
    TRIED,
    Cancelled,
    Entry,
    PositionKey,
    Protected,
    ProtectionAnswered,
    Restored,
    Unprotected,
    known,
)
from killswitch.journal.lifecycle import ZERO
from killswitch.journal.targets import PositionTarget
from killswitch.model.snapshot import Order, Position
from killswitch.model.venue import ClientIdRule, OrderRequest, is_catastrophe_stop
from killswitch.planning.resting_orders import trigger_when

_NAMED_FOR = "/protection"
_DIRECTIONS: Mapping[str, Literal["falls", "rises"]] = {"falls": "falls", "rises": "rises"}


_APPLIED = (Unprotected, Cancelled, Protected, ProtectionAnswered, Restored)


class ProtectionState(Enum):
    OFF = "off"
    RESTORING = "restoring"
    DONE = "done"


class CancelledProtection(Struct):
    """One protective order that blocked a close, and its status. Amounts in contracts."""

    entry: Unprotected
    """Its terms, journaled before it was cancelled."""
    key: PositionKey
    order: str
    number: int
    """Its number within the decision: part of the name of its replacement."""
    state: ProtectionState = ProtectionState.OFF
    is_gone: bool = False
    """Whether it is confirmed that the order is no longer open."""
    refused: int = 0
    """How often the venue has refused its replacement."""
    sent_at: datetime | None = None
    epoch: str = ""
    """The restore of the store after which its replacement was named: the lost time may have used every other name."""

    @property
    def amount(self) -> Decimal:
        """Its amount; 0 if unknown."""
        return known(self.entry.amount) or ZERO

    def name(self, rule: ClientIdRule) -> str:
        """The client order id of its replacement, which of a catastrophe stop is one again."""
        origin = f"{self.entry.decision}{_NAMED_FOR}/{self.entry.account or ''}{self.epoch and f'/{self.epoch}'}"
        if is_catastrophe_stop(self.entry.order_client_id):
            origin = catastrophe_stop_work(origin)
        return client_order_id(origin, self.number, self.refused, rule)


class Protections:
    """All protective orders that closing has cancelled on one account, folded from the journal."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], CancelledProtection] = {}
        self._numbers: dict[str, int] = {}
        self._epochs: dict[str, str] = {}
        """Decision → the last restore of the store under it."""

    def apply(self, entry: Entry) -> None:
        """Apply one journal entry; entries about other orders change nothing."""
        if not isinstance(entry, _APPLIED):
            return
        match entry:
            case Unprotected():
                if entry.symbol is not None:
                    self._add(entry, entry.order or "")
            case Cancelled():
                if (found := self._of(entry, entry.order)) is not None:
                    found.is_gone = True
            case Protected():
                if (found := self._of(entry, entry.replaces)) is not None:
                    found.state, found.sent_at = ProtectionState.RESTORING, entry.at
            case ProtectionAnswered():
                if (found := self._of(entry, entry.replaces or entry.order)) is not None:
                    status = entry.state or ""
                    found.state = ProtectionState.OFF if status.startswith((AGAIN, TRIED)) else ProtectionState.DONE
                    found.refused += status.startswith(TRIED)
                    if found.state is ProtectionState.OFF:
                        found.epoch = self._epochs.get(entry.decision, "")
            case Restored():
                self._restored(entry.decision, entry.epoch or "")

    def _restored(self, decision: str, epoch: str) -> None:
        """The store was restored: the lost time may have sent what the journal has as not sent, so that it is queried.

        A replacement that rests is found by its name. Later ones have names of the epoch.
        """
        self._epochs[decision] = epoch
        for each in self.of(decision):
            if each.state is ProtectionState.OFF:
                each.state, each.sent_at = ProtectionState.RESTORING, None

    def is_lost(self, protection: CancelledProtection) -> bool:
        """Whether its replacement may have been sent, and ended, in the time that a restore has lost."""
        return protection.epoch != self._epochs.get(protection.entry.decision, "")

    def _of(self, entry: Entry, order: str | None) -> CancelledProtection | None:
        return self._found.get((entry.decision, order or ""))

    def _add(self, entry: Unprotected, order: str) -> None:
        existing = self._found.get((entry.decision, order))
        if existing is not None and existing.state is not ProtectionState.DONE:
            return
        key: PositionKey = (entry.symbol or "", "long" if entry.position_side == "long" else "short")
        number = self._numbers.get(entry.decision, 0)
        epoch = self._epochs.get(entry.decision, "")
        self._found[entry.decision, order] = CancelledProtection(entry, key, order, number, epoch=epoch)
        self._numbers[entry.decision] = number + 1

    def is_open(self, order: str) -> bool:
        """Whether the order was cancelled, for any decision, and not yet restored or written off."""
        return any(each.order == order for each in self.open())

    def all(self) -> list[CancelledProtection]:
        """Every protective order that was cancelled, restored ones included."""
        return list(self._found.values())

    def open(self) -> list[CancelledProtection]:
        """The protective orders that are neither restored nor written off."""
        return [each for each in self._found.values() if each.state is not ProtectionState.DONE]

    def of(self, decision: str) -> list[CancelledProtection]:
        """The protective orders cancelled for a decision that are neither restored nor written off."""
        return [each for each in self.open() if each.entry.decision == decision]


def blocking_orders(target: PositionTarget, orders: Iterable[Order], ours: frozenset[str]) -> list[Order]:
    """The open orders that may block `target`: exits of its own position that are not our own orders."""
    return [
        order
        for order in orders
        if order.symbol == target.symbol
        and order.side == target.side
        and order.position_side in (None, target.position_side)
        and order.client_order_id not in ours
        # The venue holds a part of the position for a reduce-only order, or in hedge mode for one of its position side.
        and not (order.reduce_only is False and order.position_side is None and target.reduce_only)
    ]


def unprotected_entry(target: PositionTarget, order: Order, position: Position | None, at: datetime) -> Unprotected:
    """The journal entry of an order before it is cancelled, from which it can be restored."""
    left = finite(order.amount)
    filled = finite(order.filled)
    if left is not None and filled is not None:
        left -= filled
    return Unprotected(
        target.decision,
        at,
        target.account,
        target.symbol,
        target.position_side,
        order=order.id,
        order_client_id=order.client_order_id,
        side=order.side,
        order_position_side=order.position_side,
        amount=left,
        type=order.type,
        price=finite(order.price),
        trigger_price=finite(order.trigger_price),
        trigger_when=trigger_when(order, position),
    )


def restoring_request(
    protection: CancelledProtection, left: Decimal, *, reduce_only: bool, rule: ClientIdRule
) -> OrderRequest | str:
    """The order that protects `left` contracts again, or why there can be none."""
    terms, price, trigger = protection.entry, known(protection.entry.price), known(protection.entry.trigger_price)
    amount = min(protection.amount, left) if protection.amount > ZERO else left
    if trigger is None and price is None:
        return "neither its price nor its trigger is known"
    if trigger is not None and terms.trigger_when not in _DIRECTIONS:
        return "the mark was unknown, so the side of its trigger is unknown"
    return OrderRequest(
        client_order_id=protection.name(rule),
        symbol=protection.key[0],
        side="sell" if terms.side == "sell" else "buy",
        position_side=protection.key[1],
        amount=amount,
        reduce_only=reduce_only,
        type="market" if price is None else "limit",
        price=price,
        trigger_price=trigger,
        trigger_when=_DIRECTIONS.get(terms.trigger_when or ""),
    )
