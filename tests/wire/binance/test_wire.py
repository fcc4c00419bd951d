"""The real client against Binance's USD-M futures on loopback: its requests are accepted, or refused with the venue's
own codes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import ccxt
import ccxt.pro
import pytest

from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import KEY, SECRET

BTC: Key = ("BTC", "long")
Scenario = Callable[[BinanceWire, Any], Coroutine[Any, Any, None]]


def real_now() -> tuple[float, datetime]:
    return time.monotonic(), datetime.now(UTC)


@asynccontextmanager
async def venue(
    book: dict[Key, str] | None = None, *, mode: Mode = "one_way", secret: str = SECRET, key: str = KEY, **more: Any
) -> AsyncIterator[tuple[BinanceWire, Any]]:
    """The venue and the real client."""
    held = {it: Decimal(amount) for it, amount in (book or {BTC: "10"}).items()}
    exchange = Exchange(held, real_now, mode=mode, markets=more.pop("markets", ()), resting_exits_block=True)
    wire = BinanceWire(exchange, **more)
    await wire.start()
    client = ccxt.pro.binanceusdm({"apiKey": key, "secret": secret, "enableRateLimit": False})
    client.number = Decimal
    client.has["fetchCurrencies"] = False
    client.options["fetchOpenOrders"] = {"warnWithoutSymbol": False}
    for name, url in client.urls["api"].items():
        if isinstance(url, str):
            client.urls["api"][name] = wire.address + "/" + url.split("/", 3)[3]
    try:
        yield wire, client
    finally:
        await client.close()
        await wire.stop()
        assert wire.refusals == []


def play(scenario: Scenario, *args: Any, **options: Any) -> None:
    """Run a scenario at a venue of its own."""

    async def main() -> None:
        async with venue(*args, **options) as (wire, client):
            await scenario(wire, client)

    asyncio.run(main())


async def refused(call: Coroutine[Any, Any, object], code: int) -> str:
    """The venue's own message of a refusal."""
    with pytest.raises(ccxt.BaseError) as caught:
        await call
    assert f'"code": {code}' in str(caught.value)
    return str(caught.value)


def header(client: Any, name: str) -> str:
    """A header of the last answer."""
    return next(str(value) for key, value in client.last_response_headers.items() if key.lower() == name.lower())


