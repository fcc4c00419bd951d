"""When a push wakes a tick, and what that tick reads: the accounts that pushed, and of the others what was read last.

Bursts become one reading: between two readings of an account, and between a tick and the next woken one, there is
at least `LEAST_DISTANCE`. What is heard so shortly before a scheduled tick is left to that one. What the venue's
limits leave no room for waits until they do, at the longest for that tick. A woken reading that has not ended by then
is taken up by the scheduled tick.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from killswitch.accounts.poll.poll_budget import Spare
from killswitch.accounts.poll.poller import Readers
from killswitch.accounts.poll.push_listener import Listening
from killswitch.accounts.poll.request_counters import Meter
from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot

LEAST_DISTANCE = 0.2
"""Seconds of the clock."""


class Waking:
    """The woken readings of one runner."""

    def __init__(
        self,
        listening: Listening,
        readers: Readers,
        meters: Mapping[str, Meter],
        spares: Mapping[str, Spare],
        clock: Clock,
    ) -> None:
        self._listening = listening
        self._readers = readers
        self._meters = meters
        self._spares = spares
        self._clock = clock
        self._asked: dict[str, asyncio.Task[AccountSnapshot]] = {}
        self._not_before: dict[str, float] = {}
        self._next_tick = -math.inf

    def ticked(self) -> None:
        """A tick has ended, woken or not."""
        self._next_tick = self._clock.monotonic() + LEAST_DISTANCE

    def polled(self) -> None:
        """A scheduled tick is about to read everything: it takes up what is under way, and answers what was heard."""
        for name in tuple(self._listening.called):
            if not self._readers.is_reading(name):
                del self._listening.called[name]
        self._asked.clear()
        self._not_before = dict.fromkeys(self._spares, self._clock.monotonic() + LEAST_DISTANCE)

    def ask(self, due: float) -> None:
        """Begin the readings that are called for and may begin. `due`: when the next scheduled tick does."""
        self._listening.bell.clear()
        now = self._clock.monotonic()
        for name in tuple(self._listening.called):
            if due - now < LEAST_DISTANCE:
                return
            if name in self._asked or now < self._not_before.get(name, -math.inf):
                continue
            if self._readers.is_reading(name):
                del self._listening.called[name]  # the next poll answers it
                continue
            if not self._meters[name].free or not self._spares[name].admits(now):
                self._not_before[name] = now + LEAST_DISTANCE  # most limits have room again long before the next poll
                continue
            del self._listening.called[name]
            self._spares[name].take(now)
            self._not_before[name] = now + LEAST_DISTANCE
            self._asked[name] = self._readers.begin(name)

    @property
    def ready(self) -> bool:
        """Whether a woken tick may begin."""
        answered = any(read.done() for read in self._asked.values())
        return answered and self._clock.monotonic() >= self._next_tick

    def wait(self, due: float) -> float:
        """Seconds of the clock until there is something to do that no future tells of; infinite if there is nothing."""
        now = self._clock.monotonic()
        times = []
        if any(read.done() for read in self._asked.values()):
            times.append(self._next_tick)
        if due - now >= LEAST_DISTANCE:
            times += [self._not_before.get(name, now) for name in self._listening.called if name not in self._asked]
        return max(min(times, default=math.inf) - now, 0.0)

    def futures(self) -> set[asyncio.Future[Any]]:
        """The woken readings that are under way."""
        return {read for read in self._asked.values() if not read.done()}

    @property
    def bell(self) -> asyncio.Event:
        """Rings when something is heard."""
        return self._listening.bell

    def take(self) -> dict[str, AccountSnapshot]:
        """What the readings that have ended came to; each once."""
        answered = [name for name, read in self._asked.items() if read.done()]
        for name in answered:
            del self._asked[name]
        return {name: self._readers.take(name) for name in answered}
