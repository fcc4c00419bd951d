"""Binance under load: lists of many pages, and the requests that activity adds to a snapshot."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from killswitch.model.parsing import UnreadableError
from killswitch.model.snapshot import Fill
from killswitch.model.venue import AccountSpec, MalformedAnswerError
from killswitch_ccxt.venue import CcxtVenue
from killswitch_ccxt.venues import dialect_of
from tests.unit.ccxt.binance.test_binance import CONFIG, INVERSE, LONG, QUIET, SPOT_QUIET, account
from tests.virtual_time import VirtualTime

D = Decimal
NOON = 1625474304765
Answer = Callable[[dict[str, str]], Any]
FUTURES_TRADES, SPOT_TRADES = "/fapi/v1/userTrades", "/api/v3/myTrades"
STORIES = count()
WEIGHTS = {"/api/v3/account": 20, "/api/v3/ticker/bookTicker": 4, "/api/v3/ticker/price": 4, "/api/v3/openOrders": 80,
           "/api/v3/myTrades": 20}  # fmt: skip


def play(
    answers: Mapping[str, Any],
    story: Callable[[CcxtVenue], Awaitable[Any]],
    *,
    exchange: str = "binanceusdm",
    market: str = "swap",
    currency: str = "USDT",
) -> tuple[Any, Counter[str]]:
    """The result of a story, and how often each path was requested; an answer may be computed from the request."""
    time, asked = VirtualTime(), Counter[str]()

    async def main() -> Any:
        credentials = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
        # Accounts with the same options share the venue's rules, and each story has rules of its own.
        options: dict[str, object] = {"clock": time, "ccxt": {"story": next(STORIES)}}
        spec = AccountSpec("main", "ccxt", market, currency, None, options, credentials, exchange=exchange)
        venue = CcxtVenue(spec, dialect_of(exchange))

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            parts = urlsplit(url)
            asked[parts.path] += 1
            answer = answers[parts.path]
            content = answer(dict(parse_qsl(parts.query))) if callable(answer) else answer
            return json.loads(json.dumps(content))

        venue.client.ccxt.fetch = fetch
        try:
            return await story(venue)
        finally:
            await venue.close()

    return time.run(main()), asked


def trade(number: int, order: int = 9, **more: Any) -> dict[str, Any]:
    return {"symbol": "BTCUSDT", "id": number, "orderId": order, "side": "SELL", "isBuyer": False, "price": "50000",
            "qty": "0.001", "commission": "0", "commissionAsset": "USDT", "time": NOON + number} | more  # fmt: skip


def paged(rows: list[dict[str, Any]]) -> Answer:
    """Pages as in both systems: from an id on, 500 by default and 1000 at most."""

    def answer(asked: dict[str, str]) -> list[dict[str, Any]]:
        most = min(int(asked.get("limit", 500)), 1000)
        return [row for row in rows if row["id"] >= int(asked.get("fromId", 0))][:most]

    return answer


ORDER = {"symbol": "BTCUSDT", "orderId": 9, "clientOrderId": "ks1", "status": "FILLED", "origQty": "2.5",
         "executedQty": "2.5", "side": "SELL", "type": "MARKET", "price": "0", "avgPrice": "50000"}  # fmt: skip
VENUES = pytest.mark.parametrize(
    ("exchange", "market", "symbol"), [("binanceusdm", "swap", "BTC/USDT:USDT"), ("binance", "spot", "BTC/USDT")]
)


def answers_of(exchange: str, trades: Any) -> dict[str, Any]:
    if exchange == "binance":
        return {**SPOT_QUIET, SPOT_TRADES: trades, "/api/v3/order": ORDER}
    return {**QUIET, FUTURES_TRADES: trades, "/fapi/v1/order": ORDER}


@VENUES
def test_an_order_filled_in_many_trades_is_read_completely(exchange: str, market: str, symbol: str) -> None:
    """2500 trades of 0.001 are the 2.5 that the order states."""
    answers = answers_of(exchange, paged([trade(number) for number in range(2500)]))
    found, _ = play(answers, lambda venue: venue.fills(symbol, "ks1"), exchange=exchange, market=market)
    assert sum(fill.amount for fill in found) == D("2.5")


@VENUES
def test_fills_since_a_time_are_read_to_the_last_page(exchange: str, market: str, symbol: str) -> None:
    """The next request begins after them: a fill that is left out here is never read."""

    async def story(venue: CcxtVenue) -> tuple[Fill, ...]:
        await venue.rules.ready()
        return await venue.dialect.fills([symbol], NOON)

    answers = answers_of(exchange, paged([trade(number) for number in range(2000)]))
    found, asked = play(answers, story, exchange=exchange, market=market)
    assert len({fill.id for fill in found}) == 2000
    assert asked[SPOT_TRADES] + asked[FUTURES_TRADES] == 3


@VENUES
def test_a_list_that_does_not_end_is_rejected(exchange: str, market: str, symbol: str) -> None:
    """The venue returns the same thousand rows again and again."""
    answers = answers_of(exchange, [trade(number) for number in range(1000)])
    with pytest.raises(MalformedAnswerError, match="does not end"):
        play(answers, lambda venue: venue.fills(symbol, "ks1"), exchange=exchange, market=market)


def test_fewer_trades_than_the_order_states_are_rejected() -> None:
    """A first page that begins with the newest trades would hide the others."""
    answers = answers_of("binanceusdm", paged([trade(number) for number in range(1100)]))
    with pytest.raises(MalformedAnswerError, match="sum up to less"):
        play(answers, lambda venue: venue.fills("BTC/USDT:USDT", "ks1"))


def test_incomes_of_one_instant_that_fill_a_page_are_incomplete() -> None:
    """That instant may have a thousand more."""
    row = {"symbol": "BTCUSDT", "incomeType": "FUNDING_FEE", "income": "1", "asset": "USDT", "time": NOON}

    async def story(venue: CcxtVenue) -> Any:
        return await venue.dialect.flows(NOON)

    with pytest.raises(UnreadableError, match="does not end"):
        play({**QUIET, "/fapi/v1/income": [row | {"tranId": number} for number in range(1000)]}, story)


def test_the_origin_of_an_order_is_looked_up_once() -> None:
    """Forced orders weigh as much as four lists of trades; many symbols are looked up in one request."""
    forced = [{"symbol": "BTCUSDT", "orderId": 8, "clientOrderId": "autoclose-1"}]
    trades = [trade(1, order=8), trade(2, order=7)]

    async def story(venue: CcxtVenue) -> list[str]:
        await venue.rules.ready()
        for _ in range(2):
            found = await venue.dialect.fills(["BTC/USDT:USDT"], NOON)
        trades.append(trade(3, order=6))
        return [fill.cause for fill in (*found, *await venue.dialect.fills(["BTC/USDT:USDT"], NOON))]

    answers = {**QUIET, FUTURES_TRADES: lambda _: trades, "/fapi/v1/forceOrders": forced}
    causes, asked = play(answers, story)
    assert causes == ["liquidation", "trade", "liquidation", "trade", "trade"]
    assert asked["/fapi/v1/forceOrders"] == 2


@pytest.mark.parametrize("exchange", ["binanceusdm", "binancecoinm"])
def test_price_changes_alone_do_not_request_incomes(exchange: str) -> None:
    """With several coins the total changes each second, the wallets do not. Once one does, incomes are requested."""
    amounts, seconds = {"BTC": "1", "ETH": "10"}, [0]

    def index(_: Any) -> list[dict[str, Any]]:
        price = str(50_000 + seconds[0])
        return [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "BTCUSD", "index": price, "pair": "BTCUSD",
                 "indexPrice": price}, {"symbol": "ETHUSD", "index": "2500", "pair": "ETHUSD",
                 "indexPrice": "2500"}]  # fmt: skip

    def body(_: Any) -> dict[str, Any]:
        total = str(D(75_000) + seconds[0])
        assets = [
            {"asset": coin, "walletBalance": amount, "marginBalance": amount, "availableBalance": amount,
             "initialMargin": "0", "maintMargin": "0"}
            for coin, amount in amounts.items()
        ]  # fmt: skip
        return account(assets=assets, totalWalletBalance=total, totalMarginBalance=total, totalMaintMargin="0")

    async def story(venue: CcxtVenue) -> list[int]:
        counted = []
        for second in range(50):
            seconds[0] = second
            if second == 30:
                amounts["ETH"] = "11"
            assert (await venue.snapshot()).quality == "ok"
            counted.append(asked[income])
            await asyncio.sleep(1)
        return counted

    asked, income = Counter[str](), "/fapi/v1/income" if exchange == "binanceusdm" else "/dapi/v1/income"

    def incomes(_: Any) -> list[Any]:
        asked[income] += 1
        return []

    answers = {
        **QUIET, "/fapi/v1/accountConfig": CONFIG | {"multiAssetsMargin": True}, "/fapi/v3/account": body,
        "/fapi/v1/assetIndex": index, "/dapi/v1/exchangeInfo": INVERSE, "/dapi/v1/account": body, income: incomes,
        "/dapi/v1/positionRisk": [], "/dapi/v1/premiumIndex": index, "/dapi/v1/openOrders": [],
        "/dapi/v1/openAlgoOrders": [], "/dapi/v1/positionSide/dual": {"dualSidePosition": True},
        "/dapi/v1/time": {"serverTime": 1},
    }  # fmt: skip
    counted, _ = play(answers, story, exchange=exchange, currency="USDT" if exchange == "binanceusdm" else "USD")
    assert counted[29] <= 2, "at the start, and once more at the account's own part of the first minute"
    assert (counted[30] - counted[29], counted[32] - counted[29]) == (1, 3), "at once, and after a second and two"
    assert counted[49] - counted[29] <= 5, "four at once, and one more in a quarter of a minute"


def test_spot_stays_within_half_of_its_limit_while_a_symbol_trades_each_second() -> None:
    """6000 of weight and 12 000 of the wallet's a minute; each request of the wallet weighs 1."""
    seconds = [0]

    def body(_: Any) -> dict[str, Any]:
        held = 1 + seconds[0] % 2
        return {"balances": [{"asset": "USDT", "free": str(1000 - 100 * held), "locked": "0"},
                             {"asset": "BTC", "free": str(held), "locked": "0"}]}  # fmt: skip

    async def story(venue: CcxtVenue) -> None:
        for second in range(60):
            seconds[0] = second
            assert (await venue.snapshot()).quality == "ok"
            await asyncio.sleep(1)

    _, asked = play({**SPOT_QUIET, "/api/v3/account": body}, story, exchange="binance", market="spot")
    assert sum(WEIGHTS.get(path, 0) * times for path, times in asked.items()) < 3000
    assert sum(times for path, times in asked.items() if path.startswith("/sapi")) <= 120


