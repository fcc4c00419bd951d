"""Covariance of returns from few observations, shrunk so that it can be relied on.

A sample covariance of n series needs many more than n observations: the largest risks in it are overstated, the
smallest understated, and whoever looks for the book with the least variance finds its errors. Ledoit & Wolf (2004),
"A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88(2),
365–411, takes the mean of the sample covariance and of μI, weighted so that the expected squared error is least.

Plain floats, summed exactly (`math.fsum`), so that every machine and every Python comes to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from operator import mul

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


def _centred(values: Sequence[float]) -> list[float]:
    mean = fsum(values) / len(values)
    return [value - mean for value in values]


def _weight(sample: Matrix, mean: float, centred: Sequence[Sequence[float]]) -> float:
    """How much of the estimate is the target: β² ÷ δ² of the paper (its lemmas 3.2 to 3.4), at most 1.

    δ² is how far the sample is from the target, β² how far it is expected to be from the truth.
    """
    count, times = len(sample), len(centred[0])
    square = fsum(value * value for row in sample for value in row)
    distance = (square - count * mean * mean) / count
    lengths = [fsum(value * value for value in moment) for moment in zip(*centred, strict=True)]
    error = (fsum(length * length for length in lengths) / times - square) / (count * times)
    return min(error, distance) / distance if distance > 0.0 else 0.0
