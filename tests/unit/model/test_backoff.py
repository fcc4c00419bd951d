"""The pauses between attempts that fail."""

from __future__ import annotations

import pytest

from killswitch.model.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "pause"),
    [(-1, 0.0), (0, 0.0), (1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (6, 5.0), (10_000, 5.0)],
)
def test_a_pause_is_twice_the_one_before_up_to_the_longest(failures: int, pause: float) -> None:
    """Without a failure there is none."""
    assert Backoff(first=0.5, longest=5.0).after(failures) == pause


@pytest.mark.parametrize(("stored", "pause"), [(0.5, 1.0), (1.5, 3.0), (3.0, 5.0), (8.0, 5.0)])
def test_a_stored_pause_is_followed_by_twice_as_much_up_to_the_longest(stored: float, pause: float) -> None:
    """Also one that was stored when the longest was longer."""
    assert Backoff(first=0.5, longest=5.0).longer(stored) == pause


def test_a_first_pause_beyond_the_longest_is_the_longest() -> None:
    """A dead-man timer that is refreshed every 0.2 s is not retried after a second only."""
    assert Backoff(first=1.0, longest=0.2).after(1) == 0.2
