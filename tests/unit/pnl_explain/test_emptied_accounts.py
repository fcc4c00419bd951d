"""Accounts that transfers or losses empty, and money that comes back.

100,000, of which 1,000 contracts at 100 are held, unless stated otherwise. n is 0.1% of the equity before: 100."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.instant import MINUTE
from killswitch.model.snapshot import Fill, Flow
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown, drawdown_from_peak, loss_from_start
from tests.unit.pnl_explain.test_hidden_losses import (
    X,
    account,
    at,
    deposit,
    fall,
    held,
    history,
    observe,
    other_account,
    sold,
)
from tests.unit.pnl_explain.test_settlements import restarted

WINDOW = 15 * MINUTE


def begun(*, closes: bool = False) -> History:
    past = history(closes=closes)
    for second in range(5):
        observe(past, second, account(second, "100000", [held(1000, "100")]))
    return past


def left(seconds: float, amount: str, name: str = "w") -> Flow:
    return Flow(name, at(seconds), "withdrawal", -Decimal(amount), "USDT")


def emptied(*, price: int = 100, dust: str = "0") -> History:
    """All is sold at `price` and leaves at 5, with rows."""
    past = begun()
    went = Decimal(1000 * price) - Decimal(dust)
    observe(past, 5, account(5, dust, fills=(sold(4.5, 1000, str(price)),), flows=(left(4.7, str(went)),)))
    return past


def wait(past: History, seconds: Iterable[float], wallet: str) -> None:
    for second in seconds:
        observe(past, second, account(second, wallet))


def falls(past: History) -> tuple[float, float, float]:
    """The fall in the window, from the peak, and from the start: of an emptied account, they are one."""
    found = (drawdown(past, WINDOW), drawdown_from_peak(past), loss_from_start(past))
    assert all(low == high for low, high in (found[1], found[2]))
    return found[0][0], found[1][0], found[2][0]


# Empty


@pytest.mark.parametrize("dust", ["0", "0.01", "100"])
def test_the_unit_value_stands_still_while_an_account_is_empty(dust: str) -> None:
    """6,000 were lost before: 6% before, meanwhile, and after 50,000 came back."""
    past = emptied(price=94, dust=dust)
    assert falls(past) == pytest.approx((0.06, 0.06, 0.06))
    wait(past, (6, 7, 60), str(Decimal(dust) / 2))
    assert falls(past) == pytest.approx((0.06, 0.06, 0.06))
    wait(past, (61, 62), "50000")
    assert falls(past) == pytest.approx((0.06, 0.06, 0.06))
    assert not past.track.is_empty


def test_more_than_noise_is_no_empty_account() -> None:
    """101 of 100,000 are left, and half of that is lost: 50%, less the first noise."""
    past = emptied(dust="101")
    assert not past.track.is_empty
    observe(past, 6, account(6, "101", [held(1, "100")]))
    observe(past, 7, account(7, "101", [held(1, "50")]))
    assert fall(past) == pytest.approx(50 / 101)


def test_a_debt_is_a_loss_of_everything() -> None:
    """Below zero nothing is empty."""
    past = emptied()
    wait(past, (6,), "-200")
    assert falls(past) == (1.0, 1.0, 1.0)


def test_dust_next_to_a_contract_is_no_empty_account() -> None:
    """99,950 leave, half a contract is left on 50; it loses 5: a tenth of what is there."""
    past = begun()
    closed = Fill("f", at(4.5), X, "sell", Decimal("999.5"), Decimal(100), realized_pnl=Decimal(0))
    for second, price in ((5, "100"), (6, "100"), (7, "90")):
        rows: dict[str, Any] = {"fills": (closed,), "flows": (left(4.7, "99950"),)} if second == 5 else {}
        leg = replace(held(1, price), contracts=Decimal("0.5"), unrealized_pnl=(Decimal(price) - 100) / 2)
        observe(past, second, account(second, "50", [replace(leg, notional=Decimal(price) / 2)], **rows))
    assert fall(past) == pytest.approx(0.1)


# What comes back


@pytest.mark.parametrize("seconds", [6, 20, 100, 600])
def test_what_comes_back_later_buys_units_and_is_measured_from_there(seconds: int) -> None:
    """6% lost, all leaves, 200,000 come, 10,000 of them are lost: 1 − 0.94 × 0.95."""
    past = emptied(price=94)
    wait(past, range(6, seconds), "0")
    came = deposit(seconds - 0.5, "200000")
    observe(past, seconds, account(seconds, "200000", flows=(came,)))
    for second, price in ((seconds + 1, "100"), (seconds + 2, "90")):
        observe(past, second, account(second, "200000", [held(1000, price)]))
    assert fall(past) == pytest.approx(1 - 0.94 * 0.95)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("seconds", [60, 3600])
def test_a_loss_of_what_came_before_the_next_snapshot_is_one(seconds: int, restarts: bool) -> None:
    """100,000 come, 1,000 contracts are bought at 100, and the next snapshot shows them at 80."""
    past = emptied()
    wait(past, (6, 7, 8), "0")
    if restarts:
        past = restarted(past)
    bought = Fill("g", at(seconds - 1), X, "buy", Decimal(1000), Decimal(100))
    rows: dict[str, Any] = {"flows": (deposit(seconds - 2, "100000"),), "fills": (bought,)}
    observe(past, seconds, account(seconds, "100000", [held(1000, "80")], **rows))
    assert fall(past) == pytest.approx(0.2)


def test_a_gain_of_what_came_before_the_next_snapshot_buys_units() -> None:
    """A rise at no units is no gain: nothing falls from it afterwards."""
    past = emptied()
    bought = Fill("g", at(59), X, "buy", Decimal(1000), Decimal(100))
    rows: dict[str, Any] = {"flows": (deposit(58, "100000"),), "fills": (bought,)}
    observe(past, 60, account(60, "100000", [held(1000, "120")], **rows))
    assert past.track.value == pytest.approx(100_000)


def test_several_steps_out_and_in_within_half_a_minute_lose_nothing() -> None:
    """Out, half back, out, all back: each is a transfer, without any row."""
    past = begun()
    observe(past, 5, account(5, "100000", fills=(sold(4.5, 1000, "100"),)))
    for second, wallet in ((6, "0"), (8, "50000"), (12, "0"), (16, "0"), (20, "100000"), (60, "100000")):
        observe(past, second, account(second, wallet))
    assert falls(past) == pytest.approx((0.0, 0.0, 0.0))
    assert past.track.value == pytest.approx(100_000)


# What shows later that it was a loss


@pytest.mark.parametrize("price", [80, 100])
@pytest.mark.parametrize(("with_row", "row_at"), [(False, 0), (True, 10), (True, 14), (True, 70)])
def test_a_late_fill_shows_what_was_lost_before_the_rest_left(price: int, with_row: bool, row_at: int) -> None:
    """Contracts and money vanish at 5; at 10 the fill, at 80 or at the mark; the withdrawal of the rest has a row or
    none."""
    past = begun()
    for second in range(5, 200):
        fills = (sold(4.5, 1000, str(price)),) if second == 10 else ()
        flows = (left(4.7, str(1000 * price)),) if with_row and second == row_at else ()
        observe(past, second, account(second, "0", fills=fills, flows=flows))
    assert falls(past) == pytest.approx((1 - price / 100,) * 3)


def test_a_late_fill_lowers_what_comes_back() -> None:
    """20% lost by the fill that is reported after half a minute; what comes back buys units at 80."""
    past = begun()
    for second in range(5, 60):
        fills = (sold(4.5, 1000, "80"),) if second == 10 else ()
        observe(past, second, account(second, "0", fills=fills))
    wait(past, (60, 61), "80000")
    assert falls(past) == pytest.approx((0.2, 0.2, 0.2))


def test_contracts_and_money_that_vanish_without_rows_are_a_loss_after_sixteen_seconds() -> None:
    """Everything is known at 21; one second before, it may still be a sweep."""
    past = begun()
    wait(past, range(5, 21), "0")
    assert drawdown_from_peak(past) == (0.0, 1.0)
    wait(past, (21, 22), "0")
    assert drawdown_from_peak(past) == (1.0, 1.0)


def test_a_row_of_what_vanished_shows_after_a_deposit_that_nothing_was_lost() -> None:
    """All vanishes at 5, 50,000 come at 10 with a row, and at 14 the row of the withdrawal."""
    past = begun()
    wait(past, range(5, 10), "0")
    observe(past, 10, account(10, "50000", flows=(deposit(9.5, "50000"),)))
    wait(past, range(11, 14), "50000")
    observe(past, 14, account(14, "50000", flows=(left(4.7, "100000"),)))
    wait(past, range(15, 40), "50000")
    assert falls(past) == pytest.approx((0.0, 0.0, 0.0))


def test_a_row_of_a_withdrawal_shows_that_what_vanished_was_no_loss() -> None:
    """It is reported 10 s later, and names all of it."""
    past = begun()
    wait(past, range(5, 15), "0")
    observe(past, 15, account(15, "0", flows=(left(4.7, "100000"),)))
    wait(past, range(16, 60), "0")
    assert falls(past) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("came", ["50000", "300000"])
@pytest.mark.parametrize("has_row", [True, False])
def test_a_deposit_hides_nothing_of_what_vanished(has_row: bool, came: str) -> None:
    """All vanishes at 5, and money comes at 10. At 21 all that was there is lost, whatever came since."""
    past = begun()
    wait(past, range(5, 10), "0")
    observe(past, 10, account(10, came, flows=(deposit(9.5, came),) if has_row else ()))
    assert fall(past) == 0.0
    wait(past, range(11, 40), came)
    assert falls(past) == pytest.approx((1.0, 1.0, 1.0), abs=0.002)


# Several accounts


@pytest.mark.parametrize(("closes", "expected"), [(False, 0.0), (True, 0.5)])
def test_in_a_scope_of_several_accounts_the_policy_decides_on_what_vanished(closes: bool, expected: float) -> None:
    """Half of the scope's money vanishes with its contracts; `on_unexplained: close` counts it as a loss."""
    past = history(closes=closes)
    for second in range(60):
        own = account(second, "100000", [held(1000, "100")]) if second < 5 else account(second, "0")
        other = other_account("100000")
        dated = dict.fromkeys(
            ("observed_at", "wallet_as_of", "positions_as_of", "fills_as_of", "flows_as_of"), at(second)
        )
        observe(past, second, own, replace(other, **dated))
    assert fall(past) == pytest.approx(expected)


