"""Cancels the orders of decisions: all that are due at once, with a short timeout, so that no close waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from killswitch.execution.account_context import AccountContext
from killswitch.execution.report_validation import venue_text
from killswitch.execution.state.account_job import AccountJob
from killswitch.execution.state.execution_state import ExecutionState
from killswitch.journal.entries import Cancelled
from killswitch.model.decision import Cancel
from killswitch.model.venue import OrderRejectedError, RateLimitedError, VenueDownError, VenueError
from killswitch.render.formats import count_of

Due = tuple[AccountJob, Cancel]


class _CancelAttempts(Struct):
    """Failed cancels of one order, and how often in a row the open orders lacked it."""

    failed: int = 0
    absent: int = 0
    not_before: float = 0.0


class OrderCanceller:
    """Retries failed cancels with growing waits, and gives up with a reason after a number of failures.

    An order whose cancel fails may no longer be open: it counts as cancelled if the open orders repeatedly lack it.
    Requests that the venue did not process are not counted.
    """

    def __init__(self, context: AccountContext, state: ExecutionState) -> None:
        self._context = context
        self._state = state
        self._tries: dict[tuple[str, str], _CancelAttempts] = {}
        self._in_flight: set[str] = set()

    def due(self) -> list[Due]:
        """The cancels that decisions request before their closes are done."""
        jobs = self._state.jobs.values()
        return [(job, cancel) for job in jobs for cancel in job.due_cancels(after_closing=False)]

    async def run(self, due: Sequence[Due]) -> None:
        """Cancel those of `due` whose time has come."""
        if not due or not self._context.can_send():
            return
        now = self._context.monotonic()
        ready = [
            (job, cancel)
            for job, cancel in due
            if self._of(job, cancel).not_before <= now and cancel.order not in self._in_flight
        ]
        self._in_flight |= {cancel.order for _, cancel in ready}
        try:
            requests = (self._context.cancel(cancel.symbol, cancel.order) for _, cancel in ready)
            answers = await asyncio.gather(*requests)
        finally:
            self._in_flight -= {cancel.order for _, cancel in ready}
        failed: list[tuple[AccountJob, Cancel, VenueError]] = []
        for (job, cancel), error in zip(ready, answers, strict=True):
            match error:
                case None:
                    self._record_cancelled(job, cancel)
                case OrderRejectedError():
                    self._record_failed(job, cancel, venue_text(error))
                case RateLimitedError() | VenueDownError():
                    self._of(job, cancel).not_before = self._context.monotonic() + self._context.pace.first_wait
                case _:
                    failed.append((job, cancel, error))
        if failed:
            await self._count(failed)

    async def _count(self, failed: Sequence[tuple[AccountJob, Cancel, VenueError]]) -> None:
        has_failed_before = any(self._of(job, cancel).failed for job, cancel, _ in failed)
        resting = await self._context.open_orders(self._context.pace.cancel_timeout) if has_failed_before else None
        for job, cancel, error in failed:
            tries = self._of(job, cancel)
            tries.failed += 1
            is_absent = resting is not None and all(each.id != cancel.order for each in resting)
            tries.absent = tries.absent + 1 if is_absent else 0
            tries.not_before = self._context.monotonic() + self._context.pace.wait_after(tries.failed)
            if tries.absent >= self._context.pace.confirm_snapshots:
                self._record_cancelled(job, cancel)
            elif tries.failed >= self._context.pace.fruitless_attempts:
                last = venue_text(error)
                self._record_failed(
                    job, cancel, f"{count_of(tries.failed, 'request')} in a row failed, the last one with {last}"
                )

    def _record_cancelled(self, job: AccountJob, cancel: Cancel) -> None:
        place = (self._context.account, cancel.symbol)
        entry = Cancelled(job.decision.id, self._context.clock.now(), *place, order=cancel.order, why=cancel.why)
        self._context.record([entry])
        self._tries.pop((job.decision.id, cancel.order), None)

    def _record_failed(self, job: AccountJob, cancel: Cancel, why: str) -> None:
        job.cannot_cancel(cancel, why)
        self._tries.pop((job.decision.id, cancel.order), None)

    def _of(self, job: AccountJob, cancel: Cancel) -> _CancelAttempts:
        return self._tries.setdefault((job.decision.id, cancel.order), _CancelAttempts())
