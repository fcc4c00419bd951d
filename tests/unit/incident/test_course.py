"""The course of equity: which points are kept, that they stay few, and that pruning history loses none of them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec import structs

from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.equity_curve import build_curve, points_before, points_since
from killswitch.incident.record.incident_decisions import find_incident
from killswitch.incident.record.value_corrections import ValueCorrections
from killswitch.incident.report.rendering import report_markdown
from killswitch.model.instant import HOUR, SECOND, to_micros
from killswitch.model.store import EquityCurvePoint, HistoryRow
from killswitch.signals.equity.pending_changes import UnexplainedChange
from killswitch.signals.history.rows import Correction
from tests import incidents
from tests.incidents import FIRST, hand_written, rows
from tests.worlds import after

OPENED = to_micros(after(hours=2))


def falling(seconds: int) -> list[HistoryRow]:
    """A value of a unit every second that ends with the firing."""
    return rows(after(hours=2, seconds=1 - seconds), [200.0 - number for number in range(seconds)])


def test_the_hour_before_the_firing_is_thinned_to_quarters_of_a_minute() -> None:
    """Two hours of seconds become 241 points, of which the last is the firing's own."""
    kept = points_before(falling(7200), OPENED)
    assert len(kept) == 241
    assert (kept[0].at, kept[-1].at) == (OPENED - HOUR, OPENED)


def test_a_short_history_is_kept_whole() -> None:
    """Where there are few rows, none is left out."""
    assert len(points_before(falling(100), OPENED)) == 100


