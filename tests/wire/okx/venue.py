"""OKX's v5 API on loopback, for the calls of the kill switch: an `Exchange` with OKX's payloads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import ClassVar, Final

from aiohttp import web

from killswitch.model.venue import Call, OrderRejectedError, RateLimit
from tests.faults.exchange import Exchange
from tests.faults.mishaps import Mishap
from tests.wire.okx import stream as okx_stream
from tests.wire.okx.payloads import Row
from tests.wire.okx.queries import OkxQueries
from tests.wire.okx.responses import CODES, outcome, refusal, row_of, signature
from tests.wire.server import KEY, PASSPHRASE, Ask, RefusedError, Reply

API: Final = "/api/v5/"
SKEW: Final = 30.0
"""Seconds by which a request's timestamp may be off."""


class OkxWire(OkxQueries):
    """One trading account at OKX.

    `sizes`: base units per contract, by symbol of the exchange; 1 where it is not named. `isolated`: symbols whose
    positions are isolated. `usd`: US dollars a USDT, so that what is in dollars is not mistaken for USDT.
    """

    limits: ClassVar[tuple[RateLimit, ...]] = (
        RateLimit("orders", 60, 2.0, "symbol"),
        RateLimit("batch orders", 300, 2.0, "symbol"),
        RateLimit("cancels", 60, 2.0, "symbol"),
        RateLimit("batch cancels", 300, 2.0, "symbol"),
        RateLimit("algo orders", 20, 2.0, "symbol"),
        RateLimit("algo cancels", 20, 2.0, "symbol"),
        RateLimit("closes", 20, 2.0, "symbol"),
        RateLimit("order details", 60, 2.0, "symbol"),
        RateLimit("algo details", 20, 2.0),
        RateLimit("pending", 60, 2.0),
        RateLimit("algo pending", 20, 2.0),
        RateLimit("order history", 40, 2.0),
        RateLimit("fills", 60, 2.0),
        RateLimit("fills history", 10, 2.0),
        RateLimit("positions", 10, 2.0),
        RateLimit("balance", 10, 2.0),
        RateLimit("bills", 5, 1.0),
        RateLimit("bills archive", 5, 2.0),
        RateLimit("config", 5, 2.0),
        RateLimit("dead man", 1, 1.0),
    )

    def __init__(self, exchange: Exchange, **more: object) -> None:
        super().__init__(exchange, **more)  # type: ignore[arg-type] # options of the rest of OKX
        self.instead: dict[str, Reply] = {}
        """Route, or route and `instType` → an answer in place of the true one; the request has no effect."""
        self._used_each: dict[str, deque[tuple[float, int]]] = {}

    # Processing of a request

    def check(self, ask: Ask) -> None:
        path = ask.path.removeprefix(API)
        if path.split("/")[0] in ("public", "market", "system"):
            return
        sent = {name: ask.headers.get(f"OK-ACCESS-{name}", "") for name in ("KEY", "SIGN", "TIMESTAMP", "PASSPHRASE")}
        for code, name in (("50103", "KEY"), ("50106", "SIGN"), ("50107", "TIMESTAMP"), ("50104", "PASSPHRASE")):
            if not sent[name]:
                raise RefusedError(refusal(code, f'Request header "OK_ACCESS_{name}" can\'t be empty.', 401))
        if sent["KEY"] != KEY:
            raise RefusedError(refusal("50111", "Invalid OK-ACCESS-KEY.", 401))
        if sent["PASSPHRASE"] != PASSPHRASE:
            raise RefusedError(refusal("50105", "Request header OK-ACCESS-PASSPHRASE incorrect.", 401))
        try:
            stamp = datetime.fromisoformat(sent["TIMESTAMP"])
        except ValueError:
            raise RefusedError(refusal("50112", "Invalid OK-ACCESS-TIMESTAMP.", 401)) from None
        if abs(stamp.timestamp() - self.now()[1].timestamp()) > SKEW:
            raise RefusedError(refusal("50102", "Timestamp request expired.", 401))
        deadline = ask.headers.get("expTime")
        if deadline is not None and path in ("trade/order", "trade/batch-orders") and self.now_ms() > int(deadline):
            raise RefusedError(refusal("50037", "Order expired.", 200))
        path_sent = ask.path + (f"?{ask.query}" if ask.query else "")
        if sent["SIGN"] != signature(sent["TIMESTAMP"] + ask.method + path_sent + ask.body):
            raise RefusedError(refusal("50113", "Invalid Sign.", 401))
        if ask.method == "POST" and "trade" not in self.perm.split(","):
            raise RefusedError(refusal("50120", CODES["permission"][1], 401))

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        call = OCCASIONS.get(ask.route.replace(API, ""))
        if call is None or (call == "fills" and "ordId" not in ask.params):
            return None
        rows = ask.params.get("rows") or [ask.params]
        names = {self.id_of(symbol): symbol for symbol in self.exchange.markets}
        symbols = tuple(names[it["instId"]] for it in rows if it.get("instId") in names)
        return "submit_batch" if call == "submit" and len(rows) > 1 else call, symbols

    def units(self, ask: Ask) -> Mapping[str, int]:
        limit = LIMITS.get(ask.route.replace(API, ""))
        if limit is None:
            return {}
        rows = ask.params.get("rows") or [ask.params]
        if limit.startswith("batch") and len(rows) == 1:
            limit = limit.removeprefix("batch ")
        by_symbol = next(it.by for it in self.limits if it.name == limit) == "symbol"
        taken: dict[str, int] = {}
        for row in rows:
            name = f"{limit}/{row.get('instId')}" if by_symbol else limit
            taken[name] = taken.get(name, 0) + 1
        return taken

    def _count(self, units: Mapping[str, int]) -> float | None:
        """As everywhere, and for each instrument separately where OKX counts so."""
        now = self.now()[0]
        for name, more in units.items():
            limit = next(it for it in self.limits if it.name == name.partition("/")[0])
            counted = self._used_each.setdefault(name, deque())
            while counted and counted[0][0] <= now - limit.per:
                counted.popleft()
            if self.enforced and sum(it for _, it in counted) + more > limit.allowed:
                return counted[0][0] + limit.per - now if counted else limit.per
        for name, more in units.items():
            self._used_each[name].append((now, more))
        return None

    def answer(self, ask: Ask) -> Reply:
        route = ask.route.replace(API, "")
        for name in (f"{route} {ask.params.get('instType')}", route):
            if name in self.instead:
                return self.instead[name]
        handler = ROUTES.get(route)
        if handler is None:
            raise NotImplementedError
        return handler(self, ask)

    def refused(self, error: OrderRejectedError) -> Reply:
        return outcome([row_of(error, {}, ordId="", clOrdId="")])

    def limited(self, wait: float) -> Reply:
        return refusal("50011", "Too Many Requests", 429)

    def down(self) -> Reply:
        return refusal("50001", "Service temporarily unavailable. Please try again later.", 503)

    def lie(self, mishap: Mishap, ask: Ask, reply: Reply) -> Reply:
        if not isinstance(reply.body, dict) or not isinstance(reply.body.get("data"), list):
            return reply
        rows: list[Row] = [dict(it) for it in reply.body["data"]]
        match mishap:
            case "empty":
                rows = []
            case "page":
                rows = rows[1:]
            case "sign":
                rows = [it | ({"posSide": "long", "pos": f"-{it['availPos']}"} if "pos" in it else {}) for it in rows]
            case "nan":
                rows = [it | ({"pos": "NaN"} if "pos" in it else {}) for it in rows]
            case "nonsense":
                rows = [it | {"clOrdId": "another", "ordId": "1"} for it in rows]
            case "defect":
                return Reply({"code": "0", "data": "none", "msg": ""})
        return Reply(reply.body | {"data": rows}, reply.status)

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        await okx_stream.serve(self, socket, ask.path, updated)


