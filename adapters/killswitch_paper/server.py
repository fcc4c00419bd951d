"""A paper market served over HTTP, on loopback only: there is no authentication."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import ceil
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from killswitch.market.meter import NEVER
from killswitch.market.paper import PaperMarket
from killswitch.model.instant import to_micros
from killswitch.model.venue import Call, OrderRejectedError, OrderReport, OrderRequest
from killswitch_paper.wire import (
    JSON,
    RULES_HEADER,
    USED_HEADER,
    BatchAnswer,
    ErrorCode,
    FlowRequest,
    RequestRefusal,
    StateRequest,
    TakeRequest,
    TransferRequest,
    TransferState,
    check_numbers,
    encode,
    is_loopback,
    used_header,
)

LOOPBACK = "127.0.0.1"

_T = TypeVar("_T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PaperServer:
    """A running server; the market belongs to its event loop."""

    def __init__(self, runner: web.AppRunner, address: str, handlers: _Handlers) -> None:
        self._runner = runner
        self._handlers = handlers
        self.address = address
        """`http://127.0.0.1:PORT`, for an account's `endpoint`."""

    async def until_read(self, times: int) -> None:
        """Wait until this many snapshots were returned."""
        await self._handlers.wait_for_snapshots(times)

    async def close(self) -> None:
        """Answer requests in flight, and stop."""
        await self._runner.cleanup()


async def serve(market: PaperMarket, *, port: int, now: Callable[[], datetime]) -> PaperServer:
    """Serve `market` on loopback; port 0 is any free one. Snapshots are observed at `now()`.

    Raises OSError if the port is in use.
    """
    handlers = _Handlers(market, now)
    runner = web.AppRunner(_application(handlers), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, port)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    bound = runner.addresses[0][1]
    return PaperServer(runner, f"http://{LOOPBACK}:{bound}", handlers)


def _application(handlers: _Handlers) -> web.Application:
    app = web.Application(middlewares=[_local_programs_only, handlers.count_usage, _refusals])
    account = "/v1/accounts/{account}"
    app.add_routes(
        [
            web.get(f"{account}/snapshot", handlers.snapshot),
            web.get(f"{account}/prices", handlers.prices),
            web.post(f"{account}/orders", handlers.submit),
            web.post(f"{account}/orders/batch", handlers.submit_batch),
            web.post(f"{account}/book/close", handlers.close_book),
            web.get(f"{account}/orders", handlers.find),
            web.get(f"{account}/orders/open", handlers.open_orders),
            web.get(f"{account}/fills", handlers.fills),
            web.delete(f"{account}/orders/{{order}}", handlers.cancel),
            web.post(f"{account}/flows", handlers.flow),
            web.post(f"{account}/transfers", handlers.transfer),
            web.get(f"{account}/transfers", handlers.find_transfer),
            web.post(f"{account}/taken", handlers.take_over),
            web.post("/v1/states", handlers.set_state),
        ]
    )
    return app


