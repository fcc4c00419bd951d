"""How long accounts were watched: gaps, unusable snapshots and restarts are in no span."""

from __future__ import annotations

from datetime import timedelta

from killswitch.model.record_entry import RecordEntry
from killswitch.record.tick_entries import WatchedTime
from tests.unit.record.chains import AT
from tests.worlds import account


def spans(entries: list[RecordEntry]) -> list[tuple[object, object]]:
    return [(str(each.fields["from"])[11:19], str(each.fields["to"])[11:19]) for each in entries]


def watched(seconds: list[tuple[float, str]]) -> list[tuple[object, object]]:
    """The spans of an account with these snapshots, at most 60 s apart; from 09:30:00 on."""
    time = WatchedTime(timedelta(seconds=60))
    found: list[RecordEntry] = []
    for at, quality in seconds:
        seen = account("1000", quality=quality, reason=None if quality == "ok" else "down")
        found += time.observe((seen,), AT + timedelta(seconds=at))
    return spans([*found, *time.finish(AT + timedelta(seconds=9999))])


def test_a_span_lasts_as_long_as_snapshots_are_at_most_a_gap_apart() -> None:
    """60 s apart is watched, 61 s is a gap."""
    assert watched([(0, "ok"), (60, "ok"), (120, "ok")]) == [("09:30:00", "09:32:00")]
    assert watched([(0, "ok"), (60, "ok"), (121, "ok"), (150, "ok")]) == [
        ("09:30:00", "09:31:00"), ("09:32:01", "09:32:30"),
    ]  # fmt: skip


def test_a_snapshot_that_is_not_usable_bridges_no_gap() -> None:
    """And one snapshot alone covers no time."""
    assert watched([(0, "ok"), (30, "down"), (61, "ok"), (62, "ok")]) == [("09:31:01", "09:31:02")]
    assert watched([(0, "ok")]) == []


def test_a_long_span_is_written_every_quarter_of_an_hour_without_a_gap_between() -> None:
    """So a crash loses at most that."""
    assert watched([(30.0 * number, "ok") for number in range(41)]) == [
        ("09:30:00", "09:45:00"), ("09:45:00", "09:50:00"),
    ]  # fmt: skip
