"""Binance's recorded answers, and fields of its rows that ccxt omits or misreads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ccxt
import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import (
    AccountSpec,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
)
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues import dialect_of
from killswitch_ccxt.venues.binance.dialect import rights_of
from killswitch_ccxt.venues.binance.rows import cause, income
from killswitch_ccxt.venues.binance.spot import balance_of

D = Decimal
RULE: dict[str, Any] = {
    "contractType": "PERPETUAL", "status": "TRADING", "quoteAsset": "USDT", "marginAsset": "USDT",
    "pricePrecision": 2, "quantityPrecision": 3, "orderTypes": ["MARKET", "LIMIT"],
    "filters": [
        {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"},
        {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "120"},
        {"filterType": "PRICE_FILTER", "tickSize": "0.01", "minPrice": "0.01", "maxPrice": "1000000"},
    ],
}  # fmt: skip
LINEAR = {"symbols": [RULE | {"symbol": "BTCUSDT", "baseAsset": "BTC"}]}
INVERSE = {
    "symbols": [
        RULE | {"symbol": "BTCUSD_PERP", "pair": "BTCUSD", "baseAsset": "BTC", "quoteAsset": "USD",
                "marginAsset": "BTC", "contractSize": 100, "contractStatus": "TRADING"},
    ]
}  # fmt: skip
SPOT_RULES = {
    "symbols": [
        {"symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT",
         "isMarginTradingAllowed": True, "orderTypes": ["MARKET", "LIMIT"], "filters": RULE["filters"]}
        for base in ("BTC", "LTC")
    ] + [{"symbol": "LTCBTC", "status": "TRADING", "baseAsset": "LTC", "quoteAsset": "BTC",
          "orderTypes": ["LIMIT"], "filters": []}]
}  # fmt: skip
BOOK: list[dict[str, Any]] = [
    {"symbol": "BTCUSDT", "bidPrice": "49999", "askPrice": "50001"},
    {"symbol": "LTCUSDT", "bidPrice": "99", "askPrice": "101"},
]
LAST: list[dict[str, Any]] = [{"symbol": "BTCUSDT", "price": "50000"}, {"symbol": "LTCUSDT", "price": "100"}]
CONFIG: dict[str, Any] = {"dualSidePosition": False, "multiAssetsMargin": False}
QUIET: Mapping[str, Any] = {
    "/fapi/v1/exchangeInfo": LINEAR, "/fapi/v1/accountConfig": CONFIG, "/fapi/v1/income": [],
    "/fapi/v1/time": {"serverTime": 1625474304765}, "/fapi/v1/openOrders": [], "/fapi/v1/openAlgoOrders": [],
    "/fapi/v1/userTrades": [], "/fapi/v1/forceOrders": [], "/fapi/v1/ticker/bookTicker": BOOK[0],
    "/fapi/v1/ticker/price": LAST[0], "/fapi/v1/premiumIndex": {"symbol": "BTCUSDT", "indexPrice": "50000"},
    "/fapi/v3/positionRisk": [], "/fapi/v1/assetIndex": [{"symbol": "USDTUSD", "index": "1"}],
}  # fmt: skip
SPOT_QUIET: Mapping[str, Any] = {
    "/api/v3/exchangeInfo": SPOT_RULES, "/api/v3/ticker/bookTicker": BOOK, "/api/v3/ticker/price": LAST,
    "/api/v3/openOrders": [], "/api/v3/myTrades": [], "/api/v3/time": {"serverTime": 1625474304765},
    "/sapi/v1/asset/transfer": {"total": 0, "rows": []}, "/sapi/v1/capital/deposit/hisrec": [],
    "/sapi/v1/capital/withdraw/history": [], "/sapi/v1/margin/interestHistory": {"rows": [], "total": 0},
    "/sapi/v1/margin/openOrders": [], "/sapi/v1/margin/myTrades": [],
}  # fmt: skip


def adapter_with(
    answers: Mapping[str, Any],
    *,
    exchange: str = "binanceusdm",
    market: str = "swap",
    currency: str = "USDT",
    rules: str = "",
    options: Mapping[str, object] = MappingProxyType({}),
) -> CcxtVenue:
    """An adapter that gets these answers by path. `rules`: a name for rules that no other test may share."""
    credentials = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
    options = {**options, **({"ccxt": {"rulesOfTheTest": rules}} if rules else {})}
    spec = AccountSpec("main", "ccxt", market, currency, None, options, credentials, exchange=exchange)
    venue = CcxtVenue(spec, dialect_of(exchange))
    client = venue.client.ccxt

    async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        path = "/" + url.split("/", 3)[3].partition("?")[0]
        return json.loads(json.dumps(answers[path]))

    client.fetch = fetch
    return venue


def snapshot_of(answers: Mapping[str, Any], **how: Any) -> AccountSnapshot:
    """The snapshot that is read from these answers."""

    async def main() -> AccountSnapshot:
        venue = adapter_with(answers, **how)
        try:
            return await venue.snapshot()
        finally:
            await venue.close()

    return asyncio.run(main())


# Recorded answers


def recorded(shared: Path, name: str) -> Any:
    return json.loads((shared / "data/payloads/binance" / name).read_text())


def test_recorded_futures_answers_are_a_valid_snapshot(shared: Path) -> None:
    """23.72 USDT, one long of 0.001 at 50 000 with its mark at 51 000, one resting order and one conditional."""
    answers = dict(QUIET) | {
        "/fapi/v3/account": recorded(shared, "futures/http_json/account_info_v2.json"),
        "/fapi/v3/positionRisk": recorded(shared, "futures/http_json/position_risk.json"),
        "/fapi/v1/openOrders": [recorded(shared, "futures/http_json/order_response.json")],
        "/fapi/v1/openAlgoOrders": recorded(shared, "futures/http_json/open_algo_orders.json"),
    }
    found = snapshot_of(answers)
    assert (found.quality, found.equity, found.position_mode) == ("ok", D("23.72469206"), "one_way")
    (position,) = found.positions or ()
    assert (position.symbol, position.side, position.contracts) == ("BTC/USDT:USDT", "long", D("0.001"))
    assert (position.entry_price, position.mark_price, position.notional) == (D(50_000), D(51_000), D("51.0"))
    assert [(it.id, it.price, it.trigger_price, it.client_order_id) for it in found.orders or ()] == [
        ("12345678", 50_000, None, "testOrder123"), ("algo-123456789", None, 45_000, "test-algo-order-1"),
    ]  # fmt: skip
    assert found.instruments is not None
    assert found.instruments[0].max_amount == 120


def test_recorded_spot_answers_are_holdings_with_prices(shared: Path) -> None:
    """4 723 846.89208129 BTC at 50 000 and 4 763 368.68006011 LTC at 100, and an order of LTC against BTC."""
    answers = dict(SPOT_QUIET) | {
        "/api/v3/account": recorded(shared, "spot/http_json/account_response.json"),
        "/api/v3/openOrders": recorded(shared, "spot/http_json/open_orders_response.json"),
    }
    found = snapshot_of(answers, exchange="binance", market="spot")
    assert found.quality == "ok", found.reason
    assert found.equity == D("4723846.89208129") * 50_000 + D("4763368.68006011") * 100
    assert [(it.symbol, it.side, it.contracts) for it in found.positions or ()] == [
        ("BTC/USDT", "long", D("4723846.89208129")), ("LTC/USDT", "long", D("4763368.68006011")),
    ]  # fmt: skip
    assert [(it.id, it.symbol, it.amount) for it in found.orders or ()] == [("1", "LTC/BTC", D(1))]


@pytest.mark.parametrize("name", ["account_info_v2", "balance", "open_algo_orders", "order_response", "position_risk"])
@pytest.mark.parametrize("path", ["/fapi/v3/account", "/fapi/v3/positionRisk"])
def test_a_recorded_answer_to_the_wrong_request_is_never_accepted(shared: Path, name: str, path: str) -> None:
    """The account's answer to the request for positions, and so on: only the right answer gives a valid snapshot."""
    right = {"/fapi/v3/account": "account_info_v2", "/fapi/v3/positionRisk": "position_risk"}
    answers = dict(QUIET) | {
        place: recorded(shared, f"futures/http_json/{name if place == path else own}.json")
        for place, own in right.items()
    }
    found = snapshot_of(answers)
    if name == right[path]:
        assert found.quality == "ok"
    else:
        assert (found.quality, found.positions, found.equity) == ("malformed", None, None)
        assert found.reason