def test_the_client_reads_rules_account_and_positions() -> None:
    """Symbols, steps, equity and a short position of 2 at 100 match the exchange."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        markets = await client.load_markets()
        assert sorted(markets) == ["BTC/USDT:USDT", "ETH/USDT:USDT"]
        assert markets["BTC/USDT:USDT"]["precision"]["amount"] == Decimal("0.001")
        assert markets["ETH/USDT:USDT"]["limits"]["market"]["max"] == Decimal(7)
        account = await client.fapiPrivateV2GetAccount()
        assert (account["totalMarginBalance"], account["multiAssetsMargin"]) == ("100000", False)
        rows = await client.fetch_positions()
        assert [(row["symbol"], row["side"], row["contracts"]) for row in rows] == [
            ("BTC/USDT:USDT", "long", 10), ("ETH/USDT:USDT", "short", 2),
        ]  # fmt: skip
        assert (await client.fetch_balance())["USDT"]["total"] == 100_000
        assert (await client.fetch_position_mode())["hedged"] is False
        assert (await client.fetch_time()) // 10_000 == int(time.time() * 1000) // 10_000

    play(scenario, {BTC: "10", ("ETH", "short"): "2"}, markets=[Market("ETH", maximum=Decimal(7))])


def test_an_order_is_accepted_once_and_found_with_its_fills_by_client_order_id() -> None:
    """10 are sold reduce-only at market under our id; the same id again is refused with -4116."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        params = {"reduceOnly": True, "clientOrderId": "ks1"}
        sent = await client.create_order("BTC/USDT:USDT", "market", "sell", Decimal(10), None, params)
        assert (sent["status"], sent["filled"], sent["average"]) == ("closed", 10, 100)
        found = await client.fetch_order("", "BTC/USDT:USDT", {"origClientOrderId": "ks1"})
        assert (found["id"], found["clientOrderId"], found["filled"]) == (sent["id"], "ks1", 10)
        trades = await client.fetch_my_trades("BTC/USDT:USDT", None, None, {"orderId": sent["id"]})
        assert [(it["amount"], it["info"]["commission"]) for it in trades] == [(10, "0.5000")]
        assert wire.exchange.held[BTC] == 0
        wire.exchange.held[BTC] = Decimal(5)
        again = client.create_order("BTC/USDT:USDT", "market", "sell", Decimal(5), None, params)
        await refused(again, -4116)

    play(scenario)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (("ETH/USDT:USDT", "market", "sell", "1", None, {"reduceOnly": True}), -2022),
        (("BTC/USDT:USDT", "limit", "sell", "4000", "100", {"reduceOnly": True}), -4005),
        (("BTC/USDT:USDT", "market", "buy", "0.01", None, {}), -4164),
        (("BTC/USDT:USDT", "market", "sell", "1", None, {"positionSide": "LONG"}), -4061),
        (("BTC/USDT:USDT", "market", "sell", "1", None, {"clientOrderId": "ä" * 3}), -1100),
        (("BTC/USDT:USDT", "market", "sell", "1", None, {"stopLossPrice": "150", "reduceOnly": True}), -2021),
        (("SOL/USDT:USDT", "market", "sell", "1", None, {"reduceOnly": True}), -4131),
        (("XRP/USDT:USDT", "market", "buy", "1", None, {}), -4400),
    ],
)
def test_orders_are_refused_with_the_venues_own_codes(order: tuple[Any, ...], code: int) -> None:
    """Each rule of the exchange has the venue's own code."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        wire.min_notional = Decimal(5)
        await refused(client.create_order(*order), code)

    markets = [
        Market("BTC", maximum=Decimal(1000)), Market("ETH"), Market("XRP", state="reduce_only"),
        Market("SOL", slip=Decimal("0.1"), band=Decimal("0.05")),
    ]  # fmt: skip
    play(scenario, {BTC: "10", ("SOL", "long"): "10"}, markets=markets)


def test_in_hedge_mode_the_position_side_is_the_guard_and_reduce_only_is_refused() -> None:
    """-1106 for reduceOnly; 11 of 10 cannot be closed; 4 of the short are bought back."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        short: dict[str, Any] = {"positionSide": "SHORT"}
        await refused(
            client.create_order("BTC/USDT:USDT", "market", "buy", Decimal(1), None, short | {"reduceOnly": True}), -1106
        )
        await refused(client.create_order("BTC/USDT:USDT", "market", "buy", Decimal(1)), -4061)
        await refused(client.create_order("BTC/USDT:USDT", "market", "buy", Decimal(11), None, short), -4118)
        hedged = {"hedged": True, "reduceOnly": True}
        await client.create_order("BTC/USDT:USDT", "market", "buy", Decimal(4), None, hedged)
        assert wire.exchange.held == {BTC: 10, ("BTC", "short"): 6}

    play(scenario, {BTC: "10", ("BTC", "short"): "10"}, mode="hedge")


def test_conditional_orders_are_listed_and_cancelled_separately_and_survive_countdowns() -> None:
    """A stop is an algo order: not among the open orders, found and cancelled by its own routes."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        symbol = "BTC/USDT:USDT"
        params = {"reduceOnly": True, "stopLossPrice": "90", "clientOrderId": "stop1"}
        stop = await client.create_order(symbol, "market", "sell", Decimal(4), None, params)
        limit = await client.create_order(symbol, "limit", "buy", Decimal(1), Decimal(50), {"clientOrderId": "l1"})
        assert [it["id"] for it in await client.fetch_open_orders()] == [limit["id"]]
        listed = await client.fetch_open_orders(None, None, None, {"trigger": True})
        assert [(it["id"], it["info"]["triggerPrice"], it["reduceOnly"]) for it in listed] == [(stop["id"], "90", True)]
        await refused(client.fetch_order("", symbol, {"origClientOrderId": "stop1"}), -2013)
        found = await client.fetch_order("", symbol, {"clientAlgoId": "stop1", "trigger": True})
        assert (found["id"], found["status"]) == (stop["id"], "open")
        await client.fapiPrivatePostCountdownCancelAll({"symbol": "BTCUSDT", "countdownTime": 20})
        await asyncio.sleep(0.05)
        assert [it["id"] for it in await client.fetch_open_orders()] == []
        await refused(client.cancel_order(limit["id"], symbol), -2011)
        await client.cancel_order(stop["id"], symbol, {"trigger": True})
        assert wire.exchange.resting() == ()

    play(scenario)


def test_a_batch_keeps_refused_rows_in_their_place() -> None:
    """The second of three is refused, and is second in the answer; six are too many."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        def one(market_id: str, name: str) -> dict[str, str]:
            return {"symbol": market_id, "side": "SELL", "type": "MARKET", "quantity": "1", "reduceOnly": "true",
                    "newClientOrderId": name}  # fmt: skip

        orders = [one("BTCUSDT", "b1"), one("ETHUSDT", "b2"), one("BTCUSDT", "b3")]
        rows = await client.fapiPrivatePostBatchOrders({"batchOrders": orders})
        assert [row.get("clientOrderId", row.get("code")) for row in rows] == ["b1", -2022, "b3"]
        six = client.fapiPrivatePostBatchOrders({"batchOrders": [one("BTCUSDT", f"c{it}") for it in range(6)]})
        await refused(six, -4082)

    play(scenario, markets=[Market("ETH")])


