"""The private side of MEXC's contract stream: login, filters, and the pushes of one account."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from tests.faults.exchange import ZERO, Placed
from tests.wire.mexc.payloads import asset_row, deal_row, order_row, plan_row, position_row, stop_row
from tests.wire.server import KEY, SECRET, messages

if TYPE_CHECKING:
    from tests.wire.mexc.venue import MexcWire

PATH: Final = "/edge"
CHANNELS: Final = ("order", "order.deal", "position", "plan.order", "stop.order", "asset")
"""The channels of a logged-in connection; `personal.filter` selects some of them."""
WINDOW: Final = 10_000
"""Milliseconds by which the time of a login may be off."""


def signature(key: str, at: str, secret: str) -> str:
    """The signature of a login: HMAC-SHA-256 of key and time with the secret."""
    return hmac.new(secret.encode(), (key + at).encode(), hashlib.sha256).hexdigest()


class MexcStreams:
    """All streams of the account."""

    def __init__(self, venue: MexcWire) -> None:
        self._venue = venue
        self.secret = SECRET
        """The secret that signatures are checked with; a test that changes it makes the venue refuse them."""
        self.logged_in: list[str] = []
        """The channels of every connection that has logged in."""
        self.refused: list[str] = []
        """The refused methods."""
        self.mute = False
        """Send nothing more, not even a pong, and keep the connections."""

    async def serve(self, socket: web.WebSocketResponse, path: str, updated: asyncio.Event) -> None:
        """Serve one stream until it is closed."""
        if path != PATH:
            await socket.close()
            return
        connection = _Connection(self, self._venue, socket)
        pusher = asyncio.ensure_future(connection.push_changes(updated))
        try:
            await messages(socket, connection.handle)
        finally:
            pusher.cancel()
            connection.leave()

    def admits(self, param: Mapping[str, Any]) -> bool:
        """Whether the parameters log in to the account with a valid signature."""
        at = str(param.get("reqTime"))
        if param.get("apiKey") != KEY or not at.isdigit() or abs(int(at) - self._venue.now_ms()) > WINDOW:
            return False
        return hmac.compare_digest(str(param.get("signature")), signature(KEY, at, self.secret))


class _Connection:
    def __init__(self, streams: MexcStreams, venue: MexcWire, socket: web.WebSocketResponse) -> None:
        self._streams = streams
        self._venue = venue
        self._socket = socket
        self._is_logged_in = False
        self._filters: dict[str, frozenset[str]] = {}
        """Channel → the contracts that it is limited to; empty: all."""
        self._sent: dict[str, dict[str, str]] = {}

    async def handle(self, message: dict[str, Any]) -> None:
        method, param = message.get("method"), message.get("param") or {}
        if self._streams.mute:
            return
        if method == "ping":
            await self._send("pong", self._venue.now_ms())
        elif method == "login":
            if not self._streams.admits(param):
                await self._refuse("login", "signature validation failed")
                return
            self._is_logged_in = True
            await self._send("rs.login", "success")
            self._set_filters({} if message.get("subscribe") is False else dict.fromkeys(CHANNELS, frozenset()))
        elif method == "personal.filter" and self._is_logged_in:
            filters = param.get("filters") or [{"filter": it} for it in CHANNELS]
            self._set_filters({str(it["filter"]): frozenset(it.get("rules") or ()) for it in filters})
            await self._send("rs.personal.filter", "success")
        else:
            await self._refuse(str(method), "not login" if method == "personal.filter" else "invalid method")

    def leave(self) -> None:
        """Forget the connection's channels."""
        for name in self._filters:
            self._streams.logged_in.remove(name)
        self._filters = {}

    def _set_filters(self, channels: dict[str, frozenset[str]]) -> None:
        self.leave()
        self._filters = channels
        self._streams.logged_in.extend(channels)
        self._sent = {name: self._rows(name) for name in CHANNELS}

    async def push_changes(self, updated: asyncio.Event) -> None:
        """Push what changed, each time something did."""
        while True:
            await updated.wait()
            updated.clear()
            if self._streams.mute or not self._is_logged_in:
                continue
            for name in CHANNELS:
                now, before = self._rows(name), self._sent.get(name, {})
                self._sent[name] = now
                for row in (json.loads(it) for id_, it in now.items() if before.get(id_) != it):
                    wanted = self._filters.get(name)
                    if wanted is not None and (not wanted or row.get("symbol") in wanted):
                        await self._send(f"push.personal.{name}", row)

    def _rows(self, name: str) -> dict[str, str]:
        """The current rows of a channel, without times, so that only changes are pushed again."""
        exchange, at = self._venue.exchange, 0
        hedge = exchange.mode == "hedge"
        orders = exchange.orders.values()
        rows: dict[str, dict[str, Any]]
        if name == "order":
            rows = {it.id: self._order(it, hedge) for it in orders if it.trigger_price is None}
        elif name == "plan.order":
            plans = [it for it in orders if not self._attached(it)]
            rows = {it.id: plan_row(it, at, hedge) | _state(it) for it in plans if it.trigger_price is not None}
        elif name == "stop.order":
            rows = {it.id: stop_row(it, at, hedge) | _state(it) for it in orders if self._attached(it)}
        elif name == "order.deal":
            venue = self._venue
            rows = {
                it.id: deal_row(it, exchange.orders.get(it.order or ""), venue.fee(it), venue.ledger.profits[it.id])
                for it in exchange.fills
            }
        elif name == "position":
            book = self._venue.book()
            rows = {
                f"{symbol} {side}": position_row((symbol, side), book, exchange, at)
                | {"state": 1 if amount > ZERO else 3}
                for (symbol, side), amount in exchange.held.items()
            }
        else:
            rows = {"USDT": asset_row(self._venue.book())}
        return {id_: json.dumps(row) for id_, row in rows.items()}

    def _order(self, order: Placed, hedge: bool) -> dict[str, Any]:
        return order_row(order, 0, hedge) | {"remainVol": float(order.amount - order.filled)}

    def _attached(self, order: Placed) -> bool:
        return order.id in self._venue.attached

    async def _refuse(self, what: str, why: str) -> None:
        self._streams.refused.append(what)
        await self._send("rs.error", why)

    async def _send(self, channel: str, data: object) -> None:
        if not self._socket.closed:
            await self._socket.send_str(json.dumps({"channel": channel, "data": data, "ts": self._venue.now_ms()}))


def _state(order: Placed) -> dict[str, int]:
    """1: waiting, 2: cancelled, 3: executed."""
    return {"state": 1 if order.state == "open" else 3 if order.state == "filled" else 2}
