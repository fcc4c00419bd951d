"""MEXC's private contract stream: ccxt's WebSocket client against the venue's messages."""

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
from tests.wire.mexc.stream import CHANNELS, signature
from tests.wire.mexc.venue import MexcWire
from tests.wire.server import KEY, SECRET, WireVenue
from tests.wire.stream_listening import ListenedAccount, run_listened_account

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
D = Decimal


def venue(time: VirtualTime) -> WireVenue:
    """An account that is long 30 contracts of BTC and short 5 of ETH."""
    held = {(BTC, "long"): D(30), (ETH, "short"): D(5)}
    markets = [Market(it, step=D(1), minimum=D(1)) for it in (BTC, ETH)]
    server = MexcWire(Exchange(held, lambda: (time.elapsed, time.now()), markets=markets))  # type: ignore[arg-type] # sides
    server.sizes = {BTC: D("0.0001"), ETH: D("0.01")}
    return server


def play(scenario: Callable[[ListenedAccount], Awaitable[None]]) -> None:
    """Run a scenario on an account whose stream is listened to."""
    run_listened_account("mexc", venue, scenario)


def sale(name: str, price: str | None = None) -> OrderRequest:
    """A foreign order: ten contracts of BTC are sold, at market or at a price."""
    limited: dict[str, Any] = {} if price is None else {"type": "limit", "price": D(price)}
    return OrderRequest(name, BTC, "sell", "long", D(10), reduce_only=True, **limited)


def test_a_login_is_signed_as_documented() -> None:
    """Key and time are signed, in this order; the digest was made with openssl."""
    assert signature("mx0aBYs33eIilxBW5C", "1657186536762", "45d0b3c26f2644f19bfb98b07741b2f5") == (
        "bfc6b00fdc5841511f4e678cf12bb01f48c38c756b54e349ce9fe12439573dba"
    )


def test_foreign_orders_and_trades_wake_a_poll() -> None:
    """A trade, a resting order, its end, and a liquidation: each is pushed at once, and nothing else wakes a poll."""

    async def scenario(listened: ListenedAccount) -> None:
        exchange = listened.venue.exchange
        assert await listened.requests_poll(lambda: exchange.place(sale("theirs"), by="hand"))
        assert listened.view.state == "heard"
        assert sorted(listened.venue.subscribed) == sorted(CHANNELS)
        assert await listened.requests_poll(lambda: exchange.place(sale("resting", "120"), by="hand"))
        assert await listened.requests_poll(lambda: exchange.cancel(exchange.names["resting"]))
        assert await listened.requests_poll(lambda: exchange.take_away((ETH, "short"), D(1), "liquidation"))
        seen = await listened.poll()
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D(20), ETH: D(4)}
        assert listened.listener.alerts.texts == ()

    play(scenario)


def test_a_trade_is_pushed_as_order_and_as_balance() -> None:
    """ccxt gets no positions here: a change of one shows in its order and in the margin that it uses."""

    async def scenario(listened: ListenedAccount) -> None:
        pushes: list[Push] = []
        listener = asyncio.ensure_future(listened.account.listen(pushes.append))
        await listened.time.sleep(3.0)
        pushes.clear()
        listened.venue.exchange.place(sale("theirs"), by="hand")
        await listened.time.sleep(1.0)
        assert {it.kind for it in pushes} == {"orders", "balance"}
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)

    play(scenario)


def test_a_silent_stream_is_stale_and_polls_continue() -> None:
    """The connection stays and answers no ping: after a minute it is stale, and polls are as good as before."""

    async def scenario(listened: ListenedAccount) -> None:
        exchange = listened.venue.exchange
        assert await listened.requests_poll(lambda: exchange.trade((BTC, "long"), D(-10)))
        await listened.time.sleep(20.0)
        listened.venue.streams.mute = True
        await listened.time.sleep(STALE_AFTER - 30.0)
        assert listened.view.state == "heard"
        await listened.time.sleep(60.0)
        assert listened.view.state == "stale"
        (problem,) = listened.listener.alerts.texts
        assert "is unreliable: no sign of life for 60 s; until it delivers again" in problem
        assert not await listened.requests_poll(lambda: exchange.trade((ETH, "short"), D(-1)))
        seen = await listened.poll()
        assert (seen.quality, len(listened.venue.sockets)) == ("ok", 1)
        assert {it.symbol: it.contracts for it in seen.positions or ()} == {BTC: D(20), ETH: D(4)}

    play(scenario)


def test_a_closed_stream_is_lost_and_reconnected() -> None:
    """It logs in again: later changes wake a poll as before."""

    async def scenario(listened: ListenedAccount) -> None:
        exchange = listened.venue.exchange
        assert await listened.requests_poll(lambda: exchange.trade((BTC, "long"), D(-10)))
        for socket in list(listened.venue.sockets):
            await socket.close()
        await listened.time.sleep(0.5)
        assert listened.view.state == "lost"
        await listened.time.sleep(5.0)
        assert listened.view.state == "heard"
        assert sorted(listened.venue.subscribed) == sorted(CHANNELS)
        assert await listened.requests_poll(lambda: exchange.trade((BTC, "long"), D(-10)))
        (problem,) = listened.listener.alerts.texts
        assert "the stream of account main is unreliable" in problem

    play(scenario)


def test_a_refused_signature_is_reported_and_retried() -> None:
    """Meanwhile the stream never looks alive; once the venue accepts the signature, it delivers."""

    async def scenario(listened: ListenedAccount) -> None:
        streams = listened.venue.streams
        right, streams.secret = streams.secret, "ANOTHER"
        await listened.time.sleep(90.0)
        assert listened.view.state == "lost"
        (problem,) = listened.listener.alerts.texts
        assert "MEXC refuses a request on the private stream: signature validation failed" in problem
        assert set(streams.refused) == {"login"}
        assert (await listened.poll()).quality == "ok"
        streams.secret = right
        await listened.time.sleep(120.0)
        assert listened.view.state == "heard"
        assert await listened.requests_poll(lambda: listened.venue.exchange.trade((BTC, "long"), D(-10)))

    play(scenario)


def test_a_filter_limits_the_pushes() -> None:
    """Positions of one contract only; without a login there is no filter."""
    time = VirtualTime()

    async def received(socket: Any) -> list[dict[str, Any]]:
        found = []
        while True:
            try:
                found.append(json.loads((await socket.receive(timeout=1.0)).data))
            except TimeoutError:
                return found

    async def main() -> None:
        server: Any = venue(time)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.address_ws}/edge") as socket:
                wanted = {"filters": [{"filter": "position", "rules": ["ETH_USDT"]}]}
                await socket.send_json({"method": "personal.filter", "param": wanted})
                at = str(server.now_ms())
                login = {"apiKey": KEY, "reqTime": at, "signature": signature(KEY, at, SECRET)}
                await socket.send_json({"subscribe": False, "method": "login", "param": login})
                await socket.send_json({"method": "ping"})
                await socket.send_json({"method": "personal.filter", "param": wanted})
                answers = ["rs.error", "rs.login", "pong", "rs.personal.filter"]
                assert [it["channel"] for it in await received(socket)] == answers
                server.exchange.trade((BTC, "long"), D(-10))
                server.exchange.trade((ETH, "short"), D(-5))
                (push,) = await received(socket)
                assert push["channel"] == "push.personal.position"
                row = {name: push["data"][name] for name in ("symbol", "holdVol", "positionType", "state")}
                assert row == {"symbol": "ETH_USDT", "holdVol": 0, "positionType": 2, "state": 3}
        finally:
            await server.stop()

    time.run(main())
