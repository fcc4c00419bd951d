"""The course of a unit's value around an incident: which points are kept, and how they are read again.

History is pruned after the longest window, so an incident keeps points of its own: at most one for every quarter of
a minute of the hour before it, and while it is open one for every ten seconds, or for every 120th part of its age once
that is longer, and the lowest between two of them where it is lower than both. So an incident of a day has at most
1,600 of them, and one of a year 3,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from killswitch.incident.record.document import Course, CourseAt
from killswitch.incident.record.late_rows import AS_ENTERED, Restating, restating_of
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, SECOND, from_micros, to_micros
from killswitch.model.store import CoursePoint, HistoryRow, IncidentStore
from killswitch.signals.history.rows import StoredRow

BEFORE = HOUR
"""How far back before the first firing the course begins."""
STEP_BEFORE = 15 * SECOND
STEP_SINCE = 10 * SECOND
PARTS_OF_AGE = 120

_ROW = msgspec.json.Decoder(StoredRow)
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 48


def point_of(row: HistoryRow) -> CoursePoint | None:
    """The point that a row of history says; None for one that another version wrote."""
    try:
        found = _ROW.decode(row.blob)
    except msgspec.DecodeError:
        return None
    return CoursePoint(found.at, found.value)


def points_before(rows: Iterable[HistoryRow], opened: int) -> list[CoursePoint]:
    """The rows up to the firing at `opened` (microseconds); of many, the last of every quarter of a minute."""
    near = [row for row in rows if opened - BEFORE <= row.at <= opened]
    if len(near) > BEFORE // STEP_BEFORE:
        near = list({(opened - row.at) // STEP_BEFORE: row for row in near}.values())
    return [point for row in near if (point := point_of(row)) is not None]


def points_since(rows: Iterable[HistoryRow], opened: int, last: CoursePoint | None) -> list[CoursePoint]:
    """Of the rows after `last`, the newest point kept so far, those that are far enough apart.

    The lowest between two is kept too, where it is lower than both: a fall must not vanish between the points.
    """
    kept: list[CoursePoint] = []
    lowest: CoursePoint | None = None
    for row in rows:
        since = opened if last is None else last.at
        point = point_of(row) if row.at > since else None
        if point is None:
            continue
        if point.at - since < max(STEP_SINCE, (point.at - opened) // PARTS_OF_AGE):
            lowest = point if lowest is None or point.value < lowest.value else lowest
            continue
        if lowest is not None and lowest.value < min(point.value, point.value if last is None else last.value):
            kept.append(lowest)
        kept.append(point)
        last, lowest = point, None
    return kept


def course_in(store: IncidentStore, opening: Decision, closed_at: datetime | None) -> Course | None:
    """The points that were kept of the incident, and what history still holds around them; None where that is nothing.

    `closed_at`: when the incident ended; None while it is open.
    """
    opened = to_micros(opening.as_of)
    points = list(store.course(opening.id))
    rows = store.rows(opening.policy, opening.scope, points[-1].at + 1 if points else opened - BEFORE)
    if closed_at is not None:
        rows = [row for row in rows if row.at <= to_micros(closed_at)]
    if not points:
        points = points_before(rows, opened)
    points += points_since(rows, opened, points[-1] if points else None)
    # Where things stand, and the lowest since: however short a while after the last point that is kept.
    tail = [point for row in rows if row.at > (points[-1].at if points else opened) and (point := point_of(row))]
    points += sorted({min(tail, key=lambda each: each.value), tail[-1]}, key=lambda each: each.at) if tail else []
    return course_of(points, opened, restating_of(store, opening))


def course_of(points: Sequence[CoursePoint], opened: int, restating: Restating = AS_ENTERED) -> Course | None:
    """The course as the report shows it, the first firing at 100; None where fewer than two points are known.

    `points` are as they were entered; `restating` says which of their falls and rises are money that moved.
    """
    points = restating.restated(points)
    base = next((point for point in reversed(points) if point.at <= opened), None)
    if base is None or base.value <= 0 or len(points) < 2:
        return None
    scaled = [CourseAt(from_micros(point.at), point.value / base.value * 100) for point in points]
    before = [each.value for each, point in zip(scaled, points, strict=True) if point.at <= opened]
    since = [each.value for each, point in zip(scaled, points, strict=True) if point.at >= opened] or before[-1:]
    return Course(
        tuple(scaled), max(before), min(since), scaled[-1].value, sparkline(points),
        # No value is entered while an account of the scope cannot be read.
        base_at=from_micros(base.at) if base.at < opened else None,
        pending=restating.pending(points[0].at, points[-1].at),
    )  # fmt: skip


def sparkline(points: Sequence[CoursePoint]) -> str:
    """The course as a line of blocks, each the mean of an equal stretch of time; a blank where nothing is known."""
    first, last = points[0].at, points[-1].at
    cells: list[list[float]] = [[] for _ in range(_SPARKS)]
    for point in points:
        cells[min(_SPARKS - 1, (point.at - first) * _SPARKS // max(1, last - first))].append(point.value)
    means = [sum(cell) / len(cell) if cell else None for cell in cells]
    known = [mean for mean in means if mean is not None]
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    return "".join(" " if mean is None else _BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
