"""Alpaca's stream `trade_updates`, on loopback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.faults.exchange import ZERO
from tests.wire.alpaca.rows import stamp
from tests.wire.server import KEY, SECRET

if TYPE_CHECKING:
    from tests.wire.alpaca.venue import AlpacaWire


async def speak(wire: AlpacaWire, socket: web.WebSocketResponse, told: asyncio.Event) -> None:
    """Let a client in, and tell it of every order that moves, until it leaves."""
    if not await _entered(wire, socket):
        return
    seen = {it.id: (it.state, it.filled) for it in wire.exchange.orders.values()}
    pump = asyncio.create_task(_pump(wire, socket, told, seen))
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


async def _entered(wire: AlpacaWire, socket: web.WebSocketResponse) -> bool:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        said = json.loads(message.data)
        if said["action"] == "authenticate":
            keys = said["data"]
            good = keys == {"key_id": KEY, "secret_key": SECRET} and not wire.revoked
            status = {"status": "authorized" if good else "unauthorized", "action": "authenticate"}
            await _send(socket, {"stream": "authorization", "data": status})
            if not good:
                return False
        elif said["action"] == "listen":
            await _send(socket, {"stream": "listening", "data": {"streams": said["data"]["streams"]}})
            return True
    return False


async def _pump(wire: AlpacaWire, socket: web.WebSocketResponse, told: asyncio.Event, seen: dict[str, Any]) -> None:
    while True:
        await told.wait()
        told.clear()
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
    """In a binary frame, as paper accounts are told."""
    await socket.send_bytes(json.dumps(message).encode())
