"""Requests of libraries that send notifications and telemetry, and accept no session of ours.

Apprise's services call `requests.post`, and OpenTelemetry's exporters create sessions of their own. Only the status of
such an answer matters: the body is cut off, in bytes and in seconds. A read timeout of `requests` is no deadline,
because it restarts with every byte.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from killswitch.model.unanswered import why_unanswered
from killswitch.transport import is_redirect
from killswitch.transport.adapters import WatchedAdapter, refuse_redirect
from killswitch.transport.deadlines import deadline

LARGEST_BODY: Final = 64 << 10
"""Bytes of an answer that are read. The rest is discarded."""
BODY_WITHIN: Final = 3.0
"""Seconds that the body of an answer may take once its status is known."""
STATUS_WITHIN: Final = 10.0
"""Seconds from connecting to the status, where the caller sets no timeout."""
_PIECE: Final = 4096


class DeliveryAttempt:
    """One delivery attempt of a thread, with any number of requests."""

    def __init__(self, seconds: float) -> None:
        self._until = monotonic() + seconds
        self.why: str | None = None
        """Why the last failed request failed, in plain words."""
        self.is_stalled = False
        """Whether a request had no answer in time."""
        self.remark: str | None = None
        """A problem with a receiver that nevertheless answered with a status."""

    @property
    def left(self) -> float:
        """Remaining seconds."""
        return self._until - monotonic()


_current = threading.local()


@contextmanager
def delivery_attempt(seconds: float) -> Iterator[DeliveryAttempt]:
    """Limit all requests that this thread makes inside the block to `seconds` together."""
    _current.attempt = DeliveryAttempt(seconds)
    try:
        yield _current.attempt
    finally:
        _current.attempt = None


class SinkAdapter(WatchedAdapter):
    """An adapter whose requests have a deadline, and whose answers are the status and the beginning of the body."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The answer. Raises the errors of `requests` where there is none; a body without end is cut off and is not
        an error."""
        attempt: DeliveryAttempt | None = getattr(_current, "attempt", None)
        seconds = _seconds(timeout) if attempt is None else min(_seconds(timeout), attempt.left)
        options = {"timeout": seconds, "verify": verify, "cert": cert, "proxies": proxies}
        try:
            return self._answer(request, seconds, attempt, options)
        except requests.RequestException as error:
            if attempt is not None:
                place = urlsplit(request.url or "").netloc.rpartition("@")[2]
                attempt.why = why_unanswered(error, place, seconds)
                attempt.is_stalled |= isinstance(error, requests.Timeout)
            raise

    def _answer(
        self,
        request: requests.PreparedRequest,
        seconds: float,
        attempt: DeliveryAttempt | None,
        options: Mapping[str, Any],
    ) -> requests.Response:
        if seconds <= 0:
            raise requests.ConnectTimeout("no time is left for the request")
        response: requests.Response | None = None
        body = bytearray()
        try:
            with deadline(seconds) as limited:
                begun = self._begun(request, **options)
                # Headers that the deadline cut off look like complete headers.
                if limited.ends_within(BODY_WITHIN):
                    response = begun
                    refuse_redirect(response)
                    self._read_beginning(response, body)
        except requests.RequestException as error:
            if response is None or is_redirect(response.status_code):
                raise
            # The status has arrived, and it decides: a torn or endless body does not change it.
            response.close()
            if attempt is not None and isinstance(error, requests.Timeout):
                attempt.remark = f"its answer did not end within {BODY_WITHIN:g} s"
        assert response is not None  # without one the deadline has raised
        response._content, response._content_consumed = bytes(body), True  # as requests itself puts it there
        return response

    def _read_beginning(self, response: requests.Response, body: bytearray) -> None:
        for piece in response.iter_content(_PIECE):
            body += piece[: LARGEST_BODY - len(body)]
            if len(body) >= LARGEST_BODY:
                response.close()
                return


def guard_every_session() -> None:
    """Make every session of requests that this process creates from now on use `SinkAdapter`.

    Sessions to venues are not affected: they mount `guard`, whose answers are read completely.
    """
    setattr(requests.sessions, "HTTPAdapter", SinkAdapter)  # noqa: B010 - typed as read-only; a new session mounts it


def _seconds(timeout: float | tuple[float | None, float | None] | None) -> float:
    """The longest timeout given, of connecting and reading."""
    timeouts = timeout if isinstance(timeout, tuple) else (timeout,)
    return max((each for each in timeouts if each is not None), default=STATUS_WITHIN)
