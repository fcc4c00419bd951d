"""An order is sent once, whatever happens to its connection: no layer below the adapter repeats it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from killswitch.model.venue import AccountSpec, FateUnknownError
from killswitch_ccxt.client import Client
from killswitch_ccxt.venues import dialect_of


def test_an_order_sent_by_get_is_not_repeated_when_its_connection_breaks() -> None:
    """The venue receives it once and hangs up: its status is unknown."""
    arrived: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        arrived.append(request.path)
        if request.path.endswith("/private/buy"):
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        return web.json_response({"jsonrpc": "2.0", "result": 1})

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        keys = {"key": "KEY-PLANTED", "secret": "SECRET-PLANTED"}
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        spec = AccountSpec("main", "ccxt", "swap", "USD", address, {}, keys, exchange="deribit")
        client = Client(spec, dialect_of("deribit"))
        try:
            await client.call("publicGetGetTime")  # the order then uses an open connection
            with pytest.raises(FateUnknownError):
                await client.call("privateGetBuy", {"instrument_name": "BTC-PERPETUAL", "amount": 10}, changes=True)
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(main())
    assert arrived == ["/api/v2/public/get_time", "/api/v2/private/buy"]
