"""Brings the lock folder to what the decisions call for, beside the ticks: a folder that hangs holds nothing up.

The file for all scopes has turns of its own: it may lie on another file system, and neither waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from killswitch.deadline import DaemonThreads, NoThreadError
from killswitch.gate.changes import Lock, LockChanges, LockError, LockOutcome, LockProblem, UnionOutcome
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry
from killswitch.runner.locks.lock_lifecycle import Locking

DEADLINE = 2.0
"""Seconds without progress after which a turn is given up: people are paged, and the rest is left to the next one."""


IDLE = 600.0
"""Seconds for which the thread of a turn waits for the next one: at an interval below, no tick needs to begin one."""
PATIENT_FOR = 3
"""Waits of a tick for which a turn is not given up in any case: a clock may go faster than a file system."""

T = TypeVar("T")


class Union(Protocol):
    """The part of the gate's file for all scopes that the runner uses."""

    path: Path

    def settle(
        self, held: Sequence[Lock], now: datetime, is_late: Callable[[], bool], *, is_whole: bool
    ) -> UnionOutcome: ...


class Folder(Protocol):
    """The part of the gate's lock folder that the runner uses."""

    @property
    def union(self) -> Union | None: ...

    def settle_scopes(self, changes: LockChanges, now: datetime, is_late: Callable[[], bool]) -> LockOutcome: ...

    def ordered(self, changes: LockChanges, now: datetime) -> tuple[Lock, ...]: ...


class _Turn(Generic[T]):
    """One turn at the files, on a thread, which asks before each write whether it is still wanted."""

    def __init__(self, clock: Clock, patience: float) -> None:
        """`patience`: seconds of this process that it has at least, however fast the clock of the run goes."""
        self._clock = clock
        self._patience = patience
        self._seconds = asyncio.get_running_loop().time
        self._moved = (clock.monotonic(), self._seconds())
        self._is_given_up = False
        self.at = clock.now()
        self.result: asyncio.Future[T] | None = None

    def is_late(self) -> bool:
        """For the thread: whether it has been given up. That it asks is its progress."""
        self._moved = (self._clock.monotonic(), self._seconds())
        return self._is_given_up

    @property
    def is_given_up(self) -> bool:
        """Whether it has come no further for too long; for good, once it has been seen."""
        by_clock, here = self._moved
        is_late = self._clock.monotonic() - by_clock >= DEADLINE and self._seconds() - here >= self._patience
        self._is_given_up = self._is_given_up or is_late
        return self._is_given_up


class _Turns(Generic[T]):
    """The turns at one place, one at a time, so that one thread hangs at most."""

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._threads = DaemonThreads("locks", idle=IDLE)
        self._turn: _Turn[T] | None = None

    @property
    def is_idle(self) -> bool:
        return self._turn is None

    @property
    def hangs_since(self) -> datetime | None:
        """When the turn began that has been given up and has not come back."""
        return None if self._turn is None or not self._turn.is_given_up else self._turn.at

    def begin(self, work: Callable[[datetime, Callable[[], bool]], T]) -> None:
        """Do `work` on a thread: it is given the time, and what to ask whether it is late."""
        turn: _Turn[T] = _Turn(self._clock, PATIENT_FOR * self._patience)
        self._turn = turn
        loop = asyncio.get_running_loop()
        turn.result = loop.run_in_executor(self._threads, work, turn.at, turn.is_late)

    async def ended(self, until: float) -> asyncio.Future[T] | None:
        """The result of the turn under way, which is waited for; None if there is none, or none yet."""
        turn = self._turn
        if turn is None or turn.result is None:
            return None
        left = 0.0 if turn.is_given_up else until - asyncio.get_running_loop().time()
        await asyncio.wait({turn.result}, timeout=max(left, 0.0))
        if not turn.result.done():
            return None
        self._turn = None
        return turn.result

    def close(self) -> None:
        """Give the thread back, unless it hangs."""
        self._threads.shutdown()


