"""Kelly, volatility targets, risk parity and their consensus, against scipy and the formulas of their papers."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import exp, log1p, sqrt

import numpy as np
import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve
from scipy.optimize import brentq, nnls, root
from scipy.stats import binom, binomtest

from killswitch.risk.sizing.answer import SizingError, SizingInput, Suggestion, given
from killswitch.risk.sizing.consensus import (
    SizingDecision,
    consensus,
    performance_weights,
    weighted_median,
)
from killswitch.risk.sizing.kelly import (
    TradeRecord,
    binary_leverage,
    chance_of_falling_to,
    continuous_kelly,
    growth_share,
    kelly,
    kelly_weights,
    wilson_lower,
)
from killswitch.risk.sizing.risk_parity import covariance_of, risk_parity
from killswitch.risk.sizing.volatility_target import annual_volatility, book_factor, target_volatility

Floats = NDArray[np.float64]
D = Decimal
ONE = D(1)


# Kelly


def test_kelly_of_the_definition_is_twelve_and_a_half() -> None:
    """p 0.55, +3% and −2%: 0.55 ÷ 0.02 − 0.45 ÷ 0.03 = 12.5, which is 25% of equity at risk."""
    found = kelly(TradeRecord(55, 45, D("0.03"), D("0.02")), ONE, point_estimate=True)
    assert found.leverage == Fraction(25, 2)
    assert ("at risk in a trade", "25.00%") in found.details


@for_any(st.floats(0.05, 0.95), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_kelly_is_where_expected_log_wealth_stops_growing(p: float, gain: float, loss: float) -> None:
    """The root of d/df [p ln(1 + f b) + q ln(1 − f a)], found by Brent's method."""
    found = float(binary_leverage(Fraction(p), Fraction(gain), Fraction(loss)))
    if found < 1e-6:
        return

    def slope(f: float) -> float:
        return p * gain / (1.0 + f * gain) - (1.0 - p) * loss / (1.0 - f * loss)

    assert found == pytest.approx(brentq(slope, 0.0, (1.0 - 1e-12) / loss, xtol=1e-14, rtol=1e-14), rel=1e-9)


@for_any(st.integers(1, 400), st.data())
def test_the_wilson_bound_is_that_of_scipy(trades: int, data: st.DataObject) -> None:
    """One-sided 95% is the lower end of the two-sided interval of 90%."""
    wins = data.draw(st.integers(0, trades))
    expected = binomtest(wins, trades).proportion_ci(0.90, method="wilson").low
    assert wilson_lower(wins, trades) == pytest.approx(float(expected), abs=1e-12)


def test_records_without_an_edge_seldom_get_a_size() -> None:
    """Of all records of 100 fair bets the estimate sizes 46%, 4% of equity on average; the bound sizes 4%."""
    chances = {wins: float(binom.pmf(wins, 100, 0.5)) for wins in range(1, 100)}

    def leverage(wins: int, *, point: bool) -> float:
        found = kelly(TradeRecord(wins, 100 - wins, ONE, ONE), ONE, point_estimate=point).leverage
        assert found is not None
        return float(found)

    estimate = {wins: leverage(wins, point=True) for wins in chances}
    assert round(sum(chances[wins] for wins, size in estimate.items() if size > 0), 2) == 0.46
    assert round(sum(chances[wins] * size for wins, size in estimate.items()), 2) == 0.04
    assert round(sum(chances[wins] for wins in chances if leverage(wins, point=False) > 0), 2) == 0.04


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (TradeRecord(60, 39, D("0.03"), D("0.02")), "99 closed trades; fewer than 100"),
        (TradeRecord(100, 0, D("0.03"), D(0)), "no trade of the record has lost"),
    ],
)
def test_a_short_record_and_one_without_a_loss_are_unknown(record: TradeRecord, why: str) -> None:
    """Neither shows what a bad trade costs, or how often there is one."""
    found = kelly(record, ONE)
    assert (found.leverage, found.is_veto) == (None, False)
    assert (found.unknown or "").startswith(why)


