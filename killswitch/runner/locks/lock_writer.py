"""Writes the lock files concurrently with the ticks, so that a folder that hangs delays nothing.

The union file has turns of its own: it may be on another file system, and neither waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from killswitch.deadline import DaemonThreadExecutor, NoThreadError
from killswitch.execution.effects.performing import Performer
from killswitch.gate.changes import LockError, LockOutcome, LockProblem, LockRecord
from killswitch.gate.foreign_files import FOREIGN_SCOPE
from killswitch.gate.lock_folder import LockFolder
from killswitch.gate.union_file import UnionFile
from killswitch.model.alert import Alert, Alerts
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot, WrittenLock
from killswitch.model.store import JournalEntry
from killswitch.planning.reload.continuation import SetContinuation
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.locks.lock_lifecycle import LockLifecycle

DEADLINE = 2.0
"""Seconds without progress after which a turn is abandoned and paged; the next turn continues its work."""


IDLE = 600.0
"""Seconds for which a thread waits for the next turn, so that ticks at a shorter interval start no thread."""
LEAST_WAITS = 3
"""Least time before a turn is abandoned, in waits of a tick: a simulated clock may be faster than a file system."""


class _Turns:
    """The turns at one place, one at a time, so that at most one thread hangs.

    A turn checks before each write whether it was abandoned. Each such check counts as progress.
    """

    def __init__(self, clock: Clock, timeout: float) -> None:
        """`timeout`: seconds that a tick waits; a turn has at least three times as many real seconds."""
        self._clock = clock
        self._timeout = LEAST_WAITS * timeout
        self._threads = DaemonThreadExecutor("locks", idle=IDLE)
        self._result: asyncio.Future[LockOutcome] | None = None
        self._seconds: Callable[[], float]
        self._began: datetime
        self._moved: tuple[float, float]
        self._is_given_up: bool

    @property
    def is_idle(self) -> bool:
        return self._result is None

    @property
    def hangs_since(self) -> datetime | None:
        """When the turn began that makes no progress; from the first such observation it stays abandoned."""
        if self._result is None:
            return None
        by_clock, here = self._moved
        is_late = self._clock.monotonic() - by_clock >= DEADLINE and self._seconds() - here >= self._timeout
        self._is_given_up = self._is_given_up or is_late
        return self._began if self._is_given_up else None

    def begin(self, turn: Callable[[datetime, Callable[[], bool]], LockOutcome]) -> None:
        """Run `turn` on a thread, with the time and a function that returns whether it is late."""
        loop = asyncio.get_running_loop()
        self._seconds, self._began, self._is_given_up = loop.time, self._clock.now(), False
        self._is_late()
        self._result = loop.run_in_executor(self._threads, turn, self._began, self._is_late)

    def _is_late(self) -> bool:
        self._moved = (self._clock.monotonic(), self._seconds())
        return self._is_given_up

    async def ended(self, until: float) -> asyncio.Future[LockOutcome] | None:
        """Wait for the turn under way; its result, or None if there is none, or none yet."""
        result = self._result
        if result is None:
            return None
        left = 0.0 if self.hangs_since else until - asyncio.get_running_loop().time()
        await asyncio.wait({result}, timeout=max(left, 0.0))
        if not result.done():
            return None
        self._result = None
        return result

    def close(self) -> None:
        """End the thread, unless it hangs."""
        self._threads.shutdown()


class LockWriter(Performer):
    """Performs locks: writes the locks of decisions to the lock folder and to the union file.

    A tick waits for the turn, because a lock should be in force before the orders that it precedes; but for at most
    `timeout` seconds in all, and not at all once the turn has missed its deadline.
    """

    def __init__(
        self,
        lifecycle: LockLifecycle,
        lock_folder: LockFolder,
        folder: Path,
        clock: Clock,
        timeout: float,
        isolation: FaultIsolation,
    ) -> None:
        self.lifecycle = lifecycle
        self.lock_folder = lock_folder
        self.folder = folder
        self.clock = clock
        self.timeout = timeout
        """Seconds."""
        self.isolation = isolation
        self.renews_at_start = True
        """Whether the start keeps open files open. Not where a command waits that locks: they go stale until a tick."""
        self._scopes = _Turns(self.clock, self.timeout)
        self._union = _Turns(self.clock, self.timeout)
        self._last = LockOutcome()
        self._complete: tuple[LockRecord, ...] = ()
        """The locks of the scopes' files when they were last completely known."""
        self._foreign: LockRecord | None = None
        """The foreign lock at the union's path, until the folder keeps it."""
        self._submitted: LockRecord | None = None
        """The foreign lock that was passed to the folder's turn under way."""
        self._problems: tuple[LockProblem, ...] = ()
        self._union_problems: tuple[LockProblem, ...] = ()

    def reload(self, change: SetContinuation, wider: Mapping[str, tuple[str, ...]]) -> None:
        """Continue under the next set; locks stay as they were ordered. `wider`: as its policies draw scopes."""
        self.lifecycle.reload(change.renamed_stages(), change.renamed)
        self.lock_folder.redraw(wider)

    def fully_locked(self) -> frozenset[str]:
        """Armed accounts under an ordered lock of mode `all`."""
        return self.lifecycle.fully_locked(self.clock.now())

    @property
    def written(self) -> tuple[WrittenLock, ...]:
        """The locks in force that are in their files."""
        return self.lifecycle.written(self.clock.now())

    @property
    def judges(self) -> tuple[str, ...]:
        return ("locks",)

    @property
    def alerts(self) -> Alerts:
        """An alert for each problem: a warning if it keeps no lock from being written.

        Before the first answer of the folder, and after one without every lock in it, no lock is known to be written.
        """
        found = tuple(
            Alert(f"locks/{each.subject}", "warning" if each.is_warning else "page", each.text, heading=each.heading)
            for each in self._all_problems()
        )
        return Alerts(found, () if self._last.is_complete else ("locks",))

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return self.lifecycle.planned(decision)

    async def recover(self) -> None:
        async def recover() -> None:
            self.lifecycle.remember(self.clock.now())
            if self.renews_at_start:
                await self.settle(self.timeout)

        await self.isolation.call_async("the locks", recover, None)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> Alerts:
        """Write the locks of `decisions`, and lift those of resets, without waiting for a folder that hangs."""

        async def act() -> Alerts:
            self.lifecycle.change(decisions, self.clock.now(), snapshot.events)
            await self.settle(self.timeout)
            return self.alerts

        return await self.isolation.call_async("the locks", act, Alerts(unknown=("locks",)))

    async def finish(self, within: float) -> None:
        """Stop cleanly: lift reset locks whose closes have ended. All other locks stay, and go stale."""
        await self.isolation.call_async("the locks", lambda: self.settle(within), None)

    def close(self) -> None:
        """End the threads, unless they hang."""
        self._scopes.close()
        self._union.close()

    async def settle(self, within: float) -> None:
        """Collect the turns under way, and run new ones, in at most `within` seconds.

        The scopes' files come first, because bots read them. The union is the sum of their locks; while the folder does
        not answer, of the last known and the ordered locks.
        """
        until = asyncio.get_running_loop().time() + within
        await self._end_scopes(until)
        if self._scopes.is_idle:
            self._submitted = self._foreign
            changes = replace(self.lifecycle.due(self.clock.now()), foreign=self._submitted)
            self._scopes.begin(partial(self.lock_folder.settle_scopes, changes))
            await self._end_scopes(until)
        if (union := self.lock_folder.union) is not None:
            await self._end_union(union, until)
            if self._union.is_idle:
                self._union.begin(partial(union.settle, self._held(), is_complete=self._last.is_complete))
                await self._end_union(union, until)

    async def _end_scopes(self, until: float) -> None:
        outcome = await self._ended(self._scopes, until, "folder turn", f"the lock folder {self.folder}")
        if outcome is not None:
            self._last = outcome
            if self._foreign is self._submitted and any(lock.scope == FOREIGN_SCOPE for lock in outcome.held):
                self._foreign = None
            self._complete = outcome.held if outcome.is_complete else self._complete
            self._problems = self.lifecycle.done(outcome, self.clock.now())

    async def _end_union(self, union: UnionFile, until: float) -> None:
        outcome = await self._ended(self._union, until, "union turn", f"the lock file {union.path}")
        if outcome is not None:
            # Once the union is the sum of all locks, the lock of the other program can no longer be read from it.
            self._foreign, self._union_problems = outcome.foreign or self._foreign, outcome.problems

    @staticmethod
    async def _ended(turns: _Turns, until: float, subject: str, place: str) -> LockOutcome | None:
        """The outcome of the turn under way at `place`; None if there is none, or none yet."""
        ended = await turns.ended(until)
        if ended is None:
            return None
        try:
            return ended.result()
        except LockError as error:
            text = str(error)
        except NoThreadError as error:
            text = f"{place} is not written: {error.strerror}; closing continues"
        except Exception as error:  # noqa: BLE001 - foreign files may trigger a defect: closing continues
            text = f"{place} cannot be written because of a defect of this program: {error!r}; closing continues"
        return LockOutcome(problems=(LockProblem(subject, text),))

    def _held(self) -> tuple[LockRecord, ...]:
        foreign = () if self._foreign is None else (self._foreign,)
        if self._scopes.is_idle and self._last.is_complete:
            return self._complete + foreign
        now = self.clock.now()
        return (*self._complete, *self._last.held, *self.lock_folder.ordered(self.lifecycle.due(now), now), *foreign)

    def _all_problems(self) -> tuple[LockProblem, ...]:
        return (*self._problems, *self._union_problems, *self._overdue())

    def _overdue(self) -> tuple[LockProblem, ...]:
        found: tuple[LockProblem, ...] = ()
        if (since := self._scopes.hangs_since) is not None:
            text = (
                f"the lock folder {self.folder} has not answered since {since:%Y-%m-%d %H:%M:%S}: no lock is written, "
                "lifted or kept alive there; closing continues. It is written as soon as its file system answers; if "
                "that is lost, restart with another --lock-dir, and point the bots to it"
            )
            found += (LockProblem("folder hangs", text), *self.lifecycle.missing(self.clock.now()))
        if (since := self._union.hangs_since) is not None and self.lock_folder.union is not None:
            text = (
                f"the lock file {self.lock_folder.union.path} for all scopes has not answered since "
                f"{since:%Y-%m-%d %H:%M:%S}: it is not written, and goes stale; the files in {self.folder} are not "
                "affected. If its file system is lost, restart with another --lock-file"
            )
            found += (LockProblem("union hangs", text),)
        return found
