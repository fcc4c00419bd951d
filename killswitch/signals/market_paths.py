"""What signals of sampled prices give at future bars of a backtest, for many bars at once.

A bar is sampled where it is the first at or after a grid point, as a tick would do. Where returns are missing, or a
statistic is divided by next to nothing, only a tick can tell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.signals.declaration import certain, unsure
from killswitch.signals.history.prices import EACH_OBSERVATION, PriceSamples
from killswitch.signals.history.samples import LEAST_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from killswitch.signals.declaration import BookPath, Bounds, EquityPath, Floats, Instants
    from killswitch.signals.history.sample_table import Flags

BLOCK = 1 << 20
"""The numbers that are computed at once: blocks of this size stay in the caches."""
STILL = 1e-12
"""A standard deviation of returns below which it may be all rounding."""


class PricePath(Struct, frozen=True):
    """The samples of a price, and of the bars to come. `joined`: whether a return leads to each."""

    at: Instants
    price: Floats
    joined: Flags


class Windows(Struct, frozen=True):
    """For each bar the samples of its window: the first one, and the one after the last; and whether it has enough."""

    first: Instants
    end: Instants
    are_enough: Flags

    def groups(self) -> Iterator[tuple[int, Instants, Instants]]:
        """The number of returns, the different first samples of windows with so many, and the bars of each window.

        The bars are numbers of these windows, −1 for a bar that has none of them.
        """
        import numpy as np

        counts = self.end - self.first - 1
        for count in np.unique(counts[self.are_enough]).tolist():
            mine = self.are_enough & (counts == count)
            starts, numbers = np.unique(self.first[mine], return_inverse=True)
            places = np.full(len(counts), -1)
            places[mine] = numbers
            yield count, starts, places


def price_path(path: EquityPath, symbol: str, every: int) -> PricePath | None:
    """The samples of the one account that has some of the symbol; None if bars do not give those to come."""
    import numpy as np

    prices, view, now = path.history.collectors.of(PriceSamples), path.view, path.history.last_at
    if view is None or now is None:
        return None
    found = [(facts.name, it) for facts in view.facts if (it := prices.series((facts.name, symbol), every)) is not None]
    if len(found) != 1 or len(view.facts) != 1 or view.facts[0].account.quality != "ok":
        return None
    ((account, series),) = found
    closes = path.closes(account, symbol)
    if closes is None or not prices.continues((account, symbol), every, now):
        return None
    bars = path.since[len(path.since) - len(closes) :]
    places = bars // every
    is_sampled = places != np.concatenate([[now // every], places[:-1]])
    at, price, joined = series.samples()
    return PricePath(
        np.concatenate([at, bars[is_sampled]]),
        np.concatenate([price, closes[is_sampled]]),
        np.concatenate([joined, np.ones(int(is_sampled.sum()), dtype=np.bool_)]),
    )


def windows(samples: PricePath, now: Instants, window: int, every: int) -> Windows:
    """The windows [t − window, t] of each t in `now`, as `SampleSeries.returns` takes them."""
    import numpy as np

    first, end = samples.at.searchsorted(now - window), samples.at.searchsorted(now, "right")
    count = end - first - 1
    expected = np.maximum(0, now // every + (window - now) // every)
    missing = np.concatenate([[0], np.cumsum(~samples.joined)])
    is_whole = missing[end] - missing[np.minimum(first + 1, end)] == 0
    return Windows(first, end, is_whole & (count >= 2) & (count >= LEAST_SHARE * expected))


def deviations(samples: PricePath, now: Instants, window: int, every: int) -> Floats:
    """The standard deviation (ddof 1) of the returns of each window; NaN where they are too few, or it is too small."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    found = np.full(len(now), np.nan)
    returns = samples.price[1:] / samples.price[:-1] - 1.0
    for count, starts, places in windows(samples, now, window, every).groups():
        slides, size = sliding_window_view(returns, count), max(1, BLOCK // count)
        values = np.concatenate([
            slides[starts[begin : begin + size]].std(axis=1, ddof=1) for begin in range(0, len(starts), size)
        ])  # fmt: skip
        found[places >= 0] = values[places[places >= 0]]
    found[found < STILL] = np.nan
    return found


# Look-aheads of one symbol


def volatility_ahead(path: EquityPath, symbol: str, window: int, every: int, year: int) -> Bounds:
    """`market.volatility`. `year`: microseconds of trading in a year."""
    samples = price_path(path, symbol, every)
    if samples is None:
        return unsure(path)
    return certain(deviations(samples, path.at, window, every) * math.sqrt(year / every))


def ratio_ahead(path: EquityPath, symbol: str, short: int, long: int, every: int) -> Bounds:
    """`market.volatility_ratio`."""
    samples = price_path(path, symbol, every)
    if samples is None:
        return unsure(path)
    return certain(deviations(samples, path.at, short, every) / deviations(samples, path.at, long, every))


def jump_ahead(path: EquityPath, symbol: str, window: int, every: int) -> Bounds:
    """`market.jump`."""
    import numpy as np

    samples = price_path(path, symbol, every)
    if samples is None or len(samples.at) < 2:
        return unsure(path)
    last = samples.at.searchsorted(path.at, "right") - 1
    before = np.maximum(last - 1, 0)
    moved = np.abs(samples.price[last] / samples.price[before] - 1.0)
    moved[(last < 1) | ~samples.joined[last]] = np.nan
    return certain(moved / deviations(samples, samples.at[before], window, every))


def move_ahead(path: EquityPath, symbol: str, window: int) -> Bounds:
    """`market.move`."""
    import numpy as np

    samples, prices = price_path(path, symbol, EACH_OBSERVATION), path.history.collectors.of(PriceSamples)
    if samples is None or path.view is None or prices.split_at((path.view.facts[0].name, symbol)) is not None:
        return unsure(path)
    edge = path.at - window
    before, now = samples.at.searchsorted(edge, "right") - 1, samples.at.searchsorted(path.at, "right") - 1
    is_known = (before >= 0) & (edge - samples.at[before] <= path.history.max_gap)
    return certain(np.where(is_known, samples.price[now] / samples.price[before] - 1.0, np.nan))


# Look-aheads of the book


class Moments(Struct, frozen=True):
    """The covariances of the returns in some windows, as `ShrunkCovariance` has them, a number or a matrix for each."""

    count: int
    sample: Floats
    weight: Floats
    mean: Floats


def _moments(returns: Floats) -> Moments:
    """The moments of (windows × markets × returns), by the arithmetic of `shrunk_covariance_array`."""
    import numpy as np

    _, markets, count = returns.shape
    centred = returns - returns.mean(axis=2, keepdims=True)
    sample = centred @ centred.transpose(0, 2, 1) / count
    mean, square = np.trace(sample, axis1=1, axis2=2) / markets, (sample**2).sum(axis=(1, 2))
    distance = (square - markets * mean * mean) / markets
    error = (((centred**2).sum(axis=1) ** 2).sum(axis=1) / count - square) / (markets * count)
    distance[distance <= STILL * square] = np.nan  # next to nothing, which the weight is divided by
    return Moments(count, sample, np.minimum(error, distance) / distance, mean)


def _moments_ahead(path: EquityPath, book: BookPath, window: int, every: int) -> Iterator[tuple[Instants, Moments]]:
    """The moments of the markets of the book, some windows at a time, with the window of each bar or −1."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    found = [price_path(path, symbol, every) for symbol in book.symbols]
    samples = [each for each in found if each is not None]
    edge = int(path.at[0]) - window
    if len(samples) < len(found) or len(set(book.symbols)) < len(book.symbols):
        return
    tails = [slice(int(each.at.searchsorted(edge)), None) for each in samples]
    at = samples[0].at[tails[0]]
    if not all(np.array_equal(each.at[tail], at) for each, tail in zip(samples, tails, strict=True)):
        return
    joined = np.all([each.joined[tail] for each, tail in zip(samples, tails, strict=True)], axis=0)
    price = np.stack([each.price[tail] for each, tail in zip(samples, tails, strict=True)])
    returns = price[:, 1:] / price[:, :-1] - 1.0
    for count, starts, places in windows(PricePath(at, price[0], joined), path.at, window, every).groups():
        slides, size = sliding_window_view(returns, count, axis=1), max(1, BLOCK // (count * len(samples)))
        for begin in range(0, len(starts), size):
            block = slides[:, starts[begin : begin + size]].transpose(1, 0, 2)
            is_of_block = (places >= begin) & (places < begin + len(block))
            yield np.where(is_of_block, places - begin, -1), _moments(block)


def expected_ahead(path: EquityPath, horizon: int, window: int, every: int) -> Bounds:
    """`equity.expected_move`."""
    import numpy as np

    book = path.book
    if book is None:
        return unsure(path)
    if not len(book.symbols):
        return certain(path.equity * 0.0)
    variance, exposures = np.full(len(path.at), np.nan), (book.sign[:, np.newaxis] * book.notional).T
    for places, found in _moments_ahead(path, book, window, every):
        bars = np.flatnonzero(places >= 0)
        held, numbers = exposures[bars], places[bars]
        sampled = np.einsum("ti,tij,tj->t", held, found.sample[numbers], held)
        weight = found.weight[numbers]
        variance[bars] = (1.0 - weight) * sampled + weight * found.mean[numbers] * (held**2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        moved = np.sqrt(np.where(variance > 0.0, variance, np.nan)) * math.sqrt(horizon / every)
        return certain(moved / np.where(path.equity > 0.0, path.equity, np.nan))


def correlation_ahead(path: EquityPath, window: int, every: int, measure: str) -> Bounds:
    """`market.correlation`."""
    import numpy as np

    book = path.book
    if book is None or len(book.symbols) < 2:
        return unsure(path)
    correlated, markets = np.full(len(path.at), np.nan), len(book.symbols)
    for places, found in _moments_ahead(path, book, window, every):
        if markets >= found.count:
            continue
        moved = np.diagonal(found.sample, axis1=1, axis2=2)
        scale = 1.0 / np.sqrt(np.where(moved > STILL**2, moved, np.nan))
        matrix = found.sample * scale[:, :, np.newaxis] * scale[:, np.newaxis, :]
        if measure == "mean":
            total = matrix.sum(axis=(1, 2)) - np.trace(matrix, axis1=1, axis2=2)
            values = np.clip(total / (markets * (markets - 1)), -1.0, 1.0)
        else:
            is_known = ~np.isnan(matrix).any(axis=(1, 2))
            values = np.full(len(matrix), np.nan)
            values[is_known] = np.minimum(1.0, np.linalg.eigvalsh(matrix[is_known])[:, -1] / markets)
        bars = np.flatnonzero(places >= 0)
        correlated[bars] = values[places[bars]]
    return certain(correlated)
