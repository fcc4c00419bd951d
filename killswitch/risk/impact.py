"""What trading moves a price by, before anybody trades: expected impact of a size against a market's volume.

Square root: I(Q) = Y·σ·√(Q/V), with σ the volatility of a day as a fraction, V the volume of a day and Q the size, in
the same unit. Y is of order one; here it is 1 (Tóth, Lempérière, Deremble, de Lataillade, Kockelkoren & Bouchaud,
2011, "Anomalous price impact and the critical nature of liquidity in financial markets", Physical Review X 1, 021006;
Almgren, Thum, Hauptmann & Li, 2005, "Direct estimation of equity market impact", Risk 18(7), have the power 3/5 for
the temporary part, which lies between the two models here).

Linear: I(Q) = Y·σ·Q/V, the form of Kyle (1985), "Continuous auctions and insider trading", Econometrica 53(6). Below
a day's volume it expects less than the square root, so it cuts into larger slices.

Both are averages over many trades of a market that is quiet enough to have averages: in a crash they expect too little.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

Model = Literal["square_root", "linear"]

Y: Final = Decimal(1)
"""The factor of both models. Tóth et al. find it of order one over markets and sizes."""

DAY: Final = Decimal(86_400)
"""Seconds."""


def daily_volume(volume: Decimal, over: float) -> Decimal:
    """A day's volume, in the unit of `volume`, if every `over` seconds traded as the last did.

    ValueError unless `over` is above zero.
    """
    seconds = _number(over)
    if not seconds > 0:
        raise ValueError(f"a volume over {over} seconds says nothing of a day")
    return volume * DAY / seconds


def expected_impact(model: Model, size: Decimal, volume: Decimal, volatility: float) -> Decimal:
    """By what fraction trading `size` is expected to move the price.

    `size` and the day's `volume` in one unit; `volatility` of a day as a fraction. Infinite where nothing trades.
    ValueError for a number below zero.
    """
    spread = _checked(size, volume, volatility)
    if not size:
        return Decimal(0)
    if not volume:
        return Decimal("Infinity")
    share = size / volume
    return Y * spread * (share.sqrt() if model == "square_root" else share)


def greatest_size(model: Model, at_most: Decimal, volume: Decimal, volatility: float) -> Decimal:
    """The greatest size whose expected impact is at most the fraction `at_most`: the inverse of `expected_impact`.

    In the unit of the day's `volume`; infinite where the price does not move. ValueError for a number below zero.
    """
    spread = _checked(at_most, volume, volatility)
    if not spread:
        return Decimal("Infinity")
    share = at_most / (Y * spread)
    return volume * (share * share if model == "square_root" else share)


def _checked(size: Decimal, volume: Decimal, volatility: float) -> Decimal:
    spread = _number(volatility)
    if not (size >= 0 and volume >= 0 and spread >= 0):
        raise ValueError(f"impact of {size} against a volume of {volume} at a volatility of {volatility}")
    return spread


def _number(value: float) -> Decimal:
    """The decimal that a person would read: 0.02, not the binary fraction behind it. ValueError for no number."""
    number = Decimal(repr(float(value)))
    if not number.is_finite():
        raise ValueError(f"{value} is no number to reckon with")
    return number
