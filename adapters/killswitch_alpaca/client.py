"""The HTTP client of one account: alpaca-py's own clients, run in threads, without retries, with every failure mapped.

alpaca-py retries by itself after a 429 or a 504, has no timeout, and parses numbers as floats. Here a request is sent
once, has a deadline, and its numbers stay exact. Orders have threads of their own, so that a query that hangs never
delays one.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from killswitch.deadline import DaemonThreadExecutor
from killswitch.model.legible import legible, shortened
from killswitch.model.unanswered import why_unanswered, words_of
from killswitch.model.venue import FateUnknownError, MalformedAnswerError, VenueDownError, VenueError
from killswitch.transport import AnswerTooLargeError, RedirectRefusedError
from killswitch.transport.deadlines import Deadlines, never_made
from killswitch_alpaca.errors import (
    LONGEST_TEXT,
    RefusedAnswer,
    as_venue_error,
    failure_text,
    host_of,
    read_refusal,
    redacted,
    without_secrets,
)
from killswitch_alpaca.settings import AlpacaSettings

T = TypeVar("T")
QUERY_THREADS, ORDER_THREADS = 4, 8
"""Concurrent requests of each kind."""
IDLE = 60.0
"""Seconds for which an idle thread waits for another request."""
TOO_LATE = "the account's adapter was closed before the request was sent"


@dataclass(slots=True)
class RequestCounters:
    """Request counters since the last snapshot."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    malformed: int = 0
    rate_limited: int = 0
    latency_ms: float = 0.0
    """Latency of the slowest answer."""


class RefusedAnswerError(Exception):
    """Alpaca answered with a status other than success."""

    def __init__(self, refused: RefusedAnswer) -> None:
        super().__init__(refused.text)
        self.refused = refused


class InvalidJsonError(Exception):
    """A successful answer whose body is not JSON."""


class Client:
    """One account's access to Alpaca's trading and data APIs, through `call` only."""

    def __init__(self, settings: AlpacaSettings) -> None:
        self._settings = settings
        self._clients: dict[bool, Any] = {}
        """alpaca-py's clients, by whether they are for market data; created at their first call."""
        self._creation_lock = threading.Lock()
        self._deadlines = Deadlines(settings.timeout)
        self._query_threads = request_threads("alpaca-read", QUERY_THREADS)
        self._order_threads = request_threads("alpaca-change", ORDER_THREADS)
        self._closed = False
        self._in_flight = 0
        self._answered = asyncio.Event()
        self.counters = RequestCounters()
        self.used: int | None = None
        """Requests that Alpaca has counted in its current minute, by its last answer."""

    async def call(self, request: Callable[[Any], T], *, changes: bool = False, data: bool = False) -> T:
        """Run `request` with alpaca-py's trading client, or with its data client where `data`; return its answer.

        Raises RefusedAnswerError for an answer that the caller interprets, and a VenueError for every other failure.
        """
        if self._closed:
            raise VenueDownError(TOO_LATE)
        loop = asyncio.get_running_loop()
        self.counters.requests += 1
        self._in_flight += 1
        try:
            pool = self._order_threads if changes else self._query_threads
            return await loop.run_in_executor(pool, self._call_in_thread, request, data)
        except asyncio.CancelledError:
            if is_cancelling():
                raise
            raise VenueDownError(TOO_LATE) from None
        except RefusedAnswerError as error:
            self._count(error.refused)
            if error.refused.status in (401, 429) or not 400 <= error.refused.status < 500:
                raise as_venue_error(error.refused, changes=changes) from error
            raise
        except InvalidJsonError as error:
            self.counters.malformed += 1
            raise MalformedAnswerError(f"Alpaca returned an invalid answer: {error}") from error
        except Exception as error:
            raise self._failed(error, changes=changes) from error
        finally:
            self._in_flight -= 1
            self._answered.set()

    async def wait_until_connected(self) -> None:
        """Wait for the end of a first request, if one is in flight, so that the next one reuses its connection.

        The latency of a request that opens a connection is mostly that of opening it.
        """
        if self._in_flight and not self._answered.is_set():
            await self._answered.wait()

    def reset_counters(self) -> RequestCounters:
        """Return the counters and start new ones."""
        finished, self.counters = self.counters, RequestCounters()
        return finished

    async def close(self) -> None:
        """Release threads and connections. Requests in flight end; the status of a change among them is unknown."""
        self._closed = True
        for pool in (self._query_threads, self._order_threads):
            pool.shutdown(wait=False, cancel_futures=True)
        self._deadlines.end_all()
        for client in tuple(self._clients.values()):  # a thread may add one meanwhile
            client._session.close()

    def _call_in_thread(self, request: Callable[[Any], T], data: bool) -> T:
        with self._creation_lock:
            if data not in self._clients:
                self._clients[data] = self._make_client(data)
            client = self._clients[data]
        # Measured from here, since importing alpaca-py takes half a second.
        began = time.perf_counter()
        try:
            return request(client)
        finally:
            self.counters.latency_ms = max(self.counters.latency_ms, (time.perf_counter() - began) * 1000)

    def _make_client(self, data: bool) -> Any:
        settings = self._settings
        keys = settings.key, settings.secret
        if data:
            client_class = import_class("alpaca.data.historical.stock", "StockHistoricalDataClient")
            client = client_class(*keys, raw_data=True, url_override=settings.data)
            return without_retries(client, self._deadlines, settings.proxy)
        client_class = import_class("alpaca.trading.client", "TradingClient")
        client = client_class(*keys, paper=settings.is_paper, raw_data=True, url_override=settings.trading)
        return without_retries(client, self._deadlines, settings.proxy, self._record_rate_limit)

    def _record_rate_limit(self, headers: Mapping[str, str]) -> None:
        try:
            limit, left = int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Remaining"])
        except (KeyError, ValueError):
            return
        self.used = max(0, limit - left)

    def _count(self, refused: RefusedAnswer) -> None:
        if refused.status == 429:
            self.counters.rate_limited += 1
        elif refused.status >= 500:
            self.counters.errors += 1

    def _failed(self, error: Exception, *, changes: bool) -> VenueError:
        """The error of a request without an answer: it was never sent, or its status is unknown."""
        from requests import exceptions

        where = host_of(error) or without_secrets(self._settings.trading)
        if isinstance(error, AnswerTooLargeError):
            self.counters.malformed += 1
            return MalformedAnswerError(f"{where}: {error}")
        if isinstance(error, RedirectRefusedError):
            self.counters.errors += 1
            return (FateUnknownError if changes else VenueDownError)(f"{where}: {error}")
        explanation = why_unanswered(error, where, self._settings.timeout)
        addresses = (self._settings.trading, self._settings.data, self._settings.proxy)
        explanation = explanation and redacted(explanation, *addresses)
        why = redacted(failure_text(error), *addresses)
        if isinstance(error, ImportError):
            return VenueDownError(
                f"alpaca-py is not installed ({error}); pip install '.[alpaca]' in a clone of Killswitch"
            )
        if isinstance(error, exceptions.Timeout):
            self.counters.timeouts += 1
        else:
            self.counters.errors += 1
        if never_made(error):
            return VenueDownError(explanation or f"{where} cannot be reached: {why}")
        if not isinstance(error, exceptions.RequestException | OSError):
            text = f"alpaca-py failed: {why}"
            return FateUnknownError(text) if changes else MalformedAnswerError(text)
        text = explanation or f"no answer from {where}: {why}"
        return FateUnknownError(text) if changes else VenueDownError(text)