@pytest.mark.parametrize("record", [TradeRecord(40, 60, D("0.02"), D("0.02")), TradeRecord(0, 100, D(0), D("0.02"))])
def test_a_negative_edge_is_zero_and_never_the_other_side(record: TradeRecord) -> None:
    """The record of the other side is another one: its costs are on the other side too."""
    found = kelly(record, ONE, point_estimate=True)
    assert (found.leverage, found.is_veto, found.bound) == (0, True, "no edge")


def test_a_record_is_counted_from_results() -> None:
    """Two wins of 3% and 5%, one loss of 2%; a result of zero is neither."""
    record = TradeRecord.of([D("0.03"), D("-0.02"), D(0), D("0.05")])
    assert record == TradeRecord(2, 1, D("0.04"), D("0.02"))


@pytest.mark.parametrize(
    ("k", "growth", "halving"), [("1", "1", 0.5), ("0.5", "0.75", 0.125), ("0.25", "0.4375", 0.5**7)]
)
def test_a_fraction_of_kelly_trades_growth_for_falls(k: str, growth: str, halving: float) -> None:
    """2k − k² of the growth; halves with 50%, 12.5% and 0.8%."""
    assert growth_share(D(k)) == D(growth)
    assert chance_of_falling_to(0.5, D(k)) == pytest.approx(halving)


@pytest.mark.parametrize("k", ["0", "-0.5", "1.5", "NaN"])
def test_a_fraction_of_kelly_outside_of_its_range_is_refused(k: str) -> None:
    """Above 1 there is more risk and less growth."""
    with pytest.raises(SizingError, match="fraction of Kelly"):
        kelly(TradeRecord(55, 45, D("0.03"), D("0.02")), D(k))


def test_continuous_kelly_of_mean_and_volatility() -> None:
    """(30% − 4%) ÷ 0.6² = 0.7222…, half of it 0.3611…; a negative one is zero, and a veto."""
    volatility = given("volatility", D("0.6"))
    assert continuous_kelly(D("0.3"), D("0.04"), volatility, D("0.5")).leverage == Fraction(26, 72)
    below = continuous_kelly(D("0.03"), D("0.04"), volatility, ONE)
    assert (below.leverage, below.is_veto) == (0, True)


@pytest.mark.parametrize("volatility", [None, "0"])
def test_continuous_kelly_without_a_volatility_is_unknown(volatility: str | None) -> None:
    """An unknown one, and one of zero."""
    value = SizingInput("volatility", None if volatility is None else D(volatility))
    assert continuous_kelly(D("0.3"), D(0), value, ONE).leverage is None


def random_covariance(seed: int, count: int) -> list[list[float]]:
    made = np.random.default_rng(seed).normal(size=(count, count + 2))
    return [[float(each) for each in row] for row in made @ made.T / 10.0]


@settings(max_examples=200)
@for_any(st.integers(0, 10_000), st.integers(1, 7))
def test_kelly_of_several_markets_is_the_least_squares_solution_without_negatives(seed: int, count: int) -> None:
    """max w′m − w′Sw ÷ 2 over w ≥ 0 is min |L′w − L⁻¹m|, which scipy's `nnls` solves; S⁻¹m where that is positive."""
    covariance = random_covariance(seed, count)
    excess = np.random.default_rng(seed + 1).normal(size=count)
    found = kelly_weights([float(each) for each in excess], covariance)
    assert found is not None
    lower = cholesky(np.array(covariance), lower=True)
    expected, _ = nnls(lower.T, solve(lower, excess), maxiter=10_000)
    assert found == pytest.approx([float(each) for each in expected], rel=1e-9, abs=1e-9)
    free = solve(np.array(covariance), excess, assume_a="pos")
    if (free > 0).all():
        assert found == pytest.approx([float(each) for each in free], rel=1e-9, abs=1e-9)


def test_a_hedge_that_is_not_taken_takes_its_position_along() -> None:
    """σ 1, ρ 0.9, m (1, 0.5): S⁻¹m is (2.9, −2.1); alone the first is 1, not 2.9."""
    assert kelly_weights([1.0, 0.5], [[1.0, 0.9], [0.9, 1.0]]) == pytest.approx([1.0, 0.0], abs=1e-12)


