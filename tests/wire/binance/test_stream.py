"""The reported reason when Binance's user data stream fails: what failed, and never the key that opens it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from aiohttp import web

from killswitch.model.venue import Push
from tests.faults.exchange import Exchange, Market
from tests.virtual_time import VirtualTime
from tests.wire.binance.venue import BinanceWire
from tests.wire.server import LISTEN_KEY, Ask, WireVenue
from tests.wire.stream_listening import ListenedAccount, run_listened_account

BTC = "BTC/USDT:USDT"


class RefusingStream(BinanceWire):
    """Issues listen keys, and refuses every connection with one."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if LISTEN_KEY in request.path_qs:
            return web.Response(status=503, text="no streams today")
        return await super()._handle(request)


def venue(time: VirtualTime) -> WireVenue:
    """An account that is long 2 BTC."""
    return BinanceWire(Exchange({(BTC, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()), markets=[Market(BTC)]))


def refusing_venue(time: VirtualTime) -> WireVenue:
    """The same, without a stream."""
    return RefusingStream(
        Exchange({(BTC, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()), markets=[Market(BTC)])
    )


async def close_connections(listened: ListenedAccount) -> None:
    """The venue closes the connection."""
    for socket in list(listened.venue.sockets):
        await socket.close()


async def stop_venue(listened: ListenedAccount) -> None:
    """The venue stops."""
    await listened.venue.stop()


async def do_nothing(listened: ListenedAccount) -> None:
    """Nothing more happens: no connection was accepted."""


@pytest.mark.parametrize(
    ("server", "fail", "expected"),
    [
        (venue, close_connections, "Connection closed by remote server"),
        (venue, stop_venue, "the venue's stream refused the connection"),
        (refusing_venue, do_nothing, "503, message='Invalid response status', url='ws://127.0.0.1:"),
    ],
)
def test_the_reason_names_the_failure_and_not_the_last_good_answer(
    server: Callable[[VirtualTime], WireVenue], fail: Callable[[ListenedAccount], Awaitable[None]], expected: str
) -> None:
    """The stream's key was in the last answer before the failure, and is in the stream's address."""

    async def scenario(listened: ListenedAccount) -> None:
        pushes: list[Push] = []
        listener = asyncio.ensure_future(listened.account.listen(pushes.append))
        await listened.time.sleep(3.0)
        await fail(listened)
        await listened.time.sleep(30.0)
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        lost = [it.why or "" for it in pushes if it.kind == "lost"]
        assert any(expected in it for it in lost), lost
        assert not [it for it in (*lost, *listened.listener.alerts.texts) if LISTEN_KEY in it or "200" in it]

    run_listened_account("binanceusdm", server, scenario)


def test_the_venue_issues_the_key_that_the_test_searches_for() -> None:
    """Otherwise the test above would prove nothing."""

    async def scenario(listened: ListenedAccount) -> None:
        await listened.time.sleep(3.0)
        assert listened.venue.listen_keys == {LISTEN_KEY}
        assert any(isinstance(it.ask, Ask) and it.ask.path.endswith("/listenKey") for it in listened.venue.seen)

    run_listened_account("binanceusdm", venue, scenario)
