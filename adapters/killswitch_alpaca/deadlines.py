"""Requests that end: each has one deadline for all of it, and none keeps a process from ending.

The timeout of `requests` starts anew with every byte that arrives, so that a server that answers slowly enough is
waited for without end. Here a clock runs beside each request and, when its time is up, shuts the connection under it.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from errno import EAGAIN
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class Deadlines:
    """The requests of one client that are under way, each of which may take so many seconds from first to last."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._under_way: set[_Request] = set()
        self._closed = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around one request, in the thread that makes it.

        `requests`' ReadTimeout once the time is up, whatever had come by then; its ConnectTimeout where no connection
        had been made, so that nothing was asked; its ConnectionError where everything was ended meanwhile.
        """
        from requests import exceptions

        request = _Request()
        clock = threading.Timer(self.seconds, request.end, ("late",))
        clock.daemon = True
        with self._lock:
            self._under_way.add(request)
            closed = self._closed
        if closed:
            request.end("closed")
        _mine.request = request
        clock.start()
        trouble: exceptions.RequestException | None = None
        try:
            yield
        except exceptions.RequestException as error:
            if never_made(error):
                raise
            trouble = error
        finally:
            _mine.request = None
            ended = request.end("over")
            clock.cancel()
            with self._lock:
                self._under_way.discard(request)
        # A connection that was shut looks like an answer that has come to its end: it is not taken for one.
        if ended == "late" and not request.sent:
            raise exceptions.ConnectTimeout(f"no connection within {self.seconds:g} s") from trouble
        if ended == "late":
            raise exceptions.ReadTimeout(f"no whole answer within {self.seconds:g} s") from trouble
        if ended == "closed":
            raise exceptions.ConnectionError("the account was closed meanwhile") from trouble
        if trouble is not None:
            raise trouble

    def end_all(self) -> None:
        """Shut the connections of all that is under way; nothing leaves any more."""
        with self._lock:
            self._closed = True
            under_way = tuple(self._under_way)
        for request in under_way:
            request.end("closed")

    def watch(self, session: Any, connections: int) -> None:
        """Make a session of `requests` tell which connection each request goes over, ask once, and keep so many."""
        from killswitch.transport.adapters import GuardedAdapter

        class Watched(GuardedAdapter):
            def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
                super().init_poolmanager(*arguments, **named)
                _watch(self.poolmanager)

            def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
                known = proxy in self.proxy_manager
                manager = super().proxy_manager_for(proxy, **named)
                if not known:
                    _watch(manager)
                return manager

        for scheme in ("http://", "https://"):
            session.mount(scheme, Watched(pool_maxsize=connections, max_retries=0))


def never_made(error: BaseException) -> bool:
    """Whether the connection was never made, so that nothing can have been asked for."""
    from requests import exceptions
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError

    if isinstance(error, exceptions.ConnectTimeout):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, SSLError):
        # Before a certificate is accepted nothing is said over the connection.
        return isinstance(reason.args[0] if reason.args else None, ssl.SSLCertVerificationError)
    return isinstance(error, exceptions.ConnectionError) and isinstance(
        reason, NewConnectionError | ConnectTimeoutError
    )


class _Request:
    """One request, and the connection that it goes over once that is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._state: Literal["under way", "late", "closed", "over"] = "under way"
        self.sent = False
        """Whether anything of it may have left."""

    def goes_over(self, connection: Any) -> bool:
        """Whether it still may."""
        with self._lock:
            self._connection = connection
            connection.goes_over_it = self
            return self._state == "under way"

    def end(self, how: Literal["late", "closed", "over"]) -> str:
        """End it, unless it has ended: how it did. What comes too late, or is called off, loses its connection."""
        with self._lock:
            if self._state == "under way":
                self._state = how
                if how != "over":
                    _shut(self._connection, self)
            return self._state


_mine = threading.local()
"""The request of this thread."""


class _Watched:
    """What a connection of urllib3 does besides."""

    def connect(self) -> None:
        self._require_time()
        super().connect()  # type: ignore[misc] # of the class beside it
        self._require_time()

    def putrequest(self, *arguments: Any, **named: Any) -> Any:
        self._require_time()
        if (request := getattr(_mine, "request", None)) is not None:
            request.sent = True
        return super().putrequest(*arguments, **named)  # type: ignore[misc] # of the class beside it

    def _require_time(self) -> None:
        """Nothing leaves after its time."""
        from urllib3.exceptions import ConnectTimeoutError

        request = getattr(_mine, "request", None)
        if request is not None and not request.goes_over(self):
            raise ConnectTimeoutError(self, "no connection in time")


def _watch(manager: Any) -> None:
    """Give every kind of connection of a urllib3 manager our ears."""
    manager.pool_classes_by_scheme = {
        scheme: type(
            f"Watched{pool.__name__}",
            (pool,),
            {"ConnectionCls": type("Connection", (_Watched, pool.ConnectionCls), {})},
        )
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _shut(connection: Any, request: _Request) -> None:
    """End whatever waits on the connection, unless another request has it by now."""
    live = getattr(connection, "sock", None)
    if live is None or connection.goes_over_it is not request:
        return
    with suppress(OSError):
        # Of a socket with TLS this is the one beneath: its own way would take away what the reading thread works with.
        socket.socket.shutdown(live, socket.SHUT_RDWR)


class DaemonThreads(Executor):
    """So many threads at most, none of which anybody waits for when the process ends."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """RuntimeError after `shutdown`. Where no thread can be begun and none runs, the future's is an OSError."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the threads {self._name} were given back")
            self._work.put((future, lambda: fn(*args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._threads < self._most:
                self._begin_one()
        return future

    def _begin_one(self) -> None:
        """With the lock held. What was put last is called off if there is nobody to do it, now or soon."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if self._threads == 0 and (work := self._work.get_nowait()) is not None:
                work[0].set_exception(OSError(EAGAIN, f"no thread can be begun to ask with: {error}"))
        else:
            self._threads += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What has not begun is called off, and nothing that has is waited for, whatever is asked for."""
        with self._lock:
            self._closed = True
            with suppress(Empty):
                while (work := self._work.get_nowait()) is not None:
                    work[0].cancel()
            for _ in range(self._threads):
                self._work.put(None)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except Empty:
                self._idle.release()
                work = self._work.get()
            if work is None:
                return
            future, do = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(do())
            except BaseException as error:  # noqa: BLE001 - it is whoever waits for it who is told
                future.set_exception(error)
            del work, future, do
