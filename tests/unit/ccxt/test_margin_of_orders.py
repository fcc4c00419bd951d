"""Margin that resting orders hold: it does not contradict an account without positions, and never proves one."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from killswitch_ccxt.venues.bybit.rows import account_equity
from killswitch_ccxt.venues.okx.rows import account_equity as okx_wealth
from tests.unit.ccxt.binance.test_binance import QUIET, account, snapshot_of

USDT: dict[str, Any] = {"asset": "USDT", "walletBalance": "1000", "unrealizedProfit": "0", "marginBalance": "1000"}


def binance(**more: str) -> dict[str, Any]:
    """USD-M futures: 20 USDT of initial margin, all of which orders hold."""
    held = {"totalPositionInitialMargin": "0", "totalOpenOrderInitialMargin": "20", "totalMaintMargin": "0"}
    return dict(QUIET) | {"/fapi/v3/account": account(assets=[USDT], **(held | more))}


def test_an_order_at_binance_does_not_make_a_flat_account_unknown() -> None:
    """What positions need is told beside it; where they need some and there are none, one of the two is wrong."""
    flat = snapshot_of(binance())
    assert (flat.quality, flat.positions, flat.margin_used) == ("ok", (), 0)
    odd = snapshot_of(binance(totalPositionInitialMargin="20", totalMaintMargin="2"))
    assert (odd.quality, odd.positions) == ("malformed", None)
    assert "initial margin of 20" in str(odd.reason)


def test_the_recorded_wallet_of_an_order_at_bybit_has_no_margin_of_positions(shared: Path) -> None:
    """50.028 USD of initial and 5.0028 of maintenance margin, of which positions hold nothing."""
    told = json.loads((shared / "data/payloads/bybit/ws_account_wallet_small_order.json").read_text())
    for row in told["data"]:
        assert Decimal(row["totalInitialMargin"]) > 0
        row["coin"][0]["usdValue"] = row["coin"][0]["equity"]
    assert account_equity({"result": {"list": told["data"]}}, "USDT").margin_used == 0


@pytest.mark.parametrize(
    ("told", "used"), [({}, None), ({"totalPositionIM": "40"}, 40), ({"totalPositionIM": ""}, None)]
)
def test_of_bybits_margin_only_that_of_positions_counts(told: dict[str, str], used: int | None) -> None:
    """120 USDT for both, as far as the coins tell which; with portfolio margin they do not."""
    coin = {"coin": "USDT", "equity": "1000", "usdValue": "1000", "walletBalance": "1000", "spotBorrow": "0", **told}
    row = {"totalEquity": "1000", "totalInitialMargin": "120", "totalMaintenanceMargin": "12", "coin": [coin]}
    assert account_equity({"result": {"list": [row]}}, "USDT").margin_used == used


@pytest.mark.parametrize(("orders", "used"), [("300", 0), ("100", 200), ("", None)])
def test_of_okxs_margin_of_several_currencies_orders_are_taken_off(orders: str, used: int | None) -> None:
    """300 USD of initial margin; a dollar is a USDT."""
    held = [
        {"ccy": name, "eq": eq, "cashBal": eq, "eqUsd": usd, "upl": "0"}
        for name, eq, usd in (("USDT", "500", "500"), ("BTC", "0.01", "500"))
    ]
    told = {"totalEq": "1000", "imr": "300", "mmr": "30", "ordFroz": orders, "details": held}
    assert okx_wealth(told, "USDT", Decimal(1)).margin_used == used
