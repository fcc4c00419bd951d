"""Computes the contents of a lock folder's files from their present contents and the requests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from killswitch.gate.changes import FAR_FUTURE, LockRecord, LockRequest, Stamp
from killswitch.gate.lock_merge import (
    ALSO,
    ON_SUSPICION,
    UNREADABLE,
    decisions_of,
    in_force,
    is_on_suspicion,
    joined,
    own_in,
    parts_of,
    scope_of,
    with_wider,
    without_ended_parts,
)
from killswitch.gate.lock_reader import LockFile
from killswitch.model.lock_parts import cover


class _Ordered(Struct, frozen=True):
    """A requested lock, and the files of narrower scopes that contain it too; None: all of them."""

    lock: LockRecord
    reach: frozenset[Path] | None


class LockContents:
    """The own lock of every scope: first as in its file, then changed by requests.

    A narrower file contains the requested locks of a wider scope if that scope's lock comes from requests: two policies
    may draw one scope differently, and its file does not show which accounts each lock reaches.
    """

    def __init__(
        self, files: Iterable[LockFile], stamp: Stamp, wider: Mapping[Path, tuple[Path, ...]], known: frozenset[str]
    ) -> None:
        self.stamp = stamp
        self.wider = wider
        """The file of a scope → the files of the wider scopes that contain it."""
        self.known = known
        """Decisions of this store."""
        self._files = {file.path: file for file in files if file.lock is not None or file.problem is not None}
        self._ordered: dict[Path, list[_Ordered]] = {}
        self._separate: dict[Path, list[LockRecord]] = {}
        """Locks on suspicion on a scope with another lock in force: kept apart from it, and never merged into it."""
        self.own = {path: own_in(file, self.stamp) for path, file in self._files.items()}
        """Path → the scope's lock without the locks of wider scopes. An unreadable file is a lock."""
        self._before = dict(self.own)

    def file_lock(self, path: Path) -> LockRecord | None:
        """The lock in the file now; None if there is none, or it is unreadable."""
        file = self._files.get(path)
        return None if file is None else file.lock

    def decision_of(self, path: Path) -> str | None:
        """The decision that locked the scope; None where it is not locked, or its file cannot be read."""
        lock = self.own.get(path)
        return lock.details.get("decision") if lock is not None and lock.locked else None

    def lock(self, path: Path, request: LockRequest, reach: frozenset[Path] | None = None) -> bool:
        """Lock the scope; False for a lock on suspicion where a foreign lock is in force, which is left unchanged."""
        found = self.own.get(path)
        existing = found if found is not None and in_force(found, self.stamp.now) else None
        is_firm = existing is not None and not is_on_suspicion(existing)
        requested = self._requested_lock(request, existing)
        if existing is not None and is_firm and request.on_suspicion:
            if self._is_foreign(existing):
                return False
            self._separate.setdefault(path, []).append(requested)
        elif existing is None or request.is_new or not self._holds(path, existing, request):
            self.own[path] = self._written(path, existing if is_firm == (not request.on_suspicion) else None, requested)
        self._ordered.setdefault(path, []).append(_Ordered(requested, reach))
        return True

    def join(self, path: Path, lock: LockRecord) -> None:
        """Add a foreign lock, under the scope of `path`."""
        existing = self.own.get(path)
        is_held = existing is not None and path in self._files and in_force(existing, self.stamp.now)
        self.own[path] = joined(existing, lock) if existing is not None and is_held else lock

    def open(self, path: Path, scope: str, reason: str) -> None:
        """End the scope's own lock; the locks of wider scopes stay in force."""
        self.own[path] = self.stamp.opened(scope, reason)

    def watch(self, path: Path, scope: str) -> None:
        """Give the scope an open file if it has none."""
        if path not in self.own:
            self.open(path, scope, "open")

    def expire(self) -> None:
        """Open the scopes whose locks have expired, and the parts of scopes."""
        for path, lock in tuple(self.own.items()):
            if lock.locked and not in_force(lock, self.stamp.now):
                self.open(path, lock.scope, "the lock has run out")
            elif lock.locked and lock.only:
                self.own[path] = without_ended_parts(lock, self.stamp.now)

    def required(self) -> Iterator[tuple[Path, LockRecord]]:
        """The lock that each file must contain; files that lock come first.

        A file that is not a lock file is replaced by a lock: a reader that is less strict than ours might treat it as
        open. A file that a temporary disk error made unreadable, and that no request concerns, is left out.
        """
        locks = []
        for path, own in self.own.items():
            lock = with_wider(own, [*self._separate.get(path, ()), *self._reaching(path)], self.stamp.now)
            if lock is not own or not self._is_unknown(path):
                locks.append((path, lock))
        return iter(sorted(locks, key=lambda each: (not each[1].locked, each[0])))

    def held(self, failed: Collection[Path]) -> list[LockRecord]:
        """Every own lock, and the previous lock of each file that could not be written, which is still in force."""
        separate = (lock for locks in self._separate.values() for lock in locks)
        return [*self.own.values(), *separate, *(self._before[path] for path in failed if path in self._before)]

    def _requested_lock(self, request: LockRequest, existing: LockRecord | None) -> LockRecord:
        order = request.order
        details: dict[str, str | None] = {"decision": request.decision}
        return self.stamp.lock(
            order.scope, request.reason, details | {ON_SUSPICION: "yes"} if request.on_suspicion else details,
            until=(order.until or FAR_FUTURE).timestamp(), mode=order.mode, stage=request.stage,
            created=None if existing is None or request.is_new else existing.created_ts, only=order.only,
        )  # fmt: skip

    def _written(self, path: Path, existing: LockRecord | None, requested: LockRecord) -> LockRecord:
        """`requested`, joined with the lock in force, which must not get weaker."""
        if existing is None:
            return requested
        if self._is_explained(existing):
            others = {decision for each in self._ordered.get(path, ()) for decision in decisions_of(each.lock)}
        else:
            others = decisions_of(existing) or {"unknown"}
        others -= decisions_of(requested)
        details = requested.details | ({ALSO: ", ".join(sorted(others))} if others else {})
        return replace(joined(existing, requested), details=details)

    def _holds(self, path: Path, existing: LockRecord, request: LockRequest) -> bool:
        """Whether the scope is locked as strictly and as long as requested, in a file that can be read."""
        file = self._files.get(path)
        return (
            (file is None or file.problem is None)
            and (request.on_suspicion or not is_on_suspicion(existing))
            and cover(parts_of(existing), request.order.parts)
        )

    def is_explained(self, path: Path) -> bool:
        """Whether decisions of this store alone locked the scope."""
        lock = self.own.get(path)
        return lock is not None and lock.locked and self._is_explained(lock)

    def _is_explained(self, lock: LockRecord) -> bool:
        """Whether decisions of this store alone explain the lock."""
        decisions = decisions_of(lock)
        return bool(decisions) and decisions <= self.known

    def _is_foreign(self, lock: LockRecord) -> bool:
        """Whether another program has ordered it; an unreadable file does not count as foreign."""
        return lock.details.get("decision") not in self.known and UNREADABLE not in lock.details

    def _reaching(self, path: Path) -> list[LockRecord]:
        """The locks of wider scopes that this file contains."""
        locks = []
        for wide in self._wider_than(path):
            ordered, own = self._ordered.get(wide, ()), self.own.get(wide)
            locks += [each.lock for each in ordered if each.reach is None or path in each.reach]
            if own is None or (ordered and self._is_explained(own)):
                continue
            if not (self._is_unknown(wide) and self._is_unknown(path)):
                locks.append(own)
        return locks

    def _is_unknown(self, path: Path) -> bool:
        """Whether a temporary disk error made the file unreadable, and no request concerns it."""
        return self.own[path] is self._before.get(path) and self._files[path].may_pass

    def _wider_than(self, path: Path) -> tuple[Path, ...]:
        """The files of the wider scopes that contain it; the portfolio alone for an account without a document."""
        if path in self.wider:
            return self.wider[path]
        is_part = scope_of(path).partition("/")[0] in ("account", "venue", "strategy")
        return (path.with_name("portfolio.json"),) if is_part else ()
