"""The durations of a stage machine after time that no clock has measured."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from killswitch.engine.state import PendingClose, StoredState, StoredTrigger, after_outage
from killswitch.model.instant import HOUR, MINUTE

SINCE, NOW = 10 * HOUR, 12 * HOUR
HELD = StoredTrigger(held=True, confirmed=False, reported=False, since=SINCE - MINUTE, ticks=3, unknown_since=None)
UNKNOWN = StoredTrigger(
    held=False, confirmed=False, reported=False, since=None, ticks=None, unknown_since=SINCE - 2 * MINUTE
)


def state(cooldown_until: int | None = None) -> StoredState:
    return StoredState(
        triggers={"fall": HELD, "dark": UNKNOWN}, level=2, stage="halve", fired_at=SINCE - HOUR, fired_value=None,
        cooldown_until=cooldown_until, reset_since=SINCE - MINUTE, barren=(),
        acted={"halve/main": SINCE + MINUTE, "halve/other": SINCE - MINUTE},
        waiting=PendingClose("halve", ("fall",), SINCE - MINUTE, SINCE + MINUTE, ("main",)),
    )  # fmt: skip


def test_the_remainder_of_every_duration_is_unchanged() -> None:
    """A confirmation, an unknown, an automatic reset, a cooldown, a rest and a wait; an expired one stays expired."""
    after = after_outage(state(SINCE + MINUTE), SINCE, NOW, {"halve": HOUR})
    assert after.cooldown_until == NOW + MINUTE
    assert after.reset_since == NOW - MINUTE
    assert (after.triggers["fall"].since, after.triggers["fall"].unknown_since) == (NOW - MINUTE, None)
    assert (after.triggers["dark"].since, after.triggers["dark"].unknown_since) == (None, NOW - 2 * MINUTE)
    assert after.acted == {"halve/main": NOW + MINUTE, "halve/other": SINCE - MINUTE}
    assert after.waiting is not None and after.waiting.until == NOW + MINUTE
    assert after.fired_at == SINCE - HOUR, "a record of what was is no duration"


@pytest.mark.parametrize(
    ("end", "declared", "expected"),
    [
        (SINCE + HOUR, 4 * HOUR, NOW + HOUR),  # an hour was left
        (SINCE + HOUR, 0, NOW),  # a time of the day, which the outage does not move
        (NOW + 3 * HOUR, 0, NOW + 3 * HOUR),
        (SINCE - HOUR, 4 * HOUR, SINCE - HOUR),  # it was over
    ],
)
def test_the_time_without_a_reset_keeps_its_remainder(end: int, declared: int, expected: int) -> None:
    """An outage makes neither a duration shorter nor a time of the day later."""
    before = replace(state(), no_reset_before=end)
    assert after_outage(before, SINCE, NOW, {"halve": HOUR}, declared).no_reset_before == expected


def test_automatic_resets_are_as_old_as_before() -> None:
    """A clock that was a day ahead at a boot allows no more of them: one a minute before the outage is a minute old."""
    before = replace(state(), recovered=(SINCE - 23 * HOUR, SINCE - MINUTE))
    after = after_outage(before, SINCE, SINCE + 25 * HOUR, {"halve": HOUR})
    assert after.recovered == (SINCE + 2 * HOUR, SINCE + 25 * HOUR - MINUTE)


@pytest.mark.parametrize(("until", "expected"), [(None, None), (SINCE, SINCE), (NOW + 3 * HOUR, NOW + 3 * HOUR)])
def test_no_cooldown_becomes_longer_than_its_stage_declares(until: int | None, expected: int | None) -> None:
    """Nor shorter than it was: also where a kill has hidden that the outage was already counted."""
    assert after_outage(state(until), SINCE, NOW, {"halve": HOUR}).cooldown_until == expected
    twice = after_outage(after_outage(state(SINCE + HOUR), SINCE, NOW, {"halve": HOUR}), SINCE, NOW, {"halve": HOUR})
    assert twice.cooldown_until == NOW + HOUR
