"""The gate in tests: a lock folder and the locks of decisions, with every write awaited."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from killswitch.gate.changes import LockChanges, LockError, LockOutcome, LockRecord, LockRequest
from killswitch.gate.lock_folder import LockFolder as Folder
from killswitch.gate.lock_merge import own_in
from killswitch.gate.lock_reader import LockFile, read_file
from killswitch.gate.union_file import UnionFile
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.snapshot import Event
from killswitch.runner.locks.lock_lifecycle import LockLifecycle as Lifecycle


class LockFolder(Folder):
    """A lock folder whose turns include the file for all scopes. Every other method is a turn for one operation.

    Those raise LockError if the disk refuses, or a newer runner has written there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kept: set[str] = set()

    def settle(self, changes: LockChanges, now: datetime, is_late: Callable[[], bool] = lambda: False) -> LockOutcome:
        """The scopes' files, and then the file for all of them."""
        outcome = self.settle_scopes(changes, now, is_late)
        if self.union is None:
            return outcome
        union = self.union.settle(outcome.held, now, is_late, is_complete=outcome.is_complete)
        if union.foreign is not None:  # as a run keeps it: by its next turn
            kept = self.settle_scopes(replace(changes, foreign=union.foreign), now, is_late)
            union = self.union.settle(kept.held, now, is_late, is_complete=kept.is_complete)
            lifted, superseded = outcome.lifted | kept.lifted, outcome.superseded | kept.superseded
            outcome = replace(kept, lifted=lifted, superseded=superseded)
        return replace(outcome, problems=outcome.problems + union.problems)

    def write(
        self,
        order: LockOrder,
        stage: str | None,
        reason: str | None,
        decision: str,
        now: datetime,
        *,
        on_suspicion: bool = False,
    ) -> LockRecord:
        """Lock the scope of `order`."""
        self._kept.add(order.scope)
        self._require(LockChanges((LockRequest(order, stage, reason, decision, on_suspicion),)), now)
        written = read_file(self.path_of(order.scope)).lock
        if written is None:
            raise LockError(f"the lock of {order.scope} was taken away as soon as it was written")
        return written

    def lift(self, scope: str, now: datetime) -> None:
        """Unlock `scope`."""
        self._kept.add(scope)
        self._require(LockChanges(lift=frozenset({scope})), now)

    def watch(self, scope: str, now: datetime) -> None:
        """Write an open file for a scope that has none."""
        self._kept.add(scope)
        self._require(LockChanges(watch=frozenset({scope})), now)

    def renew(self, now: datetime) -> None:
        """Renew earlier locks, and end those that have expired."""
        self._require(LockChanges(), now)

    def locks(self) -> tuple[LockFile, ...]:
        """Every scope's file as it is."""
        union = None if self.union is None else self.union.path
        return tuple(read_file(path) for path in sorted(self._folder.glob("*.json")) if path != union)

    def union_lock(self, now: datetime) -> LockRecord:
        """The lock of the file for all scopes, also if no such file is configured."""
        union = self.union or UnionFile(self._folder / "union.json", self._folder, self._writer)
        return union.sum_of([own_in(file, self._writer.stamp(now)) for file in self.locks()], now)

    def _kept_alive(self, changes: LockChanges) -> set[str]:
        return super()._kept_alive(replace(changes, watch=changes.watch | self._kept))

    def _require(self, changes: LockChanges, now: datetime) -> None:
        problems = [each.text for each in self.settle(changes, now).problems if not each.is_warning]
        if problems:
            raise LockError("; ".join(problems))


class Locking(Lifecycle):
    """The locks of decisions, applied to the folder in the same call."""

    def __init__(self, keeper: LockFolder, *args: Any) -> None:
        super().__init__(*args)
        self.keeper = keeper

    def recover(self, now: datetime) -> tuple[str, ...]:
        """Restore the locks of an earlier run."""
        self.remember(now)
        return self.settle(now)

    def act(self, decisions: Iterable[Decision], now: datetime, hands: Iterable[Event] = ()) -> tuple[str, ...]:
        """Apply the locks of these decisions, and remove those that resets withdraw."""
        self.change(decisions, now, hands)
        return self.settle(now)

    def settle(self, now: datetime) -> tuple[str, ...]:
        """Write, lift and renew what is due; returns the problems as text."""
        return tuple(each.text for each in self.done(self.keeper.settle(self.due(now), now), now))
