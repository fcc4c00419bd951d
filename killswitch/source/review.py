"""The review of a candidate against the set in force: its class, who approved it, and what would fire on arrival.

It is made in a process of its own (`killswitch.operations`), next to the ticks; these are its messages.
"""

from __future__ import annotations

from msgspec import Struct

from killswitch.model.applied_set import Approval, ChangeClass, PolicyFile
from killswitch.source.candidate import Candidate, SourceProblem


class ReviewRequest(Struct, frozen=True, kw_only=True):
    """What is compared. `base`: the files of the set in force. `trust`: the text of the trust file of the base."""

    base: tuple[PolicyFile, ...]
    base_digest: str
    """The policy digest of the set in force."""
    candidate: Candidate
    trust: bytes | None
    statements: tuple[bytes, ...] = ()
    """Signed statements that reached the runner itself, besides those of the candidate."""
    spent: tuple[str, ...] = ()
    """Ids of approvals that were spent before (A6)."""
    snapshot: bytes | None = None
    """The last snapshot of the runner, encoded; None before the first tick."""
    states: tuple[tuple[str, str, bytes], ...] = ()
    """Policy, scope and stored state of every stage machine."""
    seconds: float = 120.0
    """The time limit of the proof (A1)."""
    now: int = 0
    """The runner's clock, in microseconds."""
    store: str | None = None
    """The runner's store, which the review opens read-only, for the history and the states of what fires on arrival.
    None: only `states`, so that windows are partly known."""
    variant: str | None = None
    """The variant that the run selects in every policy that declares it."""


class ArrivalFiring(Struct, frozen=True):
    """A stage that would fire at the first tick of the new set and not of the old one, and what it would close."""

    policy: str
    scope: str
    stage: str
    text: str


class Review(Struct, frozen=True, kw_only=True):
    """The result. It says what is; `killswitch.source.sync` decides what follows from it."""

    policy_digest: str | None = None
    """None if the candidate does not compile."""
    verdict: ChangeClass = "UNDECIDED"
    why: tuple[str, ...] = ()
    """The changes, and why a verdict is not TIGHTENING or EQUIVALENT; no longer loaded documents first."""
    problems: tuple[SourceProblem, ...] = ()
    """Mistakes in the files (W5: with file, line, commit and signer), and refusals that no approval lifts (R6)."""
    approvals_needed: int = 0
    """0 for TIGHTENING and EQUIVALENT; else at least 1, also where no trust set says how many."""
    approvals: tuple[Approval, ...] = ()
    """Those that count for this change, which is approved if they are at least `approvals_needed`. They are spent by
    it (A6)."""
    not_counted: tuple[str, ...] = ()
    """Why other statements do not count, in a sentence each."""
    arrival: tuple[ArrivalFiring, ...] = ()
    arrival_approvals: tuple[Approval, ...] = ()
    """Those of persons who are not among the authors, for what fires on arrival (A8)."""
    held_by_close: tuple[str, ...] = ()
    """Pending closes that the reload would drop, so that it waits for their end (R7)."""
    needs_start: tuple[str, ...] = ()
    """What only a start reads: accounts, adapters, credentials, arming (P5)."""
    preview: tuple[str, ...] = ()
    """What the reload does to each stage in force, lock and clock (R10)."""
