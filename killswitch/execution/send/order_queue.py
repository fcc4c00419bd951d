"""Orders waiting to be sent, requests in flight, and answers that are not journaled yet."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from msgspec import Struct

from killswitch.journal.entries import Entry, OrderSending
from killswitch.journal.targets import PositionTarget
from killswitch.model.venue import OrderRequest


class QueuedOrder(Struct, frozen=True):
    """One order to send: its target, the request, and its journal entry, which is dated when it is sent."""

    target: PositionTarget
    request: OrderRequest
    entry: OrderSending


class SendResult(Struct, frozen=True):
    """The orders that were sent, and those that were built and held back.

    `room_in`: seconds until the budget may have room for the rest; None where nothing was held back.
    """

    orders: Sequence[QueuedOrder]
    held_back: Sequence[QueuedOrder]
    room_in: float | None


class RequestInFlight(Struct, frozen=True):
    """One request in flight. `sent_at`: when it was sent, in seconds of the event loop."""

    sent_at: float
    group: Sequence[QueuedOrder]


class OrderBatch:
    """The requests in flight, and their answers that are not journaled yet."""

    def __init__(self) -> None:
        self.in_flight: dict[asyncio.Task[Sequence[Entry]], RequestInFlight] = {}
        self.answered = asyncio.Event()
        self._answers: list[Entry] = []
        self._since = 0.0
        self._is_signalled = False

    @property
    def open(self) -> int:
        """Number of requests that are waited for."""
        return len(self.in_flight)

    def hold(self, answers: Sequence[Entry]) -> None:
        """Hold the answers of one request."""
        if not self._answers:
            self._since = asyncio.get_running_loop().time()
        self._answers += answers

    def mark_completed(self, task: asyncio.Task[Sequence[Entry]]) -> None:
        """Mark a request as completed."""
        if self.in_flight.pop(task, None) is not None and not (self.in_flight and self._is_signalled):
            self._is_signalled = True
            self.answered.set()

    def oldest(self) -> float:
        """When the oldest request that is waited for was sent; infinite if there is none."""
        return next((request.sent_at for request in self.in_flight.values()), math.inf)

    def detach_late(self, before: float) -> list[tuple[asyncio.Task[Sequence[Entry]], RequestInFlight]]:
        """Stop waiting for the requests that were sent at `before` or earlier; they keep running."""
        found = [(task, request) for task, request in self.in_flight.items() if request.sent_at <= before]
        for task, _ in found:
            del self.in_flight[task]
        return found

    @property
    def has_answers(self) -> bool:
        """Whether any answer is held."""
        return bool(self._answers)

    @property
    def held_for(self) -> float:
        """Real seconds for which the oldest answer has been held."""
        return asyncio.get_running_loop().time() - self._since if self._answers else 0.0

    def release(self) -> Sequence[Entry]:
        """Remove and return the held answers, to be journaled."""
        released, self._answers, self._is_signalled = self._answers, [], False
        return released


class OrderQueue:
    """Orders to send, built one by one on demand."""

    def __init__(self, source: Iterable[QueuedOrder]) -> None:
        self._source = iter(source)
        self._built: deque[QueuedOrder] = deque()
        self._skipped: list[QueuedOrder] = []
        self.sent: list[QueuedOrder] = []

    @property
    def is_empty(self) -> bool:
        """Whether every order was sent."""
        return self.peek() is None and not self._skipped

    def peek(self) -> QueuedOrder | None:
        """The next order, if there is one."""
        return next(iter(self.next(1)), None)

    def next(self, count: int) -> list[QueuedOrder]:
        """Up to `count` of the next orders; they stay in the queue."""
        while len(self._built) < count and (order := next(self._source, None)) is not None:
            self._built.append(order)
        return list(islice(self._built, count))

    @property
    def unsent(self) -> Sequence[QueuedOrder]:
        """The orders that were built and not sent."""
        return (*self._skipped, *self._built)

    def skip(self) -> None:
        """Skip the first order, so that the ones after it can be sent."""
        self._skipped.append(self._built.popleft())

    def mark_sent(self, count: int) -> None:
        """Record that the first `count` orders were sent."""
        self.sent += [self._built.popleft() for _ in range(count)]
