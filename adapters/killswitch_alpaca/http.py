"""HTTP to one of Alpaca's addresses: a request is sent once, ends in time, and its numbers stay exact."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from killswitch.model.legible import legible, shortened
from killswitch.model.unanswered import words_of
from killswitch_alpaca.errors import LONGEST_TEXT, RefusedAnswer, read_refusal

if TYPE_CHECKING:
    import aiohttp

    from killswitch.transport.sessions import Sending


class RefusedAnswerError(Exception):
    """Alpaca answered with a status other than success."""

    def __init__(self, refused: RefusedAnswer) -> None:
        super().__init__(refused.text)
        self.refused = refused


class InvalidJsonError(Exception):
    """A successful answer whose body is not JSON."""


class Http:
    """Requests to `base`, an address without a slash at its end, each of which may take `timeout` seconds in all."""

    def __init__(
        self,
        base: str,
        keys: tuple[str, str] | None,
        timeout: float,
        proxy: str | None = None,
        on_headers: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> None:
        """`on_headers` is called with the headers of every answer; proxies of the environment are not used."""
        self.base = base
        self._headers = dict(zip(("APCA-API-KEY-ID", "APCA-API-SECRET-KEY"), keys or (), strict=False))
        self._timeout = timeout
        self._proxy = proxy
        self._on_headers = on_headers
        self._session: aiohttp.ClientSession | None = None
        self._in_flight: set[asyncio.Timeout] = set()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: object = None,
        sending: Sending | None = None,
    ) -> Any:
        """The JSON of the answer; None for an empty one. Keys of the query without a value are left out.

        Raises RefusedAnswerError or InvalidJsonError for an answer, TimeoutError once the time is up, whatever has
        arrived, and the errors of `transport` and aiohttp.
        """
        from killswitch.transport.sessions import Sending

        async with asyncio.timeout(self._timeout) as deadline:
            self._in_flight.add(deadline)
            try:
                async with self._open_session().request(
                    method,
                    self.base + path,
                    params={name: str(value) for name, value in (query or {}).items() if value is not None},
                    json=body,
                    headers=self._headers,
                    proxy=self._proxy,
                    trace_request_ctx=sending or Sending(),
                ) as answer:
                    content = await answer.read()
            finally:
                self._in_flight.discard(deadline)
        self._on_headers(answer.headers)
        text = content.decode(errors="replace")
        if not 200 <= answer.status < 300:
            raise RefusedAnswerError(read_refusal(answer.status, text, retry_after(answer.headers)))
        if not text:
            return None
        try:
            return json.loads(text, parse_float=Decimal)
        except ValueError as error:
            raise InvalidJsonError(shortened(legible(words_of(answer.status, text)), LONGEST_TEXT)) from error

    async def close(self) -> None:
        """Close the connections. Requests in flight end with a TimeoutError."""
        for deadline in self._in_flight:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, which is created for the first request: importing aiohttp takes a tenth of a second."""
        if self._session is None:
            import aiohttp
            import certifi

            from killswitch.transport.sessions import certificates, guarded_session, trace_of_sending

            self._session = guarded_session(
                connector=aiohttp.TCPConnector(ssl=certificates(certifi.where()), limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                trace_configs=[trace_of_sending()],
            )
        return self._session


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until Alpaca accepts requests again, where its answer states that; both times are by its own clock."""
    try:
        if "Retry-After" in headers:
            return float(headers["Retry-After"])
        answered_at = parsedate_to_datetime(headers["Date"]).timestamp()
        return max(0.1, float(headers["X-RateLimit-Reset"]) - answered_at)
    except (KeyError, ValueError):
        return None
