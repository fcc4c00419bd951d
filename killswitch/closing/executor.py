"""Talks to the venue, and writes down what it said: before the deed where it matters, after it always.

No error of a venue leaves this module: each becomes a journal entry that says what is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeVar

from killswitch.closing.intents import client_order_id, marked
from killswitch.closing.life import ZERO, Line, State
from killswitch.closing.pace import Pace
from killswitch.closing.reports import said, sound, sound_fills
from killswitch.model.clock import Clock
from killswitch.model.decision import Cancel
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.model.venue import (
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    VenueAdapter,
    VenueDownError,
    VenueError,
)

T = TypeVar("T")
Record = Callable[[JournalEntry], None]
"""Makes an entry durable, and then lets it move what it is about."""


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """What became of a request to cancel. `unheard`: the venue surely did nothing; `failed`: nobody knows."""

    what: Literal["done", "refused", "unheard", "failed"]
    text: str


class Executor:
    """One account's hand at its venue."""

    def __init__(self, account: str, venue: VenueAdapter, clock: Clock, pace: Pace, record: Record) -> None:
        self._account = account
        self._venue = venue
        self._clock = clock
        self._pace = pace
        self._record = record
        self.quiet_until = 0.0
        """Monotonic seconds until which the venue asked not to be spoken to."""

    async def snapshot(self) -> AccountSnapshot | str:
        """The account as the venue tells it, or why it did not."""
        try:
            return await self._request(self._venue.snapshot())
        except VenueError as error:
            return said(f"{type(error).__name__}: {error}")

    async def send(self, line: Line, amount: Decimal, position: Decimal, seen: Position | None) -> None:
        """Journal an order of `amount` contracts, send it once, and journal the answer.

        `position` is what is believed to be held before it; `seen` the position as the venue showed it.
        """
        attempt = line.attempt + 1 if line.spent else line.attempt
        request = OrderRequest(
            client_order_id=client_order_id(line.decision, line.index, attempt),
            symbol=line.symbol,
            side=line.side,
            position_side=line.position_side,
            amount=amount,
            reduce_only=line.reduce_only,
        )
        data: dict[str, str | None] = {"side": line.side, "amount": str(amount), "position": str(position)}
        self._write(line, "sending", request.client_order_id, attempt, data | (marked(seen) if seen else {}))
        try:
            report = sound(await self._request(self._venue.submit(request)), request.client_order_id, line.may_fill)
        except OrderRejectedError as error:
            # The venue has an order of this name: ours, sent before. What became of it, only it can say.
            kind: JournalKind = "unknown" if error.reason == "duplicate_client_order_id" else "rejected"
            self._answer(line, kind, {"reason": said(error.reason), "text": said(error)})
        except RateLimitedError as error:
            self._answer(line, "rejected", {"reason": "rate_limited", "text": said(error)})
        except VenueDownError as error:
            self._answer(line, "rejected", {"reason": "venue_down", "text": said(error)})
            self._be_quiet(None)
        except VenueError as error:
            self._answer(line, "unknown", {"text": said(f"{type(error).__name__}: {error}")})
        else:
            self._report(line, report)

    async def ask(self, line: Line) -> None:
        """Ask what became of the order in flight; nothing is journaled while the venue does not say."""
        name = line.client_order_id
        if name is None:
            raise ValueError(f"{line.symbol}: asked about an order that was never sent")
        try:
            report = await self._request(self._venue.find_order(line.symbol, name))
            if report is not None:
                self._report(line, sound(report, name, line.may_fill))
            elif line.state is State.WORKING:
                await self._settle_from_fills(line, name)
            elif self._long_since_sent(line):
                self._answer(line, "absent", {"text": "the venue has no such order"})
        except VenueError:
            return  # not an answer: the line stays as it is and is asked about again

    async def cancel(self, cancel: Cancel) -> CancelAnswer:
        """Ask to cancel one order. Nothing is journaled yet; asking twice does no harm."""
        try:
            await self._request(self._venue.cancel(cancel.symbol, cancel.order), self._pace.cancel_timeout)
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
            orders = await self._request(self._venue.open_orders(), self._pace.cancel_timeout)
            return frozenset(order.id for order in orders)
        except (VenueError, AttributeError, TypeError):
            return None

    def cancelled(self, cancel: Cancel, decision: str) -> None:
        """Journal that an order rests no longer."""
        self._record(
            JournalEntry(
                decision=decision,
                kind="cancelled",
                at=self._clock.now(),
                account=self._account,
                symbol=cancel.symbol,
                data={"order": cancel.order, "why": cancel.why},
            )
        )

    def verified(self, line: Line, shown: Decimal) -> None:
        """Journal what the venue's own positions say about a line."""
        self._write(line, "verified", None, None, {"position": str(shown), "target": str(line.target)})

    async def _settle_from_fills(self, line: Line, name: str) -> None:
        """An order that the venue had acknowledged and now has forgotten: final, and its fills say how."""
        fills = sound_fills(await self._request(self._venue.fills(line.symbol, name)))
        filled = sum((fill.amount for fill in fills), ZERO)
        paid = sum((fill.amount * fill.price for fill in fills), ZERO)
        fees = [fill.fee for fill in fills]
        known = [fee for fee in fees if fee is not None]
        report = OrderReport(
            id=line.order_id or "",
            client_order_id=name,
            symbol=line.symbol,
            state="expired",
            amount=line.may_fill,
            filled=filled,
            average_price=paid / filled if filled > ZERO else None,
            fee=sum(known, ZERO) if len(known) == len(fees) else None,
        )
        self._report(line, sound(report, name, line.may_fill))

    def _long_since_sent(self, line: Line) -> bool:
        """Whether the request can no longer be on its way. A clock that was set back says yes."""
        if line.sent_at is None:
            return True
        since = (self._clock.now() - line.sent_at).total_seconds()
        return since >= self._pace.absence_after or since < 0

    def _report(self, line: Line, report: OrderReport) -> None:
        if report.state == "open":
            if line.state is not State.WORKING:
                self._answer(line, "acknowledged", {"order": report.id, "filled": str(report.filled)})
            return
        if report.state == "rejected" and report.filled == ZERO:
            self._answer(line, "rejected", {"reason": "other", "text": f"order {report.id} was rejected"})
            return
        self._answer(
            line,
            "filled",
            {
                "order": report.id,
                "state": report.state,
                "filled": str(report.filled),
                "price": None if report.average_price is None else str(report.average_price),
                "fee": None if report.fee is None else str(report.fee),
            },
        )

    def _answer(self, line: Line, kind: JournalKind, data: dict[str, str | None]) -> None:
        self._write(line, kind, line.client_order_id, line.attempt, data)

    def _write(
        self, line: Line, kind: JournalKind, name: str | None, attempt: int | None, data: dict[str, str | None]
    ) -> None:
        self._record(
            JournalEntry(
                decision=line.decision,
                kind=kind,
                at=self._clock.now(),
                account=self._account,
                symbol=line.symbol,
                position_side=line.position_side,
                client_order_id=name,
                attempt=attempt,
                data=data,
            )
        )

    def _be_quiet(self, seconds: float | None) -> None:
        self.quiet_until = self._clock.monotonic() + (self._pace.poll if seconds is None else seconds)

    async def _request(self, answer: Awaitable[T], within: float | None = None) -> T:
        """One request, within its real seconds. Whatever goes wrong comes out as one of the five VenueErrors."""
        patience = self._pace.request_timeout if within is None else within
        try:
            async with asyncio.timeout(patience):
                return await answer
        except RateLimitedError as error:
            self._be_quiet(error.retry_after)
            raise
        except VenueError:
            raise
        except TimeoutError as error:
            raise FateUnknownError(f"no answer within {patience:g} s") from error
        except asyncio.CancelledError as error:
            if called_off():
                raise
            raise FateUnknownError("the adapter called its own request off") from error
        except Exception as error:
            # An adapter is someone else's code: a defect in it is an answer without meaning, and must not
            # keep the other positions from being closed.
            raise MalformedAnswerError(f"{type(error).__name__}: {error}") from error


def called_off() -> bool:
    """Whether the running task itself is being cancelled: else a CancelledError is an adapter's own doing."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
