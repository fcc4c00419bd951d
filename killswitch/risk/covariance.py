"""Covariance of returns, risk contributions of positions, minimum-variance cuts, and betas.

A sample covariance of n series needs many more than n observations: the largest risks in it are overstated, the
smallest understated, and a search for the book with the least variance finds its errors. Ledoit & Wolf (2004),
"A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88(2),
365–411, takes the mean of the sample covariance and of μI, weighted so that the expected squared error is least.

Plain floats, summed exactly (`math.fsum`), so that every machine and every Python computes the same bits.

The variance of the P&L of exposures x is V = x′Σx. By Euler's theorem it is the sum of xᵢ(Σx)ᵢ, so each position has a
component; divided by V the components are shares that sum to 1 (Litterman, 1996, "Hot spots and hedges", Journal of
Portfolio Management). A position that hedges the others has a negative share: without it the book would vary more.

The cut minimises x′Σx over the kept part of each position, each within its maximum and all of them together as much as
the cut leaves. The objective is convex, so moving gross between two positions at a time, from the one whose next
unit adds most to the one whose next unit adds least, each time as far as it helps, reaches the minimum (the
pairwise steps of Platt, 1998, "Sequential minimal optimization"). It begins with the cut in proportion and never makes
it worse: if it is stopped early, the rest varies at most as much as after a cut in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, sqrt
from operator import mul
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Matrix = list[list[float]]


def shrunk_covariance(series: Sequence[Sequence[float]]) -> Matrix:
    """The Ledoit–Wolf estimate over `series`: n of them, each of the same T ≥ 2 returns; n × n, per return squared."""
    count, times = len(series), len(series[0])
    centred = [_centred(each) for each in series]
    sample = [[0.0] * count for _ in range(count)]
    for i, one in enumerate(centred):
        for j in range(i + 1):
            sample[i][j] = sample[j][i] = fsum(map(mul, one, centred[j])) / times
    mean = fsum(sample[i][i] for i in range(count)) / count
    weight = _weight(sample, mean, centred)
    return [
        [(1.0 - weight) * value + (weight * mean if i == j else 0.0) for j, value in enumerate(row)]
        for i, row in enumerate(sample)
    ]


class ShrunkCovariance(Struct, frozen=True):
    """The estimate in floats of NumPy: (1 − weight) × `sample` + weight × mean × I."""

    sample: Floats
    weight: float
    mean: float

    def variance(self, exposures: Floats) -> float:
        """V = x′Σx, as of `variance`."""
        sampled = float(exposures @ self.sample @ exposures)
        return (1.0 - self.weight) * sampled + self.weight * self.mean * float(exposures @ exposures)


def shrunk_covariance_array(series: Floats) -> ShrunkCovariance:
    """The same estimate of an array (n × T ≥ 2): rounded, and fast enough for signals."""
    import numpy as np

    count, times = series.shape
    centred = series - series.mean(axis=1, keepdims=True)
    sample = centred @ centred.T / times
    mean, square = float(np.trace(sample)) / count, float((sample**2).sum())
    distance = (square - count * mean * mean) / count
    lengths = (centred**2).sum(axis=0)
    error = (float((lengths**2).sum()) / times - square) / (count * times)
    return ShrunkCovariance(sample, min(error, distance) / distance if distance > 0.0 else 0.0, mean)


def _centred(values: Sequence[float]) -> list[float]:
    mean = fsum(values) / len(values)
    return [value - mean for value in values]


def _weight(sample: Matrix, mean: float, centred: Sequence[Sequence[float]]) -> float:
    """The weight of the target in the estimate: β² ÷ δ² of the paper (its lemmas 3.2 to 3.4), at most 1.

    δ² is how far the sample is from the target, β² how far it is expected to be from the truth.
    """
    count, times = len(sample), len(centred[0])
    square = fsum(value * value for row in sample for value in row)
    distance = (square - count * mean * mean) / count
    lengths = [fsum(value * value for value in moment) for moment in zip(*centred, strict=True)]
    error = (fsum(length * length for length in lengths) / times - square) / (count * times)
    return min(error, distance) / distance if distance > 0.0 else 0.0


def variance(exposures: Sequence[float], covariance: Matrix) -> float:
    """V = x′Σx, in squared money; `exposures` are signed notionals, `covariance` that of their returns."""
    return fsum(map(mul, exposures, slopes(exposures, covariance)))


def slopes(exposures: Sequence[float], covariance: Matrix) -> list[float]:
    """Σx: half of the gradient of the variance with respect to the exposures."""
    return [fsum(map(mul, row, exposures)) for row in covariance]


def variance_shares(exposures: Sequence[float], covariance: Matrix) -> list[float] | None:
    """Each position's share of the variance; None if the variance is zero."""
    total = variance(exposures, covariance)
    if not total > 0.0:
        return None
    return [x * slope / total for x, slope in zip(exposures, slopes(exposures, covariance), strict=True)]


