"""Equity components from one answer: equity is Σ wallet × price + unrealised profit, at prices of that moment."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from killswitch.model.snapshot import Balance, Rate
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.bybit.rows import account_equity as bybit_equity
from killswitch_ccxt.venues.okx.rows import account_equity
from tests.unit.ccxt.binance.test_binance import CONFIG, INVERSE, QUIET, SPOT_QUIET, account, snapshot_of
from tests.unit.ccxt.binance.test_binance_request_load import play

D = Decimal


def sum_of_components(found: Any) -> Decimal:
    """Σ wallet × price + unrealised profit."""
    assert found.balances is not None
    return sum((it.wallet * it.price for it in found.balances), D(0)) + found.unrealized


def asset(name: str, wallet: str, profit: str) -> dict[str, str]:
    return {"asset": name, "walletBalance": wallet, "unrealizedProfit": profit,
            "marginBalance": str(D(wallet) + D(profit)), "availableBalance": wallet, "initialMargin": "0",
            "maintMargin": "0"}  # fmt: skip


# Binance


@pytest.mark.parametrize("multi", [False, True])
def test_a_binance_account_in_several_assets_is_the_sum_of_its_wallets_and_profits(multi: bool) -> None:
    """1000 USDT and −50 of profit, 0.02 BTC at 50 000 ÷ 1.25: 950 + 800. In USD, one USDT costs 1.25.

    The venue's own total, here with a haircut of 5% on the BTC, is another number, and moves otherwise.
    """
    assets = [asset("USDT", "1000", "-50"), asset("BTC", "0.02", "0")]
    answers = {
        **QUIET, "/fapi/v1/accountConfig": CONFIG | {"multiAssetsMargin": multi},
        "/fapi/v3/account": account(assets=assets, totalMarginBalance="2137.5", totalMaintMargin="0"),
        "/fapi/v1/assetIndex": [{"symbol": "USDTUSD", "index": "1.25"}, {"symbol": "BTCUSD", "index": "50000"}],
    }  # fmt: skip
    found = snapshot_of(answers)
    assert (found.equity, found.unrealized, sum_of_components(found)) == (1750, -50, 1750)
    assert found.balances == (
        Balance("BTC", D("0.02"), D(40_000), wallet=D("0.02"), equity=D("0.02")),
        Balance("USDT", D(950), D(1), wallet=D(1000), equity=D(950)),
    )
    assert found.rates == (Rate("USD", D("1.25")),)


def test_collateral_at_binance_is_priced_in_every_snapshot() -> None:
    """BTC falls by 100 USD a second: each snapshot has its own price, after the first by a request for each asset."""
    seconds, requested = [0], []

    def index(query: dict[str, str]) -> Any:
        requested.append(query.get("symbol"))
        rows = [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "BTCUSD", "index": str(50_000 - 100 * seconds[0])},
                {"symbol": "ETHUSD", "index": "2500"}]  # fmt: skip
        return rows if "symbol" not in query else next(row for row in rows if row["symbol"] == query["symbol"])

    async def scenario(venue: CcxtVenue) -> list[Decimal | None]:
        found = []
        for second in range(3):
            seconds[0] = second
            found.append((await venue.snapshot()).equity)
            await asyncio.sleep(1)
        return found

    body = account(assets=[asset("USDT", "1000", "0"), asset("BTC", "1", "0")], totalMaintMargin="0")
    found, _ = play({**QUIET, "/fapi/v3/account": body, "/fapi/v1/assetIndex": index}, scenario)
    assert found == [51_000, 50_900, 50_800]
    assert requested == [None, "BTCUSD", "USDTUSD", "BTCUSD", "USDTUSD"]


def test_an_account_in_its_own_currency_alone_requests_no_index() -> None:
    """Nothing needs a price."""
    body = account(assets=[asset("USDT", "1000", "7")], totalMaintMargin="0")

    async def scenario(venue: CcxtVenue) -> Any:
        await venue.snapshot()
        return await venue.snapshot()

    found, asked = play({**QUIET, "/fapi/v3/account": body}, scenario)
    assert (found.equity, sum_of_components(found), asked["/fapi/v1/assetIndex"]) == (1007, 1007, 0)


def test_a_wallet_at_binance_without_its_margin_balance_is_malformed_not_zero() -> None:
    """1000 USDT, and a wallet of 1 BTC without its margin balance, which includes the profit."""
    assets = [
        asset("USDT", "1000", "0"),
        {name: value for name, value in asset("BTC", "1", "0").items() if name != "marginBalance"},
    ]
    index = [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "BTCUSD", "index": "50000"}]
    body = account(assets=assets, totalMaintMargin="0")
    found = snapshot_of({**QUIET, "/fapi/v3/account": body, "/fapi/v1/assetIndex": index})
    assert (found.quality, found.equity) == ("malformed", None)
    assert "the margin balance of BTC is missing" in (found.reason or "")


def test_coins_of_inverse_contracts_are_valued_at_the_index() -> None:
    """1 BTC and −0.1 of profit at 50 000, 2 ETH at 2 500: 45 000 + 5 000 USD. A BTC account has its rate in USD."""
    assets = [asset("BTC", "1", "-0.1"), asset("ETH", "2", "0")]
    index = [{"pair": "BTCUSD", "symbol": "BTCUSD_PERP", "indexPrice": "50000"},
             {"pair": "ETHUSD", "symbol": "ETHUSD_PERP", "indexPrice": "2500"}]  # fmt: skip
    answers = {
        "/dapi/v1/exchangeInfo": INVERSE, "/dapi/v1/account": {"assets": assets}, "/dapi/v1/positionRisk": [],
        "/dapi/v1/premiumIndex": index, "/dapi/v1/positionSide/dual": {"dualSidePosition": False},
        "/dapi/v1/openOrders": [], "/dapi/v1/openAlgoOrders": [], "/dapi/v1/income": [],
        "/dapi/v1/time": {"serverTime": 1}, "/dapi/v1/userTrades": [],
    }  # fmt: skip
    dollars = snapshot_of(answers, exchange="binancecoinm", currency="USD")
    assert (dollars.equity, dollars.unrealized, sum_of_components(dollars)) == (50_000, -5000, 50_000)
    coins = snapshot_of(answers, exchange="binancecoinm", currency="BTC")
    assert (coins.equity, sum_of_components(coins), coins.rates) == (1, 1, (Rate("USD", D(50_000)),))


def test_spot_holdings_are_wallets_without_a_profit_and_priced_with_the_balance() -> None:
    """10 000 USDT and 2 BTC at 50 000. Amounts and prices are requested at the same time."""
    order: list[str] = []
    balances = [{"asset": "USDT", "free": "10000", "locked": "0"}, {"asset": "BTC", "free": "1.5", "locked": "0.5"}]

    def body(_: Any) -> Any:
        order.append("account")
        return {"balances": balances}

    def last(_: Any) -> Any:
        order.append("prices")
        return SPOT_QUIET["/api/v3/ticker/price"]

    answers = {**SPOT_QUIET, "/api/v3/account": body, "/api/v3/ticker/price": last}
    found, asked = play(answers, lambda venue: venue.snapshot(), exchange="binance", market="spot")
    assert (found.equity, found.unrealized, sum_of_components(found)) == (110_000, 0, 110_000)
    assert [(it.asset, it.wallet) for it in found.balances] == [("USDT", 10_000), ("BTC", 2)]
    assert (sorted(order), asked["/api/v3/ticker/price"]) == (["account", "prices"], 1)


def test_a_single_price_in_place_of_the_whole_list_makes_a_spot_account_unknown() -> None:
    """Every symbol is requested at once: an answer about one of them is not the answer to this request."""
    balances = [{"asset": "BTC", "free": "1", "locked": "0"}, {"asset": "USDT", "free": "1", "locked": "0"}]
    best = {"symbol": "BTCUSDT", "bidPrice": "1", "askPrice": "1"}
    answers = {**SPOT_QUIET, "/api/v3/account": {"balances": balances}, "/api/v3/ticker/bookTicker": best}
    found = snapshot_of(answers, exchange="binance", market="spot")
    assert (found.quality, found.equity) == ("malformed", None)


# OKX and Bybit


def test_the_recorded_okx_balance_has_the_margin_of_its_isolated_position_in_its_wallet(shared: Path) -> None:
    """94.42… of cash and 5.46… isolated, of which −0.0273 is profit: the wallet is 99.92…, the equity 99.89…."""
    body = json.loads((shared / "data/payloads/okx/http_get_account_balance.json").read_text())
    found = account_equity(body["data"][0], "USDT", D("0.99994"))
    (own,) = found.balances or ()
    assert (found.equity, found.unrealized) == (D("99.89469657000001"), D("-0.0273000000000002"))
    assert own.wallet == D("99.89469657000001") + D("0.0273000000000002")
    assert (found.gap, found.rates, found.is_complete) == (0, (Rate("USD", D("0.99994")),), None)


def _detail(ccy: str, equity: str, dollars: str, profit: str, **more: str) -> dict[str, str]:
    return {"ccy": ccy, "eq": equity, "eqUsd": dollars, "upl": profit, "cashBal": "0", "liab": "", "isoEq": "0"} | more


def test_an_okx_account_in_two_currencies_adds_up_in_its_own_currency() -> None:
    """At 0.8 USD a USDT: 1000 USDT, of which 100 are profit, and 0.1 BTC for 4000 USD, of which 0.02 are profit.

    4000 ÷ 0.8 are 5000 USDT for the BTC, 50 000 each; the profit is 100 + 1000. With a bot's share it is incomplete.
    """
    details = [_detail("USDT", "1000", "800", "100"), _detail("BTC", "0.1", "4000", "0.02", stgyEq="0.01")]
    found = account_equity({"totalEq": "4800", "details": details}, "USDT", D("0.8"))
    assert (found.equity, found.unrealized, found.gap, found.is_complete) == (6000, 1100, 0, False)
    assert [(it.asset, it.price, it.wallet) for it in found.balances or ()] == [
        ("USDT", 1, 900), ("BTC", 50_000, D("0.08")),
    ]  # fmt: skip


def test_an_okx_account_with_an_empty_profit_has_zero_profit_only_if_all_is_cash() -> None:
    """A simple account holds only cash; where the equity exceeds the cash, the profit is unknown."""
    cash = _detail("USDT", "1000", "1000", "", cashBal="1000")
    more = _detail("USDT", "1000", "1000", "", cashBal="900")
    assert account_equity({"totalEq": "1000", "details": [cash]}, "USDT", D(1)).unrealized == 0
    assert account_equity({"totalEq": "1000", "details": [more]}, "USDT", D(1)).unrealized is None


def _bybit(total: str, *coins: dict[str, str]) -> AccountEquity:
    return bybit_equity({"result": {"list": [{"totalEquity": total, "coin": list(coins)}]}}, "USDT")


def _coin(name: str, equity: str, dollars: str, wallet: str, profit: str, borrowed: str = "0") -> dict[str, str]:
    return {"coin": name, "equity": equity, "usdValue": dollars, "walletBalance": wallet, "unrealisedPnl": profit,
            "spotBorrow": borrowed}  # fmt: skip


def test_a_bybit_account_adds_up_without_borrowed_amounts() -> None:
    """1200 USDT of which 200 are borrowed, and −100 of profit; 0.01 BTC at 50 000: 900 + 500, at one dollar a USDT."""
    found = _bybit("1400", _coin("USDT", "900", "900", "1200", "-100", "200"), _coin("BTC", "0.01", "500", "0.01", "0"))
    assert (found.equity, found.unrealized, found.gap, found.is_complete) == (1400, -100, 0, None)
    assert [(it.asset, it.wallet) for it in found.balances or ()] == [("USDT", 1000), ("BTC", D("0.01"))]


@pytest.mark.parametrize("missing", ["spotBorrow", "walletBalance"])
def test_a_bybit_wallet_without_wallet_balance_or_borrowed_amount_is_unknown(missing: str) -> None:
    """One of the two fields is missing: the equity is known, its components are not."""
    coin = _coin("USDT", "900", "900", "1200", "-100", "200")
    del coin[missing]
    found = _bybit("900", coin)
    assert (found.equity, found.unrealized, found.gap) == (900, None, None)
    assert [it.wallet for it in found.balances or ()] == [None]


def test_options_of_a_bybit_account_count_as_profit_and_mark_the_positions_incomplete() -> None:
    """1000 USDT in the wallet, 50 of futures profit and 300 of options: prices change the 300, transfers do not."""
    found = _bybit("1350", _coin("USDT", "1350", "1350", "1000", "50"))
    assert (found.equity, found.unrealized, found.gap, found.is_complete) == (1350, 350, 0, False)