def test_a_wrong_secret_a_wrong_key_and_an_old_request_are_refused() -> None:
    """-1022, -2015 with HTTP 401, and -1021."""

    async def old(wire: BinanceWire, client: Any) -> None:
        client.options["timeDifference"] = 20_000
        await refused(client.fapiPrivateV3GetPositionRisk(), -1021)
        client.options["timeDifference"] = -20_000
        await refused(client.fapiPrivateV3GetPositionRisk(), -1021)

    async def wrong_secret(wire: BinanceWire, client: Any) -> None:
        await refused(client.fapiPrivateV3GetPositionRisk(), -1022)

    async def wrong_key(wire: BinanceWire, client: Any) -> None:
        await refused(client.fapiPrivateV3GetPositionRisk(), -2015)

    play(old)
    play(wrong_secret, secret="other")
    play(wrong_key, key="OTHER")


def test_weights_are_counted_as_documented_and_sent_with_every_answer() -> None:
    """positionRisk is 5, the mode 30, open orders of all symbols 40; an order adds none."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        await client.load_markets()
        await client.fapiPrivateV3GetPositionRisk()
        assert header(client, "X-MBX-USED-WEIGHT-1M") == "6"
        await client.fetch_position_mode()
        await client.fetch_open_orders()
        await client.create_order("BTC/USDT:USDT", "market", "sell", Decimal(1), None, {"reduceOnly": True})
        assert header(client, "X-MBX-USED-WEIGHT-1M") == "76"
        assert header(client, "X-MBX-ORDER-COUNT-10S") == "1"

    play(scenario)


def test_too_many_requests_are_429_and_continuing_is_418_until_the_ban_ends() -> None:
    """61 times 40 are more than 2400 a minute; the sixth refusal in a row is a ban, with its end."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        for _ in range(60):
            await client.fapiPrivateGetOpenOrders()
        assert "429" in await refused(client.fapiPrivateGetOpenOrders(), -1003)
        assert int(header(client, "Retry-After")) <= 60
        for _ in range(4):
            await refused(client.fapiPrivateGetOpenOrders(), -1003)
        assert "418" in await refused(client.fapiPrivateGetOpenOrders(), -1003)
        assert header(client, "Retry-After") == "120"

    play(scenario, enforced=True)


def test_an_executed_order_may_be_answered_with_a_failure() -> None:
    """503 "Unknown error, please check…": the position is closed all the same."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        wire.answer_next(
            "POST /fapi/v1/order", -1007, "Unknown error, please check your request or try again later.", 503, done=True
        )
        params = {"reduceOnly": True}
        await refused(client.create_order("BTC/USDT:USDT", "market", "sell", Decimal(10), None, params), -1007)
        assert wire.exchange.held[BTC] == 0

    play(scenario)


def test_the_user_stream_pushes_an_order_and_its_fill() -> None:
    """The client's own stream receives the fill of its order."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        await client.load_markets()
        ws = client.urls["api"]["ws"]
        for name, url in ws.items():
            if isinstance(url, str):
                ws[name] = wire.address_ws + "/" + url.split("/", 3)[3]
        client.options["watchPositions"] = {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False}
        pushed = asyncio.ensure_future(client.watch_orders())
        while not wire.sockets:  # noqa: ASYNC110 - the server sends no event on a connection
            await asyncio.sleep(0.01)
        wire.exchange.trade(BTC, Decimal(-3))
        await client.create_order("BTC/USDT:USDT", "market", "sell", Decimal(2), None, {"reduceOnly": True})
        orders = await asyncio.wait_for(pushed, 10)
        assert [(it["status"], it["filled"]) for it in orders] == [("closed", 2)]

    play(scenario)


def test_lists_are_damaged_as_the_script_demands() -> None:
    """An empty list, a missing row, a number that is none."""

    async def scenario(wire: BinanceWire, client: Any) -> None:
        from tests.faults.mishaps import Rule, Script

        wire.mishaps = Script(Rule("snapshot", "empty"), Rule("snapshot", "page"), Rule("snapshot", "nan"))
        rows = [await client.fapiPrivateV3GetPositionRisk() for _ in range(4)]
        assert [len(it) for it in rows] == [0, 1, 2, 2]
        assert [it["positionAmt"] for it in rows[2]] == ["NaN", "1"]

    play(scenario, {BTC: "10", ("ETH", "long"): "1"})
