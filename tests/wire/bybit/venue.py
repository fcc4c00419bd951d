"""Bybit's v5 API on loopback, for one unified account: the kill switch's calls, with Bybit's payloads and codes."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

from killswitch.model.venue import Call, OrderRejectedError, RateLimit
from tests.faults.exchange import Exchange
from tests.faults.mishaps import Mishap
from tests.wire.bybit import payloads as payloads
from tests.wire.bybit.routes import BybitRoutes
from tests.wire.bybit.stream import BybitStreams
from tests.wire.server import KEY, Ask, RefusedError, Reply, WireVenue, rows_without_one

REJECTIONS: Mapping[str, tuple[int, str]] = {
    "already_flat": (110017, "current position is zero, cannot fix reduce-only order qty"),
    "below_minimum": (10001, "The number of contracts exceeds minimum limit allowed"),
    "above_maximum": (10001, "The number of contracts exceeds maximum limit allowed: too large"),
    "blocked_by_order": (110017, "orderQty will be truncated to zero."),
    "price_band": (30208, "Failed. The order price is higher than the maximum buying price."),
    "market_closed": (110066, "Trading is currently not allowed."),
    "insufficient_margin": (110007, "ab not enough for new order"),
    "duplicate_client_order_id": (110072, "OrderLinkedID is duplicate"),
    "permission": (10005, "Permission denied, please check your API key permissions."),
    "other": (10001, "Qty invalid"),
}
SPOT_REJECTIONS: Mapping[str, tuple[int, str]] = {
    "below_minimum": (170140, "Order value exceeded lower limit."),
    "above_maximum": (170124, "Order amount too large."),
    "insufficient_margin": (170131, "Insufficient balance."),
    "duplicate_client_order_id": (170141, "Duplicate clientOrderId"),
    "price_band": (170193, "Buy order price cannot be higher than 110."),
}
UNITS: Mapping[str, str] = {
    "POST /v5/order/create": "create",
    "POST /v5/order/create-batch": "create-batch",
    "POST /v5/order/cancel": "cancel",
    "POST /v5/order/cancel-all": "cancel-all",
    "POST /v5/order/disconnected-cancel-all": "dcp",
    "GET /v5/order/realtime": "realtime",
    "GET /v5/order/history": "history",
    "GET /v5/execution/list": "execution",
    "GET /v5/position/list": "position",
    "GET /v5/account/wallet-balance": "wallet",
    "GET /v5/account/transaction-log": "log",
    "GET /v5/user/query-api": "key",
    "POST /v5/asset/transfer/universal-transfer": "transfer",
}


class BybitWire(WireVenue):
    """Bybit. Tests set `key_info` and `log`."""

    limits: ClassVar[tuple[RateLimit, ...]] = (
        RateLimit("create", 10, 1.0),
        RateLimit("create-batch", 10, 1.0),
        RateLimit("cancel", 10, 1.0),
        RateLimit("cancel-all", 10, 1.0),
        RateLimit("dcp", 5, 1.0),
        *(RateLimit(name, 50, 1.0) for name in ("realtime", "history", "execution", "position", "wallet")),
        RateLimit("log", 25, 1.0),
        RateLimit("key", 10, 1.0),
        RateLimit("transfer", 20, 1.0),
        RateLimit("ip", 600, 5.0, "address"),
    )

    def __init__(self, exchange: Exchange, **more: Any) -> None:
        super().__init__(exchange, **more)
        self.key_info = payloads.key_info(self.now_ms())
        self.margin_mode = "REGULAR_MARGIN"
        self.log: list[dict[str, object]] = []
        """Rows of the transaction log in addition to the ledger's, newest first."""
        self.protects = True
        """Whether disconnection protection is enabled for the account."""
        self.members: dict[str, BybitWire | Decimal] = {"24600001": Decimal(5000)}
        """User id → another account of the owner: its venue, or what it holds of USDT."""
        self.transfers: list[dict[str, object]] = []
        """Universal transfers between accounts, in the venue's format."""
        self.hidden_transfers = False
        """Whether the list of transfers is late, and lacks all of them."""
        self.windows: dict[str, int] = {}
        """Product → seconds, as set for disconnection protection."""
        self.is_suspended = False
        """Whether no chain of USDT lets withdrawals out."""
        self.streams = BybitStreams(self)
        self.routes = BybitRoutes(self)
        self.previous_positions: list[object] | None = None

    @property
    def listings(self) -> Mapping[str, payloads.Listing]:
        """By Bybit's id; markets may be added while the venue runs."""
        return payloads.listed(tuple(self.exchange.markets))

    # Authentication and rate limits

    def check(self, ask: Ask) -> None:
        if ask.path.startswith(("/v5/market/", "/v5/system/")):
            return
        head = ask.headers
        stamp, window = head.get("X-BAPI-TIMESTAMP", ""), head.get("X-BAPI-RECV-WINDOW", "5000")
        if head.get("X-BAPI-API-KEY") != KEY:
            raise RefusedError(self.no(10003, "API key is invalid."))
        what = ask.query if ask.method == "GET" else ask.body
        if not hmac.compare_digest(head.get("X-BAPI-SIGN", ""), payloads.signed(f"{stamp}{KEY}{window}{what}")):
            raise RefusedError(self.no(10004, "Error sign, please check your signature generation algorithm."))
        if not -1000 < self.now_ms() - int(stamp) <= int(window):
            raise RefusedError(self.no(10002, "invalid request, please check your server timestamp"))

    def units(self, ask: Ask) -> Mapping[str, int]:
        counted = {"ip": 1}
        if ask.route in UNITS:
            counted[UNITS[ask.route]] = len(ask.params.get("request", ())) or 1
        return counted

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        listing = self.listings.get(str(ask.params.get("symbol", "")))
        symbols = (listing.symbol,) if listing else ()
        by_name = bool(ask.params.get("orderLinkId") or ask.params.get("orderId"))
        match ask.route:
            case "GET /v5/position/list":
                main = ask.params.get("category") == "linear" and ask.params.get("settleCoin", "USDT") == "USDT"
                return ("snapshot", ()) if main and not ask.params.get("cursor") else None
            case "GET /v5/account/wallet-balance":
                return ("snapshot", ()) if self.exchange.mode == "spot" else None
            case "POST /v5/order/create":
                return ("submit", symbols)
            case "POST /v5/order/create-batch":
                rows = ask.params.get("request", ())
                return ("submit_batch", tuple(self.listings[it["symbol"]].symbol for it in rows))
            case "POST /v5/order/cancel":
                return ("cancel", symbols)
            case "GET /v5/order/realtime":
                return ("find_order", symbols) if by_name else ("open_orders", ())
            case "GET /v5/execution/list":
                return ("fills", symbols) if by_name else None
            case "POST /v5/order/disconnected-cancel-all":
                return ("dead_man", ())
            case "POST /v5/asset/transfer/universal-transfer":
                return ("transfer", ())
        return None

    # Payloads

    def no(self, code: int, text: str, **headers: str) -> Reply:
        return Reply(
            {"retCode": code, "retMsg": text, "result": {}, "retExtInfo": {}, "time": self.now_ms()}, 200, headers
        )

    def yes(self, result: Mapping[str, object], more: Mapping[str, object] | None = None) -> Reply:
        return Reply({"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": more or {}, "time": self.now_ms()})

    def refused(self, error: OrderRejectedError) -> Reply:
        return self.no(*self.code(error))

    def code(self, error: OrderRejectedError) -> tuple[int, str]:
        code, text = REJECTIONS[error.reason]
        if self.exchange.mode == "spot":
            code, text = SPOT_REJECTIONS.get(error.reason, (code, text))
        if error.reason == "market_closed":
            if "reduce-only" in str(error):
                code, text = 110023, "Currently you can only reduce your positions on this contract."
            elif "delisted" in str(error) or "unknown" in str(error):
                code, text = 110074, "This contract is not live"
        return code, f"{text} ({error})"

    def limited(self, wait: float) -> Reply:
        now = self.now_ms()
        return self.no(
            10006, "Too many visits. Exceeded the API Rate Limit.",
            **{"X-Bapi-Limit-Status": "0", "X-Bapi-Limit-Reset-Timestamp": str(now + int(wait * 1000))},
        )  # fmt: skip

    def down(self) -> Reply:
        return Reply("<html><head><title>503 Service Temporarily Unavailable</title></head></html>", 503)

    def lie(self, mishap: Mishap, ask: Ask, reply: Reply) -> Reply:
        body: dict[str, Any] = json.loads(reply.text)
        result = body.get("result") or {}
        rows: list[Any] = result.get("list") or []
        match mishap:
            case "empty":
                result["list"] = []
            case "page":
                result["list"] = rows_without_one(rows)
            case "sign" | "nan":
                for row in rows[:1]:
                    row["size"] = "-" + row["size"] if mishap == "sign" else "NaN"
            case "stale" | "lagging":
                result["list"] = rows if self.previous_positions is None else self.previous_positions
            case "nonsense":
                for row in rows or [result]:
                    row["orderLinkId"], row["orderId"] = "someone-elses", payloads.order_id("x999999")
            case "defect":
                body["result"] = [None]
        return Reply(body, reply.status, reply.headers)

    # Requests

    def answer(self, ask: Ask) -> Reply:
        handler: Callable[[Mapping[str, Any]], Reply] | None = getattr(self.routes, _route_method(ask.route), None)
        if handler is None:
            raise NotImplementedError
        reply = handler(ask.params)
        name = UNITS.get(ask.route)
        if name is None:
            return reply
        allowed = next(it.allowed for it in self.limits if it.name == name)
        left = str(max(0, allowed - self.used[name]))
        heads = {
            "X-Bapi-Limit": str(allowed), "X-Bapi-Limit-Status": left,
            "X-Bapi-Limit-Reset-Timestamp": str(self.now_ms()),
        }  # fmt: skip
        return Reply(reply.body, reply.status, {**heads, **reply.headers})

    def wallet(self) -> dict[str, object]:
        """The unified account: totals in dollars, which are the ledger's unit of account."""
        return payloads.wallet(self.book("equity"))

    @property
    def timed(self) -> tuple[str, ...]:
        """What disconnection protection guards, or is about to cancel."""
        return ("DERIVATIVES",) * self.streams.is_guarding

    @property
    def subscribed(self) -> tuple[str, ...]:
        """Topics that an open connection has subscribed to."""
        return tuple(sorted(self.streams.topics)) if self.sockets else ()

    async def stream(self, socket: Any, ask: Ask, updated: asyncio.Event) -> None:
        await self.streams.serve(socket, ask, updated)

    async def stop(self) -> None:
        self.streams.stop()
        await super().stop()


def _route_method(route: str) -> str:
    method, _, path = route.partition(" ")
    return method.lower() + "_" + path.removeprefix("/v5/").replace("/", "_").replace("-", "_")
