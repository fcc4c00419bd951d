"""A coin of a Binance futures account without an index: what stays known, and the bounds of its value."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.snapshot import AccountSnapshot
from killswitch_ccxt.venue import CcxtVenue
from tests.unit.ccxt.binance.test_binance import INVERSE, QUIET, adapter_with, snapshot_of

D = Decimal


def _coin(asset: str, amount: str, profit: str = "0", margin: str = "0") -> dict[str, str]:
    wallet = str(D(amount) - D(profit))
    return {"asset": asset, "marginBalance": amount, "walletBalance": wallet, "unrealizedProfit": profit,
            "availableBalance": amount, "positionInitialMargin": margin, "maintMargin": margin}  # fmt: skip


BTC_INDEX = {"pair": "BTCUSD", "symbol": "BTCUSD_PERP", "indexPrice": "50000"}
XYZ_INDEX = {"pair": "XYZUSD", "symbol": "XYZUSD_PERP", "indexPrice": "9"}
HELD = {"symbol": "BTCUSD_PERP", "positionSide": "SHORT", "positionAmt": "-20", "markPrice": "50000",
        "unRealizedProfit": "0.001", "notionalValue": "-0.04", "initialMargin": "0.01"}  # fmt: skip


def _answers(*assets: Mapping[str, str], index: Any = (BTC_INDEX,), held: Any = (HELD,)) -> dict[str, Any]:
    return {
        "/dapi/v1/exchangeInfo": INVERSE, "/dapi/v1/account": {"assets": list(assets)},
        "/dapi/v1/positionRisk": list(held), "/dapi/v1/premiumIndex": list(index),
        "/dapi/v1/positionSide/dual": {"dualSidePosition": True}, "/dapi/v1/openOrders": [],
        "/dapi/v1/openAlgoOrders": [], "/dapi/v1/income": [], "/dapi/v1/ticker/bookTicker": [],
        "/dapi/v1/ticker/price": [], "/dapi/v1/time": {"serverTime": 1}, "/dapi/v1/userTrades": [],
        "/dapi/v1/forceOrders": [],
    }  # fmt: skip


def _read(*assets: Mapping[str, str], index: Any = (BTC_INDEX,), **options: object) -> AccountSnapshot:
    answers = _answers(*assets, index=index)
    return snapshot_of(answers, exchange="binancecoinm", currency="USD", options=options)


BTC = _coin("BTC", "1.001", profit="0.001", margin="0.01")
"""1.001 BTC at 50,000 are 50,050 USD, of which 2% are 1,001."""


def test_one_coin_without_an_index_leaves_the_positions_known() -> None:
    """100 XYZ that nobody can value: the equity is unknown with its reason; the short of bitcoin can be closed."""
    seen = _read(BTC, _coin("XYZ", "100"))
    assert (seen.quality, seen.equity, seen.unrealized) == ("ok", None, None)
    assert "the venue has no index price for XYZ in USD" in str(seen.reason)
    assert [(it.symbol, it.contracts, it.notional) for it in seen.positions or ()] == [("BTC/USD:BTC", 20, 2_000)]
    assert [(it.asset, it.price) for it in seen.balances or ()] == [("BTC", 50_000), ("XYZ", None)]


@pytest.mark.parametrize(("bound", "equity"), [("1001", 50_050), ("1001.01", None)])
def test_a_declared_bound_up_to_two_per_cent_makes_the_equity_known(bound: str, equity: int | None) -> None:
    """XYZ counts as nothing; 0.001 BTC of profit are 50 USD."""
    seen = _read(BTC, _coin("XYZ", "100"), unpriced={"XYZ": bound})
    assert (seen.equity, seen.unrealized) == (equity, None if equity is None else 50)
    assert "XYZ" in str(seen.reason)


def test_a_coin_that_is_left_out_needs_no_index() -> None:
    """`ignore_assets` leaves it out of the balances as well."""
    seen = _read(BTC, _coin("XYZ", "100"), ignore_assets=["XYZ"])
    assert (seen.equity, seen.reason, [it.asset for it in seen.balances or ()]) == (50_050, None, ["BTC"])


def test_a_declared_bound_does_not_cover_profit_of_positions_in_the_coin() -> None:
    """BTC has no index, and the position settles in it: whatever the document declares, the equity is unknown."""
    seen = _read(_coin("USD", "100000"), _coin("BTC", "0.01"), index=(XYZ_INDEX,), unpriced={"BTC": "1"})
    assert (seen.quality, seen.equity) == ("ok", None)


def test_margin_in_a_coin_without_an_index_is_unknown_and_not_left_out() -> None:
    """0.01 BTC are 500 USD; another 5 XYZ of margin are not nothing."""
    seen = _read(BTC, _coin("XYZ", "100", margin="5"))
    assert (seen.margin_used, seen.maintenance_margin) == (None, None)
    assert _read(BTC, _coin("XYZ", "100")).margin_used == 500


def test_the_last_index_bounds_a_coin_for_a_while() -> None:
    """100 XYZ at 9 are 900 USD, less than 2%: they count at 9 after the index is gone, and the parts add up."""
    answers = _answers(BTC, _coin("XYZ", "100"), index=(BTC_INDEX, XYZ_INDEX))

    async def main() -> tuple[AccountSnapshot, AccountSnapshot]:
        venue: CcxtVenue = adapter_with(answers, exchange="binancecoinm", currency="USD")
        try:
            before = await venue.snapshot()
            answers["/dapi/v1/premiumIndex"] = [BTC_INDEX]
            return before, await venue.snapshot()
        finally:
            await venue.close()

    before, after = asyncio.run(main())
    assert before.equity == after.equity == 50_950
    parts = sum((it.wallet or D(0)) * (it.price or D(0)) for it in after.balances or ())
    assert after.unrealized is not None and parts + after.unrealized == after.equity
    assert "XYZ, counted at its price 9 USD" in str(after.reason)


def test_a_declared_bound_counts_for_linear_contracts_too() -> None:
    """10,000 USDT and 7 XYZ without an index, declared to be at most 200."""
    account = {
        "totalMarginBalance": "10000", "totalPositionInitialMargin": "0", "totalMaintMargin": "0",
        "assets": [_coin("USDT", "10000"), _coin("XYZ", "7")], "positions": [],
    }  # fmt: skip
    answers = {**QUIET, "/fapi/v3/account": account}
    assert snapshot_of(answers).equity is None
    assert snapshot_of(answers, options={"unpriced": {"XYZ": "200"}}).equity == 10_000