def test_while_it_is_open_points_come_every_ten_seconds_at_most() -> None:
    """At 10, 20 and 30 seconds; the dip to 1 at 14 seconds is kept between them."""
    values = [100.0] * 35
    values[13] = 1.0
    kept = points_since(rows(after(hours=2, seconds=1), values), OPENED, EquityCurvePoint(OPENED, 100.0))
    assert [((point.at - OPENED) // SECOND, point.value) for point in kept] == [
        (10, 100.0), (14, 1.0), (20, 100.0), (30, 100.0),
    ]  # fmt: skip


def test_the_course_of_a_long_incident_stays_small() -> None:
    """A month at a row a minute is some 900 points: each is a 120th of the age apart from the last one."""
    month = rows(after(hours=2, minutes=1), [100.0] * (30 * 24 * 60), every=60)
    kept = points_since(month, OPENED, EquityCurvePoint(OPENED, 100.0))
    assert 700 < len(kept) < 1000


def test_points_kept_piece_by_piece_are_those_kept_at_once() -> None:
    """However often the course is looked at, and over restarts, the same points are chosen."""
    all_rows = rows(after(hours=2, seconds=1), [100.0 + number % 7 for number in range(600)])
    at_once = points_since(all_rows, OPENED, None)
    bit_by_bit: list[EquityCurvePoint] = []
    for end in (*range(0, 600, 7), 600):
        last = bit_by_bit[-1] if bit_by_bit else None
        fresh = [row for row in all_rows[:end] if last is None or row.at > last.at]
        bit_by_bit += points_since(fresh, OPENED, last)
    assert bit_by_bit == at_once


def test_the_firing_is_a_hundred() -> None:
    """150 before, 120 at the firing, 90 and 96 after it: 125, 100, 75 and 80."""
    points = [
        EquityCurvePoint(OPENED + at * SECOND, value)
        for at, value in ((-60, 150.0), (0, 120.0), (10, 90.0), (20, 96.0))
    ]
    found = build_curve(points, OPENED)
    assert found is not None
    assert [point.value for point in found.points] == [125.0, 100.0, 75.0, 80.0]
    assert (found.peak, found.lowest, found.last) == (125.0, 75.0, 80.0)


@pytest.mark.parametrize("value", [0.0, -5.0])
def test_a_worthless_unit_has_no_course(value: float) -> None:
    """What is worth nothing at the firing cannot be a hundred: unknown, rather than a division."""
    points = [
        EquityCurvePoint(OPENED - SECOND, 1.0),
        EquityCurvePoint(OPENED, value),
        EquityCurvePoint(OPENED + SECOND, value),
    ]
    assert build_curve(points, OPENED) is None


def test_history_that_is_pruned_leaves_the_course_that_was_kept(tmp_path: Path) -> None:
    """The points are the incident's own: a report a year later still shows the fall."""
    written = hand_written(tmp_path)
    seen = falling(100)
    written.tick(after(hours=2), [incidents.firing(FIRST, after(hours=2), "trim", 1, 0)], rows=seen)
    before = incident_of(written.store, find_incident(written.store, None), StartedAs("s")).course
    written.store.keep_incident(FIRST, b"{}", points_before(seen, OPENED))
    written.store.keep_incident(FIRST, b"again", points_before(seen, OPENED))
    written.tick(after(days=9), prune_before=to_micros(after(days=8)))
    assert written.store.rows(incidents.POLICY, incidents.SCOPE, 0) == []
    course = incident_of(written.store, find_incident(written.store, None), StartedAs("s")).course
    assert course == before
    assert course is not None
    assert len(course.points) == 100
    assert written.store.incident_note(FIRST) == b"{}", "the first note stays"
    written.store.close()


def changed(at: int, amount: str, kind: str, **more: object) -> UnexplainedChange:
    """A change of an equity of 100 at the time of a firing and so many seconds, at a unit value of 100."""
    return UnexplainedChange(OPENED + at * SECOND, Decimal(amount), 100.0, 100.0, 0.0, kind=kind, **more)  # type: ignore[arg-type]


def seen(*points: tuple[int, float]) -> list[EquityCurvePoint]:
    """Values so many seconds after the firing."""
    return [EquityCurvePoint(OPENED + at * SECOND, value) for at, value in points]


def test_money_that_moved_after_the_firing_is_no_low() -> None:
    """30 of 100 leave, then 10% of the 70 are lost: 100, 100, 90."""
    found = build_curve(
        seen((0, 100.0), (10, 70.0), (20, 63.0)), OPENED, ValueCorrections((), (changed(10, "-30", "money"),))
    )
    assert found is not None
    assert [point.value for point in found.points] == pytest.approx([100.0, 100.0, 90.0])
    assert found.lowest == pytest.approx(90.0)
    assert found.pending == ()


def test_what_is_pending_is_read_as_the_smaller_drawdown_and_named() -> None:
    """A fall by 6% counts as money that moved, a rise by 5% of what is left as a gain, until that is known."""
    changes = (changed(10, "-6", "trade"), changed(20, "5", "trade"))
    found = build_curve(seen((0, 100.0), (10, 94.0), (20, 98.7)), OPENED, ValueCorrections((), changes))
    assert found is not None
    assert [point.value for point in found.points] == pytest.approx([100.0, 100.0, 105.0])
    assert [(each.at, each.share) for each in found.pending] == [
        (after(hours=2, seconds=10), pytest.approx(-0.06)), (after(hours=2, seconds=20), pytest.approx(0.05)),
    ]  # fmt: skip


def test_an_account_that_was_emptied_keeps_its_value() -> None:
    """All of 100 leaves: a unit is worth what it was worth before, and not nothing."""
    found = build_curve(seen((0, 100.0), (10, 0.0)), OPENED, ValueCorrections((), (changed(10, "-100", "money"),)))
    assert found is not None
    assert (found.lowest, found.last) == (100.0, 100.0)


@pytest.mark.parametrize("undone", [False, True])
def test_points_from_before_a_correction_are_read_by_it(*, undone: bool) -> None:
    """What was entered from second 10 until before second 20 was 0.7 times too small, or divided by it wrongly."""
    correction = Correction(OPENED + 10 * SECOND, OPENED + 20 * SECOND, 0.7, 100.0, undone=undone)
    found = build_curve(seen((0, 100.0), (10, 70.0), (20, 90.0)), OPENED, ValueCorrections((correction,), ()))
    assert found is not None
    assert [each.value for each in found.points] == pytest.approx([100.0, 49.0 if undone else 100.0, 90.0])


def test_a_value_that_was_not_known_at_the_firing_is_not_called_the_firings() -> None:
    """An account was down from a minute before: what is 100 is the value of then, and the report says when."""
    found = build_curve(seen((-60, 120.0), (10, 90.0)), OPENED)
    assert found is not None
    assert found.base_at == after(hours=1, minutes=59)
    at_firing = build_curve(seen((0, 120.0), (10, 90.0)), OPENED)
    assert at_firing is not None
    assert at_firing.base_at is None


def test_the_report_says_what_a_hundred_is_and_what_is_pending(tmp_path: Path) -> None:
    """In words, with the time of day and the part of equity."""
    written = hand_written(tmp_path)
    incidents.whole_incident(written)
    incident = incident_of(written.store, find_incident(written.store, None), StartedAs("s"))
    found = build_curve(seen((-60, 120.0), (10, 90.0)), OPENED, ValueCorrections((), (changed(10, "-6", "trade"),)))
    text = report_markdown(structs.replace(incident, course=found))
    assert "100 at 01:59:00, when it was last known before the first firing: " in text
    assert "the change of equity by -6.0% at 02:00:10 counts here as money that moved, until it is known" in text
    written.store.close()
