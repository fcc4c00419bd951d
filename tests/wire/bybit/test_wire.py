"""The real ccxt client against Bybit on loopback: its requests are accepted, and its answers are true."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import RateLimit
from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.virtual_time import run
from tests.wire.bybit.venue import BybitWire
from tests.wire.server import KEY, SECRET

ccxt = pytest.importorskip("ccxt.pro")
errors = pytest.importorskip("ccxt")
D = Decimal
BTC = "BTC/USDT:USDT"


def _now() -> tuple[float, datetime]:
    return time.monotonic(), datetime.now(UTC)


@asynccontextmanager
async def venue(
    held: Mapping[Key, Decimal] | None = None, mode: Mode = "one_way", secret: str = SECRET, **more: Any
) -> AsyncIterator[tuple[BybitWire, Any]]:
    markets = (Market(BTC, D(50_000)), Market("ETH/USDT:USDT", D(2_000)), Market("BTC/USD:BTC", D(50_000)))
    exchange = Exchange(held or {(BTC, "long"): D("0.5")}, _now, mode=mode, markets=markets)
    wire = BybitWire(exchange, **more)
    await wire.start()
    client = ccxt.bybit({"apiKey": KEY, "secret": secret, "enableRateLimit": False})
    client.number = Decimal
    client.options["fetchMarkets"]["types"] = ["spot", "linear", "inverse"]
    client.urls["api"] |= {"public": wire.address, "private": wire.address}
    client.urls["api"]["ws"]["private"]["contract"] = wire.address_ws + "/v5/private"
    try:
        yield wire, client
    finally:
        await client.close()
        await wire.stop()
    assert wire.refusals == []


def _run(main: Coroutine[Any, Any, None]) -> None:
    run(main)


def test_a_wrong_secret_is_refused_as_error_sign() -> None:
    """A request that is not signed with the secret is refused with Bybit's 10004."""

    async def main() -> None:
        async with venue(secret="another") as (_, client):
            with pytest.raises(errors.AuthenticationError, match="10004"):
                await client.fetch_positions()

    _run(main())


def test_positions_come_with_side_and_size() -> None:
    """A long and a short are reported with their sizes; a flat position only on request."""

    async def main() -> None:
        async with venue({(BTC, "long"): D("0.5"), ("ETH/USDT:USDT", "short"): D(3)}) as (_, client):
            rows = await client.fetch_positions()
            assert {(it["symbol"], it["side"], it["contracts"]) for it in rows} == {
                (BTC, "long", D("0.5")),
                ("ETH/USDT:USDT", "short", D(3)),
            }
            inverse = await client.fetch_positions(["BTC/USD:BTC"])
            assert [(it["side"], it["contracts"]) for it in inverse] == [(None, D(0))]

    _run(main())


def test_two_hundred_and_one_positions_come_in_pages() -> None:
    """At most 200 positions are in one answer, and the cursor leads to the rest."""

    async def main() -> None:
        held: dict[Key, Decimal] = {(f"S{number}", "long"): D(1) for number in range(201)}
        async with venue(held) as (_, client):
            assert len(await client.fetch_positions()) == 200
            assert len(await client.fetch_positions(None, {"paginate": True})) == 201

    _run(main())


def test_a_market_order_that_reduces_closes_and_a_second_one_is_refused() -> None:
    """A closing order fills at once; on a flat position reduce-only is refused with 110017."""

    async def main() -> None:
        async with venue() as (wire, client):
            sent = await client.create_order(BTC, "market", "sell", D("0.5"), None, {"reduceOnly": True})
            found = (await client.fetch_order(sent["id"], BTC, {"acknowledged": True}))["status"]
            assert (found, wire.exchange.held[BTC, "long"]) == ("closed", D(0))
            with pytest.raises(errors.InvalidOrder, match="110017"):
                await client.create_order(BTC, "market", "sell", D("0.5"), None, {"reduceOnly": True})

    _run(main())


def test_a_client_order_id_is_accepted_once() -> None:
    """The second order with one orderLinkId is refused with 110072."""

    async def main() -> None:
        async with venue() as (_, client):
            params = {"reduceOnly": True, "clientOrderId": "ks1"}
            await client.create_order(BTC, "market", "sell", D("0.1"), None, params)
            with pytest.raises(errors.InvalidOrder, match="110072"):
                await client.create_order(BTC, "market", "sell", D("0.1"), None, params)

    _run(main())


