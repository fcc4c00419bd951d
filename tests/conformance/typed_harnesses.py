"""Harnesses for damaged answers at venues without a wire-level server: typed answers, and the paper venue over HTTP."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from aiohttp import web
from msgspec import Struct
from yarl import URL

from killswitch.conformance.harness import Key
from killswitch.conformance.mutations import Change
from killswitch.model.venue import AccountSpec, VenueAdapter
from killswitch_ccxt import adapter as ccxt
from killswitch_ccxt import client
from killswitch_paper import adapter as paper
from killswitch_paper.client import TOO_MANY
from tests.conformance.harnesses import BATCHES, PaperHarness
from tests.virtual_time import VirtualTime

T = TypeVar("T")


class Typed(Struct, frozen=True):
    """A venue's answers for one account, by question. `symbol`: that of the order asked for; `name`: its id."""

    exchange: str
    currency: str
    symbol: str
    name: str
    credentials: Mapping[str, str]
    answers: Mapping[str, Any]
    now: datetime
    market: str = "swap"
    signed: frozenset[str] = frozenset({"szi"})
    by_path: bool = False
    """Whether method and path say what is asked."""
    size: Decimal = Decimal("0.01")
    """Of the order that the answer to a submit is about."""

    def question(self, method: str, url: str, body: str | None) -> str:
        """The question of a request: method and path, or the type in its body."""
        if self.by_path:
            return f"{method} {urlsplit(url).path}"
        asked = json.loads(body) if body and body.startswith("{") else {}
        kind = asked.get("type") or (asked.get("action") or {}).get("type")
        return str(kind) if kind else url.partition("?")[0].rpartition("/api/v2/")[2]


class TypedHarness:
    """An account made of typed answers: nothing is sent, and every answer is given as often as it is requested."""

    offers = frozenset({"answers"})
    patience = 0.0
    mutations = 40
    secrets: tuple[str, ...] = ()

    def __init__(self, typed: Typed) -> None:
        self.typed = typed
        self.signed = typed.signed
        self.name, self.order_size = typed.name, typed.size
        self.symbols = (typed.symbol, typed.symbol)
        self.time = VirtualTime(typed.now)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.time.run(main)

    def now(self) -> datetime:
        return self.time.now()

    async def open(self, book: Mapping[Key, Decimal], *, hedge: bool = False, watch: bool = False) -> VenueAdapter:
        return await self.connect(lambda _, answer: answer)

    async def connect(self, change: Change) -> VenueAdapter:
        typed = self.typed
        options: dict[str, object] = {"clock": self.time, "ccxt": {"processOfTheTest": str(uuid4())}}
        spec = AccountSpec(
            "main",
            "ccxt",
            typed.market,
            typed.currency,
            None,
            options,
            dict(typed.credentials),
            exchange=typed.exchange,
        )
        made: Any = ccxt(spec)
        exchange = made.client.ccxt

        async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            name = typed.question(method, url, body)
            whole = json.loads(json.dumps(typed.answers.get(name, typed.answers[""])))
            text = json.dumps(change(name, whole))
            course = client.CURRENT_CALL.get()
            course.method, course.sent_requests = method, course.sent_requests + 1
            exchange.on_rest_response(200, "OK", url, method, {}, text, {}, None)
            answer = json.loads(text)
            exchange.handle_errors(200, "OK", url, method, {}, text, answer, headers, body)
            return answer

        exchange.fetch = fetch
        venue: VenueAdapter = made
        return venue

    async def close(self) -> None:
        """Nothing to close."""


