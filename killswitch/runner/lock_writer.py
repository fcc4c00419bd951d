"""Brings the lock folder to what the decisions call for, beside the ticks: a folder that hangs holds nothing up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from killswitch.deadline import DaemonThreads, NoThreadError
from killswitch.gate.changes import LockOutcome
from killswitch.gate.errors import LockError
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Event
from killswitch.model.store import JournalEntry
from killswitch.runner.locking import Locking, LockKeeper

DEADLINE = 2.0
"""Seconds without progress after which a turn is given up: people are paged, and the rest is left to the next one."""


IDLE = 600.0
"""Seconds for which the thread of a turn waits for the next one: at an interval below, no tick needs to begin one."""
PATIENT_FOR = 3
"""Waits of a tick for which a turn is not given up in any case: a clock may go faster than a file system."""


class _Turn:
    """One turn at the folder, on a thread, which asks before each write whether it is still wanted."""

    def __init__(self, clock: Clock, patience: float) -> None:
        """`patience`: seconds of this process that it has at least, however fast the clock of the run goes."""
        self._clock = clock
        self._patience = patience
        self._seconds = asyncio.get_running_loop().time
        self._moved = (clock.monotonic(), self._seconds())
        self._is_given_up = False
        self.at = clock.now()
        self.result: asyncio.Future[LockOutcome] | None = None

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


class LockWriter:
    """Runs the turns of a `Locking` at its folder, one at a time.

    A turn is waited for, because a lock is to be there before the orders that it precedes; but for at most `patience`
    seconds in all, and not at all once it has outlived its deadline.
    """

    def __init__(self, locking: Locking, keeper: LockKeeper, folder: Path, clock: Clock, patience: float) -> None:
        """`patience` in seconds."""
        self._locking = locking
        self._keeper = keeper
        self._folder = folder
        self._clock = clock
        self._patience = patience
        self._threads = DaemonThreads("locks", idle=IDLE)
        self._turn: _Turn | None = None
        self._problems: tuple[str, ...] = ()

    def planned(self, decision: Decision) -> tuple[JournalEntry, ...]:
        """What the decision's own transaction says of its lock."""
        return self._locking.planned(decision)

    def locked_whole(self) -> frozenset[str]:
        """Armed accounts on which a lock of mode `all` is called for."""
        return self._locking.locked_whole(self._clock.now())

    async def recover(self) -> tuple[str, ...]:
        """Before the first tick: what an earlier run has left. What is wrong, in words."""
        self._locking.remember(self._clock.now())
        return await self.settle(self._patience)

    async def act(self, decisions: Iterable[Decision], hands: Iterable[Event]) -> tuple[str, ...]:
        """Write the locks of decisions to act on, and take back those of resets. What is wrong, in words."""
        self._locking.change(decisions, self._clock.now(), hands)
        return await self.settle(self._patience)

    async def settle(self, patience: float) -> tuple[str, ...]:
        """End the turn under way, and do another one, in at most `patience` seconds. What is wrong, in words."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        if await self._ends(until):
            self._turn = turn = _Turn(self._clock, PATIENT_FOR * self._patience)
            changes = self._locking.due(turn.at)
            turn.result = loop.run_in_executor(self._threads, self._keeper.settle, changes, turn.at, turn.is_late)
            await self._ends(until)
        return self._problems + self._overdue()

    def close(self) -> None:
        """Give the thread back, unless it hangs in the folder."""
        self._threads.shutdown()

    async def _ends(self, until: float) -> bool:
        """Whether no turn is under way, after having waited for one. Records what it has come to."""
        turn = self._turn
        if turn is None or turn.result is None:
            return True
        left = 0.0 if turn.is_given_up else until - asyncio.get_running_loop().time()
        await asyncio.wait({turn.result}, timeout=max(left, 0.0))
        if not turn.result.done():
            return False
        self._turn = None
        try:
            outcome = turn.result.result()
        except LockError as error:
            outcome = LockOutcome(problems=(str(error),))
        except NoThreadError as error:
            what = f"the lock folder {self._folder} is not written to: {error.strerror}; closing goes on"
            outcome = LockOutcome(problems=(what,))
        except Exception as error:  # noqa: BLE001 - what others put there may find a mistake of ours: closing goes on
            outcome = LockOutcome(problems=(f"the lock folder {self._folder} makes us stumble: {error!r}",))
        self._problems = self._locking.done(outcome, self._clock.now())
        return True

    def _overdue(self) -> tuple[str, ...]:
        if self._turn is None or not self._turn.is_given_up:
            return ()
        return (
            f"the lock folder {self._folder} has not answered since {self._turn.at:%Y-%m-%d %H:%M:%S}: no lock is "
            "written, lifted or kept alive; closing goes on. It is written as soon as its file system answers; where "
            "that is gone for good, restart with another --lock-dir, and point the bots at that",
            *self._locking.missing(),
        )
