"""Binance's markets without a wire-level server: spot, cross margin and COIN-M, by typed answers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from tests.conformance.typed_harnesses import Typed, TypedHarness

AT: Final = 1_625_474_304_765
NAME: Final = "ks0001"
KEYS: Final = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}


def spot() -> TypedHarness:
    """Held: one BTC and 200 000 USDT; a limit order and a stop rest, one order is filled, and a deposit has arrived."""
    balances = [
        {"asset": "BTC", "free": "0.75", "locked": "0.25"}, {"asset": "USDT", "free": "200000.0", "locked": "0.0"}
    ]  # fmt: skip
    answers = _spot_answers("/api/v3") | {
        "GET /api/v3/account": {"balances": balances},
        "GET /sapi/v1/capital/deposit/hisrec": [
            {"id": "d1", "amount": "500.0", "coin": "USDT", "status": 1, "insertTime": AT, "completeTime": AT}
        ],
    }  # fmt: skip
    return TypedHarness(_typed(answers, "binance", "USDT", "BTC/USDT", "spot"))


def margin() -> TypedHarness:
    """Owed: 3 BTC and a tenth of interest, of which one is held, so that the account is short of 2.1."""
    assets = [
        {"asset": "BTC", "free": "0.75", "locked": "0.25", "borrowed": "3.0", "interest": "0.1"},
        {"asset": "USDT", "free": "200000.0", "locked": "0.0", "borrowed": "0.0", "interest": "0.0"},
    ]
    interest = {"txId": 9, "interestAccuredTime": AT, "asset": "BTC", "interest": "0.001", "type": "ON_BORROW"}
    answers = _spot_answers("/sapi/v1/margin") | {
        "GET /sapi/v1/margin/account": {"userAssets": assets},
        "GET /sapi/v1/margin/interestHistory": {"rows": [interest], "total": 1},
    }
    return TypedHarness(_typed(answers, "binance", "USDT", "BTC/USDT", "margin"))


def coinm() -> TypedHarness:
    """Short 20 contracts of 100 USD, with 1.5 BTC and 10 ETH."""
    from tests.unit.ccxt.binance import test_binance as typed

    assets = [
        {"asset": coin, "marginBalance": amount, "walletBalance": amount, "availableBalance": amount,
         "unrealizedProfit": "0.0", "positionInitialMargin": "0.01", "initialMargin": "0.01", "maintMargin": "0.005"}
        for coin, amount in (("BTC", "1.5"), ("ETH", "10.0"))
    ]  # fmt: skip
    rule = {**typed.INVERSE["symbols"][0], "filters": _filters()}
    del rule["status"]  # COIN-M has a contractStatus instead
    index = [
        {"pair": f"{coin}USD", "symbol": f"{coin}USD_PERP", "indexPrice": price, "markPrice": price}
        for coin, price in (("BTC", "50000.0"), ("ETH", "2500.0"))
    ]
    held = {"symbol": "BTCUSD_PERP", "positionSide": "BOTH", "positionAmt": "-20", "markPrice": "50000.0",
            "entryPrice": "49000.0", "unRealizedProfit": "0.001"}  # fmt: skip
    placed = _order("BTCUSD_PERP", "1", "1", positionSide="BOTH", reduceOnly=True, avgPrice="50000.0") | {
        "cumBase": "0.002"
    }
    trade = {"symbol": "BTCUSD_PERP", "id": 5, "orderId": 77, "side": "BUY", "price": "50000.0", "qty": "1",
             "realizedPnl": "0.0001", "commission": "0.00001", "commissionAsset": "BTC", "time": AT,
             "positionSide": "BOTH", "buyer": True, "maker": False}  # fmt: skip
    income = {"symbol": "", "incomeType": "TRANSFER", "income": "0.5", "asset": "BTC", "time": AT, "tranId": 3,
              "tradeId": "", "info": ""}  # fmt: skip
    resting = _order("BTCUSD_PERP", "3", "0", "LIMIT", "NEW", positionSide="BOTH", reduceOnly=False) | {
        "orderId": 78, "clientOrderId": "other", "price": "40000.0",
    }  # fmt: skip
    answers: dict[str, Any] = {
        "GET /dapi/v1/exchangeInfo": {"symbols": [rule]}, "GET /dapi/v1/account": {"assets": assets},
        "GET /dapi/v1/positionRisk": [held], "GET /dapi/v1/premiumIndex": index,
        "GET /dapi/v1/positionSide/dual": {"dualSidePosition": False}, "GET /dapi/v1/openOrders": [resting],
        "GET /dapi/v1/openAlgoOrders": [], "GET /dapi/v1/income": [income], "GET /dapi/v1/userTrades": [trade],
        "GET /dapi/v1/ticker/bookTicker": [], "GET /dapi/v1/ticker/price": [], "GET /dapi/v1/forceOrders": [],
        "GET /dapi/v1/time": {"serverTime": AT}, "GET /dapi/v1/order": placed, "POST /dapi/v1/order": placed,
        "DELETE /dapi/v1/order": resting | {"status": "CANCELED"},
        "POST /dapi/v1/batchOrders": [placed, placed],
    }  # fmt: skip
    return TypedHarness(_typed(answers, "binancecoinm", "BTC", "BTC/USD:BTC", "swap"))


def _spot_answers(place: str) -> dict[str, Any]:
    from tests.unit.ccxt.binance import test_binance as typed

    placed = _order("BTCUSDT", "1.0", "1.0") | {"cummulativeQuoteQty": "50000.0", "fills": []}
    resting = _order("LTCUSDT", "3.0", "0.0", "LIMIT", "NEW") | {
        "orderId": 78, "clientOrderId": "other", "price": "90.0", "cummulativeQuoteQty": "0.0",
    }  # fmt: skip
    trade = {"symbol": "BTCUSDT", "id": 5, "orderId": 77, "price": "50000.0", "qty": "1.0", "commission": "1.0",
             "commissionAsset": "USDT", "time": AT, "isBuyer": False, "isMaker": False}  # fmt: skip
    given = {f"GET {path}": answer for path, answer in typed.SPOT_QUIET.items()}
    rules = [{**rule, "filters": _filters()} for rule in typed.SPOT_RULES["symbols"][:2]]
    return given | {
        "GET /api/v3/exchangeInfo": {"symbols": rules},
        "GET /api/v3/ticker/bookTicker": [row | {"time": AT} for row in typed.BOOK],
        f"GET {place}/openOrders": [resting],
        f"GET {place}/order": placed, f"POST {place}/order": placed, f"GET {place}/myTrades": [trade],
        f"DELETE {place}/order": resting | {"status": "CANCELED"}, "GET /api/v3/time": {"serverTime": AT},
    }  # fmt: skip


def _filters() -> list[dict[str, str]]:
    """With one maximum for orders of all kinds: where one is missing, the other applies."""
    return [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "120", "stepSize": "0.001"},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "0.001", "maxQty": "120", "stepSize": "0.001"},
    ]


def _order(
    symbol: str, amount: str, filled: str, kind: str = "MARKET", status: str = "FILLED", **more: object
) -> dict[str, Any]:
    return {
        "symbol": symbol, "orderId": 77, "clientOrderId": NAME, "status": status, "side": "SELL", "type": kind,
        "origQty": amount, "executedQty": filled, "price": "0.0", "stopPrice": "0.0", "timeInForce": "GTC", "time": AT,
        "updateTime": AT, "transactTime": AT, **more,
    }  # fmt: skip


def _typed(answers: dict[str, Any], exchange: str, currency: str, symbol: str, market: str) -> Typed:
    now = datetime.fromtimestamp(AT / 1000, UTC)
    refusal = {"": {"code": -1, "msg": "nothing is typed"}}
    return Typed(
        exchange,
        currency,
        symbol,
        NAME,
        KEYS,
        answers | refusal,
        now,
        market=market,
        by_path=True,
        size=Decimal(1),
        signed=frozenset({"positionAmt"}),
    )
