"""The fewest reductions to a net of zero: properties for any book, with a search over all subsets as the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.planning.targets.neutral import (
    Cuts,
    ExposedLeg,
    WeightedBase,
    after_cuts,
    exposure,
    fewest_cuts,
    is_riskier,
    least_risk_cuts,
    nets,
    variance_of,
)
from killswitch.valuation.scope_view import PnlKey

ONE = Decimal(1)


def leg(base: str, units: int | str, number: int = 0, *, cuttable: bool = True) -> ExposedLeg:
    """A position of contracts of one base unit; negative units are short."""
    size = Decimal(units)
    side = "long" if size > 0 else "short"
    return ExposedLeg(base, ONE if size > 0 else -ONE, abs(size), (f"a{number}", base, side), is_cuttable=cuttable)


def bases(**weights: str) -> dict[str, WeightedBase]:
    """Every base unit is worth 1; the weights as text."""
    return {base: WeightedBase(ONE, Decimal(weight)) for base, weight in weights.items()}


def by_base(cuts: Cuts) -> dict[str, Decimal]:
    return {key[1]: sold for key, sold in cuts.contracts.items()}


def test_the_largest_of_the_heavier_side_goes_first() -> None:
    """Net 100 + 60 − 70 = 90: all of it from A, none from B."""
    book = [leg("A", 100), leg("B", 60), leg("C", -70)]
    assert by_base(fewest_cuts(book, bases(A="1", B="1", C="1"))) == {"A": Decimal(90)}


def test_a_weight_of_2_counts_twice() -> None:
    """β 1 and 2: 100 + 2 × 60 − 70 = 150, of which B has 120, and A gives the other 30."""
    cuts = fewest_cuts([leg("A", 100), leg("B", 60), leg("C", -70)], bases(A="1", B="2", C="1"))
    assert by_base(cuts) == {"B": Decimal(60), "A": Decimal(30)}
    assert (cuts.before, cuts.after) == (150, 0)


def test_a_short_of_a_negative_beta_is_exposed_like_a_long() -> None:
    """Short 50 of β −0.5 is +25: with a long of 10 the net is 35, and the short is the largest part of it."""
    assert by_base(fewest_cuts([leg("A", 10), leg("N", -50)], bases(A="1", N="-0.5"))) == {
        "N": Decimal(50), "A": Decimal(10),
    }  # fmt: skip


def test_a_long_of_a_negative_beta_is_a_hedge() -> None:
    """Long 100 of β 1, and long 40 of β −0.5, which hedges 20: 80 are cut of the first, none of the hedge."""
    assert by_base(fewest_cuts([leg("A", 100), leg("N", 40)], bases(A="1", N="-0.5"))) == {"A": Decimal(80)}


def test_a_beta_of_0_is_no_candidate() -> None:
    """The largest position has no market in it."""
    assert by_base(fewest_cuts([leg("Z", 500), leg("A", 10)], bases(Z="0", A="1"))) == {"A": Decimal(10)}


def test_long_5_and_short_3_of_one_symbol_is_one_order_on_the_long_side() -> None:
    """Hedge mode: net 2."""
    cuts = fewest_cuts([leg("A", 5, 1), leg("A", -3, 2)], bases(A="1"))
    assert dict(cuts.contracts) == {("a1", "A", "long"): Decimal(2)}


def test_spot_against_its_perpetual_is_left_alone() -> None:
    """A net of 0 in one base is no candidate, however large its legs are: the 50 of B go."""
    book = [leg("A", 1000, 1), leg("A", -1000, 2), leg("B", 50, 3)]
    assert dict(fewest_cuts(book, bases(A="1", B="1")).contracts) == {("a3", "B", "long"): Decimal(50)}


def test_legs_of_an_unknown_price_that_net_to_nothing_need_none() -> None:
    """A has no price: nothing is ordered of it, and nothing is missing."""
    book = [leg("A", 7, 1), leg("A", -7, 2), leg("B", 5, 3), leg("C", -2, 4)]
    assert by_base(fewest_cuts(book, bases(B="1", C="1"))) == {"B": Decimal(3)}


def test_rounding_down_leaves_the_rest_on_its_side() -> None:
    """Lots of 4: 8 of 9 are sold, and 1 is left. The second largest is no further order for the rest."""

    def lots(key: PnlKey, most: Decimal) -> Decimal:
        return most // 4 * 4 if key[1] == "A" else most

    cuts = fewest_cuts([leg("A", 20), leg("B", 8), leg("C", -19)], bases(A="1", B="1", C="1"), lots)
    assert by_base(cuts) == {"A": Decimal(8)}
    assert cuts.after == 1


def test_a_leg_that_cannot_be_sold_in_such_an_amount_is_passed_over() -> None:
    """Dust of the largest: the next one takes the whole of it."""

    def not_of_a(key: PnlKey, most: Decimal) -> Decimal:
        return Decimal(0) if key[1] == "A" else most

    cuts = fewest_cuts([leg("A", 20), leg("B", 8), leg("C", -23)], bases(A="1", B="1", C="1"), not_of_a)
    assert by_base(cuts) == {"B": Decimal(5)}


def test_a_coin_wallet_is_exposed_with_its_equity() -> None:
    """Short 60,000 USD face on 1 BTC from 60,000. At 50,000 the contracts hold −1.2 BTC and the wallet 1.2: nothing."""
    for mark in (Decimal(50_000), Decimal(60_000), Decimal(80_000)):
        held, gained = -60_000 / mark, 60_000 * (1 / mark - Decimal(1) / 60_000)
        short = ExposedLeg("BTC", held / 60_000, Decimal(60_000), ("m", "BTC/USD:BTC", "short"))
        wallet = ExposedLeg("BTC", ONE, ONE + gained, is_cuttable=False)
        net = nets([short, wallet])["BTC"]
        assert abs(net * mark) < Decimal("1e-15")
        deposit_only = (ONE + held) * mark
        assert (mark == 50_000) == (deposit_only.quantize(ONE) == -10_000)


UNITS = st.integers(-1000, 1000).filter(bool)
BOOKS = st.lists(st.tuples(st.sampled_from("ABCDEF"), UNITS), min_size=1, max_size=6)
WEIGHTS = st.fixed_dictionaries({base: st.integers(-30, 30) for base in "ABCDEF"})


def made(
    rows: Sequence[tuple[str, int]], tenths: Mapping[str, int]
) -> tuple[list[ExposedLeg], dict[str, WeightedBase]]:
    legs = [leg(base, units, number) for number, (base, units) in enumerate(rows)]
    return legs, {base: WeightedBase(ONE, Decimal(tenths[base]) / 10) for base in {row[0] for row in rows}}


@given(BOOKS, WEIGHTS, st.sampled_from([1, 7, 50]))
def test_it_only_reduces_and_the_net_neither_grows_nor_turns(
    rows: list[tuple[str, int]], tenths: dict[str, int], lot: int
) -> None:
    """Any book, any betas, any lot: 0 ≤ sold ≤ held, |B| not larger, the sign kept; so for the net of each base."""
    legs, weighted = made(rows, tenths)
    cuts = fewest_cuts(legs, weighted, lambda _, most: most // lot * lot)
    held = {each.key: each.contracts for each in legs}
    assert all(0 < sold <= held[key] for key, sold in cuts.contracts.items())
    tiny = Decimal("1e-15")
    assert abs(cuts.after) <= abs(cuts.before)
    assert cuts.after * cuts.before >= -tiny
    after, before = after_cuts(legs, cuts.contracts), nets(legs)
    assert cuts.after == exposure(after, weighted)
    assert all(abs(after[base]) <= abs(before[base]) and after[base] * before[base] >= -tiny for base in before)


def fewest_by_search(rows: Sequence[tuple[str, int]], tenths: Mapping[str, int]) -> int:
    """The size of the smallest set of positions whose reductions can reach B = 0, over all subsets, in fractions.

    Of a set, a base may give up what its members on the side of its net hold, at most its net.
    """
    net: dict[str, int] = {}
    for base, units in rows:
        net[base] = net.get(base, 0) + units
    left = sum((Fraction(tenths[base], 10) * units for base, units in net.items()), Fraction(0))
    for size in range(len(rows) + 1):
        for chosen in combinations(range(len(rows)), size):
            most = Fraction(0)
            for base in {rows[i][0] for i in chosen}:
                mine = sum(abs(rows[i][1]) for i in chosen if rows[i][0] == base and rows[i][1] * net[base] > 0)
                if tenths[base] * net[base] * left > 0:
                    most += abs(Fraction(tenths[base], 10)) * min(mine, abs(net[base]))
            if most >= abs(left):
                return size
    raise AssertionError("closing everything reaches 0")


@given(BOOKS, WEIGHTS)
def test_no_other_set_of_reductions_needs_fewer_orders(rows: list[tuple[str, int]], tenths: dict[str, int]) -> None:
    """Against every subset of at most six positions."""
    legs, weighted = made(rows, tenths)
    cuts = fewest_cuts(legs, weighted)
    assert abs(cuts.after) < Decimal("1e-15")
    assert len(cuts.contracts) == fewest_by_search(rows, tenths)


def test_selling_30_of_the_hedge_multiplies_the_variance_by_1_51() -> None:
    """The number of the definition: long BTC 100 (σ 2%), short ALT 70 (σ 3.5%, ρ 0.9)."""
    sigma = np.array([0.02, 0.035])
    matrix = np.outer(sigma, sigma) * np.array([[1, 0.9], [0.9, 1]])
    book = [leg("BTC", 100), leg("ALT", -70)]
    equal = bases(BTC="1", ALT="1")
    cuts = fewest_cuts(book, equal)
    assert by_base(cuts) == {"BTC": Decimal(30)}
    before = variance_of(nets(book), equal, matrix.tolist(), ["BTC", "ALT"])
    after = variance_of(after_cuts(book, cuts.contracts), equal, matrix.tolist(), ["BTC", "ALT"])
    assert is_riskier(before, after)
    assert after / before == pytest.approx(1.51, abs=0.005)
    x, y = np.array([100.0, -70.0]), np.array([70.0, -70.0])
    assert after / before == pytest.approx(float(y @ matrix @ y) / float(x @ matrix @ x))


@given(BOOKS, st.integers(1, 99), st.integers(0, 2**32 - 1))
def test_a_cut_by_component_risk_never_makes_the_book_riskier(
    rows: list[tuple[str, int]], percent: int, seed: int
) -> None:
    """Any covariance: what is kept is at most the declared share of the gross, and varies at most as before."""
    names = sorted({base for base, _ in rows})
    factors = np.random.default_rng(seed).normal(size=(len(names), len(names) + 2))
    matrix = (factors @ factors.T).tolist()
    legs, equal = made(rows, dict.fromkeys("ABCDEF", 10))
    cuts = least_risk_cuts(legs, equal, Decimal(percent) / 100, matrix, names, lambda _, most: most)
    before = variance_of(nets(legs), equal, matrix, names)
    after = variance_of(after_cuts(legs, cuts.contracts), equal, matrix, names)
    assert not is_riskier(before, after) or before < 1e-9
    gross = sum((each.contracts for each in legs), Decimal(0))
    left = gross - sum(cuts.contracts.values(), Decimal(0))
    assert left <= gross * percent / 100 + Decimal("1e-5") * gross
