"""When the next order of a decision may leave, where its unwinding declares a pace. Memory of this process only."""

from __future__ import annotations

from killswitch.closing.line import Line, LineName
from killswitch.model.decision import Unwinding


class Timetable:
    """Evenly spaced departures of one decision on one account, and a pause between two slices of a position.

    Departures are counted from the first one, so that lateness of one does not push the others back. After a restart
    it begins anew: an order more in the first minute than declared at worst.
    """

    def __init__(self, unwinding: Unwinding | None) -> None:
        per_minute = None if unwinding is None else unwinding.max_orders_per_minute
        self._every = 0.0 if not per_minute else 60.0 / per_minute
        self._pause = (unwinding.pause or 0.0) if unwinding is not None else 0.0
        self._next: float | None = None
        self._last: dict[tuple[str, str], float] = {}
        self._before: dict[LineName, tuple[float | None, float | None]] = {}

    @property
    def declared(self) -> bool:
        """Whether there is any pace to keep."""
        return bool(self._every or self._pause)

    def due(self, line: Line) -> float:
        """Monotonic seconds from which on the line's next order may leave."""
        slice_due = self._last.get(line.key, float("-inf")) + self._pause
        return slice_due if self._next is None else max(self._next, slice_due)

    def left(self, line: Line, now: float) -> None:
        """An order of the line leaves at `now`."""
        self._before[line.name] = (self._next, self._last.get(line.key))
        if self._every:
            planned = now if self._next is None else self._next
            # Hours of waiting for something else are not made up for by a burst of orders.
            self._next = max(planned, now - self._every) + self._every
        if self._pause:
            self._last[line.key] = now

    def stayed(self, line: Line) -> None:
        """It did not leave after all, and neither did any after it: its place is free again."""
        self._next, last = self._before.pop(line.name, (self._next, None))
        if last is None:
            self._last.pop(line.key, None)
        else:
            self._last[line.key] = last
