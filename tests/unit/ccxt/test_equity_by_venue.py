"""Equity components at Bitget, Deribit, Hyperliquid, Kraken, Kraken Futures, MEXC and any other exchange."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import Balance, Rate
from killswitch.model.venue import Prices
from killswitch_ccxt.equity import AccountEquity
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.bitget.rows import account_equity
from killswitch_ccxt.venues.generic import generic
from tests.unit.ccxt.venues import test_deribit as deribit
from tests.unit.ccxt.venues import test_hyperliquid as hyperliquid
from tests.unit.ccxt.venues import test_kraken as kraken
from tests.unit.ccxt.venues import test_krakenfutures as krakenfutures
from tests.unit.ccxt.venues import test_mexc as mexc

D = Decimal


def sum_of_components(found: Any) -> Decimal:
    """Σ wallet × price + unrealised profit."""
    assert found.balances is not None
    return sum((it.wallet * it.price for it in found.balances), D(0)) + found.unrealized


async def snapshot(adapter: Any) -> Any:
    return await adapter.snapshot()


# Bitget


def _coin(name: str, equity: str, profit: str, dollars: str, **more: str) -> dict[str, str]:
    return {"marginCoin": name, "accountEquity": equity, "unrealizedPL": profit, "usdtEquity": dollars, **more}


def test_a_bitget_wallet_is_the_equity_less_the_profit_of_the_same_row() -> None:
    """950 with an unrealised loss of 50: 1,000 in the wallet."""
    found = account_equity([_coin("USDT", "950", "-50", "950")], "USDT")
    assert found.balances == (Balance("USDT", D(950), D(1), wallet=D(1000), equity=D(950)),)
    assert (found.equity, found.unrealized, sum_of_components(found)) == (950, -50, 950)


def test_several_assets_at_bitget_have_bitgets_own_prices() -> None:
    """950 USDT, and 0.02 BTC valued at 800, of which 0.005 are unrealised: wallets of 1,000 and 0.015, at 40,000."""
    rows = [
        _coin("USDT", "950", "-50", "950", assetMode="union"), _coin("BTC", "0.02", "0.005", "800", assetMode="union"),
        _coin("ETH", "0", "0", "0", assetMode="union"),
    ]  # fmt: skip
    found = account_equity(rows, "USDT")
    assert [(it.asset, it.wallet, it.price) for it in found.balances or ()] == [
        ("USDT", D(1000), D(1)),
        ("BTC", D("0.015"), D(40_000)),
    ]
    assert (found.equity, found.unrealized, sum_of_components(found)) == (1750, 150, 1750)


def test_a_missing_profit_at_bitget_is_the_sum_of_both_margin_modes_or_unknown() -> None:
    """5 crossed and −2 isolated are 3; without both it is unknown."""
    both = {**_coin("USDT", "100", "", "100"), "crossedUnrealizedPL": "5", "isolatedUnrealizedPL": "-2"}
    assert account_equity([both], "USDT").unrealized == 3
    unknown = account_equity([_coin("USDT", "100", "", "100")], "USDT")
    assert (unknown.unrealized, unknown.balances) == (None, (Balance("USDT", D(100), D(1), equity=D(100)),))


def test_the_rate_of_usdc_in_usdt_is_from_bitgets_balance() -> None:
    """100 USDC are valued at 99.9 USDT."""
    assert account_equity([_coin("USDC", "100", "0", "99.9")], "USDC").rates == (Rate("USDT", D("0.999")),)


# Deribit

SESSION = {
    "currency": "BTC", "equity": 302.61869214, "balance": 302.60065765, "margin_balance": 302.62729214,
    "options_value": -0.0086, "futures_session_upl": 0.05921555, "futures_session_rpl": -0.03258105,
    "available_funds": 301.38059622, "initial_margin": 1.24669592, "maintenance_margin": 0.8857841,
    "cross_collateral_enabled": False,
}  # fmt: skip
"""The account summary from Deribit's documentation."""


def test_a_deribit_wallet_includes_the_realised_profit_of_the_session() -> None:
    """Deribit's own example: equity is balance + realised and unrealised profit of the session + value of options."""
    seen, _ = deribit.run(snapshot, {"private/get_account_summaries": {"summaries": [SESSION]},
                                      "private/get_positions": [deribit.LONG]})  # fmt: skip
    (btc,) = seen.balances
    assert btc.wallet == D("302.60065765") - D("0.03258105")
    assert abs(seen.unrealized - (D("0.05921555") - D("0.0086"))) < D("1e-7")
    assert sum_of_components(seen) == seen.equity == D("302.61869214")
    assert seen.rates == (Rate("USD", D(49990)),)


