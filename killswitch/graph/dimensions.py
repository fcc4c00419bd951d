"""What signals measure, and what becomes of it in arithmetic: money is not compared with a fraction."""

from __future__ import annotations

from typing import Literal

from killswitch.signals.catalogue import BY_NAME, Unit

Dimension = Literal["a plain number", "money", "seconds", "milliseconds", "a compound of units"]
"""A number written in an expression has none: it takes the other side's."""

_DIMENSIONS: dict[Unit, Dimension] = {"money": "money", "seconds": "seconds", "milliseconds": "milliseconds"}
_PLAIN: Dimension = "a plain number"
_COMPOUND: Dimension = "a compound of units"


def of_signal(name: str) -> Dimension:
    """Fractions, ratios, counts and scores are plain numbers; money and times are not."""
    return _DIMENSIONS.get(BY_NAME[name].unit, _PLAIN)


def same(left: Dimension | None, right: Dimension | None) -> bool:
    """Whether the two may be added or compared."""
    return left is None or right is None or left == right or _COMPOUND in (left, right)


def product(left: Dimension | None, right: Dimension | None) -> Dimension | None:
    """What `left × right` measures."""
    factors = {dimension for dimension in (left, right) if dimension is not None}
    if len(factors - {_PLAIN}) == 0:
        return _PLAIN if factors else None
    if left in (None, _PLAIN) or right in (None, _PLAIN):
        return (factors - {_PLAIN}).pop()
    return _COMPOUND


def quotient(left: Dimension | None, right: Dimension | None) -> Dimension | None:
    """What `left ÷ right` measures."""
    if right is None or right == _PLAIN:
        return left if left is not None else right
    if left == right and left != _COMPOUND:
        return _PLAIN
    return _COMPOUND
