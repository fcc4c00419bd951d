"""The paper venue in another process, over HTTP: answers are validated, failures become venue errors."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from killswitch.market.terms import ONE_PRICE, read_traits
from killswitch.model.magnitude import LONGEST, readable
from killswitch.model.snapshot import (
    AccountSnapshot,
    Balance,
    Fill,
    Flow,
    Health,
    Instrument,
    Liquidity,
    Mark,
    Market,
    Order,
    Position,
    Quality,
    Rate,
    WatchedPrice,
)
from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import (
    AccountSpec,
    Batching,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    Prices,
    RateLimitedError,
    SentTransfer,
    TransferFate,
    Transfers,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch.transport import AnswerTooLargeError, RedirectRefusedError
from killswitch.transport.sessions import guarded_session
from killswitch_paper.wire import (
    JSON,
    RULES_HEADER,
    USED_HEADER,
    BatchAnswer,
    RequestRefusal,
    TransferRequest,
    TransferState,
    encode,
    is_loopback,
    read_used,
)

_T = TypeVar("_T")
Query = Mapping[str, str] | Sequence[tuple[str, str]]
Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""

TOO_MANY = {418, 429}
"""Statuses for too many requests, and for a ban after ignoring that."""


class HttpVenue(VenueAdapter):
    """One account of a paper server, as a VenueAdapter.

    A change whose request may have arrived, but whose answer did not, raises FateUnknownError. A connection that was
    never made raises VenueDownError: nothing was done. A query changes nothing, so a query without an answer raises
    VenueDownError too.
    """

    def __init__(self, spec: AccountSpec, timeout: float) -> None:
        """`timeout` in seconds, for connecting and for each answer. Raises ValueError for an endpoint not on
        loopback, and for options that are not valid traits."""
        self.account = spec.account
        self._market = _market(spec)
        self._currency = spec.currency
        self._watch = spec.watch
        self._base = _loopback(spec)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout, sock_read=timeout)
        self._session: aiohttp.ClientSession | None = None
        self._rules = ""
        self._venue = spec.adapter
        described = read_traits(spec.options)
        self.traits = replace(described, conditional_orders=ONE_PRICE)
        """From the account's options; the server does not publish them."""
        self.close_book = self._close_book if described.whole_book else None
        self.transfers = Transfers(self._base, self.account, self._transfer, self._transfer_fate)
        self.batches = Batching(described.batch, self._submit_batch) if described.batch > 1 else None
        self._used: Mapping[str, int] = {}

    def used(self) -> Mapping[str, int]:
        """The venue's own request count, by its last answer."""
        return self._used

    async def snapshot(self) -> AccountSnapshot:
        """A failure is returned as quality `down` or `malformed`, with the reason and without numbers."""
        began = time.monotonic()
        try:
            query = [("rules", self._rules), *(("watch", symbol) for symbol in self._watch)]
            status, headers, body = await self._call("GET", "snapshot", query)
            seen = _decoded(status, body, AccountSnapshot)
        except MalformedAnswerError as error:
            return self._failed("malformed", str(error), malformed=1)
        except RateLimitedError as error:
            return self._failed("down", str(error), rate_limited=1)
        except VenueError as error:
            timed_out = isinstance(error.__cause__, TimeoutError)
            return self._failed("down", str(error), timeouts=int(timed_out), errors=int(not timed_out))
        if seen.account != self.account:
            return self._failed("malformed", f"the answer is about account {seen.account}", malformed=1)
        self._rules, self._venue = headers.get(RULES_HEADER, ""), seen.venue
        latency = (time.monotonic() - began) * 1000
        return replace(seen, health=_health(latency))

    async def prices(self, symbols: Collection[str]) -> Mapping[str, Prices]:
        return await self._query(dict[str, Prices], "GET", "prices", [("symbol", symbol) for symbol in symbols])

    async def submit(self, request: OrderRequest) -> OrderReport:
        return await self._query(OrderReport, "POST", "orders", {}, encode(request))

    async def _submit_batch(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        answers = await self._query(tuple[BatchAnswer, ...], "POST", "orders/batch", {}, encode(requests))
        if len(answers) != len(requests):
            raise MalformedAnswerError(f"{len(answers)} answers to {len(requests)} orders")
        return [_batch_answer(request, answer) for request, answer in zip(requests, answers, strict=True)]

    async def _close_book(self) -> None:
        await self._change("POST", "book/close", {})

    async def _transfer(self, account: str, amount: Decimal, transfer: str) -> None:
        await self._change("POST", "transfers", {}, encode(TransferRequest(account, amount, transfer)))

    async def _transfer_fate(self, sent: SentTransfer) -> TransferFate:
        """What the market does not have may still be on its way to it, so that its absence proves nothing."""
        found = await self._query(TransferState, "GET", "transfers", {"id": sent.id})
        return "moved" if found.moved else "open"

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        query = {"symbol": symbol, "client_order_id": client_order_id}
        status, _, body = await self._call("GET", "orders", query)
        if status == 404 and _refusal(status, body).code == "no_such_order":
            return None
        return _decoded(status, body, OrderReport)

    async def open_orders(self) -> tuple[Order, ...]:
        return await self._query(tuple[Order, ...], "GET", "orders/open", {})

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        query = {"symbol": symbol, "client_order_id": client_order_id}
        return await self._query(tuple[Fill, ...], "GET", "fills", query)

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self._change("DELETE", f"orders/{quote(order_id, safe='')}", {"symbol": symbol})

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _query(self, kind: type[_T], method: str, path: str, query: Query, body: bytes | None = None) -> _T:
        """Send a request, and decode its answer as `kind`."""
        status, _, content = await self._call(method, path, query, body)
        return _decoded(status, content, kind)

    async def _change(self, method: str, path: str, query: Query, body: bytes | None = None) -> None:
        """Send a change whose successful answer has no body."""
        status, _, content = await self._call(method, path, query, body)
        if status != 204:
            _refuse(status, content)

    async def _call(self, method: str, path: str, query: Query, body: bytes | None = None) -> Answer:
        """A complete answer that is not a general failure."""
        changes = method != "GET"
        if self._session is None:
            self._session = guarded_session(timeout=self._timeout)
        request_headers = {"Content-Type": JSON} if method == "POST" else None
        url = f"{self._base}/v1/accounts/{quote(self.account, safe='')}/{path}"
        try:
            async with self._session.request(method, url, params=query, data=body, headers=request_headers) as answer:
                status, headers, content = answer.status, answer.headers, await answer.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            why = why_unanswered(error, self._base) or f"{self._base} cannot be reached: {error}"
            raise VenueDownError(why) from error
        except AnswerTooLargeError as error:
            raise MalformedAnswerError(f"{method} {path}: {self._base}: {error}") from error
        except (RedirectRefusedError, aiohttp.ClientError, TimeoutError) as error:
            text = f"{method} {path}: no answer from {self._base}: {type(error).__name__}: {error}"
            raise FateUnknownError(text) if changes else VenueDownError(text) from error
        self._used = read_used(headers.get(USED_HEADER, "")) or self._used
        if status in TOO_MANY:
            raise RateLimitedError(f"{self._base}: too many requests", _seconds(headers.get("Retry-After")))
        if status >= 500:
            text = f"{method} {path}: {self._base} answered {status}"
            raise FateUnknownError(text) if changes else VenueDownError(text)
        return status, headers, content

    def _failed(self, quality: Quality, reason: str, **counts: int) -> AccountSnapshot:
        health = _health(None, **counts)
        return AccountSnapshot(
            self.account, self._venue, self._market, self._currency, quality, reason=reason, health=health
        )


def _market(spec: AccountSpec) -> Market:
    try:
        market: Market = msgspec.convert(spec.market, Market)
    except msgspec.ValidationError:
        raise ValueError(f"account {spec.account}: unknown market {spec.market}") from None
    return market


def _loopback(spec: AccountSpec) -> str:
    """The endpoint without a slash at its end. Raises ValueError unless it is HTTP on loopback."""
    endpoint = spec.endpoint or ""
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        raise ValueError(f"endpoint {endpoint!r} of account {spec.account} is not http://127.0.0.1:PORT")
    return endpoint.rstrip("/")


_SOUND = Health(requests=1, errors=0, timeouts=0, malformed=0, rate_limited=0)


def _health(latency_ms: float | None, **counts: int) -> Health:
    return replace(_SOUND, latency_ms=latency_ms, **counts)


def _batch_answer(request: OrderRequest, answer: BatchAnswer) -> OrderReport | VenueError:
    if answer.refusal is not None:
        return OrderRejectedError(answer.refusal.reason or "other", f"{answer.refusal.code}: {answer.refusal.text}")
    if answer.report is None or answer.report.client_order_id != request.client_order_id:
        return MalformedAnswerError(f"the answer is not about order {request.client_order_id}")
    return answer.report


def _decoded(status: int, body: bytes, kind: type[_T]) -> _T:
    if status != 200:
        _refuse(status, body)
    try:
        found = msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"invalid answer: {error}") from error
    fault = next(_faults(found), None)
    if fault is not None:
        raise MalformedAnswerError(f"invalid answer: {fault}")
    return found