@pytest.mark.parametrize("missing", ["futures_session_rpl", "balance"])
def test_a_deribit_wallet_without_one_of_its_components_is_unknown(missing: str) -> None:
    """A missing realised profit is not read as zero: the equity is known, the wallet is not."""
    summary = {name: value for name, value in SESSION.items() if name != missing}
    seen, _ = deribit.run(snapshot, {"private/get_account_summaries": {"summaries": [summary]},
                                      "private/get_positions": [deribit.LONG]})  # fmt: skip
    assert (seen.quality, seen.equity, seen.unrealized) == ("ok", D("302.61869214"), None)
    assert [it.wallet for it in seen.balances or ()] == [None]


def test_collateral_at_deribit_is_priced_in_every_snapshot() -> None:
    """2 BTC and 25,000 USDC in an account counted in BTC, while BTC falls: each snapshot has its own price."""
    crossed = {"cross_collateral_enabled": True, "margin_model": "cross_sm", "total_equity_usd": 125_000.0}
    summaries = [
        {**deribit.SUMMARY, **crossed, "equity": 2.0, "balance": 1.9},
        {**deribit.SUMMARY, **crossed, "currency": "USDC", "equity": 25_000.0, "balance": 25_000.0},
    ]
    prices = iter([50_000.0, 49_900.0])

    def index(query: Any) -> Any:
        return {"index_price": 1.0 if query["index_name"] == "usdc_usd" else next(prices)}

    async def two_snapshots(venue: Any) -> Any:
        first = await venue.snapshot()
        await asyncio.sleep(1)
        return first, await venue.snapshot()

    answers = {"private/get_account_summaries": {"summaries": summaries}, "public/get_index_price": index}
    (first, second), venue = deribit.run(two_snapshots, answers)
    assert (first.equity, first.unrealized, sum_of_components(first)) == (D("2.5"), D("0.1"), D("2.5"))
    assert [(it.asset, it.wallet, it.price) for it in first.balances] == [
        ("BTC", D("1.9"), D(1)),
        ("USDC", D(25_000), 1 / D(50_000)),
    ]
    assert second.equity == 2 + 25_000 * (1 / D(49_900))
    assert first.rates == (Rate("USD", D(50_000)),)
    assert {it["currency"] for it in venue.asked("private/get_transaction_log")} == {"BTC", "USDC"}


def test_components_that_are_far_from_deribits_total_are_left_out() -> None:
    """2 BTC at 50,000 are not 125,000 USD: the summaries lack something, so only the total is known."""
    crossed = {
        **deribit.SUMMARY,
        "cross_collateral_enabled": True,
        "margin_model": "cross_sm",
        "total_equity_usd": 125_000.0,
        "equity": 2.0,
    }
    answers = {"private/get_account_summaries": {"summaries": [crossed]},
            "public/get_index_price": {"index_price": 50_000.0}}  # fmt: skip
    seen, _ = deribit.run(snapshot, answers)
    assert (seen.equity, seen.unrealized) == (D("2.5"), None)


def test_a_currency_without_an_index_at_deribit_leaves_only_the_total_known() -> None:
    """2.5 BTC and a token for which Deribit returns no index: the equity stays known, without components."""
    crossed = {
        **deribit.SUMMARY,
        "cross_collateral_enabled": True,
        "margin_model": "cross_sm",
        "total_equity_usd": 125_000.0,
    }

    def index(query: Any) -> Any:
        is_known = query["index_name"] == "btc_usd"
        return {"index_price": 50_000.0} if is_known else deribit.error_reply(-32602, text="Invalid params")

    token = {**crossed, "currency": "TOKEN", "equity": 9.0}
    answers = {"private/get_account_summaries": {"summaries": [crossed, token]}, "public/get_index_price": index}
    seen, _ = deribit.run(snapshot, answers)
    assert (seen.quality, seen.equity, seen.unrealized) == ("ok", D("2.5"), None)


def test_prices_of_deribit_include_the_index_and_omit_undated_last_prices() -> None:
    """A future and an option, each by its own request; the time of an option's last trade is unknown."""
    tickers = {
        "BTC-PERPETUAL": {"mark_price": 49000.5, "index_price": 48990.0, "last_price": 49001.0, "timestamp": 1000},
        "BTC-26DEC25-100000-C": {"mark_price": 0.03, "index_price": 48990.0, "last_price": 0.09, "timestamp": 2000},
    }

    async def prices(venue: Any) -> Any:
        await venue.snapshot()
        return await venue.prices([deribit.PERPETUAL, deribit.OPTION, "NONE"])

    found, _ = deribit.run(prices, {"public/ticker": lambda query: tickers[query["instrument_name"]]})
    assert found == {
        deribit.PERPETUAL: Prices(D("49000.5"), D(48990), D(49001), datetime.fromtimestamp(1, UTC)),
        deribit.OPTION: Prices(D("0.03"), D(48990), None, datetime.fromtimestamp(2, UTC)),
    }


