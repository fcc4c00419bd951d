"""What losses are measured from besides the start: the open of a day, a declared capital, and a floor that trails.

Unit values are floats, comparable with `History.track`; corrections of the past are applied to those that are kept.
Times are microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.model.instant import DAY
from killswitch.signals.history.collector import Collector, EquityRecord, Needs
from killswitch.signals.history.rows import Correction, restated

if TYPE_CHECKING:
    from killswitch.valuation.scope_view import ScopeView


class KeptValue(Struct, frozen=True):
    """A unit value and the equity of that instant."""

    at: int
    value: float
    equity: float

    def corrected(self, correction: Correction) -> KeptValue:
        """The same with a correction of the past applied to the unit value."""
        return replace(self, value=restated(self.at, self.value, correction))


def day_of(now: int) -> int:
    """The last 00:00 UTC at or before `now`."""
    return now // DAY * DAY


class _OpensState(Struct):
    last: KeptValue | None
    open_at: int
    value: KeptValue | None


class DayOpen(Collector):
    """The last observation at or before the open of the UTC day, if there was one within `max_gap` before it."""

    name = "day-open"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._max_gap = max_gap
        self._last: KeptValue | None = None
        self._open_at = 0
        self._value: KeptValue | None = None

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """Begin the day of the snapshot with the last observation before it, whether or not equity is known now."""
        opened = day_of(view.as_of)
        if opened == self._open_at:
            return
        last, self._open_at = self._last, opened
        self._value = last if last is not None and opened - last.at <= self._max_gap else None

    def record(self, history: EquityRecord) -> None:
        """Keep the newest observation; one at the very open is that of the new day."""
        at = history.last_at
        if at is None or history.unknown is not None:
            return
        self._last = KeptValue(at, history.track.value, float(history.current_equity or 0))
        if at == self._open_at:
            self._value = self._last

    def correct(self, correction: Correction) -> None:
        self._last = None if self._last is None else self._last.corrected(correction)
        self._value = None if self._value is None else self._value.corrected(correction)

    def restart(self, now: int, *, accept: bool) -> None:
        """A reset does not move the calendar."""

    @property
    def value(self) -> KeptValue | None:
        """The observation that the day opened with; None: there was none, for the whole day."""
        return self._value

    def state(self) -> object:
        return _OpensState(self._last, self._open_at, self._value)

    def restore(self, stored: bytes) -> None:
        state = msgjson.decode(stored, type=_OpensState)
        self._last, self._open_at, self._value = state.last, state.open_at, state.value


class _CapitalState(Struct):
    first: dict[str, KeptValue]
    last: KeptValue | None


class FirstObservation(Collector):
    """The first observation under a declared capital, for each capital; an operator's reset begins it again."""

    name = "capital"

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._capitals = sorted({f"{each['capital']:f}" for each in needs if "capital" in each})
        self._first: dict[str, KeptValue] = {}
        self._last: KeptValue | None = None

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """The values are taken when the equity of the snapshot is explained."""

    def record(self, history: EquityRecord) -> None:
        if history.unknown is not None or history.last_at is None or history.current_equity is None:
            return
        seen = self._last = KeptValue(history.last_at, history.track.value, float(history.current_equity))
        for capital in self._capitals:
            self._first.setdefault(capital, seen)

    def correct(self, correction: Correction) -> None:
        self._last = None if self._last is None else self._last.corrected(correction)
        self._first = {capital: each.corrected(correction) for capital, each in self._first.items()}

    def restart(self, now: int, *, accept: bool) -> None:
        """After an operator's reset the equity that is left counts as the declared capital."""
        if accept and self._last is not None:
            self._first = {each: replace(self._last, equity=float(each)) for each in self._first}

    def of(self, capital: str) -> KeptValue | None:
        """The first observation under the capital; its equity is the capital after an operator's reset."""
        return self._first.get(capital)

    def state(self) -> object:
        return _CapitalState(self._first, self._last)

    def restore(self, stored: bytes) -> None:
        state = msgjson.decode(stored, type=_CapitalState)
        self._first, self._last = state.first, state.last


class _FloorState(Struct):
    flows: float
    units: float
    highest: float | None
    closed: float | None
    day: int
    last: float | None


class TrailingFloor(Collector):
    """The highest equity adjusted for flows: a deposit raises equity, the highest and the stop of the floor alike.

    Flows are read off the units that they issue or redeem, at the unit value just after them.
    """

    name = "floor"
    MODES: Final[Sequence[str]] = ("intraday", "end_of_day")

    def __init__(self, needs: Needs, max_gap: int) -> None:
        self._state = _FloorState(0.0, 0.0, None, None, 0, None)

    def observe(self, view: ScopeView, before: ScopeView | None) -> None:
        """At the first snapshot of a day, the last equity of the day before may be a new highest close."""
        state, day = self._state, day_of(view.as_of)
        if day != state.day:
            if state.day and state.last is not None:
                state.closed = max(state.last, state.closed if state.closed is not None else state.last)
            state.day = day

    def record(self, history: EquityRecord) -> None:
        state, track = self._state, history.track
        if history.unknown is not None or history.current_equity is None:
            return
        if state.units > 0.0:
            state.flows += (track.units - state.units) * track.value
        state.units = track.units
        adjusted = float(history.current_equity) - state.flows
        state.last = adjusted
        state.highest = adjusted if state.highest is None else max(state.highest, adjusted)
        state.closed = adjusted if state.closed is None else state.closed

    def restart(self, now: int, *, accept: bool) -> None:
        """After an operator's reset the floor trails the equity of that instant."""
        if accept:
            self._state.highest = self._state.closed = self._state.last

    @property
    def flows(self) -> float:
        """The sum of deposits, withdrawals and transfers since the start of observation."""
        return self._state.flows

    def highest(self, trail: str) -> float | None:
        """The highest equity without flows, by every observation or by the last of each day; None before the first."""
        return self._state.highest if trail == "intraday" else self._state.closed

    def state(self) -> object:
        return self._state

    def restore(self, stored: bytes) -> None:
        self._state = msgjson.decode(stored, type=_FloorState)
