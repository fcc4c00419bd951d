"""Thresholds that follow the scope's own past, or its expected move.

Both move slowly and between declared bounds, and stand still while the signal is near them or the policy acts: a
threshold that followed a fall would never be reached by it. Times are microseconds.
"""

from __future__ import annotations

import math
from collections import deque

from msgspec import Struct

from killswitch.graph.nodes import AdaptiveRule
from killswitch.model.instant import DAY, MINUTE

RECOMPUTED_EVERY = 15 * MINUTE
"""How often a threshold by another signal is computed; one by a quantile is at 00:00 UTC."""
MOST_A_DAY = 0.1
"""The greatest change of a threshold by a quantile in a day, as a fraction of itself."""
FROZEN_FROM = 0.5
"""The part of the threshold from which the signal freezes it."""


class Block(Struct, omit_defaults=True):
    """One block of time: its number since 1970, the signal's maximum, and whether it counts.

    `highest`: None while it was not known or not finite, for which JSON has no number.
    """

    number: int
    highest: float | None
    seen: int
    """The last observation in it."""
    counts: bool = True


class StoredThreshold(Struct):
    """The state of an adaptive threshold. `rule` identifies what it was computed for: an edit restarts it."""

    rule: str
    value: float
    computed_at: int
    maxima: list[tuple[int, float | None]]
    """Block and its maximum; an earlier version stored None for one that was infinite."""
    block: Block | None = None


class AdaptiveThreshold:
    """The threshold of one trigger on one scope. `value` is the present one; `samples` are its finished blocks."""

    def __init__(self, rule: AdaptiveRule, max_gap: int) -> None:
        self.rule = rule
        self.value = rule.initial
        self.frozen = False
        self._max_gap = max_gap
        self._maxima: deque[tuple[int, float]] = deque()
        self._block: Block | None = None
        self._computed_at: int | None = None

    @property
    def samples(self) -> int:
        """The number of finished blocks that count."""
        return len(self._maxima)

    @property
    def wanted(self) -> int:
        """The number of blocks from which the quantile applies: below, `initial` does."""
        if self.rule.quantile is None:
            return 0
        return max(round(1 / (1 - self.rule.quantile)), -(-self.rule.history // self.rule.block) // 4)

    def observe(
        self, now: int, signal: tuple[float, float], other: tuple[float, float] | None, *, acts: bool, is_empty: bool
    ) -> None:
        """Add the signal's interval at `now`, and compute the threshold if it is due.

        `other`: the interval of the signal that it is a multiple of. `acts`: whether a stage of the policy is latched
        or cools down. `is_empty`: whether the book is, or may be, empty.
        """
        low, high = signal
        if self.rule.quantile is not None:
            self._collect(now, low, is_known=low == high and math.isfinite(low) and not acts and not is_empty)
        self.frozen = acts or high >= FROZEN_FROM * self.value
        if self.rule.quantile is not None and self.samples < self.wanted and not self.frozen:
            self.value = self.rule.initial  # also after an outage that took the samples of a value that was computed
        period = DAY if self.rule.quantile is not None else RECOMPUTED_EVERY
        if self._computed_at is None:
            self._computed_at = now
        if self.frozen or now // period == self._computed_at // period:
            return
        self._computed_at = now
        target = self._quantile() if self.rule.quantile is not None else self._multiple(other)
        if target is None:
            return
        if self.rule.quantile is not None:  # days in which it was frozen, or nobody ran, do not add up
            target = min(max(target, self.value * (1 - MOST_A_DAY)), self.value * (1 + MOST_A_DAY))
        self.value = min(max(target, self.rule.floor), self.rule.cap)

    def _collect(self, now: int, value: float, *, is_known: bool) -> None:
        number, block = now // self.rule.block, self._block
        seen = value if math.isfinite(value) else None
        if block is None or block.number != number:
            if block is not None:
                self._finish(block, now)
            begins_late = now - number * self.rule.block > self._max_gap
            self._block = Block(number, seen, now, is_known and not begins_late)
            return
        is_whole = is_known and now - block.seen <= self._max_gap
        highest = max((each for each in (block.highest, seen) if each is not None), default=None)
        self._block = Block(number, highest, now, block.counts and is_whole)

    def _finish(self, block: Block, now: int) -> None:
        if (
            block.counts
            and block.highest is not None
            and (block.number + 1) * self.rule.block - block.seen <= self._max_gap
        ):
            self._maxima.append((block.number, block.highest))
        oldest = (now - self.rule.history) // self.rule.block
        while self._maxima and self._maxima[0][0] < oldest:
            self._maxima.popleft()

    def _quantile(self) -> float | None:
        """The quantile of the blocks' maxima (linear, type 7); None while there are too few."""
        if self.samples < self.wanted or self.rule.quantile is None:
            return None
        values = sorted(highest for _, highest in self._maxima)
        place = self.rule.quantile * (len(values) - 1)
        below = int(place)
        above = min(below + 1, len(values) - 1)
        return values[below] + (place - below) * (values[above] - values[below])

    def _multiple(self, other: tuple[float, float] | None) -> float | None:
        """The multiple of the other signal; None while that is not known."""
        if other is None or other[0] != other[1] or self.rule.times is None:
            return None
        return self.rule.times * other[0]

    def state(self) -> StoredThreshold:
        """The state to store."""
        return StoredThreshold(self.rule.identity, self.value, self._computed_at or 0, list(self._maxima), self._block)

    def restore(self, stored: StoredThreshold) -> None:
        """Restore the state, unless it was computed for another rule."""
        if stored.rule != self.rule.identity:
            return
        self.value, self._computed_at = stored.value, stored.computed_at or None
        self._maxima = deque((number, highest) for number, highest in stored.maxima if highest is not None)
        self._block = stored.block