def request_threads(name: str, most: int) -> DaemonThreadExecutor:
    """Threads for at most so many concurrent requests; others wait, since every request has a deadline."""
    return DaemonThreadExecutor(name, most=most, idle=IDLE, queues=True)


def is_cancelling() -> bool:
    """Whether the current task is being cancelled, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


_IMPORTING = threading.Lock()


def import_class(module: str, name: str) -> Any:
    """Import a class of alpaca-py. Raises ImportError where it is not installed.

    alpaca-py also imports its streams, which are not used here, with a library that warns that it is deprecated.
    """
    with _IMPORTING, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(importlib.import_module(module), name)


def without_retries(
    client: Any,
    deadlines: Deadlines,
    proxy: str | None = None,
    on_headers: Callable[[Mapping[str, str]], None] = lambda _: None,
) -> Any:
    """Configure one of alpaca-py's clients: no retries, a deadline for every request, exact numbers.

    Its calls raise RefusedAnswerError for an unsuccessful answer, and the errors of `requests`.
    """
    from killswitch.transport.adapters import watch

    session = client._session
    session.trust_env = False  # ignore keys in ~/.netrc and proxies in the environment
    session.proxies = {"http": proxy, "https": proxy} if proxy else {}
    watch(session, QUERY_THREADS + ORDER_THREADS)
    client._retry = 0

    def one_request(method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        with deadlines.one():
            answer = session.request(method, url, **opts, timeout=deadlines.seconds)
        on_headers(answer.headers)
        if not 200 <= answer.status_code < 300:
            raise RefusedAnswerError(read_refusal(answer.status_code, answer.text, retry_after(answer.headers)))
        if not answer.text:
            return None
        try:
            return json.loads(answer.text, parse_float=Decimal)
        except ValueError as error:
            words = words_of(answer.status_code, answer.text)
            raise InvalidJsonError(shortened(legible(words), LONGEST_TEXT)) from error

    client._one_request = one_request
    return client


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until Alpaca accepts requests again, where its answer states that; both times are by its own clock."""
    try:
        if "Retry-After" in headers:
            return float(headers["Retry-After"])
        answered_at = parsedate_to_datetime(headers["Date"]).timestamp()
        return max(0.1, float(headers["X-RateLimit-Reset"]) - answered_at)
    except (KeyError, ValueError):
        return None
