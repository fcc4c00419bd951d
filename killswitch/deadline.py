"""Runs calls that may hang, such as those on a dead network mount, on daemon threads, and interrupts those of its own
thread that take too long.

If a thread cannot be started (a limit on processes, no memory for its stack), the call fails with an OSError, which is
a problem and perhaps a page, never the end of a run (ADR 0104).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from errno import EAGAIN
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

MOST_THREADS = 256
"""Most concurrent calls; further ones are refused while so many hang."""


class DeadlineError(Exception):
    """A call did not return in time, and may never return."""


class OverTimeError(BaseException):
    """The time is over. No `except Exception` of what runs catches it."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise OverTimeError in the block once `seconds` are over, wherever it is then, also in an endless loop.

    Only for the main thread of a process, and not inside of another such block: it uses the process's timer. Compiled
    code that never returns to the interpreter is not interrupted.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise OverTimeError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class NoThreadError(OSError):
    """The system does not allow this process to start another thread."""


def start_thread(thread: threading.Thread) -> None:
    """Start `thread`. NoThreadError if the system does not allow it."""
    try:
        thread.start()
    except RuntimeError as error:
        text = f"cannot start a thread: {error}; check the limit on processes and the free memory"
        raise NoThreadError(EAGAIN, text) from None


_Call = tuple[Future[Any], Callable[[], Any]]
"""One call, and its future."""


def _run(future: Future[Any], do: Callable[[], Any]) -> Callable[[], None]:
    """Run a call; return the callback that completes its future."""
    if not future.set_running_or_notify_cancel():
        return lambda: None
    try:
        return partial(future.set_result, do())
    except BaseException as error:  # noqa: BLE001 - the error belongs to the caller
        return partial(future.set_exception, error)


class DaemonThreadExecutor(ThreadPoolExecutor):
    """An executor with a thread for each call, none of which keeps the process alive, as a pool's threads would.

    It is a ThreadPoolExecutor because an event loop accepts no other executor; it starts no thread of that pool.

    An idle thread waits `idle` seconds for another call, so that periodic calls start no threads. While `most` calls
    run, another one fails.
    """

    def __init__(self, name: str = "file", *, most: int = MOST_THREADS, idle: float = 0.0) -> None:
        super().__init__(max_workers=1)
        self._name = name
        self._most = most
        self._idle_for = idle
        self._lock = threading.Lock()
        self._idle: dict[SimpleQueue[_Call | None], threading.Thread] = {}
        self._count = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call; the future fails with NoThreadError if no thread is idle and none can be started."""
        future: Future[T] = Future()
        call: _Call = (future, lambda: fn(*args, **kwargs))
        with self._lock:
            idle = self._idle.popitem()[0] if self._idle else None
            is_full = idle is None and self._count >= self._most
            self._count += idle is None and not is_full
        if idle is not None:
            idle.put(call)
        elif is_full:
            future.set_exception(NoThreadError(EAGAIN, f"{self._most} calls hang already ({self._name})"))
        else:
            try:
                start_thread(threading.Thread(target=self._run_calls, args=(call,), name=self._name, daemon=True))
            except NoThreadError as error:
                self._over()
                future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the idle threads. Calls that are running are never waited for, whatever `wait` is, and none waits for a
        thread, so that there is none to cancel."""
        with self._lock:
            self._idle_for, idle = 0.0, dict(self._idle)
            self._idle.clear()
        for own, thread in idle.items():
            own.put(None)
            thread.join()

    def _run_calls(self, call: _Call) -> None:
        own: SimpleQueue[_Call | None] = SimpleQueue()
        next_call: _Call | None = call
        del call  # an idle thread keeps no references of its last call
        while next_call is not None:
            complete, next_call = _run(*next_call), None
            with self._lock:
                self._idle[own] = threading.current_thread()
            complete()  # a caller that submits again at once finds an idle thread
            del complete
            next_call = self._next(own)
        self._over()

    def _next(self, own: SimpleQueue[_Call | None]) -> _Call | None:
        """The next call of an idle thread; None if there was none in time."""
        try:
            return own.get(timeout=self._idle_for)
        except Empty:
            with self._lock:
                if self._idle.pop(own, None) is not None:
                    return None
            return own.get()  # a call was assigned just now

    def _over(self) -> None:
        with self._lock:
            self._count -= 1


def call_within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """The result of `call`; DeadlineError, naming `what`, if it does not return within `seconds`.

    The call continues after that. DeadlineError also if no thread can be started for it.
    """
    try:
        return DaemonThreadExecutor().submit(call).result(seconds)
    except NoThreadError as error:
        raise DeadlineError(f"{what} cannot be read: {error.strerror}") from error
    except FutureTimeoutError as error:
        raise DeadlineError(
            f"{what} did not answer within {seconds:g} s; check that its file system is available"
        ) from error
