"""Kraken Futures on loopback: derivatives API v3 and the history API, for the kill switch's calls.

The exchange behind it trades linear contracts only (`PF_…`, one contract is one unit of the base); inverse ones
(`PI_…`) exist for tests that name a market `BTC/USD:BTC`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, unquote_plus

from aiohttp import web

from killswitch.model.venue import Call, OrderRejectedError, OrderRequest, RateLimit, RejectReason
from tests.faults.exchange import Placed
from tests.wire.krakenfutures.payloads import (
    account_rows,
    event_rows,
    fill_row,
    history_rows,
    instrument_row,
    iso,
    log_row,
    market_id,
    open_row,
    position_row,
    status_row,
    ticker_row,
)
from tests.wire.krakenfutures.stream import KrakenFuturesStreams
from tests.wire.server import KEY, Ask, RefusedError, Reply, WireVenue, rows_without_one

SECRET: Final = base64.b64encode(b"SECRET-PLANTED").decode()
DERIVATIVES: Final = "/derivatives/api/v3/"
HISTORY: Final = "/api/history/"
CHARTS: Final = "/api/charts/"
COSTS: Final = {
    "sendorder": 10, "editorder": 10, "cancelorder": 10, "accounts": 2, "openpositions": 2, "fills": 2,
    "cancelallorders": 25, "cancelallordersafter": 25, "openorders": 2, "orders/status": 1, "transfers": 2,
    "leveragepreferences": 2,
}  # fmt: skip
"""By the venue's document on rate limits; `batchorder` is 9 and 1 for each order. Public calls cost nothing."""
STATUSES: Final[Mapping[RejectReason, str]] = {
    "already_flat": "wouldNotReducePosition", "below_minimum": "invalidSize", "above_maximum": "maxPositionViolation",
    "blocked_by_order": "wouldNotReducePosition", "price_band": "outsidePriceCollar",
    "market_closed": "marketSuspended", "insufficient_margin": "insufficientAvailableFunds",
    "duplicate_client_order_id": "clientOrderIdAlreadyExist", "permission": "marketInactive", "other": "invalidSize",
}  # fmt: skip
BATCH: Final = 10


