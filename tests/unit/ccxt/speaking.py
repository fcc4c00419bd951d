"""A venue of typed answers with a WebSocket of one path: what is said on it is up to who inherits, and to the test."""

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


class Speaking(WireVenue):
    """`path`: of the stream. `subscribed`: what is heard on any connection."""

    path = ""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(Exchange({}, lambda: (time.monotonic(), time.now())))
        self.subscribed: list[str] = []
        self._silent = asyncio.Event()

    def fall_silent(self) -> None:
        """Say nothing any more, not even to a ping, and keep the connections."""
        self._silent.set()

    async def say(self, message: Mapping[str, Any]) -> None:
        """To every connection."""
        for socket in list(self.sockets):
            await socket.send_str(json.dumps(message))

    def told(self, message: Mapping[str, Any]) -> None:
        """As `say`, a moment later."""
        asyncio.ensure_future(self.say(message))  # noqa: RUF006 - it is over at once

    async def hear(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        """What a client says."""
        raise NotImplementedError

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, told: asyncio.Event) -> None:
        if ask.path != self.path:
            self.refusals.append(f"a stream of {ask.path}")
            await socket.close()
            return
        listening = asyncio.ensure_future(messages(socket, lambda message: self.hear(socket, message)))
        silenced = asyncio.ensure_future(self._silent.wait())
        try:
            await asyncio.wait({listening, silenced}, return_when=asyncio.FIRST_COMPLETED)
            if silenced.done():
                listening.cancel()
                await asyncio.Event().wait()
        finally:
            self.subscribed.clear()
            listening.cancel()
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
