"""Alpaca's stream `trade_updates`, on loopback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.faults.exchange import ZERO
from tests.wire.alpaca.payloads import stamp
from tests.wire.server import KEY, SECRET

if TYPE_CHECKING:
    from tests.wire.alpaca.venue import AlpacaWire


async def serve(wire: AlpacaWire, socket: web.WebSocketResponse, updated: asyncio.Event) -> None:
    """Authenticate a client, and push every change of an order until it disconnects."""
    if not await _authenticated(wire, socket):
        return
    seen = {it.id: (it.state, it.filled) for it in wire.exchange.orders.values()}
    pump = asyncio.create_task(_push_changes(wire, socket, updated, seen))
    wire.subscribed.append("trade_updates")
    try:
        if wire.mute:  # not even a pong
            await asyncio.Event().wait()
        async for _ in socket:
            pass
    finally:
        wire.subscribed.remove("trade_updates")
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _authenticated(wire: AlpacaWire, socket: web.WebSocketResponse) -> bool:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        request = json.loads(message.data)
        if request["action"] == "authenticate":
            keys = request["data"]
            good = keys == {"key_id": KEY, "secret_key": SECRET} and not wire.revoked
            status = {"status": "authorized" if good else "unauthorized", "action": "authenticate"}
            await _send(socket, {"stream": "authorization", "data": status})
            if not good:
                return False
        elif request["action"] == "listen":
            await _send(socket, {"stream": "listening", "data": {"streams": request["data"]["streams"]}})
            return True
    return False


async def _push_changes(
    wire: AlpacaWire, socket: web.WebSocketResponse, updated: asyncio.Event, seen: dict[str, Any]
) -> None:
    while True:
        await updated.wait()
        updated.clear()
        for it in list(wire.exchange.orders.values()):
            now = (it.state, it.filled)
            if seen.get(it.id) == now or wire.mute:
                continue
            before = seen.get(it.id, ("", ZERO))
            seen[it.id] = now
            event = {"filled": "fill", "canceled": "canceled", "expired": "expired"}.get(it.state, "new")
            if it.state == "open" and it.filled != before[1]:
                event = "partial_fill"
            data = {"event": event, "timestamp": stamp(wire.now()[1]), "order": wire.row_of(it)}
            await _send(socket, {"stream": "trade_updates", "data": data})


async def _send(socket: web.WebSocketResponse, message: object) -> None:
    """Send a binary frame, as Alpaca does for paper accounts."""
    await socket.send_bytes(json.dumps(message).encode())
