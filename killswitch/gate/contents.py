"""What the files of a lock folder say, and what they are to say: worked out here, and written by the folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from killswitch.gate.changes import LockRequest
from killswitch.gate.reading import LockFile
from killswitch.gate.strictness import (
    ON_SUSPICION,
    in_force,
    is_on_suspicion,
    joined,
    opened,
    own_of,
    scope_of,
    strictest_mode,
    unreadable,
    with_wider,
)
from killswitch.model.lock import FAR_FUTURE, Lock


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a turn is, and what it writes into its files. `alive_until` in Unix seconds."""

    now: datetime
    generation: int
    alive_until: float


class Contents:
    """The own lock of every scope: as its file says at first, and then as requests make it."""

    def __init__(self, files: Iterable[LockFile], stamp: Stamp, wider: Mapping[Path, tuple[Path, ...]]) -> None:
        """`wider`: the file of a scope → those of the scopes that it is a part of."""
        self._files = {file.path: file for file in files}
        self._stamp = stamp
        self._wider = wider
        self.own = {path: self._found(file) for path, file in self._files.items()}
        """Path → what the scope's file would say without wider scopes. A file that cannot be read is a lock."""
        self._before = dict(self.own)

    def standing(self, path: Path) -> Lock | None:
        """What the file says now; None where there is none, or none that can be read."""
        file = self._files.get(path)
        return None if file is None else file.lock

    def decision_of(self, path: Path) -> str | None:
        """The decision that locked the scope; None where it is not locked, or its file cannot be read."""
        lock = self.own.get(path)
        return lock.details.get("decision") if lock is not None and lock.locked else None

    def lock(self, path: Path, request: LockRequest) -> bool:
        """Lock the scope; False for a suspicion where another lock is in force, which stays as it is."""
        found = self.own.get(path)
        standing = found if found is not None and in_force(found, self._stamp.now) else None
        is_firm = standing is not None and not is_on_suspicion(standing)
        if request.on_suspicion and is_firm:
            return False
        if standing is not None and self._holds(path, standing, request) and not request.is_new:
            return True
        order = request.order
        details: dict[str, str | None] = {"decision": request.decision}
        wanted = Lock(
            locked=True,
            scope=order.scope,
            stage=request.stage,
            reason=request.reason,
            created_ts=self._stamp.now.timestamp(),
            expires_ts=(order.until or FAR_FUTURE).timestamp(),
            details=details | {ON_SUSPICION: "yes"} if request.on_suspicion else details,
            mode=order.mode,
            generation=self._stamp.generation,
            alive_until=self._stamp.alive_until,
        )
        self.own[path] = (
            joined(standing, wanted) if standing is not None and is_firm != request.on_suspicion else wanted
        )
        return True

    def join(self, path: Path, lock: Lock) -> None:
        """Add a lock that somebody else has written, under the scope of `path`."""
        standing = self.own.get(path)
        is_held = standing is not None and path in self._files and in_force(standing, self._stamp.now)
        self.own[path] = joined(standing, lock) if standing is not None and is_held else lock

    def open(self, path: Path, scope: str, reason: str) -> None:
        """End what locks the scope itself; wider scopes go on locking it."""
        self.own[path] = opened(scope, reason, self._stamp.now, self._stamp.generation, self._stamp.alive_until)

    def watch(self, path: Path, scope: str) -> None:
        """Give the scope a file: open where there was none, a lock where something stands that is no file."""
        if path not in self.own:
            self.open(path, scope, "open")
        elif path in self._files and not self._files[path].is_regular:
            self._before.pop(path, None)

    def expire(self) -> None:
        """Open what has run out."""
        for path, lock in self.own.items():
            if lock.locked and not in_force(lock, self._stamp.now):
                self.open(path, lock.scope, "the lock has run out")

    def wanted(self, reached: Mapping[Path, Collection[Path]]) -> Iterator[tuple[Path, Lock]]:
        """What each file must say, those that lock first. `reached`: wide → narrow, where not all below is reached.

        A file that cannot be read, and that nothing has been asked of, is left out: it is a lock as it is.
        """
        found = []
        for path, own in self.own.items():
            wider = [self.own[wide] for wide in self._wider_than(path, reached) if wide in self.own]
            lock = with_wider(own, wider, self._stamp.now)
            is_untouched = lock is self._before.get(path)
            if not (is_untouched and self._files[path].problem is not None):
                found.append((path, lock))
        return iter(sorted(found, key=lambda each: (not each[1].locked, each[0])))

    def held(self, failed: Collection[Path]) -> list[Lock]:
        """Every own lock; of a file that could not be written also what it said before, which still locks."""
        return [*self.own.values(), *(self._before[path] for path in failed if path in self._before)]

    def _found(self, file: LockFile) -> Lock:
        if file.lock is not None:
            return own_of(file.lock)
        return unreadable(file, self._stamp.now, self._stamp.generation, self._stamp.alive_until)

    def _holds(self, path: Path, standing: Lock, request: LockRequest) -> bool:
        """Whether the scope is locked as strictly and as long as requested, in a file that can be read."""
        file = self._files.get(path)
        return (
            (file is None or file.problem is None)
            and (request.on_suspicion or not is_on_suspicion(standing))
            and strictest_mode((standing.mode, request.order.mode)) == standing.mode
            and standing.expires_ts >= (request.order.until or FAR_FUTURE).timestamp()
        )

    def _wider_than(self, path: Path, reached: Mapping[Path, Collection[Path]]) -> list[Path]:
        """The files whose locks this one says too. For an account that nobody knows that is the portfolio's."""
        if path in self._wider:
            return [wide for wide in self._wider[path] if wide not in reached or path in reached[wide]]
        is_part = scope_of(path).partition("/")[0] in ("account", "venue")
        return [path.with_name("portfolio.json")] if is_part else []
