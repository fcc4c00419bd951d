"""What Binance's deposits, withdrawals and transfers are told as, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch_ccxt.numbers import UnreadableError
from killswitch_ccxt.venues.binance.flows import BalanceFlows

D = Decimal
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = START + timedelta(hours=5)


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def begun() -> BalanceFlows:
    """One that began to look at START."""
    moves = BalanceFlows()
    moves.begin(milliseconds(START))
    return moves


def withdrawal(status: int, at: datetime = START + timedelta(hours=1), **more: Any) -> dict[str, Any]:
    """400 USDT arrive, 401 leave."""
    return {"id": "w1", "amount": "400", "transactionFee": "1", "coin": "USDT", "status": status, "walletType": 0,
            "applyTime": f"{at:%Y-%m-%d %H:%M:%S}"} | more  # fmt: skip


def deposit(status: int, at: datetime = START + timedelta(hours=1), **more: Any) -> dict[str, Any]:
    return {"id": "d1", "amount": "2", "coin": "BTC", "status": status, "insertTime": milliseconds(at)} | more


@pytest.mark.parametrize("status", [0, 2, 4, 6])
def test_a_withdrawal_is_told_when_it_is_applied_for_and_its_fee_with_it(status: int) -> None:
    """The venue takes it from the balance at once, and calls it completed minutes later."""
    (flow,) = begun().withdrawals([withdrawal(status)], NOW)
    assert (flow.kind, flow.amount, flow.currency) == ("withdrawal", D(-401), "USDT")
    assert flow.at == START + timedelta(hours=1)


@pytest.mark.parametrize("status", [1, 3, 5])
def test_a_withdrawal_that_fails_comes_back(status: int) -> None:
    """The same amount with the other sign, under an id of its own, also where both are seen at once."""
    moves = begun()
    (told,) = moves.withdrawals([withdrawal(4)], NOW)
    again, back = moves.withdrawals([withdrawal(status)], NOW)
    assert again == told
    assert (back.amount, back.at) == (D(401), NOW)
    assert back.id != told.id
    assert sum(flow.amount for flow in begun().withdrawals([withdrawal(status)], NOW)) == 0


def test_of_what_began_before_we_looked_only_what_moves_the_balance_since_is_told() -> None:
    """Debited the day before: no news, unless it fails now. Inserted the day before: news once it is credited."""
    before = START - timedelta(days=1)
    moves = begun()
    assert moves.withdrawals([withdrawal(4, before)], NOW) == []
    (back,) = moves.withdrawals([withdrawal(5, before)], NOW)
    assert back.amount == 401
    assert begun().withdrawals([withdrawal(5, before)], NOW) == []
    assert moves.deposits([deposit(0, before)], NOW) == []
    (came,) = moves.deposits([deposit(1, before)], NOW)
    assert (came.amount, came.at) == (D(2), NOW)
    assert begun().deposits([deposit(1, before)], NOW) == []


def test_a_deposit_is_told_when_it_is_in_the_balance() -> None:
    """Credited but not to be withdrawn yet is in the balance; pending, rejected and waiting for the user is not."""
    assert [len(begun().deposits([deposit(status)], NOW)) for status in (0, 1, 2, 6, 7, 8)] == [0, 1, 0, 1, 0, 0]
    ended = milliseconds(START + timedelta(hours=3))
    assert begun().deposits([deposit(1, completeTime=ended)], NOW)[0].at == START + timedelta(hours=3)


def test_the_funding_wallet_is_no_part_of_the_account() -> None:
    """The venue lists both wallets' rows."""
    assert begun().withdrawals([withdrawal(6, walletType=1)], NOW) == []
    assert begun().deposits([deposit(1, walletType=1)], NOW) == []


def test_a_transfer_is_told_once_it_is_confirmed() -> None:
    """Pending ones are not, nor are those that failed."""
    row = {"tranId": 7, "amount": "5", "asset": "USDT", "timestamp": milliseconds(START + timedelta(hours=1))}
    moves = begun()
    assert moves.transfers([row | {"status": "PENDING"}, row | {"tranId": 8, "status": "FAILED"}], -1, NOW) == []
    (flow,) = moves.transfers([row | {"status": "CONFIRMED"}], -1, NOW)
    assert (flow.kind, flow.amount, flow.at) == ("transfer", D(-5), NOW)


@pytest.mark.parametrize("wrong", [{"status": 9}, {"id": None}, {"applyTime": "soon"}, {"amount": "x"}])
def test_a_withdrawal_that_makes_no_sense_is_not_passed_over(wrong: dict[str, Any]) -> None:
    """The flows are unknown then."""
    with pytest.raises(UnreadableError):
        begun().withdrawals([withdrawal(6) | wrong], NOW)
