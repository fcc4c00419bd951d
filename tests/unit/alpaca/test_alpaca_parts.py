"""When a part of an account is read again."""

from __future__ import annotations

from killswitch_alpaca.parts import SnapshotPart


def test_a_touch_while_it_is_read_is_not_forgotten() -> None:
    """What came after the question may not be in the answer: it is due again, as far as there is credit."""
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