# Hyperliquid


def test_a_hyperliquid_wallet_is_the_equity_less_unrealised_profits() -> None:
    """13,109.48 with 12.5 of profit in each of two positions; all from one answer, dated by the venue."""
    seen = hyperliquid.TypedAnswers().run(snapshot)
    (usdc,) = seen.balances
    assert (usdc.wallet, usdc.equity, seen.unrealized) == (D("13084.48"), D("13109.48"), 25)
    assert sum_of_components(seen) == seen.equity
    at = datetime.fromtimestamp(1708622398.623, UTC)
    assert {seen.wallet_as_of, seen.positions_as_of, *(it.mark_at for it in seen.positions)} == {at}
    assert seen.complete is None


def test_positions_at_other_exchanges_that_share_the_margin_make_the_list_incomplete() -> None:
    """With one abstraction for all exchanges, positions on exchanges deployed by others use this account's margin."""
    assert hyperliquid.TypedAnswers(userAbstraction="dexAbstraction").run(snapshot).complete is False


def test_prices_of_hyperliquid_are_one_request() -> None:
    """Mark, oracle and mid price by one request, which is not about an account."""
    venue = hyperliquid.TypedAnswers()

    async def prices(adapter: Any) -> Any:
        await adapter.snapshot()
        venue.asked.clear()
        return await adapter.prices([hyperliquid.BTC])

    found = venue.run(prices)
    assert found == {hyperliquid.BTC: Prices(D("100000.0"), D("100001.0"), D("100000.5"))}
    assert venue.asked == [{"type": "metaAndAssetCtxs"}]


# Kraken


def test_the_wallets_of_a_kraken_spot_account_are_its_amounts_dated_by_the_balances() -> None:
    """Balances are reused for a few seconds while prices are updated: the wallets state their time."""
    balances = {"ZUSD": {"balance": "1000"}, "XXBT": {"balance": "0.5"}}
    time = hyperliquid.VirtualTime()

    async def two_snapshots(adapter: CcxtVenue) -> Any:
        first = await adapter.snapshot()
        await asyncio.sleep(1)
        return first, await adapter.snapshot()

    first, second = kraken.TypedAnswers(BalanceEx=balances, options={"clock": time}).run(two_snapshots, time)
    assert {(it.asset, it.wallet, it.price) for it in first.balances} == {
        ("USD", D(1000), D(1)),
        ("BTC", D("0.5"), D(100_000)),
    }
    assert (first.unrealized, sum_of_components(first), first.equity) == (0, 51_000, 51_000)
    assert second.wallet_as_of == second.positions_as_of == first.wallet_as_of
    assert second.observed_at - first.observed_at >= timedelta(seconds=1)


def test_a_kraken_margin_account_has_an_unrealised_profit_and_no_wallet(shared: Path) -> None:
    """Kraken states only the sum of the collateral, which changes with its prices."""
    answers = {
        "TradeBalance": kraken.recorded(shared, "spot_trade_balance"),
        "OpenPositions": kraken.recorded(shared, "spot_open_positions"),
    }
    seen = kraken.TypedAnswers("margin", **answers).run(snapshot)
    assert (seen.equity, seen.unrealized, seen.balances) == (D("198499.67"), D("-250.75"), None)


# Kraken Futures

FLEX = {
    "type": "multiCollateralMarginAccount",
    "currencies": {"USD": {"quantity": 5000, "value": 5000}, "XBT": {"quantity": 0.5, "value": 45000},
                   "ETH": {"quantity": 0, "value": 0}},
    "balanceValue": 50000.0, "portfolioValue": 50500.2, "totalUnrealized": 500.25, "availableMargin": 40000,
    "initialMargin": 3000, "maintenanceMargin": 0,
}  # fmt: skip


def _flex(shared: Path, currency: str = "USD", **more: Any) -> AccountEquity:
    async def equity(adapter: CcxtVenue) -> AccountEquity:
        return await adapter.dialect.equity()

    found = krakenfutures.replayed(
        shared, equity, currency=currency, accounts={"accounts": {"flex": {**FLEX, **more}}},
        openpositions={"openPositions": []},
    )  # fmt: skip
    assert isinstance(found, AccountEquity)
    return found


def test_a_flex_wallet_is_its_currencies_at_krakens_valuation(shared: Path) -> None:
    """5,000 USD and half a bitcoin at 90,000, 500.25 unrealised. The portfolio's value is rounded, so it is unused."""
    found = _flex(shared)
    assert [(it.asset, it.wallet, it.price) for it in found.balances or ()] == [
        ("BTC", D("0.5"), D(90_000)),
        ("USD", D(5000), D(1)),
    ]
    assert (found.unrealized, found.equity, sum_of_components(found)) == (D("500.25"), D("50500.25"), D("50500.25"))


