"""The paper market's own little source of chance: the same seed draws the same numbers on every machine."""

from __future__ import annotations

from decimal import Decimal

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_RANGE = Decimal(1 << 64)


class SplitMix64:
    """Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def next(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _GOLDEN) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def between(self, low: Decimal, high: Decimal) -> Decimal:
        """A number from [low, high)."""
        return low + (high - low) * (Decimal(self.next()) / _RANGE)
