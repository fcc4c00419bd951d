"""Runs the account executors concurrently with the ticks: one pass of each account at a time, all independent.

The executor determines when a pass is due. Nothing here sleeps on the run's clock: only the scheduler does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from killswitch.journal.entries import PositionKey
from killswitch.model.alert import Alerts, together
from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot, Closing, ClosingStatus
from killswitch.model.store import JournalEntry
from killswitch.runner.closing_worker import ClosingWorker as ClosingWorker

# A decision has the status of its least advanced account.
_WORST_FIRST: tuple[ClosingStatus, ...] = ("planned", "closing", "abandoned", "blocked", "residual", "flat")


class ClosingWorkers:
    """The account executors of all armed accounts."""

    def __init__(self, workers: Mapping[str, ClosingWorker]) -> None:
        self._workers = workers

    @property
    def is_working(self) -> bool:
        """Whether any account has anything left to close."""
        return any(worker.is_working for worker in self._workers.values())

    @property
    def is_owing_fees(self) -> bool:
        """Whether fees of finished closes are still being queried."""
        return any(worker.is_owing_fees for worker in self._workers.values())

    @property
    def busy(self) -> frozenset[str]:
        """The accounts that have something left to close."""
        return frozenset(name for name, worker in self._workers.items() if worker.is_working)

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"closing/{name}" for name in self._workers)

    @property
    def alerts(self) -> Alerts:
        """A page for each account whose last pass failed or made no progress; unknown before its first pass."""
        return together(worker.alerts for worker in self._workers.values())

    def prepare(self, plans: Iterable[tuple[Decision, Sequence[JournalEntry]]]) -> None:
        """Prepare the executors for `adopt` before the journal entries are durable; nothing is started."""
        for decision, entries in plans:
            for name in self._workers.keys() & {entry.account for entry in entries}:
                self._workers[name].prepare(decision, entries)

    def adopt(self, decisions: Iterable[Decision]) -> None:
        """Pass each decision to the armed accounts that it trades on."""
        for decision in decisions:
            for name in sorted(self.accounts_of((decision,))):
                self._workers[name].adopt(decision)

    def give_up(self, entries: Iterable[JournalEntry]) -> None:
        """End the close that each entry, which is durable, names by decision and account."""
        for entry in entries:
            if (worker := self._workers.get(entry.account or "")) is not None:
                worker.executor.give_up(entry)

    def delay_until(self, tasks: Mapping[str, asyncio.Task[None]]) -> None:
        """Delay the next pass of each named account until its task is done."""
        for name in tasks.keys() & self._workers.keys():
            self._workers[name].delay_until(tasks[name])

    def accounts_of(self, decisions: Iterable[Decision]) -> frozenset[str]:
        """The armed accounts that the decisions trade on."""
        names = {name for decision in decisions for name in decision.accounts_at_work}
        return frozenset(names & self._workers.keys())

    def observe(self, accounts: Iterable[AccountSnapshot], at: float | None = None) -> None:
        """Pass each snapshot to its executor. `at`: when it was requested, in the executors' seconds."""
        for account in accounts:
            if account.account in self._workers:
                self._workers[account.account].executor.apply_snapshot(account, at=at)

    @property
    def wait(self) -> float:
        """Seconds of the clock until a pass is due that is not under way; infinite if there is none to wait for."""
        return min((worker.wait for worker in self._workers.values()), default=math.inf)

    def kick(self) -> set[asyncio.Future[None]]:
        """Begin every pass that is due; return all passes under way. Raises StoreError.

        Accounts with a new decision begin one turn of the event loop after each other: the first orders of one leave
        while nothing of the next one is computed yet.
        """
        passes, begun = set[asyncio.Future[None]](), 0
        for worker in self._workers.values():
            begins = worker.is_about_to_begin
            if (task := worker.kick(begun if begins else 0)) is not None:
                passes.add(task)
                begun += begins
        return passes

    def has_work(self, *, fees: bool = False) -> bool:
        """Begin passes that are due; whether anything is left to close or, with `fees`, to query. Raises StoreError."""
        self.kick()
        return self.is_working or (fees and self.is_owing_fees)

    async def recover(self, within: float) -> None:
        """Recover every account, waiting at most `within` seconds of real time. Raises StoreError.

        A recovery that takes longer continues; until it has ended nothing is sent for that account.
        """
        if passes := self.kick():
            await asyncio.wait(passes, timeout=within)
            for worker in self._workers.values():
                worker.collect()

    async def advance(self, within: float) -> None:
        """Run passes until none is due, for at most `within` seconds of real time.

        When a pass ends, the next one of that account begins at once if it is due; a pass that takes longer continues
        while ticks and other accounts do. Raises StoreError.
        """
        deadline = asyncio.get_running_loop().time() + within
        while passes := self.kick():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await asyncio.wait(passes, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)

    async def run_until(self, until: asyncio.Future[Any]) -> None:
        """Run passes as they become due, in real time, until `until` is done. Raises StoreError."""
        while not until.done():
            passes, due = self.kick(), self.wait
            timeout = None if due == math.inf else due
            await asyncio.wait({until, *passes}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self, within: float) -> None:
        """Wait for every pass under way, at the end of a run, and cancel those that take longer than `within`."""
        await asyncio.gather(*(worker.stop(within) for worker in self._workers.values()))

    async def abandon(self) -> None:
        """Cancel every pass under way and ignore its errors, when a run ends with an error."""
        passes = [task for worker in self._workers.values() for task in worker.abandon()]
        await asyncio.gather(*passes, return_exceptions=True)

    def progress(self) -> tuple[Closing, ...]:
        """All closings, one per decision, for the next snapshot."""
        closings: dict[str, Closing] = {}
        for worker in self._workers.values():
            for closing in worker.progress():
                other = closings.get(closing.decision)
                closings[closing.decision] = closing if other is None else _together(other, closing)
        return tuple(closings.values())

    def closing(self, account: str) -> frozenset[PositionKey] | None:
        """The positions of an armed account that closes reduce; None while that is not known."""
        worker = self._workers[account]
        return worker.executor.closing if worker.is_settled else None

    def newest(self) -> tuple[AccountSnapshot, ...]:
        """The newest snapshot of each account: that of a pass, where the close took longer than the tick."""
        found = (worker.executor.newest for worker in self._workers.values())
        return tuple(each for each in found if each is not None)


def _together(one: Closing, other: Closing) -> Closing:
    """One decision's closing over two accounts: the worse status, all residuals, the sum of costs that are known."""
    status = min(one.status, other.status, key=_WORST_FIRST.index)
    costs: list[Decimal | None] = [one.cost, other.cost]
    cost = None if None in costs else sum((each for each in costs if each is not None), Decimal(0))
    return Closing(one.decision, status, one.residual + other.residual, cost, one.scope or other.scope)
