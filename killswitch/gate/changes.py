"""The trading lock, the changes requested of a lock folder in one turn, and their outcome."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from killswitch.model.decision import LockMode, LockOrder
from killswitch.model.snapshot import LockPart


class LockRequest(Struct, frozen=True):
    """One decision's lock."""

    order: LockOrder
    stage: str | None
    reason: str | None
    decision: str
    on_suspicion: bool = False
    is_new: bool = True
    """Whether it is written also where the file is as strict already; else only where it is not."""
    reach: frozenset[str] | None = None
    """The narrower scopes that it locks as well; None: all below its scope."""


class LockChanges(Struct, frozen=True):
    """Every lock that must be in force, and the scopes to open."""

    requests: tuple[LockRequest, ...] = ()
    lift: frozenset[str] = frozenset()
    """Scopes to open, whichever program locked them."""
    lift_known: frozenset[str] = frozenset()
    """Scopes to open where the lock names one of the decisions in `known`."""
    watch: frozenset[str] = frozenset()
    """Scopes that have a file of their own, open while no lock is in force."""
    ordered: frozenset[str] = frozenset()
    """Further scopes whose files are written if they exist: their locks may have ended while no runner was alive."""
    known: frozenset[str] = frozenset()
    """The decisions of this store that ever ordered a lock. A lock of any other decision reaches everything below its
    scope."""
    foreign: LockRecord | None = None
    """The lock that another program has left at the path of the union."""


class LockProblem(Struct, frozen=True):
    """A problem with lock files. Its text may change while it lasts; its subject does not, and has no text in it.

    `heading`: what its text is shown under, with those of other scopes.
    """

    subject: str
    text: str
    is_warning: bool = False
    """Whether every requested lock is written nevertheless."""
    heading: str | None = None


class LockOutcome(Struct, frozen=True):
    """The outcome of one turn. Requests that it does not contain must be repeated."""

    in_file: frozenset[str] = frozenset()
    """Decisions whose lock is in its scope's file now."""
    superseded: frozenset[str] = frozenset()
    """Decisions on suspicion that another writer's lock supersedes."""
    lifted: frozenset[str] = frozenset()
    """Scopes that are open now, or not ours to open."""
    problems: tuple[LockProblem, ...] = ()
    held: tuple[LockRecord, ...] = ()
    """The locks in the scopes' files, of which the union is the sum."""
    is_complete: bool = False
    """Whether `held` has every lock, so that the union may open."""
    foreign: LockRecord | None = None
    """A lock that another program has left at the union file, for the lock folder to keep as a scope of its own."""
    open_until: Mapping[str, datetime] | None = None
    """Scope → when its file, which reads as open, goes stale and reads as locked. None if the files were not read."""


class LockError(Exception):
    """The lock folder could not be written; its former content is unchanged."""


class StaleGenerationError(LockError):
    """A newer runner has written this lock: the older one must not open it."""


class GuardError(LockError):
    """The lock folder's guard file is not available: another process holds it, or it is not a regular file."""


class UnwritableError(LockError):
    """The folder refuses new files: permissions, or a full or read-only disk."""


FAR_FUTURE = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""`expires_ts` of a lock without end: the v6 reader treats a missing one as unlocked."""

LONGEST_LIFE = 86_400.0
"""Seconds. An open file whose `alive_until` is further ahead is locked: no crash may go unnoticed for so long."""


class LockRecord(Struct, frozen=True, omit_defaults=True):
    """One lock file. Times are Unix seconds; `alive_until` in the past means locked, whatever `locked` is.

    `generation` is the lease generation of the runner that wrote it: an older writer must not overwrite a newer.
    """

    locked: bool
    scope: str
    stage: str | None
    reason: str | None
    created_ts: float
    expires_ts: float
    details: dict[str, str | None]
    mode: LockMode
    generation: int
    alive_until: float
    own: LockRecord | None = None
    """The scope's lock without the locks of wider scopes; set only while such a lock is in force."""
    only: tuple[LockPart, ...] = ()
    """The parts of the scope that are locked, of which `mode` is the strictest and `expires_ts` the latest; empty: all
    of the scope. A reader that does not know the field sees the stricter."""


class Stamp(Struct, frozen=True):
    """The time of a turn, and what it writes into every file. `alive_until` in Unix seconds."""

    now: datetime
    generation: int
    alive_until: float

    def lock(
        self,
        scope: str,
        reason: str | None,
        details: dict[str, str | None],
        *,
        until: float,
        mode: LockMode = "reduce_only",
        stage: str | None = None,
        created: float | None = None,
        locked: bool = True,
        only: tuple[LockPart, ...] = (),
    ) -> LockRecord:
        """A lock file written in this turn. `until` and `created` in Unix seconds; `created` is now without it."""
        created = self.now.timestamp() if created is None else created
        return LockRecord(
            locked, scope, stage, reason, created, until, details, mode, self.generation, self.alive_until, only=only
        )  # fmt: skip

    def opened(self, scope: str, reason: str) -> LockRecord:
        """The file of a scope that is not locked: the runner is alive, and trading is open."""
        return self.lock(scope, reason, {}, until=self.now.timestamp(), locked=False)
