"""The lock folder: one file per scope, and one union file for readers that know a single path.

The folder has one writer at a time, told apart by generation: the lease of the store counts it up. What locks a wide
scope is in the file of every narrower one too: a bot reads one file, and must not trade on under a portfolio's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import msgspec

from killswitch.gate.apart import require_apart
from killswitch.gate.atomic import remove_abandoned, replace_file
from killswitch.gate.changes import LockChanges, LockOutcome, LockRequest
from killswitch.gate.contents import Contents, Stamp
from killswitch.gate.errors import GuardError, LockError, StaleGenerationError
from killswitch.gate.foreign import FOREIGN_SCOPE, is_signed, signature, standing_foreign_lock
from killswitch.gate.guard import alone_in
from killswitch.gate.reading import LockFile, read_file
from killswitch.gate.strictness import scope_of, tightens, union_of
from killswitch.model.decision import LockOrder
from killswitch.model.lock import Lock


def _never() -> bool:
    return False


class LockFolder:
    """Writes, renews and lifts locks. `settle` does it all in one turn; every other method is a turn for one thing,
    which raises LockError if the disk refuses, or a newer runner has written there: its files are left alone."""

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

        `wall`: the clock that readers hold `alive_until` against. What is written and ended goes by the `now` of each
        call, which a wall clock that jumps does not move; without `wall`, both are one.

        `wider`: scope → the scopes that it is a part of. No file is touched here: that may take for ever.
        LockError if `union` is the file of a scope.
        """
        self._folder = folder.absolute()
        self._union = None if union is None else union.absolute()
        if self._union is not None:
            require_apart(self._folder, self._union)
        self._generation = generation
        self._alive_for = alive_for
        self._wider = wider or {}
        self._wall = wall
        self._is_resolved = False

    def path_of(self, scope: str) -> Path:
        """The file of `scope`: `account/main` is `account__main.json`."""
        return self._folder / ("__".join(quote(part, safe=" @:+") for part in scope.split("/")) + ".json")

    def settle(self, changes: LockChanges, now: datetime, is_late: Callable[[], bool] = _never) -> LockOutcome:
        """Bring every file to what it must say. What fails is in the outcome's problems, and stops nothing else.

        Without the guard, which somebody may hold for ever, only what locks more is written: two writers at once
        may then both lock, and neither opens. `is_late`: asked before each write, whether the caller has given up.
        """
        try:
            with ExitStack() as stack:
                self._begin(now)
                problems: list[str] = []
                try:
                    stack.enter_context(alone_in(self._folder))
                except GuardError as error:
                    problems.append(str(error))
                return self._settle(changes, now, not problems, problems, is_late)
        except OSError as error:
            words = f"the locks in {self._folder} could not be written and will be tried again: {error}"
            return LockOutcome(problems=(words,))

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
        self._require(LockChanges((LockRequest(order, stage, reason, decision, on_suspicion),)), now)
        written = read_file(self.path_of(order.scope)).lock
        if written is None:
            raise LockError(f"the lock of {order.scope} was taken away as soon as it was written")
        return written

    def lift(self, scope: str, now: datetime) -> None:
        """Open `scope`, by hand or by a reset. Nothing happens to the locks of other scopes."""
        self._require(LockChanges(lift=frozenset({scope})), now)

    def watch(self, scope: str, now: datetime) -> None:
        """Make an open file for a scope that has none, so that its readers know that a runner lives."""
        self._require(LockChanges(watch=frozenset({scope})), now)

    def renew(self, now: datetime) -> None:
        """Say that the runner lives: on every file whose life is half spent, and end the locks that have run out.

        A file that cannot be read is left as it is: it stays a lock until `lift`.
        """
        self._require(LockChanges(), now)

    def locks(self) -> tuple[LockFile, ...]:
        """Every scope's file as it stands."""
        return tuple(read_file(path) for path in sorted(self._folder.glob("*.json")) if path != self._union)

    def union_lock(self, now: datetime) -> Lock:
        """What the union file says, or would say if one were configured."""
        return self._union_of(list(self._contents(now).own.values()), now)

    def _alive_until(self, now: datetime) -> float:
        return self._wall_at(now) + self._alive_for

    def _wall_at(self, now: datetime) -> float:
        """Unix seconds of the readers' clock."""
        return (now if self._wall is None else self._wall()).timestamp()

    def _require(self, changes: LockChanges, now: datetime) -> None:
        problems = self.settle(changes, now).problems
        if problems:
            raise LockError("; ".join(problems))

    def _begin(self, now: datetime) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._is_resolved:
            return
        self._folder = self._folder.resolve()
        remove_abandoned(self._folder, self._wall_at(now))
        if self._union is not None:
            self._union = self._union.resolve()
            require_apart(self._folder, self._union)
            remove_abandoned(self._union.parent, self._wall_at(now))
        self._is_resolved = True

    def _contents(self, now: datetime) -> Contents:
        stamp = Stamp(now, self._generation, self._alive_until(now))
        wider = {self.path_of(scope): tuple(map(self.path_of, scopes)) for scope, scopes in self._wider.items()}
        return Contents(self.locks(), stamp, wider)

    def _settle(
        self, changes: LockChanges, now: datetime, guarded: bool, problems: list[str], is_late: Callable[[], bool]
    ) -> LockOutcome:
        contents = self._contents(now)
        self._take_over_foreign(contents, now)
        outcome = self._applied(changes, contents, guarded)
        failed: set[Path] = set()
        for path, lock in contents.wanted(self._reach(changes, contents)):
            standing = contents.standing(path)
            if self._is_settled(standing, lock, now) or not (guarded or tightens(standing, lock, now)):
                continue
            try:
                if is_late():
                    raise TimeoutError("the lock folder is too slow")
                self._put(path, lock, now)
            except (OSError, StaleGenerationError) as error:
                failed.add(path)
                problems.append(f"the lock of {scope_of(path)} could not be written and will be tried again: {error}")
        if self._union is not None:
            self._put_union(self._union, contents.held(failed), now, guarded, problems)
        left = {request.decision for request in changes.requests if self.path_of(request.order.scope) in failed}
        return replace(
            outcome,
            in_file=outcome.in_file - left,
            lifted=frozenset(scope for scope in outcome.lifted if self.path_of(scope) not in failed),
            problems=tuple(problems),
        )

    def _applied(self, changes: LockChanges, contents: Contents, guarded: bool) -> LockOutcome:
        """Change `contents`; the outcome if every write succeeds."""
        superseded = {
            request.decision
            for request in changes.requests
            if not contents.lock(self.path_of(request.order.scope), request)
        }
        in_file = frozenset(request.decision for request in changes.requests) - superseded
        held = {request.order.scope for request in changes.requests if request.decision in in_file}
        lifted = set()
        for scope in sorted((changes.lift | changes.lift_known) - held):
            path = self.path_of(scope)
            if scope not in changes.lift and contents.decision_of(path) not in changes.known:
                lifted.add(scope)  # not ours to open
            elif guarded:
                contents.open(path, scope, "lifted")
                lifted.add(scope)
        if guarded:
            for scope in changes.watch:
                contents.watch(self.path_of(scope), scope)
            contents.expire()
        return LockOutcome(in_file, frozenset(superseded), frozenset(lifted))

    def _reach(self, changes: LockChanges, contents: Contents) -> dict[Path, frozenset[Path]]:
        return {
            self.path_of(wide): frozenset(map(self.path_of, narrow))
            for wide, narrow in changes.reached.items()
            if contents.decision_of(self.path_of(wide)) in changes.known
        }

    def _is_settled(self, standing: Lock | None, lock: Lock, now: datetime) -> bool:
        """Whether what stands there is good for a while."""
        return (
            standing is not None
            and self._is_fresh(standing, now)
            and msgspec.structs.replace(lock, alive_until=standing.alive_until, generation=self._generation) == standing
        )

    def _is_fresh(self, lock: Lock, now: datetime) -> bool:
        """Whether enough of its life is left; one of more than a whole life was written before a clock stepped back."""
        return self._alive_for / 2 <= lock.alive_until - self._wall_at(now) <= self._alive_for

    def _put(self, path: Path, lock: Lock, now: datetime) -> None:
        """StaleGenerationError where a newer runner has written, and `lock` would not only lock more."""
        standing = read_file(path).lock
        is_newer = standing is not None and standing.generation > self._generation
        if standing is not None and is_newer and not tightens(standing, lock, now):
            raise StaleGenerationError(
                f"{path} was written in generation {standing.generation}, this runner is of {self._generation}: "
                "a newer one has taken over, or this store is younger than the lock folder; where nobody else keeps "
                "the file, remove it"
            )
        self._replace(path, lock, now)

    def _replace(self, path: Path, lock: Lock, now: datetime) -> None:
        alive_until = self._alive_until(now)
        fresh = msgspec.structs.replace(lock, generation=self._generation, alive_until=alive_until)
        replace_file(path, msgspec.json.encode(fresh))

    def _union_of(self, locks: list[Lock], now: datetime) -> Lock:
        union = union_of(locks, now, self._generation, self._alive_until(now))
        return msgspec.structs.replace(union, details={**union.details, **signature(self._folder)})

    def _put_union(self, union: Path, locks: list[Lock], now: datetime, guarded: bool, problems: list[str]) -> None:
        """Bring the union file to what the scopes' files say, where it does not say so yet."""
        wanted, standing = self._union_of(locks, now), read_file(union).lock
        if not guarded and not tightens(standing, wanted, now):
            return
        try:
            if standing is None or not is_signed(standing, self._folder):
                self._replace(union, wanted, now)  # another folder's generation does not count here
                return
            said = msgspec.structs.replace(
                wanted, created_ts=standing.created_ts,
                expires_ts=wanted.expires_ts if wanted.locked else standing.expires_ts,
            )  # fmt: skip
            if not self._is_settled(standing, said, now):
                self._put(union, wanted, now)
        except (OSError, StaleGenerationError) as error:
            problems.append(f"the lock file {union} could not be written and will be tried again: {error}")

    def _take_over_foreign(self, contents: Contents, now: datetime) -> None:
        """Keep a lock that another program left at the union path, as a scope of its own.

        Its end is by a wall clock, and nobody knows whether by one that was right: it is over when it is by both.
        """
        if self._union is None:
            return
        wall = datetime.fromtimestamp(self._wall_at(now), UTC)
        alive_until = self._alive_until(now)
        foreign = standing_foreign_lock(self._union, self._folder, min(now, wall), self._generation, alive_until)
        if foreign is not None:
            ahead = max(0.0, (now - wall).total_seconds())
            foreign = msgspec.structs.replace(foreign, expires_ts=foreign.expires_ts + ahead)
            contents.join(self.path_of(FOREIGN_SCOPE), foreign)
