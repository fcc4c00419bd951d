"""What our own orders leave of a position, whatever the venue shows: its positions may lag behind its fills."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from killswitch.journal.entries import (
    Abandoned,
    Absent,
    Entry,
    Filled,
    Rejected,
    Sending,
    SetAside,
    Undecodable,
    Verified,
    known,
)
from killswitch.journal.lifecycle import ZERO


@dataclass(slots=True)
class PositionLedger:
    """One position over all decisions that work on it, folded from their journal entries in sequence.

    `anchor` is the smallest position verified, or believed when an order was sent with nothing else in flight,
    less every fill reported since; None before the first. `outstanding` is what may fill yet, by client order id.
    """

    anchor: Decimal | None = None
    closed: Decimal = ZERO
    """What orders of all decisions have filled on it since it is followed."""
    outstanding: dict[str, Decimal] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    """Those of `outstanding` whose fate is unknown, and that nobody waits for."""
    abandoned: set[str] = field(default_factory=set)
    """Those of them whose fate will never be known."""

    def apply(self, entry: Entry, decided: Decimal) -> None:
        """Take one journal entry about this position.

        `decided`: how much its decision closes of it. An order counts with that where what was sent cannot be read.
        """
        if isinstance(entry, Verified) and not entry.is_last and not self.outstanding:
            shown = known(entry.position)
            if shown is not None:
                self.anchor = shown if self.anchor is None else min(shown, self.anchor)
        name = entry.client_order_id
        if name is None:
            return
        match entry:
            case Sending():
                if not self.outstanding:
                    self.anchor = known(entry.position)
                self.aside.discard(name)
                amount = known(entry.amount)
                self.outstanding[name] = decided if amount is None else amount
            case Filled():
                # Once for each order, and what cannot be read counts as filled in full.
                sent = self.outstanding.pop(name, None)
                if sent is not None:
                    done = entry.at_worst(sent)
                    self.closed += done
                    self.anchor = None if self.anchor is None else self.anchor - done
            case Rejected() | Absent():
                self.outstanding.pop(name, None)
            case SetAside() if name in self.outstanding:
                self.aside.add(name)
            case Abandoned():
                self.abandoned.add(name)
            case Undecodable() if name not in self.outstanding:
                self.outstanding[name] = decided
                self.aside.add(name)

    def believed(self, shown: Decimal) -> Decimal:
        """The position that is surely there: never more than the venue shows, nor than our fills have left."""
        return shown if self.anchor is None else min(shown, self.anchor)

    def least(self, before: Decimal) -> Decimal:
        """What our orders leave of it by what the venue has said of them; of `before`, where nothing is known yet.

        An order of unknown fate explains nothing: that a position has gone is no proof that the order closed it.
        """
        return before if self.anchor is None else self.anchor

    def free(self, shown: Decimal, *, guarded: bool = False) -> Decimal:
        """What of it no order in flight may still close, at worst.

        `guarded`: the venue keeps the order that is to be sent from closing more than is there, so that what is of
        unknown fate does not hold it back.
        """
        counted = (amount for name, amount in self.outstanding.items() if not (guarded and name in self.aside))
        return self.believed(shown) - sum(counted, ZERO)

    @property
    def waits(self) -> bool:
        """Whether something is outstanding whose fate will be known yet."""
        return not self.abandoned.issuperset(self.outstanding)
