"""Position ledger: what our own orders leave of a position. A venue's positions may lag behind its fills."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct, field

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Entry,
    Filled,
    OrderDetached,
    OrderSending,
    Rejected,
    Undecodable,
    Verified,
    known,
)
from killswitch.journal.lifecycle import ZERO


class PositionLedger(Struct):
    """The ledger of one position over all decisions that work on it, folded from their journal entries in sequence.

    `anchor` is the smallest verified position, or the position assumed when an order was sent with no other order in
    flight, minus every fill reported since; None before the first. `outstanding` maps client order ids to the amount
    that may still fill.
    """

    anchor: Decimal | None = None
    closed: Decimal = ZERO
    """Contracts filled by orders of all decisions since the ledger began."""
    outstanding: dict[str, Decimal] = field(default_factory=dict)
    detached: set[str] = field(default_factory=set)
    """Orders in `outstanding` of unknown status that no target waits for."""
    abandoned: set[str] = field(default_factory=set)
    """Orders whose status will never be known."""
    filled_orders: set[str] = field(default_factory=set)
    """Venue ids of the orders that have filled."""
    last_filled: str | None = None
    """Venue id of the order that filled last; None if it is unknown, and after a further order until that has filled.

    What the venue fills after it is not contained in `anchor`.
    """

    def apply(self, entry: Entry, decided: Decimal) -> None:
        """Apply one journal entry about this position.

        `decided`: contracts that the entry's decision closes. An order whose amount cannot be read counts as this much.
        """
        if isinstance(entry, Verified) and not entry.is_last and not self.outstanding:
            shown = known(entry.position)
            if shown is not None:
                self.anchor = shown if self.anchor is None else min(shown, self.anchor)
        name = entry.client_order_id
        if name is None:
            return
        match entry:
            case OrderSending():
                if not self.outstanding:
                    self.anchor = known(entry.position)
                self.last_filled = None
                self.detached.discard(name)
                amount = known(entry.amount)
                self.outstanding[name] = decided if amount is None else amount
            case Filled():
                self._apply_fill(entry, name)
            case Rejected() | Absent():
                self.outstanding.pop(name, None)
            case OrderDetached() if name in self.outstanding:
                self.detached.add(name)
            case Abandoned():
                self.abandoned.add(name)
            case Undecodable() if name not in self.outstanding:
                self.outstanding[name] = decided
                self.detached.add(name)

    def _apply_fill(self, entry: Filled, name: str) -> None:
        """Each order counts once; an unreadable fill counts as a full fill."""
        if entry.order is not None:
            self.filled_orders.add(entry.order)
        sent = self.outstanding.pop(name, None)
        if sent is None:
            return
        done = entry.worst_case_fill(sent)
        self.closed += done
        self.anchor = None if self.anchor is None else self.anchor - done
        self.last_filled = entry.order if done else self.last_filled

    def assumed(self, shown: Decimal, grown: Decimal = ZERO) -> Decimal:
        """Lower bound of the position: the smaller of what the venue shows and what our fills leave.

        `grown`: what the venue's fills of others have surely added since.
        """
        return shown if self.anchor is None else min(shown, self.anchor + grown)

    def remaining(self, before: Decimal) -> Decimal:
        """The position that remains by the reported fills; `before` while nothing is known.

        An order of unknown status does not count: a position that is gone does not prove that the order closed it.
        """
        return before if self.anchor is None else self.anchor

    def closable(self, shown: Decimal, grown: Decimal = ZERO, *, is_capped_by_venue: bool = False) -> Decimal:
        """Contracts that no order in flight can still close, in the worst case; `grown` as in `assumed`.

        `is_capped_by_venue`: the venue prevents the next order from closing more than the position, so orders of
        unknown status do not reduce the result.
        """
        ignored = self.detached if is_capped_by_venue else ()
        return self.assumed(shown, grown) - sum(
            (it for name, it in self.outstanding.items() if name not in ignored), ZERO
        )

    @property
    def is_waiting(self) -> bool:
        """Whether the status of an outstanding order is still expected."""
        return not self.abandoned.issuperset(self.outstanding)
