"""When a part of a snapshot is fetched again."""

from __future__ import annotations

from killswitch_alpaca.parts import SnapshotPart


def test_activity_during_a_fetch_makes_the_part_due_again() -> None:
    """A change after the request may be missing from the answer: the part is due again, as far as credit allows."""
    part = SnapshotPart(12.0, 60.0)
    part.touch()
    asked = part.touches
    part.touch()
    part.was_read(100.0, asked)
    assert part.is_due(101.0, credit=1.0)
    assert not part.is_due(101.0, credit=0.5)
    part.was_read(101.0, part.touches)
    assert not part.is_due(102.0, credit=9.0)
    assert part.is_due(113.0)
