"""Threads that nobody waits for when the process ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from errno import EAGAIN
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


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
