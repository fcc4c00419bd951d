"""What holds for every ramp and every course of evaluations."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.recovery import step_count, step_shares
from killswitch.model.instant import HOUR, MINUTE
from killswitch.planning.recovery.way_back import EvaluatedScope, WayBack, advance
from tests.unit.planning.recovery.plans import planned

STARTS = st.decimals("0.0001", "0.9999", places=4)
FACTORS = st.decimals("1.01", "10", places=2)
GAP = 10 * MINUTE


@given(start=STARTS, factor=FACTORS)
def test_no_step_exceeds_the_factor_nor_the_full_size(start: Decimal, factor: Decimal) -> None:
    """From the start to exactly 1, each step above the one before and at most the factor times it."""
    shares = step_shares(start, factor, None)
    assert shares[0] == start
    assert shares[-1] == 1
    assert all(before < after <= before * factor for before, after in pairwise(shares))


@given(start=st.decimals("0.0001", "0.9", places=4), steps=st.integers(1, 365))
def test_declared_steps_are_even_and_as_many_as_declared(start: Decimal, steps: int) -> None:
    """Each is (1 ÷ start)^(1 ÷ n) times the one before, the last no more than that."""
    shares = step_shares(start, None, steps)
    even = float(1 / start) ** (1 / steps)
    assert len(shares) == steps + 1
    assert shares[-1] == 1
    assert all(float(after / before) <= even * (1 + 1e-6) for before, after in pairwise(shares))


EVALUATIONS = st.lists(
    st.tuples(
        st.integers(1, 3 * GAP),
        st.sampled_from(["clean", "clean", "clean", "warning", "unknown", "trip", "restart"]),
    ),
    max_size=60,
)


@given(course=EVALUATIONS)
def test_clean_time_is_never_more_than_the_watched_time_of_the_step(course: list[tuple[int, str]]) -> None:
    """Only intervals between two clean evaluations in a row, without a restart between them, of at most the gap."""
    rule = planned().graphs[0].recovery
    assert rule is not None
    way_back, now = WayBack("fall", "account/main", ("main",), "ramp", 0, watched_at=0), 0
    watched, before = 0, "clean"
    for passed, what in course:
        now += passed
        if what == "restart":
            way_back = replace(way_back, watched_at=None)
            before = what
            continue
        seen = EvaluatedScope(
            ("main",), GAP, tripped="stop" if what == "trip" else None, is_healthy=True,
            warning="near" if what == "warning" else None, unwatched="unknown" if what == "unknown" else None,
        )  # fmt: skip
        step = way_back.step
        after, _ = advance(rule, way_back, seen, "fall", "account/main", now)
        assert after is not None
        if what == before == "clean" and passed <= GAP:
            watched += passed
        if what in ("warning", "trip") or after.step != step or after.phase != "ramp":
            watched = 0
        assert after.clean <= watched
        assert after.step <= step + 1
        assert after.step <= step or way_back.clean + passed >= 24 * HOUR
        way_back, before = after, what


@given(start=st.integers(1, 1000), factor=FACTORS, step=st.integers(0, 60))
def test_the_number_of_positions_is_the_whole_part_of_the_exact_product(start: int, factor: Decimal, step: int) -> None:
    """⌊start × fᵏ⌋ in fractions: the largest number that is not above it, and never less than a step before."""
    exact = start * Fraction(factor) ** step
    found = step_count(start, factor, step)
    assert found <= exact < found + 1
    assert step_count(start, factor, step + 1) >= found


def test_five_positions_by_half_are_five_seven_eleven_sixteen() -> None:
    """5, 7.5, 11.25, 16.875, 25.3125 rounded down; one grows too, where steps of rounded numbers would stay at one."""
    assert [step_count(5, Decimal("1.5"), step) for step in range(5)] == [5, 7, 11, 16, 25]
    assert [step_count(1, Decimal("1.5"), step) for step in range(5)] == [1, 1, 2, 3, 5]
