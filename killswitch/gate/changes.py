"""What is asked of a lock folder in one turn, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from killswitch.model.decision import LockOrder
from killswitch.model.lock import Lock


@dataclass(frozen=True, slots=True)
class LockRequest:
    """One decision's lock."""

    order: LockOrder
    stage: str | None
    reason: str | None
    decision: str
    on_suspicion: bool = False
    is_new: bool = True
    """Whether it is written also where the file is as strict already; else only where it is not."""
    reach: frozenset[str] | None = None
    """The narrower scopes that it locks as well; None: all that are below its scope."""


@dataclass(frozen=True, slots=True)
class LockChanges:
    """Every lock that must be in force, and what is to be opened."""

    requests: tuple[LockRequest, ...] = ()
    lift: frozenset[str] = frozenset()
    """Scopes to open, whoever has locked them."""
    lift_known: frozenset[str] = frozenset()
    """Scopes to open where the lock names one of the decisions in `known`."""
    watch: frozenset[str] = frozenset()
    """Scopes that have a file of their own, open where nobody has locked them."""
    known: frozenset[str] = frozenset()
    """The decisions of this store that ever ordered a lock. A lock that none of them explains reaches everything below
    its scope."""
    foreign: Lock | None = None
    """The lock that another program has left at the path of the union."""


@dataclass(frozen=True, slots=True)
class LockProblem:
    """What is wrong at the files. The words may change while it lasts; what it is about does not."""

    subject: str
    text: str
    is_mild: bool = False
    """Whether everything that is called for is written all the same."""


@dataclass(frozen=True, slots=True)
class LockOutcome:
    """What one turn has come to. Everything that is not named here is to be asked for again."""

    in_file: frozenset[str] = frozenset()
    """Decisions whose lock is in its scope's file now."""
    superseded: frozenset[str] = frozenset()
    """Decisions on suspicion that another writer's lock stands in the way of."""
    lifted: frozenset[str] = frozenset()
    """Scopes that are open now, or not ours to open."""
    problems: tuple[LockProblem, ...] = ()
    held: tuple[Lock, ...] = ()
    """What the scopes' files say: the union is the sum of it."""
    is_whole: bool = False
    """Whether `held` is all that there is, so that the union may say that it is open."""


@dataclass(frozen=True, slots=True)
class UnionOutcome:
    """What one turn at the union file has come to."""

    foreign: Lock | None = None
    """A lock that another program has left there, for the lock folder to keep as a scope of its own."""
    problems: tuple[LockProblem, ...] = ()
