"""Prices that corroborate a stable coin or a coin: as a holding of a spot account, and as collateral."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import AccountSpec, Prices, VenueDownError
from killswitch_ccxt import adapter
from tests.unit.ccxt.binance.test_binance import QUIET, SPOT_QUIET, adapter_with

D = Decimal


class Asked:
    """An adapter whose requests are answered from a table: (ccxt's method, the symbol in its params) → answer."""

    def __init__(self, exchange: str, answers: Mapping[tuple[str, str | None], Any], **more: str) -> None:
        names = {"key": "k", "secret": "s"} | ({"passphrase": "p"} if exchange in ("okx", "bitget") else {})
        currency = more.get("currency", "USDT")
        made: Any = adapter(AccountSpec("main", "ccxt", "swap", currency, None, {}, names, exchange=exchange))
        self.venue, self.asked = made, []  # type: ignore[var-annotated] # a list of pairs

        async def call(method: str, params: Any = None, *_: Any, **__: Any) -> Any:
            named = params or {}
            key = (method, named.get("symbol") or named.get("instId") or named.get("index_name"))
            self.asked.append(key)
            if key not in answers:
                raise VenueDownError("the venue has no such market")
            return answers[key]

        async def ready(**_: Any) -> None:
            made.client.ccxt.markets = {}

        made.client.call, made.dialect.client.call, made.rules.ready = call, call, ready

    def prices(self, *symbols: str) -> Mapping[str, Prices]:
        async def main() -> Mapping[str, Prices]:
            try:
                found: Mapping[str, Prices] = await self.venue.prices(symbols)
                return found
            finally:
                await self.venue.close()

        return asyncio.run(main())


VENUES: dict[str, tuple[dict[tuple[str, str | None], Any], Prices]] = {
    "bybit": (
        {("publicGetV5MarketTickers", "USDCUSDT"): {"result": {"list": [
            {"symbol": "USDCUSDT", "lastPrice": "0.999", "bid1Price": "0.9989", "ask1Price": "0.9991"}]}}},
        Prices(last=D("0.999")),
    ),
    "okx": (
        {("public_get_market_index_tickers", "USDC-USDT"): {"data": [{"instId": "USDC-USDT", "idxPx": "0.9995"}]},
         ("public_get_market_ticker", "USDC-USDT"): {"data": [{"instId": "USDC-USDT", "last": "0.999"}]}},
        Prices(index=D("0.9995"), last=D("0.999")),
    ),
    "bitget": (
        {("publicSpotGetV2SpotMarketTickers", "USDCUSDT"): {"data": [{"symbol": "USDCUSDT", "lastPr": "0.999"}]}},
        Prices(last=D("0.999")),
    ),
    "deribit": (
        {("public_get_get_index_price", "usdc_usd"): {"result": {"index_price": 0.9}},
         ("public_get_get_index_price", "usdt_usd"): {"result": {"index_price": 1}}},
        Prices(mark=D("0.9"), index=D("0.9")),
    ),
    "binancecoinm": (
        {("dapiPublicGetPremiumIndex", None): [
            {"pair": "USDCUSD", "indexPrice": "0.9"}, {"pair": "USDTUSD", "indexPrice": "1"}]},
        Prices(mark=D("0.9"), index=D("0.9")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("exchange", VENUES)
def test_the_price_of_a_stable_coin_as_collateral_is_fetched_alone(exchange: str) -> None:
    """Where the venue's own index values it, that is the mark; else only what its price is held against."""
    answers, expected = VENUES[exchange]
    found = Asked(exchange, answers).prices("USDC/USDT")
    price = found["USDC/USDT"]
    assert (price.mark, price.index, price.last) == (expected.mark, expected.index, expected.last)


@pytest.mark.parametrize("exchange", [*VENUES, "mexc", "krakenfutures"])
def test_collateral_without_a_price_at_the_venue_is_left_out(exchange: str) -> None:
    """The venue refuses the request, or has none: no second look, and no error."""
    assert Asked(exchange, {}).prices("USDC/USDT", "USDC/EUR") == {}


def test_one_market_that_the_venue_lacks_hides_no_other() -> None:
    """XYZ has no market against USDT; USDC has."""
    assert set(Asked("bybit", VENUES["bybit"][0]).prices("USDC/USDT", "XYZ/USDT")) == {"USDC/USDT"}


def _read(answers: Mapping[str, Any], *symbols: str, **how: Any) -> Mapping[str, Prices]:
    async def main() -> Mapping[str, Prices]:
        venue = adapter_with(answers, **how)
        try:
            return await venue.prices(symbols)
        finally:
            await venue.close()

    return asyncio.run(main())


def test_a_contract_and_collateral_have_their_prices_in_one_call() -> None:
    """USDT at 1.0 and BNB at an index of 600: 600 USDT."""
    index = [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "BNBUSD", "index": "600"}]
    found = _read({**QUIET, "/fapi/v1/assetIndex": index}, "BTC/USDT:USDT", "BNB/USDT")
    assert (found["BNB/USDT"].mark, found["BNB/USDT"].index) == (600, 600)
    assert found["BTC/USDT:USDT"].index == 50_000


@pytest.mark.parametrize(
    ("bid", "ask", "index"), [("49990", "50010", 50_000), ("40000", "50010", None), ("50010", "49990", None)]
)
def test_a_holding_is_valued_at_its_last_trade_and_held_against_the_order_book(
    bid: str, ask: str, index: int | None
) -> None:
    """A last trade of 44,000 while bid and ask are close together at 50,000 is a print; a wide book proves nothing."""
    book = [{"symbol": "BTCUSDT", "bidPrice": bid, "askPrice": ask, "bidQty": "1", "askQty": "1"}]
    last = [{"symbol": "BTCUSDT", "price": "44000"}]
    answers = {**SPOT_QUIET, "/api/v3/ticker/bookTicker": book, "/api/v3/ticker/price": last}
    found = _read(answers, "BTC/USDT", exchange="binance", market="spot")
    assert (found["BTC/USDT"].mark, found["BTC/USDT"].last, found["BTC/USDT"].index) == (44_000, 44_000, index)
