"""The real ccxt client against Bitget on loopback: its requests are accepted, and its answers are true."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.exchange import Exchange, Key, Market, Mode
from tests.virtual_time import run
from tests.wire.bitget.venue import BitgetWire
from tests.wire.server import KEY, PASSPHRASE, SECRET

ccxt = pytest.importorskip("ccxt.async_support")
errors = pytest.importorskip("ccxt")
D = Decimal
BTC = "BTC/USDT:USDT"
FUTURES = {"productType": "USDT-FUTURES"}


def _now() -> tuple[float, datetime]:
    return time.monotonic(), datetime.now(UTC)


@asynccontextmanager
async def venue(
    held: Mapping[Key, Decimal] | None = None, mode: Mode = "one_way", keys: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[BitgetWire, Any]]:
    exchange = Exchange(held or {(BTC, "long"): D("0.5")}, _now, mode=mode, markets=(Market(BTC, D(50_000)),))
    wire = BitgetWire(exchange)
    await wire.start()
    credentials = {"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE, **(keys or {})}
    client = ccxt.bitget({**credentials, "enableRateLimit": False})
    client.number = Decimal
    client.has["fetchCurrencies"] = False
    client.options |= {"uta": False, "defaultType": "swap"}
    client.options["fetchMarkets"]["types"] = ["swap"]
    client.urls["api"] = dict.fromkeys(client.urls["api"], wire.address)
    try:
        yield wire, client
    finally:
        await client.close()
        await wire.stop()
    assert wire.refusals == []


def _run(main: Coroutine[Any, Any, None]) -> None:
    run(main)


@pytest.mark.parametrize(("keys", "code"), [({"secret": "another"}, "40009"), ({"password": "another"}, "40012")])
def test_a_wrong_secret_or_passphrase_is_refused(keys: dict[str, str], code: str) -> None:
    """A request that is not signed with the secret, or lacks the passphrase, is refused in Bitget's codes."""

    async def main() -> None:
        async with venue(keys=keys) as (_, client):
            with pytest.raises(errors.AuthenticationError, match=code):
                await client.fetch_positions(None, FUTURES)

    _run(main())


def test_positions_and_equity_match_the_exchange() -> None:
    """A long is reported with its size and mode, and the account with its equity."""

    async def main() -> None:
        async with venue() as (_, client):
            (row,) = await client.fetch_positions(None, FUTURES)
            assert (row["symbol"], row["side"], row["contracts"], row["hedged"]) == (BTC, "long", D("0.5"), False)
            balance = await client.fetch_balance({"productType": "USDT-FUTURES"})
            assert balance["USDT"]["total"] == D(100_000)

    _run(main())


def test_a_reducing_order_closes_and_a_second_one_finds_no_position() -> None:
    """Reduce-only on a flat position is refused with 22002."""

    async def main() -> None:
        async with venue() as (wire, client):
            params = {"reduceOnly": True, "clientOrderId": "ks1"}
            await client.create_order(BTC, "market", "sell", D("0.5"), None, params)
            found = await client.fetch_order(None, BTC, {"clientOrderId": "ks1"})
            assert (found["status"], found["filled"]) == ("closed", D("0.5"))
            assert wire.exchange.held[BTC, "long"] == D(0)
            with pytest.raises(errors.BaseError, match="22002"):
                await client.create_order(BTC, "market", "sell", D("0.5"), None, {"reduceOnly": True})

    _run(main())


def test_hedge_mode_requires_orders_of_its_own_kind() -> None:
    """In hedge mode a one-way order is refused with 40774, and one that declares a close closes that side."""

    async def main() -> None:
        async with venue({(BTC, "long"): D(1), (BTC, "short"): D(1)}, "hedge") as (wire, client):
            with pytest.raises(errors.InvalidOrder, match="40774"):
                await client.create_order(BTC, "market", "sell", D(1), None, {"reduceOnly": True})
            await client.create_order(BTC, "market", "sell", D(1), None, {"reduceOnly": True, "hedged": True})
            assert (wire.exchange.held[BTC, "long"], wire.exchange.held[BTC, "short"]) == (D(0), D(1))

    _run(main())


def test_a_trigger_price_as_text_rests_as_a_plan_order() -> None:
    """A plan order is listed among the plan orders only, and is cancelled there."""

    async def main() -> None:
        async with venue() as (_, client):
            params = {"reduceOnly": True, "triggerPrice": "40000"}
            sent = await client.create_order(BTC, "market", "sell", D("0.5"), None, params)
            assert await client.fetch_open_orders(None, None, None, FUTURES) == []
            (row,) = await client.fetch_open_orders(None, None, None, {**FUTURES, "trigger": True})
            assert (row["id"], D(row["info"]["triggerPrice"]), row["reduceOnly"]) == (sent["id"], D(40_000), True)
            await client.cancel_order(sent["id"], BTC, {"trigger": True})
            assert await client.fetch_open_orders(None, None, None, {**FUTURES, "trigger": True}) == []

    _run(main())


def test_a_batch_lists_accepted_and_refused_rows_separately() -> None:
    """A refused row is listed with its code in a list of its own, and the others are accepted."""

    async def main() -> None:
        async with venue() as (wire, client):
            rows = [
                {"size": "0.5", "side": "sell", "orderType": "market", "reduceOnly": "YES", "clientOid": name}
                for name in ("ks1", "ks2")
            ]
            batch = {**FUTURES, "symbol": "BTCUSDT", "marginCoin": "USDT", "marginMode": "crossed", "orderList": rows}
            await client.load_markets()
            data = (await client.privateMixPostV2MixOrderBatchPlaceOrder(batch))["data"]
            assert [it["clientOid"] for it in data["successList"]] == ["ks1"]
            assert [(it["clientOid"], it["errorCode"]) for it in data["failureList"]] == [("ks2", "22002")]
            assert wire.exchange.held[BTC, "long"] == D(0)

    _run(main())


def test_closing_everything_closes_both_sides() -> None:
    """One request closes every position, and a second one is refused with 22002."""

    async def main() -> None:
        async with venue({(BTC, "long"): D(1), (BTC, "short"): D(2)}, "hedge") as (wire, client):
            await client.close_all_positions(FUTURES)
            assert set(wire.exchange.held.values()) == {D(0)}
            with pytest.raises(errors.BaseError, match="22002"):
                await client.close_all_positions(FUTURES)

    _run(main())


def test_an_unknown_client_order_id_is_reported_as_unknown() -> None:
    """order/detail answers 40109 for an order that does not exist."""

    async def main() -> None:
        async with venue() as (_, client):
            with pytest.raises(errors.OrderNotFound, match="40109"):
                await client.fetch_order(None, BTC, {"clientOrderId": "never-sent"})

    _run(main())
