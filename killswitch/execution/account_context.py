"""One account's session at its venue: its requests are metered, bounded in time, and what they show is journaled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from killswitch.execution.patience import Pace
from killswitch.execution.recorded_reports import said, sound, sound_fills
from killswitch.execution.response_timeouts import ResponseTimeouts
from killswitch.journal.entries import Entry, EntryHead
from killswitch.journal.targets import Line
from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    Call,
    OrderRejectedError,
    OrderReport,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
    traits_of,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import Budget, BudgetSpentError, Purpose, Ticket

T = TypeVar("T")
RecordAll = Callable[[Sequence[Entry]], None]
"""Makes entries durable together, and then lets each move what it is about."""


class NoRoomError(RateLimitedError):
    """The budget has no room for it: nothing has left, and the venue has refused nothing."""


class AccountContext:
    """Sends one account's requests as its budget, its breaker and its timeouts let them leave.

    Every failure of a request is one of the five VenueErrors. Nothing is decided here.
    """

    def __init__(
        self, account: str, venue: VenueAdapter, clock: Clock, pace: Pace, record: RecordAll, budget: Budget,
        breaker: Breaker,
    ) -> None:  # fmt: skip
        """`record` makes entries about the account's orders durable."""
        self.account = account
        self.venue = venue
        self.traits = traits_of(venue)
        self.clock = clock
        self.pace = pace
        self.record = record
        self._budget = budget
        self._breaker = breaker
        self._timeouts = ResponseTimeouts(pace)
        self._quiet_until = 0.0
        self.currency: str | None = None
        """What the account is counted in; None before it was read."""
        self.running: set[str] = set()
        """Client ids of orders whose request is not waited for any longer, and still runs: it may arrive yet."""

    def beside(self) -> AccountContext:
        """A session within the same budget whose failures hold no order back: its breaker is its own."""
        return AccountContext(
            self.account, self.venue, self.clock, self.pace, self.record, self._budget, Breaker()
        )  # fmt: skip

    # What may leave

    @property
    def quiet_for(self) -> float:
        """Seconds for which the venue is not to be spoken to at all: it asked for that, or it is down."""
        return max(self._quiet_until, self._budget.quiet_until) - self.clock.monotonic()

    @property
    def broken_for(self) -> float:
        """Seconds for which nothing but a look at the account may leave, because requests keep failing."""
        return self._breaker.wait(self.clock.monotonic())

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
        return self._budget.wait(self.clock.monotonic(), call, symbols, purpose)

    def room(self, call: Call, symbols: Sequence[str]) -> int:
        """How many of `symbols`, from the front, the budget has room for now."""
        return self._budget.room(self.clock.monotonic(), call, symbols)

    def take(self, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> Ticket:
        """Room for a call that leaves at once. BudgetSpentError if there is none.

        While requests keep failing, it is the one that tries whether they still do.
        """
        now = self.clock.monotonic()
        ticket = self._budget.take(now, call, symbols, purpose)
        if call != "snapshot":
            self._breaker.allows(now)
        return ticket

    # Requests

    async def make(
        self, call: Call, answer: Awaitable[T], within: float | None = None, purpose: Purpose = "closing"
    ) -> T:
        """One request. NoRoomError, before anything leaves, where the budget has no room for it."""
        try:
            ticket = self.take(call, purpose=purpose)
        except BudgetSpentError as error:
            if (close := getattr(answer, "close", None)) is not None:
                close()  # a coroutine that is not awaited after all, so that nobody is warned of it
            raise NoRoomError(str(error), error.wait) from error
        return await self.made(call, answer, ticket, within)

    async def made(self, call: Call, answer: Awaitable[T], ticket: Ticket, within: float | None = None) -> T:
        """A request whose room is taken. Whatever goes wrong comes out as one of the five VenueErrors."""
        try:
            found = await self._timeouts.bounded(call, answer, within)
        except VenueError as error:
            self._failed(call, error)
            raise
        except asyncio.CancelledError:
            self._breaker.unused(self.clock.monotonic())
            raise
        else:
            if getattr(found, "quality", "ok") == "ok":  # a look that found nothing out is no answer
                self._breaker.succeeded(self.clock.monotonic())
            return found
        finally:
            now = self.clock.monotonic()
            self._budget.answered(now, ticket)
            self._budget.heed(now, self.venue)

    def refused(self, error: RateLimitedError) -> None:
        """The venue refused a request, or one order of a batch, because there were too many."""
        self._budget.refused(self.clock.monotonic(), error.retry_after)

    def _failed(self, call: Call, error: VenueError) -> None:
        """What a failure means for the requests after it. That an account cannot be read stops no order."""
        now = self.clock.monotonic()
        if isinstance(error, RateLimitedError):
            self.refused(error)
        elif isinstance(error, OrderRejectedError):
            self._breaker.succeeded(now)
        elif call != "snapshot":
            if isinstance(error, VenueDownError) and call in ("submit", "submit_batch"):
                self._quiet_until = max(self._quiet_until, now + self.pace.poll)
            self._breaker.failed(now)

    async def snapshot(self, purpose: Purpose) -> AccountSnapshot | str:
        """The account as the venue shows it, or why it does not."""
        try:
            return await self.make("snapshot", self.venue.snapshot(), purpose=purpose)
        except VenueError as error:
            return said(f"{type(error).__name__}: {error}")

    async def cancel(self, symbol: str, order: str) -> VenueError | None:
        """Ask to cancel one order; None once the venue has. Nothing is journaled yet; asking twice does no harm."""
        try:
            await self.make("cancel", self.venue.cancel(symbol, order), self.pace.cancel_timeout)
        except VenueError as error:
            return error
        return None

    async def open_orders(
        self, within: float | None = None, purpose: Purpose = "closing"
    ) -> Sequence[Order] | None:  # fmt: skip
        """The orders that rest at the venue; None if it does not say, or names one by what is no name."""
        try:
            orders = tuple(await self.make("open_orders", self.venue.open_orders(), within, purpose))
            hash(tuple((order.symbol, order.id, order.client_order_id) for order in orders))
        except (VenueError, AttributeError, TypeError):
            return None
        return orders

    async def find_order(
        self, symbol: str, name: str, most: Decimal, purpose: Purpose = "closing"
    ) -> OrderReport | VenueError | None:
        """What the venue reports of the order `name`; None if it has no such order."""
        try:
            report = await self.make("find_order", self.venue.find_order(symbol, name), purpose=purpose)
            return None if report is None else sound(report, name, most)
        except VenueError as error:
            return error

    async def fills(self, symbol: str, name: str, purpose: Purpose) -> tuple[Fill, ...]:
        """The fills of the order `name`."""
        return sound_fills(await self.make("fills", self.venue.fills(symbol, name), purpose=purpose))

    # What the journal says of an order

    def head(self, line: Line, name: str | None, attempt: int | None) -> EntryHead:
        """What an entry about one order of a line begins with."""
        return (line.decision, self.clock.now(), self.account, line.symbol, line.position_side, name, attempt)

    def since(self, at: datetime) -> float:
        """Seconds of the wall clock since `at`."""
        return (self.clock.now() - at).total_seconds()
