"""The requests of one account, with every failure mapped to a VenueError.

A request is sent once, and no layer repeats it. Orders have places of their own, so that a query that hangs never
delays one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from killswitch.model.snapshot import LimitUse
from killswitch.model.unanswered import why_unanswered
from killswitch.model.venue import FateUnknownError, MalformedAnswerError, VenueDownError, VenueError
from killswitch.transport import AnswerTooLargeError, RedirectRefusedError
from killswitch_alpaca.errors import RefusedAnswer, as_venue_error, host_of, redacted, refusal_meaning
from killswitch_alpaca.http import Http, InvalidJsonError, RefusedAnswerError
from killswitch_alpaca.settings import AlpacaSettings

QUERIES, CHANGES = 4, 8
"""Concurrent requests of each kind. Others wait, since every request has a deadline."""
TOO_LATE = "the account's adapter was closed before the request was sent"


class RequestCounters(Struct):
    """Request counters since the last snapshot."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    malformed: int = 0
    rate_limited: int = 0
    latency_ms: float = 0.0
    """Latency of the slowest answer, or the time that was waited for one."""
    limits: tuple[LimitUse, ...] | None = None
    """What is used of the request limit, by the last answer; None if none stated it."""


class Client:
    """One account's access to Alpaca's trading and data APIs.

    Every failure is a VenueError, except for the refusal of a change: a RefusedAnswerError for the caller to interpret.
    """

    def __init__(self, settings: AlpacaSettings) -> None:
        self._settings = settings
        keys = settings.key, settings.secret
        self._trading = Http(settings.trading, keys, settings.timeout, settings.proxy, self._record_rate_limit)
        self._data = Http(settings.data, keys, settings.timeout, settings.proxy)
        self._queries, self._changes = asyncio.Semaphore(QUERIES), asyncio.Semaphore(CHANGES)
        self._closed = False
        self._in_flight = 0
        self._answered = asyncio.Event()
        self.counters = RequestCounters()
        self.used: int | None = None
        """Requests that Alpaca has counted in its current minute, by its last answer."""

    async def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The answer of the trading API."""
        return (await self._call(self._trading, "GET", path, query))[0]

    async def get_timed(self, path: str) -> tuple[Any, datetime]:
        """The answer of the trading API, and our time in the middle of the request."""
        return await self._call(self._trading, "GET", path)

    async def get_data(self, path: str, query: Mapping[str, Any]) -> Any:
        """The answer of the market data API."""
        return (await self._call(self._data, "GET", path, query))[0]

    async def change(self, method: str, path: str, body: object = None) -> Any:
        """The answer of the trading API to a POST, PATCH or DELETE."""
        return (await self._call(self._trading, method, path, body=body))[0]

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
        """Release the connections. Requests in flight end; the status of a change among them is unknown."""
        self._closed = True
        await self._trading.close()
        await self._data.close()

    async def _call(
        self, http: Http, method: str, path: str, query: Mapping[str, Any] | None = None, body: object = None
    ) -> tuple[Any, datetime]:
        from killswitch.transport.sessions import Sending  # imports aiohttp

        self._require_open()
        changes, sending = method != "GET", Sending()
        self.counters.requests += 1
        self._in_flight += 1
        try:
            async with self._changes if changes else self._queries:
                self._require_open()
                return await self._timed(http.request(method, path, query, body, sending))
        except VenueError:
            raise
        except RefusedAnswerError as error:
            self._count(error.refused)
            if not changes or error.refused.status in (401, 429) or not 400 <= error.refused.status < 500:
                raise as_venue_error(error.refused, changes=changes) from error
            raise
        except InvalidJsonError as error:
            self.counters.malformed += 1
            raise MalformedAnswerError(f"Alpaca returned an invalid answer: {error}") from error
        except Exception as error:
            raise self._failed(error, host_of(http.base), changes=changes, sent=sending.has_begun) from error
        finally:
            self._in_flight -= 1
            self._answered.set()

    def _require_open(self) -> None:
        if self._closed:
            raise VenueDownError(TOO_LATE)

    async def _timed(self, request: Awaitable[Any]) -> tuple[Any, datetime]:
        """The answer, and our time in the middle of the request; its latency is recorded, whatever its end."""
        loop = asyncio.get_running_loop()
        began, began_at = loop.time(), self._settings.now()
        try:
            answer = await request
            return answer, began_at + (self._settings.now() - began_at) / 2
        finally:
            self.counters.latency_ms = max(self.counters.latency_ms, (loop.time() - began) * 1000)

    def _record_rate_limit(self, headers: Mapping[str, str]) -> None:
        try:
            limit, left = int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Remaining"])
        except (KeyError, ValueError):
            return
        self.used = max(0, limit - left)
        if limit > 0:
            self.counters.limits = (LimitUse("requests", Decimal(self.used), Decimal(limit)),)

    def _count(self, refused: RefusedAnswer) -> None:
        if refused.status == 429:
            self.counters.rate_limited += 1
        elif refused.status >= 500:
            self.counters.errors += 1

    def _failed(self, error: Exception, where: str, *, changes: bool, sent: bool) -> VenueError:
        """The error of a request without an answer: it was never sent, or its status is unknown."""
        import aiohttp

        if isinstance(error, AnswerTooLargeError):
            self.counters.malformed += 1
            return MalformedAnswerError(f"{where}: {error}")
        if isinstance(error, TimeoutError) and not self._closed:
            self.counters.timeouts += 1
        else:
            self.counters.errors += 1
        kind: type[VenueError] = FateUnknownError if changes and sent else VenueDownError
        if isinstance(error, RedirectRefusedError):
            return kind(f"{where}: {error}")
        explanation = None if self._closed else why_unanswered(error, where, self._settings.timeout)
        why = "the account was closed meanwhile" if self._closed else str(error) or type(error).__name__
        if not sent:
            text = explanation or f"{where} cannot be reached: {why}"
        elif isinstance(error, aiohttp.ClientError | OSError):
            text = explanation or f"no answer from {where}: {why}"
        else:
            kind = FateUnknownError if changes else MalformedAnswerError
            text = f"the answer of {where} cannot be processed: {why}"
        return kind(redacted(text, self._settings.trading, self._settings.data, self._settings.proxy))


def has_no_such_order(error: VenueError) -> bool:
    """Whether a query failed because Alpaca reports that it does not have the order."""
    refused = error.__cause__.refused if isinstance(error.__cause__, RefusedAnswerError) else None
    return refused is not None and refused.status == 404 and refusal_meaning(refused) == "gone"
