"""Binance's public answers: rules, prices, books and bars."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tests.faults.exchange import Market
from tests.wire.binance import payloads as payloads
from tests.wire.server import Ask

if TYPE_CHECKING:
    from tests.wire.binance.venue import BinanceWire

PUBLIC: Final = frozenset({
    "GET /fapi/v1/ping", "GET /fapi/v1/time", "GET /fapi/v1/exchangeInfo", "GET /fapi/v1/premiumIndex",
    "GET /fapi/v1/ticker/bookTicker", "GET /fapi/v1/ticker/price", "GET /fapi/v2/ticker/price",
    "GET /fapi/v1/ticker/24hr", "GET /fapi/v1/depth", "GET /fapi/v1/klines", "GET /fapi/v1/assetIndex",
    "GET /fapi/v1/markPriceKlines", "GET /fapi/v1/fundingRate",
    "GET /sapi/v1/system/status",
})  # fmt: skip
MINUTE: Final = 60_000


def public_answer(wire: BinanceWire, ask: Ask) -> object:
    """The body of a public answer."""
    wanted = ask.params.get("symbol")
    match ask.path.removeprefix("/fapi/v1/").removeprefix("/fapi/v2/").removeprefix("/sapi/v1/"):
        case "ping":
            return {}
        case "time":
            return {"serverTime": wire.now_ms()}
        case "system/status":
            return {"status": int(wire.maintenance), "msg": "system_maintenance" if wire.maintenance else "normal"}
        case "exchangeInfo":
            rows = [payloads.rules(it, wire.min_notional) for it in wire.exchange.markets.values()]
            return {"timezone": "UTC", "serverTime": wire.now_ms(), "rateLimits": [], "symbols": rows}
        case "assetIndex":
            return [
                {"symbol": f"{asset}USD", "time": wire.now_ms(), "index": str(price), "bidBuffer": "0.05",
                 "askBuffer": "0.05", "bidRate": str(price * Decimal("0.95")), "askRate": str(price)}
                for asset, price in wire.indexes.items()
            ]  # fmt: skip
        case "depth":
            market = wire.exchange.markets[wire.symbol(ask.params["symbol"])]
            bids, asks = [[str(market.taken_at("sell")), "1000"]], [[str(market.taken_at("buy")), "1000"]]
            return {"lastUpdateId": 1, "E": wire.now_ms(), "T": wire.now_ms(), "bids": bids, "asks": asks}
        case "klines" | "markPriceKlines":
            return _bars(wire, ask)
        case "fundingRate":
            return []
    tickers = [_ticker(wire, ask.path, market) for market in wire.exchange.markets.values()]
    if wanted is None:
        return tickers
    wire.symbol(wanted)
    return next(row for row in tickers if row["symbol"] == wanted)


def _ticker(wire: BinanceWire, path: str, market: Market) -> dict[str, Any]:
    price, now = str(market.price), wire.now_ms()
    row: dict[str, Any] = {"symbol": payloads.market_id(market.symbol), "time": now}
    if path.endswith("premiumIndex"):
        prices = {"markPrice": price, "indexPrice": str(market.index_price), "estimatedSettlePrice": price}
        return row | prices | {"lastFundingRate": "0.0001", "nextFundingTime": now + 60 * MINUTE}
    if path.endswith("bookTicker"):
        return row | {"bidPrice": str(market.taken_at("sell")), "bidQty": "1000",
                      "askPrice": str(market.taken_at("buy")), "askQty": "1000", "lastUpdateId": 1}  # fmt: skip
    if path.endswith("24hr"):
        return row | {"priceChange": "0", "priceChangePercent": "0", "weightedAvgPrice": price,
                      "lastPrice": str(market.last_price),
                      "lastQty": "1", "openPrice": price, "highPrice": price, "lowPrice": price, "volume": "86400",
                      "quoteVolume": str(86400 * market.price), "openTime": now - 1440 * MINUTE, "closeTime": now,
                      "firstId": 1, "lastId": 2, "count": 2}  # fmt: skip
    return row | {"price": str(market.last_price)}


def _bars(wire: BinanceWire, ask: Ask) -> list[list[object]]:
    """Flat one-minute bars up to now, for every interval."""
    market = wire.exchange.markets[wire.symbol(ask.params["symbol"])]
    limit = int(ask.params.get("limit", 500))
    first = int(ask.params.get("startTime", wire.now_ms() - limit * MINUTE)) // MINUTE * MINUTE
    price = str(market.price)
    count = min(limit, max(0, (wire.now_ms() - first) // MINUTE + 1))
    return [
        [at, price, price, price, price, "60", at + MINUTE - 1, str(60 * market.price), 1, "30", "3000", "0"]
        for at in range(first, first + count * MINUTE, MINUTE)
    ]
