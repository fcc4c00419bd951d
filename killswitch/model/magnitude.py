"""How large or small a number of money, size or price can be.

A text of ten characters such as `1e10000000` is a number that takes minutes to write out or to divide by. Adapters
refuse such numbers where they read them; what is merely too large for a sum is unknown to whoever reckons with it.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

MOST_POWER = 30
"""A sum is made of numbers below 10**30 and not nearer to zero than 10**-30; the smallest unit of a coin is 10**-18."""
READABLE_POWER = 60
"""What is read at all: rounded floats come nearer to zero than any amount."""
LONGEST = 120
"""Characters of a number that is written out: both sides of the point, its sign and an exponent."""


def sane(value: Decimal) -> bool:
    """Whether sums can be made with a number: finite, and of fewer than thirty digits before and after its point."""
    return value.is_finite() and -MOST_POWER < value.adjusted() < MOST_POWER


def readable(value: Decimal) -> bool:
    """Whether an adapter passes a number on: finite, and short enough to be written out."""
    return value.is_finite() and -READABLE_POWER < value.adjusted() < READABLE_POWER


def readable_number(text: str) -> Decimal | None:
    """The number that `text` writes; None for what is none, is longer than `LONGEST`, or is not readable."""
    if len(text) > LONGEST:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if readable(found) else None
