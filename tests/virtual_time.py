"""Virtual time: an event loop in which waiting costs nothing, for tests of timeouts, latencies and patience.

Whenever nothing is ready, the loop's time jumps to its next timer. Tasks run concurrently as they do in real time,
`asyncio.sleep`, `asyncio.timeout` and every other timer included, and the same program runs identically each time.
While a thread works for the loop, virtual time stands still and the loop really waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2021, 5, 19, 12, 0, tzinfo=UTC)


class NothingWillHappenError(Exception):
    """Everything waits, and no timer or thread is left that could end it. In real time this hangs."""


class VirtualTime:
    """A timeline, and its Clock. One timeline may outlive many loops: the next run begins where the last ended."""

    def __init__(self, start: datetime = START) -> None:
        """`start` is an aware UTC datetime."""
        self.start = start
        self.elapsed = 0.0
        """Seconds since `start`."""

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    @property
    def origin(self) -> str:
        return f"virtual {id(self)}"

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Like `asyncio.run`, on this timeline. NothingWillHappenError where that would hang."""
        with self.runner() as runner:
            return runner.run(main)

    def runner(self) -> asyncio.Runner:
        """A loop on this timeline for several runs: tasks that one leaves behind continue in the next."""
        return asyncio.Runner(loop_factory=lambda: _Loop(self))


def run(main: Coroutine[Any, Any, T], start: datetime = START) -> T:
    """Run on a new timeline."""
    return VirtualTime(start).run(main)


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose clock is a timeline, and whose selector moves it instead of waiting."""

    def __init__(self, timeline: VirtualTime) -> None:
        self._timeline = timeline
        self._threads = 0
        super().__init__(_Jumping(timeline, lambda: self._threads > 0))

    def time(self) -> float:
        return self._timeline.elapsed

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override] # typeshed counts the types of args
        """As in real time; while it runs, virtual time stands still."""
        self._threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._threads -= 1

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        """Its end is signalled by a thread outside of the executor: wait for it in real time too."""
        self._threads += 1
        try:
            await super().shutdown_default_executor(*arguments)
        finally:
            self._threads -= 1


class _Jumping(selectors.BaseSelector):
    """The default selector, except that a wait that nothing can cut short takes no time."""

    def __init__(self, timeline: VirtualTime, working: Callable[[], bool]) -> None:
        self._real = selectors.DefaultSelector()
        self._timeline = timeline
        self._working = working

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._working():
            return self._real.select(None)
        if timeout is None:
            raise NothingWillHappenError("no task can run, no timer is set and no thread is at work")
        self._timeline.elapsed += timeout
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()
