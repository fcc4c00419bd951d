"""Settlements of unrealised profit into the wallet, and the ledger rows that they use up.

At a settlement equity, sizes and marks stand still: unrealised profit becomes wallet, and the entry price the mark.
While the positions of an answer are older than its equity, a deposit next to an equal loss looks the same, so the
netting is provisional until the positions show the loss or `PROVISIONAL_FOR` is over.

Times in microseconds, money as Decimal in the account's currency.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import HOUR, SECOND
from killswitch.pnl_explain.classification import is_at_about
from killswitch.valuation.position_measures import ZERO

PROVISIONAL_FOR = 30 * SECOND
KEPT = HOUR
"""How late the row of a settlement may be reported."""
ABOUT = Decimal("0.01")
"""The relative difference up to which a transfer is that of a settlement."""
ABOUT_PROFIT = Decimal("0.05")
"""The same for a row of profit or loss: the venue settles at a price that no snapshot shows."""


class DroppedFlow(Struct, frozen=True):
    """What the netting left out of the wallet's move between two snapshots."""

    since: int
    at: int
    amount: Decimal


class SettlementRow(Struct, frozen=True):
    """A ledger row that may be that of a settlement. `moved`: it is a transfer."""

    at: int
    amount: Decimal
    moved: bool

    def is_about(self, amount: Decimal) -> bool:
        """Whether it may report this amount."""
        return abs(self.amount - amount) <= (ABOUT if self.moved else ABOUT_PROFIT) * abs(amount)


class Settlement(Struct):
    """A settled amount between two snapshots; `left` has no row yet. `parts`: by position, where entries tell."""

    since: int
    at: int
    left: Decimal
    parts: list[Decimal] = []


class Settlements(Struct):
    """The recent settlements of one account, as they are stored."""

    recent: list[Settlement] = []
    provisional: DroppedFlow | None = None

    def is_provisional(self, at: int) -> bool:
        """Whether a netting may still turn out to be a flow next to a loss."""
        return bool(self.dropped_by(at))

    def dropped_by(self, at: int) -> Decimal:
        """What the provisional netting left out; zero without one. One that is over becomes a settlement."""
        kept = self.provisional
        if kept is None:
            return ZERO
        if at - kept.at <= PROVISIONAL_FOR:
            return kept.amount
        self.add(kept.since, kept.at, kept.amount)
        self.provisional = None
        return ZERO

    def drop_provisional(self) -> None:
        """Forget the provisional netting: it was a flow."""
        self.provisional = None

    def add(self, since: int, at: int, amount: Decimal, parts: Sequence[Decimal] = ()) -> None:
        """Add a settlement."""
        self.recent = [each for each in self.recent if at - each.at <= KEPT]
        self.recent.append(Settlement(since, at, amount, [part for part in parts if part * amount > ZERO]))

    def use_up(self, rows: Sequence[SettlementRow]) -> set[int]:
        """The indexes of the rows that belong to settlements, which they use up."""
        used: set[int] = set()
        for settlement in self.recent:
            about = {
                i: row
                for i, row in enumerate(rows)
                if i not in used
                and row.amount * settlement.left > ZERO
                and is_at_about(row.at, settlement.since, settlement.at)
            }
            used |= _used_by(settlement, about)
        return used


def _used_by(settlement: Settlement, rows: dict[int, SettlementRow]) -> set[int]:
    """The rows of one settlement: one row or all rows of the whole amount, else one row for each position."""
    if not rows:
        return set()
    whole = [{i} for i, row in rows.items() if row.is_about(settlement.left)]
    if not whole and abs(sum((row.amount for row in rows.values()), -settlement.left)) <= ABOUT * abs(settlement.left):
        whole = [set(rows)]
    if whole:
        settlement.left, settlement.parts = ZERO, []
        return whole[0]
    used = set()
    for i, row in rows.items():
        part = next((part for part in settlement.parts if row.is_about(part)), None)
        if part is not None:
            settlement.parts.remove(part)
            settlement.left -= part
            used.add(i)
    return used
