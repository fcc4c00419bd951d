"""Sessions of requests that follow no redirect and read no answer beyond its largest size."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from killswitch.transport import CHUNK, LARGEST_ANSWER, AnswerTooLargeError, Body, RedirectRefusedError, is_redirect
from killswitch.transport.deadlines import watch_connections


class RedirectedError(RedirectRefusedError, requests.RequestException):
    """The same, as what calls requests expects an error of it."""


class TooLargeError(AnswerTooLargeError, requests.RequestException):
    """The same, as what calls requests expects an error of it."""


class GuardedAdapter(HTTPAdapter):
    """Mount it in a session. RedirectedError and TooLargeError in the place of such an answer."""

    def __init__(self, largest: int = LARGEST_ANSWER, **named: Any) -> None:
        self.largest = largest
        super().__init__(**named)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *arguments: Any, **named: Any
    ) -> requests.Response:
        """The answer, whole, also where somebody asks to read it as it comes."""
        response = self._begun(request, *arguments, **named)
        try:
            response._content = self._read_capped(response)
            response._content_consumed = True
        except BaseException:
            response.close()
            raise
        return response

    def _begun(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        """The status and the headers, as requests gets them."""
        return super().send(request, True, *arguments, **named)

    def _read_capped(self, response: requests.Response) -> bytes:
        refuse_redirect(response)
        body = Body(self.largest, TooLargeError)
        for chunk in response.iter_content(CHUNK):
            body.add(chunk)
        return body.whole()


class WatchedAdapter(GuardedAdapter):
    """One whose requests may be put under `Deadlines`."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """As requests makes it, with connections that can be shut."""
        super().init_poolmanager(*arguments, **named)
        watch_connections(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        """The same, for what goes through a proxy."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **named)
        if not known:
            watch_connections(manager)
        return manager


def refuse_redirect(response: requests.Response) -> None:
    """RedirectedError where it is one."""
    if is_redirect(response.status_code):
        raise RedirectedError(response.status_code, response.headers.get("Location"))


def watch(session: requests.Session, connections: int) -> None:
    """Have a session do the same under `Deadlines`, ask once, and keep so many connections."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, WatchedAdapter(pool_maxsize=connections, max_retries=0))


def guard(session: requests.Session, largest: int = LARGEST_ANSWER) -> requests.Session:
    """Have a session refuse redirects, and answers beyond `largest` bytes; the session itself."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(largest))
    return session
