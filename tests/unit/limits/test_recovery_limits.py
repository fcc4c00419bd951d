"""The limits of an account on the way back after a reset."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.graph.limits import DayRule, LimitAmount, LimitsRule, SizeRule
from killswitch.limits.recovery import pause_of, positions_beyond, reduced_limits
from killswitch.planning.recovery.recoveries import stricter
from killswitch.planning.recovery.way_back import RecoveryCap
from tests.unit.limits.gates import ETH, answer, asks, gate_account, held, limits

CAP = RecoveryCap(
    "way-back", "fall", "account/main", "ramp", datetime(2024, 1, 1, tzinfo=UTC), 1, 7, Decimal("0.1"), "step 1 of 7",
    positions=2, hedges=(("BTC/USDT", "BTC/USDT:USDT"), ("SOL/USDT",)), begun=("SOL/USDT",),
)  # fmt: skip
LIMITS = LimitsRule(
    "main", ("main",), 10_000_000, 2_000_000, 30_000_000, ("USDT",),
    gross=LimitAmount(Decimal(1_000_000), "money", "USDT"), leverage=Decimal(3),
    concentration=LimitAmount(Decimal("0.5"), "percent"), free_margin=LimitAmount(Decimal(500), "money", "USDT"),
    position_size=(SizeRule(at_most=LimitAmount(Decimal(5), "money", "BTC"), symbols=("BTC",)),),
    order_size=(SizeRule(at_most=LimitAmount(Decimal("0.2"), "percent")),), orders_per_minute=60,
    day=DayRule(loss=LimitAmount(Decimal("0.02"), "percent"), trades=200),
)  # fmt: skip


def test_every_size_is_reduced_by_the_share_and_nothing_else() -> None:
    """Of 10%: 100,000 of a million, 0.3 of a leverage of 3, 0.5 of 5 BTC, 0.2% of 2% a day; rates stay."""
    found = reduced_limits(LIMITS, CAP)
    assert found == replace(
        LIMITS,
        gross=LimitAmount(Decimal(100_000), "money", "USDT"), leverage=Decimal("0.3"),
        concentration=LimitAmount(Decimal("0.05"), "percent"),
        position_size=(SizeRule(at_most=LimitAmount(Decimal("0.5"), "money", "BTC"), symbols=("BTC",)),),
        order_size=(SizeRule(at_most=LimitAmount(Decimal("0.02"), "percent")),),
        day=DayRule(loss=LimitAmount(Decimal("0.002"), "percent"), trades=200),
    )  # fmt: skip


def test_without_a_way_back_and_at_the_full_size_the_limits_are_as_written() -> None:
    """The same object, not a copy."""
    assert reduced_limits(LIMITS, None) is LIMITS
    assert reduced_limits(LIMITS, replace(CAP, share=Decimal(1))) is LIMITS


def test_nothing_is_opened_before_the_ramp() -> None:
    """A share of zero is a pause of the account, which names the plan and what it waits for."""
    pause = pause_of(replace(CAP, phase="health", share=Decimal(0), why="waits for the health condition"))
    assert pause is not None
    assert pause.reason == "the recovery plan way-back of fall waits for the health condition"
    assert pause_of(CAP) is None
    assert pause_of(None) is None


@pytest.mark.parametrize(
    ("opened", "symbol", "count"),
    [
        ((), "ETH/USDT", None),
        (("ETH/USDT",), "XRP/USDT", None),
        (("ETH/USDT", "XRP/USDT"), "DOGE/USDT", 3),
        (("ETH/USDT", "XRP/USDT"), "ETH/USDT", None),  # more of a position that is open already
        (("ETH/USDT", "BTC/USDT"), "BTC/USDT:USDT", None),  # the second leg of a hedge
        (("BTC/USDT", "BTC/USDT:USDT"), "ETH/USDT", None),  # the hedge counts once
        (("BTC/USDT", "BTC/USDT:USDT", "ETH/USDT"), "XRP/USDT", 3),
        (("ETH/USDT", "XRP/USDT"), "SOL/USDT", None),  # its first leg is open on another account
    ],
)
def test_a_hedge_counts_as_one_position_and_its_last_leg_is_never_refused(
    opened: tuple[str, ...], symbol: str, count: int | None
) -> None:
    """At most two positions: the number with the order where it is above, else None."""
    assert positions_beyond(CAP, opened, symbol) == count


def test_the_gate_denies_an_entry_above_the_step_and_lets_exits_pass() -> None:
    """A gross of 10,000 at 10%: 900 are held, so that one more of 100 passes, and two do not; the exit does."""
    cap = replace(CAP, positions=None)
    rule = reduced_limits(limits(gross=LimitAmount(Decimal(10_000), "money", "USDT")), cap)
    seen = replace(gate_account(held("long", "9"), rule=rule), recovery=cap)
    assert answer(seen, asks("buy", "1")).allowed
    denied = answer(seen, asks("buy", "1.001"))
    assert (denied.allowed, denied.reason) == (False, "gross")
    assert answer(seen, asks("sell", "9", reduce_only=True)).allowed
    larger = replace(gate_account(held("long", "50"), rule=rule), recovery=cap)
    assert answer(larger, asks("sell", "50", reduce_only=True)).allowed, "a limit below what is held closes nothing"


def test_the_gate_counts_positions_and_names_the_plan() -> None:
    """One position is allowed and one is held: another symbol is denied, more of the same is not."""
    seen = replace(gate_account(held("long", "1")), recovery=replace(CAP, positions=1))
    assert answer(seen, asks("buy", "1")).allowed
    denied = answer(seen, asks("buy", "1", ETH))
    assert (denied.allowed, denied.reason) == (False, "positions")
    assert "way-back" in denied.text


def test_before_the_ramp_the_gate_denies_every_entry_with_the_reason() -> None:
    """As a pause of the account; what reduces passes."""
    cap = replace(CAP, phase="tripped", share=Decimal(0), why="waits for a reset; nothing is opened")
    pause = pause_of(cap)
    assert pause is not None
    seen = replace(gate_account(held("long", "1")), recovery=cap, pauses=(pause,))
    denied = answer(seen, asks("buy", "1"))
    assert (denied.allowed, denied.reason) == (False, "paused")
    assert "waits for a reset" in denied.text
    assert answer(seen, asks("sell", "1", reduce_only=True)).allowed


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_ways_back_the_smaller_counts_with_the_hedges_of_both(is_first: bool) -> None:
    """Two policies on one account, of which one declares no hedge: its last leg passes all the same."""
    other = replace(CAP, plan="other", share=Decimal("0.05"), positions=1, hedges=(), begun=())
    both = stricter(CAP, other) if is_first else stricter(other, CAP)
    assert (both.plan, both.share, both.positions) == ("other", Decimal("0.05"), 1)
    assert positions_beyond(both, {ETH}, "SOL/USDT") is None
    assert positions_beyond(both, {"BTC/USDT"}, "BTC/USDT:USDT") is None
    assert positions_beyond(both, {"BTC/USDT"}, ETH) == 2
