"""Binance's USD-M futures on loopback: its paths, signatures, limits and payloads over an exchange of ours.

Written from the venue's documents and from the requests of the real client; weights and order limits are the documented
ones. A client order id is accepted once and never again; the venue itself only checks the open orders.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from aiohttp import web

from killswitch.model.venue import Call, OrderRejectedError, RateLimit
from tests.faults.exchange import ZERO, Exchange, Placed
from tests.faults.mishaps import Mishap
from tests.faults.wire import LAG
from tests.wire.binance import orders as orders
from tests.wire.binance import payloads as payloads
from tests.wire.binance.public import PUBLIC, public_answer
from tests.wire.binance.stream import serve
from tests.wire.binance.wallets import listed, move
from tests.wire.server import KEY, LISTEN_KEY, SECRET, Ask, RefusedError, Reply, WireVenue

REFUSALS_BEFORE_A_BAN: Final = 5
"""Refusals in a row for too many requests before the address is banned."""
BAN: Final = 120.0
WEIGHTS: Final[Mapping[str, tuple[int, int]]] = {
    "GET /fapi/v2/account": (5, 5), "GET /fapi/v3/account": (5, 5), "GET /fapi/v2/balance": (5, 5),
    "GET /fapi/v3/balance": (5, 5), "GET /fapi/v2/positionRisk": (5, 5), "GET /fapi/v3/positionRisk": (5, 5),
    "GET /fapi/v1/positionSide/dual": (30, 30), "GET /fapi/v1/multiAssetsMargin": (30, 30),
    "GET /fapi/v1/openOrders": (1, 40), "GET /fapi/v1/openAlgoOrders": (1, 40), "GET /fapi/v1/userTrades": (5, 5),
    "GET /fapi/v1/income": (30, 30), "GET /fapi/v1/accountConfig": (5, 5), "GET /fapi/v1/premiumIndex": (1, 10),
    "GET /fapi/v1/ticker/bookTicker": (2, 5), "GET /fapi/v1/ticker/24hr": (1, 40),
    "GET /fapi/v1/ticker/price": (1, 2), "GET /fapi/v1/forceOrders": (20, 50), "GET /fapi/v1/apiTradingStatus": (1, 10),
    "POST /fapi/v1/countdownCancelAll": (10, 10), "POST /fapi/v1/batchOrders": (5, 5), "GET /fapi/v1/klines": (5, 5),
    "POST /fapi/v1/order": (0, 0), "POST /fapi/v1/algoOrder": (0, 0), "GET /fapi/v1/assetIndex": (1, 10),
}  # fmt: skip
"""Weight with a symbol, and without one; 1 for every other route."""
CALLS: Final[Mapping[str, Call]] = {
    "GET /fapi/v2/positionRisk": "snapshot", "GET /fapi/v3/positionRisk": "snapshot", "POST /fapi/v1/order": "submit",
    "POST /fapi/v1/algoOrder": "submit", "POST /fapi/v1/batchOrders": "submit_batch",
    "GET /fapi/v1/order": "find_order",
    "GET /fapi/v1/openOrders": "open_orders", "GET /fapi/v1/userTrades": "fills",
    "DELETE /fapi/v1/order": "cancel", "DELETE /fapi/v1/algoOrder": "cancel",
    "POST /fapi/v1/countdownCancelAll": "dead_man", "POST /sapi/v1/asset/transfer": "transfer",
}  # fmt: skip
ORDERS: Final[Mapping[str, Callable[[BinanceWire, Ask], object]]] = {
    "POST /fapi/v1/order": orders.place, "POST /fapi/v1/algoOrder": orders.place_algo,
    "POST /fapi/v1/batchOrders": orders.place_all, "GET /fapi/v1/order": orders.find,
    "GET /fapi/v1/algoOrder": orders.find_algo, "DELETE /fapi/v1/order": orders.cancel,
    "DELETE /fapi/v1/algoOrder": orders.cancel_algo, "DELETE /fapi/v1/allOpenOrders": orders.cancel_all,
    "POST /fapi/v1/countdownCancelAll": orders.count_down, "GET /fapi/v1/userTrades": orders.trades,
    "GET /fapi/v1/forceOrders": orders.forced, "GET /fapi/v1/income": orders.incomes,
    "PUT /fapi/v1/order": orders.change, "GET /fapi/v1/allOrders": orders.every,
    "POST /fapi/v1/leverage": orders.set_leverage, "POST /fapi/v1/marginType": orders.set_margin_type,
}  # fmt: skip


class BinanceWire(WireVenue):
    """USD-M futures: one-way and hedge mode. `incomes` are rows of the income history, in the venue's format."""

    limits: ClassVar[tuple[RateLimit, ...]] = (
        RateLimit("weight", 2400, 60.0, by="address"),
        RateLimit("orders-10s", 300, 10.0),
        RateLimit("orders-1m", 1200, 60.0),
    )

    def __init__(self, exchange: Exchange, *, multi_assets: bool = False, **more: Any) -> None:
        """`assets` and `indexes` (USD) are the ledger's wallets and prices; `rights` are the key's permissions.

        `fees_in`: an asset and its price, if fees are not charged in the settlement asset.
        """
        super().__init__(exchange, **more)
        self.multi_assets = multi_assets
        self.assets, self.indexes = self.ledger.wallets, self.ledger.prices
        self.min_notional = Decimal("0.01")
        self.fees_in: tuple[str, Decimal] | None = None
        self.incomes: list[dict[str, Any]] = []
        self.wallets: dict[str, Decimal] = {"MAIN": Decimal(5000), "CMFUTURE": ZERO}
        """USDT in the owner's wallets other than this account."""
        self.transfers: list[dict[str, Any]] = []
        """Transfers between wallets, in the venue's format, the newest first."""
        self.hidden_transfers = False
        """Whether the list of transfers is late, and lacks all of them."""
        self.rights: dict[str, Any] = {
            "ipRestrict": True, "createTime": 1623840271000, "enableReading": True, "enableFutures": True,
            "enableWithdrawals": False, "enableInternalTransfer": False, "permitsUniversalTransfer": False,
            "enableMargin": False, "enableSpotAndMarginTrading": False, "enableVanillaOptions": False,
            "enablePortfolioMarginTrading": False,
        }  # fmt: skip
        self.planned_answers: list[tuple[str, int, int, str, bool]] = []
        self.listen_keys: set[str] = set()
        self.is_suspended = False
        """Whether no chain of USDT lets withdrawals out."""
        self.triggers: dict[str, Decimal] = {}
        self._past_positions: deque[tuple[float, Reply]] = deque(maxlen=50)
        self._limited_in_a_row = 0
        self._banned_until = 0.0
        self.timers: dict[str, asyncio.TimerHandle] = {}

    def answer_next(self, route: str, code: int, text: str, status: int = 400, *, done: bool = False) -> None:
        """Refuse the next request on a route with this answer; with `done` it is executed all the same."""
        self.planned_answers.append((route, code, status, text, done))

    @property
    def timed(self) -> tuple[str, ...]:
        """Symbols with a running countdown."""
        now = asyncio.get_running_loop().time()
        return tuple(name for name, timer in self.timers.items() if not timer.cancelled() and timer.when() > now)

    @property
    def subscribed(self) -> tuple[str, ...]:
        """Every connection with a listen key receives all events."""
        return ("user data",) * bool(self.sockets)

    async def stop(self) -> None:
        for timer in self.timers.values():
            timer.cancel()
        await super().stop()

    # The methods of every venue

    def answer(self, ask: Ask) -> Reply:
        planned = next((it for it in self.planned_answers if it[0] == ask.route), None)
        if planned is not None:
            self.planned_answers.remove(planned)
            if planned[4]:
                self._answer(ask)
            raise payloads.refuse(planned[1], planned[3], planned[2])
        self._limited_in_a_row = 0
        return self._answer(ask)

    def _answer(self, ask: Ask) -> Reply:
        self.remember_triggers()
        if ask.route in PUBLIC:
            return Reply(public_answer(self, ask))
        handler: Callable[[Ask], object] | None = self._handlers().get(ask.route)
        if handler is None:
            raise NotImplementedError
        return Reply(handler(ask))

    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        call = CALLS.get(ask.route)
        if call is None:
            return None
        if call == "submit_batch":
            return call, tuple(self.symbol(row["symbol"]) for row in json.loads(ask.params["batchOrders"]))
        by_symbol = "symbol" in ask.params and call not in ("snapshot", "open_orders")
        return call, (self.symbol(ask.params["symbol"]),) if by_symbol else ()

    def check(self, ask: Ask) -> None:
        if self.now()[0] < self._banned_until:
            raise RefusedError(self._ban())
        if ask.route in PUBLIC:
            return
        key = ask.headers.get("X-MBX-APIKEY")
        if key is None:
            raise payloads.refuse(-2014, "API-key format invalid.", 401)
        if key != KEY:
            raise payloads.refuse(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        if ask.path.endswith("/listenKey"):
            return
        signed, _, signature = (ask.query + ask.body).rpartition("&signature=")
        if not signed or "timestamp" not in ask.params:
            raise payloads.refuse(-1102, "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.")
        if not hmac.compare_digest(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest(), signature):
            raise payloads.refuse(-1022, "Signature for this request is not valid.")
        age = self.now_ms() - int(ask.params["timestamp"])
        if age > int(ask.params.get("recvWindow", 5000)):
            raise payloads.refuse(-1021, "Timestamp for this request is outside of the recvWindow.")
        if age < -1000:
            raise payloads.refuse(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")

    def refused(self, error: OrderRejectedError) -> Reply:
        return Reply(payloads.refusal(error, reduce_only_regime="reduce-only" in str(error)), 400)

    def limited(self, wait: float) -> Reply:
        self._limited_in_a_row += 1
        if self._limited_in_a_row > REFUSALS_BEFORE_A_BAN:
            self._banned_until = self.now()[0] + BAN
            return self._ban()
        text = "Too many requests; current limit is 2400 requests per minute."
        return Reply({"code": -1003, "msg": text}, 429, {"Retry-After": str(math.ceil(wait))})

    def _ban(self) -> Reply:
        left = math.ceil(self._banned_until - self.now()[0])
        text = f"Way too many requests; IP banned until {self.now_ms() + 1000 * left}."
        return Reply({"code": -1003, "msg": text}, 418, {"Retry-After": str(left)})

    def down(self) -> Reply:
        text = "Internal error; unable to process your request. Please try again."
        return Reply({"code": -1001, "msg": text}, 503)

    def units(self, ask: Ask) -> Mapping[str, int]:
        with_symbol, without = WEIGHTS.get(ask.route, (1, 1))
        units = {"weight": with_symbol if "symbol" in ask.params else without}
        if ask.route in ("POST /fapi/v1/order", "POST /fapi/v1/algoOrder"):
            units |= {"orders-10s": 1, "orders-1m": 1}
        if ask.route == "POST /fapi/v1/batchOrders":
            units |= {"orders-10s": 5, "orders-1m": 1}
        return {name: count for name, count in units.items() if count and ask.path.startswith("/fapi")}

    def used_headers(self, used: Mapping[str, int]) -> Mapping[str, str]:
        names = {"weight": "X-MBX-USED-WEIGHT-1M", "orders-10s": "X-MBX-ORDER-COUNT-10S",
                 "orders-1m": "X-MBX-ORDER-COUNT-1M"}  # fmt: skip
        return {names[name]: str(count) for name, count in used.items() if name in names}

    def lie(self, mishap: Mishap, ask: Ask, reply: Reply) -> Reply:
        if reply.status != 200:
            return reply
        if mishap in ("stale", "lagging") and "positionRisk" in ask.path:
            since = self.now()[0] - LAG
            return next((older for at, older in self._past_positions if at >= since), reply)
        if isinstance(reply.body, list):
            return Reply(orders.wrong_rows(mishap, reply.body), headers=reply.headers)
        if mishap == "empty" and ask.method == "GET":
            return payloads.refuse(-2013, "Order does not exist.").reply
        return Reply(orders.wrong_order(mishap, reply.body), headers=reply.headers)

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        await serve(self, socket, ask, updated)

    # Symbols

    def symbol(self, market_id: str) -> str:
        """The exchange's symbol of a market id."""
        for symbol in self.exchange.markets:
            if payloads.market_id(symbol) == market_id:
                return symbol
        raise payloads.refuse(-1121, "Invalid symbol.")

    # Actions

    def _handlers(self) -> Mapping[str, Callable[[Ask], object]]:
        return {
            "GET /fapi/v2/account": self._account, "GET /fapi/v3/account": self._account,
            "GET /fapi/v2/balance": self._balances, "GET /fapi/v3/balance": self._balances,
            "GET /fapi/v2/positionRisk": self._positions, "GET /fapi/v3/positionRisk": self._positions,
            "GET /fapi/v1/positionSide/dual": lambda _: {"dualSidePosition": self.exchange.mode == "hedge"},
            "GET /fapi/v1/multiAssetsMargin": lambda _: {"multiAssetsMargin": self.multi_assets},
            "GET /fapi/v1/openOrders": lambda ask: self._open(ask, waiting=False),
            "GET /fapi/v1/openAlgoOrders": lambda ask: self._open(ask, waiting=True),
            "GET /fapi/v1/accountConfig": self._config,
            "GET /fapi/v1/apiTradingStatus": lambda _: {"indicators": {}, "updateTime": self.now_ms()},
            "GET /fapi/v1/leverageBracket": self._brackets,
            "GET /sapi/v1/account/apiRestrictions": lambda _: self.rights,
            "GET /sapi/v1/capital/config/getall": lambda _: [
                {"coin": "BTC", "withdrawAllEnable": True, "networkList": [{"network": "BTC", "withdrawEnable": True}]},
                {
                    "coin": "USDT", "withdrawAllEnable": True,
                    "networkList": [
                        {"network": "ETH", "withdrawEnable": False},
                        {"network": "TRX", "withdrawEnable": not self.is_suspended},
                    ],
                },
            ],
            "POST /sapi/v1/asset/transfer": lambda ask: move(self, ask.params),
            "GET /sapi/v1/asset/transfer": lambda ask: listed(self, ask.params),
            "POST /fapi/v1/listenKey": self._listen_key, "PUT /fapi/v1/listenKey": self._listen_key,
            "DELETE /fapi/v1/listenKey": lambda _: {},
            **{route: partial(handler, self) for route, handler in ORDERS.items()},
        }  # fmt: skip

    def _brackets(self, ask: Ask) -> object:
        bracket = {"bracket": 1, "initialLeverage": 20, "notionalCap": 10_000_000, "notionalFloor": 0,
                   "maintMarginRatio": 0.02, "cum": 0}  # fmt: skip
        return [{"symbol": payloads.market_id(it), "brackets": [bracket]} for it in self.exchange.markets]

    def _account(self, ask: Ask) -> object:
        """The account; in the third version, accountConfig holds the setting for several margin assets."""
        body = payloads.account_body(self)
        return body if "/v2/" in ask.path else {name: it for name, it in body.items() if name != "multiAssetsMargin"}

    def _balances(self, ask: Ask) -> object:
        body = payloads.account_body(self)
        return [{**row, "balance": row["walletBalance"]} for row in body["assets"]]

    def position_rows(self) -> list[dict[str, Any]]:
        """The open positions, and nothing else."""
        book = self.book("positions")
        return [payloads.position_row(self.exchange, book, key, self.now_ms()) for key in book.lots]

    def _positions(self, ask: Ask) -> object:
        rows = [row for row in self.position_rows() if ask.params.get("symbol", row["symbol"]) == row["symbol"]]
        self._past_positions.append((self.now()[0], Reply(rows)))
        return rows

    def _config(self, ask: Ask) -> object:
        hedge = self.exchange.mode == "hedge"
        return {"feeTier": 0, "canTrade": True, "canDeposit": True, "canWithdraw": True, "dualSidePosition": hedge,
                "updateTime": 0, "multiAssetsMargin": self.multi_assets, "tradeGroupId": -1}  # fmt: skip

    def _listen_key(self, ask: Ask) -> object:
        self.listen_keys.add(LISTEN_KEY)
        return {"listenKey": LISTEN_KEY}

    def _open(self, ask: Ask, *, waiting: bool) -> object:
        mine = [it for it in self.exchange.orders.values() if it.state == "open" and it.waits is waiting]
        wanted = [it for it in mine if ask.params.get("symbol") in (None, payloads.market_id(it.symbol))]
        return [self.algo(it) if waiting else self.row(it) for it in wanted]

    def row(self, order: Placed) -> dict[str, Any]:
        """An order in the venue's format."""
        return payloads.order_row(self.exchange, order, self.now_ms())

    def algo(self, order: Placed) -> dict[str, Any]:
        """A conditional order in the venue's format."""
        return payloads.algo_row(self.exchange, order, self.triggers.get(order.id, ZERO), self.now_ms())

    def remember_triggers(self) -> None:
        """Record the trigger prices of waiting orders, which are numbered and listed separately."""
        for order in self.exchange.orders.values():
            if order.waits and order.trigger_price is not None:
                self.triggers[order.id] = order.trigger_price
