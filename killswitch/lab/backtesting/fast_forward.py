"""Finds the bars ahead in which nothing can happen, so that a backtest skips them.

A bar is quiet if only prices move in it, and a tick after it changes only histories. Both are derived from the bars and
the interpreter's state with a margin for float rounding; any other bar is ticked. A backtest has the same
result with and without skipping (a test compares them).
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from killswitch.lab.path import Path
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.lab.screen import NotScreenedError, first_change
from killswitch.lab.static_book import StaticBook
from killswitch.lab.unknown_runs import UnknownRuns, first_overdue, lenient_triggers, set_unknown
from killswitch.market.rules import MarketRules
from killswitch.model.backoff import Backoff
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.scopes.evaluator import Quiescence, ScopeEvaluator

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
        self._is_screenable, self._has_alerts = True, False
        self._unknown: dict[ScopeEvaluator, list[UnknownRuns]] = {}
        """Where triggers are unknown in the bars that the last search has found quiet."""
        self._fruitless_searches, self._ticks_until_search = 0, 0

    def is_due(self) -> bool:
        """Whether to search for quiet bars after this tick: asked once a tick."""
        if self._ticks_until_search > 0:
            self._ticks_until_search -= 1
            return False
        return self._is_screenable

    def count_quiet_bars(self, book: StaticBook, *, has_alerts: bool) -> int:
        """Return how many bars can be skipped; the one after them is ticked, as is the next.

        `book` is the book of the last tick. `has_alerts`: whether something is wrong now, so that how long a trigger is
        unknown decides what is notified of it.
        """
        self._has_alerts = has_alerts
        found = self._quiet_bars(book) - 1  # the bar before an event is ticked, too
        if found >= LEAST_SKIPPED:
            self._fruitless_searches = 0
            return found
        self._fruitless_searches += 1
        self._ticks_until_search = int(TICKS_BETWEEN_SEARCHES.after(self._fruitless_searches))
        return 0

    def skip(self, count: int, book: StaticBook) -> None:
        """Enter the next `count` bars into the interpreter's histories."""
        for quiescence in self._interpreter.quiescences() or ():
            self._skip(quiescence, book.number + 1, book.number + count, book)

    def _skip(self, quiescence: Quiescence, begin: int, last: int, book: StaticBook) -> None:
        """Enter the bars from `begin` to `last` into the history of one scope."""
        evaluator, places, now = quiescence.evaluator, quiescence.places, int(self._matrix.at[last])
        prices, edge = evaluator.history.prices, now - evaluator.compiled.keep
        if prices is not None:
            edge = min(edge, prices.reach_back(now))
        first = max(begin, int(np.searchsorted(self._matrix.at, edge)))
        tail = [book.observed(places, each, with_marks=prices is not None) for each in range(first, last + 1)]
        at, equities = self._matrix.at[begin : last + 1].tolist(), {each.at: each.equity for each in tail}

        def seen_at(number: int) -> Decimal:
            known = equities.get(at[number])
            return book.observed(places, begin + number, with_marks=False).equity if known is None else known

        set_unknown(evaluator, self._unknown.get(evaluator, []), now)
        highest = self._highest(quiescence, begin, last + 1, book)
        evaluator.history.fast_forward(tail, highest, at, seen_at)

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
        self._unknown = {each.evaluator: [] for each in quiescent}
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
        path = Path(quiescence, self._matrix, first + count, count, book)
        spans = {place: path.span(place, ref) for place, ref in enumerate(graph.signals)}
        known = {place: span for place, span in spans.items() if span is not None}
        lenient = 0 if self._has_alerts else lenient_triggers(quiescence)
        found = first_change(graph.conditions, known, quiescence.true, quiescence.unknown, count, lenient)
        runs = UnknownRuns(path.at, lenient, found.unknown)
        before = self._unknown[quiescence.evaluator]
        before.append(runs)
        return min(found.first, first_overdue(quiescence.evaluator, before))


def _first(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """Return the index of the first set flag, or the number of flags."""
    return int(np.argmax(flags)) if flags.any() else len(flags)
