"""One account's requests: metered by its budget, bounded in time, and each failure one of the five VenueErrors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from killswitch.execution.patience import Pace
from killswitch.model.clock import Clock
from killswitch.model.venue import (
    Call,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    RateLimitedError,
    VenueDownError,
    VenueError,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import Budget, BudgetSpentError, Purpose, Ticket

T = TypeVar("T")

_FEW = 8
"""So many requests under way may have their time shortened by each answer; of more, only by the first one."""


class NoRoomError(RateLimitedError):
    """The budget has no room for it: nothing has left, and the venue has refused nothing."""


class Requests:
    """What leaves for one venue, and how long each may take.

    A request's time follows the answers as in RFC 6298: smoothed round trip plus four times its variation, doubled
    by each timeout in a row, between the pace's bounds. Before the first answer it is the longest.
    """

    def __init__(self, venue: object, clock: Clock, pace: Pace, budget: Budget, breaker: Breaker) -> None:
        """`venue`: the adapter, which may know the venue's own count of what was used."""
        self._venue = venue
        self._clock = clock
        self._pace = pace
        self._budget = budget
        self._breaker = breaker
        self._trips: dict[Call, _Trips] = {}
        self._under_way: dict[Call, dict[asyncio.Timeout, float]] = {}
        self._quiet_until = 0.0
        self.running: set[str] = set()
        """Client ids of orders whose request is not waited for any longer, and still runs: it may arrive yet."""

    @property
    def ask_after(self) -> float:
        """Real seconds after which an order without an answer is asked about while its request still runs."""
        return self._pace.ask_after

    @property
    def quiet_for(self) -> float:
        """Seconds for which the venue is not to be spoken to at all: it asked for that, or it is down."""
        return max(self._quiet_until, self._budget.quiet_until) - self._clock.monotonic()

    @property
    def broken_for(self) -> float:
        """Seconds for which nothing but a look at the account may leave, because requests keep failing."""
        return self._breaker.wait(self._clock.monotonic())

    def may_act(self) -> bool:
        """Whether something other than a look at the account may leave now."""
        return self.quiet_for <= 0.0 and self.broken_for <= 0.0

    def orders_at_once(self, wanted: int) -> int:
        """How many of `wanted` orders may leave now: all, one as a probe where requests kept failing, or none."""
        if self.quiet_for > 0.0 or wanted < 1:
            return 0
        if self._breaker.state == "closed":
            return wanted
        return int(self.broken_for <= 0.0)

    def wait(self, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> float:
        """Seconds until the budget has room for the call."""
        return self._budget.wait(self._clock.monotonic(), call, symbols, purpose)

    def room(self, call: Call, symbols: Sequence[str]) -> int:
        """How many of `symbols`, from the front, the budget has room for now."""
        return self._budget.room(self._clock.monotonic(), call, symbols)

    def take(self, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> Ticket:
        """Room for a call that leaves at once. BudgetSpentError if there is none.

        While requests keep failing, it is the one that tries whether they still do.
        """
        now = self._clock.monotonic()
        ticket = self._budget.take(now, call, symbols, purpose)
        if call != "snapshot":
            self._breaker.allows(now)
        return ticket

    async def make(
        self, call: Call, answer: Awaitable[T], within: float | None = None, purpose: Purpose = "closing"
    ) -> T:
        """One request. NoRoomError, before anything leaves, where the budget has no room for it."""
        try:
            ticket = self.take(call, purpose=purpose)
        except BudgetSpentError as error:
            _never_begun(answer)
            raise NoRoomError(str(error), error.wait) from error
        return await self.made(call, answer, ticket, within)

    async def made(self, call: Call, answer: Awaitable[T], ticket: Ticket, within: float | None = None) -> T:
        """A request whose room is taken. Whatever goes wrong comes out as one of the five VenueErrors."""
        try:
            found = await self._bounded(call, answer, within)
        except VenueError as error:
            self._tell(call, error)
            raise
        except asyncio.CancelledError:
            self._breaker.unused(self._clock.monotonic())
            raise
        else:
            if getattr(found, "quality", "ok") == "ok":  # a look that found nothing out is no answer
                self._breaker.succeeded(self._clock.monotonic())
            return found
        finally:
            now = self._clock.monotonic()
            self._budget.answered(now, ticket)
            self._budget.heed(now, self._venue)

    def refused(self, error: RateLimitedError) -> None:
        """One order of a batch was refused because there were too many."""
        self._budget.refused(self._clock.monotonic(), error.retry_after)

    def patience(self, call: Call) -> float:
        """Real seconds that the next request of this kind may take."""
        wait = self._of(call).patience
        if wait is None:
            return self._pace.request_timeout
        return min(self._pace.request_timeout, max(self._pace.least_timeout, wait))

    def _of(self, call: Call) -> _Trips:
        return self._trips.setdefault(call, _Trips())

    def _tell(self, call: Call, error: VenueError) -> None:
        """What a failure means for the requests after it. That an account cannot be read stops no order."""
        now = self._clock.monotonic()
        if isinstance(error, RateLimitedError):
            self._budget.refused(now, error.retry_after)
        elif isinstance(error, OrderRejectedError):
            self._breaker.succeeded(now)
        elif call != "snapshot":
            if isinstance(error, VenueDownError) and call in ("submit", "submit_batch"):
                self._quiet_until = max(self._quiet_until, now + self._pace.poll)
            self._breaker.failed(now)

    async def _bounded(self, call: Call, answer: Awaitable[T], within: float | None) -> T:
        loop = asyncio.get_running_loop()
        began = loop.time()
        under_way = self._under_way.setdefault(call, {})
        try:
            async with asyncio.timeout(self.patience(call) if within is None else within) as bound:
                if within is None:
                    under_way[bound] = began
                try:
                    found = await answer
                finally:
                    under_way.pop(bound, None)
        except VenueError:
            self._sample(call, loop.time() - began)
            raise
        except TimeoutError as error:
            self._of(call).timeouts += 1
            raise FateUnknownError(f"no answer within {loop.time() - began:.3g} s") from error
        except asyncio.CancelledError as error:
            if called_off():
                raise
            raise FateUnknownError("the adapter called its own request off") from error
        except Exception as error:
            # An adapter is someone else's code: a defect in it is an answer without meaning, and must not
            # keep the other positions from being closed.
            raise MalformedAnswerError(f"{type(error).__name__}: {error}") from error
        self._sample(call, loop.time() - began)
        return found

    def _sample(self, call: Call, seconds: float) -> None:
        """A round trip has taken so long: what is still under way is not waited for much longer than that."""
        first = self._of(call).add(seconds)
        under_way = self._under_way.get(call, {})
        if first or len(under_way) <= _FEW:
            patience = self.patience(call)
            for bound, began in under_way.items():
                when = bound.when()
                if when is not None and not bound.expired():
                    bound.reschedule(min(when, began + patience))


@dataclass(slots=True)
class _Trips:
    """The round trips of one kind of request: orders may take longer than looks."""

    smoothed: float | None = None
    variation: float = 0.0
    timeouts: int = 0

    @property
    def patience(self) -> float | None:
        """Smoothed round trip plus four times its variation, doubled by each timeout in a row; None before any."""
        if self.smoothed is None:
            return None
        return (self.smoothed + 4 * self.variation) * 2.0 ** min(self.timeouts, 10)

    def add(self, seconds: float) -> bool:
        """Take in one round trip; whether it is the first."""
        self.timeouts = 0
        if self.smoothed is None:
            self.smoothed, self.variation = seconds, seconds / 2
            return True
        self.variation = 0.75 * self.variation + 0.25 * abs(self.smoothed - seconds)
        self.smoothed = 0.875 * self.smoothed + 0.125 * seconds
        return False


def _never_begun(answer: Awaitable[object]) -> None:
    """A coroutine that is not awaited after all is closed, so that nobody is warned of it."""
    close = getattr(answer, "close", None)
    if close is not None:
        close()


def called_off() -> bool:
    """Whether the running task itself is being cancelled: else a CancelledError is an adapter's own doing."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
