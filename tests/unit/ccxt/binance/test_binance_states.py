"""The status of a contract at Binance's futures: a temporary stop is halted, a permanent one is delisted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.ccxt.binance.test_binance import INVERSE, QUIET, RULE, account, snapshot_of

KINDS = [
    ("TRADING", "open"), ("SETTLING", "delisted"), ("CLOSE", "delisted"), ("DELIVERED", "delisted"),
    ("TRADING_CANCEL_ONLY", "cancel_only"), ("PRE_SETTLE", "halted"), ("PRE_DELIVERING", "halted"),
    ("DELIVERING", "halted"), ("PENDING_TRADING", "halted"), ("TRADING_HALT", "halted"), ("SOMETHING_NEW", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "state"), KINDS)
def test_the_status_of_a_usd_margined_contract(status: str, state: str | None) -> None:
    """A removed perpetual stays `SETTLING`; an unknown status is unknown, so that a close is attempted."""
    rules = {"symbols": [RULE | {"symbol": "BTCUSDT", "baseAsset": "BTC", "status": status}]}
    answers = dict(QUIET) | {"/fapi/v1/exchangeInfo": rules, "/fapi/v3/account": account(totalMaintMargin="0")}
    found = snapshot_of(answers, rules=status)
    assert [(it.symbol, it.state) for it in found.instruments or ()] == [("BTC/USDT:USDT", state)]


@pytest.mark.parametrize(("status", "state"), KINDS)
def test_the_status_of_a_coin_margined_contract_is_in_another_field(status: str, state: str | None) -> None:
    """`contractStatus`, with the same values."""
    rule: dict[str, Any] = {**INVERSE["symbols"][0], "contractStatus": status}
    del rule["status"]
    nothing = {"asset": "BTC", "marginBalance": "0", "walletBalance": "0"}
    answers = {
        "/dapi/v1/exchangeInfo": {"symbols": [rule]}, "/dapi/v1/account": {"assets": [nothing]},
        "/dapi/v1/positionRisk": [], "/dapi/v1/openOrders": [], "/dapi/v1/openAlgoOrders": [],
        "/dapi/v1/income": [], "/dapi/v1/positionSide/dual": {"dualSidePosition": False},
        "/dapi/v1/time": {"serverTime": 1625474304765}, "/dapi/v1/userTrades": [],
    }  # fmt: skip
    found = snapshot_of(answers, exchange="binancecoinm", currency="BTC", rules=status)
    assert [it.state for it in found.instruments or ()] == [state]
