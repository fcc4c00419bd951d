"""The equity curve of an incident as panels: all of it, and the time around a short incident once more, enlarged.

An incident of fifteen seconds would be the last pixels of the hour before it. Panels are lines of block characters
here, one cell for each equal part of the time with the lowest value in it, so that no fall vanishes; the report draws
the same panels as charts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from math import nan
from typing import Protocol

from msgspec import Struct

from killswitch.model.instant import to_micros

COLUMNS = 76
"""Cells of a line in a file: a terminal of 80 columns shows them with its margins."""
ENLARGED_BELOW = 8
"""An incident that lasts less than this part of the whole curve is shown once more, enlarged."""
BEFORE_ENLARGED = timedelta(seconds=15)
"""The least time before the first firing in the enlarged panel."""
MAX_GAP = 3
"""Points further apart than this multiple of their usual distance leave a blank: nothing is known between them."""
_BARS = "▁▂▃▄▅▆▇█"


class TimedValue(Protocol):
    """A point of a curve."""

    @property
    def at(self) -> datetime: ...
    @property
    def value(self) -> float: ...


class CurvePanel(Struct, frozen=True):
    """A part of the curve, at least two points, and whether it is the enlarged one."""

    points: tuple[TimedValue, ...]
    is_enlarged: bool = False


def panels(points: Sequence[TimedValue], opened: datetime) -> tuple[CurvePanel, ...]:
    """Return the whole curve and, for an incident that is short against it, the part around the incident."""
    whole = CurvePanel(tuple(points))
    first, last = points[0].at, points[-1].at
    lasted = last - opened
    if lasted * ENLARGED_BELOW >= last - first:
        return (whole,)
    near = tuple(each for each in points if each.at >= opened - max(BEFORE_ENLARGED, lasted))
    return (whole, CurvePanel(near, is_enlarged=True)) if 1 < len(near) < len(points) else (whole,)


def panel_lines(points: Sequence[TimedValue], opened: datetime, columns: int = COLUMNS) -> str:
    """Return each panel as a line of `columns` cells with the times of its ends below."""
    lines: list[str] = []
    for panel in panels(points, opened):
        first, last = panel.points[0].at, panel.points[-1].at
        what = "enlarged" if panel.is_enlarged else "the lowest value in each part of the time"
        ends = f"{first:%H:%M:%S}", f"{last:%H:%M:%S}"
        lines += (_cells(panel.points, columns), f"{ends[0]}{what:^{max(0, columns - 16)}}{ends[1]}".rstrip())
    return "\n".join(lines)


def drawn_points(points: Sequence[TimedValue]) -> tuple[list[int], list[float]]:
    """Return times (microseconds) and values for a line, with a NaN in every blank: no line says what nobody knows.

    A point between two blanks stays joined to the next one, because a line of one point is not seen.
    """
    longest, last = _longest(points, COLUMNS), len(points) - 1
    at, values = [to_micros(points[0].at)], [points[0].value]
    was_blank = True
    for number, (earlier, later) in enumerate(pairwise(points), start=1):
        is_blank = later.at - earlier.at > longest and not was_blank and number < last
        if is_blank:
            at.append(to_micros(earlier.at + (later.at - earlier.at) / 2))
            values.append(nan)
        at.append(to_micros(later.at))
        values.append(later.value)
        was_blank = is_blank
    return at, values


def _longest(points: Sequence[TimedValue], columns: int) -> timedelta:
    """The longest distance between two points that is no blank, of so many cells."""
    cell = max((points[-1].at - points[0].at) / columns, timedelta(microseconds=1))
    distances = sorted(later.at - earlier.at for earlier, later in pairwise(points))
    return MAX_GAP * max(cell, distances[len(distances) // 2] if distances else cell)


def _cells(points: Sequence[TimedValue], columns: int) -> str:
    lows = list(_lows(points, columns))
    known = [low for low in lows if low is not None]
    least, span = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if low is None else _BARS[round((low - least) / span * (len(_BARS) - 1))] for low in lows)


def _lows(points: Sequence[TimedValue], columns: int) -> Iterator[float | None]:
    """Yield the lowest value of each cell; between two neighbouring points the value of the earlier one."""
    first, last = points[0].at, points[-1].at
    cell = max((last - first) / columns, timedelta(microseconds=1))
    longest = _longest(points, columns)
    found: list[list[float]] = [[] for _ in range(columns)]
    for point in points:
        found[min(columns - 1, (point.at - first) // cell)].append(point.value)
    following = iter([*points[1:], points[-1]])
    newest, after = points[0], next(following)
    for number, values in enumerate(found):
        begins = first + number * cell
        while after.at <= begins and after is not newest and newest is not points[-1]:
            newest, after = after, next(following)
        if values:
            yield min(values)
        else:
            yield newest.value if after.at - newest.at <= longest else None
