"""Request timeouts that follow the measured round trips, as in RFC 6298."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from msgspec import Struct, field

from killswitch.execution.closing_pace import ClosingPace
from killswitch.model.backoff import Backoff
from killswitch.model.venue import Call, FateUnknownError, MalformedAnswerError, VenueError

T = TypeVar("T")

_MOST_SHORTENED = 8
"""Up to this many requests in flight, each answer may shorten their timeouts; beyond it, only the first answer does."""


class ResponseTimeouts:
    """Bounds requests in time, separately for each kind of call.

    The timeout is the smoothed round trip plus four times its variation, doubled by each timeout in a row, within the
    bounds of `ClosingPace`. Before the first answer it is the longest.
    """

    def __init__(self, pace: ClosingPace) -> None:
        self._pace = pace
        self._trips: dict[Call, _RoundTrips] = {}

    async def await_answer(self, call: Call, answer: Awaitable[T], within: float | None) -> T:
        """Await `answer` within its timeout, or within `within` seconds. Any failure is raised as a VenueError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        trips = self._trips.setdefault(call, _RoundTrips())
        try:
            async with asyncio.timeout(self._timeout(trips) if within is None else within) as bound:
                if within is None:
                    trips.under_way[bound] = began
                try:
                    found = await answer
                finally:
                    trips.under_way.pop(bound, None)
        except VenueError:
            self._record_round_trip(trips, loop.time() - began)
            raise
        except TimeoutError as error:
            trips.timeouts += 1
            raise FateUnknownError(f"no answer within {loop.time() - began:.3g} s") from error
        except asyncio.CancelledError as error:
            if is_task_cancelled():
                raise
            raise FateUnknownError("the adapter cancelled its own request") from error
        except Exception as error:
            # Adapters are third-party code: a defect in one counts as a malformed answer and must not
            # keep other positions from being closed.
            raise MalformedAnswerError(f"{type(error).__name__}: {error}") from error
        self._record_round_trip(trips, loop.time() - began)
        return found

    def _timeout(self, trips: _RoundTrips) -> float:
        """Seconds that the next request of this kind may take."""
        if trips.smoothed is None:
            return self._pace.request_timeout
        waits = Backoff(trips.smoothed + 4 * trips.variation, self._pace.request_timeout)
        return min(self._pace.request_timeout, max(self._pace.shortest_timeout, waits.after(trips.timeouts + 1)))

    def _record_round_trip(self, trips: _RoundTrips, seconds: float) -> None:
        """Record a round trip of `seconds`, and shorten the timeouts of requests in flight accordingly."""
        first = trips.smoothed is None
        trips.add(seconds)
        if first or len(trips.under_way) <= _MOST_SHORTENED:
            timeout = self._timeout(trips)
            for bound, began in trips.under_way.items():
                when = bound.when()
                if when is not None and not bound.expired():
                    bound.reschedule(min(when, began + timeout))


class _RoundTrips(Struct):
    """The round trips of one kind of call: orders may take longer than polls."""

    smoothed: float | None = None
    variation: float = 0.0
    timeouts: int = 0
    under_way: dict[asyncio.Timeout, float] = field(default_factory=dict)
    """When each request in flight was sent."""

    def add(self, seconds: float) -> None:
        """Record one round trip."""
        self.timeouts = 0
        if self.smoothed is None:
            self.smoothed, self.variation = seconds, seconds / 2
        else:
            self.variation = 0.75 * self.variation + 0.25 * abs(self.smoothed - seconds)
            self.smoothed = 0.875 * self.smoothed + 0.125 * seconds


def is_task_cancelled() -> bool:
    """Whether the running task itself is being cancelled; if not, the adapter raised the CancelledError."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
