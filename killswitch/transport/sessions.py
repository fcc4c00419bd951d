"""Sessions of aiohttp that send each request once, refuse redirects, and limit the size of answers."""

from __future__ import annotations

import ssl
from functools import cache
from types import SimpleNamespace
from typing import Any

import aiohttp

from killswitch.transport import LARGEST_ANSWER, Body, RedirectRefusedError, is_redirect


class ConnectionBrokenError(aiohttp.ClientConnectionError):
    """An open connection broke before its answer began: the status of the request is unknown."""


class CappedResponse(aiohttp.ClientResponse):
    """A response that reads at most `largest` bytes of a body, counted uncompressed."""

    largest = LARGEST_ANSWER

    async def read(self) -> bytes:
        """The body. Raises AnswerTooLargeError beyond `largest`, and closes the connection."""
        if self._body is None:
            try:
                self._body = await self._read_capped()
            except BaseException:
                self.close()
                raise
        return await super().read()

    async def _read_capped(self) -> bytes:
        body = Body(self.largest)
        async for chunk in self.content.iter_any():
            body.add(chunk)
        return body.whole()


async def refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Middleware that raises RedirectRefusedError for a 3xx answer, also the first one of a WebSocket."""
    response = await handler(request)
    if is_redirect(response.status):
        location = response.headers.get("Location")
        response.close()
        raise RedirectRefusedError(response.status, location)
    return response


async def send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Middleware that raises ConnectionBrokenError where aiohttp would send the request again.

    aiohttp repeats a GET, PUT or DELETE once after the two errors of a broken connection, and has no option against it.
    Some venues accept orders by GET, and a second DELETE is answered with "not found".
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:  # there was no connection, after which aiohttp repeats nothing
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionBrokenError(str(error)) from error


class Sending:
    """Whether a request may have arrived, for its `trace_request_ctx` in a session with `trace_of_sending`."""

    has_begun = False


def trace_of_sending() -> aiohttp.TraceConfig:
    """A trace that records in the `Sending` of each request that its headers were written."""

    async def record(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.has_begun = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(record)
    return trace


@cache
def certificates(file: str) -> ssl.SSLContext:
    """The authorities in `file`, shared by all sessions: loading them takes 20 ms.

    A certificate names its host in the alternative names; the common name, which nobody checks, does not count.
    """
    context = ssl.create_default_context(cafile=file)
    context.hostname_checks_common_name = False
    return context


def guarded_session(largest: int = LARGEST_ANSWER, **named: Any) -> aiohttp.ClientSession:
    """Create a session of aiohttp with the arguments `named`."""
    kind = type("CappedResponse", (CappedResponse,), {"largest": largest})
    return aiohttp.ClientSession(middlewares=(refuse_redirects, send_once), response_class=kind, **named)
