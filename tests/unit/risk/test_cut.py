"""The cut that leaves the least variance, compared with SciPy's solver and with the cut in proportion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.risk.covariance import Matrix, least_variance, shrunk_covariance, variance
from tests.unit.risk.test_shrinkage import returns


def left(
    exposures: list[float], covariance: Matrix, kept: float, most: list[float | None] | None = None
) -> list[float]:
    """Signed notionals after the cut."""
    worth = least_variance(exposures, covariance, most or [abs(x) for x in exposures], kept)
    return [w if x >= 0 else -w for w, x in zip(worth, exposures, strict=True)]


books = st.lists(
    st.tuples(st.floats(1.0, 1e5), st.booleans()).map(lambda each: each[0] if each[1] else -each[0]),
    min_size=1,
    max_size=8,
)


@given(books, st.integers(0, 10_000), st.floats(0.01, 0.99))
def test_the_cut_is_the_declared_one_and_never_exceeds_the_positions(
    exposures: list[float], seed: int, part: float
) -> None:
    """The kept gross to the last bits of floats; no position changes its side or grows."""
    covariance = shrunk_covariance(returns(len(exposures), 60, seed))
    gross = sum(abs(x) for x in exposures)
    found = left(exposures, covariance, part * gross)
    assert sum(abs(x) for x in found) == pytest.approx(part * gross)
    assert all(0.0 <= x / before <= 1.0 for x, before in zip(found, exposures, strict=True))


@given(books, st.integers(0, 10_000), st.floats(0.01, 0.99))
def test_the_remaining_variance_is_at_most_that_of_a_cut_in_proportion(
    exposures: list[float], seed: int, part: float
) -> None:
    """At equal gross; with room for the last bits only."""
    covariance = shrunk_covariance(returns(len(exposures), 60, seed))
    found = left(exposures, covariance, part * sum(abs(x) for x in exposures))
    in_proportion = variance([part * x for x in exposures], covariance)
    assert variance(found, covariance) <= in_proportion * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_minimum_that_another_solver_finds(seed: int) -> None:
    """Sequential quadratic programming from SciPy on the same problem, scaled to a gross of one."""
    random = np.random.default_rng(seed)
    exposures = (random.lognormal(size=8) * np.where(np.arange(8) < 4, 1, -1)).tolist()
    covariance = shrunk_covariance(returns(8, 60, seed))
    gross = sum(abs(x) for x in exposures)
    scaled, sign = np.abs(exposures) / gross, np.sign(exposures)
    unit = np.array(covariance) / np.trace(covariance)
    from scipy.optimize import LinearConstraint, minimize  # a second that no other test is to wait for

    solved = minimize(
        lambda w: (w * sign) @ unit @ (w * sign), scaled / 2, jac=lambda w: 2 * sign * (unit @ (w * sign)),
        bounds=[(0, s) for s in scaled], constraints=[LinearConstraint(np.ones((1, 8)), 0.5, 0.5)],
        method="SLSQP", options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    assert solved.success, solved.message
    found = np.array(left(exposures, covariance, gross / 2)) / gross
    assert found @ unit @ found == pytest.approx(solved.fun, rel=1e-5)


def test_the_hedge_is_not_closed_with_the_loss() -> None:
    """Two identical symbols, 10 long against 4 short: cutting 6 of 14 takes the 6 that nothing hedges."""
    covariance = [[1.0, 0.9], [0.9, 1.0]]
    assert left([10.0, -4.0], covariance, 8.0) == pytest.approx([4.0, -4.0])


def test_a_fixed_position_still_counts_as_a_hedge() -> None:
    """Of two similar longs the one is cut whose price a fixed short does not follow."""
    covariance = [[1.0, 0.0, 0.9], [0.0, 1.0, 0.0], [0.9, 0.0, 1.0]]
    found = left([10.0, 10.0, -10.0], covariance, 10.0, most=[10.0, 10.0, None])
    assert found[2] == -10.0
    assert found[0] > 8.0
    assert found[1] < 2.0
