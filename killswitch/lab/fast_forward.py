"""Finds the bars ahead in which nothing can happen, so that a backtest skips them.

A bar is quiet if only prices move in it, and a tick after it changes only histories. Both are derived from the bars and
the interpreter's state with a margin for float rounding; any other bar is ticked. A backtest has the same
result with and without skipping (a test compares them).
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from killswitch.graph.nodes import SignalRef
from killswitch.lab.price_matrix import Floats, Instants, PriceMatrix, even_step
from killswitch.lab.screen import NotScreenedError, SignalRange, first_change
from killswitch.lab.static_book import StaticBook
from killswitch.market.rules import MarketRules
from killswitch.model.backoff import Backoff
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.scopes.evaluator import Quiescence
from killswitch.signals.declaration import LookAhead
from killswitch.signals.signal_values import bounds_ahead

if TYPE_CHECKING:
    from killswitch.signals.declaration import Bounds

FIRST_SEARCH, SEARCH_GROWTH = 64, 8
"""The number of bars in the first search, and the factor of each further search while all bars are quiet."""
LEAST_SKIPPED = 4
"""Fewer bars than this are ticked: skipping costs more."""
TICKS_BETWEEN_SEARCHES = Backoff(first=1, longest=16)
"""Ticks between two searches after searches in a row without a result."""
ROUNDING = 1e-9
"""The relative error of an amount of money that float sums may have."""


class FastForward:
    """Finds the quiet bars of one run."""

    def __init__(self, matrix: PriceMatrix, interpreter: Interpreter, rules: MarketRules) -> None:
        self._matrix = matrix
        self._interpreter = interpreter
        self._rules = rules
        self._is_screenable = True
        self._fruitless_searches, self._ticks_until_search = 0, 0

    def is_due(self) -> bool:
        """Whether to search for quiet bars after this tick: asked once a tick."""
        if self._ticks_until_search > 0:
            self._ticks_until_search -= 1
            return False
        return self._is_screenable

    def count_quiet_bars(self, book: StaticBook) -> int:
        """Return how many bars can be skipped; the one after them is ticked, as is the next.

        `book` is the book of the last tick.
        """
        found = self._quiet_bars(book) - 1  # the bar before an event is ticked, too
        if found >= LEAST_SKIPPED:
            self._fruitless_searches = 0
            return found
        self._fruitless_searches += 1
        self._ticks_until_search = int(TICKS_BETWEEN_SEARCHES.after(self._fruitless_searches))
        return 0

    def skip(self, count: int, book: StaticBook) -> None:
        """Enter the next `count` bars into the interpreter's histories."""
        begin, last = book.number + 1, book.number + count
        for quiescence in self._interpreter.quiescences() or ():
            keep = int(self._matrix.at[last]) - quiescence.evaluator.compiled.keep
            if (sample := quiescence.evaluator.compiled.sample) is not None:
                keep -= keep % sample  # marks are sampled at the first observation of each stretch
            first = max(begin, int(np.searchsorted(self._matrix.at, keep)))
            with_marks = sample is not None
            tail = [book.observed(quiescence.places, each, with_marks=with_marks) for each in range(first, last + 1)]
            quiescence.evaluator.history.fast_forward(tail, self._highest(quiescence, begin, last + 1, book))

    def _highest(self, quiescence: Quiescence, first: int, end: int, book: StaticBook) -> Decimal:
        """Return the exact highest equity, of the bars whose float value is about the highest."""
        about = book.equities(quiescence.places, first, end)
        top = float(about.max())
        near = np.flatnonzero(about >= top - ROUNDING * max(1.0, abs(top)))
        exact = (book.observed(quiescence.places, first + int(each), with_marks=False) for each in near)
        return max(each.equity for each in exact)

    def _quiet_bars(self, book: StaticBook) -> int:
        quiescent = self._interpreter.quiescences() if self._is_screenable else None
        if quiescent is None or not all(account.is_idle for account in book.accounts):
            return 0
        first, last, length = book.number + 1, len(self._matrix), FIRST_SEARCH
        try:
            while first < last:
                end = min(first + length, last)
                found = self._first_event(first, end, book, quiescent)
                first += found
                if first < end:
                    break
                length *= SEARCH_GROWTH
        except NotScreenedError:
            self._is_screenable = False
            return 0
        return first - book.number - 1

    def _first_event(self, first: int, end: int, book: StaticBook, quiescent: tuple[Quiescence, ...]) -> int:
        """Return how many of the bars `[first, end)` are surely quiet, counted from the first."""
        count = end - first
        for account in book.accounts:
            if account.is_on_margin and self._rules.liquidates and account.keys:
                room, equity = account.room(first, end, self._rules.maintenance), abs(float(account.equity))
                if (least := float(room.min())) <= ROUNDING * (abs(least) + equity):
                    count = min(count, _first(room <= ROUNDING * (np.abs(room) + equity)))
        for quiescence in quiescent:
            if count == 0:
                break
            count = min(count, self._first_move(quiescence, first, first + count, book))
        return count

    def _first_move(self, quiescence: Quiescence, first: int, end: int, book: StaticBook) -> int:
        """Return how many of the bars leave the scope quiescent."""
        graph = quiescence.evaluator.compiled.graph
        count = end - first
        if self._matrix.step is None or self._matrix.step > graph.equity.max_gap:
            count = _first(self._matrix.steps[first - 1 : end - 1] > graph.equity.max_gap)
        count = min(count, int(np.searchsorted(self._matrix.at[first:end], quiescence.until)))
        if count == 0:
            return 0
        path = _Path(quiescence, self._matrix, first + count, count, book)
        spans = {place: path.span(place, ref) for place, ref in enumerate(graph.signals)}
        known = {place: span for place, span in spans.items() if span is not None}
        return first_change(graph.conditions, known, quiescence.true, quiescence.unknown, count)


