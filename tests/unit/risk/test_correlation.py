"""Correlations and groups, compared with NumPy, SciPy, closed forms and a search of all partitions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations
from math import atanh, sqrt, tanh

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from killswitch.risk.correlation import (
    UNKNOWN_PAIR,
    Correlated,
    Linkage,
    Method,
    Pair,
    by_interval,
    complete_linkage,
    correlated,
    group_of,
    interval,
    is_correlation_matrix,
    pair,
    ranks,
    residual,
    robust,
    winsorised,
)

VALUES = st.lists(st.integers(-300, 300).map(lambda each: each / 1e4), min_size=4, max_size=60)


def normal_pair(count: int, rho: float, seed: int = 1) -> tuple[list[float], list[float]]:
    """Two normal series of this correlation."""
    drawn = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, rho], [rho, 1]], count)
    return drawn[:, 0].tolist(), drawn[:, 1].tolist()


def strength_of(numbers: dict[Pair, float]) -> Callable[[str, str], Linkage]:
    """The link of a pair from declared numbers."""
    return lambda one, other: Linkage(numbers[pair(one, other)], numbers[pair(one, other)])


# Estimates


@given(VALUES)
def test_returns_beyond_four_deviations_are_set_to_the_bound(values: list[float]) -> None:
    """Against NumPy's clip at median ± 4 × 1.4826 × MAD; with a MAD of 0 nothing is bounded."""
    middle = np.median(values)
    bound = 4 * 1.4826 * np.median(np.abs(np.array(values) - middle))
    wanted = np.clip(values, middle - bound, middle + bound) if bound > 0 else np.array(values)
    assert winsorised(values) == pytest.approx(wanted.tolist(), abs=1e-15)


@given(VALUES)
def test_ranks_are_those_of_scipy_with_ties_shared(values: list[float]) -> None:
    assert ranks(values) == stats.rankdata(values).tolist()


PAIRS = st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=4, max_size=60)


@given(PAIRS)
def test_winsorised_correlation_is_that_of_numpy_on_the_bounded_returns(rows: list[tuple[int, int]]) -> None:
    one, other = ([row[i] / 1e4 for row in rows] for i in (0, 1))
    found = correlated(robust(one, "winsorised"), robust(other, "winsorised"), "winsorised", 2)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found == UNKNOWN_PAIR
    elif found.value is not None:
        assert found.value == pytest.approx(np.corrcoef(winsorised(one), winsorised(other))[0, 1], abs=1e-9)


@given(PAIRS)
def test_rank_correlation_is_twice_the_sine_of_that_of_scipy(rows: list[tuple[int, int]]) -> None:
    one, other = [row[0] / 1e4 for row in rows], [row[1] / 1e4 for row in rows]
    found = correlated(robust(one, "spearman"), robust(other, "spearman"), "spearman", 2)
    if len(set(one)) > 1 and len(set(other)) > 1:
        wanted = 2 * np.sin(np.pi * stats.spearmanr(one, other).statistic / 6)
        assert found.value == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("method", ["winsorised", "spearman"])
def test_both_methods_estimate_the_correlation_of_a_normal_pair(method: Method) -> None:
    """Of 20,000 returns at 0.7 the estimate is within four standard errors, (1 − ρ²) ÷ √n = 0.0036."""
    one, other = normal_pair(20_000, 0.7)
    found = correlated(robust(one, method), robust(other, method), method, 250)
    assert found.value == pytest.approx(0.7, abs=4 * 0.0036)


def test_one_crash_bar_that_hits_a_single_market_does_not_dissolve_a_pair() -> None:
    """One return of −20% among returns of 1% takes the plain sample correlation of a pair at 0.8 below 0.65."""
    one, other = normal_pair(288, 0.8)
    one, other = [each / 100 for each in one], [each / 100 for each in other]
    one[100] = -0.20
    other[100] = 0.0
    found = correlated(robust(one, "winsorised"), robust(other, "winsorised"), "winsorised", 250)
    assert np.corrcoef(one, other)[0, 1] < 0.65
    assert found.value is not None
    assert found.value > 0.75


def test_interval_of_seven_tenths_with_sixty_returns_is_from_54_to_81_percent() -> None:
    low, high = interval(0.7, 60)
    assert (round(low, 2), round(high, 2)) == (0.54, 0.81)


@given(st.floats(-0.999, 0.999), st.integers(4, 10_000))
def test_interval_is_fishers(value: float, count: int) -> None:
    half = 1.96 / sqrt(count - 3)
    assert interval(value, count) == pytest.approx((tanh(atanh(value) - half), tanh(atanh(value) + half)))