OCCASIONS: Final[Mapping[str, Call]] = {
    "GET account/positions": "snapshot",
    "GET trade/orders-pending": "open_orders",
    "GET trade/order": "find_order",
    "GET trade/fills": "fills",
    "GET trade/fills-history": "fills",
    "POST trade/order": "submit",
    "POST trade/batch-orders": "submit",
    "POST trade/order-algo": "submit",
    "POST trade/close-position": "submit",
    "POST trade/cancel-order": "cancel",
    "POST trade/cancel-batch-orders": "cancel",
    "POST trade/cancel-algos": "cancel",
    "POST trade/cancel-all-after": "dead_man",
}
LIMITS: Final[Mapping[str, str]] = {
    "GET account/positions": "positions",
    "GET account/account-position-risk": "positions",
    "GET account/balance": "balance",
    "GET account/bills": "bills",
    "GET account/bills-archive": "bills archive",
    "GET account/config": "config",
    "GET trade/order": "order details",
    "GET trade/order-algo": "algo details",
    "GET trade/orders-pending": "pending",
    "GET trade/orders-algo-pending": "algo pending",
    "GET trade/orders-history": "order history",
    "GET trade/fills": "fills",
    "GET trade/fills-history": "fills history",
    "POST trade/order": "orders",
    "POST trade/batch-orders": "batch orders",
    "POST trade/order-algo": "algo orders",
    "POST trade/close-position": "closes",
    "POST trade/cancel-order": "cancels",
    "POST trade/cancel-batch-orders": "batch cancels",
    "POST trade/cancel-algos": "algo cancels",
    "POST trade/cancel-all-after": "dead man",
}
ROUTES: Final[Mapping[str, Callable[[OkxWire, Ask], Reply]]] = {
    "GET public/time": OkxWire.time,
    "GET public/instruments": OkxWire.instruments,
    "GET market/books": OkxWire.books,
    "GET market/candles": OkxWire.bars,
    "GET market/history-candles": OkxWire.bars,
    "GET public/mark-price": OkxWire.mark_prices,
    "GET asset/currencies": OkxWire.coins,
    "GET public/price-limit": OkxWire.price_limits,
    "GET system/status": OkxWire.status,
    "GET market/tickers": OkxWire.tickers,
    "GET market/index-tickers": OkxWire.index,
    "GET market/ticker": OkxWire.tickers,
    "GET account/config": OkxWire.config,
    "GET account/balance": OkxWire.balance,
    "GET account/positions": OkxWire.positions,
    "GET account/account-position-risk": OkxWire.risk,
    "GET account/bills": OkxWire.bills,
    "GET account/bills-archive": OkxWire.bills,
    "GET asset/deposit-history": OkxWire.nothing,
    "GET asset/withdrawal-history": OkxWire.nothing,
    "GET trade/fills": OkxWire.fills,
    "GET trade/fills-history": OkxWire.fills,
    "GET trade/order": OkxWire.find,
    "GET trade/order-algo": OkxWire.find_algo,
    "GET trade/orders-pending": OkxWire.pending,
    "GET trade/orders-algo-pending": OkxWire.pending_algos,
    "GET trade/orders-history": OkxWire.past,
    "POST account/set-position-mode": OkxWire.set_mode,
    "POST trade/order": OkxWire.place,
    "POST trade/batch-orders": OkxWire.place_many,
    "POST trade/order-algo": OkxWire.place_algo,
    "POST trade/cancel-order": OkxWire.cancel_one,
    "POST trade/cancel-batch-orders": OkxWire.cancel_many,
    "POST trade/cancel-algos": OkxWire.cancel_algos,
    "POST trade/close-position": OkxWire.close_position,
    "POST trade/cancel-all-after": OkxWire.dead_man,
}