class PaperAnswers(PaperHarness):
    """The paper venue over HTTP, whose answers are changed on their way to the client."""

    more = ()
    mutations = 40
    offers = PaperHarness.offers | {"answers"}

    def __init__(self) -> None:
        super().__init__(http=True)
        self._proxy: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._change: Change | None = None

    async def connect(self, change: Change) -> VenueAdapter:
        assert self._server is not None, "the venue is not open"
        self._change = change
        if self._proxy is None:
            app = web.Application()
            app.router.add_route("*", "/v1/accounts/main/{path:.*}", self._changed)
            self._proxy, self._session = web.AppRunner(app), aiohttp.ClientSession()
            await self._proxy.setup()
            await web.TCPSite(self._proxy, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{self._proxy.addresses[0][1]}"
        return paper(AccountSpec("main", "paper", "swap", "USDT", address, dict(BATCHES), {}))

    async def close(self) -> None:
        if self._proxy is not None and self._session is not None:
            await self._session.close()
            await self._proxy.cleanup()
            self._proxy = None
        await super().close()

    async def _changed(self, request: web.Request) -> web.Response:
        """The server's answer, changed where it is a success with a body."""
        assert self._server is not None and self._session is not None and self._change is not None
        sent = {key: value for key, value in request.headers.items() if key not in ("Host", "Content-Length")}
        url = self._server.address + request.raw_path
        body = await request.read()
        async with self._session.request(request.method, URL(url, encoded=True), data=body, headers=sent) as got:
            answer = await got.read()
            if answer and got.status not in TOO_MANY and got.status < 500:
                name = f"{request.method} {request.match_info['path']}"
                answer = json.dumps(self._change(name, json.loads(answer))).encode()
            kept = {key: value for key, value in got.headers.items() if key not in ("Content-Length", "Date", "Server")}
            return web.Response(status=got.status, headers=kept, body=answer)


def deribit() -> TypedHarness:
    """A long perpetual and a short option in BTC, a finished order, a stop, fills and a deposit."""
    from tests.unit.ccxt.venues import test_deribit as typed

    fill = {
        "trade_id": "T1", "timestamp": typed.NOW, "instrument_name": "BTC-PERPETUAL", "direction": "sell",
        "price": 50000.0, "amount": 5000.0, "order_id": "BTC-1", "fee": 0.00005, "fee_currency": "BTC",
        "profit_loss": 0.001, "liquidity": "T", "index_price": 50000.0, "mark_price": 50000.0,
    }  # fmt: skip
    moved = {"id": 7, "type": "deposit", "timestamp": typed.NOW, "change": 1.5, "currency": "BTC"}
    results: dict[str, Any] = {
        "public/get_instruments": typed.INSTRUMENTS, "private/get_account_summaries": {"summaries": [typed.SUMMARY]},
        "private/get_positions": [typed.LONG, typed.SHORT_CALL], "private/get_open_orders": [typed.STOP],
        "private/get_order_state_by_label": [typed.ORDER], "public/get_time": typed.NOW,
        "private/get_user_trades_by_currency_and_time": {"trades": [fill], "has_more": False},
        "private/get_user_trades_by_order": [fill],
        "private/get_transaction_log": {"logs": [moved], "continuation": None},
        "private/buy": {"order": typed.ORDER, "trades": []}, "private/sell": {"order": typed.ORDER, "trades": []},
        "private/cancel": typed.STOP | {"order_state": "cancelled"},
    }  # fmt: skip
    answers = {name: {"jsonrpc": "2.0", "result": result} for name, result in {**results, "": []}.items()}
    keys = {"key": typed.KEY, "secret": typed.SECRET}
    return TypedHarness(
        Typed("deribit", "BTC", typed.PERPETUAL, "kswa1", keys, answers, typed.START, size=Decimal(5000))
    )


def hyperliquid() -> TypedHarness:
    """A long and a short, a limit and a stop for the whole position, a fill, funding and a deposit."""
    from tests.unit.ccxt.venues import test_hyperliquid as typed

    at = 1_708_622_398_623
    funding = {"time": at, "hash": "0xf", "delta": {"type": "funding", "coin": "BTC", "usdc": "-3.5"}}
    deposit = {"time": at, "hash": "0xd", "delta": {"type": "deposit", "usdc": "500.0"}}
    answers: dict[str, Any] = {
        "metaAndAssetCtxs": typed.META, "perpDexs": [None], "clearinghouseState": typed.STATE,
        "frontendOpenOrders": typed.FRONT, "userFillsByTime": [typed.deal(oid=77)], "userFunding": [funding],
        "userNonFundingLedgerUpdates": [deposit], "userAbstraction": "default", "": {},
        "allMids": {"BTC": "100000.0"},
        "order": typed.order_answer({"filled": {"totalSz": "0.5", "avgPx": "99990.5", "oid": 77}}),
        "cancel": {"status": "ok", "response": {"type": "cancel", "data": {"statuses": ["success"]}}},
        "orderStatus": typed.order_status("filled", "0.0"), "exchangeStatus": {"time": at, "specialStatuses": None},
    }  # fmt: skip
    keys = {"wallet_address": typed.MASTER, "private_key": typed.PRIVATE}
    now = datetime.fromtimestamp(1_708_622_400, UTC)
    return TypedHarness(Typed("hyperliquid", "USDC", typed.BTC, typed.CLOID, keys, answers, now, size=Decimal("0.5")))
