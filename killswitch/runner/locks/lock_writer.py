"""Writes the lock files beside the ticks, so that a folder that hangs delays nothing.

The file for all scopes has turns of its own: it may lie on another file system, and neither waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from killswitch.deadline import DaemonThreadExecutor, NoThreadError
from killswitch.execution.effects.performing import Performer
from killswitch.gate.changes import LockError, LockOutcome, LockProblem, LockRecord
from killswitch.gate.foreign_files import FOREIGN_SCOPE
from killswitch.gate.lock_folder import LockFolder
from killswitch.gate.union_file import UnionFile
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import JournalEntry
from killswitch.runner.fault_isolation import FaultIsolation
from killswitch.runner.locks.lock_lifecycle import LockLifecycle

DEADLINE = 2.0
"""Seconds without progress after which a turn is abandoned and paged; the next turn continues its work."""


IDLE = 600.0
"""Seconds for which the thread of a turn waits for the next one: at an interval below, no tick needs to begin one."""
PATIENT_FOR = 3
"""Waits of a tick for which a turn is not given up in any case: a clock may go faster than a file system."""


class _Turns:
    """The turns at one place, one at a time, so that one thread hangs at most.

    A turn asks before each write whether it is still wanted. That it asks is its progress.
    """

    def __init__(self, clock: Clock, patience: float) -> None:
        """`patience`: seconds of a tick's wait; however fast the clock of the run goes, a turn has three of them."""
        self._clock = clock
        self._patience = PATIENT_FOR * patience
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
        """When the turn began that has come no further for too long; it is given up for good once that is seen."""
        if self._result is None:
            return None
        by_clock, here = self._moved
        is_late = self._clock.monotonic() - by_clock >= DEADLINE and self._seconds() - here >= self._patience
        self._is_given_up = self._is_given_up or is_late
        return self._began if self._is_given_up else None

    def begin(self, work: Callable[[datetime, Callable[[], bool]], LockOutcome]) -> None:
        """Do `work` on a thread: it is given the time, and what to ask whether it is late."""
        loop = asyncio.get_running_loop()
        self._seconds, self._began, self._is_given_up = loop.time, self._clock.now(), False
        self._is_late()
        self._result = loop.run_in_executor(self._threads, work, self._began, self._is_late)

    def _is_late(self) -> bool:
        self._moved = (self._clock.monotonic(), self._seconds())
        return self._is_given_up

    async def ended(self, until: float) -> asyncio.Future[LockOutcome] | None:
        """The result of the turn under way, which is waited for; None if there is none, or none yet."""
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
        """Give the thread back, unless it hangs."""
        self._threads.shutdown()


