"""Drives the executor of one account: recovery first, then pass after pass, each as soon as it is due."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from killswitch.execution.account_executor import AccountExecutor
from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.backoff import Backoff
from killswitch.model.decision import Decision
from killswitch.model.legible import legible
from killswitch.model.snapshot import Closing
from killswitch.model.store import JournalEntry
from killswitch.model.venue import CredentialsRefusedError, VenueError
from killswitch.store.errors import StoreError

DISTRUSTED_PASSES = 5
"""Consecutive passes without reliable venue data after which a problem is reported."""

PAUSES = Backoff(first=0.1, longest=5.0)
"""Seconds after passes that failed in a row."""
AT_ONE_INSTANT = 1000
"""Most passes that begin at one instant of the clock; further ones wait until it has moved."""


class ClosingWorker:
    """Drives one account's executor: recovery, then pass after pass while there is work.

    The executor receives a decision between passes, never during one. After a venue error or a defect, the worker
    reports the problem and retries the pass; it raises a StoreError, because acting unrecorded is worse than stopping.
    """

    def __init__(
        self,
        account: str,
        executor: AccountExecutor,
        leftover: tuple[Closing, ...],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account = account
        self.executor = executor
        self.leftover = leftover
        """The closes that an earlier run left unfinished, shown until recovery has read the journal."""
        self.monotonic = monotonic
        """The monotonic clock of the executor."""
        self._failures = 0
        self._not_before = -math.inf
        self._begun_at = -math.inf
        self._begun_then = 0
        self._recovered = False
        self._more = False
        self._waiting: list[Decision] = []
        self._pass: asyncio.Task[None] | None = None
        self._closes = False
        """Whether the pass under way closes anything, and does not only query fees."""
        self._distrusted = 0
        self._counted_passes = 0
        self._stalled_because: str | None = None
        self._delayed_by: asyncio.Task[None] | None = None
        self._trouble = NO_ALERTS
        """Why the last pass failed, or why several passes made no progress."""

    @property
    def alerts(self) -> Alerts:
        """What is wrong with the closing; unknown before the first pass."""
        return self._trouble if self._recovered or self._trouble.found else Alerts(unknown=(f"closing/{self.account}",))

    @property
    def is_working(self) -> bool:
        """Whether there is anything left to close."""
        closes = self._pass is not None and self._closes
        return closes or not self._recovered or self._more or bool(self._waiting)

    @property
    def is_settled(self) -> bool:
        """Whether the executor has every decision, so that it knows which positions are closed."""
        return self._recovered and not self._waiting

    @property
    def is_owing_fees(self) -> bool:
        """Whether nothing is left to close, and fees of its orders are still being queried."""
        return not self.is_working and self.executor.has_pending_fees

    def prepare(self, decision: Decision, planned: Sequence[JournalEntry]) -> None:
        """Prepare the executor for `adopt`; a defect in it shows again, and is reported, on adoption."""
        with suppress(Exception):
            self.executor.prepare(decision, planned)

    def adopt(self, decision: Decision) -> None:
        if not self.is_working:
            # No close waits because a fee query has failed.
            self._failures, self._not_before = 0, -math.inf
        self._waiting.append(decision)

    def delay_until(self, task: asyncio.Task[None]) -> None:
        """Delay the next pass until `task` is done, which has its own time limit."""
        self._delayed_by = task

    @property
    def wait(self) -> float:
        """Seconds of the clock until a pass is due; infinite if one is under way, or nothing is left to do."""
        if self._pass is not None or not (self.is_working or self.executor.has_pending_fees):
            return math.inf
        now = self.monotonic()
        if now == self._begun_at and self._begun_then >= AT_ONE_INSTANT:
            return PAUSES.first
        pause = max(self._not_before - now, 0.0)
        if not self._recovered or self._waiting:
            return pause
        return max(pause, self.executor.wait)

    @property
    def is_about_to_begin(self) -> bool:
        """Whether a decision waits for the next pass."""
        return self._pass is None and bool(self._waiting)

    def kick(self, behind: int = 0) -> asyncio.Task[None] | None:
        """The pass under way; begins one if none is under way and one is due.

        `behind`: number of accounts whose first orders leave before anything of this one is computed.
        """
        self.collect()
        if self.wait <= 0.0:
            now = self.monotonic()
            self._begun_then = self._begun_then + 1 if now == self._begun_at else 1
            self._begun_at = now
            self._closes = self.is_working
            self._pass = asyncio.create_task(self._run_pass(behind))
        return self._pass

    def collect(self) -> None:
        """Collect the result of a pass that has ended; raises the StoreError that ended it."""
        if self._pass is not None and self._pass.done():
            ended, self._pass = self._pass, None
            if ended.cancelled():
                self._fail("defect", "one of its own calls cancelled it")
            else:
                ended.result()

    async def stop(self, within: float) -> None:
        """Wait at most `within` seconds for the pass under way, and then cancel it.

        Open fee queries are cancelled: the next run repeats them.
        """
        if self._pass is not None:
            await asyncio.wait((self._pass,), timeout=within)
            if not self._pass.done():
                self._pass.cancel()
                await asyncio.wait((self._pass,), timeout=within)
                self._pass = None
        if (query := self.executor.abandon()) is not None:
            await asyncio.wait((query,), timeout=within)
        self.collect()

    def abandon(self) -> set[asyncio.Future[Any]]:
        """Cancel everything under way; the journal records how far it got."""
        ending = {each for each in (self._pass, self.executor.abandon()) if each is not None}
        if self._pass is not None:
            self._pass.cancel()
        return ending

    def progress(self) -> tuple[Closing, ...]:
        """The closings of this account for the next snapshot, including decisions that wait for the executor."""
        waiting = tuple(Closing(it.id, "planned", scope=it.scope) for it in self._waiting if not it.is_suspicion)
        return (self.executor.progress() if self._recovered else self.leftover) + waiting

    async def _run_pass(self, behind: int) -> None:
        for _ in range(behind):
            await asyncio.sleep(0)
        if (before := self._delayed_by) is not None:
            await asyncio.wait((before,))
            self._delayed_by = None if self._delayed_by is before else self._delayed_by
        try:
            if self._recovered:
                await self._advance()
            else:
                await self.executor.recover()
                self._recovered = True
                self._more = self.executor.wait < math.inf and not self.executor.has_pending_fees
        except StoreError:
            raise
        except VenueError as error:
            kind = "credentials" if isinstance(error, CredentialsRefusedError) else "venue"
            self._fail(kind, str(error) or "a failed request")
        except Exception as error:  # noqa: BLE001 - a defect in one close must not stop the others
            self._fail("defect", f"unexpected {type(error).__name__}: {error}")
        else:
            self._failures = 0
            self._trouble = self._stalled()

    def _stalled(self) -> Alerts:
        """Why closing makes no progress, or cannot close a position."""
        if (reason := self._stall_reason()) is not None:
            return self._only("stalled", reason)
        heading = f"closing on account {self.account}"
        found = tuple(
            self._about(Alert(f"closing/{self.account}/uncloseable/{key}", "page", why, heading=heading))
            for key, why in self.executor.stalls.items()
        )
        # Before the first pass of this run, and for some passes without reliable data, nothing is known to be over.
        if self._more and (self.executor.passes == 0 or self.executor.distrust is not None):
            return Alerts(found, (f"closing/{self.account}",))
        # A target that cannot be closed for another reason than before is not over.
        return Alerts(found, tuple(alert.key.rpartition("/")[0] for alert in found))

    def _stall_reason(self) -> str | None:
        """Why closing makes no progress, once it has made none for several passes."""
        distrust = self.executor.distrust
        if not self._more or distrust is None:
            self._distrusted = 0
        elif self.executor.passes != self._counted_passes:
            self._distrusted += 1
        self._counted_passes = self.executor.passes
        if distrust is None or self._distrusted < DISTRUSTED_PASSES:
            self._stalled_because = None
        elif self._stalled_because is None:
            # The first reason stays: numbers in it may change with every snapshot.
            self._stalled_because = f"closing on account {self.account} makes no progress: {legible(distrust)}"
        return self._stalled_because

    async def _advance(self) -> None:
        while self._waiting:
            self._closes = True
            self.executor.adopt(self._waiting.pop(0))
        self._more = await self.executor.advance()

    def _fail(self, kind: str, why: str) -> None:
        """Retry after a failure of this `kind`: one that needs another answer is another alert."""
        self._more |= self._closes
        self._failures += 1
        self._not_before = self.monotonic() + PAUSES.after(self._failures)
        text = f"closing on account {self.account} is retried after {legible(why)}"
        self._trouble = self._only(f"retried/{kind}", text)

    def _only(self, kind: str, text: str) -> Alerts:
        """One page; what else is wrong with the closing is unknown while it lasts."""
        found = self._about(Alert(f"closing/{self.account}/{kind}", "page", text))
        return Alerts((found,), (f"closing/{self.account}",))

    def _about(self, alert: Alert) -> Alert:
        """The alert as one about this account's close, which may follow from its outage."""
        return replace(alert, part_of=(f"outage/{self.account}",), closing_on=self.account)
