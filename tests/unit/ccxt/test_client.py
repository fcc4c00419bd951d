"""What a failed call to a venue means goes by the venue's words and by the connection, never by ccxt's mood."""

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
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.errors import VenueAnswer
from killswitch_ccxt.response_capture import CURRENT_CALL, CallCapture, CapturingClient, RequestCounters
from tests import virtual_time
from tests.faults.exchange import Exchange, Market
from tests.faults.mishaps import Mishap, Rule, Script
from tests.virtual_time import START as NOON
from tests.virtual_time import VirtualTime
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import KEY, SECRET

SYMBOL = "BTC/USDT:USDT"
SELL = (SYMBOL, "market", "sell", Decimal(1), None, {"reduceOnly": True, "newClientOrderId": "ks1"})


class Plain(Dialect):
    """Binance by ccxt's unified calls, without any table of codes."""

    exchange = "binanceusdm"


def _spec(time: VirtualTime, endpoint: str, **more: Any) -> AccountSpec:
    credentials = {"key": KEY, "secret": SECRET}
    return AccountSpec("main", "ccxt", "swap", "USDT", endpoint, {"clock": time, "timeout": 5}, credentials, **more)


def _said(method: str, *arguments: Any, mishap: Mishap | None = None, changes: bool = False) -> VenueError | None:
    """What a call raises when its request meets a mishap; None if it raises nothing."""
    time = VirtualTime()
    call = {"create_order": "submit", "fetch_positions": "snapshot"}[method]
    script = Script(Rule(call, mishap)) if mishap else Script()  # type: ignore[arg-type] # one of the two

    async def course() -> VenueError | None:
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

    return time.run(course())


@pytest.mark.parametrize("mishap", ["lost", "done", "silent", "done_silent"])
def test_an_order_without_an_answer_is_of_unknown_fate(mishap: Mishap) -> None:
    """From here it looks the same whether it was done."""
    assert type(_said("create_order", *SELL, mishap=mishap, changes=True)) is FateUnknownError


@pytest.mark.parametrize("mishap", ["silent", "done_silent"])
def test_a_reading_without_an_answer_has_changed_nothing(mishap: Mishap) -> None:
    """The venue is down, as far as this reading is concerned."""
    assert type(_said("fetch_positions", mishap=mishap)) is VenueDownError


def test_a_text_that_is_no_json_is_an_answer_without_a_meaning() -> None:
    """A proxy's page with status 200 is neither a position list nor a refusal."""
    assert type(_said("fetch_positions", mishap="garbled")) is MalformedAnswerError
    assert type(_said("create_order", *SELL, mishap="garbled", changes=True)) is MalformedAnswerError


def test_a_word_in_quotes_is_a_good_answer() -> None:
    """ccxt returns it unparsed, as text."""

    class Answering:
        async def fetch(self, *_: object) -> str:
            CURRENT_CALL.get().answer = VenueAnswer(200, {}, None, '"disabled"', "/info")
            return '"disabled"'

    class Captured(CapturingClient, Answering): ...  # type: ignore[misc] # as with ccxt's class

    async def course() -> None:
        call = CallCapture(RequestCounters())
        CURRENT_CALL.set(call)
        assert await Captured().fetch("https://venue/info") == '"disabled"'
        assert call.is_processed

    asyncio.run(course())


def test_too_many_requests_is_limited_whatever_was_asked() -> None:
    """Nothing was done, and when to come back is said if the venue said it."""
    for method, arguments in (("fetch_positions", ()), ("create_order", SELL)):
        said = _said(method, *arguments, mishap="limited", changes=method == "create_order")
        assert type(said) is RateLimitedError


def test_a_venue_that_cannot_be_connected_to_has_surely_done_nothing() -> None:
    """A port where nobody listens: the order never left."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"

        async def course() -> None:
            client = Client(_spec(VirtualTime(), endpoint), Plain)
            try:
                with pytest.raises(VenueDownError):
                    await client.call("fapiPrivatePostOrder", {"symbol": "BTCUSDT"}, changes=True)
            finally:
                await client.close()

        virtual_time.run(course())


def test_an_order_that_fails_at_a_question_before_it_was_never_sent() -> None:
    """ccxt loads the rules before it sends an order; a venue that is silent then has no order."""
    time = VirtualTime()

    async def course() -> None:
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

    time.run(course())


class TakesOrdersByGet(Plain):
    """A venue where a question may be an order."""

    has_orders_by_get = True


@pytest.mark.parametrize(("changes", "asked"), [(True, 1), (False, 2)])
def test_what_changes_something_is_never_asked_again_by_itself(changes: bool, asked: int) -> None:
    """A connection that breaks at a GET: a question is asked once more, an order is of unknown fate."""
    time = VirtualTime()

    async def course() -> None:
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
        assert wire.calls("snapshot") == asked

    time.run(course())


def test_no_error_shows_an_address_with_what_was_asked_in_it() -> None:
    """A query holds the signature, and a proxy's log is read by many."""
    said = _said("fetch_positions", mishap="silent")
    assert said is not None
    assert "signature" not in str(said)
    assert KEY not in str(said)


def test_ccxt_writes_no_key_into_any_log(caplog: pytest.LogCaptureFixture) -> None:
    """At its finest level it would write the headers of every request."""
    with caplog.at_level(logging.DEBUG):
        _said("fetch_positions")
    assert not [record for record in caplog.records if KEY in record.getMessage() or SECRET in record.getMessage()]


def test_every_address_goes_to_the_endpoint_with_its_own_path() -> None:
    """Also those of another system of the venue, such as the one that tells what a key may do."""
    client = Client(_spec(VirtualTime(), "http://127.0.0.1:9/gateway/", endpoint_ws="ws://127.0.0.1:8"), Plain)
    api = client.ccxt.urls["api"]
    assert api["fapiPrivate"] == "http://127.0.0.1:9/gateway/fapi/v1"
    assert api["sapi"] == "http://127.0.0.1:9/gateway/sapi/v1"
    streams = [address for address in api["ws"].values() if isinstance(address, str)]
    assert streams
    assert all(address.startswith("ws://127.0.0.1:8/") for address in streams if "://" in address), streams
    asyncio.run(client.close())


def test_without_ccxt_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package goes without it where nobody trades crypto."""
    import sys

    monkeypatch.setitem(sys.modules, "ccxt.pro", None)
    with pytest.raises(VenueDownError, match=r"pip install '\.\[ccxt\]' in a clone"):
        _ = Client(_spec(VirtualTime(), "http://127.0.0.1:9"), Plain).ccxt


def test_a_system_that_the_venue_does_not_have_is_said_plainly() -> None:
    """ccxt answers a sandbox that is not there with an error of its own making."""

    class Kraken(Dialect):
        exchange = "kraken"

    client = Client(_spec(VirtualTime(), "http://127.0.0.1:9", environment="sandbox"), Kraken)
    with pytest.raises(VenueDownError, match="kraken has no sandbox"):
        _ = client.ccxt


def test_rules_come_from_a_thread_while_the_loop_goes_on() -> None:
    """The venue is asked by a client of its own, which this one can take over."""

    async def course() -> None:
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

    asyncio.run(course())
