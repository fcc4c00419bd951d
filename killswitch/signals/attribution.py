"""Which side lost the money, over a window.

A side's loss is the fall of its P&L since the unit value was highest in the window, realised and unrealised:
a position that is still in profit but fell counts, as do positions opened, reduced or closed since. A side whose
positions gained in sum lost nothing. A side's share is its loss ÷ the losses of both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from killswitch.model.decision import Source
from killswitch.signals.falls import pnl_change
from killswitch.signals.history import History
from killswitch.signals.position import ZERO

TWO_THIRDS = 2 / 3
"""From which share on `attribution.source` names a side; stages declare their own."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares 0…1 that sum to 1, or None with the reason why they are unknown."""

    long: float | None
    short: float | None
    reason: str | None = None

    def source(self, at_least: float) -> Source:
        """The side whose share is at least `at_least`; MIXED if neither's is, UNKNOWN if shares are."""
        if self.long is None or self.short is None:
            return "UNKNOWN"
        if max(self.long, self.short) < at_least:
            return "MIXED"
        return "LONG" if self.long >= self.short else "SHORT"


def shares(history: History, window: int) -> Shares:
    """Each side's share of the loss in the window (microseconds)."""
    change = pnl_change(history, window)
    if isinstance(change, str):
        return Shares(None, None, change)
    lost = {"long": ZERO, "short": ZERO}
    for (_, _, side), delta in change.items():
        lost[side] -= delta
    long, short = max(ZERO, lost["long"]), max(ZERO, lost["short"])
    total: Decimal = long + short
    if total <= ZERO:
        return Shares(None, None, "neither side lost in the window")
    return Shares(float(long / total), float(short / total))