# Below zero


def test_a_debt_is_a_fall_of_all_for_as_long_as_it_lasts() -> None:
    """A deposit without a row is open next to it: neither interpretation is less than 100%."""
    past = begun()
    observe(past, 5, account(5, "120000", [held(1000, "100")]))
    for second in range(6, 30):
        observe(past, second, account(second, "120000", [held(1000, "100")], profit="-130000"))
        assert drawdown(past, WINDOW)[0] == drawdown_from_peak(past)[0] == loss_from_start(past)[0] == 1.0


# Small late rows


def test_the_peak_after_a_reset_is_divided_by_small_late_rows_as_the_window_is() -> None:
    """Rows of 100 that come a minute late: both falls are the same at each second, before and after the reset."""
    past = history()
    wallet, rows = 100_000, []
    for second in range(300):
        if second == 100:
            past.rebase(accept=True)
        if second % 20 == 10:
            wallet += 100
            rows.append((second + 61, deposit(second - 0.5, "100", f"d{second}")))
        price = str(100 - second % 7)
        due = tuple(each for when, each in rows if when == second)
        observe(past, second, account(second, str(wallet), [held(1000, price)], flows=due))
        assert fall(past) == pytest.approx(drawdown(past, WINDOW)[0], abs=1e-9)


# Any course


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 50, 1000, 40_000, 100_000, 300_000]), st.integers(1, 70)), max_size=6))
def test_any_course_of_transfers_out_and_back_leaves_value_peak_and_start_unchanged(
    steps: list[tuple[int, int]],
) -> None:
    """Nothing is held and nothing has a row; at last the first amount is back."""
    past, second = history(), 0
    observe(past, 0, account(0, "100000"))
    for amount, pause in (*steps, (100_000, 1), (100_000, 40), (100_000, 40)):
        second += pause
        observe(past, second, account(second, str(amount)))
    assert past.track.value == pytest.approx(100_000, rel=0.002)
    assert past.track.start == pytest.approx(100_000, rel=0.002)
    assert falls(past) == pytest.approx((0.0, 0.0, 0.0), abs=0.002)