def test_a_flex_wallet_counted_in_bitcoin_has_the_rate_of_bitcoin(shared: Path) -> None:
    """9,000 USD of profit are a tenth of a bitcoin."""
    found = _flex(shared, "BTC", totalUnrealized=9000, portfolioValue=59000)
    assert (found.unrealized, found.rates) == (D("0.1"), (Rate("USD", D(90_000)),))
    assert abs(sum_of_components(found) - found.equity) < D("1e-20")


def test_a_portfolio_worth_more_than_its_components_keeps_its_value(shared: Path) -> None:
    """50,500.25 in components and 60,000 in total: the difference is reported, and the snapshot has no components."""
    found = _flex(shared, portfolioValue=60_000)
    assert (found.equity, found.gap) == (60_000, D("9499.75"))
    assert _flex(shared, totalUnrealized=None).unrealized is None


def test_the_equity_of_a_single_collateral_wallet_is_its_balance_and_unrealised_profit(shared: Path) -> None:
    """2.5 BTC, and 2.25 with an unrealised loss of 0.25."""

    async def equity(adapter: CcxtVenue) -> Any:
        return await adapter.dialect.equity()

    found = krakenfutures.replayed(
        shared, equity, wallet="fi_xbtusd", currency="BTC",
        accounts={"accounts": {"fi_xbtusd": krakenfutures.single("xbt")}}, openpositions={"openPositions": []},
    )  # fmt: skip
    assert (found.unrealized, sum_of_components(found), found.balances[0].wallet) == (D("-0.25"), D("2.25"), D("2.5"))


def _fill_rows(first: int, count: int) -> list[dict[str, Any]]:
    """Fills a second apart, the newest first; `first` is the number of the newest."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        {"fill_id": f"f{number}", "symbol": "PF_XBTUSD", "side": "buy", "size": 1, "price": 100.0, "fillType": "taker",
         "order_id": "o", "fillTime": (begin + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")}
        for number in range(first, first - count, -1)
    ]  # fmt: skip


def test_more_than_a_hundred_fills_are_read_page_by_page() -> None:
    """250 fills: pages of 100, 100 and 50, each before the oldest of the last one, and every fill once."""
    desk = krakenfutures.account()
    rows, requested = _fill_rows(250, 250), []

    def page(ask: Any) -> Any:
        before = ask.params.get("lastFillTime")
        requested.append(before)
        return {"fills": [row for row in rows if before is None or row["fillTime"] < before][:100]}

    async def fetch(adapter: Any, venue: Any) -> Any:
        await adapter.snapshot()
        venue.list_fills = page
        return await adapter.dialect.fills((), 0)

    found = desk.run(fetch)
    assert sorted(int(fill.id[1:]) for fill in found) == list(range(1, 251))
    assert requested[-3:] == [None, rows[99]["fillTime"], rows[199]["fillTime"]]


def test_a_list_of_fills_that_does_not_advance_is_incomplete() -> None:
    """A hundred fills at one moment, and the same page again."""
    desk = krakenfutures.account()
    row = _fill_rows(1, 1)[0]

    async def fetch(adapter: Any, venue: Any) -> Any:
        await adapter.snapshot()
        venue.list_fills = lambda ask: {"fills": [{**row, "fill_id": f"f{number}"} for number in range(100)]}
        with pytest.raises(UnreadableError, match="there may be more"):
            await adapter.dialect.fills((), 0)

    desk.run(fetch)


# MEXC


def test_a_mexc_wallet_is_the_equity_less_unrealised_profit() -> None:
    """1,000 of equity of which 40 are unrealised: 960 in the wallet."""
    desk = mexc.account()

    async def fetch(adapter: Any, venue: Any) -> Any:
        await adapter.snapshot()

        async def call(method: str, *_: Any) -> Any:
            assert method == "contractPrivateGetAccountAssets"
            row = {"currency": "USDT", "equity": D(1000), "unrealized": D(40), "availableBalance": D(900),
                   "positionMargin": D(60), "cashBalance": D(900)}  # fmt: skip
            return {"data": [row]}

        adapter.dialect.client.call = call
        return await adapter.dialect.equity()

    found = desk.run(fetch)
    assert found.balances == (Balance("USDT", D(1000), D(1), wallet=D(960), equity=D(1000)),)
    assert (found.unrealized, sum_of_components(found)) == (40, 1000)


# Any other


def test_any_other_exchange_has_no_complete_lists_and_no_wallet() -> None:
    """It is unknown what its lists leave out, and whether its balance includes unrealised profit."""
    adapter = generic("bingx")
    assert adapter.complete_lists == frozenset()
    assert replace(AccountEquity(D(1))).gap is None
