"""Shrunk covariance, compared with scikit-learn's LedoitWolf, and with what holds for any covariance."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.risk.covariance import shrunk_covariance


@pytest.fixture(scope="module")
def reference() -> Any:
    """The estimator of scikit-learn; it takes seconds to import, which no other test is to wait for."""
    from sklearn.covariance import LedoitWolf

    return LedoitWolf()


def returns(count: int, times: int, seed: int) -> list[list[float]]:
    """Minute returns of a market and of each symbol on its own, some of them steadier than others."""
    random = Random(seed)
    market = [random.gauss(0, 8e-4) for _ in range(times)]
    return [
        [beta * move + random.gauss(0, 5e-4 * beta) for move in market]
        for beta in (random.uniform(0.3, 2) for _ in range(count))
    ]


@pytest.mark.parametrize(("count", "times"), [(1, 2), (2, 2), (2, 60), (8, 60), (8, 240), (40, 30), (3, 2000)])
def test_it_is_the_estimate_of_scikit_learn(reference: Any, count: int, times: int) -> None:
    """Few and many observations, more symbols than observations, one symbol."""
    series = returns(count, times, seed=count * times)
    expected = reference.fit(np.array(series).T).covariance_
    np.testing.assert_allclose(shrunk_covariance(series), expected, rtol=1e-9, atol=1e-18)


@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 10_000))
def test_it_is_symmetric_and_no_book_has_a_variance_below_zero(count: int, times: int, seed: int) -> None:
    """For any observations; the trace is that of the sample."""
    series = returns(count, times, seed)
    found = np.array(shrunk_covariance(series))
    np.testing.assert_array_equal(found, found.T)
    assert np.linalg.eigvalsh(found).min() >= -1e-18
    assert np.trace(found) == pytest.approx(sum(np.var(each) for each in series))


def test_series_that_did_not_move_have_no_covariance() -> None:
    """Zero, without a division by it."""
    assert shrunk_covariance([[0.0] * 5, [0.0] * 5]) == [[0.0, 0.0], [0.0, 0.0]]


def test_where_the_error_is_greater_than_the_distance_only_the_target_is_left(reference: Any) -> None:
    """Two uncorrelated series of about one variance, four observations: the shrinkage is at most complete."""
    series = [[1.0, -1.0, 1.0, -1.0], [1.1, 1.1, -1.1, -1.1]]
    mean = (1.0 + 1.21) / 2
    assert shrunk_covariance(series) == [[pytest.approx(mean), 0.0], [0.0, pytest.approx(mean)]]
    np.testing.assert_allclose(shrunk_covariance(series), reference.fit(np.array(series).T).covariance_)
