"""OKX's private stream: login, subscriptions, and the state after every change."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.wire.okx.payloads import Row
from tests.wire.okx.responses import signature
from tests.wire.server import KEY, PASSPHRASE, messages

if TYPE_CHECKING:
    from tests.wire.okx.venue import OkxWire

CHANNELS = {"private": ("account", "positions", "orders", "balance_and_position"), "business": ("orders-algo",)}


async def serve(venue: OkxWire, socket: web.WebSocketResponse, path: str, updated: asyncio.Event) -> None:
    """Serve one connection until the client closes it."""
    end = path.rsplit("/", 1)[-1]
    subscribed: list[dict[str, Any]] = []
    logged_in: list[bool] = []
    seen: dict[str, Row] = {}

    async def send(message: dict[str, Any]) -> None:
        await socket.send_str(json.dumps(message))

    async def push(args: list[dict[str, Any]], *, first: bool) -> None:
        for arg in args:
            rows = _rows(venue, arg["channel"], seen, first)
            if rows:
                await send({"arg": arg, "data": rows})

    async def handle(message: dict[str, Any]) -> None:
        args = message["args"]
        if message["op"] == "login":
            right = signature(f"{args[0]['timestamp']}GET/users/self/verify")
            if args[0]["apiKey"] != KEY or args[0]["passphrase"] != PASSPHRASE or args[0]["sign"] != right:
                await send({"event": "error", "msg": "Login failed.", "code": "60009", "connId": "a4d3ae55"})
                await socket.close()
                return
            logged_in.append(True)
            await send({"event": "login", "code": "0", "msg": "", "connId": "a4d3ae55"})
            return
        for arg in args:
            if not logged_in:
                await send({"event": "error", "msg": "Please log in", "code": "60011", "connId": "a4d3ae55"})
            elif arg["channel"] not in CHANNELS.get(end, ()):
                await send({"event": "error", "msg": f"Wrong URL or channel:{arg['channel']}", "code": "60018"})
            else:
                subscribed.append(arg)
                venue.subscribed.append(arg["channel"])
                await send({"event": "subscribe", "arg": arg, "connId": "a4d3ae55"})
                await push([arg], first=True)

    async def push_changes() -> None:
        while True:
            await updated.wait()
            updated.clear()
            await push(subscribed, first=False)

    pusher = asyncio.ensure_future(push_changes())
    try:
        await messages(socket, handle)
    finally:
        for arg in subscribed:
            venue.subscribed.remove(arg["channel"])
        pusher.cancel()


def _rows(venue: OkxWire, channel: str, seen: dict[str, Row], first: bool) -> list[Row]:
    """The rows of a channel: account and positions in full (with those just closed), orders only if changed."""
    if channel == "account":
        return [venue.balance_row()]
    if channel == "positions":
        rows = {f"{it['instId']} {it['posSide']}": it for it in venue.position_rows()}
        gone = {name: it | {"pos": "0"} for name, it in seen.items() if name.startswith("p ") and name[2:] not in rows}
        for name in gone:
            del seen[name]
        seen.update({f"p {name}": it for name, it in rows.items()})
        return [*rows.values(), *gone.values()]
    algo = channel == "orders-algo"
    changed: list[Row] = []
    for order in venue.exchange.orders.values():
        row = venue.row(order)
        if (order.trigger_price is not None) is not algo:
            continue
        plain = {name: it for name, it in row.items() if name not in ("uTime", "cTime")}
        if seen.get(f"o {order.id}") != plain:
            seen[f"o {order.id}"] = plain
            changed.append(row)
    return [] if first else changed
