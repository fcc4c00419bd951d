"""Headroom as metrics and events give it: at the least what it is, and never a number that nobody knows."""

from __future__ import annotations

import math

import pytest

from killswitch.planning.scopes.trigger_status import ObservedTrigger
from killswitch.signals.history.windows import Interval
from killswitch.telemetry.metrics import headroom, headroom_ratio
from tests.runner_world import crash_policy


def reading(room: Interval | None, truth: bool | None) -> ObservedTrigger:
    """A trigger with the threshold 0.10."""
    (trigger,) = crash_policy().triggers
    return ObservedTrigger(
        trigger, None, room, truth, bool(truth), confirmed=False, true_since=None, unknown_because=None
    )


@pytest.mark.parametrize(
    ("room", "truth", "least", "share"),
    [
        ((0.04, 0.04), False, 0.04, 0.4),
        ((0.02, 0.05), False, 0.02, 0.2),
        ((-0.05, -0.05), True, -0.05, -0.5),
        ((-0.9, 0.05), None, None, None),
        ((-math.inf, -0.01), True, None, None),
        (None, False, None, None),
        (None, None, None, None),
    ],
    ids=["known", "partly known, and clear all the same", "beyond", "unknown", "unbounded", "expression", "nothing"],
)
def test_headroom_is_the_least_that_is_known(
    room: Interval | None, truth: bool | None, least: float | None, share: float | None
) -> None:
    """Of an interval the end nearer to the threshold; nothing where the trigger is neither true nor false."""
    found = reading(room, truth)
    assert headroom(found) == least
    assert headroom_ratio(found) == (None if share is None else pytest.approx(share))
