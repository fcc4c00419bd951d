"""Samples of prices on a grid of time, and their returns.

The grid of `every` begins at the Unix epoch. A sample is the first observation at or after a grid point, so that
ticks, pushes and restarts do not change a value. Simple returns: one price ÷ the one before − 1. There is none

- across a gap: nothing was observed for longer than `max_gap`;
- across a split, which changes the price and not the value;
- where the venue's print is the same one, or the one before was older than `max_gap` when it was sampled: a frozen feed
  has no volatility, not zero, and the price overnight is no price of a session.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

PriceKey = tuple[str, str]
"""(account, symbol), since two venues may price one symbol differently."""

LEAST_SHARE = 0.8
"""The share of the expected returns below which they are too few."""
_SLACK = 1024
"""Samples that are forgotten before the memory of a series is compacted."""


def expected_returns(now: int, window: int, every: int) -> int:
    """The number of returns between the grid points of [now − window, now]; none if it has fewer than two."""
    return max(0, now // every + (window - now) // every)


def are_enough(count: int, now: int, window: int, every: int) -> bool:
    """Whether so many returns are enough for a statistic: at least two, and 80% of those that are expected."""
    return count >= 2 and count >= LEAST_SHARE * expected_returns(now, window, every)


class SampleSeries:
    """The samples of one price at one `every` (microseconds), of the last `keep` microseconds.

    With `every` 1 each observation is a sample.
    """

    __slots__ = ("_at", "_begin", "_deviations", "_is_cut", "_joined", "_price", "_printed", "every", "keep")

    def __init__(self, every: int, keep: int) -> None:
        self.every = every
        self.keep = keep
        self._at = array("q")
        self._price = array("d")
        self._joined = bytearray()
        """Whether the price and the one before it have a return."""
        self._begin = 0
        """The index of the first sample that is not forgotten."""
        self._printed: int | None = None
        self._is_cut = False
        self._deviations: dict[tuple[int, bool], tuple[tuple[int, int, int], float]] = {}

    @property
    def last_at(self) -> int | None:
        """The time of the newest sample."""
        return self._at[-1] if self._at else None

    def is_due(self, at: int) -> bool:
        """Whether an observation at `at` is the first at or after its grid point."""
        return not self._at or at // self.every > self._at[-1] // self.every

    def add(self, at: int, price: float, printed: int | None, max_gap: int) -> None:
        """Add a sample. `printed`: the venue time of the price; None if it is unknown."""
        before, times = self._printed, self._at
        joins = bool(times) and not self._is_cut
        if joins and before is not None:  # neither the same print again, nor after one that was old
            joins = not (printed is not None and printed <= before) and times[-1] - before <= max_gap
        self._joined.append(joins)
        times.append(at)
        self._price.append(price)
        self._printed, self._is_cut = printed, False
        edge = at - self.keep
        while times[self._begin] < edge:
            self._begin += 1
        if self._begin > _SLACK and self._begin * 2 > len(self._at):
            for column in (self._at, self._price, self._joined):
                del column[: self._begin]
            self._begin = 0
            self._deviations.clear()

    def cut(self) -> None:
        """Take no return from the newest sample to the next one."""
        self._is_cut = True

    # Prices

    def at_or_before(self, at: int) -> tuple[int, float] | None:
        """Time and price of the newest sample at or before `at`; None if there is none."""
        place = bisect_right(self._at, at, self._begin) - 1
        return None if place < self._begin else (self._at[place], self._price[place])

    # Returns

    def _span(self, now: int, window: int) -> tuple[int, int]:
        """The indexes of the samples of [now − window, now]: the first one, and the one after the last."""
        return bisect_left(self._at, now - window, self._begin), bisect_right(self._at, now, self._begin)

    @classmethod
    def together(cls, series: Sequence[SampleSeries], now: int, window: int) -> SamplesTogether | None:
        """The samples of [now − window, now] since all prices have some; None if their times differ.

        A price that has been sampled for a shorter time than others has returns in common with them only since then.
        """
        spans, known = [], dict[tuple[int, int, int], tuple[int, int]]()
        for each in series:
            of = (len(each._at), each._begin, each._at[-1] if each._at else 0)
            if of not in known or of[2] > now:
                known[of] = each._span(now, window)
            spans.append(known[of])  # if it is not its own, its times differ from those of the others below
        count = min(end - first for first, end in spans)
        at = None
        for each, (_, end) in zip(series, spans, strict=True):
            own = each._at[end - count : end]
            if at is None:
                at = own
            elif own != at:
                return None
        if at is None or not count:
            return None
        prices = b"".join([it._price[end - count : end] for it, (_, end) in zip(series, spans, strict=True)])
        joined = b"".join([it._joined[end - count : end] for it, (_, end) in zip(series, spans, strict=True)])
        return SamplesTogether(at.tobytes(), prices, joined, len(series), at[0])

    def returns(self, now: int, window: int) -> Returns:
        """The returns between the samples of [now − window, now]."""
        import numpy as np

        first, end = self._span(now, window)
        price = np.array(self._price[first:end], dtype=np.float64)
        joined = np.frombuffer(bytes(self._joined[first + 1 : end]), dtype=np.bool_)
        return Returns(np.array(self._at[first:end], dtype=np.int64) // self.every, price, joined)

    def deviation(self, now: int, window: int, *, before_last: bool = False) -> float:
        """The standard deviation (ddof 1) of the returns of the window; NaN if they are too few.

        `before_last`: of a window that ends at the sample before the last. Both are computed once for a set of samples.
        """
        import numpy as np

        first, end = self._span(now, window)
        asked, of = (first, end, expected_returns(now, window, self.every)), (window, before_last)
        known = self._deviations.get(of)
        if known is None or known[0] != asked:
            prices = np.frombuffer(self._price[first:end].tobytes())
            values = prices[1:] / prices[:-1] - 1.0
            if 0 in self._joined[first + 1 : end]:
                values = values[np.frombuffer(bytes(self._joined[first + 1 : end]), dtype=np.bool_)]
            is_enough = are_enough(len(values), now, window, self.every)
            known = self._deviations[of] = asked, _deviation(values) if is_enough else math.nan
        return known[1]

    def expires(self, now: int, window: int) -> float:
        """The time until which the samples of the window are the same ones unless one is added; +∞ without any."""
        first, end = self._span(now, window)
        return self._at[first] + window if first < end else math.inf

    def last_return(self, now: int) -> tuple[float, int] | None:
        """The return of the newest sample at or before `now`, and the time of the sample before it; None if it has
        none."""
        place = bisect_right(self._at, now, self._begin) - 1
        if place <= self._begin or not self._joined[place]:
            return None
        return self._price[place] / self._price[place - 1] - 1.0, self._at[place - 1]


class Returns:
    """Samples of a window by place on the grid. `joined`: for each but the first whether it has a return."""

    def __init__(self, places: Places, prices: Floats, joined: NDArray[np.bool_]) -> None:
        self.places = places
        self.prices = prices
        self.joined = joined

    @property
    def all(self) -> Floats:
        """The change to every sample from the one before it, also where it is no return."""
        changes: Floats = self.prices[1:] / self.prices[:-1] - 1.0
        return changes

    @property
    def values(self) -> Floats:
        """The returns, oldest first."""
        found: Floats = self.all[self.joined]
        return found


def _deviation(values: Floats) -> float:
    """The standard deviation with ddof 1, as `numpy.std` computes it in several times the time."""
    centred = values - values.sum() / len(values)
    return math.sqrt(float(centred @ centred) / (len(values) - 1))


def common_returns(series: Sequence[SampleSeries], now: int, window: int) -> Floats:
    """The returns of several prices between the same grid points of [now − window, now]: a row for each price, oldest
    first. There is none where one of them has none."""
    import numpy as np

    if not series:
        return np.empty((0, 0))
    together = SampleSeries.together(series, now, window)
    if together is not None:
        return together.returns()
    # a return is between two places: only one between the same two is common
    pairs = [_by_places(each.returns(now, window)) for each in series]
    common = sorted(set(pairs[0]).intersection(*pairs[1:]))
    return np.array([[each[pair] for pair in common] for each in pairs]).reshape(len(series), len(common))


def _by_places(returns: Returns) -> dict[tuple[int, int], float]:
    """The return between each two places that have one."""
    places, changes = returns.places.tolist(), returns.all.tolist()
    rows = zip(places[:-1], places[1:], changes, returns.joined.tolist(), strict=True)
    return {(begin, end): change for begin, end, change, is_return in rows if is_return}


class SamplesTogether(Struct, frozen=True):
    """The newest samples in a window of prices that were sampled at the same times, as the bytes of their numbers.

    It identifies what is computed of them: the same samples of another account or another policy are equal.
    """

    at: bytes
    prices: bytes
    joined: bytes
    count: int
    begins: int
    """The time of the first one."""

    def returns(self) -> Floats:
        """The returns that all prices have: a row for each price, oldest first."""
        import numpy as np

        prices = np.frombuffer(self.prices, dtype=np.float64).reshape(self.count, -1)
        found: Floats = prices[:, 1:] / prices[:, :-1] - 1.0
        if 0 not in self.joined:
            return found
        return found[:, np.frombuffer(self.joined, dtype=np.bool_).reshape(self.count, -1)[:, 1:].all(axis=0)]
