"""Splits of shares: a corporate action decides what a fall next to as many shares more was."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.model.instant import MINUTE, to_micros
from killswitch.model.snapshot import AccountSnapshot, CorporateAction
from killswitch.pnl_explain.explanation import EquityTerms
from killswitch.signals.history.scope import History
from killswitch.signals.history.windows import drawdown
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position

WINDOW = 15 * MINUTE


def shares(second: int, count: str, price: str, actions: tuple[CorporateAction, ...] = ()) -> AccountSnapshot:
    """`count` shares at `price`, and 1,000 in cash."""
    equity = Decimal(count) * Decimal(price) + 1000
    held = position("TSLA", "long", contracts=count, mark_price=price, notional=str(Decimal(count) * Decimal(price)))
    known = after(seconds=second)
    return account(
        str(equity), [held], market="equity", currency="USD", corporate_actions=actions,
        fills_as_of=known, flows_as_of=known,
    )  # fmt: skip


def course(*snapshots: tuple[int, AccountSnapshot]) -> History:
    history = History([WINDOW], WINDOW, EquityTerms(30 * MINUTE, 0.001, MINUTE))
    for second, each in snapshots:
        history.observe(ScopeView(to_micros(after(seconds=second)), True, (each,), {}, None))
    history.rebased = True
    return history


def action(second: int) -> tuple[CorporateAction, ...]:
    return (CorporateAction("a", after(seconds=second), "TSLA", Decimal(2)),)


def test_a_split_whose_corporate_action_is_known_moves_nothing() -> None:
    """100 shares at 200 become 200 at 100: known a day before or in the same answer, nothing fell."""
    before = course((0, shares(0, "100", "200", action(0))), (60, shares(60, "200", "100")))
    same = course((0, shares(0, "100", "200")), (60, shares(60, "200", "100", action(60))))
    assert [drawdown(each, WINDOW) for each in (before, same)] == [(0, 0), (0, 0)]
    assert not before.changes.all
    assert not same.changes.all


def test_a_split_without_a_corporate_action_is_pending_until_it_is_reported() -> None:
    """Either nothing fell, or shares for 10,000 came and 31,000 fell to 21,000."""
    split = [(0, shares(0, "100", "200")), (60, shares(60, "200", "100"))]
    assert drawdown(course(*split), WINDOW) == (0, pytest.approx(10 / 31, abs=1e-6))
    reported = course(*split, (61, shares(61, "200", "100", action(61))))
    assert drawdown(reported, WINDOW) == (0, 0)


def test_a_real_fall_next_to_a_reported_split_counts() -> None:
    """200 shares at 90: the price fell by a tenth besides, 2,000 of 21,000."""
    fell = course((0, shares(0, "100", "200", action(0))), (60, shares(60, "200", "90")))
    assert drawdown(fell, WINDOW) == pytest.approx((2 / 21, 2 / 21))
