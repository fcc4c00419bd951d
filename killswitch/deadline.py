"""File operations that may hang, such as those on a dead network mount, on threads that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineError(Exception):
    """A call has not come back in time, and may never."""


class DaemonThreads(Executor):
    """A thread of its own for every call. None of them keeps the process alive, which a pool's threads would."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
                future.set_exception(error)

        threading.Thread(target=work, name="file", daemon=True).start()
        return future


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """What `call` returns or raises. DeadlineError, naming `what`, if it is not over in time; it then goes on."""
    try:
        return DaemonThreads().submit(call).result(seconds)
    except FutureTimeoutError as error:
        raise DeadlineError(f"{what} has not answered within {seconds:g} s: is its file system there?") from error
