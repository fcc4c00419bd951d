"""C25: the legs of a hedge are closed in an order in which closing is never riskier than holding."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import permutations, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.planning.orders import hedge_legs
from killswitch.planning.orders.hedge_legs import leg_order

D = Decimal


def leg_slices(*sizes: str) -> tuple[Decimal, ...]:
    return tuple(D(size) for size in sizes)


def peak(net: Decimal, legs: Sequence[Sequence[Decimal]], order: Sequence[int]) -> Decimal:
    """The greatest net exposure during the close, the start included."""
    queues = [list(leg) for leg in legs]
    highest = abs(net)
    for i in order:
        net -= queues[i].pop(0)
        highest = max(highest, abs(net))
    return highest


def test_c25_the_heavier_side_goes_first_whatever_its_rank() -> None:
    """Ranked first, the short of 8 would leave 10 long uncovered: the long precedes it, and 8 short are left."""
    assert leg_order(D(2), [leg_slices("-8"), leg_slices("10")]) == [1, 0]


def test_c25_slices_of_a_flat_pair_take_turns() -> None:
    """Ten against ten in slices of five: at most one slice is uncovered."""
    order = leg_order(D(0), [leg_slices("5", "5"), leg_slices("-5", "-5")])
    assert peak(D(0), [leg_slices("5", "5"), leg_slices("-5", "-5")], order) == 5


def test_legs_of_one_side_keep_their_rank() -> None:
    """Where no order raises the net the given order stays."""
    assert leg_order(D(6), [leg_slices("1"), leg_slices("3"), leg_slices("2")]) == [0, 1, 2]


def test_positions_that_stay_open_count_for_the_net() -> None:
    """Long 10 against a short of 30 of which 20 are closed (net −20): the short covers too much, and goes first."""
    assert leg_order(D(-20), [leg_slices("10"), leg_slices("-20")]) == [1, 0]


SIZES = st.integers(1, 12).flatmap(lambda size: st.sampled_from([D(size), D(-size)]))


@settings(deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=6), st.integers(-20, 20))
def test_c25_the_net_never_rises_above_the_start_where_any_order_manages_that(sizes: list[Decimal], rest: int) -> None:
    """Against every order of up to six legs: none has a lower peak than the one that is chosen."""
    legs = [(size,) for size in sizes]
    net = sum(sizes, D(rest))
    best = min(peak(net, legs, order) for order in permutations(range(len(legs))))
    assert peak(net, legs, leg_order(net, legs)) == best


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=2, max_size=5), st.data())
def test_every_slice_is_sent_once_whatever_their_number(sizes: list[list[int]], data: st.DataObject) -> None:
    """By either search, legs are closed completely and their slices in sequence."""
    signs = data.draw(st.lists(st.sampled_from([1, -1]), min_size=len(sizes), max_size=len(sizes)))
    legs = [[D(part * sign) for part in leg] for leg, sign in zip(sizes, signs, strict=True)]
    order = leg_order(D(0), legs)
    assert [order.count(i) for i in range(len(legs))] == [len(leg) for leg in legs]


@pytest.mark.parametrize("seed", range(40))
def test_c25_the_best_order_is_found_beyond_exhaustive_search_too(seed: int) -> None:
    """Four legs of eight slices of any size, 6,561 intermediate states: no order of them has a lower peak.

    The expected peak is computed backwards over all states. By the heavier side alone some rise higher.
    """
    chance = Random(seed)
    legs = [[D(sign * chance.randint(1, 20)) for _ in range(8)] for sign in (1, 1, -1, -1)]
    net = sum(map(sum, legs), D(chance.choice([0, 5, -5])))
    assert peak(net, legs, leg_order(net, legs)) == least_peak(net, legs)


def least_peak(net: Decimal, legs: Sequence[Sequence[Decimal]]) -> Decimal:
    """The lowest peak exposure of any order: over all intermediate states, computed backwards from the end."""
    ahead: dict[tuple[int, ...], Decimal] = {}
    for done in product(*(range(len(leg), -1, -1) for leg in legs)):
        following = [
            ahead[(*done[:i], done[i] + 1, *done[i + 1 :])] for i, leg in enumerate(legs) if done[i] < len(leg)
        ]
        left = net - sum((sum(leg[:count], D(0)) for leg, count in zip(legs, done, strict=True)), D(0))
        ahead[done] = max(abs(left), min(following, default=D(0)))
    return ahead[(0,) * len(legs)]


def test_c25_a_long_pair_in_many_slices_is_closed_in_turns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond exhaustive search, the heavier side first still uncovers one slice at most."""
    monkeypatch.setattr(hedge_legs, "MOST_STATES", 0)
    legs = [leg_slices(*["1"] * 80), leg_slices(*["-1"] * 80)]
    assert peak(D(0), legs, leg_order(D(0), legs)) == 1
    assert leg_order(D(2), [leg_slices("-8"), leg_slices("10")]) == [1, 0]
