"""Alpaca on loopback: trading API v2, the quotes and bars of its data API, and the stream `trade_updates`.

Shares trade during the hours of New York in summer, on weekdays; coins trade always. Outside hours, orders for shares
wait for the opening, or are limit orders of the extended session.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from aiohttp import web

from killswitch.model.snapshot import Fill, Side
from killswitch.model.venue import Call, OrderRejectedError, OrderRequest, RateLimit
from tests.faults.exchange import ZERO, Exchange, Key, Placed
from tests.faults.mishaps import Mishap
from tests.wire.alpaca.payloads import (
    EASTERN,
    asset,
    compact,
    covered,
    fill_activity,
    is_crypto,
    move_activity,
    order,
    position,
    stamp,
    text,
    uuid_of,
)
from tests.wire.alpaca.stream import serve
from tests.wire.ledger import Contract
from tests.wire.server import KEY, SECRET, Ask, RefusedError, Reply, WireVenue, rows_without_one

OPEN, CLOSE, EARLY, LATE_CLOSE = time(9, 30), time(16, 0), time(4, 0), time(20, 0)
CODES: Mapping[str, tuple[int, int, str]] = {
    "duplicate_client_order_id": (422, 40010001, "client_order_id must be unique"),
    "market_closed": (422, 42210000, "asset is not tradable"),
    "below_minimum": (403, 40310000, "cost basis must be >= minimal amount of order 1"),
    "above_maximum": (403, 40310000, "cost basis must be <= maximum amount of order 200000"),
    "insufficient_margin": (403, 40310000, "insufficient buying power"),
}


class AlpacaWire(WireVenue):
    """One account. Each case sets `configuration`, `account_flags`, `moves` and `rows` (further fields of orders)."""

    limits: ClassVar[tuple[RateLimit, ...]] = (RateLimit("requests", 200, 60.0),)
    currency = "USD"

    def __init__(self, exchange: Exchange, *, fractionable: bool = True, **more: Any) -> None:
        super().__init__(exchange, **more)
        self.fractionable = fractionable
        self.configuration: dict[str, Any] = {
            "dtbp_check": "entry", "fractional_trading": True, "max_margin_multiplier": "4", "no_shorting": False,
            "pdt_check": "entry", "suspend_trade": False, "trade_confirm_email": "all", "ptp_no_exception_entry": False,
        }  # fmt: skip
        self.account_flags: dict[str, Any] = {}
        self.assets: dict[str, dict[str, Any]] = {}
        """Symbol → fields of its asset that differ."""
        self.moves: list[dict[str, Any]] = []
        """Activities that are not trades, the newest first."""
        self.rows: dict[str, dict[str, Any]] = {}
        """The fields of an order that only Alpaca knows, by the exchange's id."""
        self.queued: set[str] = set()
        """Orders that wait for the opening, by the exchange's id."""
        self.placed_at: dict[str, datetime] = {}
        self.bodies: list[dict[str, Any]] = []
        """The body of every order, as sent."""
        self.bars: dict[str, list[dict[str, Any]]] = {}
        self.adjustments: list[str | None] = []
        """The `adjustment` of each request for bars."""
        self.traded_at: dict[str, datetime] = {}
        """The time of a symbol's last trade, if it is not now."""
        self.mute = False
        """The stream stays open and sends nothing more, not even a pong."""
        self.revoked = False
        """Keys are refused."""
        self.round_the_clock = False
        """The regular session never ends."""
        self.suspensions: list[tuple[bool, int]] = []
        """Each change of `suspend_trade`: its value, and the number of positions held then."""
        self.subscribed: list[str] = []
        """The streams with a subscriber."""
        self._initial_equity = self.ledger.equity

    # Hours

    def session(self, at: datetime | None = None) -> str:
        local = (at or self.now()[1]).astimezone(EASTERN)
        if self.round_the_clock:
            return "regular"
        if local.weekday() >= 5:
            return "closed"
        if OPEN <= local.time() < CLOSE:
            return "regular"
        return "extended" if EARLY <= local.time() < LATE_CLOSE else "closed"

    def _next(self, clock: time) -> datetime:
        local = self.now()[1].astimezone(EASTERN)
        for ahead in range(8):
            day = local.date() + timedelta(days=ahead)
            moment = datetime.combine(day, clock, EASTERN)
            if moment > local and day.weekday() < 5:
                return moment
        raise AssertionError("a week has a weekday")

    def _fill_queued(self) -> None:
        """Trade the queued orders once the market is open."""
        if self.session() != "regular":
            return
        for name in sorted(self.queued):
            it = self.exchange.orders[name]
            if it.state == "open":
                self.exchange.match(it)
                self.exchange.notify_listeners()
        self.queued.clear()

    # The server's requests

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        path = ask.path
        if ask.method == "POST" and path == "/v2/orders":
            return "submit", (str(ask.params.get("symbol")),)
        if ask.method == "DELETE" and path.startswith("/v2/orders/"):
            it = self._by_uuid(path.rpartition("/")[2])
            return "cancel", (it.symbol if it else "",)
        if ask.method != "GET":
            return None
        if path == "/v2/positions":
            return "snapshot", ()
        if path == "/v2/orders:by_client_order_id":
            found = self.exchange.names.get(str(ask.params.get("client_order_id")))
            return "find_order", (self.exchange.orders[found].symbol if found else "",)
        calls: dict[str, Call] = {"/v2/orders": "open_orders", "/v2/account/activities/FILL": "fills"}
        return (calls[path], ()) if path in calls else None

    def check(self, ask: Ask) -> None:
        if ask.path.startswith("/v1beta3/crypto/"):
            return
        keys = ask.headers.get("APCA-API-KEY-ID"), ask.headers.get("APCA-API-SECRET-KEY")
        if keys != (KEY, SECRET) or self.revoked:
            raise _refusal(401, 40110000, "request is not authorized")

    def refused(self, error: OrderRejectedError) -> Reply:
        status, code, message = CODES.get(error.reason, (422, 42210000, str(error)))
        return _refusal(status, code, message).reply

    def limited(self, wait: float) -> Reply:
        reset = {"X-RateLimit-Reset": str(int(self.now()[1].timestamp() + wait) + 1), "Retry-After": f"{wait:g}"}
        return Reply({"code": 42910000, "message": "rate limit exceeded"}, 429, reset)

    def down(self) -> Reply:
        return Reply({"code": 50310000, "message": "service unavailable"}, 503)

    def units(self, ask: Ask) -> Mapping[str, int]:
        data = ask.path.startswith(("/v2/stocks/", "/v1beta3/"))
        return {} if data else {"requests": 1}

    def used_headers(self, used: Mapping[str, int]) -> Mapping[str, str]:
        return {"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": str(max(0, 200 - used.get("requests", 0)))}

    def lie(self, mishap: Mishap, ask: Ask, reply: Reply) -> Reply:
        if ask.path == "/v2/positions":
            if mishap == "empty":
                return Reply([])
            if mishap == "page" and isinstance(reply.body, list):
                return Reply(rows_without_one(reply.body))
        if mishap == "empty" and ask.path == "/v2/orders:by_client_order_id":
            return _refusal(404, 40410000, "order not found").reply
        if mishap in ("nonsense", "defect") and isinstance(reply.body, dict) and "client_order_id" in reply.body:
            return Reply(reply.body | {"client_order_id": "somebody-else"})
        return reply

    def answer(self, ask: Ask) -> Reply:
        self._fill_queued()
        path, params = ask.path, ask.params
        if path == "/v2/orders" and ask.method == "POST":
            return Reply(self._place(params))
        if path.startswith("/v2/orders/") and ask.method == "DELETE":
            return self._cancel(path.rpartition("/")[2])
        if path == "/v2/account/configurations" and ask.method == "PATCH":
            changes = json.loads(ask.body)
            self.configuration |= changes
            if "suspend_trade" in changes:
                held = sum(amount > ZERO for amount in self.exchange.held.values())
                self.suspensions.append((changes["suspend_trade"], held))
            return Reply(self.configuration)
        if ask.method != "GET":
            raise NotImplementedError
        without_params: dict[str, Callable[[], object]] = {
            "/v2/account": self.account_answer,
            "/v2/positions": self.list_positions,
            "/v2/clock": self.clock_answer,
            "/v2/account/configurations": lambda: self.configuration,
        }
        if path in without_params:
            return Reply(without_params[path]())
        with_params: dict[str, Callable[[Mapping[str, Any]], object]] = {
            "/v2/orders": self._orders,
            "/v2/orders:by_client_order_id": self._find,
            "/v2/calendar": self._calendar,
            "/v2/account/activities/FILL": self.list_fills,
            "/v2/account/activities": self._activities,
            "/v2/assets": self._assets,
            "/v2/stocks/quotes/latest": self._quotes,
            "/v2/stocks/trades/latest": self._last_trades,
            "/v1beta3/crypto/us/latest/trades": self._last_trades,
            "/v1beta3/crypto/us/latest/quotes": self._quotes,
            "/v1beta3/crypto/us/bars": self._bars,
            "/v2/stocks/bars": self._bars,
        }
        if path in with_params:
            return Reply(with_params[path](params))
        if path.startswith("/v2/assets/"):
            return Reply(self._asset(path.rpartition("/")[2]))
        raise NotImplementedError

    # The account

    def contract(self, symbol: str) -> Contract:
        return Contract("USD")

    def fee(self, fill: Fill) -> Decimal:
        return ZERO

    def account_answer(self) -> dict[str, Any]:
        """Cash is the equity without the value of what is held; the moves that a test has planted are included."""
        book = self.book("equity")
        values = [lot.amount * book.marks[key[0]] * (1 if key[1] == "long" else -1) for key, lot in book.lots.items()]
        longs, shorts = (sum((it for it in values if (it > ZERO) is long), ZERO) for long in (True, False))
        planted = sum((Decimal(it.get("net_amount") or 0) for it in self.moves), ZERO)
        holdings_value, equity = longs + shorts, book.equity + planted
        cash = equity - holdings_value
        return {
            "id": uuid_of("account"),
            "account_number": "PA3PLANTED00",
            "status": "ACTIVE",
            "crypto_status": "ACTIVE",
            "currency": "USD",
            "buying_power": text(2 * cash),
            "cash": text(cash),
            "equity": text(equity),
            "last_equity": text(self._initial_equity),
            "portfolio_value": text(equity),
            "long_market_value": text(longs),
            "short_market_value": text(shorts),
            "initial_margin": text((longs - shorts) / 2),
            "maintenance_margin": text((longs - shorts) * 3 / 10),
            "multiplier": "2",
            "shorting_enabled": True,
            "account_blocked": False,
            "trading_blocked": False,
            "transfers_blocked": False,
            "trade_suspended_by_user": self.configuration["suspend_trade"],
            "pattern_day_trader": False,
            "daytrade_count": 0,
            "created_at": "2020-01-01T00:00:00Z",
        } | self.account_flags

    def list_positions(self) -> list[dict[str, Any]]:
        book = self.book("positions")
        return [position(self.exchange, book, key) for key in book.lots]

    def clock_answer(self) -> dict[str, Any]:
        return {
            "timestamp": self.now()[1].astimezone(EASTERN).isoformat(),
            "is_open": self.session() == "regular",
            "next_open": self._next(OPEN).isoformat(),
            "next_close": self._next(CLOSE).isoformat(),
        }

    def _calendar(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        day, end = (datetime.fromisoformat(params[name]).date() for name in ("start", "end"))
        found = []
        while day <= end:
            if day.weekday() < 5:
                hours = {"open": "09:30", "close": "16:00", "session_open": "0400", "session_close": "2000"}
                found.append({"date": str(day), **hours})
            day += timedelta(days=1)
        return found

    def _asset(self, name: str) -> dict[str, Any]:
        symbol = next((it for it in self.exchange.markets if compact(it) == compact(name)), None)
        if symbol is None:
            raise _refusal(404, 40410000, f"asset not found for {name}")
        market = self.exchange.markets[symbol]
        found = asset(symbol, market.minimum, market.step, fractionable=self.fractionable)
        if market.state in ("halted", "cancel_only"):
            found["tradable"] = False
        if market.state == "delisted":
            found |= {"status": "inactive", "tradable": False}
        return found | self.assets.get(symbol, {})

    def _assets(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = [self._asset(symbol) for symbol in self.exchange.markets]
        return [it for it in found if it["class"] == params.get("asset_class", "us_equity")]

    def list_fills(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        after = params.get("after")
        since = datetime.fromisoformat(after) if after else datetime.min.replace(tzinfo=UTC)
        found = [fill_activity(it, whole=True) for it in self.ledger.fills() if it.at >= since]
        found = found[::-1] if params.get("direction") == "desc" else found
        token = params.get("page_token")
        if token:
            found = found[[it["id"] for it in found].index(token) + 1 :]
        return found[: int(params.get("page_size", 100))]

    def _activities(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        if params.get("category") != "non_trade_activity":
            raise NotImplementedError
        booked = [move_activity(it) for it in self.ledger.shown() if it.fill is None]
        return [*booked[::-1], *self.moves][: int(params.get("page_size", 100))]

    # Orders

    def row_of(self, it: Placed) -> dict[str, Any]:
        more = dict(self.rows.get(it.id, {}))
        if it.id in self.queued and it.state == "open":
            more["status"] = "accepted"
        return order(it, self.placed_at.get(it.id, datetime(2021, 5, 1, tzinfo=UTC)), more)

    def _by_uuid(self, name: str) -> Placed | None:
        return next((it for it in self.exchange.orders.values() if uuid_of(it.id) == name), None)

    def _orders(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        if params.get("status") != "open":
            raise NotImplementedError
        found = [self.row_of(it) for it in self.exchange.orders.values() if it.state == "open"]
        found.sort(key=lambda it: it["submitted_at"])
        after = params.get("after")
        if after:
            since = datetime.fromisoformat(after)
            found = [it for it in found if datetime.fromisoformat(it["submitted_at"]) > since]
        return found[: int(params.get("limit", 50))]

    def _find(self, params: Mapping[str, Any]) -> dict[str, Any]:
        found = self.exchange.names.get(str(params.get("client_order_id")))
        if found is None:
            raise _refusal(404, 40410000, "order not found")
        return self.row_of(self.exchange.orders[found])

    def _cancel(self, name: str) -> Reply:
        it = self._by_uuid(name)
        if it is None:
            raise _refusal(404, 40410000, f"order not found for {name}")
        if it.state != "open":
            raise _refusal(422, 42210000, f'order is already in "{it.state}" state')
        self.exchange.cancel(it.id)
        self.queued.discard(it.id)
        return Reply("", 204)

    def _place(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self.bodies.append(dict(params))
        if self.configuration["suspend_trade"]:
            raise _refusal(403, 40310000, "new orders are rejected by user request")
        if self.account_flags.get("trading_blocked") or self.account_flags.get("account_blocked"):
            raise _refusal(403, 40310000, "account is not authorized to trade")
        symbol, name = str(params["symbol"]), str(params["client_order_id"])
        if name in self.exchange.names:
            raise _refusal(422, 40010001, "client_order_id must be unique")
        if symbol not in self.exchange.markets:
            raise _refusal(422, 42210000, f'asset "{symbol}" not found')
        key = self._checked_key(symbol, params)
        request = _request(params, key)
        waits = not is_crypto(symbol) and request.trigger_price is None and self.session() != "regular"
        if waits and not (params.get("extended_hours") and self.session() == "extended"):
            return self.row_of(self._queue(request, key))
        report = self.exchange.place(request)
        self.placed_at[report.id] = self.now()[1]
        return self.row_of(self.exchange.orders[report.id])

    def _queue(self, request: OrderRequest, key: Key) -> Placed:
        it = Placed(
            self.exchange.next_id(), request.client_order_id, request.symbol, request.side, key, request.amount,
            reduce_only=False, type=request.type, price=request.price,
        )  # fmt: skip
        self.exchange.orders[it.id] = it
        self.exchange.names[request.client_order_id] = it.id
        self.queued.add(it.id)
        self.placed_at[it.id] = self.now()[1]
        self.exchange.notify_listeners()
        return it

    def _checked_key(self, symbol: str, params: Mapping[str, Any]) -> Key:
        """The position of the order, after the checks that Alpaca documents."""
        if not isinstance(params["qty"], str) or Decimal(params["qty"]) <= 0:
            raise _refusal(422, 40010001, "qty must be > 0")
        crypto, amount = is_crypto(symbol), Decimal(params["qty"])
        in_force, kind = params["time_in_force"], params["type"]
        if crypto and (in_force not in ("gtc", "ioc") or kind not in ("market", "limit", "stop_limit")):
            raise _refusal(422, 42210000, f"invalid crypto {kind} order with time_in_force {in_force}")
        if crypto and "position_intent" in params:
            raise _refusal(422, 40010001, "position_intent is not supported for crypto")
        if not crypto and amount % 1 and (in_force != "day" or not self.fractionable):
            raise _refusal(422, 42210000, "fractional orders must be DAY orders")
        if params.get("extended_hours") and (kind != "limit" or in_force != "day"):
            raise _refusal(422, 42210000, "extended hours order must be DAY limit orders")
        side: Side = "long" if params["side"] == "sell" else "short"
        key: Key = (symbol, side)
        held = self.exchange.held.get(key, ZERO)
        inferred = "close" if held else "open"
        wanted = str(params.get("position_intent") or inferred).rpartition("_")[2]
        if wanted != inferred:
            raise _refusal(
                422, 42210000,
                f"position intent mismatch, inferred: {params['side']}_to_{inferred}, "
                f"specified: {params['position_intent']}",
            )  # fmt: skip
        if held or (crypto and params["side"] == "sell"):
            resting = covered(self.exchange, key)
            if amount > held - resting:
                free = text(held - resting)
                raise RefusedError(
                    Reply(
                        {
                            "available": free, "code": 40310000, "existing_qty": text(held),
                            "held_for_orders": text(resting), "symbol": symbol,
                            "message": f"insufficient qty available for order (requested: {amount}, available: {free})",
                        },
                        403,
                    )
                )  # fmt: skip
            return key
        return (symbol, "short" if side == "long" else "long")

    # Prices

    def _quotes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        found = {
            symbol: {
                "t": stamp(self.now()[1]), "ax": "V", "ap": float(market.taken_at("buy")), "as": 1, "bx": "V",
                "bp": float(market.taken_at("sell")), "bs": 1, "c": ["R"], "z": "C",
            }
            for symbol, market in self.exchange.markets.items()
            if symbol in str(params["symbols"]).split(",")
        }  # fmt: skip
        return {"quotes": found}

    def _last_trades(self, params: Mapping[str, Any]) -> dict[str, Any]:
        wanted = str(params["symbols"]).split(",")
        found = {
            symbol: {"t": stamp(self.traded_at.get(symbol, self.now()[1])), "p": float(market.price), "s": 1}
            for symbol, market in self.exchange.markets.items()
            if symbol in wanted
        }
        return {"trades": found}

    def _bars(self, params: Mapping[str, Any]) -> dict[str, Any]:
        start, symbol = str(params["start"]), str(params["symbols"])
        self.adjustments.append(params.get("adjustment"))
        found = [it for it in self.bars.get(symbol, []) if it["t"] >= start][: int(params["limit"])]
        return {"bars": {symbol: found} if found else {}, "next_page_token": None}

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        await serve(self, socket, updated)


def _refusal(status: int, code: int, message: str) -> RefusedError:
    return RefusedError(Reply({"code": code, "message": message}, status))


def _request(params: Mapping[str, Any], key: Key) -> OrderRequest:
    stop, limit = params.get("stop_price"), params.get("limit_price")
    return OrderRequest(
        client_order_id=str(params["client_order_id"]),
        symbol=key[0],
        side=params["side"],
        position_side=key[1],
        amount=Decimal(params["qty"]),
        reduce_only=False,
        type="market" if limit is None else "limit",
        price=None if limit is None else Decimal(limit),
        time_in_force="ioc" if params["time_in_force"] == "ioc" else "gtc",
        trigger_price=None if stop is None else Decimal(stop),
        trigger_when=None if stop is None else ("falls" if params["side"] == "sell" else "rises"),
    )
