"""Calls that may hang, such as those on a dead network mount, on threads that nobody has to wait for.

A thread that cannot be begun (a limit on processes, no memory for its stack) is an outcome like any other: an OSError
of the call, which is a problem and perhaps a page, never the end of a run (ADR 0115).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from errno import EAGAIN
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

MOST_THREADS = 256
"""Calls at a time. So many of them hang before one more is refused."""


class DeadlineError(Exception):
    """A call has not come back in time, and may never."""


class NoThreadError(OSError):
    """The system lets this process begin no further thread."""

    def __init__(self, why: str) -> None:
        super().__init__(EAGAIN, why)


def begin(thread: threading.Thread) -> None:
    """Start `thread`. NoThreadError if the system does not let it."""
    try:
        thread.start()
    except RuntimeError as error:
        text = f"no thread can be begun: {error}; is there a limit on processes, or no memory left?"
        raise NoThreadError(text) from None


class _Call:
    """One call, and the future of whoever waits for it."""

    def __init__(self, future: Future[Any], do: Callable[[], Any]) -> None:
        self._future = future
        self._do = do

    def run(self) -> Callable[[], None]:
        """Do it; what tells whoever waits for it is for the thread to call."""
        if not self._future.set_running_or_notify_cancel():
            return lambda: None
        try:
            return partial(self._future.set_result, self._do())
        except BaseException as error:  # noqa: BLE001 - it is whoever waits for it who learns of it
            return partial(self._future.set_exception, error)


class DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, none of which keeps the process alive, as a pool's threads would.

    A ThreadPoolExecutor because an event loop accepts no other executor; no thread of that pool is ever begun.

    A thread whose call is over waits `idle` seconds for another one, so that what is done at every tick needs none to
    be begun.
    """

    def __init__(self, name: str = "file", *, most: int = MOST_THREADS, idle: float = 0.0) -> None:
        super().__init__(max_workers=1)
        self._name = name
        self._most = most
        self._idle_for = idle
        self._guard = threading.Lock()
        self._idle: dict[SimpleQueue[_Call | None], threading.Thread] = {}
        self._count = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Always a future: its exception is a NoThreadError where no thread is idle and none can be begun."""
        future: Future[T] = Future()
        call = _Call(future, lambda: fn(*args, **kwargs))
        with self._guard:
            idle = self._idle.popitem()[0] if self._idle else None
            is_full = idle is None and self._count >= self._most
            self._count += idle is None and not is_full
        if idle is not None:
            idle.put(call)
        elif is_full:
            future.set_exception(NoThreadError(f"{self._most} calls hang already ({self._name})"))
        else:
            try:
                begin(threading.Thread(target=self._work, args=(call,), name=self._name, daemon=True))
            except NoThreadError as error:
                self._over()
                future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads that are idle. Nothing that is under way is waited for, whatever is asked for."""
        with self._guard:
            self._idle_for, idle = 0.0, dict(self._idle)
            self._idle.clear()
        for own, thread in idle.items():
            own.put(None)
            thread.join()

    def _work(self, call: _Call) -> None:
        own: SimpleQueue[_Call | None] = SimpleQueue()
        following: _Call | None = call
        del call  # what a call holds is not kept while nothing is done
        while following is not None:
            tell, following = following.run(), None
            with self._guard:
                self._idle[own] = threading.current_thread()
            tell()  # who asks again as soon as it has this answer finds an idle thread
            del tell
            following = self._next(own)
        self._over()

    def _next(self, own: SimpleQueue[_Call | None]) -> _Call | None:
        """The next call of an idle thread; None if there has been none for long."""
        try:
            return own.get(timeout=self._idle_for)
        except Empty:
            with self._guard:
                if self._idle.pop(own, None) is not None:
                    return None
            return own.get()  # it was chosen just now

    def _over(self) -> None:
        with self._guard:
            self._count -= 1


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """What `call` returns or raises.

    DeadlineError, naming `what`, if it is not over in time, and then goes on, or if no thread can be begun for it.
    """
    try:
        return DaemonThreads().submit(call).result(seconds)
    except NoThreadError as error:
        raise DeadlineError(f"{what} cannot be looked at: {error.strerror}") from error
    except FutureTimeoutError as error:
        raise DeadlineError(f"{what} has not answered within {seconds:g} s: is its file system there?") from error
