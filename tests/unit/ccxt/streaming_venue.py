"""A venue of typed answers with one WebSocket path; subclasses and tests decide what is sent on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from killswitch.model.venue import Call
from tests.faults.exchange import Exchange
from tests.virtual_time import VirtualTime
from tests.wire.server import Ask, Reply, WireVenue, messages


class StreamingVenue(WireVenue):
    """`path`: of the stream. `subscribed`: the subscriptions of all connections."""

    path = ""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(Exchange({}, lambda: (time.monotonic(), time.now())))
        self.subscribed: list[str] = []
        self._is_silenced = asyncio.Event()

    def fall_silent(self) -> None:
        """Send nothing any more, not even an answer to a ping, and keep the connections."""
        self._is_silenced.set()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message on every connection."""
        for socket in list(self.sockets):
            await socket.send_str(json.dumps(message))

    def send_soon(self, message: Mapping[str, Any]) -> None:
        """Send as `send` does, a moment later."""
        asyncio.ensure_future(self.send(message))  # noqa: RUF006 - it is over at once

    async def receive(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        """Process a message of a client."""
        raise NotImplementedError

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, told: asyncio.Event) -> None:
        if ask.path != self.path:
            self.refusals.append(f"a stream of {ask.path}")
            await socket.close()
            return
        receiving = asyncio.ensure_future(messages(socket, lambda message: self.receive(socket, message)))
        silenced = asyncio.ensure_future(self._is_silenced.wait())
        try:
            await asyncio.wait({receiving, silenced}, return_when=asyncio.FIRST_COMPLETED)
            if silenced.done():
                receiving.cancel()
                await asyncio.Event().wait()
        finally:
            self.subscribed.clear()
            receiving.cancel()
            silenced.cancel()

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        return None

    def check(self, ask: Ask) -> None: ...

    def refused(self, error: Exception) -> Reply:
        raise error

    def limited(self, wait: float) -> Reply:
        raise NotImplementedError

    def down(self) -> Reply:
        raise NotImplementedError
