"""Expected impact: closed forms of both models, and their inverses."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.risk.trading_cost import Model, daily_volume, greatest_size

D = Decimal
MODELS: list[Model] = ["square_root", "linear"]


def expected_impact(model: Model, size: Decimal, volume: Decimal, volatility: float) -> Decimal:
    """By what fraction of the price trading `size` is expected to move it: Y·σ·√(Q/V) or Y·σ·Q/V, with Y = 1."""
    share = size / volume
    return D(repr(volatility)) * (share.sqrt() if model == "square_root" else share)


@pytest.mark.parametrize(
    ("model", "size", "volume", "volatility", "impact"),
    [
        ("square_root", "1", "100", 0.02, "0.002"),  # 2% × √(1/100)
        ("square_root", "100", "100", 0.02, "0.02"),  # a day's volume moves a day's volatility
        ("square_root", "4", "1", 0.03, "0.06"),  # √4 = 2 days' worth
        ("linear", "1", "100", 0.02, "0.0002"),
        ("linear", "50", "100", 0.04, "0.02"),
    ],
)
def test_impact_is_the_closed_form_of_its_model(
    model: Model, size: str, volume: str, volatility: float, impact: str
) -> None:
    """Y·σ·√(Q/V) and Y·σ·Q/V with Y = 1, worked by hand."""
    assert expected_impact(model, D(size), D(volume), volatility) == D(impact)


@pytest.mark.parametrize(
    ("model", "at_most", "volume", "volatility", "size"),
    [
        ("square_root", "0.005", "1000", 0.05, "10"),  # (0.5% / 5%)² = 1% of the volume
        ("linear", "0.005", "1000", 0.05, "100"),  # 0.5% / 5% = 10% of the volume
        ("square_root", "0", "1000", 0.05, "0"),
        ("linear", "0.005", "0", 0.05, "0"),
    ],
)
def test_the_greatest_size_is_the_closed_form_of_the_inverse(
    model: Model, at_most: str, volume: str, volatility: float, size: str
) -> None:
    """V·(I/σ)² and V·I/σ, worked by hand."""
    assert greatest_size(model, D(at_most), D(volume), volatility) == D(size)


@given(
    st.sampled_from(MODELS), st.integers(1, 10**6), st.integers(1, 10**9), st.floats(1e-4, 2.0, allow_subnormal=False)
)
def test_the_inverse_model_recovers_the_size(model: Model, size: int, volume: int, volatility: float) -> None:
    """The greatest size at the impact of a size is that size, for any market."""
    impact = expected_impact(model, D(size), D(volume), volatility)
    assert math.isclose(greatest_size(model, impact, D(volume), volatility), size, rel_tol=1e-12)


def test_a_price_that_does_not_move_bounds_no_size() -> None:
    """Without volatility every size is within every bound."""
    assert greatest_size("square_root", D("0.001"), D(5), 0.0) == D("Infinity")


def test_a_days_volume_is_the_recent_one_in_proportion() -> None:
    """Sixty contracts in a minute are 86,400 a day."""
    assert daily_volume(D(60), 60.0) == 86_400


@pytest.mark.parametrize("over", [0.0, -60.0, math.nan, math.inf])
def test_a_volume_over_zero_time_is_refused(over: float) -> None:
    """Nothing follows from it."""
    with pytest.raises(ValueError, match=r"."):
        daily_volume(D(60), over)


@pytest.mark.parametrize(("size", "volume", "volatility"), [("-1", "1", 0.1), ("1", "-1", 0.1), ("1", "1", -0.1)])
def test_numbers_below_zero_are_refused(size: str, volume: str, volatility: float) -> None:
    """Sizes, volumes and volatilities have no sign."""
    with pytest.raises(ValueError, match="not all at least 0"):
        greatest_size("square_root", D(size), D(volume), volatility)