def test_rows_of_a_batch_are_answered_in_order() -> None:
    """One row is refused with its own code, and the others are accepted."""

    async def main() -> None:
        async with venue() as (wire, client):
            rows = [
                {"symbol": symbol, "type": "market", "side": "sell", "amount": D("0.1"), "params": {"reduceOnly": True}}
                for symbol in (BTC, "ETH/USDT:USDT", BTC)
            ]
            answered = await client.create_orders(rows)
            assert sorted(str(it["info"].get("code")) for it in answered) == ["110017", "None", "None"]
            assert wire.exchange.held[BTC, "long"] == D("0.3")

    _run(main())


def test_hedge_mode_requires_the_position_index() -> None:
    """In hedge mode an order without a position is refused, and one with it closes that side."""

    async def main() -> None:
        async with venue({(BTC, "long"): D(1), (BTC, "short"): D(1)}, "hedge") as (wire, client):
            with pytest.raises(errors.BadRequest, match="10001"):
                await client.create_order(BTC, "market", "sell", D(1))
            params = {"positionIdx": 1, "reduceOnly": True}
            await client.create_order(BTC, "market", "sell", D(1), None, params)
            assert (wire.exchange.held[BTC, "long"], wire.exchange.held[BTC, "short"]) == (D(0), D(1))

    _run(main())


def test_a_conditional_order_rests_and_can_be_cancelled() -> None:
    """A stop is listed with its trigger, and a second cancel is refused with 110001."""

    async def main() -> None:
        async with venue() as (_, client):
            params = {"reduceOnly": True, "triggerPrice": "40000", "triggerDirection": "descending"}
            sent = await client.create_order(BTC, "market", "sell", D("0.5"), None, params)
            (resting,) = await client.fetch_open_orders()
            assert (resting["id"], resting["triggerPrice"], resting["reduceOnly"]) == (sent["id"], D(40_000), True)
            await client.cancel_order(sent["id"], BTC)
            with pytest.raises(errors.OrderNotFound, match="110001"):
                await client.cancel_order(sent["id"], BTC)

    _run(main())


def test_fills_equity_and_time_are_reported() -> None:
    """Fills have fee and order, the wallet its totals in dollars, and the clock is the venue's."""

    async def main() -> None:
        async with venue(equity=D(5_000)) as (wire, client):
            await client.create_order(BTC, "market", "sell", D("0.5"), None, {"reduceOnly": True})
            (fill,) = await client.fetch_my_trades(BTC)
            assert (fill["amount"], fill["price"]) == (D("0.5"), D(50_000))
            assert D(fill["info"]["execFee"]) == D("12.5")  # 0.05% of 25,000; ccxt itself loses it among Decimals
            balance = await client.fetch_balance()
            # The fee of 12.5 is paid; the half was sold at its entry price.
            assert D(balance["info"]["result"]["list"][0]["totalEquity"]) == D("4987.5")
            assert abs(await client.fetch_time() - wire.now_ms()) < 5_000

    _run(main())


def test_one_request_too_many_is_refused_with_10006() -> None:
    """With enforced limits, the eleventh order in a second is refused, and the headers count down to it."""

    async def main() -> None:
        async with venue(enforced=True) as (wire, client):
            assert RateLimit("create", 10, 1.0) in BybitWire.limits
            for _ in range(10):
                await client.create_order(BTC, "limit", "sell", D("0.001"), D(90_000))
            assert client.last_response_headers["X-Bapi-Limit-Status"] == "0"
            with pytest.raises(errors.RateLimitExceeded, match="10006"):
                await client.create_order(BTC, "limit", "sell", D("0.001"), D(90_000))
            assert wire.taken()["create"] == 11

    _run(main())


def test_the_private_stream_pushes_a_changed_position() -> None:
    """An authenticated client receives a position that changes."""

    async def main() -> None:
        async with venue() as (wire, client):
            await client.load_markets()
            await client.authenticate(client.urls["api"]["ws"]["private"]["contract"])
            client.options["watchPositions"] = {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False}
            pushed = client.spawn(client.watch_positions)
            while "position" not in wire.streams.topics:
                await client.sleep(10)
            wire.exchange.trade((BTC, "long"), D("0.25"))
            (row,) = await pushed
            assert (row["symbol"], row["contracts"]) == (BTC, D("0.75"))

    _run(main())