class KrakenFuturesWire(WireVenue):
    """Point ccxt's `public` and `private` at `address`/derivatives/api/ and `history` at `address`/api/history/."""

    limits: ClassVar = (RateLimit("derivatives", 500, 10.0), RateLimit("history", 100, 600.0))
    armed: int | None = None
    """The seconds of the dead-man timer; None unless it runs."""
    timer: asyncio.TimerHandle | None = None
    currency = "USD"
    logs: list[dict[str, Any]]
    """Rows of the account log, set by the test."""
    forgetful = True
    """`orders/status` forgets an ended order after five seconds of the exchange's clock."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.logs = []
        self.streams = KrakenFuturesStreams(self, SECRET)
        self._placed_at: dict[str, float] = {}
        self._by_id = {market_id(symbol): symbol for symbol in self.exchange.markets}

    def urls(self) -> dict[str, str]:
        """The value of `urls['api']` of the ccxt client."""
        derivatives, history = f"{self.address}/derivatives/api/", f"{self.address}{HISTORY}"
        return {"public": derivatives, "private": derivatives, "history": history, "charts": f"{self.address}/charts/"}

    # Requests

    def answer(self, ask: Ask) -> Reply:
        if ask.path.startswith(CHARTS):
            # The exchange behind it has no history, so no bars.
            return Reply({"candles": [], "more_candles": False})
        handler = self._handlers().get((ask.method, self._name(ask)))
        if handler is None:
            raise NotImplementedError
        return self._good(**handler(ask))

    def _handlers(self) -> dict[tuple[str, str], Callable[[Ask], dict[str, Any]]]:
        exchange = self.exchange
        return {
            ("GET", "instruments"): lambda _: {"instruments": [instrument_row(it) for it in exchange.markets.values()]},
            ("GET", "tickers"): lambda _: {
                "tickers": [ticker_row(it, self.now()[1]) for it in exchange.markets.values()]
            },
            ("GET", "orderbook"): self._book,
            ("GET", "accounts"): lambda _: {"accounts": account_rows(self.book("equity"))},
            ("GET", "openpositions"): lambda _: {"openPositions": self._positions()},
            ("GET", "openorders"): lambda _: {
                "openOrders": [open_row(it, self.now()[1]) for it in exchange.orders.values() if it.state == "open"]
            },
            ("GET", "orders/status"): self._status,
            ("POST", "orders/status"): self._status,
            ("POST", "sendorder"): lambda ask: {"sendStatus": self._send(ask.params)},
            ("POST", "batchorder"): self._batch,
            ("POST", "cancelorder"): lambda ask: {"cancelStatus": self._cancel(ask.params)},
            ("POST", "cancelallorders"): self._cancel_all,
            ("POST", "cancelallordersafter"): self._dead_man,
            ("GET", "fills"): self.list_fills,
            ("GET", "transfers"): lambda _: {"transfers": []},
            ("GET", "history:orders"): lambda ask: history_rows(exchange, self.now_ms(), ask.params),
            ("GET", "history:account-log"): lambda ask: {"accountUid": "f7d5571c", "logs": self._log(ask)},
        }

    def _name(self, ask: Ask) -> str:
        if ask.path.startswith(HISTORY):
            return "history:" + ask.path.rsplit("/", 1)[-1]
        return ask.path.removeprefix(DERIVATIVES)

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        name = self._name(ask)
        symbol = self._by_id.get(str(ask.params.get("symbol")), "")
        calls: dict[str, tuple[Call, tuple[str, ...]]] = {
            "openpositions": ("snapshot", ()), "sendorder": ("submit", (symbol,)), "cancelorder": ("cancel", ()),
            "orders/status": ("find_order", ()), "openorders": ("open_orders", ()), "fills": ("fills", ()),
            "cancelallordersafter": ("dead_man", ()),
        }  # fmt: skip
        if name == "batchorder":
            sent = [it for it in self._orders_of(ask) if it.get("order") == "send"]
            symbols = tuple(self._by_id.get(str(it.get("symbol")), "") for it in sent)
            return ("submit_batch", symbols) if sent else ("cancel", ())
        return calls.get(name)

    def units(self, ask: Ask) -> Mapping[str, int]:
        name = self._name(ask)
        if name == "batchorder":
            return {"derivatives": 9 + len(self._orders_of(ask))}
        if name == "fills" and "lastFillTime" in ask.params:
            return {"derivatives": 25}
        if name == "history:account-log":
            count = int(ask.params.get("count", 500))
            return {"history": next(cost for most, cost in _LOG_COSTS if count <= most)}
        if name.startswith("history:"):
            return {"history": 1}
        return {"derivatives": COSTS[name]} if name in COSTS else {}

    def check(self, ask: Ask) -> None:
        if self._name(ask) in ("instruments", "tickers", "orderbook") or ask.path.startswith(CHARTS):
            return
        if ask.headers.get("APIKey") != KEY:
            raise RefusedError(self._bad("authenticationError"))
        sent = ask.body or ask.query
        signature = ask.headers.get("Authent", "")
        endpoint = ask.path.removeprefix("/derivatives")
        texts = (f"{it}{ask.headers.get('Nonce', '')}{endpoint}" for it in (sent, unquote_plus(sent)))
        if not any(hmac.compare_digest(signature, _signature(it)) for it in texts):
            raise RefusedError(self._bad("authenticationError"))

    # Refusals

    def refused(self, error: OrderRejectedError) -> Reply:
        return self._good(sendStatus={"status": STATUSES[error.reason], "orderEvents": []})

    def limited(self, wait: float) -> Reply:
        return self._bad("apiLimitExceeded", 429)

    def down(self) -> Reply:
        return self._bad("Unavailable", 503)

    def lie(self, mishap: str, ask: Ask, reply: Reply) -> Reply:
        body = json.loads(reply.text)
        rows = next((it for it in ("openPositions", "openOrders", "orders", "fills") if it in body), None)
        if rows is not None:
            match mishap:
                case "empty":
                    body[rows] = []
                case "page":
                    body[rows] = rows_without_one(body[rows])
                case "sign":
                    body[rows] = [it | {"size": -it["size"]} for it in body[rows]]
                case "nan":
                    body[rows] = [it | {"size": "NaN"} for it in body[rows]]
        if mishap == "nonsense" and "sendStatus" in body:
            body["sendStatus"] = {"status": "placed", "order_id": "another", "cliOrdId": "another"}
        return Reply(body, reply.status)

    def _good(self, **more: Any) -> Reply:
        return Reply({"result": "success", "serverTime": iso(self.now()[1]), **more})

    def _bad(self, word: str, status: int = 200) -> Reply:
        return Reply({"result": "error", "error": word, "serverTime": iso(self.now()[1])}, status)

    # Queries

    def _positions(self) -> list[dict[str, Any]]:
        book = self.book("positions")
        return [position_row(key, book.lots[key], self.now()[1]) for key in book.lots]

    def _book(self, ask: Ask) -> dict[str, Any]:
        market = self.exchange.markets[self._by_id[str(ask.params["symbol"])]]
        bids, asks = ([[float(market.taken_at(it)), 1000.0]] for it in ("sell", "buy"))
        return {"orderBook": {"bids": bids, "asks": asks}}

    def _status(self, ask: Ask) -> dict[str, Any]:
        query = parse_qs(ask.body or ask.query)
        names = {self.exchange.names.get(it, "") for it in query.get("cliOrdIds", [])} | set(query.get("orderIds", []))
        rows = [self.exchange.orders[it] for it in names if it in self.exchange.orders]
        return {"orders": [status_row(it, self.now()[1]) for it in rows if self._remembered(it)]}

    def _remembered(self, order: Placed) -> bool:
        placed = self._placed_at.get(order.id, float("-inf"))
        return order.state == "open" or not self.forgetful or self.now()[0] - placed < 5.0

    def list_fills(self, ask: Ask) -> dict[str, Any]:
        names = {order: name for name, order in self.exchange.names.items()}
        fills = [fill_row(it, names.get(it.order or "")) for it in self.ledger.fills()]
        return {"fills": fills[::-1][:100]}

    def _log(self, ask: Ask) -> list[dict[str, Any]]:
        since = int(ask.params.get("since", 0))
        booked = [log_row(it) for it in self.ledger.shown() if it.at_ms >= since]
        return [*booked[::-1], *self.logs]

    # Orders

    def _send(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A refusal inside `sendStatus` is still an HTTP success."""
        symbol = self._by_id.get(str(params.get("symbol")))
        if symbol is None:
            raise RefusedError(self._bad("contractNotFound"))
        kind, name = str(params["orderType"]), params.get("cliOrdId")
        if name is not None and len(str(name)) > 100:
            return {"status": "clientOrderIdTooLong", "orderEvents": []}
        trigger = params.get("stopPrice")
        side = params["side"]
        price = params.get("limitPrice")
        falls = (side == "sell") is (kind != "take_profit")
        request = OrderRequest(
            client_order_id=str(name) if name is not None else f"none-{len(self.exchange.orders)}",
            symbol=symbol, side=side, position_side="long" if side == "sell" else "short",
            amount=Decimal(str(params["size"])), reduce_only=str(params.get("reduceOnly", "")).lower() == "true",
            type="limit" if price is not None and kind != "mkt" else "market",
            price=Decimal(str(price)) if price is not None and kind != "mkt" else None,
            time_in_force="ioc" if kind == "ioc" else "gtc",
            trigger_price=Decimal(str(trigger)) if trigger is not None else None,
            trigger_when=("falls" if falls else "rises") if trigger is not None else None,
        )  # fmt: skip
        try:
            report = self.exchange.place(request)
        except OrderRejectedError as error:
            return {"status": STATUSES[error.reason], "orderEvents": []}
        order = self.exchange.orders[report.id]
        self._placed_at[order.id] = self.now()[0]
        if name is None:
            order.name = None
        return event_rows(order, self.exchange, self.now()[1])

    def _orders_of(self, ask: Ask) -> list[dict[str, Any]]:
        sent = json.loads(str(ask.params.get("json") or "{}"))
        rows: list[dict[str, Any]] = sent.get("batchOrder", [])
        return rows

    def _batch(self, ask: Ask) -> dict[str, Any]:
        rows = []
        for it in self._orders_of(ask):
            if it["order"] == "send":
                rows.append(self._send(it) | {"order_tag": it["order_tag"]})
            else:
                rows.append(self._cancel(it))
        return {"batchStatus": rows}

    def _cancel(self, params: Mapping[str, Any]) -> dict[str, Any]:
        order_id = str(params.get("order_id") or self.exchange.names.get(str(params.get("cliOrdId")), ""))
        order = self.exchange.orders.get(order_id)
        if order is None or order.state != "open":
            return {"status": "filled" if order is not None and order.state == "filled" else "notFound"}
        self.exchange.cancel(order_id)
        return {"status": "cancelled", "order_id": order_id, "receivedTime": iso(self.now()[1])}

    def _cancel_all(self, ask: Ask) -> dict[str, Any]:
        symbol = self._by_id.get(str(ask.params.get("symbol")))
        cancelled = [it.id for it in self.exchange.resting() if symbol in (None, it.symbol)]
        for order in cancelled:
            self.exchange.cancel(order)
        rows = [{"order_id": it} for it in cancelled]
        status = "cancelled" if cancelled else "noOrdersToCancel"
        return {"cancelStatus": {"status": status, "cancelOnly": "all", "cancelledOrders": rows, "orderEvents": []}}

    def _dead_man(self, ask: Ask) -> dict[str, Any]:
        seconds = int(ask.params["timeout"])
        self.armed = seconds or None
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(seconds, self._cancel_everything) if seconds else None
        at = self.now()[1]
        end = iso(at + timedelta(seconds=seconds)) if seconds else "0"
        return {"status": {"currentTime": iso(at), "triggerTime": end}}

    def _cancel_everything(self) -> None:
        """Cancel all orders of all markets, stops included."""
        self.armed = self.timer = None
        for order in self.exchange.resting():
            self.exchange.cancel(order.id)

    @property
    def timed(self) -> tuple[str, ...]:
        """Whether the dead-man timer runs."""
        return ("all",) * (self.timer is not None)

    @property
    def subscribed(self) -> list[str]:
        """The feeds with a subscriber."""
        return list(self.streams.feeds.elements())

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        await self.streams.serve(socket, ask.path, updated)

    async def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        await super().stop()


class InverseKrakenFuturesWire(KrakenFuturesWire):
    """The single-collateral wallet of inverse contracts, `BTC/USD:BTC`: a contract is one dollar, margin is bitcoin."""

    currency = "BTC"


_LOG_COSTS: Final = ((25, 1), (50, 2), (1000, 3), (5000, 6), (100_000, 10))


def _signature(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b64encode(hmac.new(base64.b64decode(SECRET), digest, hashlib.sha512).digest()).decode()
