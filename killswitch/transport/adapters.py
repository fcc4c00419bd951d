"""Sessions of requests that refuse redirects and limit the size of answers."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from killswitch.transport import CHUNK, LARGEST_ANSWER, AnswerTooLargeError, Body, RedirectRefusedError, is_redirect
from killswitch.transport.deadlines import watch_connections


class RedirectedError(RedirectRefusedError, requests.RequestException):
    """RedirectRefusedError as an error of requests."""


class TooLargeError(AnswerTooLargeError, requests.RequestException):
    """AnswerTooLargeError as an error of requests."""


class GuardedAdapter(HTTPAdapter):
    """A transport adapter for a session. Raises RedirectedError and TooLargeError."""

    def __init__(self, largest: int = LARGEST_ANSWER, **named: Any) -> None:
        self.largest = largest
        super().__init__(**named)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *arguments: Any, **named: Any
    ) -> requests.Response:
        """Send the request and read the complete answer, even if the caller asks to stream it."""
        response = self._begun(request, *arguments, **named)
        try:
            response._content = self._read_capped(response)
            response._content_consumed = True
        except BaseException:
            response.close()
            raise
        return response

    def _begun(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        """Send the request and return once the status and the headers are there."""
        return super().send(request, True, *arguments, **named)

    def _read_capped(self, response: requests.Response) -> bytes:
        refuse_redirect(response)
        body = Body(self.largest, TooLargeError)
        for chunk in response.iter_content(CHUNK):
            body.add(chunk)
        return body.whole()


class WatchedAdapter(GuardedAdapter):
    """An adapter whose requests may run under a `deadline`."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """Create the pool manager, with connections that a deadline can shut."""
        super().init_poolmanager(*arguments, **named)
        watch_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        """Create a proxy manager, with connections that a deadline can shut."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **named)
        if not known:
            watch_connections(manager)
        return manager


def refuse_redirect(response: requests.Response) -> None:
    """Raise RedirectedError for a redirect."""
    if is_redirect(response.status_code):
        raise RedirectedError(response.status_code, response.headers.get("Location"))


def guard(session: requests.Session, largest: int = LARGEST_ANSWER) -> requests.Session:
    """Make a session refuse redirects, and answers beyond `largest` bytes; return the session."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(largest))
    return session
