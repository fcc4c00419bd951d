"""Cancels of one account: all that are due at the same time, briefly, so that no close waits long for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from killswitch.execution.patience import Pace
from killswitch.execution.send.venue_session import CancelAnswer, Executor
from killswitch.execution.state.account_job import Work
from killswitch.model.clock import Clock
from killswitch.model.decision import Cancel

Due = tuple[Work, Cancel]


@dataclass(slots=True)
class _Tries:
    """How often an order could not be cancelled, and how often in a row it was not among the open ones then."""

    failed: int = 0
    absent: int = 0
    not_before: float = 0.0


class Cancelling:
    """Tries again what fails, waiting longer each time, and gives up with the reason after so many tries.

    An order that cannot be cancelled may be gone already: the venue's open orders say so, if they say it
    repeatedly. What the venue did not listen to is not counted.
    """

    def __init__(self, executor: Executor, clock: Clock, pace: Pace) -> None:
        self._executor = executor
        self._clock = clock
        self._pace = pace
        self._tries: dict[tuple[str, str], _Tries] = {}
        self._under_way: set[str] = set()

    async def run(self, due: Sequence[Due]) -> None:
        """Cancel those of `due` whose time has come."""
        now = self._clock.monotonic()
        ready = [
            (work, cancel)
            for work, cancel in due
            if self._of(work, cancel).not_before <= now and cancel.order not in self._under_way
        ]
        self._under_way |= {cancel.order for _, cancel in ready}
        try:
            asked = (self._executor.cancel(cancel.symbol, cancel.order) for _, cancel in ready)
            answers = await asyncio.gather(*asked)
        finally:
            self._under_way -= {cancel.order for _, cancel in ready}
        failed: list[tuple[Work, Cancel, CancelAnswer]] = []
        for (work, cancel), answer in zip(ready, answers, strict=True):
            match answer.what:
                case "done":
                    self._gone(work, cancel)
                case "refused":
                    work.cannot_cancel(cancel, answer.text)
                case "unheard":
                    self._of(work, cancel).not_before = self._clock.monotonic() + self._pace.first_wait
                case "failed":
                    failed.append((work, cancel, answer))
        if failed:
            await self._count(failed)

    async def _count(self, failed: Sequence[tuple[Work, Cancel, CancelAnswer]]) -> None:
        again = any(self._of(work, cancel).failed for work, cancel, _ in failed)
        resting = await self._executor.resting() if again else None
        for work, cancel, answer in failed:
            tries = self._of(work, cancel)
            tries.failed += 1
            tries.absent = tries.absent + 1 if resting is not None and cancel.order not in resting else 0
            tries.not_before = self._clock.monotonic() + self._pace.wait_after(tries.failed)
            if tries.absent >= self._pace.doubt_reads:
                self._gone(work, cancel)
            elif tries.failed >= self._pace.fruitless_attempts:
                work.cannot_cancel(cancel, f"{tries.failed} requests in a row failed, the last one with {answer.text}")

    def _gone(self, work: Work, cancel: Cancel) -> None:
        self._executor.cancelled(cancel, work.decision.id)
        self._tries.pop((work.decision.id, cancel.order), None)

    def _of(self, work: Work, cancel: Cancel) -> _Tries:
        return self._tries.setdefault((work.decision.id, cancel.order), _Tries())