def test_a_recorded_order_by_the_venue_is_recognised_by_its_client_id(shared: Path) -> None:
    """Deleveraging, liquidation and settlement orders have client ids of the venue; others are trades."""
    row = recorded(shared, "futures/user_data_json/order_update_adl.json")["o"]
    assert cause(row["c"]) == "adl"
    assert (cause("autoclose-1"), cause("settlement_autoclose-1"), cause("ks1")) == ("liquidation", "delivery", None)


# The account


def account(**more: Any) -> dict[str, Any]:
    return {"totalInitialMargin": "20", "totalMaintMargin": "2", "totalWalletBalance": "1000",
            "totalMarginBalance": "1100", "availableBalance": "900", "assets": [], "positions": []} | more  # fmt: skip


LONG: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "positionSide": "BOTH",
    "positionAmt": "2",
    "entryPrice": "0.0",
    "markPrice": "50000",
}


def test_in_multi_assets_mode_the_total_in_dollars_is_converted_to_the_accounts_currency() -> None:
    """1100 USD at 1.10 USD for one USDT are 1000 USDT."""
    answers = dict(QUIET) | {
        "/fapi/v1/accountConfig": CONFIG | {"multiAssetsMargin": True}, "/fapi/v3/account": account(),
        "/fapi/v1/assetIndex": [{"symbol": "USDTUSD", "index": "1.10"}], "/fapi/v3/positionRisk": [LONG],
    }  # fmt: skip
    found = snapshot_of(answers)
    assert (found.equity, found.margin_mode) == (D(1000), "multi_assets")
    without = snapshot_of(answers | {"/fapi/v1/assetIndex": []})
    assert (without.quality, without.equity) == ("malformed", None)
    assert "no price of USDT" in (without.reason or "")


