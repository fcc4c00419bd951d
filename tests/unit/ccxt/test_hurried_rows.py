"""When lists of fills and flows are read before their time, by what their allowance is; ticks come a second apart."""

from __future__ import annotations

import pytest

from killswitch.model.snapshot import Fill
from killswitch_ccxt.ledger import LAST_EARLY_FETCH, RequestAllowance, RowList
from killswitch_ccxt.parts import SnapshotPart

LONG = 10_000.0


def _times(a_minute: int, moves: list[int], until: int) -> list[int]:
    """The seconds at which the rows are read, where something moves at `moves`."""
    rows: RowList[Fill] = RowList("fills", SnapshotPart(LONG, 0.0), RequestAllowance(a_minute, 3))
    read, rows.part.at = [], -1.0
    for now in range(until):
        moved_at = max((it for it in moves if it <= now), default=-LONG)
        if rows.is_early_fetch_due(now, moved_at, LAST_EARLY_FETCH):
            rows.record_early_fetch(now, 1)
            rows.part.at = float(now)
            read.append(now)
    return read


@pytest.mark.parametrize(
    ("a_minute", "expected"),
    [(6, [0, 1, 2, 5, 10, 20]), (4, [0, 1, 2, 10, 20]), (1, [0, 10, 20])],
    ids=["six a minute", "four a minute", "one a minute"],
)
def test_what_an_allowance_does_not_suffice_for_is_left_out_early_and_not_late(
    a_minute: int, expected: list[int]
) -> None:
    """At once, after ten seconds and after twenty always: there a change is decided whose rows are late."""
    assert _times(a_minute, [0], 60) == expected


def test_while_something_moves_every_second_rows_are_read_each_ten() -> None:
    """A runaway bot: three readings that are saved up, over its twenty seconds and not in its first three."""
    assert _times(1, list(range(18)), 40) == [0, 10, 20]


def test_a_movement_right_after_an_ordinary_reading_is_looked_at_at_once() -> None:
    """The list was read a second before it."""
    assert _times(1, [0], 1) == [0]