def test_kelly_of_a_singular_covariance_is_unknown() -> None:
    """Two markets with ρ 1 have no one answer."""
    assert kelly_weights([1.0, 1.0], [[1.0, 1.0], [1.0, 1.0]]) is None


# Volatility


def test_volatility_is_the_deviation_of_returns_scaled_to_a_year() -> None:
    """Hourly closes, against numpy with ddof 1; two closes have one return, and no deviation."""
    closes = [100.0 * exp(0.01 * sin) for sin in np.random.default_rng(3).normal(size=200).cumsum()]
    returns = np.diff(closes) / closes[:-1]
    assert annual_volatility(closes, 3600.0) == pytest.approx(float(returns.std(ddof=1)) * sqrt(8760.0), rel=1e-12)
    assert annual_volatility(closes[:2], 3600.0) is None


@pytest.mark.parametrize(("volatility", "leverage", "bound"), [("0.8", "1/2", "target"), ("0.01", "4", "floor")])
def test_a_volatility_target_divides_by_volatility_or_its_floor(volatility: str, leverage: str, bound: str) -> None:
    """Target 40%: at 80% half of equity; at 1% the floor of 10% makes it 4, not 40."""
    found = target_volatility(D("0.4"), given("volatility", D(volatility)), D("0.1"))
    assert (found.leverage, found.bound) == (Fraction(leverage), f"volatility {bound}")


def test_an_unknown_volatility_has_no_target() -> None:
    """It is not zero, and not the floor."""
    found = target_volatility(D("0.4"), SizingInput("volatility", None, unknown="two returns"), D("0.1"))
    assert (found.leverage, found.unknown) == (None, "two returns")


def test_the_factor_of_a_book_brings_its_volatility_to_the_target() -> None:
    """Equal σ 1, ρ 0, halves: σ √½; a target of 0.5 is a factor of 0.7071."""
    found = book_factor(D("0.5"), [0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]])
    assert found is not None
    assert float(found) == pytest.approx(0.5 / sqrt(0.5), rel=1e-12)
    assert book_factor(D("0.5"), [0.5, -0.5], [[1.0, 1.0], [1.0, 1.0]]) is None


# Risk parity


def test_risk_parity_solves_its_equations_as_scipy_does() -> None:
    """Sy = b ÷ y by `scipy.optimize.root`, in the logarithm of y, from a start that is off by 30%.

    There is one root (Spinu, 2013). The weights equal within 1e-9.

    Of 300 random books of one to eight markets, scipy solves at least 280; the contributions are checked of all.
    """
    compared = 0
    for seed in range(300):
        count = seed % 8 + 1
        covariance, budgets = random_covariance(seed, count), np.random.default_rng(seed).uniform(0.2, 2.0, size=count)
        found = risk_parity(covariance, [float(each) for each in budgets])
        assert found is not None
        share, parts = budgets / budgets.sum(), np.array(found) * (np.array(covariance) @ np.array(found))
        assert [float(each) for each in parts / parts.sum()] == pytest.approx([float(each) for each in share], rel=1e-9)
        begin = np.log(found) + np.random.default_rng(seed).normal(0.0, 0.3, size=count)
        if (weights := weights_by_scipy(np.array(covariance), share, begin)) is not None:
            assert found == pytest.approx(weights, rel=1e-9)
            compared += 1
    assert compared >= 280


def weights_by_scipy(covariance: Floats, share: Floats, begin: Floats) -> list[float] | None:
    """The weights of the root; None if the solver finds none of 1e-13."""
    scale = sqrt(float(np.exp(begin) @ covariance @ np.exp(begin)))
    begin = begin - np.log(scale)  # weights sum to 1, y does not
    with np.errstate(all="ignore"):  # its steps may leave the numbers; such a root is not used
        solved = root(lambda z: _off(z, covariance) - share, begin, jac=lambda z: _slopes(z, covariance), tol=1e-15)
    if not np.abs(solved.fun).max() <= 1e-13:
        return None
    return [float(each) for each in np.exp(solved.x) / np.exp(solved.x).sum()]


