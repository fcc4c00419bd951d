"""The lock folder: one lock file per scope, written under a guard and a generation.

The folder has one writer at a time, identified by the generation of the store's lease. A lock of a wide scope is also
in the file of every narrower one: a bot reads one file, and must not trade under a lock of the portfolio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from killswitch.gate.changes import GuardError, LockChanges, LockOutcome, LockProblem, LockRecord, StaleGenerationError
from killswitch.gate.files import guarded, remove_abandoned
from killswitch.gate.foreign_files import (
    FOREIGN_SCOPE,
    MOST,
    UnmanagedFiles,
    require_separate_path,
    some_of,
    unmanaged_files,
)
from killswitch.gate.lock_contents import LockContents
from killswitch.gate.lock_file_writer import LockFileWriter, cause_of
from killswitch.gate.lock_merge import UNREADABLE, own_in, own_of, scope_of, tightens, unreadable
from killswitch.gate.lock_reader import LockFile, lock_path, read_file
from killswitch.gate.union_file import UnionFile

SYMBOL = "symbol/"
"""How the scopes of symbols begin."""


class LockFolder:
    """Writes, renews and lifts locks, all in one turn. The files of a newer runner are not changed.

    A file is kept alive while its scope is watched or locked. Other files go stale, and that of a symbol is removed: it
    exists only while the symbol is locked.
    """

    def __init__(
        self,
        folder: Path,
        union: Path | None,
        *,
        generation: int,
        alive_for: float,
        wider: Mapping[str, tuple[str, ...]] | None = None,
        wall: Callable[[], datetime] | None = None,
    ) -> None:
        """`alive_for` in seconds: how long after the last renewal a file still counts as kept alive.

        `wall`: the clock with which readers compare `alive_until`; by default the `now` of each call. Locks begin and
        end by `now`, which a jump of the wall clock does not change.

        `wider`: scope → the wider scopes that contain it. No file is opened here, since a disk may hang. LockError if
        `union` is the file of a scope.
        """
        self._folder = folder.absolute()
        self._writer = LockFileWriter(generation, alive_for, wall)
        self.union = None if union is None else UnionFile(union, self._folder, self._writer)
        if self.union is not None:
            require_separate_path(self._folder, self.union.path)
        self._wider = wider or {}
        self._requested: set[str] = set()
        """Scopes of earlier requests: this runner writes their files."""
        self._is_resolved = self._is_tidy = False

    def redraw(self, wider: Mapping[str, tuple[str, ...]]) -> None:
        """From the next turn on the scopes contain each other as in `wider`."""
        self._wider = wider

    def path_of(self, scope: str) -> Path:
        """The file of `scope`: `account/main` is `account__main.json`."""
        return lock_path(self._folder, scope)

    def settle_scopes(self, changes: LockChanges, now: datetime, is_late: Callable[[], bool]) -> LockOutcome:
        """Write every scope's file. A failure is reported in the problems, and affects no other file.

        Without the guard, which another process may hold for ever, only stricter locks are written: two writers at once
        may then both lock, and neither opens. `is_late`: called before each write; True if the caller has given up.
        """
        try:
            with ExitStack() as stack:
                self._begin()
                problems: list[LockProblem] = []
                try:
                    stack.enter_context(guarded(self._folder))
                except GuardError as error:
                    problems.append(LockProblem("guard", str(error)))
                return self._settle(changes, now, not problems, problems, is_late)
        except OSError as error:
            text = f"the locks in {self._folder} could not be written and are retried: {cause_of(error)}"
            return LockOutcome(problems=(LockProblem("folder", text),))

    def ordered(self, changes: LockChanges, now: datetime) -> tuple[LockRecord, ...]:
        """The locks of the requests alone, for the union file while the folder does not answer."""
        contents = LockContents((), self._writer.stamp(now), {}, changes.known)
        self._apply(changes, contents, has_guard=False)
        return tuple(contents.held(()))

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._is_resolved:
            return
        self._folder, self._is_resolved = self._folder.resolve(), True
        if self.union is not None:
            self.union.sums(self._folder)

    def _settle(
        self,
        changes: LockChanges,
        now: datetime,
        has_guard: bool,
        problems: list[LockProblem],
        is_late: Callable[[], bool],
    ) -> LockOutcome:
        kept = self._paths(self._kept_alive(changes))
        expected = kept | self._paths(self._concerned(changes))
        files = [read_file(path) for path in sorted(expected)]
        contents = self._contents(files, changes, now)
        if changes.foreign is not None:
            contents.join(self.path_of(FOREIGN_SCOPE), changes.foreign)
        outcome = self._apply(changes, contents, has_guard=has_guard)
        failed: dict[Path, str] = {}
        on_disk = {file.path: file.lock for file in files if file.lock is not None}
        for path, lock in contents.required():
            found, is_kept = contents.file_lock(path), path in kept
            is_removed = not lock.locked and not is_kept and scope_of(path).startswith(SYMBOL)
            is_settled = not is_removed and self._writer.is_settled(found, lock, now, kept=is_kept)
            if is_settled or not (has_guard or tightens(found, lock, now)):
                continue
            try:
                if is_late():
                    raise TimeoutError("the lock folder is too slow")
                if is_removed:
                    self._writer.remove(path)
                    on_disk.pop(path, None)
                else:
                    on_disk[path] = self._writer.write(path, lock, now, kept=is_kept)
            except (OSError, StaleGenerationError) as error:
                failed[path] = cause_of(error)
        problems += _unwritten(failed)
        problems += _not_readable(lock for path, lock in contents.own.items() if path in kept)
        foreign = self.path_of(FOREIGN_SCOPE)
        # A foreign lock that could not be written must not count as kept in the union.
        held = [lock for lock in contents.held(failed) if lock.scope != FOREIGN_SCOPE or foreign not in failed]
        unmanaged = self._unmanaged(expected, now, is_late, problems)
        others = [file for file in files if file.path not in kept | {foreign}]
        idle = [file.path for file in others if file.path in on_disk and file.lock and not own_of(file.lock).locked]
        problems += self._stale_file_problems(idle, unmanaged)
        unwritten = {request.decision for request in changes.requests if self.path_of(request.order.scope) in failed}
        return replace(
            outcome,
            in_file=outcome.in_file - unwritten,
            lifted=frozenset(scope for scope in outcome.lifted if self.path_of(scope) not in failed),
            problems=tuple(problems),
            held=(*held, *self._unmanaged_locks(unmanaged, now)),
            is_complete=has_guard and unmanaged is not None,
            open_until={
                scope_of(path): now + timedelta(seconds=lock.alive_until - self._writer.wall_at(now))
                for path, lock in on_disk.items()
                if not lock.locked
            },
        )

    def _kept_alive(self, changes: LockChanges) -> set[str]:
        """The scopes whose files are kept alive: those watched, the wider ones, and those to be locked."""
        wider = {wide for scope in changes.watch for wide in self._wider.get(scope, ())}
        return {*changes.watch} | wider | {request.order.scope for request in changes.requests}

    def _concerned(self, changes: LockChanges) -> set[str]:
        """The scopes whose files this runner writes if they exist."""
        self._requested |= changes.lift | changes.lift_known | changes.ordered
        self._requested |= {request.order.scope for request in changes.requests}
        known = {*self._wider, *(wide for scopes in self._wider.values() for wide in scopes)}
        return known | self._requested | {"portfolio", FOREIGN_SCOPE}

    def _paths(self, scopes: Iterable[str]) -> set[Path]:
        return {self.path_of(scope) for scope in scopes}

    def _contents(self, files: Iterable[LockFile], changes: LockChanges, now: datetime) -> LockContents:
        wider = {self.path_of(scope): tuple(map(self.path_of, scopes)) for scope, scopes in self._wider.items()}
        known = changes.known | {request.decision for request in changes.requests}
        return LockContents(files, self._writer.stamp(now), wider, known)

    def _apply(self, changes: LockChanges, contents: LockContents, *, has_guard: bool) -> LockOutcome:
        """Apply the changes to `contents`; return the outcome for the case that every write succeeds.

        Locks that are over come first, then those of stages that fired, then locks on suspicion, which never merge.
        """
        locked = {request.order.scope for request in changes.requests if not request.on_suspicion}
        lifted = set()
        for scope in sorted(changes.lift_known & locked) if has_guard else ():
            # Another lock stays: the file is written again from the requests, without the one that is lifted.
            if contents.is_explained(self.path_of(scope)):
                contents.open(self.path_of(scope), scope, "lifted")
            lifted.add(scope)
        for scope in sorted((changes.lift | changes.lift_known) - locked):
            path = self.path_of(scope)
            if scope not in changes.lift and contents.decision_of(path) not in changes.known:
                lifted.add(scope)  # not ours to open
            elif has_guard:
                contents.open(path, scope, "lifted")
                lifted.add(scope)
        if has_guard:
            contents.expire()
        superseded = set()
        for request in sorted(changes.requests, key=lambda request: request.on_suspicion):
            reach = None if request.reach is None else frozenset(map(self.path_of, request.reach))
            if not contents.lock(self.path_of(request.order.scope), request, reach):
                superseded.add(request.decision)
        if has_guard:
            for scope in changes.watch:
                contents.watch(self.path_of(scope), scope)
        in_file = frozenset(request.decision for request in changes.requests) - superseded
        return LockOutcome(in_file, frozenset(superseded), frozenset(lifted))

    def _unmanaged(
        self, expected: set[Path], now: datetime, is_late: Callable[[], bool], problems: list[LockProblem]
    ) -> UnmanagedFiles | None:
        """The other files of the folder; None if it cannot be listed."""
        union = set() if self.union is None else {self.union.path}
        try:
            found = unmanaged_files(self._folder, expected | union, is_late)
        except OSError as error:
            text = f"the lock folder {self._folder} cannot be listed: {cause_of(error)}"
            problems.append(LockProblem("listing", text, is_warning=self.union is None))
            return None
        if not self._is_tidy:
            self._is_tidy = True
            remove_abandoned(found.temporary, self._writer.wall_at(now))
        return found

    def _unmanaged_locks(self, found: UnmanagedFiles | None, now: datetime) -> list[LockRecord]:
        """The locks in unmanaged files, for the union. Files beyond the limit count as locked."""
        if found is None:
            return []
        stamp = self._writer.stamp(now)
        locks = [own_in(file, stamp) for file in found.files]
        if found.is_cut:
            cut = LockFile(self._folder / "others", None, f"are more than {MOST} in {self._folder.name}")
            locks.append(unreadable(cut, stamp))
        return locks

    def _stale_file_problems(self, idle: list[Path], found: UnmanagedFiles | None) -> list[LockProblem]:
        """The problems with files that no runner keeps alive."""
        if found is None or not (idle or found.count):
            return []
        paths = [*idle, *(file.path for file in found.files)]
        count = len(idle) + found.count
        text = (
            f"the lock folder {self._folder} has {'one file' if count == 1 else f'{count} files'} of no account that "
            f"is armed and of no lock in force ({some_of(paths)}): no runner keeps them alive, so that they go stale, "
            "which bots read as locked; remove the files that nobody needs"
        )
        problems = [LockProblem("strange files", text, is_warning=True)]
        if found.is_cut:
            cut = f"the lock folder {self._folder} has more than {MOST} such files, and no more than that are read"
            union = "" if self.union is None else f": {self.union.path} stays locked, as their contents are unknown"
            problems.append(LockProblem("too many files", f"{cut}{union}; remove them", is_warning=self.union is None))
        return problems


def _unwritten(failed: Mapping[Path, str]) -> list[LockProblem]:
    """One problem per scope, under one heading per cause: a folder that refuses writes may hold a thousand files."""
    return [
        LockProblem(
            f"write/{scope_of(path)}", scope_of(path), heading=f"locks could not be written and are retried ({cause})"
        )
        for path, cause in failed.items()
    ]


def _not_readable(locks: Iterable[LockRecord]) -> list[LockProblem]:
    """A problem for each scope that is locked because its file is unreadable: no decision ordered or ends that lock."""
    return [
        LockProblem(
            f"unreadable: {lock.scope}",
            f"{lock.reason}, so that {lock.scope} is locked ({lock.mode}) until `ksctl reset {lock.scope}`, which "
            "also accepts a loss that a policy has measured there: find the program that wrote it",
            is_warning=True,
        )
        for lock in locks
        if lock.locked and UNREADABLE in lock.details
    ]
