"""Signal values from a scope's history: drawdowns, unit value and P&L over windows.

Windows are in microseconds; intervals are (lo, hi) floats. A partly known window results in a wider interval.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from killswitch.render.formats import rounded_duration
from killswitch.valuation.unit_value import DIGITS

if TYPE_CHECKING:  # `ksctl validate` imports this module through the catalogue, and needs no history
    from killswitch.pnl_explain.pending_changes import Interpretation
    from killswitch.pnl_explain.unavailable_accounts import UnitRange
    from killswitch.signals.history.rows import UnitValueRow
    from killswitch.signals.history.scope import History
    from killswitch.valuation.scope_view import PnlKey

Interval = tuple[float, float]
UNKNOWN: Interval = (-math.inf, math.inf)
_ZERO = Decimal(0)


def known(value: float | Decimal | None) -> Interval:
    """The interval [v, v]; UNKNOWN if v is missing or not a number."""
    if value is None:
        return UNKNOWN
    number = float(value)
    return UNKNOWN if math.isnan(number) else (number, number)


def largest(by_venue: Mapping[str, Sequence[float]], most: float) -> Interval:
    """The largest of the values at all venues; NaN is unknown. Of several values of one venue the known ones count.

    At least the largest that is known, and at most `most`, if a venue has no known value; UNKNOWN if none has.
    """
    if len(by_venue) == 1:
        (values,) = by_venue.values()
        if len(values) == 1 and not math.isnan(values[0]):
            return values[0], values[0]
    known = [max(seen) for values in by_venue.values() if (seen := [it for it in values if not math.isnan(it)])]
    if not known:
        return UNKNOWN
    return max(known), max(known) if len(known) == len(by_venue) else most


def reason_partly_known(history: History, window: int) -> str | None:
    """The reason why the window is not completely known, or None."""
    if history.begun_at is None or history.last_at is None:
        return "nothing was observed yet"
    edge = history.last_at - window
    if _begins_after(history, edge):
        reach = timedelta(microseconds=history.last_at - history.begun_at)
        return f"history reaches back {rounded_duration(reach)} of {rounded_duration(timedelta(microseconds=window))}"
    if _has_gap(history, edge):
        return f"a gap of {(history.gaps[-1][1] - history.gaps[-1][0]) / 1e6:.0f} s lies in the window"
    return None


def is_only_young(history: History, window: int) -> bool:
    """Whether the only reason for a partly known window is that the history begins in it."""
    if history.begun_at is None or history.last_at is None:
        return False
    edge = history.last_at - window
    return _begins_after(history, edge) and not _has_gap(history, edge)


def _begins_after(history: History, edge: int) -> bool:
    """Whether the history begins after `edge`. A reset makes a window count as complete."""
    return not history.rebased and (history.begun_at or 0) > edge


def _has_gap(history: History, edge: int) -> bool:
    """Whether a gap ends after `edge`."""
    return bool(history.gaps) and history.gaps[-1][1] > edge


def drawdown(history: History, window: int) -> Interval:
    """The fall of the unit value in the window; [observed, 1] if the window is partly known."""
    if history.unit_range is not None:
        return _drawdown_range(history, window, history.unit_range)
    if history.unknown is not None:
        return UNKNOWN
    low = high = history.track.fall(window)
    edge = (history.last_at or 0) - window
    if history.changes.all and history.changes.open:
        low, high = sorted(_interpreted_fall(history, edge, each) for each in history.interpretations)
    if _has_gap(history, edge) or _begins_after(history, edge):
        high = 1.0
    return low, high


def _drawdown_range(history: History, window: int, now: UnitRange) -> Interval:
    """The fall from the observed highest value to the range of the current one; [observed, 1] if partly known."""
    edge = now.at - window
    low, high = sorted(
        max((value for _, value in _interpreted_values(history, edge, each)), default=0.0)
        for each in history.interpretations
    )
    least, most = now.fall_from((low, high))
    # without rows on both sides of the edge, the highest value at the edge is unknown
    is_covered = not _begins_after(history, edge) and not _has_gap(history, edge)
    is_known = is_covered and high > 0.0 and now.at - (history.last_at or 0) <= history.max_gap
    return least, most if is_known else 1.0


def _current(history: History, interpretation: Interpretation) -> tuple[float, int]:
    """The unit value that is the current one by an interpretation, and the time from which nothing counts.

    If a transfer took everything, it is that just before the transfer.
    """
    emptying = history.changes.emptying(interpretation) if history.changes.all else None
    return (history.track.value, sys.maxsize) if emptying is None else (emptying.value, emptying.at)


def _interpreted_fall(history: History, edge: int, interpretation: Interpretation) -> float:
    """The fall in the window by one interpretation of the open changes."""
    now, until = _current(history, interpretation)
    values = (value for at, value in _interpreted_values(history, edge, interpretation, until))
    return history.track.fall_between(max(values, default=now), now)


def _interpreted_values(
    history: History, edge: int, interpretation: Interpretation, until: int = sys.maxsize
) -> Iterable[tuple[int, float]]:
    """The values since `edge` and before `until`, newest first, with those before an open change multiplied by its
    factor."""
    scale, open_changes = 1.0, [change for change in history.changes.open if change.at < until]
    for row in reversed(history.rows):
        if row.at < edge:
            return
        if row.at >= until:
            continue
        while open_changes and row.at < open_changes[-1].at:
            scale *= interpretation(open_changes.pop())
        yield row.at, row.value * scale


def drawdown_from_peak(history: History) -> Interval:
    """The fall from the highest value since the start or the last reset by an operator."""
    return _fall_from(history, history.changes.highest, history.unit_range)


def loss_from_start(history: History) -> Interval:
    """The fall from the value at the start or the last reset by an operator."""
    return fall_since(history, history.track.start, history.track.start_at)


def fall_since(history: History, value: float, at: int) -> Interval:
    """The fall from the unit value that was observed `at`; 0 where it is above."""
    bounds = None if history.unit_range is None else replace(history.unit_range, highest=0.0)
    return _fall_from(history, lambda interpretation: value * _scale(history, at, interpretation), bounds)


def growth_since(history: History, value: float, at: int) -> Interval:
    """The current unit value ÷ the one that was observed `at`; 0 at or below zero.

    Unknown if that one was not above zero, and the current one is: there is nothing to compare with.
    """
    low, high = unit_value(history, at)
    if value <= 0.0:
        return (0.0, 0.0) if high <= 0.0 else UNKNOWN
    return UNKNOWN if math.isinf(low) else (max(0.0, low) / value, max(0.0, high) / value)


class Gain(Struct, frozen=True):
    """Unit values by one interpretation of the open changes, comparable with each other.

    `base`: at the start, or at the last reset by an operator; `best`: the highest since; `now`: the current one.
    """

    base: float
    best: float
    now: float

    @property
    def profit(self) -> float:
        """The gain since the base, −1 at or below zero."""
        return round(max(0.0, self.now) / self.base - 1.0, DIGITS)

    @property
    def best_profit(self) -> float:
        """The highest gain since the base, never negative."""
        return round(self.best / self.base - 1.0, DIGITS)

    @property
    def given_back(self) -> float:
        """The part of the highest gain that is lost again; 0 without a gain."""
        if self.best <= self.base:
            return 0.0
        if math.isinf(self.best):
            return 1.0
        return round((self.best - max(0.0, self.now)) / (self.best - self.base), DIGITS)


def gains(history: History) -> list[Gain]:
    """The gains that are possible: of the open changes and of an unavailable account the extremes; none if unknown."""
    now, track, found = history.unit_range, history.track, []
    if (history.unknown is not None and now is None) or track.start <= 0.0:
        return []
    if now is None and not history.changes.all:  # as in nearly every tick: both interpretations are one
        return [Gain(track.start, max(track.start, history.changes.peak, track.value), track.value)]
    for interpretation in history.interpretations:
        base = track.start * _scale(history, track.start_at, interpretation)
        best = max(base, history.changes.highest(interpretation))
        values = (_current(history, interpretation)[0],) if now is None else (now.low, now.high)
        bests = (best,) if now is None else (best, max(best, now.highest))
        if base <= 0.0:
            return []  # everything may have been withdrawn
        found += [Gain(base, max(highest, value), value) for value in values for highest in bests]
    return found


def _fall_from(history: History, highest: Callable[[Interpretation], float], now: UnitRange | None) -> Interval:
    """The fall from an earlier value, by each interpretation of open changes, to the value or range `now`.

    Where an earlier change emptied the scope, what is optimistic elsewhere may give the greater fall.
    """
    if history.unknown is not None and now is None:
        return UNKNOWN
    if now is not None:
        low, high = sorted(map(highest, history.interpretations))
        return now.fall_from((low, high))
    fall = history.track.fall_between
    if not history.changes.all:
        only, _ = history.interpretations
        fallen = fall(highest(only), history.track.value)
        return fallen, fallen
    low, high = sorted(fall(highest(each), _current(history, each)[0]) for each in history.interpretations)
    return low, high


def unit_value(history: History, since: int) -> Interval:
    """The current unit value relative to values of `since`, by both interpretations of later open changes."""
    now = history.unit_range
    if history.unknown is not None and now is None:
        return UNKNOWN
    scales = [_scale(history, since, interpretation) for interpretation in reversed(history.interpretations)]
    if now is not None:
        low, high = scales
        return (now.low / low if low > 0.0 else -math.inf), (now.high / high if high > 0.0 else math.inf)
    values = [_current(history, interpretation)[0] for interpretation in reversed(history.interpretations)]
    if any(scale <= 0.0 < value for value, scale in zip(values, scales, strict=True)):
        return UNKNOWN  # everything may have been withdrawn, so there is no value to compare with
    found = [value if value <= 0.0 else value / scale for value, scale in zip(values, scales, strict=True)]
    return min(found), max(found)


def _scale(history: History, since: int, interpretation: Interpretation) -> float:
    """The product of the factors of open changes after `since` that count by the interpretation."""
    if not history.changes.all:
        return 1.0
    scale, (_, until) = 1.0, _current(history, interpretation)
    for change in history.changes.open:
        if since < change.at < until:
            scale *= interpretation(change)
    return scale


def pnl_change(history: History, window: int) -> dict[PnlKey, Decimal] | str:
    """The P&L of every position since the highest unit value in the window, or the reason why it is unknown.

    Closed positions are included. The values sum up to the drawdown over the window.
    """
    found = _pnl_rows(history, window)
    if isinstance(found, str):
        return found
    highest, now = found[0].pnl or {}, found[1].pnl or {}
    return {key: value - highest.get(key, _ZERO) for key, value in now.items()}


def pnl_change_by_side(history: History, window: int) -> tuple[Decimal, Decimal] | str:
    """The same for all long and for all short positions together."""
    found = _pnl_rows(history, window)
    if isinstance(found, str):
        return found
    before, after = map(history.pnl_by_side, found)
    return after[0] - before[0], after[1] - before[1]


def _pnl_rows(history: History, window: int) -> tuple[UnitValueRow, UnitValueRow] | str:
    """The rows of the highest unit value in the window and of the current one, or why their P&L is unknown."""
    if history.unknown is not None or not history.rows:
        return history.unknown or "nothing was observed yet"
    partly = reason_partly_known(history, window)
    if partly is not None:
        return partly
    now, highest = history.rows[-1], history.highest_row(window)
    if now.pnl is None or highest.pnl is None:
        return "the profit or loss of a position is unknown"
    unknown = [] if highest.pnl.keys() <= now.pnl.keys() else [key for key in highest.pnl if key not in now.pnl]
    unknown += [key for key, at in history.ledger.unknown.items() if at >= highest.at]
    return f"the profit or loss of closed {unknown[0][1]} is unknown" if unknown else (highest, now)
