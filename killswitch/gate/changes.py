"""What is asked of a lock folder in one turn, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from killswitch.model.decision import LockOrder


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
    """The decisions of this store that ever ordered a lock."""
    reached: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Wider scope → the narrower ones that its policies' locks reach. A lock that is not of `known`, or on a scope
    that is not named here, reaches everything below it."""


@dataclass(frozen=True, slots=True)
class LockOutcome:
    """What one turn has come to. Everything that is not named here is to be asked for again."""

    in_file: frozenset[str] = frozenset()
    """Decisions whose lock is in its scope's file now."""
    superseded: frozenset[str] = frozenset()
    """Decisions on suspicion that another lock stands in the way of."""
    lifted: frozenset[str] = frozenset()
    """Scopes that are open now, or not ours to open."""
    problems: tuple[str, ...] = ()
