"""Sends batches of orders: journaled together, sent at the same time, answers journaled in groups.

It makes no decisions. Every order is journaled before it is sent, and every answer as it arrives.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from killswitch.execution.account_context import AccountContext
from killswitch.execution.report_validation import validated_report, venue_text
from killswitch.execution.send.order_queue import OrderBatch, OrderQueue, QueuedOrder, RequestInFlight, SendResult
from killswitch.journal.entries import EXPIRED, Acknowledged, Entry, EntryHead, Filled, Rejected, Unknown
from killswitch.journal.lifecycle import ZERO, TargetState
from killswitch.model.venue import (
    Call,
    FateUnknownError,
    MalformedAnswerError,
    OrderRejectedError,
    OrderReport,
    OrderRequest,
    RateLimitedError,
    RequestExpiredError,
    VenueDownError,
    VenueError,
)
from killswitch.ratelimit.budget import Reservation
from killswitch.render.formats import count_of

JOURNAL_WINDOW = 0.02
"""Real seconds for which an answer waits to be journaled with others. The order itself is already durable."""


LONGEST_BUDGET_WAIT = 0.05
"""Longest time in seconds for which a batch waits for budget for its next orders, instead of ending without them."""


FIRST, GROWTH, LARGEST = 10, 10, 320
"""Orders that are made durable together before they leave: few at first, `GROWTH` times as many in each further chunk.
"""
HEAD_START = 8
"""Turns of the event loop that an account leaves to others between its first orders and the next ones: as many accounts
that begin at the same time have sent theirs by then. An empty turn takes about ten microseconds."""


SHORTEST_WAIT = 1e-6
"""Shortest wait in seconds: event loops do not resolve shorter times."""
ANY_OTHER = "\N{ASTERISK}"
"""A symbol for which no order has been sent."""


class OrderSender:
    """Sends batches of orders of one account."""

    def __init__(self, context: AccountContext) -> None:
        self._context = context
        self._batches = context.venue.batches
        self._batch_size = 1 if self._batches is None else self._batches.most
        self._late_requests: dict[asyncio.Task[Sequence[Entry]], RequestInFlight] = {}
        """Requests in flight for whose answers no batch waits any longer."""

    def late_answers(self) -> list[Entry]:
        """The late answers to requests that were not waited for; each is returned once.

        The orders of a request that failed are of unknown status, and are queried.
        """
        ended = [task for task in self._late_requests if task.done()]
        found: list[Entry] = []
        for task in ended:
            group = self._late_requests.pop(task).group
            self._context.running -= _names(group)
            if task.cancelled():
                continue
            error = task.exception()
            found += task.result() if error is None else [self._unknown(each, error) for each in group]
        return found

    def abandon(self) -> list[asyncio.Future[Any]]:
        """Cancel requests in flight at the end of a run; the next run queries their orders."""
        for task in self._late_requests:
            task.cancel()
        return list(self._late_requests)

    async def send(self, source: Iterable[QueuedOrder], answered: Callable[[], None]) -> SendResult:
        """Send orders from the front of `source` for which there is budget now or within a moment. Each is sent once.

        Orders leave in chunks, each as soon as it is durable, so that the first do not wait for the last to be built;
        answers that arrive close together are journaled together. It returns when every answer has arrived, or has been
        out for so long that its orders are to be queried: `late_answers` returns the answer when it arrives. `answered`
        is called when no request is waited for any longer, before the last answers are journaled.
        """
        queue = OrderQueue(source)
        batch = OrderBatch()
        loop = asyncio.get_running_loop()

        async def send_group(group: Sequence[QueuedOrder], reservation: Reservation) -> Sequence[Entry]:
            answers = await self._request(group, reservation)
            if asyncio.current_task() in batch.in_flight:  # else no batch waits: `late_answers` returns them
                batch.hold(answers)
            return answers

        tasks: list[asyncio.Task[Sequence[Entry]]] = []
        try:
            more, chunk = True, FIRST
            while more or batch.open:
                if more:
                    groups = self._reserve_requests(queue, chunk)
                    chunk = min(GROWTH * chunk, LARGEST)
                    for group, reservation in groups:
                        task = loop.create_task(send_group(group, reservation))
                        batch.in_flight[task] = RequestInFlight(loop.time(), group)
                        task.add_done_callback(batch.mark_completed)
                        tasks.append(task)
                    if groups:
                        await _let_leave(queue)
                more = await self._wait(batch, queue)
                for task, request in batch.detach_late(loop.time() - self._context.pace.query_after + SHORTEST_WAIT):
                    self._late_requests[task] = request
                    self._context.running |= _names(request.group)
                if queue.sent and not (batch.open or more):
                    answered()
                    await asyncio.sleep(0)
                if not batch.open or batch.held_for >= JOURNAL_WINDOW - SHORTEST_WAIT:
                    self._context.record(batch.release())
            for task in tasks:
                if task not in self._late_requests:
                    task.result()
        finally:
            unfinished = [task for task in tasks if task not in self._late_requests]
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.gather(*unfinished, return_exceptions=True)
        return SendResult(queue.sent, queue.unsent, None if queue.is_empty else self._room_in(queue))

    async def _wait(self, batch: OrderBatch, queue: OrderQueue) -> bool:
        """Wait for budget or for answers to journal; returns whether there may be budget for more orders."""
        room_in = self._room_in(queue)
        if room_in <= 0.0:
            return True
        soon = room_in <= LONGEST_BUDGET_WAIT
        if not batch.open:
            if soon:
                await self._context.clock.sleep(room_in)
            return soon
        query_in = batch.oldest() + self._context.pace.query_after - asyncio.get_running_loop().time()
        waits = [query_in]
        if soon:
            waits.append(room_in)
        if batch.has_answers:
            waits.append(JOURNAL_WINDOW - batch.held_for)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(min(waits), SHORTEST_WAIT)):
                await batch.answered.wait()
            batch.answered.clear()
        return soon

    def _room_in(self, queue: OrderQueue) -> float:
        """Seconds until the next order may be sent; infinite where that does not depend on the budget alone."""
        first = queue.peek() or next(iter(queue.unsent), None)
        if first is None or self._context.paused_for > 0.0 or self._context.breaker_open_for > 0.0:
            return math.inf
        symbols = [each.target.symbol for each in queue.next(self._batch_size)] or [first.target.symbol]
        single = self._context.wait("submit", symbols[:1])
        if len(symbols) < 2 or single <= 0.0:
            return single
        return min(single, self._context.wait("submit_batch", symbols[:2]))

    def _reserve_requests(self, queue: OrderQueue, chunk: int) -> list[tuple[Sequence[QueuedOrder], Reservation]]:
        """Up to `chunk` orders for which there is budget, grouped into requests; they are durable on return."""
        groups: list[tuple[Sequence[QueuedOrder], Reservation]] = []
        count, most = 0, self._context.orders_at_once(chunk if queue.peek() is not None else 0)
        while count < most:
            group = self._next_group(queue.next(min(self._batch_size, most - count)))
            if not group:
                if (first := queue.peek()) is None or not self._is_only_symbol_limited(first.target.symbol):
                    break
                queue.skip()
                continue
            groups.append((group, self._context.reserve(_call(group), [each.target.symbol for each in group])))
            queue.mark_sent(len(group))
            count += len(group)
        now = self._context.clock.now()
        self._context.record([replace(each.entry, at=now) for group, _ in groups for each in group])
        return groups

    def _is_only_symbol_limited(self, symbol: str) -> bool:
        """Whether there is budget for any other symbol, so that this order must not delay the others."""
        return self._context.wait("submit", (symbol,)) > 0.0 and self._context.wait("submit", (ANY_OTHER,)) <= 0.0

    def _next_group(self, first: list[QueuedOrder]) -> list[QueuedOrder]:
        """The orders that one request may carry now: a batch, else a single order, else none."""
        symbols = [each.target.symbol for each in first]
        fits = self._context.room("submit_batch", symbols) if len(first) > 1 else 0
        if fits > 1:
            return first[:fits]
        return first[:1] if first and self._context.wait("submit", symbols[:1]) <= 0.0 else []

    async def _request(self, group: Sequence[QueuedOrder], reservation: Reservation) -> list[Entry]:
        """Send one request; returns an entry for each of its orders."""
        try:
            answers = await self._context.send(_call(group), self._submit([it.request for it in group]), reservation)
        except VenueError as error:
            return [self._failed(each, error) for each in group]
        return [self._answered(each, answer) for each, answer in zip(group, answers, strict=True)]

    async def _submit(self, requests: Sequence[OrderRequest]) -> Sequence[OrderReport | VenueError]:
        if self._batches is None or len(requests) == 1:
            return [await self._context.venue.submit(request) for request in requests]
        found = tuple(await self._batches.submit(requests))
        if len(found) != len(requests):
            raise MalformedAnswerError(
                f"the venue returned {count_of(len(found), 'answer')} to a batch of {count_of(len(requests), 'order')}"
            )
        return found

    def _answered(self, queued: QueuedOrder, answer: OrderReport | VenueError) -> Entry:
        if isinstance(answer, VenueError):
            if isinstance(answer, RateLimitedError):
                self._context.record_rate_limit(answer)
            return self._failed(queued, answer)
        target = queued.target
        try:
            report = validated_report(answer, queued.request.client_order_id, target.may_fill)
        except Exception as error:  # noqa: BLE001 - an adapter's defect must not stop other orders
            return self._unknown(queued, error)
        head = self._head(queued)
        return report_entry(report, target.state, head) or Acknowledged(*head, order=report.id, filled=report.filled)

    def _failed(self, order: QueuedOrder, error: VenueError) -> Entry:
        head = self._head(order)
        match error:
            case OrderRejectedError(reason="duplicate_client_order_id"):
                # The venue has an order of this name: ours, sent before. Only a query shows its status.
                return Unknown(*head, reason=error.reason, text=venue_text(error))
            case OrderRejectedError():
                reason = venue_text(error.reason)
            case RateLimitedError():
                reason = "rate_limited"
            case RequestExpiredError():
                reason = EXPIRED
            case VenueDownError():
                reason = "venue_down"
            case _:
                return self._unknown(order, error)
        return Rejected(*head, reason=reason, text=venue_text(error))

    def _unknown(self, order: QueuedOrder, error: BaseException) -> Unknown:
        return Unknown(*self._head(order), text=venue_text(_cause(error)))

    def _head(self, order: QueuedOrder) -> EntryHead:
        return self._context.entry_head(order.target, order.entry.client_order_id, order.entry.attempt)


async def _let_leave(queue: OrderQueue) -> None:
    """Let requests leave before the next orders are built; the first ones of other accounts, too."""
    for _ in range(1 if len(queue.sent) > FIRST else HEAD_START):
        await asyncio.sleep(0)


def _cause(error: BaseException) -> str:
    """Why the status of an order is unknown, in words; for an unexpected error with its class."""
    match error:
        case FateUnknownError():
            return str(error) or "no answer shows whether the order was accepted"
        case MalformedAnswerError():
            return f"malformed answer: {str(error).removeprefix('malformed answer: ')}"
    return f"{type(error).__name__}: {error}"


def _names(group: Sequence[QueuedOrder]) -> set[str]:
    return {each.request.client_order_id for each in group}


def _call(orders: Sequence[QueuedOrder]) -> Call:
    return "submit_batch" if len(orders) > 1 else "submit"


def report_entry(report: OrderReport, state: TargetState | None, head: EntryHead) -> Entry | None:
    """The journal entry for a valid report; None if it adds nothing to an order in `state`."""
    if report.state == "open":
        return None if state is TargetState.WORKING else Acknowledged(*head, order=report.id, filled=report.filled)
    if report.state == "rejected" and report.filled == ZERO:
        return Rejected(*head, reason="other", text=f"order {report.id} was rejected", order=report.id)
    return Filled(
        *head, order=report.id, state=report.state, filled=report.filled, price=report.average_price, fee=report.fee
    )