def _refusal(status: int, body: bytes) -> RequestRefusal:
    try:
        return msgspec.json.decode(body, type=RequestRefusal)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"status {status} with an invalid answer: {error}") from error


def _refuse(status: int, body: bytes) -> NoReturn:
    """Raise the error of a refusal: in every case nothing was done."""
    refusal = _refusal(status, body)
    text = f"{refusal.code}: {refusal.text}"
    if refusal.code in {"rejected", "bad_request"}:
        raise OrderRejectedError(refusal.reason or "other", text)
    raise VenueDownError(text)


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


_SIGNED: Final = frozenset({"equity", "free", "unrealized", "unrealized_pnl", "realized_pnl", "fee", "wallet", "cost"})
_MODES: Final = frozenset({"one_way", "hedge", None})


def _faults(answer: object) -> Iterator[str]:
    """The impossible values in an answer."""
    if isinstance(answer, AccountSnapshot) and answer.quality == "ok":
        yield from _account_faults(answer)
    if isinstance(answer, Struct):
        may_owe = isinstance(answer, Balance | Flow)
        for name, value in asdict(answer).items():
            if isinstance(value, Decimal):
                if not readable(value) or (value < 0 and name not in _SIGNED and not (may_owe and name == "amount")):
                    yield f"{name} is {str(value)[:LONGEST]}"
            elif isinstance(value, Struct | tuple | dict):
                yield from _faults(value)
    if isinstance(answer, OrderReport):
        yield from _report_faults(answer)
    elif isinstance(answer, dict | tuple):
        rows = tuple(answer.values()) if isinstance(answer, dict) else answer
        yield from _repeated(rows)
        for each in rows:
            yield from _faults(each)


