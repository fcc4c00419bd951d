"""Bybit's private stream: what changed, and disconnection protection for a lost connection."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.wire.bybit import payloads as payloads
from tests.wire.server import KEY, Ask, messages

if TYPE_CHECKING:
    from tests.wire.bybit.venue import BybitWire


class BybitStreams:
    """All private streams of the account."""

    def __init__(self, venue: BybitWire) -> None:
        self._venue = venue
        self._protected: set[web.WebSocketResponse] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.topics: set[str] = set()
        """Every topic that was ever subscribed to."""
        self.mute = False
        """Send nothing more, not even a pong, and keep the connection."""

    @property
    def protected(self) -> int:
        """The number of connections that keep the disconnection protection from going off."""
        return len(self._protected)

    @property
    def is_guarding(self) -> bool:
        """Whether a connection is protected, or one was lost and the window has not ended."""
        waits = self._timer is not None and not self._timer.cancelled()
        return bool(self._protected) or (waits and self._timer.when() > asyncio.get_running_loop().time())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def serve(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        """Serve one stream until it is closed."""
        if ask.path != "/v5/private":
            await socket.close()
            return
        connection = _Connection(self, self._venue, socket)
        pusher = asyncio.ensure_future(connection.push_changes(updated))
        try:
            await messages(socket, connection.handle)
        finally:
            pusher.cancel()
            self._lost(socket)

    def protect(self, socket: web.WebSocketResponse) -> None:
        """Note that this connection has subscribed to `dcp.future`."""
        self._protected.add(socket)
        self.stop()

    def unprotect(self, socket: web.WebSocketResponse) -> None:
        """Note that the protection was given up: the loss of this connection has no effect any more."""
        self._protected.discard(socket)

    def _lost(self, socket: web.WebSocketResponse) -> None:
        if socket not in self._protected:
            return
        self._protected.discard(socket)
        window = self._venue.windows.get("DERIVATIVES")
        if window is not None and not self._protected:
            self._timer = asyncio.get_running_loop().call_later(window, self._cancel_all)

    def _cancel_all(self) -> None:
        for order in list(self._venue.exchange.orders.values()):
            self._venue.exchange.cancel(order.id)


class _Connection:
    def __init__(self, streams: BybitStreams, venue: BybitWire, socket: web.WebSocketResponse) -> None:
        self._streams = streams
        self._venue = venue
        self._socket = socket
        self._is_authenticated = False
        self._topics: set[str] = set()
        self._sent: dict[str, dict[str, str]] = {"order": self._orders(), "position": self._positions()}

    async def handle(self, message: dict[str, Any]) -> None:
        if self._streams.mute:
            return
        op, seen = message.get("op"), message.get("req_id", "")
        if op == "ping":
            await self._send({"req_id": seen, "op": "pong", "args": [str(self._venue.now_ms())], "conn_id": "c"})
        elif op == "auth":
            await self._send(self._authenticated(*message["args"]))
        elif op == "unsubscribe" and self._is_authenticated:
            self._topics -= set(message["args"])
            if "dcp.future" in message["args"]:
                self._streams.unprotect(self._socket)
            await self._send({"success": True, "ret_msg": "", "op": op, "conn_id": "c", "req_id": seen})
        elif op == "subscribe" and self._is_authenticated:
            self._topics |= set(message["args"])
            self._streams.topics |= set(message["args"])
            if "dcp.future" in message["args"]:
                self._streams.protect(self._socket)
            await self._send({"success": True, "ret_msg": "", "op": "subscribe", "conn_id": "c", "req_id": seen})
        else:
            text = f"error:request not authorized,op:{op}"
            await self._send({"success": False, "ret_msg": text, "op": op, "conn_id": "c", "req_id": seen})

    def _authenticated(self, key: str, expires: object, signature: str) -> dict[str, object]:
        fresh = float(str(expires)) > self._venue.now_ms()
        self._is_authenticated = key == KEY and fresh and signature == payloads.signed(f"GET/realtime{expires}")
        if self._is_authenticated:
            return {"success": True, "ret_msg": "", "op": "auth", "conn_id": "c"}
        code, text = (10003, "Invalid apikey") if key != KEY else (10004, "Params Error")
        return {"op": "auth", "success": False, "retCode": code, "retMsg": text, "connId": "c"}

    async def push_changes(self, updated: asyncio.Event) -> None:
        """Push what changed, each time something did."""
        while True:
            await updated.wait()
            updated.clear()
            if self._streams.mute:
                continue
            for topic, now in (("order", self._orders()), ("position", self._positions())):
                old = self._sent[topic]
                changed = [json.loads(row) for name, row in now.items() if old.get(name) != row]
                self._sent[topic] = now
                if changed and topic in self._topics:
                    await self._push(topic, changed)
            if "wallet" in self._topics:
                await self._push("wallet", [self._venue.wallet()])

    def _orders(self) -> dict[str, str]:
        of = self._venue.exchange.orders
        rows = {
            it.id: self._venue.routes.order_row(it) | {"updatedTime": "0", "createdTime": "0"} for it in of.values()
        }
        return {name: json.dumps(row | {"category": self._category(str(row["symbol"]))}) for name, row in rows.items()}

    def _positions(self) -> dict[str, str]:
        found = {}
        book = self._venue.book()
        for symbol, side in self._venue.exchange.held:
            of = payloads.listing(symbol)
            row = payloads.position(of, self._venue.exchange, book, (symbol, side), 0)
            row["entryPrice"] = row.pop("avgPrice")  # the stream's name of the field
            found[symbol + side] = json.dumps(row | {"category": of.category})
        return found

    def _category(self, name: str) -> str:
        return self._venue.listings[name].category

    async def _push(self, topic: str, rows: list[Any]) -> None:
        await self._send({"id": "1", "topic": topic, "creationTime": self._venue.now_ms(), "data": rows})

    async def _send(self, message: object) -> None:
        if not self._socket.closed:
            await self._socket.send_str(json.dumps(message))
