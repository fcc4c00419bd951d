"""One account's hand at its venue, but for the orders: looks at the account, cancels, writes down what was verified.

No error of a venue leaves this module: each becomes an answer that says what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from killswitch.execution.patience import Pace
from killswitch.execution.recorded_reports import said
from killswitch.execution.send.order_sender import RecordAll
from killswitch.execution.send.requests import Requests
from killswitch.execution.send.requests import called_off as called_off
from killswitch.journal.entries import Cancelled, Swept, Verified
from killswitch.journal.targets import Line
from killswitch.model.clock import Clock
from killswitch.model.decision import Cancel
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import (
    BookClosingVenue,
    OrderRejectedError,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
)
from killswitch.ratelimit.budget import Purpose


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """What became of a request to cancel. `unheard`: the venue surely did nothing; `failed`: nobody knows."""

    what: Literal["done", "refused", "unheard", "failed"]
    text: str


class Executor:
    """One account's hand at its venue."""

    def __init__(
        self, account: str, venue: VenueAdapter, clock: Clock, pace: Pace, requests: Requests, record: RecordAll
    ) -> None:
        self._account = account
        self._venue = venue
        self._clock = clock
        self._pace = pace
        self._requests = requests
        self._record = record

    async def snapshot(self, purpose: Purpose) -> AccountSnapshot | str:
        """The account as the venue tells it, or why it did not."""
        try:
            return await self._requests.make("snapshot", self._venue.snapshot(), purpose=purpose)
        except VenueError as error:
            return said(f"{type(error).__name__}: {error}")

    async def cancel(self, symbol: str, order: str) -> CancelAnswer:
        """Ask to cancel one order. Nothing is journaled yet; asking twice does no harm."""
        try:
            await self._requests.make("cancel", self._venue.cancel(symbol, order), self._pace.cancel_timeout)
        except OrderRejectedError as error:
            return CancelAnswer("refused", said(error))
        except (RateLimitedError, VenueDownError) as error:
            return CancelAnswer("unheard", said(error))
        except VenueError as error:
            return CancelAnswer("failed", said(error))
        return CancelAnswer("done", "")

    async def resting(self) -> frozenset[str] | None:
        """Ids of the orders that rest at the venue; None if it does not say."""
        try:
            orders = await self._requests.make("open_orders", self._venue.open_orders(), self._pace.cancel_timeout)
            return frozenset(order.id for order in orders)
        except (VenueError, AttributeError, TypeError):
            return None

    async def sweep(self, decisions: Sequence[str]) -> None:
        """Journal, for each decision, that everything is asked to be closed in one request, and send that request.

        Whatever is answered: what it did, the positions say.
        """
        if not isinstance(self._venue, BookClosingVenue):
            raise TypeError(f"{type(self._venue).__name__} closes no book")
        now = self._clock.now()
        self._record([Swept(decision, now, self._account) for decision in decisions])
        try:
            await self._requests.make("close_book", self._venue.close_book())
        except VenueError:
            return

    def cancelled(self, cancel: Cancel, decision: str) -> None:
        """Journal that an order rests no longer."""
        now = self._clock.now()
        self._record([Cancelled(decision, now, self._account, cancel.symbol, order=cancel.order, why=cancel.why)])

    def verified(self, shown: Sequence[tuple[Line, Decimal]]) -> None:
        """Journal what the venue's own positions say about lines."""
        now = self._clock.now()
        self._record([self._verified(line, contracts, now) for line, contracts in shown])

    def left_as(self, line: Line, contracts: Decimal, at: datetime) -> Verified:
        """What the venue's own positions said last, `at`, about a line that ends short of its target; not journaled."""
        return self._verified(line, contracts, at, is_last=True)

    def _verified(self, line: Line, contracts: Decimal, at: datetime, *, is_last: bool = False) -> Verified:
        place = (self._account, line.symbol, line.position_side)
        return Verified(line.decision, at, *place, position=contracts, target=line.target, is_last=is_last)