_KEYS: Final[Mapping[type, tuple[str, ...]]] = {
    Balance: ("asset",), Flow: ("id",), Position: ("symbol", "side"), Order: ("id",), Fill: ("id",),
    Instrument: ("symbol",), Mark: ("symbol",), Rate: ("currency",), Liquidity: ("symbol",),
    WatchedPrice: ("symbol",),
}  # fmt: skip
"""Kind of a row → the fields that name it: no list has two rows of one name."""


def _repeated(rows: Sequence[object]) -> Iterator[str]:
    names = [(type(row).__name__, *(getattr(row, it) for it in _KEYS[type(row)])) for row in rows if type(row) in _KEYS]
    if len(set(names)) < len(names):
        kind, *name = next(name for name in names if names.count(name) > 1)
        yield f"it has two rows of {kind} {' '.join(map(str, name))}"


def _report_faults(report: OrderReport) -> Iterator[str]:
    """What contradicts itself in a report of an order."""
    filled, price = report.filled, report.average_price
    if report.amount <= 0 or filled > report.amount or (report.state == "filled" and filled < report.amount):
        yield f"{report.state}, with {filled} filled of {report.amount}"
    if price is not None and price <= 0:
        yield f"average_price is {price}"


def _account_faults(account: AccountSnapshot) -> Iterator[str]:
    if account.equity is None or account.positions is None:
        yield "it has no equity or no positions"
    if account.position_mode not in _MODES:
        yield f"unknown position mode {account.position_mode!r}"
    if account.positions == () and account.margin_used:
        yield f"margin of {account.margin_used} is in use, and there are no positions"
