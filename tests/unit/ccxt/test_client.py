"""A failed call to a venue is classified by the venue's answer and by the connection, not by ccxt's exception."""

from __future__ import annotations

import asyncio
import logging
import socket
from decimal import Decimal
from typing import Any

import pytest

from killswitch.model.venue import (
    AccountSpec,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch_ccxt.client import Client
from killswitch_ccxt.errors import VenueAnswer
from killswitch_ccxt.response_capture import CURRENT_CALL, CallCapture, CapturingClient, RequestCounters
from killswitch_ccxt.venues.generic import Generic
from tests import virtual_time
from tests.faults.exchange import Exchange, Market
from tests.faults.mishaps import Mishap, Rule, Script
from tests.virtual_time import START as NOON
from tests.virtual_time import VirtualTime
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import KEY, SECRET

SYMBOL = "BTC/USDT:USDT"
SELL = (SYMBOL, "market", "sell", Decimal(1), None, {"reduceOnly": True, "newClientOrderId": "ks1"})


class Plain(Generic):
    """Binance by ccxt's unified calls, without any table of codes."""

    exchange = "binanceusdm"


def _spec(time: VirtualTime, endpoint: str, **more: Any) -> AccountSpec:
    credentials = {"key": KEY, "secret": SECRET}
    return AccountSpec("main", "ccxt", "swap", "USDT", endpoint, {"clock": time, "timeout": 5}, credentials, **more)


def _error_of(method: str, *arguments: Any, mishap: Mishap | None = None, changes: bool = False) -> VenueError | None:
    """The error that a call raises when its request meets a mishap; None if it raises none."""
    time = VirtualTime()
    call = {"create_order": "submit", "fetch_positions": "snapshot"}[method]
    script = Script(Rule(call, mishap)) if mishap else Script()  # type: ignore[arg-type] # one of the two

    async def scenario() -> VenueError | None:
        exchange = Exchange({(SYMBOL, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()))
        wire = await BinanceWire(exchange, mishaps=script).start()
        client = Client(_spec(time, wire.address), Plain)
        try:
            await client.call("load_markets")
            await client.call(method, *arguments, changes=changes)
        except VenueError as error:
            return error
        finally:
            await client.close()
            await wire.stop()
        return None

    return time.run(scenario())


@pytest.mark.parametrize("mishap", ["lost", "done", "silent", "done_silent"])
def test_an_order_without_an_answer_has_unknown_status(mishap: Mishap) -> None:
    """The client cannot see whether the order was executed."""
    assert type(_error_of("create_order", *SELL, mishap=mishap, changes=True)) is FateUnknownError


@pytest.mark.parametrize("mishap", ["silent", "done_silent"])
def test_a_query_without_an_answer_means_the_venue_is_down(mishap: Mishap) -> None:
    """A query changes nothing; for this query the venue is down."""
    assert type(_error_of("fetch_positions", mishap=mishap)) is VenueDownError


def test_an_answer_that_is_not_json_is_malformed() -> None:
    """A proxy's page with status 200 is neither a position list nor a rejection."""
    assert type(_error_of("fetch_positions", mishap="garbled")) is MalformedAnswerError
    assert type(_error_of("create_order", *SELL, mishap="garbled", changes=True)) is MalformedAnswerError


def test_a_json_string_is_a_valid_answer() -> None:
    """ccxt returns it unparsed, as text."""

    class Answering:
        async def fetch(self, *_: object) -> str:
            CURRENT_CALL.get().answer = VenueAnswer(200, {}, None, '"disabled"', "/info")
            return '"disabled"'

    class Captured(CapturingClient, Answering): ...  # type: ignore[misc] # as with ccxt's class

    async def scenario() -> None:
        call = CallCapture(RequestCounters())
        CURRENT_CALL.set(call)
        assert await Captured().fetch("https://venue/info") == '"disabled"'
        assert call.is_processed

    asyncio.run(scenario())


def test_too_many_requests_raises_rate_limited_for_queries_and_orders() -> None:
    """Nothing was executed; the error states when to retry if the venue states it."""
    for method, arguments in (("fetch_positions", ()), ("create_order", SELL)):
        error = _error_of(method, *arguments, mishap="limited", changes=method == "create_order")
        assert type(error) is RateLimitedError


def test_a_refused_connection_means_the_order_was_not_sent() -> None:
    """On a port where nobody listens, the order never leaves the client."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"

        async def scenario() -> None:
            client = Client(_spec(VirtualTime(), endpoint), Plain)
            try:
                with pytest.raises(VenueDownError):
                    await client.call("fapiPrivatePostOrder", {"symbol": "BTCUSDT"}, changes=True)
            finally:
                await client.close()

        virtual_time.run(scenario())


def test_an_order_whose_preceding_query_fails_was_never_sent() -> None:
    """ccxt loads the rules before it sends an order; a venue that does not answer then has received no order."""
    time = VirtualTime()

    async def scenario() -> None:
        exchange = Exchange({(SYMBOL, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()))
        wire = await BinanceWire(exchange).start()
        wire.maintenance = True
        client = Client(_spec(time, wire.address), Plain)
        try:
            with pytest.raises((VenueDownError, OrderRejectedError)):
                await client.call("create_order", *SELL, changes=True)
        finally:
            await client.close()
            await wire.stop()
        assert not exchange.orders

    time.run(scenario())


class TakesOrdersByGet(Plain):
    """A venue where a GET request may be an order."""

    has_orders_by_get = True


@pytest.mark.parametrize(("changes", "requests"), [(True, 1), (False, 2)])
def test_a_request_that_changes_something_is_never_retried_automatically(changes: bool, requests: int) -> None:
    """When a connection breaks at a GET, a query is sent once more and an order has unknown status."""
    time = VirtualTime()

    async def scenario() -> None:
        exchange = Exchange({(SYMBOL, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()))
        wire = await BinanceWire(exchange, mishaps=Script(Rule("snapshot", "done"))).start()
        client = Client(_spec(time, wire.address), TakesOrdersByGet)
        try:
            await client.call("fetch_time")  # a connection that is kept
            if changes:
                with pytest.raises(FateUnknownError):
                    await client.call("fapiPrivateV3GetPositionRisk", changes=True)
            else:
                assert await client.call("fapiPrivateV3GetPositionRisk")
        finally:
            await client.close()
            await wire.stop()
        assert wire.calls("snapshot") == requests

    time.run(scenario())


def test_no_error_message_contains_an_address_with_its_query() -> None:
    """The query string contains the signature, and error messages end up in logs that many people read."""
    error = _error_of("fetch_positions", mishap="silent")
    assert error is not None
    assert "signature" not in str(error)
    assert KEY not in str(error)


def test_ccxt_logs_no_credentials(caplog: pytest.LogCaptureFixture) -> None:
    """At debug level ccxt would log the headers of every request."""
    with caplog.at_level(logging.DEBUG):
        _error_of("fetch_positions")
    assert not [record for record in caplog.records if KEY in record.getMessage() or SECRET in record.getMessage()]


def test_every_address_is_moved_to_the_endpoint_and_keeps_its_path() -> None:
    """This includes other systems of the venue, such as the one that returns the rights of a key."""
    client = Client(_spec(VirtualTime(), "http://127.0.0.1:9/gateway/", endpoint_ws="ws://127.0.0.1:8"), Plain)
    api = client.ccxt.urls["api"]
    assert api["fapiPrivate"] == "http://127.0.0.1:9/gateway/fapi/v1"
    assert api["sapi"] == "http://127.0.0.1:9/gateway/sapi/v1"
    streams = [address for address in api["ws"].values() if isinstance(address, str)]
    assert streams
    assert all(address.startswith("ws://127.0.0.1:8/") for address in streams if "://" in address), streams
    asyncio.run(client.close())


def test_without_ccxt_the_error_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """ccxt is optional: installations that trade no crypto go without it."""
    import sys

    monkeypatch.setitem(sys.modules, "ccxt.pro", None)
    with pytest.raises(VenueDownError, match=r"pip install '\.\[ccxt\]' in a clone"):
        _ = Client(_spec(VirtualTime(), "http://127.0.0.1:9"), Plain).ccxt


def test_an_environment_that_the_venue_does_not_have_is_named() -> None:
    """For a missing sandbox ccxt raises an error class of its own."""

    class Kraken(Generic):
        exchange = "kraken"

    client = Client(_spec(VirtualTime(), "http://127.0.0.1:9", environment="sandbox"), Kraken)
    with pytest.raises(VenueDownError, match="kraken has no sandbox"):
        _ = client.ccxt


def test_rules_are_loaded_on_a_thread_without_blocking_the_loop() -> None:
    """A separate client loads the rules, and this client can take them over."""

    async def scenario() -> None:
        started = asyncio.get_running_loop().time()
        exchange = Exchange({}, lambda: (asyncio.get_running_loop().time() - started, NOON), markets=[Market(SYMBOL)])
        wire = await BinanceWire(exchange).start()
        credentials = {"key": KEY, "secret": SECRET}
        client = Client(AccountSpec("main", "ccxt", "swap", "USDT", wire.address, {}, credentials), Plain)
        try:
            fresh = await client.fresh_rules()
            client.ccxt.set_markets_from_exchange(fresh)
            assert list(client.ccxt.markets) == [SYMBOL]
        finally:
            await client.close()
            await wire.stop()

    asyncio.run(scenario())