def _first(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """Return the index of the first set flag, or the number of flags."""
    return int(np.argmax(flags)) if flags.any() else len(flags)


class _Path:
    """An `EquityPath`: a scope at the last `count` instants of the matrix before `end`, while nothing is traded."""

    def __init__(self, quiescence: Quiescence, matrix: PriceMatrix, end: int, count: int, book: StaticBook) -> None:
        self._history, self._columns, self._count = quiescence.evaluator.history, quiescence.evaluator.columns, count
        at = matrix.at[book.number + 1 : end]
        equity = book.equities(quiescence.places, book.number + 1, end)
        self.equity: Floats = equity[-count:]
        self.start = self._history.track.start
        self._values: Floats = equity / self._history.track.units
        self._value = self._values[-count:]
        self._at = at[-count:]
        rows = self._history.rows
        past = np.array([row.at for row in rows], dtype=np.int64)
        self._all_at = np.concatenate([past, at])
        step = even_step(self._all_at[: len(past) + 2])
        self._step = step if step is not None and step == matrix.step else even_step(self._all_at)
        self._all_values = np.concatenate([np.array([row.value for row in rows]), self._values])

    def span(self, place: int, signal: SignalRef) -> SignalRange | None:
        """Return the signal in column `place`, or None if only a tick can compute it."""
        found = bounds_ahead(signal, self)
        if found is LookAhead.NO_LOOK_AHEAD:
            return None
        if found is LookAhead.UNCHANGED:
            assert self._columns is not None  # a quiescent scope has stepped
            low, high = (np.full(self._count, end[place]) for end in (self._columns.lo, self._columns.hi))
            return SignalRange(low, high)
        return SignalRange(*found)

    @property
    def highest(self) -> Floats:
        highest: Floats = np.maximum(np.maximum.accumulate(self._values), self._history.changes.peak)
        return highest[-self._count :]

    def highest_in(self, window: int) -> Floats:
        edge = int(np.searchsorted(self._all_at, int(self._at[0]) - window))
        return highest_in(self._all_at[edge:], self._all_values[edge:], window, self._step)[-self._count :]

    def fall_from(self, highest: Floats | float) -> Floats:
        return _fall(np.maximum(highest, self._value), self._value)

    def within(self, window: int, value: Floats, most: float) -> Bounds:
        history = self._history
        begun = -1 if history.rebased or history.begun_at is None else history.begun_at
        known_from = max(begun, history.gaps[-1][1] if history.gaps else -1)
        if int(self._at[0]) - window >= known_from:
            return value, value
        return value, np.where(self._at - window < known_from, most, value)


def _fall(highest: Floats, value: Floats) -> Floats:
    """Compute `signals.unit_value.fall_from` over arrays, except for rounding. `highest` is nowhere below `value`."""
    if float(value.min()) > 0.0:
        return (highest - value) / highest
    with np.errstate(divide="ignore", invalid="ignore"):
        fallen = np.where(highest > value, (highest - value) / highest, 0.0)
    return np.where(value <= 0.0, 1.0, fallen)


def highest_in(at: Instants, value: Floats, window: int, step: int | None) -> Floats:
    """Return for each instant the highest `value` of [at − window, at], both ends included (microseconds).

    The instants rise; `step` is the result of `even_step`. The comparison is exact: every answer is one of the values.
    """
    if step is None:
        return _unevenly(at.tolist(), value.tolist(), window)
    return _evenly(value, window // step + 1)


def _evenly(value: Floats, width: int) -> Floats:
    """Return the highest of the last `width` values by doubling: the maximum of two windows that meet or overlap."""
    highest, span = value.copy(), 1
    width = min(width, len(value))
    while span < width:
        shift = min(span, width - span)
        highest[shift:] = np.maximum(highest[shift:], highest[:-shift])
        span += shift
    return highest


def _unevenly(at: list[int], value: list[float], window: int) -> Floats:
    maxima: deque[tuple[int, float]] = deque()
    found = []
    for instant, level in zip(at, value, strict=True):
        while maxima and maxima[-1][1] <= level:
            maxima.pop()
        maxima.append((instant, level))
        while maxima[0][0] < instant - window:
            maxima.popleft()
        found.append(maxima[0][1])
    return np.asarray(found)
