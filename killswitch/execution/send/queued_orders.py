"""Orders waiting to be sent, requests in flight, and answers that are not journaled yet."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from killswitch.journal.entries import Entry, Sending
from killswitch.journal.targets import Line
from killswitch.model.venue import OrderRequest


@dataclass(frozen=True, slots=True)
class Departure:
    """One order to send: its line, the request, and its journal entry, which is dated when it is sent."""

    line: Line
    request: OrderRequest
    entry: Sending


@dataclass(frozen=True, slots=True)
class Sent:
    """The orders that were sent, and those that were built and held back.

    `room_in`: seconds until there may be budget for the rest; None where nothing was held back.
    """

    departures: Sequence[Departure]
    stayed: Sequence[Departure]
    room_in: float | None


@dataclass(frozen=True, slots=True)
class Flight:
    """One request in flight. `left`: when it was sent, in the loop's seconds."""

    left: float
    group: Sequence[Departure]


class Wave:
    """The requests in flight, and their answers that are not journaled yet."""

    def __init__(self) -> None:
        self.flights: dict[asyncio.Task[Sequence[Entry]], Flight] = {}
        self.came = asyncio.Event()
        self._answers: list[Entry] = []
        self._since = 0.0
        self._noted = False

    @property
    def open(self) -> int:
        """Number of requests that are waited for."""
        return len(self.flights)

    def take(self, answers: Sequence[Entry]) -> None:
        """Hold the answers of one request."""
        if not self._answers:
            self._since = asyncio.get_running_loop().time()
        self._answers += answers

    def ended(self, task: asyncio.Task[Sequence[Entry]]) -> None:
        """Mark a request as completed."""
        if self.flights.pop(task, None) is not None and not (self.flights and self._noted):
            self._noted = True
            self.came.set()

    def oldest(self) -> float:
        """When the oldest request that is waited for was sent; infinite if there is none."""
        return next((flight.left for flight in self.flights.values()), math.inf)

    def leave_behind(self, before: float) -> list[tuple[asyncio.Task[Sequence[Entry]], Flight]]:
        """Stop waiting for the requests that were sent at `before` or earlier; they keep running."""
        found = [(task, flight) for task, flight in self.flights.items() if flight.left <= before]
        for task, _ in found:
            del self.flights[task]
        return found

    @property
    def holds(self) -> bool:
        """Whether any answer is to be journaled."""
        return bool(self._answers)

    @property
    def held_for(self) -> float:
        """Real seconds for which the oldest answer has been held."""
        return asyncio.get_running_loop().time() - self._since if self._answers else 0.0

    def give(self) -> Sequence[Entry]:
        """Remove and return the held answers, to be journaled."""
        given, self._answers, self._noted = self._answers, [], False
        return given


class Queue:
    """Orders to send, built one by one on demand."""

    def __init__(self, source: Iterable[Departure]) -> None:
        self._source = iter(source)
        self._made: deque[Departure] = deque()
        self._skipped: list[Departure] = []
        self.sent: list[Departure] = []

    @property
    def empty(self) -> bool:
        """Whether every order was sent."""
        return self.peek() is None and not self._skipped

    def peek(self) -> Departure | None:
        """The next order, if there is one."""
        return next(iter(self.next(1)), None)

    def next(self, count: int) -> list[Departure]:
        """Up to `count` of the next orders; they stay in the queue."""
        while len(self._made) < count and (made := next(self._source, None)) is not None:
            self._made.append(made)
        return list(islice(self._made, count))

    @property
    def made(self) -> Sequence[Departure]:
        """The orders that were built and not sent."""
        return (*self._skipped, *self._made)

    def skip(self) -> None:
        """Set the first order aside, so that those after it are seen."""
        self._skipped.append(self._made.popleft())

    def took(self, count: int) -> None:
        """Record that the first `count` orders were sent."""
        self.sent += [self._made.popleft() for _ in range(count)]