@pytest.mark.parametrize(("count", "least"), [(249, 250), (3, 4)])
def test_too_few_returns_are_unknown(count: int, least: int) -> None:
    one, other = (robust(each, "winsorised") for each in normal_pair(count, 0.9))
    assert correlated(one, other, "winsorised", least) == UNKNOWN_PAIR


def test_price_that_did_not_move_is_unknown() -> None:
    assert robust([0.01] * 300, "winsorised") is None
    assert correlated(None, robust(normal_pair(300, 0.9)[0], "winsorised"), "winsorised", 250) == UNKNOWN_PAIR


def test_series_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 returns against 2"):
        correlated([0.1, 0.2, 0.3], [0.1, 0.2], "winsorised", 2)


@given(st.integers(0, 1_000))
def test_residual_is_uncorrelated_with_the_hub_and_is_what_numpy_leaves(seed: int) -> None:
    hub, one = normal_pair(50, 0.8, seed)
    left = residual(one, hub)
    assert left is not None
    slope, intercept = np.polyfit(hub, one, 1)
    assert left == pytest.approx((np.array(one) - slope * np.array(hub) - intercept).tolist(), abs=1e-9)
    assert float(np.dot(left, hub)) == pytest.approx(0.0, abs=1e-8)


def test_hub_that_did_not_move_leaves_no_residual() -> None:
    assert residual([0.1, 0.2, 0.1], [0.0, 0.0, 0.0]) is None


# Declared numbers