def test_the_amounts_of_an_inverse_position_are_in_the_accounts_currency() -> None:
    """100 contracts of 100 USD short, BTC at 50 000: 0.2 BTC are 10 000 USD, −0.004 are −200, 0.02 are 1000.

    Without an index they are unknown, and the position is known all the same.
    """
    coins = {"asset": "BTC", "walletBalance": "1", "marginBalance": "1", "initialMargin": "0.02",
             "maintMargin": "0.001", "availableBalance": "0.9"}  # fmt: skip
    held = {"symbol": "BTCUSD_PERP", "positionAmt": "-100", "entryPrice": "50000", "markPrice": "50000",
            "unRealizedProfit": "-0.004", "notionalValue": "-0.2", "positionSide": "BOTH",
            "initialMargin": "0.02"}  # fmt: skip
    filled = trade(1, symbol="BTCUSD_PERP", realizedPnl="0.001", qty="100", commissionAsset="BTC")
    answers = {
        "/dapi/v1/exchangeInfo": INVERSE, "/dapi/v1/account": {"assets": [coins]}, "/dapi/v1/positionRisk": [held],
        "/dapi/v1/premiumIndex": [{"pair": "BTCUSD", "symbol": "BTCUSD_PERP", "indexPrice": "50000"}],
        "/dapi/v1/positionSide/dual": {"dualSidePosition": False}, "/dapi/v1/openOrders": [],
        "/dapi/v1/openAlgoOrders": [], "/dapi/v1/income": [], "/dapi/v1/ticker/bookTicker": [],
        "/dapi/v1/ticker/price": [], "/dapi/v1/time": {"serverTime": 1}, "/dapi/v1/userTrades": [filled],
        "/dapi/v1/forceOrders": [],
    }  # fmt: skip

    def read(currency: str, **more: Any) -> Any:
        return play(answers | more, lambda venue: venue.snapshot(), exchange="binancecoinm", currency=currency)[0]

    found = read("USD")
    assert found.quality == "ok", found.reason
    (position,) = found.positions
    assert (position.notional, position.unrealized_pnl, position.margin) == (D(10_000), D(-200), D(1000))
    assert [fill.realized_pnl for fill in found.fills] == [D(50)]
    (own,) = read("BTC").positions
    assert (own.notional, own.unrealized_pnl, own.margin) == (D("0.2"), D("-0.004"), D("0.02"))
    empty = {"asset": "BTC", "marginBalance": "0", "walletBalance": "0"}
    nothing = {"/dapi/v1/account": {"assets": [empty]}, "/dapi/v1/premiumIndex": []}
    unpriced = read("USD", **nothing)
    (position,) = unpriced.positions
    assert (position.contracts, position.notional, position.unrealized_pnl, position.margin) == (100, None, None, None)
    assert (unpriced.quality, unpriced.equity) == ("ok", None)


