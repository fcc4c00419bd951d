"""Headroom in metrics and events: its lower bound, and no number if it is unknown."""

from __future__ import annotations

import pytest

from killswitch.planning.scopes.trigger_status import Span, TriggerStatus, headroom, headroom_ratio


def observed_trigger(op: str, value: Span | None, room: Span | None, truth: bool | None) -> TriggerStatus:
    """A trigger with the threshold 0.10; without a value, an expression."""
    return TriggerStatus(
        "fall", "p.yaml:1", None, None, None, value, None if value is None else f"{op} 10%", room, truth, bool(truth),
        confirmed=False, true_since=None, unknown_because=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("op", "value", "room", "truth", "least", "share"),
    [
        (">=", (0.06, 0.06), (0.04, 0.04), False, 0.04, 0.4),
        ("<", (0.14, 0.14), (0.04, 0.04), False, 0.04, 0.4),
        (">=", (0.05, 0.08), (0.02, 0.05), False, 0.02, 0.2),
        ("<=", (0.12, 0.15), (0.02, 0.05), False, 0.02, 0.2),
        (">=", (0.15, 0.15), (-0.05, -0.05), True, -0.05, -0.5),
        (">=", (0.05, 1.0), (-0.9, 0.05), None, None, None),
        (">=", (0.11, None), (None, -0.01), True, None, None),
        (">=", None, None, False, None, None),
        (">=", None, None, None, None, None),
    ],
    ids=[
        "known",
        "from above",
        "partly known, still clear",
        "from above, partly known",
        "beyond",
        "unknown",
        "unbounded",
        "expression",
        "nothing",
    ],
)
def test_headroom_is_its_known_lower_bound(
    op: str, value: Span | None, room: Span | None, truth: bool | None, least: float | None, share: float | None
) -> None:
    """The end of the interval nearer to the threshold; absent if the trigger is neither true nor false."""
    trigger = observed_trigger(op, value, room, truth)
    assert headroom(trigger) == least
    assert headroom_ratio(trigger) == (None if share is None else pytest.approx(share))