CLOSE_ENOUGH = 1e-9
"""Slopes that differ by less than this fraction of the steepest count as equal."""


def least_variance(
    exposures: Sequence[float], covariance: Matrix, most: Sequence[float | None], kept: float
) -> list[float]:
    """The notional to keep of each position so that the variance is minimal.

    `exposures` are the signed notionals of the whole book, `most` the maximum notional to keep of each position (None:
    the position is not changed), `kept` the total to keep of the positions that may be changed, from 0 to their sum.
    """
    movable = [i for i, limit in enumerate(most) if limit is not None]
    limits = {i: limit for i in movable if (limit := most[i]) is not None}
    signs = {i: 1.0 if exposures[i] >= 0.0 else -1.0 for i in movable}
    total = fsum(limits.values())
    sizes = {i: limits[i] * kept / total if total > 0.0 else 0.0 for i in movable}
    left = [signs[i] * sizes[i] if i in sizes else x for i, x in enumerate(exposures)]
    slope = slopes(left, covariance)
    for _ in range(200 * len(movable)):
        shrinking = max((i for i in movable if sizes[i] > 0.0), key=lambda i: signs[i] * slope[i], default=None)
        growing = min((i for i in movable if sizes[i] < limits[i]), key=lambda i: signs[i] * slope[i], default=None)
        if shrinking is None or growing is None:
            break
        gain = signs[shrinking] * slope[shrinking] - signs[growing] * slope[growing]
        if gain <= CLOSE_ENOUGH * max(abs(each) for each in slope):
            break
        bend = covariance[shrinking][shrinking] + covariance[growing][growing]
        bend -= 2.0 * signs[shrinking] * signs[growing] * covariance[shrinking][growing]
        room = min(sizes[shrinking], limits[growing] - sizes[growing])
        moved = min(room, gain / bend) if bend > 0.0 else room
        sizes[shrinking] = sizes[shrinking] - moved if moved < sizes[shrinking] else 0.0
        sizes[growing] = sizes[growing] + moved if moved < limits[growing] - sizes[growing] else limits[growing]
        for i, row in enumerate(covariance):
            slope[i] += moved * (signs[growing] * row[growing] - signs[shrinking] * row[shrinking])
    return [sizes[i] if i in sizes else abs(x) for i, x in enumerate(exposures)]


class Beta(Struct, frozen=True):
    """A slope and its standard error, which is None for fewer than three returns."""

    slope: float
    error: float | None

    def is_sure(self, errors: float) -> bool:
        """Whether the slope is more than `errors` standard errors from zero."""
        return self.error is not None and abs(self.slope) > errors * self.error


def least_squares_beta(of: Sequence[float], on: Sequence[float]) -> Beta | None:
    """The slope of the least-squares line of the returns `of` one on those `on` another: cov ÷ var, with intercept.

    A position of notional N is hedged with β·N of the other: no other size leaves less variance (Ederington, 1979, "The
    hedging performance of the new futures markets", Journal of Finance 34(1)). Its standard error is that of ordinary
    least squares: the root of the squared residuals ÷ (n − 2) ÷ the squared deviations of the other. None where the
    other did not move. ValueError for series of different length.
    """
    if len(of) != len(on):
        raise ValueError(f"{len(of)} returns against {len(on)}")
    if not on or min(on) == max(on):
        return None
    mean_of, mean_on = fsum(of) / len(of), fsum(on) / len(on)
    squares = fsum((x - mean_on) ** 2 for x in on)
    if not squares > 0.0:  # moves too small to be squared
        return None
    slope = fsum((y - mean_of) * (x - mean_on) for y, x in zip(of, on, strict=True)) / squares
    if len(on) < 3:
        return Beta(slope, None)
    left = fsum((y - mean_of - slope * (x - mean_on)) ** 2 for y, x in zip(of, on, strict=True))
    return Beta(slope, sqrt(left / (len(on) - 2) / squares))
