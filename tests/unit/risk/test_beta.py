"""Beta by least squares, compared with closed forms and the standard library."""

from __future__ import annotations

from math import sqrt
from statistics import correlation, linear_regression

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.risk.covariance import least_squares_beta

RETURNS = st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=2, max_size=50)


def test_twice_the_move_is_a_beta_of_two_for_any_drift() -> None:
    """y = 2x + 1: the slope is 2."""
    found = least_squares_beta([1.0, 3.0, 5.0], [0.0, 1.0, 2.0])
    assert found is not None
    assert found.slope == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0)


@given(RETURNS)
def test_beta_is_the_slope_that_the_standard_library_finds(pairs: list[tuple[int, int]]) -> None:
    """Against `statistics.linear_regression`, wherever the other series moved at all."""
    of, on = [y / 1e4 for y, _ in pairs], [x / 1e4 for _, x in pairs]
    if len(set(on)) < 2:
        assert least_squares_beta(of, on) is None
    else:
        found = least_squares_beta(of, on)
        assert found is not None
        assert found.slope == pytest.approx(linear_regression(on, of).slope, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=3, max_size=50))
def test_the_standard_error_follows_from_the_correlation(pairs: list[tuple[int, int]]) -> None:
    """SE = |β| √((1 ÷ r² − 1) ÷ (n − 2)), with r from the standard library: the t statistic of a correlation."""
    of, on = [y / 1e4 for y, _ in pairs], [x / 1e4 for _, x in pairs]
    if len(set(on)) < 2 or len(set(of)) < 2 or abs(r := correlation(on, of)) < 1e-6:
        return
    found = least_squares_beta(of, on)
    assert found is not None
    expected = abs(linear_regression(on, of).slope) * sqrt(max(0.0, 1 / r**2 - 1) / (len(on) - 2))
    assert found.error == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_error_of_a_line_worked_by_hand() -> None:
    """(0, 0), (1, 2), (2, 1), (3, 3): slope 0.8, residuals squared 1.8, so √(1.8 ÷ 2 ÷ 5) = √0.18."""
    found = least_squares_beta([0.0, 2.0, 1.0, 3.0], [0.0, 1.0, 2.0, 3.0])
    assert found is not None
    assert found.slope == pytest.approx(0.8)
    assert found.error == pytest.approx(sqrt(0.18))
    # 0.8 ÷ 0.4243 = 1.886: within two standard errors of nothing
    assert (found.is_sure(1.8), found.is_sure(2.0)) == (True, False)


def test_the_standard_error_of_two_returns_is_unknown() -> None:
    """A line fits any two points exactly."""
    found = least_squares_beta([0.1, 0.2], [0.3, 0.4])
    assert found is not None
    assert found.error is None
    assert not found.is_sure(2.0)


def test_without_a_return_or_a_move_there_is_no_beta() -> None:
    """No value is invented."""
    assert least_squares_beta([], []) is None
    assert least_squares_beta([0.1, 0.2], [0.3, 0.3]) is None


def test_series_of_different_length_are_refused() -> None:
    """They cannot be of the same times."""
    with pytest.raises(ValueError, match="2 returns against 1"):
        least_squares_beta([0.1, 0.2], [0.3])
