"""How and when Binance's deposits, withdrawals and transfers become flows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch_ccxt.venues.binance.flows import BalanceFlows

D = Decimal
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOW = START + timedelta(hours=5)


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def begun() -> BalanceFlows:
    """A reader of transfers that started at START."""
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
def test_a_withdrawal_and_its_fee_are_a_flow_as_soon_as_it_is_requested(status: int) -> None:
    """The venue debits it at once, and marks it completed minutes later."""
    (flow,) = begun().withdrawals([withdrawal(status)], NOW)
    assert (flow.kind, flow.amount, flow.currency) == ("withdrawal", D(-401), "USDT")
    assert flow.at == START + timedelta(hours=1)


@pytest.mark.parametrize("status", [1, 3, 5])
def test_a_failed_withdrawal_is_reversed_by_a_second_flow(status: int) -> None:
    """The same amount with the opposite sign and its own id, also when both are read at once."""
    moves = begun()
    (first,) = moves.withdrawals([withdrawal(4)], NOW)
    again, back = moves.withdrawals([withdrawal(status)], NOW)
    assert again == first
    assert (back.amount, back.at) == (D(401), NOW)
    assert back.id != first.id
    assert sum(flow.amount for flow in begun().withdrawals([withdrawal(status)], NOW)) == 0


def test_transfers_from_before_the_start_are_flows_only_if_they_change_the_balance_after_it() -> None:
    """Debited the day before: no flow, unless it fails now. Inserted the day before: a flow once it is credited."""
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


def test_a_deposit_is_a_flow_once_it_is_in_the_balance() -> None:
    """Credited but not yet withdrawable is in the balance; pending, rejected and waiting for the user is not."""
    assert [len(begun().deposits([deposit(status)], NOW)) for status in (0, 1, 2, 6, 7, 8)] == [0, 1, 0, 1, 0, 0]
    ended = milliseconds(START + timedelta(hours=3))
    assert begun().deposits([deposit(1, completeTime=ended)], NOW)[0].at == START + timedelta(hours=3)


def test_the_funding_wallet_is_not_part_of_the_account() -> None:
    """The venue lists rows of both wallets."""
    assert begun().withdrawals([withdrawal(6, walletType=1)], NOW) == []
    assert begun().deposits([deposit(1, walletType=1)], NOW) == []


def test_a_transfer_is_a_flow_once_it_is_confirmed() -> None:
    """Pending and failed ones are no flows."""
    row = {"tranId": 7, "amount": "5", "asset": "USDT", "timestamp": milliseconds(START + timedelta(hours=1))}
    moves = begun()
    assert moves.transfers([row | {"status": "PENDING"}, row | {"tranId": 8, "status": "FAILED"}], -1, NOW) == []
    (flow,) = moves.transfers([row | {"status": "CONFIRMED"}], -1, NOW)
    assert (flow.kind, flow.amount, flow.at) == ("transfer", D(-5), NOW)


@pytest.mark.parametrize("wrong", [{"status": 9}, {"id": None}, {"applyTime": "soon"}, {"amount": "x"}])
def test_an_unreadable_withdrawal_is_not_skipped(wrong: dict[str, Any]) -> None:
    """The flows are then unknown."""
    with pytest.raises(UnreadableError):
        begun().withdrawals([withdrawal(6) | wrong], NOW)
