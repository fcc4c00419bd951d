"""Kraken's spot market and an exchange without a dialect of its own (Gate, spot), by typed answers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from tests.conformance.typed_harnesses import Typed, TypedHarness

AT: Final = 1_700_000_000
NOW: Final = datetime.fromtimestamp(AT, UTC)
KEYS: Final = {"key": "KEY-PLANTED", "secret": "U0VDUkVULVBMQU5URUQ="}


def kraken() -> TypedHarness:
    """Half a bitcoin and 1,000 dollars; a limit order rests, one order is filled, and a deposit has arrived."""
    from tests.unit.ccxt.venues import test_kraken as typed

    resting = {
        "status": "open", "cl_ord_id": None, "vol": "0.1", "vol_exec": "0.0", "price": "0.0", "fee": "0.0",
        "opentm": AT - 60.5, "oflags": "fciq",
        "descr": {"pair": "XBTUSD", "type": "sell", "ordertype": "limit", "price": "120000.0", "price2": "0"},
    }  # fmt: skip
    done = {
        "status": "closed", "cl_ord_id": typed.NAME, "vol": "0.01", "vol_exec": "0.01", "price": "100000.0",
        "fee": "1.0", "opentm": AT - 30.5, "oflags": "fciq", "trades": ["T1"],
        "descr": {"pair": "XBTUSD", "type": "sell", "ordertype": "market", "price": "0", "price2": "0"},
    }  # fmt: skip
    trade = {"ordertxid": "O2", "pair": "XXBTZUSD", "time": AT - 30.5, "type": "sell", "price": "100000.0",
             "vol": "0.01", "fee": "1.0"}  # fmt: skip
    deposit = {"refid": "R1", "time": AT - 20.5, "type": "deposit", "asset": "ZUSD", "amount": "500.0", "fee": "0.0",
               "balance": "1000.0"}  # fmt: skip
    held = {"ZUSD": {"balance": "1000.0", "hold_trade": "0.0"}, "XXBT": {"balance": "0.5", "hold_trade": "0.1"}}
    results: dict[str, Any] = {
        "GET /0/public/Assets": typed.ASSETS, "GET /0/public/AssetPairs": {"XXBTZUSD": typed.PAIRS["XXBTZUSD"]},
        "GET /0/public/Ticker": {"XXBTZUSD": typed.TICKERS["XXBTZUSD"]}, "GET /0/public/Time": {"unixtime": AT},
        "GET /0/public/SystemStatus": {"status": "online"}, "POST /0/private/BalanceEx": held,
        "POST /0/private/OpenOrders": {"open": {"O1": resting}},
        "POST /0/private/ClosedOrders": {"closed": {"O2": done}, "count": 1},
        "POST /0/private/QueryOrders": {"O2": done}, "POST /0/private/QueryTrades": {"T1": trade},
        "POST /0/private/TradesHistory": {"trades": {"T1": trade}, "count": 1},
        "POST /0/private/Ledgers": {"ledger": {"L1": deposit}, "count": 1},
        "POST /0/private/AddOrder": {"txid": ["O2"], "descr": {"order": "sell 0.01 XBTUSD @ market"}},
        "POST /0/private/CancelOrder": {"count": 1},
    }  # fmt: skip
    answers = {name: {"error": [], "result": result} for name, result in {**results, "": {}}.items()}
    return TypedHarness(
        Typed("kraken", "USD", "BTC/USD", typed.NAME, KEYS, answers, NOW, market="spot", by_path=True,
              signed=frozenset())
    )  # fmt: skip


def generic() -> TypedHarness:
    """Half a bitcoin and 1,000 USDT; a limit order rests, and one trade and one deposit were made."""
    pair = {
        "id": "BTC_USDT", "base": "BTC", "quote": "USDT", "fee": "0.2", "min_base_amount": "0.001",
        "min_quote_amount": "1", "amount_precision": 3, "precision": 1, "trade_status": "tradable", "sell_start": 0,
        "buy_start": 0,
    }  # fmt: skip
    ticker = {"currency_pair": "BTC_USDT", "last": "50000.0", "lowest_ask": "50001.0", "highest_bid": "49999.0",
              "change_percentage": "1.0", "base_volume": "10.0", "quote_volume": "500000.0", "high_24h": "51000.0",
              "low_24h": "49000.0"}  # fmt: skip
    order = {
        "id": "77", "text": "t-ks0001", "create_time": str(AT - 60), "update_time": str(AT - 60),
        "create_time_ms": (AT - 60) * 1000, "update_time_ms": (AT - 60) * 1000, "currency_pair": "BTC_USDT",
        "status": "open", "type": "limit", "account": "spot", "side": "sell", "amount": "0.1", "price": "60000.0",
        "time_in_force": "gtc", "left": "0.1", "filled_total": "0.0", "fee": "0.0", "fee_currency": "USDT",
    }  # fmt: skip
    trade = {"id": "5", "create_time": str(AT - 30), "create_time_ms": f"{(AT - 30) * 1000}.5",
             "currency_pair": "BTC_USDT", "side": "sell", "role": "taker", "amount": "0.01", "price": "50000.0",
             "order_id": "78", "fee": "1.0", "fee_currency": "USDT"}  # fmt: skip
    entry = {"id": "9", "time": (AT - 20) * 1000, "currency": "USDT", "change": "500.0", "balance": "1000.0",
             "type": "deposit"}  # fmt: skip
    answers: dict[str, Any] = {
        "GET /api/v4/spot/currency_pairs": [pair], "GET /api/v4/spot/tickers": [ticker],
        "GET /api/v4/margin/currency_pairs": [], "GET /api/v4/spot/time": {"server_time": AT * 1000},
        "GET /api/v4/spot/accounts": [
            {"currency": "BTC", "available": "0.4", "locked": "0.1"},
            {"currency": "USDT", "available": "1000.0", "locked": "0.0"},
        ],
        "GET /api/v4/spot/open_orders": [{"currency_pair": "BTC_USDT", "total": 1, "orders": [order]}],
        "GET /api/v4/spot/my_trades": [trade], "GET /api/v4/spot/account_book": [entry], "": [],
    }  # fmt: skip
    return TypedHarness(
        Typed("gate", "USDT", "BTC/USDT", "t-ks0001", KEYS, answers, NOW, market="spot", by_path=True,
              signed=frozenset(), size=Decimal("0.1"))
    )  # fmt: skip
