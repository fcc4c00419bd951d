"""Changes of equity that nothing explains, and what becomes of them.

A change is a flow whose ledger row is late, or profit or loss. Until that is known both readings stand. If it was
a flow, every unit value from the change on is `factor` times too high (too low for a withdrawal), where
factor = (equity before + change) ÷ equity before: that is what issuing units for it would have divided them by.
A fall counts as loss after its own grace; a row that comes later still is matched against it all the same.
Rises and falls never cancel each other out: only the ledger explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from msgspec import Struct

from killswitch.model.instant import HOUR
from killswitch.signals.position import ZERO

REMEMBER = 48 * HOUR
"""How long a row may be late. After that a rise counts as gain, and a written-off fall stays a loss."""
MOST = 500
"""Changes kept apart at a time; beyond that the oldest count as what they seem."""


class Change(Struct):
    """One unexplained change, as it appeared `at` (microseconds).

    `before` is equity and `value` the unit value just before it; `peak` the highest unit value since the change
    before it; `lost` whether it counts as loss by now.
    """

    at: int
    amount: Decimal
    before: float
    value: float
    peak: float
    lost: bool = False

    @property
    def factor(self) -> float:
        """What unit values from the change on would be divided by if it was a flow; 0 if all was taken out."""
        return max(0.0, (self.before + float(self.amount)) / self.before) if self.before > 0.0 else 1.0


Reading = Callable[[Change], float]
"""By what unit values from before a change are to be multiplied to stand beside those after it."""


class Resolved(Struct, frozen=True):
    """`amount` of the change that appeared `at` was a flow: divide by `factor` from there on."""

    at: int
    amount: Decimal
    factor: float
    value: float


class Changes:
    """The changes that are open or may still be explained, oldest first, and the peaks of the times between them."""

    def __init__(self, changes: Iterable[Change] = (), peak: float = 0.0) -> None:
        """`peak` is the highest unit value since the newest change."""
        self.all: list[Change] = list(changes)
        self.peak = peak

    @property
    def open(self) -> list[Change]:
        """Those that count as neither yet."""
        return [change for change in self.all if not change.lost]

    @property
    def sum(self) -> Decimal:
        """What is unexplained now; below zero for a fall."""
        return sum((change.amount for change in self.open), ZERO)

    def appear(self, at: int, amount: Decimal, before: float, value: float) -> None:
        """A change that nothing explains."""
        self.all.append(Change(at, amount, before, value, self.peak))
        self.peak = 0.0

    def explain(self, rows: Decimal, *, moved: bool) -> tuple[list[Resolved], Decimal]:
        """Match late `rows` (a sum of money) with changes of their sign; what they leave unmatched.

        One of exactly that amount comes first, then those that are open, then those that count as loss; the oldest
        of each.
        `moved`: the rows are flows; otherwise they are profit or loss, which is what the change was taken for.
        """
        resolved: list[Resolved] = []
        for change in sorted(self.all, key=lambda c: (c.amount != rows, c.lost, c.at)):
            if rows == ZERO:
                break
            if (change.amount > ZERO) != (rows > ZERO):
                continue
            part = min(change.amount, rows) if rows > ZERO else max(change.amount, rows)
            whole = change.factor
            rows -= part
            change.amount -= part
            factor = whole / change.factor if change.factor > 0.0 else whole
            resolved.append(Resolved(change.at, part, factor, change.value))
            if moved:
                self._divide_after(change, factor)
            if change.amount == ZERO:
                self._forget(change)
        return resolved, rows

    def write_off(self, now: int, grace: int) -> Decimal:
        """Count falls as loss whose grace is over; returns how much that is, above zero."""
        lost = ZERO
        for change in self.all:
            if not change.lost and change.amount < ZERO and now - change.at >= grace:
                change.lost = True
                lost -= change.amount
        return lost

    def expire(self, now: int) -> None:
        """Let go of what no row will explain any more."""
        while self.all and (now - self.all[0].at > REMEMBER or len(self.all) > MOST):
            self._forget(self.all[0])

    def highest(self, reading: Reading) -> float:
        """The highest unit value ever, as it would be in the reading, in terms of the present value."""
        scale, best = 1.0, self.peak
        for change in reversed(self.all):
            scale *= 1.0 if change.lost else reading(change)
            best = max(best, change.peak * scale)
        return best

    def accept(self, value: float) -> None:
        """A hand took the loss: what was before is no peak any more."""
        for change in self.all:
            change.peak = 0.0
        self.peak = value

    def _divide_after(self, change: Change, factor: float) -> None:
        if factor > 0.0:
            for later in self.all[self.all.index(change) + 1 :]:
                later.peak /= factor
            self.peak /= factor

    def _forget(self, change: Change) -> None:
        """Its time becomes one with the next."""
        place = self.all.index(change)
        del self.all[place]
        if place < len(self.all):
            self.all[place].peak = max(self.all[place].peak, change.peak)
        else:
            self.peak = max(self.peak, change.peak)


def as_flow_if_fall(change: Change) -> float:
    """The reading in which the drawdown is smallest: falls were flows, rises were gains."""
    return min(1.0, change.factor)


def as_flow_if_rise(change: Change) -> float:
    """The reading in which it is greatest: rises were flows, falls were losses."""
    return max(1.0, change.factor)
