"""The margin ratio of a scope over a window: maintenance margin ÷ equity, as it was observed.

An observation is the first at or after a point of a grid from the Unix epoch, so that pushes add no more than ticks do.
Accounts that join or leave the scope begin a new series: its ratio is of another book.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct, field
from msgspec import json as msgjson

from killswitch.signals.history.collector import Collector, Needs
from killswitch.signals.history.windows import UNKNOWN, known

if TYPE_CHECKING:
    from killswitch.signals.history.windows import Interval
    from killswitch.valuation.scope_view import ScopeView

POINTS = 240
"""The number of grid points in a window; the state is stored at every tick, and must not grow with the ticks."""


def ratio_to_equity(part: Decimal | None, equity: Decimal | None) -> Interval:
    """part ÷ equity; +∞ if equity is not positive and the part is."""
    if part is None or equity is None:
        return UNKNOWN
    if equity <= 0:
        return known(math.inf if part > 0 else 0.0)
    return known(part / equity)


def maintenance(view: ScopeView) -> Decimal | None:
    """The maintenance margin of the scope; None if that or an equity is unknown."""
    return None if view.unknown is not None else view.maintenance()


def margin_ratio(view: ScopeView) -> Interval:
    """The current margin ratio; UNKNOWN if maintenance margin or equity is."""
    return ratio_to_equity(maintenance(view), view.equity)


class _Series(Struct):
    """The observations of one window: times (microseconds) and ratios, infinite as None, in order of time.

    `reset_at`: since when the window counts as complete: the first observation at or after it is its beginning.
    """

    at: list[int] = field(default_factory=list)
    ratio: list[float | None] = field(default_factory=list)
    reset_at: int | None = None


class _State(Struct):
    members: list[str]
    series: dict[str, _Series]


class MarginRatios(Collector):
    """The margin ratios of each window in use."""

    name: ClassVar[str] = "margin_ratios"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._max_gap = max_gap
        windows = {each["window"] for each in needs if isinstance(each["window"], int)}
        self._series = {window: _Series() for window in sorted(windows)}
        self._members: Sequence[str] = ()

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Add the ratio of a snapshot, if it is known and the next grid point has passed."""
        members = sorted(each.account for each in view.accounts)
        if members != self._members:
            self._members = members
            self._series = {window: _Series() for window in self._series}
        ratio = margin_ratio(view)
        if ratio == UNKNOWN:
            return
        for window, series in self._series.items():
            grid = max(1, min(window // POINTS, self._max_gap // 2))
            if not series.at or view.as_of // grid > series.at[-1] // grid:
                series.at.append(view.as_of)
                series.ratio.append(None if math.isinf(ratio[0]) else ratio[0])
            # the newest observation at or before the window's beginning is kept
            older = bisect_right(series.at, view.as_of - window) - 1
            if older > 0:
                del series.at[:older], series.ratio[:older]

    def at_begin(self, now: int, window: int) -> Interval:
        """The newest ratio at or before now − window, within `max_gap` of it; UNKNOWN without one.

        If a reset is in the window, it is the first ratio since.
        """
        series, edge = self._series[window], now - window
        if series.reset_at is not None and series.reset_at > edge:
            place = 0
        else:
            place = bisect_right(series.at, edge) - 1
            if place >= 0 and edge - series.at[place] > self._max_gap:
                return UNKNOWN
        if not 0 <= place < len(series.at):
            return UNKNOWN
        ratio = series.ratio[place]
        return known(math.inf if ratio is None else ratio)

    def restart(self, now: int, *, accept: bool) -> None:
        """Windows begin now and count as complete."""
        for series in self._series.values():
            fresh = series.at.index(now) if now in series.at else len(series.at)
            del series.at[:fresh], series.ratio[:fresh]
            series.reset_at = now

    def state(self) -> object:
        """The observations of each window, by its length."""
        return _State(list(self._members), {str(window): each for window, each in self._series.items()})

    def restore(self, stored: bytes) -> None:
        """Restore the windows that are still in use. MsgspecError if they are damaged."""
        state = msgjson.decode(stored, type=_State)
        self._members = state.members
        self._series = {window: state.series.get(str(window), _Series()) for window in self._series}


def change(now: Interval, then: Interval) -> Interval:
    """now − then of two ratios. UNKNOWN if the current one is; at most that one if the earlier one is, which is never
    negative."""
    if now == UNKNOWN:
        return UNKNOWN
    if then == UNKNOWN:
        return -math.inf, now[1]
    return known(now[0] - then[0])  # ∞ − ∞ is no number
