"""The equity curve of an incident: the points that are kept, their number, and that pruning history loses none."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.equity_curve import build_curve, points_before, points_since
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.value_corrections import ValueCorrections
from killswitch.incident.report.rendering import report_markdown
from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.store import EquityCurvePoint, HistoryRow
from killswitch.pnl_explain.pending_changes import UnexplainedChange
from killswitch.signals.history.rows import Correction
from tests import incidents
from tests.incidents import FIRST, filled_store, rows
from tests.worlds import after

OPENED = to_micros(after(hours=2))


def falling_rows(seconds: int) -> list[HistoryRow]:
    """A unit value for every second, the last at the firing."""
    return rows(after(hours=2, seconds=1 - seconds), [200.0 - number for number in range(seconds)])


def test_the_ten_minutes_before_the_firing_are_kept_whole_and_the_hour_before_with_its_lows() -> None:
    """Two hours of rows each second become 601 points of ten minutes, and of each 15 s before the last.

    The fall to 1 in a single second, half an hour before, is one more.
    """
    values = [200.0] * 7200
    values[-1801] = 1.0
    kept = points_before(rows(after(hours=2, seconds=1 - 7200), values), OPENED)
    assert {OPENED - number * SECOND for number in range(601)} <= {point.at for point in kept}
    assert (kept[0].at, kept[-1].at) == (OPENED - HOUR, OPENED)
    assert EquityCurvePoint(OPENED - 1800 * SECOND, 1.0) in kept
    assert len(kept) <= 601 + 14 + 200 + 1


def test_a_short_history_is_kept_whole() -> None:
    """With few rows, none is left out."""
    assert len(points_before(falling_rows(100), OPENED)) == 100


def test_every_tick_of_the_hour_after_each_firing_is_kept() -> None:
    """Also after a second firing two hours later, with a tick a second."""
    second = OPENED + 2 * HOUR
    every = rows(after(hours=2, seconds=1), [100.0] * 3 * 3600)
    kept = {point.at for point in points_since(every, [OPENED, second], EquityCurvePoint(OPENED, 100.0))}
    for firing in (OPENED, second):
        assert {firing + number * SECOND for number in range(1, 3600)} <= kept


def test_the_lowest_point_between_two_distant_ones_is_kept() -> None:
    """After ten hours a point is kept every ten seconds; the dip to 1 in between is one more."""
    begin = 36000
    values = [100.0] * 35
    values[13] = 1.0
    last = EquityCurvePoint(OPENED + begin * SECOND, 100.0)
    kept = points_since(rows(after(hours=2, seconds=begin + 1), values), [OPENED], last)
    assert [((point.at - OPENED) // SECOND - begin, point.value) for point in kept] == [
        (11, 100.0), (14, 1.0), (22, 100.0), (33, 100.0),
    ]  # fmt: skip


def test_the_equity_curve_of_a_long_incident_stays_small() -> None:
    """A month with a row each minute: all of 60 hours, whose 3600th part is a minute; then 3600 x ln(12) more."""
    month = rows(after(hours=2, minutes=1), [100.0] * (30 * 24 * 60), every=60)
    kept = points_since(month, [OPENED], EquityCurvePoint(OPENED, 100.0))
    assert len(kept) == pytest.approx(3600 + 3600 * math.log(12), rel=0.25)


def test_points_kept_incrementally_are_the_same_as_those_kept_at_once() -> None:
    """The same points are chosen however often the curve is updated, and over restarts."""
    all_rows = rows(after(hours=2, seconds=1), [100.0 + number % 7 for number in range(600)])
    at_once = points_since(all_rows, [OPENED], None)
    incremental: list[EquityCurvePoint] = []
    for end in (*range(0, 600, 7), 600):
        last = incremental[-1] if incremental else None
        fresh = [row for row in all_rows[:end] if last is None or row.at > last.at]
        incremental += points_since(fresh, [OPENED], last)
    assert incremental == at_once


def test_the_value_at_the_firing_is_100() -> None:
    """150 before, 120 at the firing, 90 and 96 after it: 125, 100, 75 and 80."""
    points = [
        EquityCurvePoint(OPENED + at * SECOND, value)
        for at, value in ((-60, 150.0), (0, 120.0), (10, 90.0), (20, 96.0))
    ]
    curve = build_curve(points, OPENED)
    assert curve is not None
    assert [point.value for point in curve.points] == [125.0, 100.0, 75.0, 80.0]
    assert (curve.peak, curve.lowest, curve.last) == (125.0, 75.0, 80.0)


@pytest.mark.parametrize("value", [0.0, -5.0])
def test_a_worthless_unit_has_no_equity_curve(value: float) -> None:
    """A value of zero or less at the firing cannot be scaled to 100: the curve is unknown, without a division."""
    points = [
        EquityCurvePoint(OPENED - SECOND, 1.0),
        EquityCurvePoint(OPENED, value),
        EquityCurvePoint(OPENED + SECOND, value),
    ]
    assert build_curve(points, OPENED) is None


def test_pruned_history_leaves_the_kept_equity_curve(tmp_path: Path) -> None:
    """The points belong to the incident: a report a year later still shows the fall."""
    written = filled_store(tmp_path)
    history = falling_rows(100)
    written.tick(after(hours=2), [incidents.firing(FIRST, after(hours=2), "trim", 1, 0)], rows=history)
    before = incident_of(written.store, find_incident(written.store, None), StartedAs("s")).course
    written.store.keep_incident(FIRST, b"{}", points_before(history, OPENED))
    written.store.keep_incident(FIRST, b"again", points_before(history, OPENED))
    written.tick(after(days=9), prune_before=to_micros(after(days=8)))
    assert written.store.rows(incidents.POLICY, incidents.SCOPE, 0) == []
    curve = incident_of(written.store, find_incident(written.store, None), StartedAs("s")).course
    assert curve == before
    assert curve is not None
    assert len(curve.points) == 100
    assert written.store.incident_note(FIRST) == b"{}", "the first note stays"
    written.store.close()


def unexplained(at: int, amount: str, kind: str, **more: object) -> UnexplainedChange:
    """A change of an equity of 100, `at` seconds after the firing, at a unit value of 100."""
    return UnexplainedChange(OPENED + at * SECOND, Decimal(amount), 100.0, 100.0, 0.0, kind=kind, **more)  # type: ignore[arg-type]  # a kind by the caller


def curve_points(*points: tuple[int, float]) -> list[EquityCurvePoint]:
    """Values with their seconds after the firing."""
    return [EquityCurvePoint(OPENED + at * SECOND, value) for at, value in points]


def test_a_withdrawal_after_the_firing_is_no_low() -> None:
    """30 of 100 leave, then 10% of the 70 are lost: 100, 100, 90."""
    curve = build_curve(
        curve_points((0, 100.0), (10, 70.0), (20, 63.0)),
        OPENED,
        ValueCorrections((), (unexplained(10, "-30", "money"),)),
    )
    assert curve is not None
    assert [point.value for point in curve.points] == pytest.approx([100.0, 100.0, 90.0])
    assert curve.lowest == pytest.approx(90.0)
    assert curve.pending == ()


def test_a_pending_change_counts_as_the_smaller_drawdown_and_is_named() -> None:
    """Until its cause is known, a fall by 6% counts as moved money, and a rise by 5% of the rest as a gain."""
    changes = (unexplained(10, "-6", "trade"), unexplained(20, "5", "trade"))
    curve = build_curve(curve_points((0, 100.0), (10, 94.0), (20, 98.7)), OPENED, ValueCorrections((), changes))
    assert curve is not None
    assert [point.value for point in curve.points] == pytest.approx([100.0, 100.0, 105.0])
    assert [(each.at, each.share) for each in curve.pending] == [
        (after(hours=2, seconds=10), pytest.approx(-0.06)), (after(hours=2, seconds=20), pytest.approx(0.05)),
    ]  # fmt: skip


def test_an_emptied_account_keeps_its_unit_value() -> None:
    """All of 100 is withdrawn: the unit value stays what it was, and is not zero."""
    curve = build_curve(
        curve_points((0, 100.0), (10, 0.0)), OPENED, ValueCorrections((), (unexplained(10, "-100", "money"),))
    )
    assert curve is not None
    assert (curve.lowest, curve.last) == (100.0, 100.0)


@pytest.mark.parametrize("undone", [False, True])
def test_points_before_a_correction_are_corrected(*, undone: bool) -> None:
    """Points from second 10 to before second 20 were 0.7 times too small, or wrongly divided by 0.7."""
    correction = Correction(OPENED + 10 * SECOND, OPENED + 20 * SECOND, 0.7, 100.0, undone=undone)
    curve = build_curve(curve_points((0, 100.0), (10, 70.0), (20, 90.0)), OPENED, ValueCorrections((correction,), ()))
    assert curve is not None
    assert [each.value for each in curve.points] == pytest.approx([100.0, 49.0 if undone else 100.0, 90.0])


def test_a_base_value_from_before_the_firing_is_reported_with_its_time() -> None:
    """An account is down from a minute before the firing: the value of that time is 100, with its time."""
    curve = build_curve(curve_points((-60, 120.0), (10, 90.0)), OPENED)
    assert curve is not None
    assert curve.base_at == after(hours=1, minutes=59)
    at_firing = build_curve(curve_points((0, 120.0), (10, 90.0)), OPENED)
    assert at_firing is not None
    assert at_firing.base_at is None


def test_the_report_explains_the_base_value_and_the_pending_change(tmp_path: Path) -> None:
    """As text, with the time of day and the share of equity."""
    written = filled_store(tmp_path)
    incidents.whole_incident(written)
    incident = incident_of(written.store, find_incident(written.store, None), StartedAs("s"))
    curve = build_curve(
        curve_points((-60, 120.0), (10, 90.0)), OPENED, ValueCorrections((), (unexplained(10, "-6", "trade"),))
    )
    text = report_markdown(replace(incident, course=curve))
    assert "100 at 01:59:00, when it was last known before the first firing: " in text
    assert "the change of equity by -6.0% at 02:00:10 counts here as money that moved, until it is known" in text
    written.store.close()