class _RequestRefusedError(Exception):
    def __init__(self, status: int, code: ErrorCode, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code: ErrorCode = code
        self.retry_after = retry_after


@contextmanager
def _bad_requests(*, errors: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Refuse a request for which the market raises one of `errors`."""
    try:
        yield
    except errors as error:
        raise _RequestRefusedError(400, "bad_request", str(error)) from error


@web.middleware
async def _local_programs_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests that a web page has made a browser on this machine send."""
    why = _why_not_allowed(request)
    return await handler(request) if why is None else _json(RequestRefusal("not_allowed", why), 403)


def _why_not_allowed(request: web.Request) -> str | None:
    # Another site's name may be resolved to this machine (DNS rebinding); the browser then treats its page as ours.
    if not is_loopback(_hostname(request.host)):
        return f"Host {request.host!r} is not this machine's loopback address"
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        return "requests from web pages are refused"
    # A page may send a form to any site without a preflight request, but not JSON.
    if request.method == "POST" and request.content_type != JSON:
        return f"a POST needs the header Content-Type: {JSON}"
    return None


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OrderRejectedError as error:
        return _json(RequestRefusal("rejected", str(error), error.reason), 422)
    except _RequestRefusedError as error:
        answer = _json(RequestRefusal(error.code, str(error)), error.status)
        if error.retry_after is not None:
            answer.headers["Retry-After"] = str(ceil(error.retry_after))
        return answer


class _Handlers:
    """One handler for each request."""

    def __init__(self, market: PaperMarket, now: Callable[[], datetime]) -> None:
        self._market = market
        self._now = now
        self._snapshots = 0
        """Snapshots that were returned."""
        self._answered = asyncio.Event()

    async def wait_for_snapshots(self, times: int) -> None:
        """Wait until this many snapshots were returned."""
        while self._snapshots < times:
            self._answered.clear()
            await self._answered.wait()

    @web.middleware
    async def count_usage(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Advance the market's clock, and add the used limits to every answer about an account."""
        self._market.move_clock(self._now())
        answer = await handler(request)
        account = request.match_info.get("account")
        if self._market.terms.traits.limits and account in self._market.accounts:
            answer.headers[USED_HEADER] = used_header(self._market.meter.used(account, to_micros(self._now())))
        return answer

    async def snapshot(self, request: web.Request) -> web.Response:
        account = self._charged(request, "snapshot")
        version = str(self._market.rules_version)
        fresh = request.query.get("rules") != version
        self._require_begun()
        watch = dict.fromkeys(request.query.getall("watch", []))
        answer = _json(self._market.snapshot(account, self._now(), instruments=fresh, watch=watch))
        answer.headers[RULES_HEADER] = version
        self._snapshots += 1
        self._answered.set()
        return answer

    async def prices(self, request: web.Request) -> web.Response:
        self._account(request)
        return _json(self._market.prices(request.query.getall("symbol", [])))

    async def submit(self, request: web.Request) -> web.Response:
        order = await _body(request, OrderRequest)
        return _json(self._market.submit(self._charged(request, "submit", order.symbol), order))

    async def submit_batch(self, request: web.Request) -> web.Response:
        orders = await _body(request, tuple[OrderRequest, ...])
        account = self._charged(request, "submit_batch", *(order.symbol for order in orders))
        return _json([_batch_answer(answer) for answer in self._market.submit_batch(account, orders)])

    async def close_book(self, request: web.Request) -> web.Response:
        self._market.close_book(self._charged(request, "close_book"))
        return web.Response(status=204)

    async def find(self, request: web.Request) -> web.Response:
        symbol, client_order_id = _query(request, "symbol"), _query(request, "client_order_id")
        report = self._market.find_order(self._charged(request, "find_order", symbol), symbol, client_order_id)
        if report is None:
            raise _RequestRefusedError(404, "no_such_order", f"no order {client_order_id} in {symbol}")
        return _json(report)

    async def open_orders(self, request: web.Request) -> web.Response:
        return _json(self._market.open_orders(self._charged(request, "open_orders")))

    async def fills(self, request: web.Request) -> web.Response:
        symbol = _query(request, "symbol")
        account = self._charged(request, "fills", symbol)
        return _json(self._market.fills(account, symbol, _query(request, "client_order_id")))

    async def cancel(self, request: web.Request) -> web.Response:
        symbol = _query(request, "symbol")
        self._market.cancel(self._charged(request, "cancel", symbol), symbol, request.match_info["order"])
        return web.Response(status=204)

    async def flow(self, request: web.Request) -> web.Response:
        wanted = await _body(request, FlowRequest)
        account = self._account(request)
        self._require_begun()
        lag = None if wanted.lag is None else timedelta(seconds=wanted.lag)
        with _bad_requests():
            return _json(self._market.flow(account, wanted.kind, wanted.amount, asset=wanted.asset, lag=lag))

    async def transfer(self, request: web.Request) -> web.Response:
        wanted = await _body(request, TransferRequest)
        account = self._account(request)
        self._require_begun()
        self._market.move(account, wanted.to, wanted.amount, wanted.id)
        return web.Response(status=204)

    async def find_transfer(self, request: web.Request) -> web.Response:
        self._account(request)
        return _json(TransferState(self._market.has_moved(_query(request, "id"))))

    async def take_over(self, request: web.Request) -> web.Response:
        body = await _body(request, TakeRequest)
        account = self._account(request)
        with _bad_requests(errors=(KeyError, ValueError)):
            fill = self._market.deleverage(account, body.symbol, body.contracts, body.price, body.cause, body.side)
            return _json(fill)

    async def set_state(self, request: web.Request) -> web.Response:
        wanted = await _body(request, StateRequest)
        if wanted.symbol not in {instrument.symbol for instrument in self._market.instruments}:
            raise _RequestRefusedError(400, "bad_request", f"no symbol {wanted.symbol!r} is traded here")
        with _bad_requests():
            if wanted.state == "delisted":
                self._market.delist(wanted.symbol, wanted.delivery)
            else:
                self._market.set_state(wanted.symbol, wanted.state, wanted.price_band)
        return web.Response(status=204)

    def _require_begun(self) -> None:
        if self._market.now is None:
            raise _RequestRefusedError(409, "not_begun", "the market has not begun: no bar yet")

    def _charged(self, request: web.Request, call: Call, *symbols: str) -> str:
        """The account of the request, after the call was counted."""
        account = self._account(request)
        wait = self._market.meter.charge(account, call, symbols, to_micros(self._now()))
        if wait is not None:
            raise _RequestRefusedError(429, "too_many", f"{call}: too many requests", None if wait == NEVER else wait)
        return account

    def _account(self, request: web.Request) -> str:
        account = request.match_info["account"]
        if account not in self._market.accounts:
            known = ", ".join(self._market.accounts)
            raise _RequestRefusedError(404, "no_such_account", f"no account {account}; the market has {known}")
        return account


def _batch_answer(answer: OrderReport | OrderRejectedError) -> BatchAnswer:
    if isinstance(answer, OrderRejectedError):
        return BatchAnswer(refusal=RequestRefusal("rejected", str(answer), answer.reason))
    return BatchAnswer(report=answer)


async def _body(request: web.Request, kind: type[_T]) -> _T:
    try:
        found = msgspec.json.decode(await request.read(), type=kind)
        check_numbers(found)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _RequestRefusedError(400, "bad_request", f"not a {kind.__name__}: {error}") from error
    return found


def _query(request: web.Request, name: str) -> str:
    value = request.query.get(name)
    if value is None:
        raise _RequestRefusedError(400, "bad_request", f"the query needs {name}")
    return value


def _json(answer: object, status: int = 200) -> web.Response:
    return web.Response(body=encode(answer), status=status, content_type=JSON)
