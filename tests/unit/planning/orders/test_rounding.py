"""From target to orders: exact in venue units, never more than is held, never an exception."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.planning.rounding import MOST_ORDERS, Reduction, reduction
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
def test_c9_half_of_a_position_is_rounded_so_that_the_remainder_can_be_closed(
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
    """Half of 0.08 at 100 is worth 4: too little for a venue with a minimum of 5, unless it only reduces."""
    assert half("0.08", min_notional="5").parts == (D("0.04"),)
    assert half("0.08", min_notional="5", reduce_only=False).parts == (D("0.08"),)
    assert half("0.04", min_notional="5", reduce_only=False).blocked is not None


def test_c12_a_halted_symbol_is_blocked_with_the_reason() -> None:
    """It is blocked by itself, not the others."""
    held = position("X", "long", contracts="1", mark_price="100")
    result = reduction(held, D(0), rules("X", state="halted"), reduce_only=True)
    assert result.blocked == "X is halted at the venue"


def test_without_the_venues_rules_nothing_is_rounded_and_the_target_is_inexact() -> None:
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
def test_the_remainder_never_exceeds_the_target_nor_orders_the_position(
    units: int, percent: int, step: str, minimum_steps: int, maximum_steps: int
) -> None:
    """For every size: whole steps, within the venue's limits, summing to held − left, leaving at most the target.

    Where it would be more orders than anybody sends, it is one part, which the executor slices.
    """
    held = D(units) * D(step) / 4
    wanted = held * (100 - percent) / 100
    least = D(step) * minimum_steps
    most = least + D(step) * maximum_steps
    limits = {"amount_step": step, "min_amount": str(least), "max_amount": str(most)}
    result = reduction(position("X", "short", contracts=str(held)), wanted, rules("X", **limits), reduce_only=True)
    assert sum(result.parts) + result.target == held
    if result.blocked is None and percent:
        assert result.target <= wanted or held - result.target == (held // D(step)) * D(step)
        assert all(part % D(step) == 0 and part > D(0) for part in result.parts)
        assert max(result.parts, default=D(0)) <= most or (held / most > MOST_ORDERS and len(result.parts) == 1)


@given(st.integers(1, 400), st.integers(1, 12), st.integers(0, 14), st.one_of(st.none(), st.integers(1, 60)))
def test_every_slice_is_an_order_that_the_venue_accepts(
    amount: int, minimum: int, above: int, bound: int | None
) -> None:
    """Within minimum and maximum, summing to what is closed; all of it goes where n orders between them can carry it.

    Only the last slice may exceed a bound that is set by market impact alone, where the maximum permits.
    """
    maximum = minimum + above
    held = position("X", "long", contracts=str(amount))
    limits = {"amount_step": "1", "min_amount": str(minimum), "max_amount": str(maximum)}
    found = reduction(held, D(0), rules("X", **limits), reduce_only=True, greatest=None if bound is None else D(bound))
    assert all(minimum <= part <= maximum for part in found.parts)
    assert sum(found.parts) + found.target == amount
    assert (found.target == 0) == any(minimum * n <= amount <= maximum * n for n in range(1, amount + 1))
    assert (found.blocked is None) == (found.target == 0)
    free = reduction(
        held, D(0), rules("X", amount_step="1", min_amount=str(minimum)), reduce_only=True,
        greatest=None if bound is None else D(bound),
    )  # fmt: skip
    least_bound = D(0) if bound is None else max(D(bound), D(minimum), D(-(-amount // 100)))
    assert free.target == (amount if amount < minimum else 0)
    assert all(part >= minimum for part in free.parts)
    assert bound is None or all(part <= least_bound for part in free.parts[:-1])


def test_the_last_slice_grows_rather_than_falls_below_the_minimum() -> None:
    """10.5 in slices of the minimum, 1, which the market allows: nine of 1, and 1.5; none of 0.5."""
    held = position("X", "long", contracts="10.5", mark_price="100")
    found = reduction(held, D(0), rules("X", amount_step="0.5", min_amount="1"), reduce_only=True, greatest=D("0.1"))
    assert found.parts == (*[D(1)] * 9, D("1.5"))


def test_a_remainder_that_fits_no_order_stays_and_is_recorded() -> None:
    """Minimum and maximum are 1: of 10.5 a half stays, and the target states it; the record's sums are consistent."""
    held = position("X", "long", contracts="10.5", mark_price="100")
    limits = {"amount_step": "0.5", "min_amount": "1", "max_amount": "1"}
    found = reduction(held, D(0), rules("X", **limits), reduce_only=True)
    assert (found.parts, found.target) == ((D(1),) * 10, D("0.5"))
    assert found.blocked is not None
    assert found.blocked.startswith("dust: 0.5 of X does not fit")


def test_c16_an_uncountable_position_is_blocked_and_one_of_countless_orders_is_one_part() -> None:
    """A wrong number of a venue neither raises nor makes a list that exhausts memory."""
    endless = reduction(position("X", "long", contracts="5e28"), D(0), rules("X"), reduce_only=True)
    assert (endless.parts, endless.target) == ((), D("5e28"))
    assert endless.blocked is not None
    many = reduction(position("X", "long", contracts="1e15"), D(0), rules("X", max_amount="1"), reduce_only=True)
    assert many.parts == (D("1e15"),)


_SANE = st.decimals("1e-29", "9e29", allow_nan=False, allow_infinity=False).filter(bool)


@given(_SANE, _SANE, _SANE, _SANE, _SANE, _SANE, st.sampled_from(["0", "0.5", "1"]), st.booleans())
def test_c16_no_sound_number_raises(
    contracts: Decimal, step: Decimal, least: Decimal, notional: Decimal, mark: Decimal, size: Decimal, part: str,
    inverse: bool,
) -> None:  # fmt: skip
    """Thirty digits either way in every field: an order, or a reason why there is none."""
    held = position("X", "long", contracts=str(contracts), mark_price=str(mark))
    limits = {"amount_step": step, "min_amount": least, "min_notional": notional, "contract_size": size}
    known = rules("X", inverse=inverse, **{name: str(value) for name, value in limits.items()})
    found = reduction(held, contracts * D(part), known, reduce_only=False)
    assert found.parts or found.blocked or found.target == contracts
