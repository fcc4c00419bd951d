"""From signal references to columns of intervals, and which side of a book lost the money.

A side's loss is the fall of its P&L since the unit value was highest in the window, realised and unrealised:
a position that is still in profit but fell counts, as do positions opened, reduced or closed since. A side whose
positions gained in sum lost nothing. A side's share is its loss ÷ the losses of both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from killswitch.model.decision import Source
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import (
    UNKNOWN,
    Interval,
    drawdown,
    drawdown_from_peak,
    loss_from_start,
    pnl_change,
)
from killswitch.signals.position import ZERO
from killswitch.signals.view import ScopeView


class Reference(Protocol):
    """What the graph says of a signal: its catalogue name and its window (microseconds)."""

    @property
    def name(self) -> str: ...

    @property
    def window(self) -> int | None: ...


@dataclass(slots=True)
class Columns:
    """One tick's values, by position in the graph's signals: intervals [lo, hi], and texts where a signal is one."""

    lo: list[float]
    hi: list[float]
    text: list[str | None]


NumberReader = Callable[[History, ScopeView], Interval]
WindowReader = Callable[[History, int], Interval]


def known(value: float | Decimal | None) -> Interval:
    """[v, v]; everything where v is missing or not a number."""
    if value is None:
        return UNKNOWN
    number = float(value)
    return UNKNOWN if math.isnan(number) else (number, number)


def _ratio(part: Decimal | None, equity: Decimal | None) -> Interval:
    """part ÷ equity; +∞ when equity is at or below zero and the part is not."""
    if part is None or equity is None:
        return UNKNOWN
    if equity <= 0:
        return known(math.inf if part > 0 else 0.0)
    return known(part / equity)


def _gross(view: ScopeView) -> Decimal | None:
    rows = None if view.unknown is not None else view.notionals()
    return None if rows is None else sum((value for _, _, value in rows), Decimal(0))


def _net(view: ScopeView) -> Decimal | None:
    rows = None if view.unknown is not None else view.notionals()
    if rows is None:
        return None
    return sum((value if position.side == "long" else -value for _, position, value in rows), Decimal(0))


def _largest_share(view: ScopeView) -> Interval:
    rows = None if view.unknown is not None else view.notionals()
    if rows is None:
        return UNKNOWN
    gross = sum((value for _, _, value in rows), Decimal(0))
    return known(max(value for _, _, value in rows) / gross if gross else 0.0)


def _maintenance(view: ScopeView) -> Decimal | None:
    return None if view.unknown is not None else view.maintenance()


def _equity(view: ScopeView) -> Decimal | None:
    return None if view.unknown is not None else view.equity


def _worth(history: History, view: ScopeView) -> Interval:
    """Equity; between two bounds while accounts cannot be read."""
    found = history.equity_range
    if view.unknown is None or found is None:
        return known(_equity(view))
    return float(found.low), math.inf if found.high is None else float(found.high)


def _unexplained(history: History, view: ScopeView) -> Interval:
    if view.unknown is not None or not history.explanation.complete:
        return UNKNOWN
    return known(history.changes.sum)


def _unexplained_share(history: History, view: ScopeView) -> Interval:
    if view.unknown is not None or view.equity is None or not history.explanation.complete:
        return UNKNOWN
    fallen = -sum((change.worth for change in history.changes.unexplained if change.worth < 0), Decimal(0))
    return known(_share(fallen, view.equity + fallen))


def _share(part: Decimal, whole: Decimal) -> Decimal:
    """part ÷ whole, at most 1; 1 where nothing is left of the whole."""
    if not part:
        return Decimal(0)
    return min(Decimal(1), part / whole) if whole > 0 else Decimal(1)


def _health_sum(view: ScopeView, *counts: str) -> int | None:
    """Sum of the named counts over the scope's accounts; None if one is not given."""
    total = 0
    for account in view.accounts:
        for name in counts:
            count = None if account.health is None else getattr(account.health, name)
            if count is None:
                return None
            total += count
    return total if view.accounts else None


def _latency(_: History, view: ScopeView) -> Interval:
    latencies = [account.health.latency_ms if account.health else None for account in view.accounts]
    worst = [latency for latency in latencies if latency is not None]
    return known(max(worst)) if worst and len(worst) == len(latencies) else UNKNOWN


def _error_rate(_: History, view: ScopeView) -> Interval:
    requests = _health_sum(view, "requests")
    failed = _health_sum(view, "errors", "timeouts")
    return known(failed / requests) if requests and failed is not None else UNKNOWN