def test_a_position_settled_in_another_stablecoin_is_converted_to_the_accounts() -> None:
    """2 at 50 000 USDC, at 1.10 USDT each, are 110 000."""
    usdc = {"symbol": "BTCUSDC", "baseAsset": "BTC", "quoteAsset": "USDC", "marginAsset": "USDC"}
    rules = {"symbols": [{**QUIET["/fapi/v1/exchangeInfo"]["symbols"][0], **usdc}]}
    answers = {
        **QUIET, "/fapi/v1/exchangeInfo": rules, "/fapi/v3/account": account(),
        "/fapi/v3/positionRisk": [LONG | {"symbol": "BTCUSDC", "unRealizedProfit": "10"}],
        "/fapi/v1/ticker/bookTicker": {"symbol": "BTCUSDC"}, "/fapi/v1/ticker/price": {"symbol": "BTCUSDC"},
        "/fapi/v1/premiumIndex": {"symbol": "BTCUSDC"},
        "/fapi/v1/assetIndex": [{"symbol": "USDTUSD", "index": "1"}, {"symbol": "USDCUSD", "index": "1.10"}],
    }  # fmt: skip
    found, _ = play(answers, lambda venue: venue.snapshot())
    (position,) = found.positions
    assert (position.notional, position.unrealized_pnl) == (D(110_000), D(11))
