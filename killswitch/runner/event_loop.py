"""The event loop of a verb that acts: no thread that hangs keeps it from its end.

`asyncio.run` waits, without a limit, for every thread of the loop's own executor, and the interpreter's end for them
once more. Names are looked up there (`getaddrinfo`), which may hang for as long as a resolver likes, and with six
threads that hang no other name is looked up at all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS = 256
"""Calls at a time. An account has a look-up or two under way; so many of them hang."""


class DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, none of which anybody waits for when the process ends.

    A ThreadPoolExecutor because an event loop takes no other; it never begins a thread of its own.
    """

    def __init__(self, name: str, most: int = MOST_THREADS) -> None:
        super().__init__(max_workers=1)
        self._name = name
        self._free = threading.Semaphore(most)
        self._most = most

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """OSError if too many calls hang already: what waited behind them would hang too, and not say so."""
        if not self._free.acquire(blocking=False):
            raise OSError(f"{self._most} calls hang already ({self._name})")
        future: Future[T] = Future()
        threading.Thread(target=self._call, args=(future, fn, args, kwargs), name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing that is under way is waited for, whatever is asked for."""

    def _call(self, future: Future[T], fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is whoever waits for it who is told
            future.set_exception(error)
        finally:
            self._free.release()


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does, and it ends when `main` does."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(DaemonThreads("look-up"))
        return runner.run(main)
