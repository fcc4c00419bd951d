"""Sessions of aiohttp that follow no redirect and read no answer beyond its largest size."""

from __future__ import annotations

from typing import Any

import aiohttp

from killswitch.transport import LARGEST_ANSWER, Body, RedirectRefusedError, is_redirect


class CappedResponse(aiohttp.ClientResponse):
    """Reads at most `largest` bytes of a body, counted as they are unpacked."""

    largest = LARGEST_ANSWER

    async def read(self) -> bytes:
        """AnswerTooLargeError beyond `largest`; the connection is given up then."""
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
    """A middleware. RedirectRefusedError for an answer of 3xx, the first one of a stream included."""
    response = await handler(request)
    if is_redirect(response.status):
        location = response.headers.get("Location")
        response.close()
        raise RedirectRefusedError(response.status, location)
    return response


def guarded_session(largest: int = LARGEST_ANSWER, **named: Any) -> aiohttp.ClientSession:
    """A session of aiohttp; `named` as it takes them."""
    kind = type("CappedResponse", (CappedResponse,), {"largest": largest})
    return aiohttp.ClientSession(middlewares=(refuse_redirects,), response_class=kind, **named)
