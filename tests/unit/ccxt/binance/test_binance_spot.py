"""Orders to Binance's spot and cross margin accounts, and the reports that are read from the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import pytest

from killswitch.model.venue import AccountSpec, OrderReport, OrderRequest
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues.binance.spot import BinanceSpot

D = Decimal
LOT = {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"}
TICK = {"filterType": "PRICE_FILTER", "tickSize": "0.01", "minPrice": "0.01", "maxPrice": "1000000"}
RULES = {
    "symbols": [
        {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": [LOT, TICK],
         "orderTypes": ["LIMIT", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"]},
    ]
}  # fmt: skip
DONE = {"symbol": "BTCUSDT", "orderId": 9, "clientOrderId": "ks1", "transactTime": 1625474304765, "status": "FILLED",
        "origQty": "2", "executedQty": "2", "cummulativeQuoteQty": "100000", "side": "SELL", "type": "MARKET",
        "timeInForce": "GTC", "price": "0"}  # fmt: skip


def sent(market: str, request: OrderRequest, answers: Mapping[str, Any]) -> tuple[str, dict[str, str], OrderReport]:
    """Path and fields of the order that is sent, and its report."""
    asked: list[tuple[str, dict[str, str]]] = []

    async def main() -> OrderReport:
        credentials = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
        spec = AccountSpec(
            "main", "ccxt", market, "USDT", None, {"ccxt": {"rules": "of this file"}}, credentials, exchange="binance"
        )
        venue = CcxtVenue(spec, BinanceSpot)

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            path = "/" + url.split("/", 3)[3].partition("?")[0]
            asked.append((f"{method} {path}", dict(parse_qsl(body or ""))))
            return json.loads(json.dumps({"/api/v3/exchangeInfo": RULES, **answers}[path]))

        venue.client.ccxt.fetch = fetch
        try:
            return await venue.submit(request)
        finally:
            await venue.close()

    report = asyncio.run(main())
    (left,) = [it for it in asked if it[0].startswith("POST")]
    return *left, report


def sale(**more: Any) -> OrderRequest:
    return OrderRequest("ks1", "BTC/USDT", "sell", "long", D(2), reduce_only=False, **more)


def test_a_holding_is_sold_at_market_and_has_its_average_price() -> None:
    """2 BTC for 100 000 USDT."""
    route, fields, report = sent("spot", sale(), {"/api/v3/order": DONE})
    assert route == "POST /api/v3/order"
    assert {name: fields[name] for name in ("symbol", "side", "type", "quantity", "newClientOrderId")} == {
        "symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "2", "newClientOrderId": "ks1",
    }  # fmt: skip
    assert "sideEffectType" not in fields
    assert (report.id, report.state, report.filled, report.average_price) == ("9", "filled", D(2), D(50_000))


@pytest.mark.parametrize(("when", "kind"), [("falls", "STOP_LOSS"), ("rises", "TAKE_PROFIT")])
def test_a_conditional_order_keeps_its_trigger(when: Any, kind: str) -> None:
    """A sale when the price falls is a stop, when it rises a take-profit; never a market order."""
    resting = DONE | {"status": "NEW", "executedQty": "0", "cummulativeQuoteQty": "0"}
    _, fields, report = sent("spot", sale(trigger_price=D(45_000), trigger_when=when), {"/api/v3/order": resting})
    assert (fields["type"], D(fields["stopPrice"])) == (kind, D(45_000))
    assert report.state == "open"


def test_on_margin_an_order_goes_to_the_cross_account_and_repays_the_debt() -> None:
    """Buying a borrowed asset repays it."""
    bought = OrderRequest("ks1", "BTC/USDT", "buy", "short", D(2), reduce_only=True)
    answers = {"/sapi/v1/margin/order": DONE | {"side": "BUY"}}
    route, fields, _ = sent("margin", bought, answers)
    assert route == "POST /sapi/v1/margin/order"
    assert (fields["side"], fields["quantity"], fields["sideEffectType"]) == ("BUY", "2", "AUTO_REPAY")
    assert fields.get("isIsolated", "false").lower() == "false"
