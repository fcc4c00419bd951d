"""Deribit accepts orders by GET, and the same label twice: no component may resend one automatically."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from killswitch.model.venue import AccountSpec, FateUnknownError
from killswitch_ccxt import adapter
from tests.unit.ccxt.venues.test_deribit import INSTRUMENTS, PERPETUAL, order
from tests.wire.server import KEY, SECRET

ACTING = ("/private/buy", "/private/sell", "/private/cancel")


class VenueThatHangsUp:
    """A venue that executes orders and cancels, and closes the connection instead of answering them."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.on_reused_connections = 0
        """Requests on a connection that had already answered one."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = False
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode().partition("?")[0]
                if path.endswith(ACTING):
                    self.on_reused_connections += answered
                    self.executed.append(path)
                    return
                body = json.dumps({"jsonrpc": "2.0", "result": _result_of(path)}).encode()
                kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                writer.write(b"HTTP/1.1 200 OK\r\n" + kind + body)
                await writer.drain()
                answered = True
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()
            await writer.wait_closed()


def _result_of(path: str) -> object:
    return INSTRUMENTS if path.endswith("get_instruments") else []


def run_with_lost_answers(act: Callable[[Any], Awaitable[object]]) -> VenueThatHangsUp:
    """The venue with the requests that it executed, after every answer to `act` was lost."""

    async def main() -> VenueThatHangsUp:
        venue = VenueThatHangsUp()
        server = await asyncio.start_server(venue.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        keys = {"key": KEY, "secret": SECRET}
        deribit: Any = adapter(
            AccountSpec("main", "ccxt", "swap", "BTC", address, {"timeout": 5}, keys, exchange="deribit")
        )
        try:
            with pytest.raises(FateUnknownError):
                await act(deribit)
        finally:
            await deribit.close()
            server.close()
            await server.wait_closed()
        return venue

    return asyncio.run(main())


def test_an_order_whose_connection_breaks_is_sent_once() -> None:
    """On a reused connection an HTTP client would retry a GET automatically: the order is executed once."""
    venue = run_with_lost_answers(lambda deribit: deribit.submit(order()))
    assert (venue.executed, venue.on_reused_connections) == (["/api/v2/private/sell"], 1)


def test_a_cancel_whose_connection_breaks_is_sent_once() -> None:
    """Whether the order is gone is queried, not retried blindly."""
    venue = run_with_lost_answers(lambda deribit: deribit.cancel(PERPETUAL, "BTC-1"))
    assert (venue.executed, venue.on_reused_connections) == (["/api/v2/private/cancel"], 1)
