"""Edge cases at Alpaca on loopback: pushes during a poll, simultaneous orders, page boundaries, odd stream messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from killswitch.model.venue import MalformedAnswerError, Push
from killswitch_alpaca import stream
from killswitch_alpaca.family import family
from killswitch_alpaca.settings import read_settings
from killswitch_alpaca.venue import AlpacaVenue
from tests.virtual_time import VirtualTime
from tests.wire.alpaca.scene import AAPL, BTC, REGULAR, run, sale, spec_of
from tests.wire.alpaca.venue import AlpacaWire

D = Decimal
Handler = Callable[[web.WebSocketResponse], Awaitable[None]]


def test_an_order_placed_during_a_query_of_orders_is_in_the_next_snapshot() -> None:
    """Its push arrives between the answer and our reading of it: the adapter does not count the order as read."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        listener = asyncio.create_task(venue.listen(lambda _: None))
        await asyncio.sleep(1)
        assert wire.subscribed
        await venue.snapshot()

        def place(route: str, answer: Any) -> Any:
            if route == "GET /v2/orders" and not wire.exchange.orders:
                wire.exchange.rest(AAPL, "sell", D(2), type="limit", price=D(130))
                for notify in wire.exchange.watchers:
                    notify()
            return answer

        wire.latency, wire.change = 0.2, place
        await asyncio.sleep(13)
        assert (await venue.snapshot()).orders == ()
        assert len(wire.exchange.orders) == 1
        await asyncio.sleep(1)
        assert len((await venue.snapshot()).orders or ()) == 1
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    run(case)


def test_forty_simultaneous_orders_query_the_clock_once() -> None:
    """The clock is a minute old; a cancelled order keeps none of the others from the answer."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        await asyncio.sleep(61)
        before = len(wire.seen)
        orders = [asyncio.create_task(venue.submit(sale("0.1", client_order_id=f"k{n}"))) for n in range(40)]
        await asyncio.sleep(0)
        orders[0].cancel()
        done = await asyncio.gather(*orders, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert not any(isinstance(each, BaseException) for each in done[1:])
        assert [each.ask.path for each in wire.seen[before:]].count("/v2/clock") == 1

    run(case)


def test_orders_of_one_moment_at_a_page_boundary_are_not_lost() -> None:
    """Of 510 orders, the 495th to the 505th were placed at one moment: the page ends among them."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for number in range(510):
            order = wire.exchange.rest(AAPL, "buy", D(1), type="limit", price=D(50))
            wire.placed_at[order] = REGULAR + timedelta(seconds=max(number - 505, min(number - 495, 0)))
        assert len(await venue.open_orders()) == 510

    run(case)


def test_a_list_of_orders_that_cannot_be_paged_is_unknown() -> None:
    """601 orders of one moment: a full page brings nothing new, and part of a list is never reported as the whole."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for _ in range(601):
            wire.exchange.rest(AAPL, "sell", D("0.001"), type="limit", price=D(130))
        with pytest.raises(MalformedAnswerError, match="open orders: the list does not end"):
            await venue.open_orders()
        seen = await venue.snapshot()
        assert seen.orders is None
        assert "open orders: the list does not end" in (seen.reason or "")

    run(case)


def test_bars_of_stocks_are_not_adjusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adjusted bars fetched before and after a split would not fit each other."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        monkeypatch.setenv("APCA_API_KEY_ID", "KEY-PLANTED")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "SECRET-PLANTED")
        history = family.history("alpaca", wire.address)
        assert history is not None
        await history.bars(AAPL, "1d", 0)
        await history.bars(BTC, "1d", 0)
        await history.close()
        assert wire.adjustments == ["raw", None]

    run(case)


async def pushes_from(handle: Handler, seconds: float, path: str = "/stream") -> list[Push]:
    """The pushes within that time from a stream whose server runs this handler for each connection."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await handle(socket)
        return socket

    app = web.Application()
    app.router.add_get("/stream", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    settings = read_settings(
        spec_of(None, endpoint=f"http://127.0.0.1:{port}", endpoint_ws=f"ws://127.0.0.1:{port}{path}")
    )
    pushes: list[Push] = []
    try:
        async with asyncio.timeout(seconds):
            await stream.listen(settings, pushes.append, lambda *, fills: None)
    except TimeoutError:
        return pushes
    finally:
        await runner.cleanup()
    raise AssertionError("the stream ended")


async def authenticate(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.send_json({"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}})
    await socket.receive()
    await socket.send_json({"stream": "listening", "data": {"streams": ["trade_updates"]}})


def test_every_frame_counts_as_alive() -> None:
    """A server that pings every 5 s is never pinged, and counts as alive each time; so does any other message."""

    async def handle(socket: web.WebSocketResponse) -> None:
        await authenticate(socket)
        for number in range(10):
            await asyncio.sleep(5)
            if number % 2:
                await socket.ping(b"x")
            else:
                await socket.send_json({"stream": "news", "data": None})

    pushes = VirtualTime(REGULAR).run(pushes_from(handle, 46))
    assert [push.kind for push in pushes] == ["alive"] * 10


WELCOMES = (
    {"stream": "authorization", "data": None}, {"stream": "authorization", "data": ["authorized"]},
    {"stream": "authorization", "data": {"status": 7}}, {"stream": "listening"}, ["authorized"], 7,
)  # fmt: skip


@pytest.mark.parametrize("welcome", WELCOMES, ids=[json.dumps(each) for each in WELCOMES])
def test_an_invalid_authentication_answer_is_lost_and_reconnected(welcome: object) -> None:
    """The answer shows nothing about the keys, and the next one may be valid."""
    welcomes = iter([welcome])

    async def handle(socket: web.WebSocketResponse) -> None:
        odd = next(welcomes, None)
        if odd is None:
            await authenticate(socket)
        else:
            await socket.receive()
            await socket.send_json(odd)
        await socket.receive()

    pushes = VirtualTime(REGULAR).run(pushes_from(handle, 10))
    assert [push.kind for push in pushes][:2] == ["lost", "alive"]
    assert "no valid answer to the authentication" in (pushes[0].why or "")


def test_an_invalid_list_of_streams_or_update_does_not_end_the_listener() -> None:
    """The first is lost and reconnected; the second wakes a poll, as every update does."""
    lists = iter([{"streams": 7}])

    async def handle(socket: web.WebSocketResponse) -> None:
        odd = next(lists, None)
        if odd is None:
            await authenticate(socket)
            await socket.send_json({"stream": "trade_updates", "data": {"event": ["fill"]}})
        else:
            await socket.receive()
            await socket.send_json({"stream": "authorization", "data": {"status": "authorized"}})
            await socket.receive()
            await socket.send_json({"stream": "listening", "data": odd})
        await socket.receive()

    pushes = VirtualTime(REGULAR).run(pushes_from(handle, 10))
    assert [push.kind for push in pushes][:3] == ["lost", "alive", "orders"]


def test_a_stream_that_refuses_to_open_shows_no_secret_of_its_address() -> None:
    """The library's message repeats the whole address."""

    async def refuse(socket: web.WebSocketResponse) -> None:
        raise AssertionError("no connection is accepted")

    pushes = VirtualTime(REGULAR).run(pushes_from(refuse, 1, path="/elsewhere?key=hunter2"))
    assert pushes[0].kind == "lost"
    assert "404" in (pushes[0].why or "")
    assert "hunter2" not in (pushes[0].why or "")
