"""The order of closing: closed forms, a naive search, and the shares of books whose variance grows on the way."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.risk.closing_order import by_share, in_turn, peak_variance, risk_first
from killswitch.risk.covariance import Matrix, variance_shares

PAIR: Matrix = [[1.0, 0.9], [0.9, 1.0]]
"""Two markets of one volatility that move together."""


def whole(exposures: list[float]) -> list[list[float]]:
    """One order for each position."""
    return [[each] for each in exposures]


def test_closing_one_leg_of_a_hedge_leaves_the_other_naked() -> None:
    """Long 100 against short 90, ρ 0.9: 100² + 90² − 2 × 0.9 × 9,000 = 1,900; the short leg alone is 8,100."""
    assert peak_variance([100.0, -90.0], PAIR, whole([100.0, -90.0]), [0, 1]) == pytest.approx(8_100 / 1_900)


def test_parts_of_both_legs_in_turn_keep_the_hedge() -> None:
    """Ten parts: after the first of the long leg 90² + 90² − 2 × 0.9 × 8,100 = 1,620, which is less than 1,900."""
    slices = [[10.0] * 10, [-9.0] * 10]
    assert peak_variance([100.0, -90.0], PAIR, slices, in_turn([100.0, -90.0], PAIR, slices)) == pytest.approx(
        1_620 / 1_900
    )


def test_parts_go_in_turn_by_the_share_that_is_closed() -> None:
    assert by_share([2, 4]) == [1, 0, 1, 1, 0, 1]
    assert by_share([1, 1, 1]) == [0, 1, 2]
    assert by_share([]) == []


def test_peak_of_a_book_without_risk_or_orders_is_unknown() -> None:
    assert peak_variance([0.0, 0.0], PAIR, [[], []], []) is None
    assert peak_variance([1.0, 1.0], PAIR, [[], []], []) is None


def test_next_is_the_largest_component_of_what_is_left() -> None:
    """By shares once 60, 50, −40 of one market go as 0, 1, 2; what is left after 60 is 50 − 40, and then −40."""
    same: Matrix = [[1.0] * 3] * 3
    assert risk_first([60.0, 50.0, -40.0], same, whole([60.0, 50.0, -40.0])) == [0, 1, 2]
    # after 60 of the hub is closed, the short is the larger side: −40 moves against 30
    assert risk_first([60.0, 30.0, -40.0], same, whole([60.0, 30.0, -40.0])) == [0, 2, 1]


def test_group_with_the_smaller_place_closes_first() -> None:
    same: Matrix = [[1.0] * 3] * 3
    assert risk_first([60.0, 50.0, 40.0], same, whole([60.0, 50.0, 40.0]), [1, 0, 0]) == [1, 2, 0]


BOOKS = st.lists(st.tuples(st.integers(-100, 100).filter(bool), st.integers(1, 4)), min_size=1, max_size=6)


@given(BOOKS, st.integers(0, 1_000))
def test_each_step_is_the_one_that_a_naive_search_finds(book: list[tuple[int, int]], seed: int) -> None:
    """With NumPy, from the exposures that are left, at each step anew; every slice goes once."""
    exposures = [float(x) for x, _ in book]
    slices = [[x / count] * count for x, count in book]
    covariance = random_covariance(len(book), seed)
    order = risk_first(exposures, covariance, slices)
    assert Counter(order) == {i: count for i, (_, count) in enumerate(book)}
    left, matrix = np.array(exposures), np.array(covariance)
    remaining = Counter(order)
    for chosen in order:
        components = left * (matrix @ left)
        best = max(components[i] for i in remaining if remaining[i])
        assert components[chosen] == pytest.approx(best, rel=1e-9, abs=1e-6)
        left[chosen] -= book[chosen][0] / book[chosen][1]
        remaining[chosen] -= 1


def random_covariance(size: int, seed: int) -> Matrix:
    """A market factor with betas from 0.6 to 1.8, and a half as much of each symbol's own."""
    chance = np.random.default_rng(seed)
    beta, own = chance.uniform(0.6, 1.8, size), chance.uniform(0.3, 0.7, size)
    return [[float(each) for each in row] for row in np.outer(beta, beta) + np.diag(own**2)]


def shares_above_one(*, hedged: bool, books: int = 400) -> dict[str, float]:
    """The share of random books whose variance is larger on the way than at the start, by order."""
    found = Counter[str]()
    for seed in range(books):
        chance = random.Random(seed)
        size = chance.randint(6, 10)
        signs = [1 if not hedged or i % 2 else -1 for i in range(size)]
        exposures = [sign * chance.uniform(20, 100) for sign in signs]
        covariance = random_covariance(size, seed)
        shares = variance_shares(exposures, covariance)
        assert shares is not None
        once = sorted(range(size), key=lambda i, shares=shares: -shares[i])  # type: ignore[misc] # bound now
        parts = [[each / 10] * 10 for each in exposures]
        orders = {
            "once": peak_variance(exposures, covariance, whole(exposures), once),
            "again": peak_variance(
                exposures, covariance, whole(exposures), risk_first(exposures, covariance, whole(exposures))
            ),
            "in turn": peak_variance(exposures, covariance, parts, in_turn(exposures, covariance, parts)),
        }
        found.update(name for name, peak in orders.items() if peak is not None and peak > 1.0)
    return {name: found[name] / books for name in ("once", "again", "in turn")}


def test_slices_of_all_never_pass_the_variance_of_the_start_and_component_risk_once_mostly_does() -> None:
    """As of beyond.md: of hedged books component risk once 66%, again after each order 33%, slices of all 0%."""
    found = shares_above_one(hedged=True)
    assert found["in turn"] == 0.0
    assert found["again"] < found["once"]
    assert found["once"] > 0.5


def test_directional_books_seldom_pass_it() -> None:
    """As of beyond.md: 8%, 2% and 0%."""
    found = shares_above_one(hedged=False)
    assert found["in turn"] == 0.0
    assert found["again"] <= found["once"] <= 0.1