NUMBERS: dict[str, NumberReader] = {
    "equity.value": _worth,
    "equity.drawdown_from_peak": lambda history, _: drawdown_from_peak(history),
    "equity.loss_from_start": lambda history, _: loss_from_start(history),
    "equity.unexplained": _unexplained,
    "equity.unexplained_share": _unexplained_share,
    "exposure.gross": lambda _, view: known(_gross(view)),
    "exposure.net": lambda _, view: known(_net(view)),
    "exposure.leverage": lambda _, view: _ratio(_gross(view), _equity(view)),
    "exposure.largest_share": lambda _, view: _largest_share(view),
    "exposure.margin_ratio": lambda _, view: _ratio(_maintenance(view), _equity(view)),
    "venue.age": lambda history, view: history.last_observed.age(view),
    "venue.latency": _latency,
    "venue.error_rate": _error_rate,
    "venue.malformed": lambda _, view: known(_health_sum(view, "malformed")),
    "venue.consecutive_failures": lambda history, _: known(history.failures),
}

WINDOWED: dict[str, WindowReader] = {
    "equity.drawdown": drawdown,
    "attribution.long_share": lambda history, window: known(shares(history, window).long),
    "attribution.short_share": lambda history, window: known(shares(history, window).short),
}


def _source(history: History, window: int) -> str | None:
    source = shares(history, window).source(TWO_THIRDS)
    return None if source == "UNKNOWN" else source


class ColumnReader:
    """Reads the columns of a graph's signals. Drawdowns, which every tick needs, go straight to the history."""

    def __init__(self, references: Sequence[Reference]) -> None:
        self._size = len(references)
        self._drawdowns: list[tuple[int, int]] = []
        self._windowed: list[tuple[int, WindowReader, int]] = []
        self._numbers: list[tuple[int, NumberReader]] = []
        self._sources: list[tuple[int, int]] = []
        for index, reference in enumerate(references):
            self._place(index, reference)

    def _place(self, index: int, reference: Reference) -> None:
        if reference.name == "equity.drawdown" and reference.window is not None:
            self._drawdowns.append((index, reference.window))
        elif reference.name == "attribution.source" and reference.window is not None:
            self._sources.append((index, reference.window))
        elif reference.window is not None:
            self._windowed.append((index, WINDOWED[reference.name], reference.window))
        else:
            self._numbers.append((index, NUMBERS[reference.name]))

    def read(self, history: History, view: ScopeView) -> Columns:
        """The columns now. `history` has observed `view`, or supposes another equity of it."""
        lo, hi = [-math.inf] * self._size, [math.inf] * self._size
        text: list[str | None] = [None] * self._size if self._sources else []
        for index, window in self._drawdowns:
            lo[index], hi[index] = drawdown(history, window)
        for index, windowed, window in self._windowed:
            lo[index], hi[index] = windowed(history, window)
        for index, number in self._numbers:
            lo[index], hi[index] = number(history, view)
        for index, window in self._sources:
            text[index] = _source(history, window)
        return Columns(lo, hi, text)


def longest_window(references: Iterable[Reference]) -> int:
    """The longest window of the references, microseconds; 0 without any."""
    return max((reference.window or 0 for reference in references), default=0)


TWO_THIRDS = 2 / 3
"""From which share on `attribution.source` names a side; stages declare their own."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares 0…1 that sum to 1, or None with the reason why they are unknown."""

    long: float | None
    short: float | None
    reason: str | None = None

    def source(self, at_least: float) -> Source:
        """The side whose share is at least `at_least`; MIXED if neither's is, UNKNOWN if shares are."""
        if self.long is None or self.short is None:
            return "UNKNOWN"
        if max(self.long, self.short) < at_least:
            return "MIXED"
        return "LONG" if self.long >= self.short else "SHORT"


def shares(history: History, window: int) -> Shares:
    """Each side's share of the loss in the window (microseconds)."""
    change = pnl_change(history, window)
    if isinstance(change, str):
        return Shares(None, None, change)
    lost = {"long": ZERO, "short": ZERO}
    for (_, _, side), delta in change.items():
        lost[side] -= delta
    long, short = max(ZERO, lost["long"]), max(ZERO, lost["short"])
    total: Decimal = long + short
    if total <= ZERO:
        return Shares(None, None, "neither side lost in the window")
    return Shares(float(long / total), float(short / total))
