"""MEXC on loopback: contract API v1, for the kill switch's calls.

The exchange behind it counts contracts, as MEXC does; each symbol has a `contractSize` of its own. In its hedge mode a
position cannot be closed beyond what resting closing orders leave (`frozenVol`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

from aiohttp import web
from msgspec.structs import replace

from killswitch.model.snapshot import Fill, OrderSide, Side
from killswitch.model.venue import Call, OrderRejectedError, OrderRequest, RateLimit, RejectReason
from tests.faults.exchange import ZERO, Placed
from tests.wire.ledger import Contract, contract_of
from tests.wire.mexc.payloads import (
    asset_row,
    deal_row,
    detail_row,
    funding_row,
    market_id,
    order_row,
    plan_row,
    position_row,
    stop_row,
    ticker_row,
    transfer_row,
)
from tests.wire.mexc.stream import MexcStreams
from tests.wire.server import KEY, SECRET, Ask, RefusedError, Reply, WireVenue, rows_without_one

PRIVATE: Final = "/api/v1/private/"
PUBLIC: Final = "/api/v1/contract/"
PACE: Final = {"order/submit_batch": 1, "position/close_all": 4, "order/batch_query": 5}
"""Requests in two seconds, where it is not the usual twenty. Each route is counted for itself."""
ROUTES: Final = (
    "account/assets", "account/transfer_record", "position/open_positions", "position/position_mode",
    "position/funding_records", "position/close_all", "order/list/open_orders", "order/list/order_deals",
    "order/external", "order/get", "order/deal_details", "order/create", "order/submit_batch", "order/cancel",
    "planorder/list/orders", "planorder/place", "planorder/cancel", "stoporder/list/orders", "stoporder/cancel",
)  # fmt: skip
CODES: Final[Mapping[RejectReason, tuple[int, str]]] = {
    "already_flat": (2009, "Position is not exists or closed."),
    "below_minimum": (2011, "Order quantity error, please try to modify."),
    "above_maximum": (2028, "The maximum order quantity is exceeded"),
    "blocked_by_order": (2008, "The quantity is insufficient"),
    "price_band": (2003, "Bid price is great than max allow price"),
    "market_closed": (1002, "Contract not allow place order!"),
    "insufficient_margin": (2005, "Insufficient balance!"),
    "duplicate_client_order_id": (603, "Repeated requests"),
    "permission": (704, "Please enable API Key trading information write access"),
    "other": (2015, "Price or quantity accuracy error"),
}
SIDES: Final[Mapping[int, tuple[OrderSide, Side, bool]]] = {
    1: ("buy", "long", False), 2: ("buy", "short", True), 3: ("sell", "short", False), 4: ("sell", "long", True),
}  # fmt: skip
"""Code → side of the order, side of the position, whether it closes."""


class MexcWire(WireVenue):
    """Use `address` as scheme and host of the ccxt client's addresses."""

    limits: ClassVar = tuple(RateLimit(it, PACE.get(it, 20), 2.0) for it in ROUTES)
    sizes: dict[str, Decimal]
    """Symbol → contract size; 0.0001 by default."""
    attached: set[str]
    """Ids of waiting orders that are stops attached to a position, not plan orders."""
    transfers: list[dict[str, Any]]

    def __init__(self, *args: Any, **more: Any) -> None:
        self.sizes, self.attached, self.transfers = {}, set(), []
        super().__init__(*args, **more)
        self.streams = MexcStreams(self)
        self._by_id = {market_id(symbol): symbol for symbol in self.exchange.markets}

    def size(self, symbol: str) -> Decimal:
        return self.sizes.get(symbol, Decimal("0.0001"))

    def contract(self, symbol: str) -> Contract:
        return replace(contract_of(symbol, self.currency), size=self.size(symbol))

    def fee(self, fill: Fill) -> Decimal:
        return (fill.fee or ZERO) * self.size(fill.symbol)

    @property
    def subscribed(self) -> list[str]:
        """The private channels with a subscriber."""
        return self.streams.logged_in

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        await self.streams.serve(socket, ask.path, updated)

    # Requests

    def answer(self, ask: Ask) -> Reply:
        if ask.path.startswith("/api/v3/"):
            return self._spot(ask)
        name, rest = self._split(ask)
        handler = self._handlers().get(name)
        if handler is None:
            raise NotImplementedError
        return Reply({"success": True, "code": 0, "data": handler(ask, rest)})

    def _handlers(self) -> dict[str, Callable[[Ask, list[str]], Any]]:
        exchange, markets = self.exchange, self.exchange.markets.values()
        return {
            "ping": lambda ask, rest: self.now_ms(),
            "detail": lambda ask, rest: [detail_row(it, self.size(it.symbol)) for it in markets],
            "ticker": self._ticker,
            "account/assets": lambda ask, rest: [asset_row(self.book("equity"))],
            "account/transfer_record": lambda ask, rest: _page(
                [
                    *(transfer_row(it) for it in reversed([*self.ledger.shown("deposit", "withdrawal", "transfer")])),
                    *self.transfers,
                ]
            ),
            "position/open_positions": lambda ask, rest: self._positions(),
            "position/position_mode": lambda ask, rest: 1 if exchange.mode == "hedge" else 2,
            "position/funding_records": lambda ask, rest: _page(
                [funding_row(it) for it in reversed([*self.ledger.shown("funding")])]
            ),
            "position/close_all": lambda ask, rest: exchange.close_book(),
            "order/list/open_orders": lambda ask, rest: _cut(self._resting(order_row, False, False), ask),
            "planorder/list/orders": lambda ask, rest: _cut(self._resting(plan_row, True, False), ask),
            "stoporder/list/orders": lambda ask, rest: _cut(self._resting(stop_row, True, True), ask),
            "order/list/order_deals": lambda ask, rest: _cut(self._deals(self._by_id[ask.params["symbol"]]), ask),
            "order/deal_details": lambda ask, rest: self._deals(order=rest[0]),
            "order/external": lambda ask, rest: self._found(exchange.names.get(rest[1], "")),
            "order/get": lambda ask, rest: self._found(rest[0]),
            "order/create": lambda ask, rest: {"orderId": self._place(ask.params).id, "ts": self.now_ms()},
            "order/submit_batch": lambda ask, rest: [self._row(it) for it in ask.params["rows"]],
            "order/cancel": lambda ask, rest: [self._cancelled(str(it)) for it in ask.params["rows"]],
            "planorder/place": lambda ask, rest: self._place(ask.params).id,
            "planorder/cancel": lambda ask, rest: [self._cancelled(str(it["orderId"])) for it in ask.params["rows"]],
            "stoporder/cancel": lambda ask, rest: [
                self._cancelled(str(it["stopPlanOrderId"])) for it in ask.params["rows"]
            ],
        }

    def _split(self, ask: Ask) -> tuple[str, list[str]]:
        """The route, and the rest of the path behind it."""
        path = ask.path.removeprefix(PRIVATE).removeprefix(PUBLIC)
        name = next((it for it in ROUTES if path == it or path.startswith(f"{it}/")), path)
        return name, [it for it in path.removeprefix(name).split("/") if it]

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        name, rest = self._split(ask)
        symbol = self._by_id.get(str(ask.params.get("symbol")), "")
        calls: dict[str, tuple[Call, tuple[str, ...]]] = {
            "position/open_positions": ("snapshot", ()), "order/create": ("submit", (symbol,)),
            "planorder/place": ("submit", (symbol,)), "position/close_all": ("close_book", ()),
            "order/external": ("find_order", (self._by_id.get(rest[0], ""),) if rest else ()),
            "order/list/open_orders": ("open_orders", ()), "order/deal_details": ("fills", ()),
            "order/list/order_deals": ("fills", (symbol,)), "order/cancel": ("cancel", ()),
            "planorder/cancel": ("cancel", ()), "stoporder/cancel": ("cancel", ()),
        }  # fmt: skip
        if name == "order/submit_batch":
            return "submit_batch", tuple(self._by_id.get(str(it.get("symbol")), "") for it in ask.params["rows"])
        return calls.get(name)

    def units(self, ask: Ask) -> Mapping[str, int]:
        name, _ = self._split(ask)
        return {name: 1} if name in ROUTES else {}

    def check(self, ask: Ask) -> None:
        if not ask.path.startswith(PRIVATE):
            return
        if ask.headers.get("ApiKey") != KEY:
            raise RefusedError(self._refusal(401, "No authority!"))
        at = ask.headers.get("Request-Time", "")
        if not at.isdigit() or abs(int(at) - self.now_ms()) > 10_000:
            raise RefusedError(self._refusal(513, "Invalid request"))
        sent = KEY + at + (ask.body if ask.method == "POST" else ask.query)
        right = hmac.new(SECRET.encode(), sent.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(ask.headers.get("Signature", ""), right):
            raise RefusedError(self._refusal(602, "Signature verification failed!"))

    # Refusals

    def refused(self, error: OrderRejectedError) -> Reply:
        return self._refusal(*CODES[error.reason])

    def limited(self, wait: float) -> Reply:
        return self._refusal(510, "Requests are too frequent, please try again later!")

    def down(self) -> Reply:
        return self._refusal(801, "System under maintenance")

    def _refusal(self, code: int, message: str) -> Reply:
        return Reply({"success": False, "code": code, "message": message})

    def lie(self, mishap: str, ask: Ask, reply: Reply) -> Reply:
        body = json.loads(reply.text)
        rows = body.get("data")
        match mishap, rows:
            case "empty", list():
                body["data"] = []
            case "empty", _:
                return self._refusal(2040, "Order not exist")
            case "page", list():
                body["data"] = rows_without_one(rows)
            case ("sign" | "nan") as wrong, list():
                body["data"] = [it | {"holdVol": "NaN" if wrong == "nan" else -it["holdVol"]} for it in rows]
            case "nonsense", dict() if "externalOid" in rows:
                body["data"] = rows | {"externalOid": "another", "dealVol": -1}
        return Reply(body, reply.status)

    # Queries

    def _spot(self, ask: Ask) -> Reply:
        if ask.path.endswith("/exchangeInfo"):
            return Reply({"symbols": []})
        if ask.path.endswith("/capital/config/getall"):
            return Reply([])
        raise NotImplementedError

    def _ticker(self, ask: Ask, rest: list[str]) -> object:
        rows = [ticker_row(it, self.now_ms()) for it in self.exchange.markets.values()]
        wanted = ask.params.get("symbol")
        return rows if wanted is None else next(it for it in rows if it["symbol"] == wanted)

    def _resting(self, row: Callable[[Placed, int, bool], object], plans: bool, attached: bool) -> list[object]:
        hedge = self.exchange.mode == "hedge"
        return [
            row(it, self.now_ms(), hedge)
            for it in self.exchange.orders.values()
            if it.state == "open" and it.waits is plans and (it.id in self.attached) is attached
        ]

    def _positions(self) -> list[dict[str, Any]]:
        book = self.book("positions")
        return [position_row(key, book, self.exchange, self.now_ms()) for key in book.lots]

    def _deals(self, symbol: str | None = None, order: str | None = None) -> list[object]:
        return [
            deal_row(it, self.exchange.orders.get(it.order or ""), self.fee(it), self.ledger.profits[it.id])
            for it in self.ledger.fills()
            if symbol in (None, it.symbol) and order in (None, it.order)
        ]

    def _found(self, order_id: str) -> object:
        order = self.exchange.orders.get(order_id)
        if order is None or order_id in self.attached:
            raise RefusedError(self._refusal(2040, "Order not exist"))
        return order_row(order, self.now_ms(), self.exchange.mode == "hedge", self.size(order.symbol))

    # Orders

    def _place(self, params: Mapping[str, Any]) -> Placed:
        symbol = self._by_id.get(str(params.get("symbol")))
        if symbol is None:
            raise RefusedError(self._refusal(1001, "Contract does not exist!"))
        side, position_side, closes = SIDES[int(params["side"])]
        trigger = params.get("triggerPrice")
        kind = int(params["orderType"] if trigger is not None else params["type"])
        falls: Literal["falls", "rises"] = "falls" if int(params.get("triggerType", 1)) == 2 else "rises"
        name = params.get("externalOid")
        if name is not None and len(str(name)) > 32:
            raise RefusedError(self._refusal(2030, "External order ID is too long"))
        limited = kind in (1, 2, 3, 4)
        request = OrderRequest(
            client_order_id=str(name) if name is not None else f"none-{len(self.exchange.orders)}",
            symbol=symbol, side=side, position_side=position_side, amount=Decimal(str(params["vol"])),
            reduce_only=closes or params.get("reduceOnly") is True, type="limit" if limited else "market",
            price=Decimal(str(params["price"])) if limited else None,
            time_in_force="ioc" if kind in (3, 4) else "gtc",
            trigger_price=None if trigger is None else Decimal(str(trigger)),
            trigger_when=None if trigger is None else falls,
        )  # fmt: skip
        order = self.exchange.orders[self.exchange.place(request).id]
        if name is None:
            order.name = None
        return order

    def _row(self, params: Mapping[str, Any]) -> dict[str, Any]:
        name = params.get("externalOid")
        try:
            return {"externalOid": name, "orderId": self._place(params).id, "errorCode": 0, "errorMsg": "success"}
        except OrderRejectedError as error:
            code, text = CODES[error.reason]
            return {"externalOid": name, "orderId": None, "errorCode": code, "errorMsg": text}

    def _cancelled(self, order_id: str) -> dict[str, Any]:
        order = self.exchange.orders.get(order_id)
        if order is None:
            return {"orderId": order_id, "errorCode": 2040, "errorMsg": "order not exist"}
        if order.state != "open":
            return {"orderId": order_id, "errorCode": 2041, "errorMsg": "order state cannot be cancelled"}
        self.exchange.cancel(order_id)
        return {"orderId": order_id, "errorCode": 0, "errorMsg": "success"}


def _page(rows: list[Any]) -> dict[str, Any]:
    return {"pageSize": 20, "totalCount": len(rows), "totalPage": 1, "currentPage": 1, "resultList": rows}


def _cut(rows: list[object], ask: Ask) -> list[object]:
    """One page of a list: twenty rows, or up to a hundred on request."""
    size, number = min(100, int(ask.params.get("page_size", 20))), int(ask.params.get("page_num", 1))
    return rows[(number - 1) * size : number * size]
