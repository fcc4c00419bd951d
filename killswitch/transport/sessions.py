"""Sessions of aiohttp that refuse redirects and limit the size of answers."""

from __future__ import annotations

from typing import Any

import aiohttp

from killswitch.transport import LARGEST_ANSWER, Body, RedirectRefusedError, is_redirect


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


def guarded_session(largest: int = LARGEST_ANSWER, **named: Any) -> aiohttp.ClientSession:
    """Create a session of aiohttp with the arguments `named`."""
    kind = type("CappedResponse", (CappedResponse,), {"largest": largest})
    return aiohttp.ClientSession(middlewares=(refuse_redirects,), response_class=kind, **named)
