"""MEXC's private contract stream, heard by the real client: ccxt's WebSocket side against the venue's words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import aiohttp

from killswitch.accounts.poll.push_listener import STALE_AFTER
from killswitch.model.venue import OrderRequest, Push
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.heard import Heard, listened_to
from tests.wire.mexc.stream import CHANNELS, signature
from tests.wire.mexc.venue import MexcWire
from tests.wire.server import KEY, SECRET, WireVenue

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
D = Decimal


def venue(time: VirtualTime) -> WireVenue:
    """An account that is long 30 contracts of BTC and short 5 of ETH."""
    held = {(BTC, "long"): D(30), (ETH, "short"): D(5)}
    markets = [Market(it, step=D(1), minimum=D(1)) for it in (BTC, ETH)]
    made = MexcWire(Exchange(held, lambda: (time.elapsed, time.now()), markets=markets))  # type: ignore[arg-type] # sides
    made.sizes = {BTC: D("0.0001"), ETH: D("0.01")}
    return made


def told(story: Callable[[Heard], Awaitable[None]]) -> None:
    """Tell it with an account whose stream is listened to."""
    listened_to("mexc", venue, story)


def sale(name: str, price: str | None = None) -> OrderRequest:
    """What another hand orders: ten contracts of BTC are sold, at market or for a price."""
    limited: dict[str, Any] = {} if price is None else {"type": "limit", "price": D(price)}
    return OrderRequest(name, BTC, "sell", "long", D(10), reduce_only=True, **limited)


def test_a_login_is_signed_as_the_documents_say() -> None:
    """Key and time are signed, in this order; the digest was made with openssl."""
    assert signature("mx0aBYs33eIilxBW5C", "1657186536762", "45d0b3c26f2644f19bfb98b07741b2f5") == (
        "bfc6b00fdc5841511f4e678cf12bb01f48c38c756b54e349ce9fe12439573dba"
    )


def test_what_another_hand_does_wakes_a_reading() -> None:
    """A trade, an order that rests, its end, and a liquidation: each is heard at once, and nothing else wakes."""

    async def story(here: Heard) -> None:
        exchange = here.venue.exchange
        assert await here.wakes(lambda: exchange.place(sale("theirs"), by="hand"))
        assert here.view.state == "heard"
        assert sorted(here.venue.subscribed) == sorted(CHANNELS)
        assert await here.wakes(lambda: exchange.place(sale("resting", "120"), by="hand"))
        assert await here.wakes(lambda: exchange.cancel(exchange.names["resting"]))
        assert await here.wakes(lambda: exchange.take_away((ETH, "short"), D(1), "liquidation"))
        seen = await here.poll()
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D(20), ETH: D(4)}
        assert here.listening.problems == ()

    told(story)


def test_a_trade_is_heard_as_order_and_as_balance() -> None:
    """ccxt hears no positions here: what changes one is heard by its order and by the margin that it takes."""

    async def story(here: Heard) -> None:
        heard: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(heard.append))
        await here.time.sleep(3.0)
        heard.clear()
        here.venue.exchange.place(sale("theirs"), by="hand")
        await here.time.sleep(1.0)
        assert {it.kind for it in heard} == {"orders", "balance"}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    told(story)


def test_a_stream_that_falls_silent_is_told_as_stale_and_the_polls_go_on() -> None:
    """The connection stays and answers no ping: after a minute it is stale, and what is read is as good as before."""

    async def story(here: Heard) -> None:
        exchange = here.venue.exchange
        assert await here.wakes(lambda: exchange.trade((BTC, "long"), D(-10)))
        await here.time.sleep(20.0)
        here.venue.streams.mute = True
        await here.time.sleep(STALE_AFTER - 30.0)
        assert here.view.state == "heard"
        await here.time.sleep(60.0)
        assert here.view.state == "stale"
        (problem,) = here.listening.problems
        assert "is unreliable: no sign of life for 60 s; until it delivers again" in problem
        assert not await here.wakes(lambda: exchange.trade((ETH, "short"), D(-1)))
        seen = await here.poll()
        assert (seen.quality, len(here.venue.sockets)) == ("ok", 1)
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D(20), ETH: D(4)}

    told(story)


def test_a_stream_that_is_cut_is_told_and_comes_back() -> None:
    """It logs in again: what happens after that wakes a reading as before."""

    async def story(here: Heard) -> None:
        exchange = here.venue.exchange
        assert await here.wakes(lambda: exchange.trade((BTC, "long"), D(-10)))
        for socket in list(here.venue.sockets):
            await socket.close()
        await here.time.sleep(0.5)
        assert here.view.state == "lost"
        await here.time.sleep(5.0)
        assert here.view.state == "heard"
        assert sorted(here.venue.subscribed) == sorted(CHANNELS)
        assert await here.wakes(lambda: exchange.trade((BTC, "long"), D(-10)))
        (problem,) = here.listening.problems
        assert "the stream of account main is unreliable" in problem

    told(story)


def test_a_signature_that_the_venue_refuses_is_said_and_tried_again() -> None:
    """It never looks alive meanwhile; as soon as the venue takes the signature, the stream is heard."""

    async def story(here: Heard) -> None:
        streams = here.venue.streams
        right, streams.secret = streams.secret, "ANOTHER"
        await here.time.sleep(90.0)
        assert here.view.state == "lost"
        (problem,) = here.listening.problems
        assert "MEXC refuses a request on the private stream: signature validation failed" in problem
        assert set(streams.refused) == {"login"}
        assert (await here.poll()).quality == "ok"
        streams.secret = right
        await here.time.sleep(120.0)
        assert here.view.state == "heard"
        assert await here.wakes(lambda: here.venue.exchange.trade((BTC, "long"), D(-10)))

    told(story)


def test_a_filter_leaves_what_it_names() -> None:
    """Positions of one contract only; without a login there is no filter."""
    time = VirtualTime()

    async def said(socket: Any) -> list[dict[str, Any]]:
        found = []
        while True:
            try:
                found.append(json.loads((await socket.receive(timeout=1.0)).data))
            except TimeoutError:
                return found

    async def course() -> None:
        made: Any = venue(time)
        await made.start()
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{made.address_ws}/edge") as socket:
                wanted = {"filters": [{"filter": "position", "rules": ["ETH_USDT"]}]}
                await socket.send_json({"method": "personal.filter", "param": wanted})
                at = str(made.now_ms())
                login = {"apiKey": KEY, "reqTime": at, "signature": signature(KEY, at, SECRET)}
                await socket.send_json({"subscribe": False, "method": "login", "param": login})
                await socket.send_json({"method": "ping"})
                await socket.send_json({"method": "personal.filter", "param": wanted})
                answers = ["rs.error", "rs.login", "pong", "rs.personal.filter"]
                assert [it["channel"] for it in await said(socket)] == answers
                made.exchange.trade((BTC, "long"), D(-10))
                made.exchange.trade((ETH, "short"), D(-5))
                (push,) = await said(socket)
                assert push["channel"] == "push.personal.position"
                told = {name: push["data"][name] for name in ("symbol", "holdVol", "positionType", "state")}
                assert told == {"symbol": "ETH_USDT", "holdVol": 0, "positionType": 2, "state": 3}
        finally:
            await made.stop()

    time.run(course())
