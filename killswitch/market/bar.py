"""One price bar, and the way a price is taken to have gone through it."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct


class Bar(Struct, frozen=True, gc=False):
    """Prices in quote per base, volume in base units (contracts × contract size) traded in the bar.

    `carried` marks a bar that nobody traded: the venue has none for this interval, and the last price stands.
    """

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    carried: bool = False


def carry(price: Decimal) -> Bar:
    """The bar of an interval without a trade after a last price of `price`."""
    return Bar(price, price, price, price, Decimal(0), carried=True)


def path(bar: Bar) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The four prices a bar is taken to have passed, in order.

    A bar tells its extremes but not which came first. The convention of back-testers is followed: a bar that
    closes at or above its open first went down (open, low, high, close), one that falls first went up
    (open, high, low, close).
    """
    if bar.close >= bar.open:
        return bar.open, bar.low, bar.high, bar.close
    return bar.open, bar.high, bar.low, bar.close