def _off(z: Floats, covariance: Floats) -> Floats:
    found: Floats = np.exp(z) * (covariance @ np.exp(z))
    return found


def _slopes(z: Floats, covariance: Floats) -> Floats:
    found: Floats = np.diag(_off(z, covariance)) + np.outer(np.exp(z), np.exp(z)) * covariance
    return found


@for_any(st.floats(0.05, 3.0), st.floats(0.05, 3.0), st.floats(-0.95, 1.0))
def test_two_markets_get_inverse_volatility_whatever_their_correlation(a: float, b: float, rho: float) -> None:
    """w = (1/a, 1/b) scaled to one, also at ρ = 1, where S is singular (Maillard et al., 2010)."""
    found = risk_parity(covariance_of([a, b], [[1.0, rho], [rho, 1.0]], [1, 1]), [1.0, 1.0])
    assert found == pytest.approx([b / (a + b), a / (a + b)], rel=1e-9)


def test_equal_correlations_get_inverse_volatility() -> None:
    """ρ 0.4 of each pair of four."""
    sizes = [0.2, 0.4, 0.8, 1.6]
    matrix = [[1.0 if i == j else 0.4 for j in range(4)] for i in range(4)]
    inverse = [1.0 / each for each in sizes]
    expected = [each / sum(inverse) for each in inverse]
    assert risk_parity(covariance_of(sizes, matrix, [1] * 4), [1.0] * 4) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "covariance",
    [
        [[1.0, -1.0], [-1.0, 1.0]],
        [[4.0, -2.0], [-2.0, 1.0]],
        [[1.0, 0.0], [0.0, 0.0]],
        [[1.0, float("nan")], [0.0, 1.0]],
    ],
)
def test_risk_parity_that_does_not_exist_is_unknown(covariance: list[list[float]]) -> None:
    """ρ −1, which has no risk to share, a volatility of zero, and a number that is none."""
    assert risk_parity(covariance, [1.0, 1.0]) is None


def test_a_long_and_a_short_of_one_market_share_no_risk() -> None:
    """ρ 1 signed by side is −1."""
    assert risk_parity(covariance_of([0.5, 0.5], [[1.0, 1.0], [1.0, 1.0]], [1, -1]), [1.0, 1.0]) is None


@pytest.mark.parametrize(
    "matrix",
    [[[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]], [[1.0, 0.5, 0.0], [0.4, 1.0, 0.0], [0.0, 0.0, 1.0]]],
)
def test_numbers_that_are_no_correlations_are_an_error(matrix: list[list[float]]) -> None:
    """0.9, 0.9 and −0.9 have the eigenvalue −0.8; a pair cannot have two correlations."""
    with pytest.raises(SizingError, match="correlations"):
        covariance_of([1.0] * 3, matrix, [1] * 3)


# Consensus


def suggestion(method: str, leverage: str | None, *, veto: bool = False) -> Suggestion:
    if leverage is None:
        return Suggestion(method, None, "b", unknown="not enough")
    return Suggestion(method, Fraction(leverage), "b", is_veto=veto)


def test_a_consensus_is_the_median_of_the_known() -> None:
    """Of 1, 2 and 50 the median is 2; the unknown one is not zero."""
    methods = [suggestion("a", "1"), suggestion("b", "50"), suggestion("c", "2"), suggestion("d", None)]
    assert consensus(methods, 3).leverage == 2
    assert consensus(methods[:2], 1).leverage == Fraction(51, 2)


def test_below_the_quorum_the_consensus_is_unknown_and_names_what_is_missing() -> None:
    """Two known of three, where three are required."""
    found = consensus([suggestion("a", "1"), suggestion("b", "2"), suggestion("c", None)], 3)
    assert found.leverage is None
    assert found.unknown == "2 of 3 methods are known, and the quorum is 3; c: not enough"


def test_one_method_without_an_edge_vetoes_the_rest() -> None:
    """No number of other methods makes an edge."""
    found = consensus([suggestion("a", "1"), suggestion("b", "2"), suggestion("kelly", "0", veto=True)], 2)
    assert (found.leverage, found.is_veto, found.bound) == (0, True, "no edge by kelly, which is a veto")


