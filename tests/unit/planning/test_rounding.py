"""From target to orders: exact in venue units, never more than is held, never an exception."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.planning.rounding import Reduction, reduction
from tests.worlds import position, rules

D = Decimal


def half(contracts: str, *, reduce_only: bool = True, mark: str = "100", **limits: str) -> Reduction:
    held = position("X", "long", contracts=contracts, mark_price=mark)
    return reduction(held, D(contracts) / 2, rules("X", **limits), reduce_only=reduce_only)


@pytest.mark.parametrize(
    ("name", "contracts", "limits", "parts", "left"),
    [
        ("whole steps", "1.500", {}, ["0.750"], "0.750"),
        ("half a step rounds up: what is left is at most what was decided", "0.003", {}, ["0.002"], "0.001"),
        ("C9: half of a minimum lot closes the lot", "0.001", {}, ["0.001"], "0"),
        ("C9: a remainder below the minimum goes too", "0.005", {"min_amount": "0.003"}, ["0.005"], "0"),
        ("C10: above the maximum it is split", "10", {"max_amount": "2"}, ["2", "2", "1"], "5"),
        ("below one step of a position is left", "0.0015", {}, ["0.001"], "0.0005"),
    ],
)
def test_c9_half_of_a_position_is_rounded_so_that_nothing_is_stuck(
    name: str, contracts: str, limits: dict[str, str], parts: list[str], left: str
) -> None:
    """Each case by its name; expected values worked by hand."""
    result = half(contracts, **limits)
    assert (result.parts, result.target) == (tuple(D(p) for p in parts), D(left)), name
    assert result.blocked is None


def test_c9_dust_is_reported_not_raised() -> None:
    """A position below the venue's minimum is blocked with the reason, and stays as it is."""
    result = half("0.0004")
    assert (result.parts, result.target) == ((), D("0.0004"))
    assert result.blocked == "dust: 0.0004 of X is below the venue's minimum of 0.001"


def test_minimum_notional_binds_spot_but_not_reduce_only() -> None:
    """Half of 0.08 at 100 is worth 4: too little for a venue that wants 5, unless it only reduces."""
    assert half("0.08", min_notional="5").parts == (D("0.04"),)
    assert half("0.08", min_notional="5", reduce_only=False).parts == (D("0.08"),)
    assert half("0.04", min_notional="5", reduce_only=False).blocked is not None


def test_c12_a_halted_symbol_is_blocked_and_says_so() -> None:
    """It blocks itself, not the others."""
    held = position("X", "long", contracts="1", mark_price="100")
    result = reduction(held, D(0), rules("X", state="halted"), reduce_only=True)
    assert result.blocked == "X is halted at the venue"


def test_without_the_venues_rules_nothing_is_rounded_and_that_is_said() -> None:
    """Unknown steps: the exact half, marked as not exact."""
    held = position("X", "long", contracts="0.0333")
    assert reduction(held, D("0.01665"), None, reduce_only=True) == Reduction(
        D("0.01665"), (D("0.01665"),), exact=False
    )


@given(
    st.integers(1, 10**6),
    st.integers(0, 100),
    st.sampled_from(["1", "0.1", "0.001", "5"]),
    st.integers(1, 20),
    st.integers(0, 50),
)
def test_what_is_left_is_never_more_than_decided_and_orders_never_more_than_held(
    units: int, percent: int, step: str, minimum_steps: int, maximum_steps: int
) -> None:
    """For every size: whole steps, within the venue's limits, summing to held − left, leaving at most the target."""
    held = D(units) * D(step) / 4
    wanted = held * (100 - percent) / 100
    least = D(step) * minimum_steps
    most = least + D(step) * maximum_steps
    limits = {"amount_step": step, "min_amount": str(least), "max_amount": str(most)}
    result = reduction(position("X", "short", contracts=str(held)), wanted, rules("X", **limits), reduce_only=True)
    assert sum(result.parts) + result.target == held
    if result.blocked is None and percent:
        assert result.target <= wanted or held - result.target == (held // D(step)) * D(step)
        assert all(part % D(step) == 0 and D(0) < part <= most for part in result.parts)
