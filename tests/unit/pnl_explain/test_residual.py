"""The residual between two snapshots, case by case.

100,000 of equity, so that noise n is 50 where the wallet is reported. Amounts are worked out from the formulas:
Rw = ΔW, Rb = ΔE − M, D = ΔU − M = Rb − Rw; s is what entry prices show as settled."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.pnl_explain.residual import CASES, Evidence, residual_of

N = Decimal(50)
SAME: dict[str, Any] = {"in_step": True, "was_in_step": True}
PARTLY: dict[str, Any] = {"traded": True, "partly": True}


def evidence(by_wallet: int | None, by_marks: int | None, **more: Any) -> Evidence:
    money = {"bound", "unrealized_change", "settled", "carried", "dropped"}
    fields: dict[str, Any] = {k: Decimal(v) if k in money and v is not None else v for k, v in more.items()}
    one, other = (None if each is None else Decimal(each) for each in (by_wallet, by_marks))
    return Evidence(one, other, noise=N, **fields)


def decimal(amount: int | None) -> Decimal | None:
    return None if amount is None else Decimal(amount)


EXAMPLES = [
    ("positions lag", evidence(0, -8000, in_step=False, waits=True), 0, 0),
    ("settlement", evidence(12_000, 0, settled=12_000, unrealized_change=-12_000, **SAME), 0, 12_000),
    # a loss is settled
    ("settlement", evidence(-12_000, 0, settled=-12_000, unrealized_change=12_000, **SAME), 0, -12_000),
    # 12,000 are settled, and 12,000 or 30,000 leave
    ("settlement", evidence(0, -12_000, settled=12_000, unrealized_change=-12_000, **SAME), -12_000, 12_000),
    ("settlement", evidence(-18_000, -30_000, settled=12_000, **SAME), -30_000, 12_000),
    # a loss is settled and refilled: the wallet stands still, and 8,000 came
    ("settlement", evidence(0, 8000, settled=-8000, unrealized_change=8000, **SAME), 8000, -8000),
    # entry prices show more than unrealised profit lost: the smaller of both was settled
    ("settlement", evidence(9000, 0, settled=12_000, **SAME), 0, 9000),
    # positions of another moment: only if Rw differs from Rb by what entry prices show
    ("settlement", evidence(12_000, 0, settled=12_000, in_step=False, was_in_step=True), 0, 12_000),
    # with all fills known, positions whose size changed were settled, too
    ("settlement", evidence(15_000, -300, settled=12_000, traded=True, **SAME), -300, 15_300),
    ("settlement, positions unknown", evidence(12_000, None, settled=None, unrealized_change=-12_000), 0, 12_000),
    ("wallet", evidence(-8000, -7900, **SAME), -8000, 0),
    ("wallet", evidence(None, -8000, **SAME), None, 0),
    # without entry prices, nothing was settled if unrealised profit stood still
    ("wallet", evidence(-8000, 0, settled=None, unrealized_change=0, **SAME), -8000, 0),
    # a deposit of 8,000 had been netted against a loss that positions show now
    ("flow behind a loss", evidence(0, 8000, settled=None, in_step=True, dropped=8000), 8000, 0),
    ("flow behind a loss", evidence(0, 9000, settled=None, in_step=True, dropped=8000), 8000, 0),
    ("trade without fills, small", evidence(0, -500, bound=500, **PARTLY), 0, 0),
    ("trade without fills", evidence(0, -501, bound=500, **PARTLY), -501, 501),
    ("trade without fills", evidence(-20_000, -12_000, **PARTLY), -12_000, -8000),
    # the middle one of 0, Rb and Rw
    ("nearest", evidence(-8000, -3000, settled=None), -3000, -5000),
    ("nearest", evidence(-3000, -8000, settled=None), -3000, 0),
    ("nearest", evidence(8000, -3000, settled=None), 0, 8000),
    ("nearest", evidence(-8000, None, settled=None, unrealized_change=-100), -8000, 0),
    ("nearest", evidence(None, None, settled=None), None, 0),
]


@pytest.mark.parametrize(("case", "seen", "amount", "netted"), EXAMPLES)
def test_the_first_case_that_applies_gives_the_residual(
    case: str, seen: Evidence, amount: int | None, netted: int
) -> None:
    """Its name, its amount, and what of Rw unrealised profit offsets."""
    found = residual_of(seen)
    assert (found.case, found.amount, found.netted) == (case, decimal(amount), Decimal(netted))


def test_every_case_has_an_example() -> None:
    """No row of the rule is without one."""
    assert {case.name for case in CASES} == {name for name, *_ in EXAMPLES}


def test_what_the_wallet_moved_while_out_of_step_counts_once_in_step() -> None:
    """12,000 of a settlement came while positions were older, and their entry prices show it now: nothing is left."""
    found = residual_of(evidence(0, 0, settled=12_000, carried=12_000, **SAME))
    assert (found.case, found.amount) == ("settlement", Decimal(0))


def test_a_settlement_against_the_move_of_unrealized_profit_is_none() -> None:
    """Entry prices rose, and so did unrealised profit against marks: the deposit of 8,000 is one."""
    found = residual_of(evidence(8000, 9000, settled=12_000, **SAME))
    assert (found.case, found.amount) == ("wallet", Decimal(8000))


def test_no_more_than_noise_is_settled() -> None:
    """50 of 100,000 are noise; 51 are settled."""
    assert residual_of(evidence(50, 0, settled=50, **SAME)).case == "wallet"
    assert residual_of(evidence(51, 0, settled=51, **SAME)).case == "settlement"


@pytest.mark.parametrize(("change", "case"), [(-12_650, "settlement, positions unknown"), (-12_651, "nearest")])
def test_an_unseen_settlement_offsets_the_wallet_within_five_percent(change: int, case: str) -> None:
    """12,000 × 5% + n = 650 may be the move of prices."""
    assert residual_of(evidence(12_000, None, settled=None, unrealized_change=change)).case == case


AMOUNTS = st.integers(-1_000_000, 1_000_000).map(Decimal)
STEPS = st.sampled_from([True, False, None])
ANY = st.builds(
    Evidence,
    by_wallet=st.none() | AMOUNTS, by_marks=st.none() | AMOUNTS, noise=st.just(N),
    bound=st.integers(0, 5000).map(Decimal), unrealized_change=st.none() | AMOUNTS, settled=st.none() | AMOUNTS,
    carried=AMOUNTS, dropped=AMOUNTS, traded=st.booleans(), partly=st.booleans(),
    in_step=STEPS, was_in_step=STEPS, waits=st.booleans(),
)  # fmt: skip


@given(ANY)
def test_some_case_always_applies_and_the_residual_is_no_larger_than_both_ways_to_compute_it(seen: Evidence) -> None:
    """|R| ≤ max(|Rw|, |Rb|), where Rw includes what was carried; unknown only if one of them is."""
    found = residual_of(seen)
    ways = [abs(each) for each in (seen.by_wallet, seen.whole_by_wallet, seen.by_marks) if each is not None]
    if found.amount is None:
        assert seen.by_wallet is None or seen.by_marks is None
    else:
        assert abs(found.amount) <= max(ways)
