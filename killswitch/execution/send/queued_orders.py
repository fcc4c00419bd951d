"""Orders on their way out: what is to leave, what waits for room, and the answers that are not written down yet."""

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
    """One order that is to leave: its line, the request, and its entry, which is dated when it leaves."""

    line: Line
    request: OrderRequest
    entry: Sending


@dataclass(frozen=True, slots=True)
class Sent:
    """What has left, and what was made and stayed.

    `room_in`: seconds until there may be room for what stayed, or was not made; None where nothing was held back.
    """

    departures: Sequence[Departure]
    stayed: Sequence[Departure]
    room_in: float | None


@dataclass(slots=True, eq=False)
class Flight:
    """One request with orders under way. `left` in the loop's seconds; `behind`: its wave waits for it no longer."""

    left: float
    group: Sequence[Departure]
    behind: bool = False


class Wave:
    """The requests under way, and their answers that are not written down yet."""

    def __init__(self) -> None:
        self.flights: dict[asyncio.Task[Sequence[Entry]], Flight] = {}
        self.came = asyncio.Event()
        self._answers: list[Entry] = []
        self._since = 0.0
        self._noted = False

    @property
    def open(self) -> int:
        """How many requests are waited for."""
        return len(self.flights)

    def take(self, answers: Sequence[Entry]) -> None:
        """Hold the answers of one request."""
        if not self._answers:
            self._since = asyncio.get_running_loop().time()
        self._answers += answers

    def ended(self, task: asyncio.Task[Sequence[Entry]]) -> None:
        """One of the requests is over."""
        if self.flights.pop(task, None) is not None and not (self.flights and self._noted):
            self._noted = True
            self.came.set()

    def oldest(self) -> float:
        """When the first of the requests left that are waited for; infinite if none is."""
        return next((flight.left for flight in self.flights.values()), math.inf)

    def leave_behind(self, before: float) -> list[tuple[asyncio.Task[Sequence[Entry]], Flight]]:
        """Wait no longer for the requests that left at `before` or earlier; they go on."""
        found = [(task, flight) for task, flight in self.flights.items() if flight.left <= before]
        for task, flight in found:
            flight.behind = True
            del self.flights[task]
        return found

    @property
    def holds(self) -> bool:
        """Whether anything is to be written down."""
        return bool(self._answers)

    @property
    def held_for(self) -> float:
        """Real seconds for which the oldest answer has been held."""
        return asyncio.get_running_loop().time() - self._since if self._answers else 0.0

    def give(self) -> Sequence[Entry]:
        """The answers, to be written down."""
        given, self._answers, self._noted = self._answers, [], False
        return given


class Queue:
    """What is to leave, made one by one as it is asked for."""

    def __init__(self, source: Iterable[Departure]) -> None:
        self._source = iter(source)
        self._made: deque[Departure] = deque()
        self._skipped: list[Departure] = []
        self.sent: list[Departure] = []

    @property
    def empty(self) -> bool:
        """Whether nothing has stayed."""
        return self.peek() is None and not self._skipped

    def peek(self) -> Departure | None:
        """The next one, if there is one."""
        return next(iter(self.next(1)), None)

    def next(self, count: int) -> list[Departure]:
        """Up to `count` of the next ones; they stay in the queue."""
        while len(self._made) < count and (made := next(self._source, None)) is not None:
            self._made.append(made)
        return list(islice(self._made, count))

    @property
    def made(self) -> Sequence[Departure]:
        """Those that were made and have not left."""
        return (*self._skipped, *self._made)

    def skip(self) -> None:
        """Let the first one wait, so that those after it are seen."""
        self._skipped.append(self._made.popleft())

    def took(self, count: int) -> None:
        """The first `count` have left."""
        self.sent += [self._made.popleft() for _ in range(count)]
