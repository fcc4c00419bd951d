"""The union file, for readers that know a single path: the sum of the locks of all scopes.

It may be on another file system than the lock folder, so it has turns of its own: neither waits for the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from killswitch.gate.changes import GuardError, LockError, LockOutcome, LockProblem, LockRecord
from killswitch.gate.files import guarded, is_temporary, remove_abandoned
from killswitch.gate.foreign_files import (
    FOREIGN_SCOPE,
    LISTED,
    foreign_lock,
    is_signed,
    require_separate_path,
    signature,
)
from killswitch.gate.lock_file_writer import LockFileWriter, cause_of
from killswitch.gate.lock_merge import in_force, tightens, union_of
from killswitch.gate.lock_reader import read_file
from killswitch.model.lock_parts import strictest_mode


class UnionFile:
    """Writes the union of the scopes' files."""

    def __init__(self, path: Path, folder: Path, writer: LockFileWriter) -> None:
        """`folder`: the absolute path of the lock folder. No file is opened here."""
        self.path = path.absolute()
        self._writer = writer
        self._folders: tuple[Path, ...] = (folder,)
        self._is_resolved = False

    def sums(self, folder: Path) -> None:
        """Set the resolved path of the lock folder, with which the union is signed."""
        self._folders = tuple(dict.fromkeys((folder, *self._folders)))

    def settle(
        self, held: Sequence[LockRecord], now: datetime, is_late: Callable[[], bool], *, is_complete: bool
    ) -> LockOutcome:
        """Write the sum of `held`. `is_complete`: whether `held` has every lock, so that the union may open."""
        try:
            with ExitStack() as stack:
                self._begin(now)
                problems: list[LockProblem] = []
                try:
                    stack.enter_context(guarded(self.path.parent, f".{self.path.name}.guard"))
                except GuardError as error:
                    problems.append(LockProblem("guard of the union", str(error)))
                foreign = self._foreign(now)
                if is_late():
                    raise TimeoutError("its file system is too slow")
                is_kept = foreign is None or any(_covers(lock, foreign, now) for lock in held)
                locks = [*held] if foreign is None or is_kept else [*held, foreign]
                self._write(locks, now, may_open=is_complete and is_kept and not problems)
                return LockOutcome(foreign=None if is_kept else foreign, problems=tuple(problems))
        except (OSError, LockError) as error:
            text = f"the lock file {self.path} could not be written and is retried: {cause_of(error)}"
            return LockOutcome(problems=(LockProblem("union", text),))

    def _foreign(self, now: datetime) -> LockRecord | None:
        wall = datetime.fromtimestamp(self._writer.wall_at(now), UTC)
        stamp = replace(self._writer.stamp(now), now=min(now, wall))
        found = foreign_lock(self.path, self._folders, stamp)
        if found is None:
            return None
        ahead = max(0.0, (now - wall).total_seconds())
        return replace(found, expires_ts=found.expires_ts + ahead)

    def sum_of(self, held: Sequence[LockRecord], now: datetime) -> LockRecord:
        """The union of the locks, signed with the lock folder."""
        union = union_of(held, self._writer.stamp(now))
        return replace(union, details={**union.details, **signature(self._folders[0])})

    def _begin(self, now: datetime) -> None:
        if self._is_resolved:
            return
        self.path = self.path.resolve()
        for folder in self._folders:
            require_separate_path(folder, self.path)
        with os.scandir(self.path.parent) as entries:
            names = [entry.name for entry in islice(entries, LISTED) if is_temporary(entry.name)]
        remove_abandoned((self.path.parent / name for name in names), self._writer.wall_at(now))
        self._is_resolved = True

    def _write(self, locks: Sequence[LockRecord], now: datetime, *, may_open: bool) -> None:
        """Write the union; it opens only if all scopes' files are known and no foreign lock is lost."""
        union = self.sum_of(locks, now)
        found = read_file(self.path).lock
        if not may_open and not tightens(found, union, now):
            return
        if found is None or not is_signed(found, *self._folders):
            self._writer.replace(self.path, union, now)  # another folder's generation does not count here
            return
        expected = replace(
            union, created_ts=found.created_ts,
            expires_ts=union.expires_ts if union.locked else found.expires_ts,
        )  # fmt: skip
        if not self._writer.is_settled(found, expected, now):
            self._writer.write(self.path, union, now)


def _covers(lock: LockRecord, foreign: LockRecord, now: datetime) -> bool:
    return (
        lock.scope == FOREIGN_SCOPE
        and not lock.only
        and in_force(lock, now)
        and strictest_mode((lock.mode, foreign.mode)) == lock.mode
        and lock.expires_ts >= foreign.expires_ts - 1.0  # which moves with the wall clock
    )
