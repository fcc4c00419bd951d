"""An hour of trouble of all kinds at one venue; any other one is `make soak VENUE=okx`."""

from __future__ import annotations

import pytest

from tests.attack.soak import soak

GROWTH = 1.25
"""What memory may grow by between two moments at which everything that is kept for a while is full."""


@pytest.mark.parametrize(("venue", "seed"), [("binance", 1)])
def test_after_much_trouble_a_fall_is_closed_and_nothing_is_left_behind(venue: str, seed: int) -> None:
    """Nothing fires while nothing is lost; memory, descriptors and threads end where they began."""
    found = soak(venue, 3600.0, seed)
    assert found.early is None, found
    assert found.flat_after is not None, found
    assert found.problems == [], found
    assert found.settled is not None
    assert found.full is not None
    assert found.ended is not None
    assert found.full.memory <= GROWTH * found.settled.memory, found
    assert found.full.threads <= found.settled.threads, found
    assert (found.ended.descriptors, found.ended.threads) == (found.began.descriptors, found.began.threads), found