def test_in_single_asset_mode_other_assets_are_added_at_the_venues_own_price() -> None:
    """100 USDT and 2 BNB at 300."""
    assets = [
        {"asset": "USDT", "marginBalance": "100", "availableBalance": "80"},
        {"asset": "BNB", "marginBalance": "2"},
    ]
    answers = dict(QUIET) | {
        "/fapi/v3/account": account(assets=assets, totalMaintMargin="0"),
        "/fapi/v1/assetIndex": [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "BNBUSD", "index": "300"}],
    }
    found = snapshot_of(answers)
    assert (found.equity, found.free) == (D(700), D(80))


def test_in_single_asset_mode_an_asset_without_an_index_makes_only_the_equity_unknown() -> None:
    """1,000 USDT and 10 BNB at 500 are 6,000. Without an index of BNB they are not 1,000; the position is known."""
    assets = [
        {"asset": name, "marginBalance": amount, "walletBalance": amount, "unrealizedProfit": "0",
         "availableBalance": amount}
        for name, amount in (("USDT", "1000"), ("BNB", "10"))
    ]  # fmt: skip
    index = [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "BNBUSD", "index": "500"}]
    answers = dict(QUIET) | {
        "/fapi/v3/account": account(assets=assets), "/fapi/v3/positionRisk": [LONG], "/fapi/v1/assetIndex": index,
    }  # fmt: skip
    assert (snapshot_of(answers).equity, snapshot_of(answers).unrealized) == (6000, 0)
    without = answers | {"/fapi/v1/assetIndex": index[:1]}
    found = snapshot_of(without)
    assert (found.quality, found.equity, found.unrealized) == ("ok", None, None)
    assert "no index price for BNB in USDT" in (found.reason or "")
    assert [position.contracts for position in found.positions or ()] == [2]
    left_out = snapshot_of(without, options={"ignore_assets": ["BNB"]})
    assert (left_out.equity, left_out.reason) == (1000, None)
    assert [it.asset for it in left_out.balances or ()] == ["USDT"]


def test_in_single_asset_mode_failed_positions_and_an_unknown_equity_give_no_snapshot() -> None:
    """Positions fail, and BNB has no index: nothing about the account is known."""
    assets = [{"asset": "USDT", "marginBalance": "1000", "walletBalance": "1000"},
              {"asset": "BNB", "marginBalance": "10", "walletBalance": "10"}]  # fmt: skip
    answers = dict(QUIET) | {"/fapi/v3/account": account(assets=assets)}

    async def main() -> AccountSnapshot:
        venue = adapter_with(answers)
        asked = venue.client.ccxt.fetch

        async def fetch(url: str, *rest: Any) -> Any:
            if "positionRisk" in url:
                raise ccxt.ExchangeNotAvailable("away")
            return await asked(url, *rest)

        venue.client.ccxt.fetch = fetch
        try:
            return await venue.snapshot()
        finally:
            await venue.close()

    found = asyncio.run(main())
    assert (found.quality, found.equity, found.positions) == ("down", None, None)


