"""Deribit takes orders by GET, and the same label twice: nothing may send one again by itself."""

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


class Closing:
    """A venue that does what it is told, and closes the connection instead of answering, with everything that acts."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.kept = 0
        """Questions that came over a connection that had answered one before."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = False
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode().partition("?")[0]
                if path.endswith(ACTING):
                    self.kept += answered
                    self.done.append(path)
                    return
                body = json.dumps({"jsonrpc": "2.0", "result": _said(path)}).encode()
                kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                writer.write(b"HTTP/1.1 200 OK\r\n" + kind + body)
                await writer.drain()
                answered = True
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()
            await writer.wait_closed()


def _said(path: str) -> object:
    return INSTRUMENTS if path.endswith("get_instruments") else []


def done(act: Callable[[Any], Awaitable[object]]) -> Closing:
    """What the venue was told to do, when every answer to `act` got lost."""

    async def main() -> Closing:
        venue = Closing()
        server = await asyncio.start_server(venue.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        keys = {"key": KEY, "secret": SECRET}
        made: Any = adapter(
            AccountSpec("main", "ccxt", "swap", "BTC", address, {"timeout": 5}, keys, exchange="deribit")
        )
        try:
            with pytest.raises(FateUnknownError):
                await act(made)
        finally:
            await made.close()
            server.close()
            await server.wait_closed()
        return venue

    return asyncio.run(main())


def test_an_order_whose_connection_breaks_is_sent_once() -> None:
    """On a connection that was used before, an HTTP client would by itself ask a GET again: the order is done once."""
    venue = done(lambda made: made.submit(order()))
    assert (venue.done, venue.kept) == (["/api/v2/private/sell"], 1)


def test_a_cancel_whose_connection_breaks_is_sent_once_too() -> None:
    """Whether the order is gone is asked, not tried again blindly."""
    venue = done(lambda made: made.cancel(PERPETUAL, "BTC-1"))
    assert (venue.done, venue.kept) == (["/api/v2/private/cancel"], 1)
