"""Finer bars out of coarse ones: correlated Brownian bridges from open to close, warped to the recorded high and low.

A trigger with `confirm: 2m` on five-minute bars is confirmed after five minutes: another policy. So bars coarser than
the shortest confirmation of the policies are walked in steps below it. In each bar, in logarithms:

1. A Brownian bridge from the open to the close on a grid of `FINER` points a step. Its variance is the bar's range
   squared ÷ (4 ln 2) (Parkinson, "The extreme value method for estimating the variance of the rate of return", Journal
   of Business 53, 1980).
2. The bridges of several symbols are driven by correlated noise: 2 sin(π r ÷ 6) of the rank correlations r of the
   recorded closes' returns (the normal copula's parameter; Kruskal, Journal of the American Statistical Association
   53, 1958). Independent ones would make a hedged book move inside a bar as it never does.
3. What lies above both ends is stretched so that the highest point is the recorded high, and likewise below. A path
   that stays between its ends gets the extreme as a wick where it came nearest.

Open, high, low and close of the recorded bar are those of its steps together, to the last decimal; the volume is
spread evenly. What no method can know is when inside a bar a price was where: equal bars and seeds give equal steps,
and docs/evidence.md shows how far other seeds move the results.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import combinations
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from killswitch.lab.bars import BarTable, Series

Floats = NDArray[np.float64]

FINER = 6
"""Points of the path in a step, from which the step's open, high, low and close are taken."""
_ENOUGH = 30
"""Fewer common returns than this are no correlation: the two symbols are walked apart."""
_MOST_DECIMALS = 10
_VOLUME_DECIMALS = 8


def bridged(table: BarTable, step: int, seed: int) -> BarTable:
    """Return the table in bars of `step` microseconds; the table itself where its bars are not longer.

    ValueError for a step that does not divide the bars.
    """
    interval = round(table.interval.total_seconds() * 1_000_000)
    if interval <= step:
        return table
    if interval % step:
        raise ValueError(f"{table.name}: bars of {interval} µs cannot be walked in steps of {step} µs")
    steps = interval // step
    generator = np.random.default_rng([seed, crc32(table.name.encode())])
    root = _root(_correlations(table.series))
    own = generator.standard_normal((len(table.opened), len(table.series), steps * FINER))
    noise = np.einsum("ij,tjk->tik", root, own)
    place = {opened: number for number, opened in enumerate(table.opened)}
    series = [
        _walked(one, noise[[place[opened] for opened in one.opened], column], step)
        for column, one in enumerate(table.series)
    ]
    return BarTable(table.name, series)


def _correlations(series: Sequence[Series]) -> Floats:
    """Correlations of the noise; 0 of two symbols without enough common returns."""
    found = np.eye(len(series))
    returns = [dict(zip(one.opened[1:], np.diff(np.log(np.asarray(one.close))), strict=True)) for one in series]
    for a, b in combinations(range(len(series)), 2):
        common = sorted(returns[a].keys() & returns[b].keys())
        if len(common) >= _ENOUGH:
            ranks = np.stack([_ranks(np.array([each[at] for at in common])) for each in (returns[a], returns[b])])
            if (np.ptp(ranks, axis=1) > 0).all():
                found[a, b] = found[b, a] = 2 * np.sin(np.pi * np.asarray(np.corrcoef(ranks))[0, 1] / 6)
    return found


def _ranks(values: Floats) -> Floats:
    """Ranks from 0 on; equal values have the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1.0
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def _root(correlations: Floats) -> Floats:
    """R with R Rᵀ = the correlations, whose negative eigenvalues (numbers put together by pairs) are left out."""
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    scaled: Floats = root / np.linalg.norm(root, axis=1, keepdims=True)
    return scaled


def _walked(one: Series, noise: Floats, step: int) -> Series:
    """One symbol in steps; `noise` is (bars × points) of variance 1."""
    opened, high, low, close = (np.log(np.asarray(each)) for each in (one.open, one.high, one.low, one.close))
    bars, points = noise.shape
    along = np.arange(points + 1) / points
    walk = np.concatenate([np.zeros((bars, 1)), np.cumsum(noise, axis=1)], axis=1) / np.sqrt(points)
    spread = (high - low) / np.sqrt(4 * np.log(2))
    path = opened[:, None] + (close - opened)[:, None] * along
    path += spread[:, None] * (walk - walk[:, -1:] * along)
    path = _warped(path, np.maximum(opened, close), high)
    path = -_warped(-path, -np.minimum(opened, close), -low)
    return _steps(one, np.exp(path), step)


def _warped(path: Floats, edge: Floats, top: Floats) -> Floats:
    """Stretch what lies above `edge` so that the highest point of each path is `top`."""
    above = np.maximum(path - edge[:, None], 0.0)
    most = above.max(axis=1)
    factor = np.divide(top - edge, most, out=np.zeros_like(most), where=most > 0)
    warped: Floats = np.minimum(path, edge[:, None]) + above * factor[:, None]
    return warped


def _steps(one: Series, path: Floats, step: int) -> Series:
    """The bars of the steps: rounded to the symbol's decimals, with the recorded prices in their places."""
    bars, steps = len(path), (path.shape[1] - 1) // FINER
    decimals = _decimals(one)
    recorded = [np.asarray(each) for each in (one.open, one.high, one.low, one.close)]
    path = np.clip(np.round(path, decimals), recorded[2][:, None], recorded[1][:, None])
    path[:, 0], path[:, -1] = recorded[0], recorded[3]
    inside = np.lib.stride_tricks.sliding_window_view(path, FINER + 1, axis=1)[:, ::FINER]
    first, last, high, low = inside[..., 0], inside[..., -1], inside.max(axis=2), inside.min(axis=2)
    rows = np.arange(bars)
    high[rows, high.argmax(axis=1)], low[rows, low.argmin(axis=1)] = recorded[1], recorded[2]
    at = np.asarray(one.opened, dtype=np.int64)[:, None] + step * np.arange(steps)
    volume = np.round(np.repeat(np.asarray(one.volume) / steps, steps), _VOLUME_DECIMALS)
    opened, highest, lowest, close = (array("d", each.ravel().tobytes()) for each in (first, high, low, last))
    return Series(one.symbol, at.ravel().tolist(), opened, highest, lowest, close, array("d", volume.tobytes()))


def _decimals(one: Series) -> int:
    """The decimals in which the symbol's prices are written."""
    prices = np.concatenate([np.asarray(each) for each in (one.open, one.high, one.low, one.close)])
    return next(
        (places for places in range(_MOST_DECIMALS) if (np.round(prices, places) == prices).all()), _MOST_DECIMALS
    )
