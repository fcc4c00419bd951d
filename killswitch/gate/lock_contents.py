"""Computes what the files of a lock folder must say from what they say and what is requested."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path

import msgspec

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
    scope_of,
    strictest_mode,
    with_wider,
)
from killswitch.gate.lock_reader import LockFile


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A lock that is called for, and the files of narrower scopes that say it too; None: all of them."""

    lock: LockRecord
    reach: frozenset[Path] | None


@dataclass(eq=False)
class LockContents:
    """The own lock of every scope: at first as its file says, then changed by requests.

    The lock of a wider scope in a narrower file comes from the orders themselves where they explain that scope's lock:
    two policies may draw one scope differently, and its file does not show whose lock reaches whom.
    """

    files: InitVar[Iterable[LockFile]]
    stamp: Stamp
    wider: Mapping[Path, tuple[Path, ...]]
    """The file of a scope → those of the scopes that it is a part of."""
    known: frozenset[str]
    """Decisions of this store."""

    def __post_init__(self, files: Iterable[LockFile]) -> None:
        self._files = {file.path: file for file in files if file.lock is not None or file.problem is not None}
        self._ordered: dict[Path, list[_Ordered]] = {}
        self._beside: dict[Path, list[LockRecord]] = {}
        """Locks on suspicion on a scope with another lock in force: written with it, and never merged into it."""
        self.own = {path: own_in(file, self.stamp) for path, file in self._files.items()}
        """Path → what the scope's file would say without wider scopes. A file that cannot be read is a lock."""
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
        """Lock the scope; False for a suspicion where another writer's lock is in force, which stays as it is."""
        found = self.own.get(path)
        standing = found if found is not None and in_force(found, self.stamp.now) else None
        is_firm = standing is not None and not is_on_suspicion(standing)
        wanted = self._called_for(request, standing)
        if standing is not None and is_firm and request.on_suspicion:
            if self._is_foreign(standing):
                return False
            self._beside.setdefault(path, []).append(wanted)
        elif standing is None or request.is_new or not self._holds(path, standing, request):
            self.own[path] = self._written(path, standing if is_firm == (not request.on_suspicion) else None, wanted)
        self._ordered.setdefault(path, []).append(_Ordered(wanted, reach))
        return True

    def join(self, path: Path, lock: LockRecord) -> None:
        """Add a lock that somebody else has written, under the scope of `path`."""
        standing = self.own.get(path)
        is_held = standing is not None and path in self._files and in_force(standing, self.stamp.now)
        self.own[path] = joined(standing, lock) if standing is not None and is_held else lock

    def open(self, path: Path, scope: str, reason: str) -> None:
        """End what locks the scope itself; wider scopes go on locking it."""
        self.own[path] = self.stamp.opened(scope, reason)

    def watch(self, path: Path, scope: str) -> None:
        """Give the scope a file: open where there was none."""
        if path not in self.own:
            self.open(path, scope, "open")

    def expire(self) -> None:
        """Open what has run out."""
        for path, lock in self.own.items():
            if lock.locked and not in_force(lock, self.stamp.now):
                self.open(path, lock.scope, "the lock has run out")

    def wanted(self) -> Iterator[tuple[Path, LockRecord]]:
        """What each file must say, those that lock first.

        A file that is no lock file is replaced by the lock that it is: a reader that is less strict than ours might
        take it for open. One that the disk would not read this time, and that nothing has been asked of, is left out.
        """
        found = []
        for path, own in self.own.items():
            lock = with_wider(own, [*self._beside.get(path, ()), *self._reaching(path)], self.stamp.now)
            if lock is not own or not self._is_unknown(path):
                found.append((path, lock))
        return iter(sorted(found, key=lambda each: (not each[1].locked, each[0])))

    def held(self, failed: Collection[Path]) -> list[LockRecord]:
        """Every own lock, and the previous lock of each file that could not be written, which still locks."""
        beside = (lock for locks in self._beside.values() for lock in locks)
        return [*self.own.values(), *beside, *(self._before[path] for path in failed if path in self._before)]

    def _called_for(self, request: LockRequest, standing: LockRecord | None) -> LockRecord:
        order = request.order
        details: dict[str, str | None] = {"decision": request.decision}
        return self.stamp.lock(
            order.scope, request.reason, details | {ON_SUSPICION: "yes"} if request.on_suspicion else details,
            until=(order.until or FAR_FUTURE).timestamp(), mode=order.mode, stage=request.stage,
            created=None if standing is None or request.is_new else standing.created_ts,
        )  # fmt: skip

    def _written(self, path: Path, standing: LockRecord | None, wanted: LockRecord) -> LockRecord:
        """`wanted`, with what is in force there and must not get weaker by it."""
        if standing is None:
            return wanted
        if self._is_explained(standing):
            others = {decision for each in self._ordered.get(path, ()) for decision in decisions_of(each.lock)}
        else:
            others = decisions_of(standing) or {"unknown"}
        others -= decisions_of(wanted)
        details = wanted.details | ({ALSO: ", ".join(sorted(others))} if others else {})
        return msgspec.structs.replace(joined(standing, wanted), details=details)

    def _holds(self, path: Path, standing: LockRecord, request: LockRequest) -> bool:
        """Whether the scope is locked as strictly and as long as requested, in a file that can be read."""
        file = self._files.get(path)
        return (
            (file is None or file.problem is None)
            and (request.on_suspicion or not is_on_suspicion(standing))
            and strictest_mode((standing.mode, request.order.mode)) == standing.mode
            and standing.expires_ts >= (request.order.until or FAR_FUTURE).timestamp()
        )

    def _is_explained(self, lock: LockRecord) -> bool:
        """Whether the lock is of this store's decisions alone."""
        decisions = decisions_of(lock)
        return bool(decisions) and decisions <= self.known

    def _is_foreign(self, lock: LockRecord) -> bool:
        """Whether somebody else has ordered it; of what cannot be read nobody knows that."""
        return lock.details.get("decision") not in self.known and UNREADABLE not in lock.details

    def _reaching(self, path: Path) -> list[LockRecord]:
        """The locks of wider scopes that this file contains."""
        found = []
        for wide in self._wider_than(path):
            ordered, own = self._ordered.get(wide, ()), self.own.get(wide)
            found += [each.lock for each in ordered if each.reach is None or path in each.reach]
            if own is None or (ordered and self._is_explained(own)):
                continue
            if not (self._is_unknown(wide) and self._is_unknown(path)):
                found.append(own)
        return found

    def _is_unknown(self, path: Path) -> bool:
        """Whether the disk would not read the file this time, and nothing has been asked of it."""
        return self.own[path] is self._before.get(path) and self._files[path].may_pass

    def _wider_than(self, path: Path) -> tuple[Path, ...]:
        """The files of the scopes that it is a part of. Of an account that is in no document that is the portfolio."""
        if path in self.wider:
            return self.wider[path]
        is_part = scope_of(path).partition("/")[0] in ("account", "venue")
        return (path.with_name("portfolio.json"),) if is_part else ()
