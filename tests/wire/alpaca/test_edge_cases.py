"""What comes at the wrong moment, at Alpaca on loopback: pushes while reading, closes at once, pages cut anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from killswitch.model.snapshot import Order
from killswitch.model.venue import MalformedAnswerError, Push
from killswitch_alpaca import stream
from killswitch_alpaca.family import family
from killswitch_alpaca.settings import read_settings
from killswitch_alpaca.venue import AlpacaVenue
from tests.virtual_time import VirtualTime
from tests.wire.alpaca.scene import AAPL, BTC, REGULAR, run, sale, spec_of
from tests.wire.alpaca.venue import AlpacaWire

pytest.importorskip("alpaca")
D = Decimal
Speak = Callable[[web.WebSocketResponse], Awaitable[None]]


def test_an_order_that_appears_while_orders_are_read_is_told_with_the_next_snapshot() -> None:
    """Its push comes between the answer and our having read it: it is not taken for known."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        await venue.snapshot()
        reading = venue._reader
        ask = reading.queries.orders

        async def slowly(prices: Any) -> tuple[Order, ...]:
            found = await ask(prices)
            wire.exchange.rest(AAPL, "sell", D(2), type="limit", price=D(130))
            reading.touch(fills=False)
            return found

        reading.queries.orders = slowly  # type: ignore[method-assign] # as if the answer took its time
        await asyncio.sleep(13)
        assert (await venue.snapshot()).orders == ()
        reading.queries.orders = ask  # type: ignore[method-assign] # and no more
        await asyncio.sleep(1)
        assert len((await venue.snapshot()).orders or ()) == 1

    run(case)


def test_forty_orders_at_once_ask_for_the_clock_once() -> None:
    """The clock is a minute old; one that is called off keeps none of the others from the answer."""

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


def test_orders_of_one_moment_at_the_edge_of_a_page_are_not_lost() -> None:
    """Of 510 orders, the 495th to the 505th were placed at one moment: the page ends among them."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for number in range(510):
            order = wire.exchange.rest(AAPL, "buy", D(1), type="limit", price=D(50))
            wire.placed_at[order] = REGULAR + timedelta(seconds=max(number - 505, min(number - 495, 0)))
        assert len(await venue.open_orders()) == 510

    run(case)


def test_a_list_of_orders_that_cannot_be_followed_is_unknown() -> None:
    """601 orders of one moment: a full page brings nothing new, and no part of a list is told as the whole."""

    async def case(wire: AlpacaWire, venue: AlpacaVenue) -> None:
        for _ in range(601):
            wire.exchange.rest(AAPL, "sell", D("0.001"), type="limit", price=D(130))
        with pytest.raises(MalformedAnswerError, match="cannot be read beyond 500"):
            await venue.open_orders()
        seen = await venue.snapshot()
        assert seen.orders is None
        assert "cannot be read beyond" in (seen.reason or "")

    run(case)


def test_bars_of_stocks_are_those_that_were_traded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not adjusted: bars that are fetched before and after a split would not fit each other."""

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


async def hear(speak: Speak, seconds: float, path: str = "/stream") -> list[Push]:
    """What is heard in that time of a stream that lets nobody in by itself, but speaks so to each who comes."""

    async def serve(asked: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(asked)
        await speak(socket)
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
    heard: list[Push] = []
    try:
        async with asyncio.timeout(seconds):
            await stream.listen(settings, heard.append, lambda *, fills: None)
    except TimeoutError:
        return heard
    finally:
        await runner.cleanup()
    raise AssertionError("it listens no more")


async def let_in(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.send_json({"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}})
    await socket.receive()
    await socket.send_json({"stream": "listening", "data": {"streams": ["trade_updates"]}})


def test_every_frame_is_a_sign_of_life() -> None:
    """A server that pings every 5 s is never asked for one, and is alive each time; so is one that says else."""

    async def speak(socket: web.WebSocketResponse) -> None:
        await let_in(socket)
        for number in range(10):
            await asyncio.sleep(5)
            if number % 2:
                await socket.ping(b"x")
            else:
                await socket.send_json({"stream": "news", "data": None})

    heard = VirtualTime(REGULAR).run(hear(speak, 46))
    assert [push.kind for push in heard] == ["alive"] * 10


WELCOMES = (
    {"stream": "authorization", "data": None}, {"stream": "authorization", "data": ["authorized"]},
    {"stream": "authorization", "data": {"status": 7}}, {"stream": "listening"}, ["authorized"], 7,
)  # fmt: skip


@pytest.mark.parametrize("welcome", WELCOMES, ids=[json.dumps(each) for each in WELCOMES])
def test_an_odd_welcome_is_a_stream_that_is_lost_and_connected_anew(welcome: object) -> None:
    """It says nothing about the keys, and the next one may be as it should."""
    welcomes = iter([welcome])

    async def speak(socket: web.WebSocketResponse) -> None:
        odd = next(welcomes, None)
        if odd is None:
            await let_in(socket)
        else:
            await socket.receive()
            await socket.send_json(odd)
        await socket.receive()

    heard = VirtualTime(REGULAR).run(hear(speak, 10))
    assert [push.kind for push in heard][:2] == ["lost", "alive"]
    assert "no valid answer to the authentication" in (heard[0].why or "")


def test_an_odd_list_of_streams_and_an_odd_update_end_nothing() -> None:
    """The first is lost and connected anew; the second wakes a reading, as every update does."""
    lists = iter([{"streams": 7}])

    async def speak(socket: web.WebSocketResponse) -> None:
        odd = next(lists, None)
        if odd is None:
            await let_in(socket)
            await socket.send_json({"stream": "trade_updates", "data": {"event": ["fill"]}})
        else:
            await socket.receive()
            await socket.send_json({"stream": "authorization", "data": {"status": "authorized"}})
            await socket.receive()
            await socket.send_json({"stream": "listening", "data": odd})
        await socket.receive()

    heard = VirtualTime(REGULAR).run(hear(speak, 10))
    assert [push.kind for push in heard][:3] == ["lost", "alive", "orders"]


def test_a_stream_that_refuses_to_open_shows_no_secret_of_its_address() -> None:
    """The words of the library repeat the whole address."""

    async def refuse(socket: web.WebSocketResponse) -> None:
        raise AssertionError("nobody gets in")

    heard = VirtualTime(REGULAR).run(hear(refuse, 1, path="/elsewhere?key=hunter2"))
    assert heard[0].kind == "lost"
    assert "404" in (heard[0].why or "")
    assert "hunter2" not in (heard[0].why or "")
