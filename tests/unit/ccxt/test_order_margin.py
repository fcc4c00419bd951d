"""Margin of resting orders: it neither contradicts nor proves an account without positions."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from killswitch_ccxt.venues.bybit.rows import account_equity
from killswitch_ccxt.venues.okx.rows import account_equity as okx_account_equity
from tests.unit.ccxt.binance.test_binance import QUIET, account, snapshot_of

USDT: dict[str, Any] = {"asset": "USDT", "walletBalance": "1000", "unrealizedProfit": "0", "marginBalance": "1000"}


def binance(**more: str) -> dict[str, Any]:
    """USD-M futures with 20 USDT of initial margin, all of it held by orders."""
    held = {"totalPositionInitialMargin": "0", "totalOpenOrderInitialMargin": "20", "totalMaintMargin": "0"}
    return dict(QUIET) | {"/fapi/v3/account": account(assets=[USDT], **(held | more))}


def test_order_margin_at_binance_does_not_make_a_flat_account_unknown() -> None:
    """Binance states position margin separately; if it is above zero without positions, one of the two is wrong."""
    flat = snapshot_of(binance())
    assert (flat.quality, flat.positions, flat.margin_used) == ("ok", (), 0)
    odd = snapshot_of(binance(totalPositionInitialMargin="20", totalMaintMargin="2"))
    assert (odd.quality, odd.positions) == ("malformed", None)
    assert "initial margin of 20" in str(odd.reason)


def test_the_recorded_bybit_wallet_of_an_order_has_no_position_margin(shared: Path) -> None:
    """50.028 USD of initial and 5.0028 of maintenance margin, none of it held by positions."""
    recorded = json.loads((shared / "data/payloads/bybit/ws_account_wallet_small_order.json").read_text())
    for row in recorded["data"]:
        assert Decimal(row["totalInitialMargin"]) > 0
        row["coin"][0]["usdValue"] = row["coin"][0]["equity"]
    assert account_equity({"result": {"list": recorded["data"]}}, "USDT").margin_used == 0


@pytest.mark.parametrize(
    ("coin_margin", "used"), [({}, None), ({"totalPositionIM": "40"}, 40), ({"totalPositionIM": ""}, None)]
)
def test_only_the_position_margin_of_bybit_counts(coin_margin: dict[str, str], used: int | None) -> None:
    """120 USDT for positions and orders together; the coins state the split, except with portfolio margin."""
    usdt = {"coin": "USDT", "equity": "1000", "usdValue": "1000", "walletBalance": "1000", "spotBorrow": "0"}
    coin = usdt | coin_margin
    row = {"totalEquity": "1000", "totalInitialMargin": "120", "totalMaintenanceMargin": "12", "coin": [coin]}
    assert account_equity({"result": {"list": [row]}}, "USDT").margin_used == used


@pytest.mark.parametrize(("orders", "used"), [("300", 0), ("100", 200), ("", None)])
def test_okx_margin_of_several_currencies_excludes_that_of_orders(orders: str, used: int | None) -> None:
    """300 USD of initial margin; one USD is one USDT."""
    held = [
        {"ccy": name, "eq": eq, "cashBal": eq, "eqUsd": usd, "upl": "0"}
        for name, eq, usd in (("USDT", "500", "500"), ("BTC", "0.01", "500"))
    ]
    balance = {"totalEq": "1000", "imr": "300", "mmr": "30", "ordFroz": orders, "details": held}
    assert okx_account_equity(balance, "USDT", Decimal(1)).margin_used == used