def test_a_position_without_an_entry_price_is_a_position() -> None:
    """ccxt's own parser leaves it out."""
    found = snapshot_of(dict(QUIET) | {"/fapi/v3/account": account(), "/fapi/v3/positionRisk": [LONG]})
    (position,) = found.positions or ()
    assert (position.contracts, position.entry_price, position.mark_price) == (D(2), None, D(50_000))


@pytest.mark.parametrize(
    "rows",
    [
        [], [LONG | {"positionSide": "SHORT"}], [LONG | {"positionAmt": "NaN"}], [LONG | {"positionAmt": None}],
        [LONG | {"symbol": "GONEUSDT"}],
    ],
    ids=["missing", "wrong side", "no number", "no size", "unknown symbol"],
)  # fmt: skip
def test_unreadable_or_contradicted_positions_are_not_accepted(rows: list[dict[str, Any]]) -> None:
    """The account's own list holds 2 BTC: an empty list of positions is wrong too."""
    listed = {"symbol": "BTCUSDT", "positionSide": "BOTH", "positionAmt": "2"}
    answers = dict(QUIET) | {"/fapi/v3/account": account(positions=[listed]), "/fapi/v3/positionRisk": rows}
    found = snapshot_of(answers)
    assert (found.quality, found.positions) == ("malformed", None)


def test_incomes_are_flows_except_those_of_fills() -> None:
    """Funding, a transfer and an unknown type are flows; commissions and realised profits are not."""

    def row(kind: str, amount: str, number: int) -> dict[str, Any]:
        return {"symbol": "BTCUSDT", "incomeType": kind, "income": amount, "asset": "USDT", "time": 1625474304765,
                "tranId": number, "tradeId": ""}  # fmt: skip

    rows = [row("FUNDING_FEE", "-0.5", 1), row("TRANSFER", "100", 2), row("COMMISSION", "-1", 3),
            row("REALIZED_PNL", "7", 4), row("INSURANCE_CLEAR", "-3", 5), row("NEW_THING", "-2", 6)]  # fmt: skip
    assert [(it.kind, it.amount) for it in income(rows)] == [
        ("funding", D("-0.5")), ("transfer", 100), ("insurance", -3), ("fee", -2),
    ]  # fmt: skip
    with pytest.raises(UnreadableError):
        income([row("TRANSFER", "a lot", 7)])


def test_the_equity_of_an_inverse_account_is_its_coins_at_the_venues_index() -> None:
    """1.5 BTC and 10 ETH at a twentieth of a BTC are 2 BTC; 20 contracts of 100 USD at 50 000 are 0.04 BTC."""
    assets = [
        {"asset": coin, "marginBalance": amount, "walletBalance": amount, "availableBalance": amount,
         "initialMargin": "0", "maintMargin": "0"}
        for coin, amount in (("BTC", "1.5"), ("ETH", "10"))
    ]  # fmt: skip
    index = [{"pair": "BTCUSD", "symbol": "BTCUSD_PERP", "indexPrice": "50000"},
             {"pair": "ETHUSD", "symbol": "ETHUSD_PERP", "indexPrice": "2500"}]  # fmt: skip
    held = {"symbol": "BTCUSD_PERP", "positionSide": "SHORT", "positionAmt": "-20", "markPrice": "50000"}
    answers = {
        "/dapi/v1/exchangeInfo": INVERSE, "/dapi/v1/account": {"assets": assets}, "/dapi/v1/positionRisk": [held],
        "/dapi/v1/premiumIndex": index, "/dapi/v1/positionSide/dual": {"dualSidePosition": True},
        "/dapi/v1/openOrders": [], "/dapi/v1/openAlgoOrders": [], "/dapi/v1/income": [],
        "/dapi/v1/ticker/bookTicker": [], "/dapi/v1/ticker/price": [], "/dapi/v1/time": {"serverTime": 1},
    }  # fmt: skip
    found = snapshot_of(answers, exchange="binancecoinm", currency="BTC")
    assert found.quality == "ok", found.reason
    assert (found.equity, found.position_mode) == (D(2), "hedge")
    (position,) = found.positions or ()
    assert (position.symbol, position.side, position.contracts) == ("BTC/USD:BTC", "short", D(20))
    assert position.notional == D("0.04")
    assert snapshot_of(answers, exchange="binancecoinm", currency="USD").equity == 100_000


