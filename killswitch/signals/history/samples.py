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
from collections.abc import Sequence
from typing import TYPE_CHECKING

from killswitch.signals.history.sample_table import UNSTATED, SampleTable

if TYPE_CHECKING:
    from killswitch.signals.history.sample_table import Flags, Floats, Instants

PriceKey = tuple[str, str]
"""(account, symbol), since two venues may price one symbol differently."""

LEAST_SHARE = 0.8
"""The share of the expected returns below which they are too few."""


def expected_returns(now: int, window: int, every: int) -> int:
    """The number of returns between the grid points of [now − window, now]; none if it has fewer than two."""
    return max(0, now // every + (window - now) // every)


def are_enough(count: int, now: int, window: int, every: int) -> bool:
    """Whether so many returns are enough for a statistic: at least two, and 80% of those that are expected."""
    return count >= 2 and count >= LEAST_SHARE * expected_returns(now, window, every)


class SampleSeries:
    """The samples of one price at one `every` (microseconds), of the last `keep` microseconds: a row of a table.

    With `every` 1 each observation is a sample.
    """

    __slots__ = ("_deviations", "every", "keep", "row", "table")

    def __init__(self, every: int, keep: int, table: SampleTable | None = None) -> None:
        """`table`: that of other prices of the account; None for one of its own."""
        self.every = every
        self.keep = keep
        self.table = SampleTable(every) if table is None else table
        self.row = self.table.add_row(keep)
        self._deviations: dict[tuple[int, bool], tuple[tuple[int, int, int], int, int, float]] = {}
        """(window, `before_last`) → the samples, from when until when they are those of the window, and the value."""

    @property
    def last_at(self) -> int | None:
        """The time of the newest sample."""
        last = self.table.last[self.row]
        return int(self.table.at[last]) if last >= 0 else None

    def is_due(self, at: int) -> bool:
        """Whether an observation at `at` is the first at or after its grid point."""
        table = self.table
        last = int(table.last[self.row])
        if last < 0:
            return True
        before = table.newest if last == table.size - 1 else int(table.at[last])
        return at // self.every > before // self.every

    def add(self, at: int, price: float, printed: int | None, max_gap: int) -> None:
        """Add a sample. `printed`: the venue time of the price; None if it is unknown."""
        self.table.add_one(self.row, at, price, UNSTATED if printed is None else printed, max_gap)

    def cut(self) -> None:
        """Take no return from the newest sample to the next one."""
        self.table.cut(self.row)

    @property
    def is_cut(self) -> bool:
        """Whether no return leads from the newest sample to the next one."""
        return bool(self.table.is_cut[self.row])

    def samples(self) -> tuple[Instants, Floats, Flags]:
        """Times, prices, and whether a return leads to each; those of the last `keep` microseconds are among them."""
        import numpy as np

        table, row = self.table, self.row
        span = slice(int(table.start[row]), int(table.last[row]) + 1)
        at, price, joined = table.at[span], table.price[row, span], table.joined[row, span]
        if table.has_holes[row]:
            sampled = ~np.isnan(price)
            return at[sampled], price[sampled], joined[sampled]
        return at, price, joined

    # Prices

    def at_or_before(self, at: int) -> tuple[int, float] | None:
        """Time and price of the newest sample at or before `at`; None if there is none.

        One that is older than `keep` is found for as long as its column is there, which depends on other prices.
        """
        times, prices, _ = self.samples()
        place = _last_until(times, at)
        return None if place < 0 else (int(times[place]), float(prices[place]))

    # Returns

    def _span(self, times: Instants, now: int, window: int) -> tuple[int, int]:
        """The indexes of the samples of [now − window, now]: the first one, and the one after the last.

        Without those older than `keep`: whether their columns are still there depends on other prices.
        """
        edge = now - min(window, self.keep)
        end = len(times) if len(times) and times[-1] <= now else int(times.searchsorted(now, "right"))
        return min(int(times.searchsorted(edge)), end), end

    @classmethod
    def together(cls, series: Sequence[SampleSeries], now: int, window: int) -> SamplesTogether | None:
        """The samples of [now − window, now] since all prices have some; None if their times differ.

        A price that has been sampled for a shorter time than others has returns in common with them only since then.
        """
        import numpy as np

        table = series[0].table
        if all(each.table is table for each in series):
            edge = now - min(window, *(each.keep for each in series))
            return cls._of_table(table, [each.row for each in series], now, edge)
        found = []
        for each in series:
            at, price, joined = each.samples()
            span = slice(*each._span(at, now, window))
            found.append((at[span], price[span], joined[span]))
        count = min(len(at) for at, _, _ in found)
        newest = found[0][0][len(found[0][0]) - count :]
        if not count or not all(np.array_equal(at[len(at) - count :], newest) for at, _, _ in found):
            return None
        prices = np.stack([price[len(price) - count :] for _, price, _ in found])
        return SamplesTogether(newest, prices, np.stack([joined[len(joined) - count :] for _, _, joined in found]))

    @staticmethod
    def _of_table(table: SampleTable, places: list[int], now: int, edge: int) -> SamplesTogether | None:
        """The samples of [edge, now] of rows of one table."""
        import numpy as np

        rows = table.rows_of(places)
        times, last = table.at[: table.size], table.last[rows]
        begin, end = int(times.searchsorted(edge)), int(times.searchsorted(now, "right"))
        first = max(begin, int(table.start[rows].max()))
        if first >= end or bool((last != table.size - 1).any()):
            return None
        if table.has_holes[rows].any():
            sampled = ~np.isnan(table.price[rows, begin:end])  # also before all have some: theirs may be earlier
            count = int(sampled.sum(axis=1).min())
            if not count or not sampled[:, -count:].all():
                return None
            first = end - count
        prices, joined = table.price[rows, first:end].copy(), table.joined[rows, first:end].copy()
        return SamplesTogether(times[first:end].copy(), prices, joined)

    def returns(self, now: int, window: int) -> Returns:
        """The returns between the samples of [now − window, now]."""
        at, price, joined = self.samples()
        first, end = self._span(at, now, window)
        return Returns(at[first:end] // self.every, price[first:end].copy(), joined[first + 1 : end].copy())

    def deviation(self, now: int, window: int, *, before_last: bool = False) -> float:
        """The standard deviation (ddof 1) of the returns of the window; NaN if they are too few.

        `before_last`: of a window that ends at the sample before the last. Both are computed once for a set of samples.
        """
        table, expected = self.table, expected_returns(now, window, self.every)
        of = (table.generation, int(table.last[self.row]), expected)
        known = self._deviations.get((window, before_last))
        if known is not None and known[0] == of and known[1] <= now <= known[2]:
            return known[3]
        at, price, joined = self.samples()
        first, end = self._span(at, now, window)
        prices, are_joined = price[first:end], joined[first + 1 : end]
        values = prices[1:] / prices[:-1] - 1.0
        if not are_joined.all():
            values = values[are_joined]
        found = _deviation(values) if are_enough(len(values), now, window, self.every) else math.nan
        if first < end:
            until = int(at[first]) + min(window, self.keep)
            if end < len(at):
                until = min(until, int(at[end]) - 1)
            self._deviations[window, before_last] = of, now, until, found
        return found

    def expires(self, now: int, window: int) -> float:
        """The time until which the samples of the window are the same ones unless one is added; +∞ without any."""
        at, _, _ = self.samples()
        first, end = self._span(at, now, window)
        return int(at[first]) + min(window, self.keep) if first < end else math.inf

    def last_return(self, now: int) -> tuple[float, int] | None:
        """The return of the newest sample at or before `now`, and the time of the sample before it; None if it has
        none."""
        at, price, joined = self.samples()
        place = _last_until(at, now)
        if place <= 0 or not joined[place] or at[place - 1] < now - self.keep:
            return None
        return float(price[place] / price[place - 1]) - 1.0, int(at[place - 1])


class Returns:
    """Samples of a window by place on the grid. `joined`: for each but the first whether it has a return."""

    def __init__(self, places: Instants, prices: Floats, joined: Flags) -> None:
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


def _last_until(times: Instants, at: int) -> int:
    """The index of the last of these times at or before `at`; −1 if there is none."""
    if len(times) and times[-1] <= at:
        return len(times) - 1
    return int(times.searchsorted(at, "right")) - 1


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


class SamplesTogether:
    """The newest samples in a window of prices that were sampled at the same times: `at`, and a row for each price.

    It identifies what is computed of them: the same samples of another account or another policy are equal.
    """

    __slots__ = ("_hash", "at", "joined", "prices")

    def __init__(self, at: Instants, prices: Floats, joined: Flags) -> None:
        self.at = at
        self.prices = prices
        self.joined = joined
        # different samples of as many prices that have the same newest ones are as good as never asked for
        self._hash = hash((prices.shape, int(at[-1]), prices[:, -1].tobytes()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SamplesTogether) or self._hash != other._hash:
            return False
        pairs = ((self.at, other.at), (self.prices, other.prices), (self.joined, other.joined))
        return all(one.shape == another.shape and one.tobytes() == another.tobytes() for one, another in pairs)

    @property
    def begins(self) -> int:
        """The time of the first one."""
        return int(self.at[0])

    def returns(self) -> Floats:
        """The returns that all prices have: a row for each price, oldest first."""
        found: Floats = self.prices[:, 1:] / self.prices[:, :-1] - 1.0
        if self.joined.all():
            return found
        return found[:, self.joined[:, 1:].all(axis=0)]
