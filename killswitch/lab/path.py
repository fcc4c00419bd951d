"""The path of a scope through future bars while nothing is traded: its equity, its positions, and their prices."""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from killswitch.graph.nodes import SignalRef
from killswitch.lab.price_matrix import Floats, Instants, PriceMatrix, even_step
from killswitch.lab.screen import SignalRange
from killswitch.lab.static_book import StaticAccount, StaticBook
from killswitch.planning.scopes.evaluator import Quiescence
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import LookAhead
from killswitch.signals.signal_values import bounds_ahead

if TYPE_CHECKING:
    from killswitch.signals.declaration import Bounds
    from killswitch.signals.history.scope import History
    from killswitch.valuation.scope_view import ScopeView

ROUNDING = 1e-11
"""The error of sums of money in floats, relative to the gross of the positions and the equity."""
MOST_DECIMALS = 6
"""Equities with so many decimals are exact floats once they are rounded to them."""
EXACT = 1e13
"""The amount of money, in its last decimal, whose float sums have an error below a tenth of it."""
_MONEY = ("money", "money per hour")


class Path:
    """An `EquityPath`: a scope at the last `count` instants of the matrix before `end`, while nothing is traded."""

    def __init__(self, quiescence: Quiescence, matrix: PriceMatrix, end: int, count: int, book: StaticBook) -> None:
        self.history: History = quiescence.evaluator.history
        self.view: ScopeView | None = self.history.view
        self._columns, self._count = quiescence.evaluator.columns, count
        self._matrix, self._begin, self._end = matrix, book.number, end
        self._accounts = tuple(book.accounts[place] for place in quiescence.places)
        at = matrix.at[book.number + 1 : end]
        equity = book.equities(quiescence.places, book.number + 1, end)
        equity, self.are_exact = _exact(self._accounts, equity, book.number + 1, end)
        self.equity: Floats = equity[-count:]
        self.start = self.history.track.start
        self._values: Floats = equity / self.history.track.units
        self._value = self._values[-count:]
        self.at: Instants = at[-count:]
        rows = self.history.rows
        past = np.array([row.at for row in rows], dtype=np.int64)
        self.since: Instants = np.concatenate([past, at])
        step = even_step(self.since[: len(past) + 2])
        self._step = step if step is not None and step == matrix.step else even_step(self.since)
        self.values_since: Floats = np.concatenate([np.array([row.value for row in rows]), self._values])

    def span(self, place: int, signal: SignalRef) -> SignalRange | None:
        """Return the signal in column `place`, or None if only a tick can compute it."""
        found = bounds_ahead(signal, self)
        if found is LookAhead.NO_LOOK_AHEAD:
            return None
        if found is LookAhead.UNCHANGED:
            assert self._columns is not None  # a quiescent scope has stepped
            low, high = (np.full(self._count, end[place]) for end in (self._columns.lo, self._columns.hi))
            return SignalRange(low, high)
        return SignalRange(*found, room=self._money_room if BY_NAME[signal.name].unit in _MONEY else 0.0)

    @cached_property
    def _money_room(self) -> float:
        """The error that a sum of money may have."""
        gross = sum(float(each.gross(self._begin + 1, self._end).max()) for each in self._accounts if each.keys)
        return ROUNDING * (gross + float(np.abs(self.equity).max()))

    @cached_property
    def book(self) -> PositionPath | None:
        """The open positions, if the account is no cash account, and its money and prices need no conversion."""
        columns = None if self.view is None else self.view.columns
        if columns is None or self.view is None or len(self._accounts) != 1:
            return None
        (account,), facts = self._accounts, self.view.facts
        is_plain = account.is_on_margin and len(facts) == 1 and facts[0].account.currency == self.view.currency
        keys = [*zip(columns.accounts, columns.symbols, columns.sides, strict=True)]
        if not is_plain or keys != account.keys or not account.is_priced_by_bars:
            return None
        return PositionPath(self, account, slice(self._begin + 1, self._end), self._count)

    def closes(self, account: str, symbol: str) -> Floats | None:
        """The prices of a symbol at the bars after the last tick; None if the bars lack it."""
        if all(each.name != account for each in self._accounts) or symbol not in self._matrix.symbols:
            return None
        (column,) = self._matrix.columns([symbol])
        return self._matrix.select((column,)).close[0, self._begin + 1 : self._end]

    @property
    def highest(self) -> Floats:
        highest: Floats = np.maximum(np.maximum.accumulate(self._values), self.history.changes.peak)
        return highest[-self._count :]

    def highest_in(self, window: int) -> Floats:
        edge = int(np.searchsorted(self.since, int(self.at[0]) - window))
        return highest_in(self.since[edge:], self.values_since[edge:], window, self._step)[-self._count :]

    def fall_from(self, highest: Floats | float) -> Floats:
        return _fall(np.maximum(highest, self._value), self._value)

    def within(self, window: int, value: Floats, most: float, least: Floats | float | None = None) -> Bounds:
        history = self.history
        begun = -1 if history.rebased or history.begun_at is None else history.begun_at
        known_from = max(begun, history.gaps[-1][1] if history.gaps else -1)
        if int(self.at[0]) - window >= known_from:
            return value, value
        is_partly_known = self.at - window < known_from
        low = value if least is None else np.where(is_partly_known, least, value)
        return low, np.where(is_partly_known, most, value)


class PositionPath:
    """A `BookPath`: the open positions of one account."""

    def __init__(self, path: Path, account: StaticAccount, bars: slice, count: int) -> None:
        assert path.view is not None and path.view.columns is not None  # its caller has found them
        columns = path.view.columns
        self.symbols = columns.symbols
        self.sign: Floats = columns.sign
        self.entry_value: Floats = columns.entry_value
        self._path, self._account, self._bars, self._count = path, account, bars, count

    @cached_property
    def notional(self) -> Floats:
        """Absolute notionals at each bar."""
        return np.abs(self._account.notionals(self._bars.stop - self._count, self._bars.stop))

    @cached_property
    def _unrealised(self) -> Floats:
        return self._account.profits(self._bars.start, self._bars.stop)

    @property
    def unrealised(self) -> Floats:
        """Unrealised P&L at each bar."""
        return self._unrealised[:, -self._count :]

    @cached_property
    def made(self) -> Floats:
        """Unrealised and realised P&L at every bar of `Path.since`; NaN where it is unknown."""
        rows, keys = self._path.history.rows, self._account.keys
        past = np.array([
            [np.nan] * len(keys) if row.pnl is None else [float(row.pnl.get(key, np.nan)) for key in keys]
            for row in rows
        ]).reshape(len(rows), len(keys)).T  # fmt: skip
        realised = past[:, -1:] - self._account.profits_now[:, np.newaxis]
        return np.concatenate([past, self._unrealised + realised], axis=1)


def _exact(accounts: tuple[StaticAccount, ...], equity: Floats, first: int, end: int) -> tuple[Floats, bool]:
    """The equity as the float nearest to its decimals, if they are few enough to be known from a float sum."""
    decimals = max((each.decimals for each in accounts), default=MOST_DECIMALS + 1)
    scale = 10.0**decimals
    gross = sum(float(each.gross(first, end).max(initial=0.0)) for each in accounts if each.keys)
    if decimals > MOST_DECIMALS or not (float(np.abs(equity).max(initial=0.0)) + gross) * scale < EXACT:
        return equity, False
    return np.rint(equity * scale) / scale, True


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