@dataclass(eq=False)
class LockWriter(Performer):
    """Performs locks: writes those of decisions to the folder of scope files, and to the file for all scopes.

    A turn is waited for, because a lock is to be there before the orders that it precedes; but for at most `patience`
    seconds in all, and not at all once it has outlived its deadline.
    """

    locking: LockLifecycle
    keeper: LockFolder
    folder: Path
    clock: Clock
    patience: float
    """Seconds."""
    beside: FaultIsolation

    def __post_init__(self) -> None:
        self._scopes = _Turns(self.clock, self.patience)
        self._union = _Turns(self.clock, self.patience)
        self._last = LockOutcome()
        self._whole: tuple[LockRecord, ...] = ()
        """The locks of the scopes' files when all of them were last known."""
        self._foreign: LockRecord | None = None
        """The lock of another program at the union's path, until the folder keeps it."""
        self._given: LockRecord | None = None
        """The foreign lock that the folder's turn under way was given."""
        self._problems: tuple[LockProblem, ...] = ()
        self._union_problems: tuple[LockProblem, ...] = ()

    def locked_whole(self) -> frozenset[str]:
        """Armed accounts on which a lock of mode `all` is called for."""
        return self.locking.locked_whole(self.clock.now())

    @property
    def problems(self) -> tuple[str, ...]:
        """One message for each problem."""
        return tuple(dict.fromkeys(each.text for each in self._found()))

    @property
    def mild(self) -> frozenset[str]:
        """Those of the problems that keep no lock from being written."""
        return frozenset(each.text for each in self._found() if each.is_mild)

    @property
    def subjects(self) -> Mapping[str, str]:
        """Message → the subject of the problem, which stays the same while its words change."""
        return {each.text: f"locks: {each.subject}" for each in self._found()}

    def planned(self, decision: Decision, snapshot: Snapshot) -> tuple[JournalEntry, ...]:
        return self.locking.planned(decision)

    async def recover(self) -> None:
        async def recover() -> None:
            self.locking.remember(self.clock.now())
            await self.settle(self.patience)

        await self.beside.wait("the locks", recover, None)

    async def perform(self, decisions: Sequence[Decision], snapshot: Snapshot) -> tuple[str, ...]:
        """Write the locks of `decisions`, and take back those of resets. A folder that hangs is not waited for."""

        async def act() -> tuple[str, ...]:
            self.locking.change(decisions, self.clock.now(), snapshot.events)
            await self.settle(self.patience)
            return self.problems

        return await self.beside.wait("the locks", act, ())

    async def finish(self, patience: float) -> None:
        """A clean stop: lift what was taken back and is not closed for any more. All other locks go stale in time."""
        await self.beside.wait("the locks", lambda: self.settle(patience), None)

    def close(self) -> None:
        """End the threads, unless they hang."""
        self._scopes.close()
        self._union.close()

    async def settle(self, patience: float) -> None:
        """End the turns under way, and do others, in at most `patience` seconds.

        The scopes' files go first: bots read them. The union is made of their locks; while the folder does not
        answer, of the last known ones and of those that are called for.
        """
        until = asyncio.get_running_loop().time() + patience
        await self._end_scopes(until)
        if self._scopes.is_idle:
            self._given = self._foreign
            changes = replace(self.locking.due(self.clock.now()), foreign=self._given)
            self._scopes.begin(partial(self.keeper.settle_scopes, changes))
            await self._end_scopes(until)
        if (union := self.keeper.union) is not None:
            await self._end_union(union, until)
            if self._union.is_idle:
                self._union.begin(partial(union.settle, self._held(), is_whole=self._last.is_whole))
                await self._end_union(union, until)

    async def _end_scopes(self, until: float) -> None:
        outcome = await self._ended(self._scopes, until, f"the lock folder {self.folder}")
        if outcome is not None:
            self._last = outcome
            if self._foreign is self._given and any(lock.scope == FOREIGN_SCOPE for lock in outcome.held):
                self._foreign = None
            self._whole = outcome.held if outcome.is_whole else self._whole
            self._problems = self.locking.done(outcome, self.clock.now())

    async def _end_union(self, union: UnionFile, until: float) -> None:
        outcome = await self._ended(self._union, until, f"the lock file {union.path}")
        if outcome is not None:
            # Once the union is the sum of all locks, the lock of the other program can no longer be read from it.
            self._foreign, self._union_problems = outcome.foreign or self._foreign, outcome.problems

    @staticmethod
    async def _ended(turns: _Turns, until: float, place: str) -> LockOutcome | None:
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
        except Exception as error:  # noqa: BLE001 - what others put there may find a mistake of ours: closing goes on
            text = f"{place} cannot be written because of a defect of this program: {error!r}; closing continues"
        return LockOutcome(problems=(LockProblem(f"turn at {place}", text),))

    def _held(self) -> tuple[LockRecord, ...]:
        foreign = () if self._foreign is None else (self._foreign,)
        if self._scopes.is_idle and self._last.is_whole:
            return self._whole + foreign
        now = self.clock.now()
        return (*self._whole, *self._last.held, *self.keeper.ordered(self.locking.due(now), now), *foreign)

    def _found(self) -> tuple[LockProblem, ...]:
        return (*self._problems, *self._union_problems, *self._overdue())

    def _overdue(self) -> tuple[LockProblem, ...]:
        found: tuple[LockProblem, ...] = ()
        if (since := self._scopes.hangs_since) is not None:
            words = (
                f"the lock folder {self.folder} has not answered since {since:%Y-%m-%d %H:%M:%S}: no lock is written, "
                "lifted or kept alive there; closing continues. It is written as soon as its file system answers; if "
                "that is lost, restart with another --lock-dir, and point the bots to it"
            )
            found += (LockProblem("folder hangs", words), *self.locking.missing())
        if (since := self._union.hangs_since) is not None and self.keeper.union is not None:
            words = (
                f"the lock file {self.keeper.union.path} for all scopes has not answered since "
                f"{since:%Y-%m-%d %H:%M:%S}: it is not written, and goes stale; the files in {self.folder} are not "
                "affected. If its file system is lost, restart with another --lock-file"
            )
            found += (LockProblem("union hangs", words),)
        return found
