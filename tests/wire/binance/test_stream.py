"""What is told of Binance's user data stream when it fails: what failed, and never the key that opens it."""

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
from tests.wire.heard import Heard, listened_to
from tests.wire.server import LISTEN_KEY, Ask, WireVenue

BTC = "BTC/USDT:USDT"


class Shut(BinanceWire):
    """Gives out listen keys, and lets nobody in with one."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if LISTEN_KEY in request.path_qs:
            return web.Response(status=503, text="no streams today")
        return await super()._handle(request)


def venue(time: VirtualTime) -> WireVenue:
    """An account that is long 2 BTC."""
    return BinanceWire(Exchange({(BTC, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()), markets=[Market(BTC)]))


def shut(time: VirtualTime) -> WireVenue:
    """The same, without a stream."""
    return Shut(Exchange({(BTC, "long"): Decimal(2)}, lambda: (time.elapsed, time.now()), markets=[Market(BTC)]))


async def cut(here: Heard) -> None:
    """The venue closes the connection."""
    for socket in list(here.venue.sockets):
        await socket.close()


async def gone(here: Heard) -> None:
    """The venue is no more."""
    await here.venue.stop()


async def never(here: Heard) -> None:
    """Nothing more happens: it was never let in."""


@pytest.mark.parametrize(
    ("made", "happens", "told"),
    [
        (venue, cut, "Connection closed by remote server"),
        (venue, gone, "the venue's stream refused the connection"),
        (shut, never, "503, message='Invalid response status', url='ws://127.0.0.1:"),
    ],
)
def test_the_reason_is_what_failed_and_not_the_answer_that_was_good(
    made: Callable[[VirtualTime], WireVenue], happens: Callable[[Heard], Awaitable[None]], told: str
) -> None:
    """The key of the stream was in the last answer before it failed, and is in the stream's address."""

    async def story(here: Heard) -> None:
        heard: list[Push] = []
        listening = asyncio.ensure_future(here.account.listen(heard.append))
        await here.time.sleep(3.0)
        await happens(here)
        await here.time.sleep(30.0)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        lost = [it.why or "" for it in heard if it.kind == "lost"]
        assert any(told in it for it in lost), lost
        assert not [it for it in (*lost, *here.listening.problems) if LISTEN_KEY in it or "200" in it]

    listened_to("binanceusdm", made, story)


def test_the_venue_gives_out_the_key_that_is_looked_for() -> None:
    """Or the test above would prove nothing."""

    async def story(here: Heard) -> None:
        await here.time.sleep(3.0)
        assert here.venue.listen_keys == {LISTEN_KEY}
        assert any(isinstance(it.ask, Ask) and it.ask.path.endswith("/listenKey") for it in here.venue.seen)

    listened_to("binanceusdm", venue, story)
