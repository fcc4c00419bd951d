"""A request is sent once, whatever happens to its connection: no layer below the adapter repeats it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from killswitch.model.venue import AccountSpec, FateUnknownError, OrderRequest, VenueAdapter, VenueDownError, VenueError
from killswitch_alpaca import adapter as alpaca
from killswitch_ccxt.client import Client
from killswitch_ccxt.venues import dialect_of
from killswitch_paper.client import HttpVenue

KEYS = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}


async def _arrived(
    connect: Callable[[str], Any], *requests: Callable[[Any], Awaitable[object]], raises: type[VenueError]
) -> list[str]:
    """The methods that a venue receives which answers the first request, and hangs up after every later one."""
    arrived: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        arrived.append(request.method)
        await request.read()
        if len(arrived) > 1:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        return web.json_response({"jsonrpc": "2.0", "result": 1})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue = connect(f"http://127.0.0.1:{runner.addresses[0][1]}")
    first, second = requests
    try:
        with suppress(VenueError):  # the second one uses the connection that this one has opened
            await first(venue)
        with pytest.raises(raises):
            await second(venue)
    finally:
        await venue.close()
        await runner.cleanup()
    return arrived


def test_an_order_sent_by_get_is_not_repeated_when_its_connection_breaks() -> None:
    """The venue receives it once and hangs up: its status is unknown."""

    def connect(address: str) -> Client:
        return Client(
            AccountSpec("main", "ccxt", "swap", "USD", address, {}, KEYS, exchange="deribit"), dialect_of("deribit")
        )

    arrived = asyncio.run(
        _arrived(
            connect,
            lambda client: client.call("publicGetGetTime"),
            lambda client: client.call(
                "privateGetBuy", {"instrument_name": "BTC-PERPETUAL", "amount": 10}, changes=True
            ),
            raises=FateUnknownError,
        )
    )
    assert arrived == ["GET", "GET"]


def _alpaca(address: str) -> VenueAdapter:
    return alpaca(AccountSpec("main", "alpaca", "equity", "USD", address, {}, KEYS))


def _paper(address: str) -> VenueAdapter:
    return HttpVenue(AccountSpec("main", "paper", "swap", "USDT", address, {}, {}), 5.0)


SALE = OrderRequest("ks1", "BTC/USD", "sell", "long", Decimal(1), reduce_only=False)


@pytest.mark.parametrize("connect", [_alpaca, _paper])
@pytest.mark.parametrize(
    ("request_of", "method", "error"),
    [
        (lambda venue: venue.submit(SALE), "POST", FateUnknownError),
        (lambda venue: venue.cancel("BTC/USD", "7"), "DELETE", FateUnknownError),
        (lambda venue: venue.find_order("BTC/USD", "ks1"), "GET", VenueDownError),
    ],
    ids=["order", "cancel", "query"],
)
def test_a_request_is_not_repeated_when_its_connection_breaks(
    connect: Callable[[str], VenueAdapter],
    request_of: Callable[[VenueAdapter], Awaitable[object]],
    method: str,
    error: type[VenueError],
) -> None:
    """aiohttp would send a cancel and a query again, and a cancel that was carried out would be refused."""
    arrived = asyncio.run(_arrived(connect, lambda venue: venue.open_orders(), request_of, raises=error))
    assert arrived == ["GET", method]
