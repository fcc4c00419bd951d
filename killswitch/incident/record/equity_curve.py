"""The equity curve around an incident: which points are kept, and how they are restored.

History is pruned after the longest window, so an incident keeps points of its own: every tick of the ten minutes before
the first firing, and of the hour before at most one every 15 seconds with the lowest in between; then every tick of the
hour after each firing, and later one for each 3600th part of the time since the newest firing, with the lowest in
between. With ticks of a second, an incident of a day has some 16,000 points, and one of a year some 37,000.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby

import msgspec

from killswitch.incident.record.document import EquityCurve, EquityPoint
from killswitch.incident.record.value_corrections import NO_CORRECTIONS, ValueCorrections, read_corrections
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, SECOND, from_micros, to_micros
from killswitch.model.store import EquityCurvePoint, HistoryRow, IncidentStore
from killswitch.render.curve_panels import panel_lines
from killswitch.signals.history.rows import StoredUnitValueRow

BEFORE = HOUR
"""How long before the first firing the curve begins."""
WHOLE_BEFORE = 600 * SECOND
"""How long before the first firing every tick is kept."""
STEP_BEFORE = 15 * SECOND
PARTS_OF_AGE = 3600
"""Every tick of a second is kept for as many seconds after a firing; a chart has fewer columns than this."""

_ROW = msgspec.json.Decoder(StoredUnitValueRow)


def decode_point(row: HistoryRow) -> EquityCurvePoint | None:
    """Decode the point of a history row; None for a row of another version."""
    try:
        found = _ROW.decode(row.blob)
    except msgspec.DecodeError:
        return None
    return EquityCurvePoint(found.at, found.value)


def points_before(rows: Iterable[HistoryRow], opened: int) -> list[EquityCurvePoint]:
    """Return the points up to the firing at `opened` (microseconds).

    Of those before the last ten minutes, of many in 15 seconds only the last and the lowest.
    """
    points = [point for row in rows if opened - BEFORE <= row.at <= opened and (point := decode_point(row)) is not None]
    kept: dict[int, EquityCurvePoint] = {}
    for _, group in groupby(points, lambda point: (opened - point.at) // STEP_BEFORE):
        near = list(group)
        if near[-1].at < opened - WHOLE_BEFORE:
            near = [min(reversed(near), key=lambda each: each.value), near[-1]]  # the last of equal ones
        kept.update({point.at: point for point in near})
    return list(kept.values())


def points_since(
    rows: Iterable[HistoryRow], firings: Sequence[int], last: EquityCurvePoint | None
) -> list[EquityCurvePoint]:
    """Return the points after `last`, the newest kept point, that are far enough apart.

    `firings`: the times of the incident's firings, oldest first (microseconds).
    The lowest point between two is kept where it is lower than both: a fall must not vanish between points.
    """
    kept: list[EquityCurvePoint] = []
    lowest: EquityCurvePoint | None = None
    for row in rows:
        since = firings[0] if last is None else last.at
        point = decode_point(row) if row.at > since else None
        if point is None:
            continue
        newest = firings[max(0, bisect_right(firings, point.at) - 1)]
        if point.at - since < (point.at - newest) // PARTS_OF_AGE:
            lowest = point if lowest is None or point.value < lowest.value else lowest
            continue
        if lowest is not None and lowest.value < min(point.value, point.value if last is None else last.value):
            kept.append(lowest)
        kept.append(point)
        last, lowest = point, None
    return kept


def read_curve(store: IncidentStore, decisions: Sequence[Decision], closed_at: datetime | None) -> EquityCurve | None:
    """Return the curve of the incident of these decisions, from the kept points and the remaining history.

    None where neither has a point. `closed_at` is when the incident ended; None while it is open.
    """
    opening, firings = decisions[0], firings_of(decisions)
    opened = firings[0]
    points = list(store.equity_curve(opening.id))
    rows = store.rows(opening.policy, opening.scope, points[-1].at + 1 if points else opened - BEFORE)
    if closed_at is not None:
        rows = [row for row in rows if row.at <= to_micros(closed_at)]
    if not points:
        points = points_before(rows, opened)
    points += points_since(rows, firings, points[-1] if points else None)
    # The newest point and the lowest since the last kept one, however close to it.
    tail = [point for row in rows if row.at > (points[-1].at if points else opened) and (point := decode_point(row))]
    points += sorted({min(tail, key=lambda each: each.value), tail[-1]}, key=lambda each: each.at) if tail else []
    return build_curve(points, opened, read_corrections(store, opening))


def firings_of(decisions: Iterable[Decision]) -> list[int]:
    """The times of the decisions, oldest first (microseconds)."""
    return sorted(to_micros(decision.as_of) for decision in decisions)


def build_curve(
    points: Sequence[EquityCurvePoint], opened: int, corrections: ValueCorrections = NO_CORRECTIONS
) -> EquityCurve | None:
    """Return the curve for the report, 100 at the first firing; None where fewer than two points are known.

    `points` are as entered; `corrections` names those of their falls and rises that were transfers.
    """
    points = corrections.apply(points)
    base = next((point for point in reversed(points) if point.at <= opened), None)
    if base is None or base.value <= 0 or len(points) < 2:
        return None
    scaled = [EquityPoint(from_micros(point.at), point.value / base.value * 100) for point in points]
    before = [each.value for each, point in zip(scaled, points, strict=True) if point.at <= opened]
    since = [each.value for each, point in zip(scaled, points, strict=True) if point.at >= opened] or before[-1:]
    return EquityCurve(
        tuple(scaled), max(before), min(since), scaled[-1].value,
        panel_lines(scaled, from_micros(opened)),
        # No value is entered while an account of the scope cannot be read.
        base_at=from_micros(base.at) if base.at < opened else None,
        pending=corrections.pending_changes(points[0].at, points[-1].at),
    )  # fmt: skip
