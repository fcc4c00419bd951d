"""The real ccxt client against Kraken Futures on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import ccxt.async_support as ccxt
import pytest

from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.krakenfutures.venue import SECRET, KrakenFuturesWire
from tests.wire.server import KEY

BTC, ETH = "BTC/USD:USD", "ETH/USD:USD"


def with_client(
    action: Callable[[Any, KrakenFuturesWire], Awaitable[Any]], *, secret: str = SECRET, **more: Any
) -> tuple[Any, KrakenFuturesWire]:
    """Run an action with a client of an account that is long 2 BTC and short 5 ETH; its result, and the venue."""
    timeline = VirtualTime()
    exchange = Exchange(
        {(BTC, "long"): Decimal(2), (ETH, "short"): Decimal(5)},
        lambda: (timeline.elapsed, timeline.now()),
        markets=[Market(BTC, Decimal(100)), Market(ETH, Decimal(10))],
    )
    venue = KrakenFuturesWire(exchange, **more)

    async def main() -> Any:
        await venue.start()
        client = ccxt.krakenfutures({"apiKey": KEY, "secret": secret, "enableRateLimit": False})
        client.number = Decimal
        client.urls["api"] = venue.urls()
        try:
            return await action(client, venue)
        finally:
            await client.close()
            await venue.stop()

    return timeline.run(main()), venue


def test_positions_and_equity_are_read() -> None:
    """Positions have a size and no notional, leverage or liquidation price; equity is a total in dollars."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        return await client.fetch_positions(), await client.fetch_balance(), await client.fetch_tickers()

    (positions, balance, tickers), venue = with_client(action)
    long, short = positions
    assert (long["symbol"], long["side"], long["contracts"]) == (BTC, "long", Decimal(2))
    assert (short["symbol"], short["side"], short["contracts"]) == (ETH, "short", Decimal(5))
    assert (long["notional"], long["leverage"], long["liquidationPrice"]) == (None, None, None)
    assert balance["info"]["accounts"]["flex"]["portfolioValue"] == 100_000
    assert tickers[BTC]["markPrice"] == Decimal(100)
    assert venue.taken() == {"derivatives": 4}


@pytest.mark.parametrize("secret", ["QUJD", "c29tZXRoaW5nIGVsc2U="])
def test_a_wrong_signature_is_refused(secret: str) -> None:
    """The signature is SHA-256 of the payload and its path, then HMAC-SHA-512 with the secret."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        with pytest.raises(ccxt.AuthenticationError, match="authenticationError"):
            await client.fetch_positions()

    with_client(action, secret=secret)


def test_an_order_closes_and_is_found_by_its_client_order_id() -> None:
    """A reduce-only market order closes; its status is queried by client id, and the fill has that id."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        more = {"reduceOnly": True, "clientOrderId": "kswa1"}
        sent = await client.create_order(BTC, "market", "sell", Decimal(2), None, more)
        found = await client.privateGetOrdersStatus({"cliOrdIds": ["kswa1"], "orderIds": []})
        return sent, found, await client.privateGetFills()

    (sent, found, fills), venue = with_client(action)
    (executed,) = sent["info"]["orderEvents"]
    assert (executed["type"], executed["amount"], executed["price"]) == ("EXECUTION", 2, 100)
    assert executed["orderPriorExecution"]["quantity"] == 2
    assert found["orders"][0]["status"] == "FULLY_EXECUTED"
    assert found["orders"][0]["order"]["cliOrdId"] == "kswa1"
    assert fills["fills"][0]["cliOrdId"] == "kswa1"
    assert venue.exchange.held[BTC, "long"] == 0
    assert venue.taken() == {"derivatives": 10 + 1 + 2}


def test_the_status_of_an_ended_order_is_forgotten_after_five_seconds() -> None:
    """After that, the history of orders still has it."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        await client.create_order(BTC, "market", "sell", Decimal(2), None, {"clientOrderId": "kswa1"})
        await asyncio.sleep(6)
        status = await client.privateGetOrdersStatus({"orderIds": [], "cliOrdIds": ["kswa1"]})
        return status, await client.historyGetOrders()

    (status, history), venue = with_client(action)
    assert status["orders"] == []
    assert history["elements"][0]["event"]["OrderUpdated"]["newOrder"]["clientId"] == "kswa1"
    assert venue.taken()["history"] == 1


def test_a_batch_answers_for_each_order() -> None:
    """One of two orders is refused: the answer names it, with the venue's status, and costs 9 and one for each."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        more = {"reduceOnly": True}
        orders = [
            {"symbol": BTC, "type": "market", "side": "sell", "amount": Decimal(2),
             "params": more | {"clientOrderId": "a", "order_tag": "0"}},
            {"symbol": ETH, "type": "market", "side": "sell", "amount": Decimal(1),
             "params": more | {"clientOrderId": "b", "order_tag": "1"}},
        ]  # fmt: skip
        return await client.create_orders(orders)

    rows, venue = with_client(action)
    assert venue.exchange.held == {(BTC, "long"): 0, (ETH, "short"): 5}
    assert {it["info"]["order_tag"]: it["info"]["status"] for it in rows} == {
        "0": "placed",
        "1": "wouldNotReducePosition",
    }
    assert venue.taken() == {"derivatives": 11}


def test_a_stop_rests_and_is_cancelled() -> None:
    """A trigger order is an open order with a stop price; a second cancel is answered `notFound`."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        stop = await client.create_order(
            BTC, "market", "sell", Decimal(2), None, {"stopLossPrice": "90", "triggerSignal": "mark"}
        )
        rows = await client.fetch_open_orders()
        await client.cancel_order(stop["id"])
        with pytest.raises(ccxt.OrderNotFound, match="notFound"):
            await client.cancel_order(stop["id"])
        return rows

    (row,), venue = with_client(action)
    assert (row["triggerPrice"], row["reduceOnly"], row["side"]) == (Decimal(90), True, "sell")
    assert row["info"]["orderType"] == "stop"
    assert not venue.exchange.resting()


def test_the_dead_man_timer_is_set_in_seconds() -> None:
    """Zero stops it."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        await client.cancel_all_orders_after(60_000)
        armed = venue.armed
        await client.cancel_all_orders_after(0)
        return armed, venue.armed

    assert with_client(action)[0] == (60, None)


def test_rate_limits_and_maintenance_have_the_venues_own_errors() -> None:
    """`apiLimitExceeded` with HTTP 429 beyond 500 units in ten seconds; `Unavailable` with HTTP 503."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        await client.load_markets()
        for _ in range(20):
            await client.cancel_all_orders()
        with pytest.raises(ccxt.DDoSProtection, match="apiLimitExceeded"):
            await client.cancel_all_orders()
        venue.maintenance = True
        with pytest.raises(ccxt.ExchangeNotAvailable, match="Unavailable"):
            await client.fetch_positions()

    with_client(action, enforced=True)


def test_the_remaining_routes_exist() -> None:
    """The other requests for an account: book, transfers, account log, rules."""

    async def action(client: Any, venue: KrakenFuturesWire) -> Any:
        await client.fetch_order_book(BTC)
        await client.privateGetTransfers()
        await client.fetch_ledger()
        return await client.fetch_markets()

    rules, venue = with_client(action)
    assert {it["symbol"]: it["precision"]["amount"] for it in rules} == {BTC: Decimal("0.001"), ETH: Decimal("0.001")}
    assert venue.refusals == []
