"""Headroom in metrics and events: its lower bound, and no number if it is unknown."""

from __future__ import annotations

import math

import pytest

from killswitch.planning.scopes.trigger_status import ObservedTrigger
from killswitch.signals.history.windows import Interval
from killswitch.telemetry.metrics import headroom, headroom_ratio
from tests.runner_world import crash_policy


def observed_trigger(room: Interval | None, truth: bool | None) -> ObservedTrigger:
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
    ids=["known", "partly known, still clear", "beyond", "unknown", "unbounded", "expression", "nothing"],
)
def test_headroom_is_its_known_lower_bound(
    room: Interval | None, truth: bool | None, least: float | None, share: float | None
) -> None:
    """The end of the interval nearer to the threshold; absent if the trigger is neither true nor false."""
    trigger = observed_trigger(room, truth)
    assert headroom(trigger) == least
    assert headroom_ratio(trigger) == (None if share is None else pytest.approx(share))
