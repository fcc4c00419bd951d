"""The lock folder: one file per scope, and one union file for readers that know a single path.

The folder has one writer at a time, told apart by generation: the lease of the store counts it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from killswitch.gate.apart import require_apart
from killswitch.gate.atomic import replace_file
from killswitch.gate.errors import LockError, StaleGenerationError
from killswitch.gate.foreign import is_signed, signature, standing_foreign_lock
from killswitch.gate.guard import alone_in
from killswitch.gate.reading import LockFile, read_file
from killswitch.gate.strictness import (
    ON_SUSPICION,
    in_force,
    is_on_suspicion,
    joined,
    opened,
    strictest_mode,
    union_of,
    unreadable,
)
from killswitch.model.decision import LockOrder
from killswitch.model.lock import FAR_FUTURE, Lock


class LockFolder:
    """Writes, renews and lifts locks. Every method that writes raises LockError if the disk refuses,
    and StaleGenerationError if a newer runner has written there."""

    def __init__(
        self,
        folder: Path,
        union: Path | None,
        *,
        generation: int,
        alive_for: float,
        wall: Callable[[], datetime] | None = None,
    ) -> None:
        """`alive_for` in seconds: how long after the last renewal a file still counts as kept alive.

        `wall`: the clock that readers hold `alive_until` against. What is written and ended goes by the `now` of each
        call, which a wall clock that jumps does not move; without `wall`, both are one.

        LockError if `union` is the file of a scope.
        """
        self._folder = folder.resolve()
        self._union = None if union is None else union.resolve()
        if self._union is not None:
            require_apart(self._folder, self._union)
        self._generation = generation
        self._alive_for = alive_for
        self._wall = wall

    def path_of(self, scope: str) -> Path:
        """The file of `scope`: `account/main` is `account__main.json`."""
        return self._folder / ("__".join(quote(part, safe=" @:+") for part in scope.split("/")) + ".json")

    def write(
        self,
        order: LockOrder,
        stage: str | None,
        reason: str | None,
        decision: str,
        now: datetime,
        *,
        on_suspicion: bool = False,
    ) -> Lock:
        """Lock `order.scope`; a stricter or longer lock that stands there stays as strict and as long.

        A lock on suspicion and another one are never joined: the other one is kept, or takes its place, as it is.
        """
        wanted = Lock(
            locked=True,
            scope=order.scope,
            stage=stage,
            reason=reason,
            created_ts=now.timestamp(),
            expires_ts=(order.until or FAR_FUTURE).timestamp(),
            details={"decision": decision, ON_SUSPICION: "yes"} if on_suspicion else {"decision": decision},
            mode=order.mode,
            generation=self._generation,
            alive_until=self._alive_until(now),
        )
        with self._guarded(now):
            standing = self._as_lock(read_file(self.path_of(order.scope)), now)
            if standing is not None and in_force(standing, now):
                if on_suspicion and not is_on_suspicion(standing):
                    return standing
                if on_suspicion or not is_on_suspicion(standing):
                    wanted = joined(standing, wanted)
            self._put(self.path_of(order.scope), wanted)
        return wanted

    def lift(self, scope: str, now: datetime) -> None:
        """Open `scope`, by hand or by a reset. Nothing happens to the locks of other scopes."""
        with self._guarded(now):
            lifted = opened(scope, "lifted", now, self._generation, self._alive_until(now))
            self._put(self.path_of(scope), lifted)

    def holds(self, order: LockOrder, now: datetime, *, on_suspicion: bool = False) -> bool:
        """Whether the scope's file says so already: locked, at least as strictly, at least as long."""
        standing = read_file(self.path_of(order.scope)).lock
        return (
            standing is not None
            and in_force(standing, now)
            and (on_suspicion or not is_on_suspicion(standing))
            and strictest_mode((standing.mode, order.mode)) == standing.mode
            and standing.expires_ts >= (order.until or FAR_FUTURE).timestamp()
        )

    def has_other_lock(self, scope: str, now: datetime) -> bool:
        """Whether a lock other than one on suspicion is in force on `scope`; a file that cannot be read is one."""
        lock = self._as_lock(read_file(self.path_of(scope)), now)
        return lock is not None and in_force(lock, now) and not is_on_suspicion(lock)

    def decision_of(self, scope: str) -> str | None:
        """The decision that locked `scope`; None where it is not locked, or its file cannot be read."""
        standing = read_file(self.path_of(scope)).lock
        return standing.details.get("decision") if standing is not None and standing.locked else None

    def watch(self, scope: str, now: datetime) -> None:
        """Make an open file for a scope that has none, so that its readers know that a runner lives."""
        if not self.path_of(scope).exists():
            self.lift(scope, now)

    def renew(self, now: datetime) -> None:
        """Say that the runner lives: on every file whose life is half spent, and end the locks that have run out.

        A file that cannot be read is left as it is: it stays a lock until `lift`.
        """
        with self._guarded(now):
            for file in self.locks():
                if file.lock is not None and (fresh := self._renewed(file.lock, now)) is not None:
                    self._put(file.path, fresh)

    def locks(self) -> tuple[LockFile, ...]:
        """Every scope's file as it stands."""
        return tuple(read_file(path) for path in sorted(self._folder.glob("*.json")) if path != self._union)

    def union_lock(self, now: datetime) -> Lock:
        """What the union file says, or would say if one were configured."""
        locks = [lock for file in self.locks() if (lock := self._as_lock(file, now)) is not None]
        union = union_of(locks, now, self._generation, self._alive_until(now))
        return msgspec.structs.replace(union, details={**union.details, **signature(self._folder)})

    def _alive_until(self, now: datetime) -> float:
        return self._wall_at(now) + self._alive_for

    def _wall_at(self, now: datetime) -> float:
        """Unix seconds of the readers' clock."""
        return (now if self._wall is None else self._wall()).timestamp()

    def _as_lock(self, file: LockFile, now: datetime) -> Lock | None:
        if file.problem is not None:
            return unreadable(file, now, self._generation, self._alive_until(now))
        return file.lock

    def _renewed(self, lock: Lock, now: datetime) -> Lock | None:
        """The lock as it must be written now; None while what stands there is good for a while."""
        if lock.locked and not in_force(lock, now):
            return opened(lock.scope, "the lock has run out", now, self._generation, self._alive_until(now))
        if lock.generation == self._generation and self._is_fresh(lock, now):
            return None
        self._require_not_newer(lock)
        return msgspec.structs.replace(lock, generation=self._generation, alive_until=self._alive_until(now))

    def _is_fresh(self, lock: Lock, now: datetime) -> bool:
        """Whether enough of its life is left; one of more than a whole life was written before a clock stepped back."""
        return self._alive_for / 2 <= lock.alive_until - self._wall_at(now) <= self._alive_for

    def _require_not_newer(self, lock: Lock) -> None:
        if lock.generation > self._generation:
            raise StaleGenerationError(
                f"the lock of {lock.scope} was written in generation {lock.generation}, this runner is of "
                f"{self._generation}: a newer one has taken over, or this store is younger than the lock folder"
            )

    def _put(self, path: Path, lock: Lock) -> None:
        standing = read_file(path).lock
        if standing is not None:
            self._require_not_newer(standing)
        replace_file(path, msgspec.json.encode(lock))

    def _put_union(self, union: Path, now: datetime) -> None:
        """Bring the union file to what the scopes' files say, where it does not say so yet."""
        wanted = self.union_lock(now)
        standing = read_file(union).lock
        if standing is None or not is_signed(standing, self._folder):
            replace_file(union, msgspec.json.encode(wanted))  # another folder's generation does not count here
            return
        if self._is_fresh(standing, now):
            said = msgspec.structs.replace(
                wanted, alive_until=standing.alive_until, created_ts=standing.created_ts,
                expires_ts=wanted.expires_ts if wanted.locked else standing.expires_ts,
            )  # fmt: skip
            if said == standing:
                return
        self._put(union, wanted)

    @contextmanager
    def _guarded(self, now: datetime) -> Iterator[None]:
        """One writer at a time in this folder; the union follows what was written, in the same turn."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with alone_in(self._folder):
                self._take_over_foreign(now)
                yield
                if self._union is not None:
                    self._put_union(self._union, now)
        except OSError as error:
            raise LockError(f"the lock could not be written: {error}") from error

    def _take_over_foreign(self, now: datetime) -> None:
        """Keep a lock that another program left at the union path, as a scope of its own."""
        if self._union is None:
            return
        foreign = standing_foreign_lock(self._union, self._folder, now, self._generation, self._alive_until(now))
        if foreign is not None:
            known = read_file(self.path_of(foreign.scope)).lock
            joint = joined(known, foreign) if known is not None and in_force(known, now) else foreign
            self._put(self.path_of(foreign.scope), joint)
