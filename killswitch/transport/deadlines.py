"""Deadlines of whole requests, which never delay the end of the process.

The timeout of `requests` restarts with every byte that arrives, so it never ends a request to a slow enough server.
Here a timer runs for each request and shuts its connection when the time is up.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal


@contextmanager
def deadline(seconds: float) -> Iterator[TimedRequest]:
    """Run one request, in its thread, by a session of `WatchedAdapter`; it may take this many seconds in all.

    Raises the ReadTimeout of `requests` once the time is up, whatever has arrived; ConnectTimeout if there was no
    connection, so that nothing was sent.
    """
    from requests import exceptions

    request = TimedRequest()
    _current.request = request
    request.ends_within(seconds)
    trouble: exceptions.RequestException | None = None
    try:
        yield request
    except exceptions.RequestException as error:
        trouble = error
    finally:
        _current.request = None
        ended = request.end("over")
    # A connection that was shut looks like the end of an answer: it must not count as one.
    if ended == "late" and not request.sent:
        raise exceptions.ConnectTimeout(f"no connection within {seconds:g} s") from trouble
    if ended == "late":
        raise exceptions.ReadTimeout(f"no whole answer within {seconds:g} s") from trouble
    if trouble is not None:
        raise trouble


class TimedRequest:
    """One request, and its connection once that is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._state: Literal["under way", "late", "over"] = "under way"
        self._timer: threading.Timer | None = None
        self.sent = False
        """Whether any of it may have been sent."""

    def ends_within(self, seconds: float) -> bool:
        """Set the deadline, replacing an earlier one; return False if the request has ended already."""
        with self._lock:
            self._stop_clock()
            if self._state != "under way":
                return False
            self._timer = threading.Timer(seconds, self.end, ("late",))
            self._timer.daemon = True
            self._timer.start()
            return True

    def use_connection(self, connection: Any) -> bool:
        """Record the connection; return whether the request may still use it."""
        with self._lock:
            self._connection = connection
            connection.current_request = self
            return self._state == "under way"

    def end(self, how: Literal["late", "over"]) -> str:
        """End the request, unless it has ended; return how it ended. A late request loses its connection."""
        with self._lock:
            if self._state == "under way":
                self._state = how
                self._stop_clock()
                if how != "over":
                    _shut(self._connection, self)
            return self._state

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


_current = threading.local()
"""The request of the current thread."""


class _Watched:
    """Mixin for a connection of urllib3 that checks the deadline of the current request."""

    def connect(self) -> None:
        self._require_time()
        super().connect()  # type: ignore[misc] # of the class that it is mixed with
        # An answer with `Connection: close` removes `sock` while the answer is still read from it.
        self.original_sock = self.sock  # type: ignore[attr-defined] # as above
        self._require_time()

    def putrequest(self, *arguments: Any, **named: Any) -> Any:
        self._require_time()
        if (request := getattr(_current, "request", None)) is not None:
            request.sent = True
        return super().putrequest(*arguments, **named)  # type: ignore[misc] # of the class that it is mixed with

    def _require_time(self) -> None:
        """Raise where the request has ended: nothing is sent after its deadline."""
        from urllib3.exceptions import ConnectTimeoutError

        request = getattr(_current, "request", None)
        if request is not None and not request.use_connection(self):
            raise ConnectTimeoutError(self, "no connection in time")


def watch_connections(manager: Any) -> None:
    """Add `_Watched` to every connection class of a urllib3 pool manager, in place."""
    manager.pool_classes_by_scheme = {
        scheme: type(
            f"Watched{pool.__name__}",
            (pool,),
            {"ConnectionCls": type("Connection", (_Watched, pool.ConnectionCls), {})},
        )
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _shut(connection: Any, request: TimedRequest) -> None:
    """Shut the connection, unless another request uses it by now."""
    live = getattr(connection, "sock", None) or getattr(connection, "original_sock", None)
    if live is None or connection.current_request is not request:
        return
    with suppress(OSError):
        # Shut the socket below TLS: the TLS method would remove state that the reading thread uses.
        socket.socket.shutdown(live, socket.SHUT_RDWR)
