"""When lists of fills and flows are fetched early, depending on their request allowance; ticks are a second apart."""

from __future__ import annotations

import pytest

from killswitch.model.snapshot import Fill
from killswitch_ccxt.ledger import LAST_EARLY_FETCH, RequestAllowance, RowList
from killswitch_ccxt.parts import SnapshotPart

LONG = 10_000.0


def _fetch_times(a_minute: int, moves: list[int], until: int) -> list[int]:
    """The seconds at which the rows are fetched, where something moves at `moves`."""
    rows: RowList[Fill] = RowList("fills", SnapshotPart(LONG, 0.0), RequestAllowance(a_minute, 3))
    fetched, rows.part.at = [], -1.0
    for now in range(until):
        moved_at = max((it for it in moves if it <= now), default=-LONG)
        if rows.is_early_fetch_due(now, moved_at, LAST_EARLY_FETCH):
            rows.record_early_fetch(now, 1)
            rows.part.at = float(now)
            fetched.append(now)
    return fetched


@pytest.mark.parametrize(
    ("a_minute", "expected"),
    [(6, [0, 1, 2, 5, 10, 20]), (4, [0, 1, 2, 10, 20]), (1, [0, 10, 20])],
    ids=["six a minute", "four a minute", "one a minute"],
)
def test_a_small_allowance_omits_fetches_between_the_first_and_the_tenth_second(
    a_minute: int, expected: list[int]
) -> None:
    """At 0, 10 and 20 s it always fetches: a change whose rows are late is decided there."""
    assert _fetch_times(a_minute, [0], 60) == expected


def test_while_something_moves_every_second_rows_are_fetched_every_ten_seconds() -> None:
    """A runaway bot: the three saved requests are spread over its twenty seconds, not spent in its first three."""
    assert _fetch_times(1, list(range(18)), 40) == [0, 10, 20]


def test_a_movement_right_after_a_scheduled_fetch_causes_a_fetch_at_once() -> None:
    """The list was fetched a second before the movement."""
    assert _fetch_times(1, [0], 1) == [0]
