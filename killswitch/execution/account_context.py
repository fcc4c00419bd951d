"""One account's venue session: requests are limited by the budget, bounded in time, and recorded in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from killswitch.execution.closing_pace import ClosingPace
from killswitch.execution.report_validation import validated_fills, validated_report, venue_text
from killswitch.execution.response_timeouts import ResponseTimeouts
from killswitch.journal.entries import Entry, EntryHead
from killswitch.journal.targets import PositionTarget
from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import (
    Call,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import BudgetSpentError, Purpose, RequestBudget, Reservation

T = TypeVar("T")
RecordEntries = Callable[[Sequence[Entry]], None]
"""Writes entries to the journal in one transaction, then applies each to the state that it is about."""


class BudgetExhaustedError(RateLimitedError):
    """The budget has no room for the request. Nothing was sent, and the venue refused nothing."""


class AccountContext:
    """Sends the requests of one account within its budget, circuit breaker and timeouts.

    Every failure of a request is raised as a VenueError. The context makes no decisions.
    """

    def __init__(
        self, account: str, venue: VenueAdapter, clock: Clock, pace: ClosingPace, record: RecordEntries,
        budget: RequestBudget,
        breaker: Breaker,
    ) -> None:  # fmt: skip
        """Create the session; `record` writes entries about the account's orders to the journal."""
        self.account = account
        self.venue = venue
        self.traits = venue.traits
        self.clock, self.monotonic = clock, clock.monotonic
        self.pace = pace
        self.record = record
        self._budget = budget
        self._breaker = breaker
        self._timeouts = ResponseTimeouts(pace)
        self._paused_until = 0.0
        self.currency: str | None = None
        """The account's currency; None until the account has been polled."""
        self.running: set[str] = set()
        """Client order ids whose request still runs after its timeout: the venue may still receive the order."""

    def with_own_breaker(self) -> AccountContext:
        """A session on the same budget with a circuit breaker of its own, whose failures hold no order back."""
        return AccountContext(self.account, self.venue, self.clock, self.pace, self.record, self._budget, Breaker())

    # Budget and circuit breaker

    @property
    def paused_for(self) -> float:
        """Seconds for which no request may be sent: the venue asked for a pause, or it is down."""
        return max(self._paused_until, self._budget.paused_until) - self.monotonic()

    @property
    def breaker_open_for(self) -> float:
        """Seconds for which only account polls may be sent, because the circuit breaker is open."""
        return self._breaker.wait(self.monotonic())

    def can_send(self) -> bool:
        """Whether a request other than an account poll may be sent now."""
        return self.paused_for <= 0.0 and self.breaker_open_for <= 0.0

    def orders_at_once(self, wanted: int) -> int:
        """How many of `wanted` orders may be sent now: all of them, one as a probe of an open breaker, or none."""
        if self.paused_for > 0.0 or wanted < 1:
            return 0
        if self._breaker.state == "closed":
            return wanted
        return int(self.breaker_open_for <= 0.0)

    def wait(self, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> float:
        """Seconds until the budget has room for the call."""
        return self._budget.wait(self.monotonic(), call, symbols, purpose)

    def room(self, call: Call, symbols: Sequence[str]) -> int:
        """How many of `symbols`, from the front, the budget has room for now."""
        return self._budget.room(self.monotonic(), call, symbols)

    def reserve(self, call: Call, symbols: Sequence[str] = (), purpose: Purpose = "closing") -> Reservation:
        """Reserve budget for a call that is sent at once. BudgetSpentError if there is no room.

        While the breaker is open, this call is its probe.
        """
        now = self.monotonic()
        reservation = self._budget.reserve(now, call, symbols, purpose)
        if call != "snapshot":
            self._breaker.allows(now)
        return reservation

    # Requests

    async def request(
        self, call: Call, answer: Awaitable[T], within: float | None = None, purpose: Purpose = "closing"
    ) -> T:
        """Send one request. BudgetExhaustedError, before anything is sent, if the budget has no room."""
        try:
            reservation = self.reserve(call, purpose=purpose)
        except BudgetSpentError as error:
            if (close := getattr(answer, "close", None)) is not None:
                close()  # closes a coroutine that is not awaited, which would warn otherwise
            raise BudgetExhaustedError(str(error), error.wait) from error
        return await self.send(call, answer, reservation, within)

    async def send(self, call: Call, answer: Awaitable[T], reservation: Reservation, within: float | None = None) -> T:
        """Send a request whose budget is reserved. Any failure is raised as a VenueError."""
        try:
            response = await self._timeouts.await_answer(call, answer, within)
        except VenueError as error:
            self._failed(call, error)
            raise
        except asyncio.CancelledError:
            self._breaker.unused(self.monotonic())
            raise
        else:
            if getattr(response, "quality", "ok") == "ok":  # a snapshot without data is not a success
                self._breaker.succeeded(self.monotonic())
            return response
        finally:
            now = self.monotonic()
            self._budget.answered(now, reservation)
            self._budget.observe_venue(now, self.venue)

    def record_rate_limit(self, error: RateLimitedError) -> None:
        """Record that the venue rate-limited a request, or one order of a batch."""
        self._budget.refused(self.monotonic(), error.retry_after)

    def _failed(self, call: Call, error: VenueError) -> None:
        """Apply a failure to the budget and the breaker. A failed account poll holds no order back."""
        now = self.monotonic()
        if isinstance(error, RateLimitedError):
            self.record_rate_limit(error)
        elif isinstance(error, OrderRejectedError):
            self._breaker.succeeded(now)
        elif call != "snapshot":
            if isinstance(error, VenueDownError) and call in ("submit", "submit_batch"):
                self._paused_until = max(self._paused_until, now + self.pace.poll_interval)
            self._breaker.failed(now)

    async def snapshot(self, purpose: Purpose) -> AccountSnapshot | str:
        """The account's snapshot, or the reason why there is none."""
        try:
            return await self.request("snapshot", self.venue.snapshot(), purpose=purpose)
        except VenueError as error:
            return venue_text(str(error) or "a failed request")

    async def cancel(self, symbol: str, order: str, purpose: Purpose = "closing") -> VenueError | None:
        """Cancel one order; returns the error, or None on success. Journals nothing; repeating it does no harm."""
        try:
            await self.request("cancel", self.venue.cancel(symbol, order), self.pace.cancel_timeout, purpose)
        except VenueError as error:
            return error
        return None

    async def open_orders(self, within: float | None = None, purpose: Purpose = "closing") -> Sequence[Order] | None:
        """The open orders; None if the venue does not return them, or one is not an order with usable ids."""
        try:
            orders = tuple(await self.request("open_orders", self.venue.open_orders(), within, purpose))
            hash(tuple((order.symbol, order.id, order.client_order_id) for order in orders))
        except (VenueError, AttributeError, TypeError):
            return None
        return orders if all(isinstance(order, Order) for order in orders) else None

    async def find_order(
        self, symbol: str, name: str, most: Decimal, purpose: Purpose = "closing"
    ) -> OrderReport | VenueError | None:
        """The venue's report on the order `name`, None if it has no such order, or the error of the query.

        `most`: the largest amount that the order may fill.
        """
        try:
            report = await self.request("find_order", self.venue.find_order(symbol, name), purpose=purpose)
            return None if report is None else validated_report(report, name, most)
        except VenueError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an adapter's defect leaves this order unknown, and nothing else
            return MalformedAnswerError(f"{type(error).__name__}: {error}")

    async def fills(self, symbol: str, name: str, purpose: Purpose) -> tuple[Fill, ...]:
        """The fills of the order `name`."""
        return validated_fills(await self.request("fills", self.venue.fills(symbol, name), purpose=purpose))

    # Journal entries

    def entry_head(self, target: PositionTarget, name: str | None, attempt: int | None) -> EntryHead:
        """The leading fields of an entry about one order of a target."""
        return (target.decision, self.clock.now(), self.account, target.symbol, target.position_side, name, attempt)

    def seconds_since(self, at: datetime) -> float:
        """Seconds of the wall clock since `at`."""
        return (self.clock.now() - at).total_seconds()
