"""The WebSocket of Kraken Futures: the challenge, signed subscriptions, and the messages of each feed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from killswitch.model.snapshot import Fill
from tests.faults.exchange import ZERO, Placed
from tests.wire.krakenfutures.payloads import market_id
from tests.wire.server import KEY, messages

if TYPE_CHECKING:
    from tests.wire.krakenfutures.venue import KrakenFuturesWire

PATH: Final = "/ws/v1"
ACCOUNT: Final = "0f9c23b8-63e2-40e4-9592-6d5aa57c12ba"
PRIVATE: Final = ("open_orders", "open_orders_verbose", "open_positions", "balances", "fills")
BEAT: Final = 5.0
"""Seconds between two messages of the heartbeat feed; the documents do not specify them."""
REASONS: Final = {
    "filled": "full_fill", "canceled": "cancelled_by_user",
    "expired": "ioc_order_failed_because_it_would_not_be_executed",
}  # fmt: skip
CAUSES: Final = {"trade": "taker", "liquidation": "liquidation", "adl": "unwindCounterparty", "delivery": "taker"}


def signature(challenge: str, secret: str) -> str:
    """The signature of a challenge: HMAC-SHA-512 of its SHA-256 with the decoded secret."""
    digest = hashlib.sha256(challenge.encode()).digest()
    return base64.b64encode(hmac.new(base64.b64decode(secret), digest, hashlib.sha512).digest()).decode()


class KrakenFuturesStreams:
    """All streams of the account."""

    def __init__(self, venue: KrakenFuturesWire, secret: str) -> None:
        self._venue = venue
        self.secret = secret
        """The secret that signatures are checked with; a test that changes it makes the venue refuse them."""
        self._silent = asyncio.Event()
        self._challenges = 0
        self.feeds: Counter[str] = Counter()
        """The number of connections subscribed to each feed now."""
        self.refused: list[str] = []
        """Feeds that were refused."""

    def fall_silent(self) -> None:
        """Send nothing more, not even a pong, and keep the connections."""
        self._silent.set()

    async def serve(self, socket: web.WebSocketResponse, path: str, updated: asyncio.Event) -> None:
        """Serve one stream until it is closed."""
        if path != PATH:
            await socket.close()
            return
        connection = _Connection(self, self._venue, socket)
        await connection.send({"event": "info", "version": 1})
        tasks = [
            asyncio.ensure_future(it)
            for it in (messages(socket, connection.handle), connection.push_changes(updated), connection.beat())
        ]
        silenced = asyncio.ensure_future(self._silent.wait())
        try:
            await asyncio.wait({tasks[0], silenced}, return_when=asyncio.FIRST_COMPLETED)
            if silenced.done():
                for task in tasks:
                    task.cancel()
                await asyncio.Event().wait()
        finally:
            self.feeds -= Counter(connection.subscribed)
            for task in (*tasks, silenced):
                task.cancel()

    def challenge(self) -> str:
        self._challenges += 1
        return f"226aee50-88fc-4618-a42a-{self._challenges:012}"

    def admits(self, message: dict[str, Any], challenge: str | None) -> bool:
        """Whether the message asks for a private feed with a valid signature of the account."""
        if challenge is None or message.get("original_challenge") != challenge or message.get("api_key") != KEY:
            return False
        return hmac.compare_digest(str(message.get("signed_challenge")), signature(challenge, self.secret))


class _Connection:
    def __init__(self, streams: KrakenFuturesStreams, venue: KrakenFuturesWire, socket: web.WebSocketResponse) -> None:
        self._streams = streams
        self._venue = venue
        self._socket = socket
        self._challenge: str | None = None
        self._orders: dict[str, str] = {}
        self._fills = 0
        self._numbers: Counter[str] = Counter()
        self.subscribed: list[str] = []

    async def handle(self, message: dict[str, Any]) -> None:
        event, feed = message.get("event"), str(message.get("feed"))
        if event == "challenge":
            self._challenge = self._streams.challenge()  # for any key
            await self.send({"event": "challenge", "message": self._challenge})
        elif event not in ("subscribe", "unsubscribe"):
            await self.send({"event": "error", "message": "Json Error"})
        elif feed not in (*PRIVATE, "heartbeat"):
            await self.send({"event": "error", "message": "Invalid feed"})
        elif feed in PRIVATE and not self._streams.admits(message, self._challenge):
            self._streams.refused.append(feed)
            await self.send({"event": "alert", "message": "Failed to subscribe to authenticated feed"})
        elif event == "unsubscribe":
            if feed in self.subscribed:
                self.subscribed.remove(feed)
                self._streams.feeds[feed] -= 1
            await self.send(message | {"event": "unsubscribed"})
        elif feed in self.subscribed:
            await self.send({"event": "alert", "message": "Already subscribed to feed, re-requesting"})
        else:
            self.subscribed.append(feed)
            self._streams.feeds[feed] += 1
            await self.send(message | {"event": "subscribed"})
            await self._send_snapshot(feed)

    async def push_changes(self, updated: asyncio.Event) -> None:
        """Push what changed, each time something did."""
        while True:
            await updated.wait()
            updated.clear()
            changed, filled = self._changed_orders(), self._new_fills()
            for feed in tuple(self.subscribed):
                for message in self._messages(feed, changed, filled):
                    await self.send({"feed": feed, **message})

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            if "heartbeat" in self.subscribed:
                await self.send({"feed": "heartbeat", "time": self._venue.now_ms()})

    async def send(self, message: object) -> None:
        if not self._socket.closed:
            await self._socket.send_str(json.dumps(message))

    async def _send_snapshot(self, feed: str) -> None:
        """Send the state at the subscription. For positions, the feed has the same name as for their changes."""
        exchange = self._venue.exchange
        if feed.startswith("open_orders"):
            self._changed_orders()
            rows = [self._order(it) for it in exchange.orders.values() if it.state == "open"]
            await self.send({"feed": f"{feed}_snapshot", "account": ACCOUNT, "orders": rows})
        elif feed == "fills":
            self._fills = len(exchange.fills)
            rows = [self._fill(it) for it in exchange.fills]
            await self.send({"feed": "fills_snapshot", "account": ACCOUNT, "fills": rows})
        elif feed == "balances":
            await self.send({"feed": "balances_snapshot", **self._balances()})
        elif feed == "open_positions":
            await self.send({"feed": feed, **self._positions()})

    def _messages(self, feed: str, changed: list[tuple[Placed, str]], filled: list[Fill]) -> list[dict[str, Any]]:
        if feed.startswith("open_orders"):
            return [self._order_message(order, before) for order, before in changed]
        if feed == "fills":
            return [{"username": "DemoUser", "fills": [self._fill(it) for it in filled]}] if filled else []
        makers: dict[str, Callable[[], dict[str, Any]]] = {
            "open_positions": self._positions,
            "balances": self._balances,
        }
        return [makers[feed]()] if feed in makers else []

    def _changed_orders(self) -> list[tuple[Placed, str]]:
        """Each changed order with its previous state and filled amount; empty for a new one."""
        changed = []
        for order in self._venue.exchange.orders.values():
            now, before = f"{order.state} {order.filled}", self._orders.get(order.id, "")
            if now != before:
                self._orders[order.id] = now
                changed.append((order, before))
        return changed

    def _order_message(self, order: Placed, before: str) -> dict[str, Any]:
        """An ended order is reported by its id alone, also where it was never reported before."""
        if order.state != "open":
            name = {"cli_ord_id": order.name} if order.name is not None else {}
            reason = REASONS.get(order.state, "not_enough_margin")
            return {"order_id": order.id, **name, "is_cancel": True, "reason": reason}
        reason = "partial_fill" if before and order.filled else "new_placed_order_by_user"
        return {"order": self._order(order), "is_cancel": False, "reason": reason}

    def _new_fills(self) -> list[Fill]:
        fills = self._venue.exchange.fills
        new, self._fills = fills[self._fills :], len(fills)
        return new

    # Rows, as each feed documents them

    def _order(self, order: Placed) -> dict[str, Any]:
        kind = "limit" if order.trigger_price is None else "stop"
        row: dict[str, Any] = {
            "instrument": market_id(order.symbol), "time": self._venue.now_ms(),
            "last_update_time": self._venue.now_ms(), "qty": float(order.amount - order.filled),
            "filled": float(order.filled), "limit_price": float(order.price or 0),
            "stop_price": float(order.trigger_price or 0), "type": kind, "order_id": order.id,
            "direction": 0 if order.side == "buy" else 1, "reduce_only": order.reduce_only,
        }  # fmt: skip
        return row | ({"cli_ord_id": order.name} if order.name is not None else {})

    def _fill(self, fill: Fill) -> dict[str, Any]:
        return {
            "instrument": market_id(fill.symbol), "time": int(fill.at.timestamp() * 1000), "price": float(fill.price),
            "seq": 100, "buy": fill.side == "buy", "qty": float(fill.amount), "remaining_order_qty": 0.0,
            "order_id": fill.order, "fill_id": fill.id, "fill_type": CAUSES[fill.cause],
            "fee_paid": float(fill.fee or 0), "fee_currency": "USD", "taker_order_type": "ioc", "order_type": "ioc",
        }  # fmt: skip

    def _positions(self) -> dict[str, Any]:
        exchange = self._venue.exchange
        rows = []
        for (symbol, side), amount in exchange.held.items():
            if amount == ZERO:
                continue
            price = float(exchange.markets[symbol].price)
            margin = float(amount) * price / 50
            rows.append(
                {
                    "instrument": market_id(symbol), "balance": float(amount if side == "long" else -amount),
                    "pnl": 0.0, "entry_price": price, "mark_price": price, "index_price": price,
                    "liquidation_threshold": 0.0, "effective_leverage": 0.1, "return_on_equity": 0.0,
                    "unrealized_funding": 0.0, "initial_margin": margin, "initial_margin_with_orders": margin,
                    "maintenance_margin": margin / 2, "pnl_currency": "USD",
                }
            )  # fmt: skip
        return {"account": ACCOUNT, "positions": rows, **self._numbered("open_positions")}

    def _balances(self) -> dict[str, Any]:
        book = self._venue.book()
        equity, profit = float(book.total), float(book.unrealized_total)
        balance = equity - profit
        whole = {
            "balance_value": balance, "portfolio_value": equity, "collateral_value": balance, "initial_margin": 0.0,
            "initial_margin_without_orders": 0.0, "maintenance_margin": 0.0, "pnl": profit, "unrealized_funding": 0.0,
            "total_unrealized": profit, "total_unrealized_as_margin": profit, "margin_equity": equity,
            "available_margin": equity,
        }  # fmt: skip
        dollars = {"quantity": balance, "value": balance, "collateral_value": balance, "available": balance,
                   "haircut": 0.0, "conversion_spread": 0.0}  # fmt: skip
        flex = {"currencies": {"USD": dollars}, **whole, "isolated": {}, "cross": whole | {"effective_leverage": 0.0}}
        return {"account": ACCOUNT, "flex_futures": flex, **self._numbered("balances")}

    def _numbered(self, feed: str) -> dict[str, int]:
        self._numbers[feed] += 1
        return {"timestamp": self._venue.now_ms(), "seq": self._numbers[feed] - 1}