@pytest.mark.parametrize("quorum", [0, 4])
def test_a_quorum_is_one_to_the_number_of_methods(quorum: int) -> None:
    """Zero would agree with nobody."""
    with pytest.raises(SizingError, match="quorum"):
        consensus([suggestion(name, "1") for name in "abc"], quorum)


def record(count: int, **leverage: float) -> list[SizingDecision]:
    """Decisions whose market returns are drawn once; each method takes a leverage that alternates by 10%."""
    returns = np.random.default_rng(11).normal(0.004, 0.02, size=count)
    return [
        SizingDecision({name: D(repr(size)) for name, size in leverage.items()}, D(repr(float(each))))
        for each in returns
    ]


def test_copies_of_one_strategy_at_four_sizes_weigh_the_same() -> None:
    """0.5, 1, 2 and 4 times: by profit the largest would lead."""
    weights = performance_weights(["a", "b", "c", "d"], record(100, a=0.5, b=1.0, c=2.0, d=4.0))
    assert list(weights.values()) == pytest.approx([1.0] * 4)


def test_fewer_than_thirty_decisions_weigh_nothing() -> None:
    """29 of a perfect record are the equal weight."""
    good = [SizingDecision({"a": ONE, "b": D(i % 2)}, D("0.01") * (1 + i % 3)) for i in range(29)]
    assert performance_weights(["a", "b"], good) == {"a": 1.0, "b": 1.0}


def test_weights_are_ratios_of_mean_to_deviation_from_half_to_twice() -> None:
    """By numpy: score ÷ mean score, within 0.5 and 2."""
    generator = np.random.default_rng(5)
    returns, sizes = generator.normal(0.01, 0.02, size=60), generator.uniform(0.2, 2.0, size=(60, 3))
    decisions = [
        SizingDecision({name: D(repr(float(row[i]))) for i, name in enumerate("abc")}, D(repr(float(result))))
        for row, result in zip(sizes, returns, strict=True)
    ]
    streams = sizes * returns[:, None]
    scores = streams.mean(axis=0) / streams.std(axis=0, ddof=1)
    expected = np.clip(scores / scores.mean(), 0.5, 2.0)
    weights = performance_weights(list("abc"), decisions)
    assert [weights[name] for name in "abc"] == pytest.approx([float(each) for each in expected], rel=1e-9)


@for_any(st.lists(st.tuples(st.fractions(0, 10), st.integers(1, 4)), min_size=1, max_size=6))
def test_a_weighted_median_is_the_median_of_copies(values: list[tuple[Fraction, int]]) -> None:
    """Each value as often as its weight says."""
    copies = sorted(value for value, weight in values for _ in range(weight))
    middle = (copies[(len(copies) - 1) // 2] + copies[len(copies) // 2]) / 2
    assert weighted_median([(value, float(weight)) for value, weight in values]) == middle


def test_growth_at_half_of_kelly_is_three_quarters_in_simulation_free_form() -> None:
    """For small bets E ln(1 + k f X) ≈ growth of k: p 0.52, ±1%, half of Kelly."""
    full = float(binary_leverage(Fraction(52, 100), Fraction(1, 100), Fraction(1, 100)))
    grows = {k: 0.52 * log1p(k * full * 0.01) + 0.48 * log1p(-k * full * 0.01) for k in (0.5, 1.0)}
    assert grows[0.5] / grows[1.0] == pytest.approx(0.75, abs=1e-3)


def test_pairs_of_markets_are_sized_alike_in_any_order() -> None:
    """Risk parity of a permuted book is the permuted answer."""
    covariance = random_covariance(1, 3)
    found = risk_parity(covariance, [1.0, 2.0, 3.0])
    assert found is not None
    for i, j in combinations(range(3), 2):
        order = [i, j, 3 - i - j]
        moved = [[covariance[a][b] for b in order] for a in order]
        assert risk_parity(moved, [(1.0, 2.0, 3.0)[a] for a in order]) == pytest.approx(
            [found[a] for a in order], rel=1e-9
        )
