"""Samples of many prices at the same times: a row for each price, a column for each time.

The prices of an account are nearly always sampled together. In one table such a sample is one column, and the samples
of a window are one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Instants = NDArray[np.int64]

UNSTATED = -(2**63)
"""The venue time of a price that has none."""
_FIRST, _GROWTH = 16, 1.5
"""Columns of a new table, and the factor by which they grow."""


class SampleTable:
    """The samples of one account at one `every` (microseconds).

    A price that was not sampled at the time of a column is NaN there. `start` and `last` are the columns of the first
    and the newest sample of each row (`last` −1: none), `printed` the venue time of the newest one, `is_cut` whether no
    return leads from it to the next; `has_holes` whether NaN may lie between the two.
    """

    def __init__(self, every: int) -> None:
        import numpy as np

        self.every = every
        self.size = 0
        """The number of columns in use."""
        self.newest = 0
        """The time of the last of them."""
        self.generation = 0
        """It changes whenever columns move."""
        self.at: Instants = np.empty(_FIRST, dtype=np.int64)
        self.price: Floats = np.empty((0, _FIRST))
        self.joined: Flags = np.zeros((0, _FIRST), dtype=np.bool_)
        """Whether a price and the one before it have a return."""
        self.start: Instants = np.empty(0, dtype=np.int64)
        self.last: Instants = np.empty(0, dtype=np.int64)
        self.printed: Instants = np.empty(0, dtype=np.int64)
        self.is_cut: Flags = np.empty(0, dtype=np.bool_)
        self.has_holes: Flags = np.empty(0, dtype=np.bool_)
        self.keep = 0
        self._in_step: tuple[slice | Instants, int, int] | None = None
        """The rows of the newest sample, its time and its venue time, if none of them has another one or is cut."""

    def add_row(self, keep: int) -> int:
        """Add a price without samples, which are read `keep` microseconds back; returns its row."""
        import numpy as np

        self.keep = max(self.keep, keep)
        self._in_step = None
        columns = len(self.at)
        self.price = np.concatenate([self.price, np.full((1, columns), np.nan)])
        self.joined = np.concatenate([self.joined, np.zeros((1, columns), dtype=np.bool_)])
        for name, value in (("start", 0), ("last", -1), ("printed", UNSTATED), ("is_cut", False), ("has_holes", False)):
            setattr(self, name, np.append(getattr(self, name), value).astype(getattr(self, name).dtype))
        return len(self.last) - 1

    def cut(self, row: int) -> None:
        """Take no return from the newest sample of a row to the next one."""
        self.is_cut[row], self._in_step = True, None

    def count_due(self, rows: slice | Instants, at: int) -> int:
        """For how many of these rows an observation at `at` is the first at or after its grid point."""
        if self._in_step is not None and self._in_step[0] is rows:
            return len(self.last[rows]) if at // self.every > self._in_step[1] // self.every else 0
        if self.size and at // self.every > self.newest // self.every:
            return len(self.last[rows])
        return int(self.are_due(rows, at).sum())

    def are_due(self, rows: slice | Instants, at: int) -> Flags:
        """Whether an observation at `at` is the first of these rows at or after its grid point."""
        last = self.last[rows]
        found: Flags = (last < 0) | (at // self.every > self.at[last] // self.every)
        return found

    def add(self, rows: slice | Instants, at: int, prices: Floats, printed: int, max_gap: int) -> None:
        """Add a sample of each of these rows at one time, `printed` by the venue then.

        It is faster for the same object `rows` as the last time.
        """
        if self._in_step is not None and self._in_step[0] is rows:
            _, last_at, before = self._in_step
            is_repeated = UNSTATED < printed <= before
            joins = before == UNSTATED or not (is_repeated or last_at - before > max_gap)
            place = self._column(at)
            self.price[rows, place], self.joined[rows, place] = prices, joins
            self.last[rows], self.printed[rows] = place, printed
        else:
            self._add_each(rows, at, prices, printed, max_gap)
        self._in_step = rows, at, printed

    def _add_each(self, rows: slice | Instants, at: int, prices: Floats, printed: int, max_gap: int) -> None:
        import numpy as np

        last, before = self.last[rows], self.printed[rows]
        joins = (last >= 0) & ~self.is_cut[rows]
        is_stated = before != UNSTATED
        if is_stated.any():  # neither the same print again, nor after one that was old
            is_repeated = (printed != UNSTATED) & (printed <= before)
            joins &= ~(is_stated & (is_repeated | (self.at[last] - np.where(is_stated, before, 0) > max_gap)))
        place = self._column(at)
        last = self.last[rows]  # columns may have moved
        self.start[rows] = np.where(last < 0, place, self.start[rows])
        self.has_holes[rows] |= (last >= 0) & (last != place - 1)
        self.price[rows, place] = prices
        self.joined[rows, place] = joins
        self.last[rows] = place
        self.printed[rows] = printed
        self.is_cut[rows] = False

    def add_one(self, row: int, at: int, price: float, printed: int, max_gap: int) -> None:
        """Add a sample of one row."""
        self._in_step = None
        last, before, is_cut = int(self.last[row]), int(self.printed[row]), bool(self.is_cut[row])
        joins = last >= 0 and not is_cut
        if joins and before != UNSTATED:
            seen = self.newest if last == self.size - 1 else int(self.at[last])
            joins = not UNSTATED < printed <= before and seen - before <= max_gap
        generation, place = self.generation, self._column(at)
        if self.generation != generation:
            last = int(self.last[row])
        if last < 0:
            self.start[row] = place
        elif last != place - 1:
            self.has_holes[row] = True
        self.price[row, place] = price
        if joins:
            self.joined[row, place] = True
        self.last[row], self.printed[row] = place, printed
        if is_cut:
            self.is_cut[row] = False

    def _column(self, at: int) -> int:
        """The column of the time `at`, which is not before the newest one."""
        if self.size and self.newest == at:
            return self.size - 1
        if self.size == len(self.at):
            self._make_room(at)
        self.at[self.size] = self.newest = at
        self.size += 1
        return self.size - 1

    def _make_room(self, at: int) -> None:
        """Drop the columns that nothing reads any more, or add some if these are few."""
        import numpy as np

        dropped = int(np.searchsorted(self.at, at - self.keep))
        kept = self.size - dropped
        columns = len(self.at) if kept * 4 <= self.size * 3 else int(len(self.at) * _GROWTH)
        times, price = np.empty(columns, dtype=np.int64), np.full((len(self.last), columns), np.nan)
        joined = np.zeros((len(self.last), columns), dtype=np.bool_)
        times[:kept] = self.at[dropped:]
        price[:, :kept], joined[:, :kept] = self.price[:, dropped:], self.joined[:, dropped:]
        self.at, self.price, self.joined, self.size = times, price, joined, kept
        self.start, self.last = np.maximum(self.start - dropped, 0), np.maximum(self.last - dropped, -1)
        self.generation += 1

    def rows_of(self, places: Sequence[int]) -> slice | Instants:
        """Rows as an index: a slice, which is faster, if they follow each other."""
        import numpy as np

        first = places[0] if places else 0
        if list(places) == list(range(first, first + len(places))):
            return slice(first, first + len(places))
        return np.array(places, dtype=np.int64)