def test_a_debt_on_margin_is_a_short_position() -> None:
    """1 BTC held and 3 owed with 0.1 of interest are 2.1 short; 200 000 USDT less their value are 95 000."""
    assets = [{"asset": "BTC", "free": "0.75", "locked": "0.25", "borrowed": "3", "interest": "0.1"},
              {"asset": "USDT", "free": "200000", "locked": "0", "borrowed": "0", "interest": "0"}]  # fmt: skip
    answers = dict(SPOT_QUIET) | {"/sapi/v1/margin/account": {"userAssets": assets}}
    found = snapshot_of(answers, exchange="binance", market="margin")
    assert found.quality == "ok", found.reason
    assert [(it.symbol, it.side, it.contracts) for it in found.positions or ()] == [("BTC/USDT", "short", D("2.1"))]
    assert found.equity == 95_000
    with pytest.raises(UnreadableError):
        balance_of({"userAssets": [{"asset": "BTC", "free": None}]}, "USDT")


def test_the_rights_of_a_key_are_the_venues_own_list() -> None:
    """A right that is not in the list is unknown."""
    found = rights_of(
        {"enableReading": True, "enableFutures": False, "enableWithdrawals": True, "ipRestrict": False}, "enableFutures"
    )
    assert (found.read, found.trade, found.withdraw, found.bound_to_addresses) == (True, False, True, False)
    assert found.transfer is None


# Orders


def one(name: str, symbol: str = "BTC/USDT:USDT", **more: Any) -> OrderRequest:
    return OrderRequest(name, symbol, "sell", "long", D(1), reduce_only=True, **more)


def answered(name: str, **more: Any) -> dict[str, Any]:
    return {"orderId": 7, "symbol": "BTCUSDT", "status": "FILLED", "clientOrderId": name, "avgPrice": "100",
            "origQty": "1", "executedQty": "1", "side": "SELL", "type": "MARKET"} | more  # fmt: skip


def sent(answers: Mapping[str, Any], *requests: OrderRequest) -> Any:
    """The outcomes of these requests, one alone or several in a batch."""

    async def main() -> Any:
        venue = adapter_with({**QUIET, **answers})
        try:
            if len(requests) == 1:
                return await venue.submit(requests[0])
            return await venue.batches.submit(requests)
        finally:
            await venue.close()

    return asyncio.run(main())


def test_rejected_rows_of_a_batch_keep_their_index() -> None:
    """The second of four is rejected, the third is about another order, the fourth is unreadable."""
    rows = [answered("a"), {"code": -2022, "msg": "ReduceOnly Order is rejected."}, answered("z"), "what"]
    found = sent({"/fapi/v1/batchOrders": rows}, *(one(name) for name in "abcd"))
    assert isinstance(found[0], OrderReport)
    assert (found[0].client_order_id, found[0].filled) == ("a", D(1))
    assert isinstance(found[1], OrderRejectedError)
    assert found[1].reason == "already_flat"
    assert [type(it) for it in found[2:]] == [MalformedAnswerError, MalformedAnswerError]


@pytest.mark.parametrize(
    "answer", [{"executedQty": "-1"}, {"executedQty": "NaN"}, {"status": "ODD"}, {"clientOrderId": "other"}]
)
def test_an_unreadable_answer_is_no_report(answer: dict[str, Any]) -> None:
    """The order's status is unknown, and closing queries it."""
    with pytest.raises(MalformedAnswerError):
        sent({"/fapi/v1/order": answered("a", **answer)}, one("a"))


def test_a_conditional_order_is_sent_to_its_own_route_with_its_trigger() -> None:
    """An order that restores a stop must never be sent as a market order."""

    async def main() -> dict[str, Any]:
        venue = adapter_with(QUIET)
        asked: dict[str, Any] = {}

        async def ask(what: str, params: Any = None, *, changes: bool = False, places: bool = False) -> Any:
            asked[what] = params
            return {"algoId": 5, "clientAlgoId": "s", "algoStatus": "NEW", "symbol": "BTCUSDT", "quantity": "1"}

        await venue.rules.ready()
        venue.dialect.call_endpoint = ask  # type: ignore[attr-defined] # of this dialect
        stop = one("s", trigger_price=D("90.5"), trigger_when="falls")
        asked["report"] = await venue.dialect.submit(stop, "one_way")
        await venue.close()
        return asked

    asked = asyncio.run(main())
    assert asked["PostAlgoOrder"] == {
        "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "quantity": "1", "newOrderRespType": "RESULT",
        "clientAlgoId": "s", "algoType": "CONDITIONAL", "triggerPrice": "90.5", "workingType": "MARK_PRICE",
        "reduceOnly": "true",
    }  # fmt: skip
    assert (asked["report"].id, asked["report"].state) == ("algo-5", "open")
