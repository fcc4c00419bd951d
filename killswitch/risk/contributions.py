"""Which positions carry a book's variance.

The variance of the P&L of exposures x is V = x′Σx. By Euler's theorem it is the sum of xᵢ(Σx)ᵢ, so each position has a
component; divided by V the components are shares that sum to 1 (Litterman, 1996, "Hot spots and hedges", Journal of
Portfolio Management). A position that hedges the others has a negative share: without it the book would vary more.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from operator import mul

from killswitch.risk.shrinkage import Matrix


def variance(exposures: Sequence[float], covariance: Matrix) -> float:
    """V = x′Σx, in squared money; `exposures` are signed notionals, `covariance` that of their returns."""
    return fsum(map(mul, exposures, slopes(exposures, covariance)))


def slopes(exposures: Sequence[float], covariance: Matrix) -> list[float]:
    """Σx: half of what the variance grows by with each exposure."""
    return [fsum(map(mul, row, exposures)) for row in covariance]


def variance_shares(exposures: Sequence[float], covariance: Matrix) -> list[float] | None:
    """Each position's share of the variance; None where the book does not vary at all."""
    total = variance(exposures, covariance)
    if not total > 0.0:
        return None
    return [x * slope / total for x, slope in zip(exposures, slopes(exposures, covariance), strict=True)]
