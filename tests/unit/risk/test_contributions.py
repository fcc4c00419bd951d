"""Shares of the variance: by hand for two positions, and with a sum of one for any book."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from killswitch.risk.covariance import shrunk_covariance, variance, variance_shares
from tests.unit.risk.test_shrinkage import returns


def test_shares_of_a_long_and_its_hedge_by_hand() -> None:
    """Σ = [[4, 3], [3, 9]], x = (10, −2): Σx = (34, 12), V = 340 − 24 = 316; the hedge's share is −24/316."""
    covariance = [[4.0, 3.0], [3.0, 9.0]]
    assert variance((10.0, -2.0), covariance) == 316.0
    assert variance_shares((10.0, -2.0), covariance) == pytest.approx([340 / 316, -24 / 316])


def test_a_book_that_does_not_vary_has_no_shares() -> None:
    """None, and not zeros that would rank."""
    assert variance_shares((10.0, -2.0), [[0.0, 0.0], [0.0, 0.0]]) is None


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6), st.integers(0, 1000))
def test_shares_sum_to_one(exposures: list[float], seed: int) -> None:
    """For any long and short exposures."""
    assume(max(abs(each) for each in exposures) > 1.0)
    shares = variance_shares(exposures, shrunk_covariance(returns(len(exposures), 50, seed)))
    assert shares is not None
    assert sum(shares) == pytest.approx(1.0)
