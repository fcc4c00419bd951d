"""The HTTP and WebSocket server of a venue on loopback: an `Exchange` holds the truth, mishaps cause the faults.

A venue's own file only translates: paths into actions, records into the venue's payloads, refusals into its codes. What
can happen to a request in transit happens here, for all venues alike, at the level of the connection.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import cycle
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from aiohttp import WSMsgType, web
from msgspec import Struct, field
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy

from killswitch.model.snapshot import Fill
from killswitch.model.venue import Call, OrderRejectedError, RateLimit
from tests.faults.exchange import ZERO, Exchange
from tests.faults.mishaps import Mishap, Mishaps, Script
from tests.faults.wire import HELD, LATE, SLOW
from tests.wire.ledger import Book, Contract, Ledger, Part, contract_of

KEY = "KEY-PLANTED"
SECRET = "SECRET-PLANTED"
PASSPHRASE = "PASSPHRASE-PLANTED"
LISTEN_KEY = "LISTEN-KEY-PLANTED"
"""The key that Binance issues for an account's stream: whoever has it can read the stream."""


ELSEWHERE = "/strayed"
"""The start of the path that the venue's redirects name."""
REDIRECTS = (307, 308, 302, 301, 303, 300, 304)


class Ask(Struct, frozen=True):
    """One request. `params`: fields of the query and of a form or JSON object in the body, as received."""

    method: str
    path: str
    query: str
    body: str
    headers: CIMultiDictProxy[str]
    params: Mapping[str, Any]

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"


class Reply(Struct, frozen=True):
    """An answer of the venue. `body` is converted to JSON unless it is text."""

    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body if isinstance(self.body, str) else json.dumps(self.body, default=_plain)


class Seen(Struct, frozen=True):
    """A request as the venue received it. `units`: what it counted for, limit → units."""

    at: float
    ask: Ask
    call: Call | None
    mishap: Mishap
    units: Mapping[str, int]


