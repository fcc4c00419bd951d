"""Beta by least squares: closed forms, and the oracle of the standard library."""

from __future__ import annotations

from statistics import linear_regression

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.risk.beta import least_squares_beta

RETURNS = st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=2, max_size=50)


def test_twice_the_move_is_a_beta_of_two_whatever_the_drift() -> None:
    """y = 2x + 1: the slope is 2."""
    assert least_squares_beta([1.0, 3.0, 5.0], [0.0, 1.0, 2.0]) == pytest.approx(2.0)


@given(RETURNS)
def test_beta_is_the_slope_that_the_standard_library_finds(pairs: list[tuple[int, int]]) -> None:
    """Against `statistics.linear_regression`, wherever the other moved at all."""
    of, on = [y / 1e4 for y, _ in pairs], [x / 1e4 for _, x in pairs]
    if len(set(on)) < 2:
        assert least_squares_beta(of, on) is None
    else:
        assert least_squares_beta(of, on) == pytest.approx(linear_regression(on, of).slope, rel=1e-6, abs=1e-9)


def test_without_a_return_or_a_move_there_is_no_beta() -> None:
    """Nothing is made up."""
    assert least_squares_beta([], []) is None
    assert least_squares_beta([0.1, 0.2], [0.3, 0.3]) is None


def test_series_of_different_length_are_refused() -> None:
    """They are not of the same times."""
    with pytest.raises(ValueError, match="2 returns against 1"):
        least_squares_beta([0.1, 0.2], [0.3])