def matrix(*above: float) -> list[list[float]]:
    """A symmetric matrix with a diagonal of ones from its numbers above the diagonal, row by row."""
    size = next(n for n in range(1, 20) if n * (n - 1) // 2 == len(above))
    found = np.eye(size)
    for (i, j), value in zip(combinations(range(size), 2), above, strict=True):
        found[i, j] = found[j, i] = value
    return [[float(value) for value in row] for row in found]


@pytest.mark.parametrize(
    ("numbers", "is_one"),
    [((0.9, 0.9, -0.9), False), ((0.9, 0.9, 0.9), True), ((1.0, 1.0, 1.0), True), ((1.0, 1.0, 0.9), False), ((), True),
     ((-0.5, -0.5, -0.5), True), ((-0.51, -0.51, -0.51), False)],
)  # fmt: skip
def test_declared_numbers_are_a_correlation_matrix_or_not(numbers: tuple[float, ...], is_one: bool) -> None:
    """0.9, 0.9, −0.9 has an eigenvalue of −0.8; three equal ones may be −0.5 and no less."""
    assert is_correlation_matrix(matrix(*numbers)) is is_one


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.integers(-20, 20), min_size=n * (n - 1) // 2,
                                                    max_size=n * (n - 1) // 2)))  # fmt: skip
def test_it_is_one_where_numpy_finds_no_negative_eigenvalue(twentieths: list[int]) -> None:
    found = matrix(*(each / 20 for each in twentieths))
    least = float(np.linalg.eigvalsh(np.array(found)).min())
    if abs(least) > 1e-7:
        assert is_correlation_matrix(found) is (least > 0)


# Groups


def test_complete_linkage_does_not_chain() -> None:
    numbers = {("A", "B"): 0.9, ("B", "C"): 0.8, ("A", "C"): 0.2}
    assert complete_linkage("ABC", strength_of(numbers), 0.7, 0.6) == (("A", "B"), ("C",))


def test_ties_go_by_name() -> None:
    numbers = {("A", "B"): 0.8, ("B", "C"): 0.8, ("A", "C"): 0.0}
    assert complete_linkage("CBA", strength_of(numbers), 0.7, 0.6) == (("A", "B"), ("C",))


@pytest.mark.parametrize(
    ("rho", "before", "together"),
    [(0.70, False, True), (0.69, False, False), (0.65, True, True), (0.60, True, True), (0.59, True, False)],
)
def test_pair_enters_at_seven_tenths_and_leaves_below_six(rho: float, before: bool, together: bool) -> None:
    earlier = (("A", "B"),) if before else ()
    found = complete_linkage("AB", strength_of({("A", "B"): rho}), 0.7, 0.6, earlier)
    assert (found == (("A", "B"),)) is together


def test_opposite_moves_are_no_group() -> None:
    """ρ ≥ threshold, not |ρ|."""
    assert complete_linkage("AB", strength_of({("A", "B"): -0.95}), 0.7, 0.6) == (("A",), ("B",))


def test_pair_in_doubt_is_together_for_limits_and_apart_for_netting() -> None:
    """0.65 with 288 returns: from 0.58 to 0.71."""
    pairs = {("A", "B"): Correlated(0.65, *interval(0.65, 288))}
    assert complete_linkage("AB", by_interval(pairs, together=True), 0.7, 0.6) == (("A", "B"),)
    assert complete_linkage("AB", by_interval(pairs, together=False), 0.7, 0.6) == (("A",), ("B",))


def test_unknown_pair_is_together_for_limits_and_apart_for_netting() -> None:
    assert complete_linkage("AB", by_interval({}, together=True), 0.7, 0.6) == (("A", "B"),)
    assert complete_linkage("AB", by_interval({}, together=False), 0.7, 0.6) == (("A",), ("B",))


def test_unknown_pair_does_not_part_two_that_are_surely_correlated() -> None:
    """A–B is 0.9 and B–C 0.1; C may be correlated with A, and A stays with B."""
    pairs = {("A", "B"): Correlated(0.9, 0.9, 0.9), ("B", "C"): Correlated(0.1, 0.1, 0.1)}
    assert complete_linkage("ABC", by_interval(pairs, together=True), 0.7, 0.6) == (("A", "B"), ("C",))


def test_symbol_in_no_group_is_its_own() -> None:
    assert group_of("Z", (("A", "B"),)) == ("Z",)
    assert group_of("B", (("A", "B"),)) == ("A", "B")


NUMBERS = st.integers(2, 6).flatmap(
    lambda n: st.lists(
        st.integers(-100, 100), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2, unique=True
    ).map(lambda found: dict(zip(combinations("ABCDEF"[:n], 2), [each / 100 for each in found], strict=True)))
)  # fmt: skip


@given(NUMBERS, st.sampled_from([0.3, 0.7]))
def test_groups_are_those_of_scipys_complete_linkage(numbers: dict[Pair, float], enter: float) -> None:
    """Without equal correlations: SciPy cuts the tree of the distances 1 − ρ at 1 − threshold."""
    names = sorted({name for each in numbers for name in each})
    distances = np.array([[0.0 if a == b else 1.0 - numbers[pair(a, b)] for b in names] for a in names])
    labels = fcluster(linkage(squareform(distances), "complete"), 1.0 - enter + 1e-12, "distance")
    wanted = {tuple(name for name, of in zip(names, labels, strict=True) if of == label) for label in labels}
    assert set(complete_linkage(names, strength_of(numbers), enter, enter)) == wanted


@given(NUMBERS, st.randoms(use_true_random=False), st.sampled_from([(), (("A", "B", "C"),), (("A", "C"), ("B", "D"))]))
def test_groups_do_not_depend_on_the_order_of_the_names(
    numbers: dict[Pair, float], chance: random.Random, before: tuple[tuple[str, ...], ...]
) -> None:
    names = sorted({name for each in numbers for name in each})
    shuffled = chance.sample(names, len(names))
    assert complete_linkage(shuffled, strength_of(numbers), 0.7, 0.6, before) == complete_linkage(
        names, strength_of(numbers), 0.7, 0.6, before
    )


def partitions(names: list[str]) -> Iterator[list[list[str]]]:
    """Every partition of the names."""
    if not names:
        yield []
        return
    first, *others = names
    for part in partitions(others):
        yield [[first], *part]
        for i, group in enumerate(part):
            yield [*part[:i], [first, *group], *part[i + 1 :]]


@given(NUMBERS, st.booleans())
def test_groups_are_a_partition_that_no_two_groups_can_join(numbers: dict[Pair, float], was_one: bool) -> None:
    """Among all partitions, by search: each pair of a group is linked, and no two groups could join at 0.7."""
    names = sorted({name for each in numbers for name in each})
    found = complete_linkage(names, strength_of(numbers), 0.7, 0.6, (tuple(names),) if was_one else ())

    def is_linked(group: list[str], least: float) -> bool:
        return all(numbers[pair(a, b)] >= least for a, b in combinations(group, 2))

    least = 0.6 if was_one else 0.7
    sound = [
        {tuple(sorted(group)) for group in part}
        for part in partitions(names)
        if all(is_linked(group, least) for group in part)
        and not any(all(numbers[pair(a, b)] >= 0.7 for a in one for b in other) for one, other in combinations(part, 2))
    ]
    assert set(found) in sound


@given(NUMBERS)
def test_groups_that_still_cohere_stay_whatever_else_happens(numbers: dict[Pair, float]) -> None:
    """Two names that are together and at least at 0.6 are together at the next estimate, if each is in a pair only."""
    if numbers[("A", "B")] >= 0.6:
        names = sorted({name for each in numbers for name in each})
        found = complete_linkage(names, strength_of(numbers), 0.7, 0.6, (("A", "B"),))
        assert group_of("A", found) == group_of("B", found)