class RefusedError(Exception):
    """A refusal by the venue, with its own payload."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class WireVenue(ABC):
    """A venue on loopback. `start` it, point a client at `address` (and `address_ws`), and `stop` it."""

    limits: ClassVar[tuple[RateLimit, ...]] = ()
    """Documented limits; counted always, enforced where `enforced`."""
    currency: str = "USDT"
    """The currency of the first deposit."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        mishaps: Mishaps | None = None,
        latency: float = 0.0,
        enforced: bool = False,
        equity: Decimal = Decimal(100_000),
    ) -> None:
        """`latency` in seconds for a round trip. The clock of the venue is `exchange.now`.

        `equity`: the first deposit; from then on the ledger derives the equity from prices and fills.
        """
        self.exchange = exchange
        self.mishaps: Mishaps = Script() if mishaps is None else mishaps
        self.latency = latency
        self.enforced = enforced
        self.ledger = Ledger(exchange, equity, currency=self.currency, contracts=self.contract, fees=self.fee)
        self.failing: set[str] = set()
        """Parts of paths: requests to them fail, and surely do nothing."""
        self.seen: list[Seen] = []
        self.refusals: list[str] = []
        """Requests for routes that do not exist here, or that broke the venue itself: each is a gap in the test."""
        self.strayed = 0
        """The number of requests that followed a redirect."""
        self.maintenance = False
        self.held_for = HELD
        """Seconds after which a delayed request arrives."""
        self.change: Callable[[str, Any], Any] | None = None
        """Changes each answer, by its route, before it leaves."""
        self.sockets: set[web.WebSocketResponse] = set()
        self._counts: Counter[tuple[Call, str]] = Counter()
        self.used: Counter[str] = Counter()
        self._counted: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._redirects = cycle(REDIRECTS)
        self._requests: set[asyncio.Task[web.StreamResponse]] = set()
        self._delayed: list[asyncio.TimerHandle] = []
        exchange.watchers.append(self._wake_streams)

    # The venue's own payloads

    @abstractmethod
    def answer(self, ask: Ask) -> Reply:
        """Perform the request. OrderRejectedError and RefusedError are refusals; NotImplementedError: no such route."""

    @abstractmethod
    def occasion(self, ask: Ask) -> tuple[Call, tuple[str, ...]] | None:
        """The call that this request belongs to, and its symbols of the exchange; None for no call (time, rules).

        Of the several requests of one snapshot only the one for the positions is the call.
        """

    @abstractmethod
    def check(self, ask: Ask) -> None:
        """Check the signature, by own code. RefusedError with the venue's payload; public routes pass."""

    @abstractmethod
    def refused(self, error: OrderRejectedError) -> Reply:
        """The answer to a refused order."""

    @abstractmethod
    def limited(self, wait: float) -> Reply:
        """The answer to too many requests."""

    @abstractmethod
    def down(self) -> Reply:
        """The answer during maintenance: surely nothing was done."""

    def units(self, ask: Ask) -> Mapping[str, int]:
        """The units of a request by the venue's documents: limit → units."""
        return {}

    def used_headers(self, used: Mapping[str, int]) -> Mapping[str, str]:
        """The venue's own count, sent with every answer."""
        return {}

    def lie(self, mishap: Mishap, ask: Ask, reply: Reply) -> Reply:
        """A wrong answer that claims success: `empty`, `page` (one row is missing), `nonsense`, `defect`."""
        return reply

    async def stream(self, socket: web.WebSocketResponse, ask: Ask, updated: asyncio.Event) -> None:
        """Serve a stream until it is closed; `updated` is set after every change. For venues that have one."""
        await socket.close()

    # Money

    def contract(self, symbol: str) -> Contract:
        """The contract of a symbol."""
        return contract_of(symbol, self.currency)

    def fee(self, fill: Fill) -> Decimal:
        """The fee of a fill."""
        return fill.fee or ZERO

    def book(self, part: Part | None = None) -> Book:
        """The account as the venue's answers about a part show it."""
        return self.ledger.book(part)

    @property
    def equity(self) -> Decimal:
        """The equity of the account now, in its own currency."""
        return self.ledger.equity

    def set_equity(self, equity: Decimal) -> None:
        """Set the equity of the account from now on, without any row that explains it."""
        self.ledger.set_equity(equity)

    # Start and stop

    async def start(self) -> WireVenue:
        """Listen on a free port of loopback."""
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Close everything, requests that never get an answer included."""
        for delayed in self._delayed:
            delayed.cancel()
        requests = list(self._requests)
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        for socket in list(self.sockets):
            await socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def address_ws(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    def now(self) -> tuple[float, datetime]:
        return self.exchange.now()

    def now_ms(self) -> int:
        return int(self.now()[1].timestamp() * 1000)

    def calls(self, call: Call) -> int:
        """The number of requests of a call that arrived."""
        return sum(it.call == call for it in self.seen)

    def taken(self, since: float = float("-inf")) -> Counter[str]:
        """Units counted since then, by limit."""
        total: Counter[str] = Counter()
        for it in self.seen:
            if it.at >= since:
                total.update(it.units)
        return total

    # Processing of a request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        ask = await _ask(request)
        if ask.path.startswith(ELSEWHERE):
            self.strayed += 1
            ask = replace(ask, path=ask.path.removeprefix(ELSEWHERE))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._streaming(request, ask)
        # A request that has arrived is executed, even if its client has given up waiting or was killed.
        task = asyncio.ensure_future(self._process(request, ask))
        self._requests.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[web.StreamResponse]) -> None:
        self._requests.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.refusals.append(f"{type(error).__name__}: {error}")

    async def _process(self, request: web.Request, ask: Ask) -> web.StreamResponse:
        occasion = self.occasion(ask)
        mishap: Mishap = "none"
        if occasion is not None:
            call, symbols = occasion
            symbol = symbols[0] if len(symbols) == 1 else ""
            mishap = self.mishaps.at((call, symbol, self._counts[call, symbol]), self.now()[0])
            self._counts[call, symbol] += 1
        units = dict(self.units(ask))
        self.seen.append(Seen(self.now()[0], ask, occasion[0] if occasion else None, mishap, units))
        await asyncio.sleep(self.latency / 2)
        reply = await self._outcome(request, ask, mishap, units)
        if self.change is not None and reply.text:
            reply = Reply(self.change(ask.route, json.loads(reply.text)), reply.status, reply.headers)
        await asyncio.sleep(self.latency / 2 + (SLOW if mishap == "slow" else 0.0))
        headers = {**self.used_headers(self.used), **reply.headers}
        if mishap in ("huge", "mispacked"):
            plain = reply.text.encode()
            body = gzip.compress(plain) + _padding() if mishap == "huge" else plain
            headers |= {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            return web.Response(body=body, status=reply.status, headers=headers)
        return web.Response(text=reply.text, status=reply.status, headers=headers, content_type="application/json")

    async def _outcome(self, request: web.Request, ask: Ask, mishap: Mishap, units: Mapping[str, int]) -> Reply:
        match mishap:
            case "down":
                return self.down()
            case "limited":
                return self.limited(0.5)
            case "redirected":
                place = f"http://localhost:{self._port}{ELSEWHERE}{request.rel_url}"
                return Reply("", next(self._redirects), {"Location": place})
            case "silent":
                await asyncio.Event().wait()
            case "lost" | "late" | "held":
                if mishap != "lost":
                    after = LATE if mishap == "late" else self.held_for
                    self._delayed.append(asyncio.get_running_loop().call_later(after, self._do, ask, units))
                _hang_up(request)
        reply = self._do(ask, units)
        match mishap:
            case "twice":
                self._do(ask, units)
            case "done" | "called_off":
                _hang_up(request)
            case "done_silent":
                await asyncio.Event().wait()
            case "garbled" | "malformed":
                return Reply("<html>Bad gateway</html>", reply.status)
            case "empty" | "page" | "nonsense" | "defect" | "stale" | "lagging" | "sign" | "nan":
                return self.lie(mishap, ask, reply)
        return reply

    def _do(self, ask: Ask, units: Mapping[str, int]) -> Reply:
        if self.maintenance or any(part in ask.path for part in self.failing):
            return self.down()
        wait = self._count(units)
        if wait is not None:
            return self.limited(wait)
        try:
            self.check(ask)
            return self.answer(ask)
        except RefusedError as error:
            return error.reply
        except OrderRejectedError as error:
            return self.refused(error)
        except NotImplementedError:
            self.refusals.append(ask.route)
            return Reply({"error": f"no such route here: {ask.route}"}, 404)

    def _count(self, units: Mapping[str, int]) -> float | None:
        """Count a request; the seconds to wait if it exceeds an enforced limit."""
        now = self.now()[0]
        for limit in self.limits:
            counted = self._counted[limit.name]
            while counted and counted[0][0] <= now - limit.per:
                self.used[limit.name] -= counted.popleft()[1]
            more = units.get(limit.name, 0)
            if self.enforced and more and self.used[limit.name] + more > limit.allowed:
                return counted[0][0] + limit.per - now if counted else limit.per
        for name, more in units.items():
            self._counted[name].append((now, more))
            self.used[name] += more
        return None

    async def _streaming(self, request: web.Request, ask: Ask) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=None)
        await socket.prepare(request)
        self.sockets.add(socket)
        updated = asyncio.Event()
        setattr(socket, "updated", updated)  # noqa: B010 - set by `_wake_streams`
        try:
            await self.stream(socket, ask, updated)
        finally:
            self.sockets.discard(socket)
        return socket

    def _wake_streams(self) -> None:
        for socket in self.sockets:
            socket.updated.set()  # type: ignore[attr-defined] # added above


async def messages(socket: web.WebSocketResponse, handle: Callable[[dict[str, Any]], object]) -> None:
    """Pass every JSON message of a client to `handle`, until it closes; a bare `ping` is answered `pong`."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            continue
        if message.data == "ping":
            await socket.send_str("pong")
            continue
        result = handle(json.loads(message.data))
        if asyncio.iscoroutine(result):
            await result


def rows_without_one(rows: Iterable[object]) -> list[object]:
    """The rows of a page that is cut short."""
    return list(rows)[1:]


@cache
def _padding() -> bytes:
    """65 MB of blanks, compressed: they change no JSON that they follow."""
    return gzip.compress(b" " * (65 * 2**20), 1)


def _hang_up(request: web.Request) -> None:
    """Break the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


async def _ask(request: web.Request) -> Ask:
    body = await request.text()
    params: dict[str, Any] = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
    if body:
        if body.lstrip()[:1] in "{[":
            sent = json.loads(body, parse_float=str)
            params |= sent if isinstance(sent, dict) else {"rows": sent}
        else:
            params |= dict(parse_qsl(body, keep_blank_values=True))
    headers: CIMultiDict[str] = CIMultiDict(request.headers)
    return Ask(request.method, request.path, request.rel_url.raw_query_string, body, CIMultiDictProxy(headers), params)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{value!r} cannot be part of an answer")
