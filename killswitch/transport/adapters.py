"""Sessions of requests that follow no redirect and read no answer beyond its largest size."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter

from killswitch.transport import CHUNK, LARGEST_ANSWER, AnswerTooLargeError, Body, RedirectRefusedError, is_redirect


class RedirectedError(RedirectRefusedError, requests.RequestException):
    """The same, as what calls requests expects an error of it."""


class TooLargeError(AnswerTooLargeError, requests.RequestException):
    """The same, as what calls requests expects an error of it."""

    def __init__(self, error: AnswerTooLargeError) -> None:
        Exception.__init__(self, str(error))


class GuardedAdapter(HTTPAdapter):
    """Mount it in a session. RedirectedError and TooLargeError in the place of such an answer."""

    def __init__(self, largest: int = LARGEST_ANSWER, **named: Any) -> None:
        self.largest = largest
        super().__init__(**named)

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *arguments: Any, **named: Any
    ) -> requests.Response:
        """The answer, whole, also where somebody asks to read it as it comes."""
        response = super().send(request, True, *arguments, **named)
        try:
            response._content = self._read_capped(response)
            response._content_consumed = True
        except BaseException:
            response.close()
            raise
        return response

    def _read_capped(self, response: requests.Response) -> bytes:
        if is_redirect(response.status_code):
            raise RedirectedError(response.status_code, response.headers.get("Location"))
        body = Body(self.largest)
        try:
            for chunk in response.iter_content(CHUNK):
                body.add(chunk)
        except AnswerTooLargeError as error:
            raise TooLargeError(error) from None
        return body.whole()


def guard(session: requests.Session, largest: int = LARGEST_ANSWER) -> requests.Session:
    """Have a session refuse redirects, and answers beyond `largest` bytes; the session itself."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(largest))
    return session


def guard_every_session() -> None:
    """Have every session of requests that this process makes from now on do the same.

    For libraries that call `requests.post` themselves and take no session, as Apprise's services do.
    """
    setattr(requests.sessions, "HTTPAdapter", GuardedAdapter)  # noqa: B010 - typed as read-only; a new session mounts it