class LockWriter:
    """Runs the turns of a `Locking` at its folder, and at the file for all scopes.

    A turn is waited for, because a lock is to be there before the orders that it precedes; but for at most `patience`
    seconds in all, and not at all once it has outlived its deadline.
    """

    def __init__(self, locking: Locking, keeper: Folder, folder: Path, clock: Clock, patience: float) -> None:
        """`patience` in seconds."""
        self._locking = locking
        self._keeper = keeper
        self._folder = folder
        self._clock = clock
        self._patience = patience
        self._scopes: _Turns[LockOutcome] = _Turns(clock, patience)
        self._union: _Turns[UnionOutcome] = _Turns(clock, patience)
        self._last = LockOutcome()
        self._whole: tuple[Lock, ...] = ()
        """What the scopes' files said when all of them were known last."""
        self._foreign: Lock | None = None
        """What another program has left at the union's path, until the folder keeps it."""
        self._problems: tuple[LockProblem, ...] = ()
        self._union_problems: tuple[LockProblem, ...] = ()

    def planned(self, decision: Decision) -> tuple[JournalEntry, ...]:
        """What the decision's own transaction says of its lock."""
        return self._locking.planned(decision)

    def locked_whole(self) -> frozenset[str]:
        """Armed accounts on which a lock of mode `all` is called for."""
        return self._locking.locked_whole(self._clock.now())

    @property
    def mild(self) -> frozenset[str]:
        """Those of the problems that keep no lock from being written."""
        return frozenset(each.text for each in self._found() if each.is_mild)

    @property
    def subjects(self) -> Mapping[str, str]:
        """What each of the problems is about, however its words change."""
        return {each.text: f"locks: {each.subject}" for each in self._found()}

    async def recover(self) -> tuple[str, ...]:
        """Before the first tick: what an earlier run has left. What is wrong, in words."""
        self._locking.remember(self._clock.now())
        return await self.settle(self._patience)

    async def act(self, decisions: Iterable[Decision], hands: Iterable[Event]) -> tuple[str, ...]:
        """Write the locks of decisions to act on, and take back those of resets. What is wrong, in words."""
        self._locking.change(decisions, self._clock.now(), hands)
        return await self.settle(self._patience)

    def close(self) -> None:
        """Give the threads back, unless they hang."""
        self._scopes.close()
        self._union.close()

    async def settle(self, patience: float) -> tuple[str, ...]:
        """End the turns under way, and do others, in at most `patience` seconds. What is wrong, in words.

        The scopes' files go first: bots read them. The file for all scopes is made of what they say; while the folder
        does not answer, of what they said last and of what is called for.
        """
        until = asyncio.get_running_loop().time() + patience
        await self._end_scopes(until)
        if self._scopes.is_idle:
            changes = replace(self._locking.due(self._clock.now()), foreign=self._foreign)
            self._scopes.begin(partial(self._keeper.settle_scopes, changes))
            await self._end_scopes(until)
        if self._keeper.union is not None:
            await self._end_union(until)
            if self._union.is_idle:
                self._union.begin(partial(_sum, self._keeper.union, self._held(), self._last.is_whole))
                await self._end_union(until)
        return tuple(dict.fromkeys(each.text for each in self._found()))

    def _held(self) -> tuple[Lock, ...]:
        if self._scopes.is_idle and self._last.is_whole:
            return self._whole
        now = self._clock.now()
        return (*self._whole, *self._last.held, *self._keeper.ordered(self._locking.due(now), now))

    async def _end_scopes(self, until: float) -> None:
        ended = await self._scopes.ended(until)
        if ended is None:
            return
        try:
            outcome = ended.result()
        except LockError as error:
            outcome = LockOutcome(problems=(LockProblem("refused", str(error)),))
        except NoThreadError as error:
            words = f"the lock folder {self._folder} is not written to: {error.strerror}; closing goes on"
            outcome = LockOutcome(problems=(LockProblem("no thread", words),))
        except Exception as error:  # noqa: BLE001 - what others put there may find a mistake of ours: closing goes on
            words = f"the lock folder {self._folder} makes us stumble: {error!r}"
            outcome = LockOutcome(problems=(LockProblem("mistake", words),))
        self._last = outcome
        self._whole = outcome.held if outcome.is_whole else self._whole
        self._problems = self._locking.done(outcome, self._clock.now())

    async def _end_union(self, until: float) -> None:
        ended = await self._union.ended(until)
        if ended is None:
            return
        try:
            outcome = ended.result()
        except NoThreadError as error:
            words = f"the lock file {self._keeper.union and self._keeper.union.path} is not written: {error.strerror}"
            outcome = UnionOutcome(problems=(LockProblem("no thread for the union", words),))
        except Exception as error:  # noqa: BLE001 - as for the folder
            words = f"the lock file {self._keeper.union and self._keeper.union.path} makes us stumble: {error!r}"
            outcome = UnionOutcome(problems=(LockProblem("mistake in the union", words),))
        self._foreign = outcome.foreign
        self._union_problems = outcome.problems

    def _found(self) -> tuple[LockProblem, ...]:
        return (*self._problems, *self._union_problems, *self._overdue())

    def _overdue(self) -> tuple[LockProblem, ...]:
        found: tuple[LockProblem, ...] = ()
        if (since := self._scopes.hangs_since) is not None:
            words = (
                f"the lock folder {self._folder} has not answered since {since:%Y-%m-%d %H:%M:%S}: no lock is written, "
                "lifted or kept alive there; closing goes on. It is written as soon as its file system answers; where "
                "that is gone for good, restart with another --lock-dir, and point the bots at that"
            )
            found += (LockProblem("folder hangs", words), *self._locking.missing())
        if (since := self._union.hangs_since) is not None and self._keeper.union is not None:
            words = (
                f"the lock file {self._keeper.union.path} for all scopes has not answered since "
                f"{since:%Y-%m-%d %H:%M:%S}: it is not written, and goes stale; the files in {self._folder} are not "
                "concerned. Where its file system is gone for good, restart with another --lock-file"
            )
            found += (LockProblem("union hangs", words),)
        return found


def _sum(
    union: Union, held: Sequence[Lock], is_whole: bool, now: datetime, is_late: Callable[[], bool]
) -> UnionOutcome:
    return union.settle(held, now, is_late, is_whole=is_whole)
