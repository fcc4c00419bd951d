"""Faults of all kinds at one venue for a quarter of an hour; for another venue, run `make soak VENUE=okx`."""

from __future__ import annotations

import pytest

from tests.attack.soak import soak

GROWTH = 1.25
"""The permitted growth of memory between two moments at which every bounded buffer is full."""
SHORT = 900.0
"""Seconds in every run; `make test-venues` runs the hour."""


@pytest.mark.parametrize(
    ("venue", "seconds", "seed"),
    [("binance", SHORT, 1), pytest.param("binance", 3600.0, 1, marks=pytest.mark.venues)],
)
def test_after_many_faults_a_fall_is_closed_and_no_resource_leaks(venue: str, seconds: float, seed: int) -> None:
    """Nothing fires while nothing is lost; memory, descriptors and threads end where they began.

    Only the hour checks the growth of memory: the bounded buffers are not full before.
    """
    found = soak(venue, seconds, seed)
    assert found.early is None, found
    assert found.flat_after is not None, found
    assert found.problems == [], found
    assert found.settled is not None
    assert found.full is not None
    assert found.ended is not None
    assert seconds == SHORT or found.full.memory <= GROWTH * found.settled.memory, found
    assert found.full.threads <= found.settled.threads, found
    assert (found.ended.descriptors, found.ended.threads) == (found.began.descriptors, found.began.threads), found
