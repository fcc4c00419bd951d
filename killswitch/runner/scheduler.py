"""Schedules the runner's loop: closings continue whatever it waits for.

Only this module sleeps on the run's clock: a simulated clock advances only while its one sleeper sleeps.

"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from killswitch.accounts.poll.account_poller import LEAST_DISTANCE, AccountPoller
from killswitch.model.clock import Clock
from killswitch.runner.closing_workers import ClosingWorkers

T = TypeVar("T")
Wake = Literal["push", "call"]
"""What begins a tick before its time: a push of a venue, or a call, as of an operator command."""


class Scheduler:
    """Waits for ticks, polls and passes. Every method raises StoreError: a closing that cannot record ends the run."""

    def __init__(self, closings: ClosingWorkers, clock: Clock) -> None:
        self._closings = closings
        self._clock = clock
        self.next_due: float | None = None
        """When the next scheduled tick is due, in seconds of the clock; None for the first one of a run."""
        self.called = asyncio.Event()
        """Set from a call until the commands of the tick that it begins are read."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> None:
        """Accept calls of other threads for the running loop."""
        self._loop = asyncio.get_running_loop()

    def call(self) -> None:
        """Begin a tick at once, or right after the one under way; from any thread. Calls meanwhile are one."""
        loop = self._loop
        if loop is None:
            self.called.set()
            return
        with suppress(RuntimeError):  # the run has ended
            loop.call_soon_threadsafe(self.called.set)

    def due_at(self, as_of: datetime) -> datetime:
        """When the tick of the snapshot that is complete now was due; the first one of a run is due when it comes."""
        late = 0.0 if self.next_due is None else max(0.0, self._clock.monotonic() - self.next_due)
        return as_of - timedelta(seconds=late)

    async def await_while_closing(self, poll: Coroutine[None, None, T]) -> T:
        """Await a poll while closings continue, because a venue may take its whole timeout to answer it."""
        if not (self._closings.is_working or self._closings.is_owing_fees):
            return await poll
        task = asyncio.create_task(poll)
        try:
            await self._closings.run_until(task)
            return await task
        finally:
            task.cancel()

    async def until(self, due: float, stop: asyncio.Event, poller: AccountPoller) -> Wake | None:
        """Wait until the next tick is due, or `stop`; closings continue, each pass as soon as it is due.

        Returns what begins a tick before that; None if nothing does.
        """
        stopped, called = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self.called.wait())
        bell: asyncio.Future[Any] | None = None
        try:
            while (left := due - self._clock.monotonic()) > 0 and not stopped.done():
                if self.called.is_set() and poller.may_be_called:
                    return "call"
                poller.begin_woken(due)
                if poller.is_ready:
                    return "push"
                if bell is None or bell.done():
                    bell = asyncio.ensure_future(poller.streams.bell.wait())
                wait = min(left, poller.wait(due), LEAST_DISTANCE if called.done() else left)
                await self.step(wait, {stopped, bell, *poller.futures(), *(() if called.done() else (called,))})
            return None
        finally:
            waits = [each for each in (stopped, called, bell) if each is not None]
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def step(self, left: float, others: Collection[asyncio.Future[Any]] = ()) -> None:
        """Begin the passes that are due, and wait until one ends or the next is due, for at most `left` seconds.

        Or until one of `others` is done.

        A pass under way depends on its venue, so the wait is in real time. If the clock has not moved meanwhile, it is
        a simulated one, which the sleep below moves.
        """
        waited: set[asyncio.Future[Any]] = {*self._closings.kick()}
        before, wait = self._clock.monotonic(), min(left, self._closings.wait)
        other = set(others)
        if waited:
            ended, _ = await asyncio.wait(waited | other, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            wait = 0.0 if ended else wait - (self._clock.monotonic() - before)
        if wait > 0.0:
            slept = asyncio.ensure_future(self._clock.sleep(wait))
            await asyncio.wait({slept} | other, return_when=asyncio.FIRST_COMPLETED)
            slept.cancel()
            await asyncio.gather(slept, return_exceptions=True)
