"""Unit value: equity per unit as in a fund, so that transfers are neither gains nor losses.

A deposit issues units and a withdrawal redeems them at the value just before it; drawdown is the fall of the
value of one unit (the method of unit pricing, as in GIPS' true time-weighted return).
Values are floats in account currency per unit. An account begins as one unit, so that without flows a value is
the equity itself and a fall of exactly a threshold reaches it; a debt is a negative value.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from copy import copy

from msgspec import Struct

DIGITS = 12
"""Decimals of a fall, so that rounding errors of floats do not decide whether a threshold is reached."""


class UnitValueTrackState(Struct):
    """The serialised part of a track that is not in rows."""

    units: float
    value: float
    start: float
    start_at: int
    empty_below: float = 0.0


class UnitValueTrack:
    """The unit value over time, with its maximum in each window.

    A scope that transfers emptied has no units. It keeps its value while its equity is dust, at most `empty_below`;
    what comes back buys units at that value, so that an earlier loss stays one.
    """

    __slots__ = ("_maxima", "empty_below", "start", "start_at", "units", "value")

    def __init__(self, windows: Iterable[int]) -> None:
        self._maxima: dict[int, deque[tuple[int, float]]] = {window: deque() for window in windows}
        self.units = 0.0
        self.value = 1.0
        self.start = 0.0
        self.start_at = 0
        self.empty_below = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether transfers took everything, so that the value does not change."""
        return self.units <= 0.0

    def open(self, at: int, equity: float) -> None:
        """Begin with one unit; non-positive equity begins wiped out."""
        self.units = 1.0
        self.value = equity
        self.accept(at)
        self.clear_windows()

    def issue(self, flow: float, equity: float, *, least: float = 0.0) -> None:
        """Issue (+) or redeem (−) units for `flow`, which is already in `equity`.

        The value just before a flow is that of the previous observation. If that is impossible (more was withdrawn than
        was there, or nothing is left), the profit or loss came first. A deposit buys units at no less than `least`.
        """
        if flow > 0.0:
            self.value = max(self.value, least)
        if (
            self.value <= 0.0 or self.units <= 0.0
        ):  # a worthless unit cannot be issued; `observe` refills an empty scope
            return
        units = self.units + flow / self.value
        if 0.0 < units < math.inf and equity != 0.0:
            self.units = units
            return
        before = (equity - flow) / self.units
        if 0.0 < before < math.inf:
            self.value = before
            self.units = max(0.0, equity) / before

    def redeem_all(self, equity: float, empty_below: float) -> None:
        """Redeem every unit for transfers that took all but dust; `equity` is that just before them."""
        if self.units > 0.0:
            self.value = equity / self.units
        self.units, self.empty_below = 0.0, empty_below

    def refill(self, bought: float, equity: float) -> None:
        """Issue units of an emptied scope for `bought`, all that came, of which only `equity` is left after a loss."""
        if self.is_empty and self.value > 0.0 and bought > equity > self.empty_below:
            self.units, self.empty_below = bought / self.value, 0.0

    def observe(self, at: int, equity: float, *, is_flat: bool = True) -> None:
        """Record the equity observed `at`, after units were issued for its flows.

        An emptied scope keeps its value until its equity is more than dust, or it opens contracts (not `is_flat`); one
        in debt has the value of the debt.
        """
        if self.units > 0.0:
            self.value = equity / self.units
        elif equity < 0.0:
            self.units, self.value = 1.0, equity
        elif self.value > 0.0 and (equity > self.empty_below or (equity > 0.0 and not is_flat)):
            self.units, self.empty_below = equity / self.value, 0.0
        self.record(at, self.value)

    def record(self, at: int, value: float) -> None:
        """Add one value to the windows, which include their far edge."""
        for window, maxima in self._maxima.items():
            while maxima and maxima[-1][1] <= value:
                maxima.pop()
            maxima.append((at, value))
            edge = at - window
            while maxima[0][0] < edge:
                maxima.popleft()

    def clear_windows(self) -> None:
        """Empty the windows."""
        for maxima in self._maxima.values():
            maxima.clear()

    def accept(self, at: int) -> None:
        """Set the start to the current value."""
        self.start, self.start_at = self.value, at

    def correct(self, at: int, factor: float, value: float, empty_below: float = 0.0) -> None:
        """Apply units issued at `at`, which divide values by `factor`; 0: everything was withdrawn at `value`."""
        if not math.isfinite(factor):
            return  # stored values must be finite
        if factor > 0.0:
            self.units *= factor
            self.value /= factor
            if self.start_at >= at:
                self.start /= factor
        else:
            self.units, self.value, self.empty_below = 0.0, value, empty_below

    def revert_correction(self, at: int, factor: float, value: float, before: float, equity: float) -> None:
        """Revert `correct`; `before` is the equity before the change, at the unit value `value`.

        A `before` of 0: an earlier change had emptied the scope already, so no units come back with this one.
        """
        if not math.isfinite(factor):
            return
        if factor > 0.0:
            self.units /= factor
            self.value *= factor
            if self.start_at >= at:
                self.start *= factor
        elif value > 0.0 and before > 0.0:
            self.units = before / value
            self.value = equity / self.units

    def fall(self, window: int) -> float:
        """The fall from the highest in the window to now."""
        return self.fall_from(self.highest(window))

    def highest(self, window: int) -> float:
        """The highest value in a kept window; the current one if the window is empty."""
        maxima = self._maxima[window]
        return maxima[0][1] if maxima else self.value

    def highest_at(self, window: int) -> int | None:
        """When the highest value of a kept window was observed, the latest of equal ones; None if it is not kept."""
        maxima = self._maxima.get(window)
        return maxima[0][0] if maxima else None

    def fall_from(self, highest: float) -> float:
        """The fall from `highest` to now."""
        return fall_from(highest, self.value)

    @staticmethod
    def fall_between(highest: float, now: float) -> float:
        """The fall from `highest` to another value than the current one."""
        return fall_from(highest, now)

    def with_equity(self, equity: float) -> UnitValueTrack:
        """A copy with another current equity and the same past."""
        other = copy(self)
        if self.units > 0.0:
            other.value = equity / self.units
        return other

    def state(self) -> UnitValueTrackState:
        return UnitValueTrackState(self.units, self.value, self.start, self.start_at, self.empty_below)

    def restore(self, state: UnitValueTrackState) -> None:
        self.units, self.value, self.start, self.start_at = state.units, state.value, state.start, state.start_at
        self.empty_below = state.empty_below


def fall_from(highest: float, now: float) -> float:
    """The fall from `highest` to `now` as a fraction 0…1; a value at or below zero has fallen by all of it."""
    if now <= 0.0:
        return 1.0
    return round((highest - now) / highest, DIGITS) if highest > now else 0.0
