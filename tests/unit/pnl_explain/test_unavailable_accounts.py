"""The equity of a scope while accounts of it are unavailable; every number is worked out by hand."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.instant import HOUR, MINUTE, SECOND, to_micros
from killswitch.model.snapshot import AccountSnapshot, Balance, Mark
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.pnl_explain.unavailable_accounts import (
    ANYTHING,
    MoneyRange,
    PriceMove,
    PriceMoves,
    RiskHolding,
    UnavailableAccounts,
    UnitRange,
    UnsettledChanges,
    available_equity_range,
    risk_holdings,
    total_of,
    unavailable_equity_range,
    unit_range,
)
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown, drawdown_from_peak, loss_from_start, unit_value
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, flow, position

WINDOW = 15 * MINUTE
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def holding(name: str, equity: str, mark: str, contracts: str = "1", symbol: str = BTC, **more: Any) -> AccountSnapshot:
    """A long of so many contracts at this mark, bought at 50,000."""
    held = position(
        symbol, "long", str((Decimal(mark) - 50_000) * Decimal(contracts)), contracts=contracts, entry_price="50000",
        mark_price=mark, notional=str(Decimal(mark) * Decimal(contracts)),
    )  # fmt: skip
    return account(equity, [held], name=name, **more)


def down(name: str) -> AccountSnapshot:
    return account(None, None, name=name, quality="down", reason="timeout")


# What an account held


def test_risk_holdings_are_positions_and_other_assets_each_once() -> None:
    """A swap of 50,000 and 0.5 BTC of collateral at 50,000. The dollars are no price risk."""
    collateral = (Balance("BTC", Decimal("0.5"), Decimal(50_000)), Balance("USDT", Decimal(10_000), Decimal(1)))
    found = risk_holdings(holding("a", "35000", "50000", balances=collateral), {})
    assert found == (RiskHolding("BTC", Decimal(25_000)), RiskHolding(BTC, Decimal(50_000)))


def test_short_holdings_are_negative_and_hedge_mode_has_two_holdings() -> None:
    """Long 2 and short 3 at 100, which may be closed one after the other: 200 and −300, not −100."""
    sides = [
        position(ETH, "long", "0", contracts="2", mark_price="100", notional="200"),
        position(ETH, "short", "0", contracts="3", mark_price="100", notional="300"),
    ]
    assert risk_holdings(account("1000", sides), {}) == (
        RiskHolding(ETH, Decimal(200)),
        RiskHolding(ETH, Decimal(-300)),
    )


def test_a_spot_holding_in_balances_and_positions_counts_once() -> None:
    """2 BTC at 50,000 are 100,000, not 200,000."""
    coins = (Balance("BTC", Decimal(2), Decimal(50_000)),)
    found = risk_holdings(holding("a", "100000", "50000", "2", symbol="BTC/USDT", market="spot", balances=coins), {})
    assert found == (RiskHolding("BTC", Decimal(100_000)),)


@pytest.mark.parametrize(
    "last",
    [account("1000", None), account("1000", [], complete=False), account("1000", [position("X", "long")])],
    ids=["positions not given", "products that are not seen", "a notional that is not known"],
)
def test_an_account_with_unknown_holdings_has_unbounded_equity(last: AccountSnapshot) -> None:
    """From zero upwards, whatever prices did."""
    assert unavailable_equity_range(last, risk_holdings(last, {}), {"X": PriceMove()}) == ANYTHING


# How far prices moved


def test_a_move_is_from_the_accounts_own_mark_to_the_same_symbols_mark_elsewhere() -> None:
    """50,000 when it became unavailable, 45,000 at another account now: −10%."""
    prices = PriceMoves.between([holding("dark", "1", "50000")], [holding("b", "1", "45000")])
    assert prices.move_of(BTC, Decimal(50_000)) == PriceMove(Decimal("-0.1"), Decimal(0))


def test_of_several_marks_the_lowest_and_the_highest_count() -> None:
    """50,000 when it became unavailable; 45,000 at one account, and 51,000 at another: −10% to +2%."""
    prices = PriceMoves.between([], [holding("b", "1", "45000"), holding("c", "1", "51000")])
    assert prices.move_of(BTC, Decimal(50_000)) == PriceMove(Decimal("-0.1"), Decimal("0.02"))


def test_a_move_of_the_base_in_another_market_is_relative_to_its_own_earlier_mark() -> None:
    """A dollar contract went from 50,100 to 40,080, which is −20%; the basis between the two is no move."""
    then = [holding("b", "1", "50100", symbol="BTC/USD:BTC")]
    prices = PriceMoves.between(then, [holding("b", "1", "40080", symbol="BTC/USD:BTC")])
    assert prices.move_of(BTC, Decimal(50_000)) == PriceMove(Decimal("-0.2"), Decimal(0))


def test_marks_without_a_position_count_and_a_move_without_marks_is_unknown() -> None:
    """`marks` of an account that closed its position a minute ago."""
    seen = account("1", [], name="b", marks=(Mark(BTC, Decimal(55_000)),))
    prices = PriceMoves.between([], [seen])
    assert prices.move_of(BTC, Decimal(50_000)) == PriceMove(Decimal(0), Decimal("0.1"))
    assert prices.move_of(ETH, Decimal(3_000)) is None


# What an account may be worth


FALL = {BTC: PriceMove(Decimal("-0.2"), Decimal(0)), ETH: PriceMove(Decimal("-0.05"), Decimal("0.1"))}


@pytest.mark.parametrize(
    ("held", "low", "high"),
    [
        ([RiskHolding(BTC, Decimal(150_000))], 68_500, 101_500),
        ([RiskHolding(BTC, Decimal(-150_000))], 98_500, 131_500),
        ([RiskHolding(ETH, Decimal(100_000))], 94_000, 111_000),
        ([RiskHolding(BTC, Decimal(50_000)), RiskHolding(BTC, Decimal(-50_000))], 89_000, 111_000),
        ([RiskHolding(BTC, Decimal(50_000)), RiskHolding(ETH, Decimal(-100_000))], 78_500, 106_500),
    ],
    ids=["long", "short", "either way", "a hedge", "long one, short the other"],
)
def test_the_equity_range_follows_from_signed_holdings_and_moves(held: list[RiskHolding], low: int, high: int) -> None:
    """100,000 and N × [lo, hi] of each, with 1% of the gross to either side; BTC −20% to 0, ETH −5% to +10%."""
    assert unavailable_equity_range(account("100000", []), tuple(held), FALL) == MoneyRange(Decimal(low), Decimal(high))


def test_an_inverse_contract_loses_more_in_a_fall() -> None:
    """1 − 1 ÷ 0.8 is −25% of 10 BTC of notional, which is −2.5, and 1% is 0.1: 17.4 to 20.1 of 20 BTC."""
    held = (RiskHolding(BTC, Decimal(10), inverse=True),)
    assert unavailable_equity_range(account("20", []), held, FALL) == MoneyRange(Decimal("17.4"), Decimal("20.1"))


def test_a_move_does_not_take_equity_below_zero() -> None:
    """10,000 with 150,000 long and a move of −20%: 0 to 11,500."""
    held = (RiskHolding(BTC, Decimal(150_000)),)
    assert unavailable_equity_range(account("10000", []), held, FALL) == MoneyRange(Decimal(0), Decimal(11_500))


def test_a_flat_account_keeps_its_equity() -> None:
    """No move affects it."""
    last = account("100000", [])
    assert unavailable_equity_range(last, risk_holdings(last, {}), {}) == MoneyRange(Decimal(100_000), Decimal(100_000))


def test_an_unknown_move_leaves_equity_unbounded() -> None:
    """From zero upwards."""
    last = holding("b", "100000", "50000")
    assert unavailable_equity_range(last, risk_holdings(last, {}), {BTC: None}) == ANYTHING


def test_unsettled_changes_of_an_available_account_widen_its_range() -> None:
    """60,000 after 30,000 were withdrawn with their row, and an unexplained fall of 5,000: 90,000 to 95,000."""
    found = available_equity_range(Decimal(60_000), UnsettledChanges(Decimal(-30_000), Decimal(-5_000)))
    assert found == MoneyRange(Decimal(90_000), Decimal(95_000))


def test_a_reversed_move_still_counts() -> None:
    """BTC fell by 20% and recovered: the 50,000 long may have been closed at the low. 1% of them is 500."""
    dark, last = UnavailableAccounts(), {"a": holding("a", "50000", "50000"), "b": holding("b", "100000", "50000")}
    for mark in ("40000", "50000"):
        found = total_of(dark.equity_ranges({"a": holding("a", "50000", mark)}, last, ["a", "b"], {}, {}))
    assert found == MoneyRange(Decimal(139_500), Decimal(150_500))
    dark.clear()
    found = total_of(dark.equity_ranges({"a": holding("a", "50000", "50000")}, last, ["a", "b"], {}, {}))
    assert found == MoneyRange(Decimal(149_500), Decimal(150_500))


def test_a_never_observed_member_is_unbounded_and_a_non_member_is_not_counted() -> None:
    """`c` is available and no member, `b` is a member and was never observed."""
    readable = {"a": account("100", [], name="a"), "c": account("900", [], name="c")}
    known = MoneyRange(Decimal(100), Decimal(100))
    assert UnavailableAccounts().equity_ranges(readable, {}, ["a"], {}, {}) == {"a": known}
    found = UnavailableAccounts().equity_ranges(readable, {}, ["a", "b"], {}, {})
    assert found == {"a": known, "b": ANYTHING}
    assert total_of(found) == MoneyRange(Decimal(100), Decimal("Infinity"))


# Falls


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (UnitRange(0, 0.6, 0.8, 0.8), (0.2, 0.4)),
        (UnitRange(0, 0.6, 1.5, 1.5), (0.0, 0.6)),
        (UnitRange(0, 0.6, 0.8, 1.2), (0.2, 0.5)),
        (UnitRange(0, 0.6, math.inf, math.inf), (0.0, 1.0)),
        (UnitRange(0, -0.1, 0.8, 0.8), (0.2, 1.0)),
    ],
    ids=["below the highest", "perhaps above it", "perhaps higher before", "without an end", "perhaps in debt"],
)
def test_a_fall_is_at_least_that_of_the_best_case_and_at_most_that_of_the_worst(
    now: UnitRange, expected: tuple[float, float]
) -> None:
    """From a peak of exactly 1: the best case is the upper end; the worst, the lower end from the highest peak."""
    assert now.fall_from((1.0, 1.0)) == expected


def test_the_highest_possible_unit_value_of_an_outage_is_kept() -> None:
    """Up to 1.2 at one tick, up to 0.9 at the next."""
    first = unit_range(1, MoneyRange(Decimal(80), Decimal(120)), 100.0, None)
    second = unit_range(2, MoneyRange(Decimal(70), Decimal(90)), 100.0, first)
    assert second == UnitRange(2, 0.7, 0.9, 1.2)
    assert unit_range(1, MoneyRange(Decimal(1), Decimal(1)), 0.0, None) is None


# In the history of a scope


def portfolio(*minutes: tuple[AccountSnapshot, ...], calm: int = 16) -> History:
    """`a` long 4 BTC and `b` long 1, 100,000 each at 50,000, for `calm` minutes; then as given."""
    past = History((WINDOW, HOUR), HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))
    quiet = (holding("a", "100000", "50000", "4"), holding("b", "100000", "50000", "1"))
    for minute, accounts in enumerate((*(quiet for _ in range(calm)), *minutes)):
        past.observe(ScopeView(to_micros(after(minutes=minute)), True, accounts, {}, None))
    return past


def test_two_accounts_with_one_venue_down_and_the_other_losing_42_percent() -> None:
    """a: 58,000 after a fall of 21%; b: 100,000, −21% to 0 of 50,000, ± 500. Of 200,000 are left 147,000 to 158,500."""
    past = portfolio((holding("a", "58000", "39500", "4"), down("b")))
    assert past.unknown == "b is down: timeout"
    assert drawdown(past, WINDOW) == (pytest.approx(0.2075), pytest.approx(0.265))
    assert drawdown_from_peak(past) == (pytest.approx(0.2075), pytest.approx(0.265))
    assert loss_from_start(past) == (pytest.approx(0.2075), pytest.approx(0.265))
    assert unit_value(past, 0) == (pytest.approx(147_000), pytest.approx(158_500))
    assert len(past.rows) == 16


def test_a_withdrawal_while_another_account_is_unavailable_is_no_fall() -> None:
    """30,000 leave `a` with their row: it still counts as 100,000. `b` did not move: 199,500 to 200,500 together."""
    row = flow("w", after(minutes=16), "-30000")
    past = portfolio((holding("a", "70000", "50000", "4", flows=[row]), down("b")))
    assert drawdown(past, WINDOW) == (0.0, pytest.approx(1000 / 200_500))


def test_a_withdrawal_without_a_row_raises_only_the_upper_bound_of_the_fall() -> None:
    """30,000 are missing at unchanged prices: the lower bound is no fall, the upper one from 200,500 to 169,500."""
    past = portfolio((holding("a", "70000", "50000", "4"), down("b")))
    assert drawdown(past, WINDOW) == (0.0, pytest.approx(31_000 / 200_500))


def test_after_the_outage_the_fall_is_exact_again() -> None:
    """Both fell as their positions did: 58,000 and 89,500 of 200,000."""
    dark = (holding("a", "58000", "39500", "4"), down("b"))
    past = portfolio(dark, (holding("a", "58000", "39500", "4"), holding("b", "89500", "39500", "1")))
    assert past.unit_range is None
    assert drawdown(past, WINDOW) == (pytest.approx(0.2625), pytest.approx(0.2625))


def test_a_partly_known_window_is_unbounded_above_during_an_outage_too() -> None:
    """Two minutes of history, and a window of 15."""
    past = portfolio((holding("a", "58000", "39500", "4"), down("b")), calm=2)
    assert drawdown(past, WINDOW) == (pytest.approx(0.2075), 1.0)


def test_an_outage_longer_than_max_gap_leaves_the_fall_unbounded_above() -> None:
    """Eleven minutes, and max_gap is ten."""
    dark = (holding("a", "58000", "39500", "4"), down("b"))
    past = portfolio(*(dark for _ in range(11)))
    assert drawdown(past, WINDOW) == (pytest.approx(0.2075), 1.0)


def test_with_every_account_unavailable_nothing_is_known() -> None:
    """No prices are visible, and the equity of the accounts is unbounded."""
    past = portfolio((down("a"), down("b")))
    assert drawdown(past, WINDOW) == (-math.inf, math.inf)


def test_the_range_survives_a_restart() -> None:
    """The last snapshots are part of the stored state."""
    before = portfolio()
    again = History((WINDOW, HOUR), HOUR, EquityTerms(10 * MINUTE, 0.001, 60 * SECOND))
    again.restore(before.state(), [])
    again.observe(
        ScopeView(to_micros(after(minutes=16)), True, (holding("a", "58000", "39500", "4"), down("b")), {}, None)
    )
    assert drawdown_from_peak(again) == (pytest.approx(0.2075), pytest.approx(0.265))
