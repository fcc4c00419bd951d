"""What a source proposes, what is wrong with one that proposes nothing, and the review of a candidate.

The review compares it with the set in force: its class, who approved it, and what would fire on arrival. It is made in
a process of its own (`killswitch.operations`), next to the ticks. These are the messages of both.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from killswitch.model.applied_set import Approval, ChangeClass, PolicyFile
from killswitch.model.snapshot import Instant

SourceKind = Literal["directory", "git", "config_map"]


class VerifiedCommit(Struct, frozen=True):
    """A commit whose signature was verified. `claimed`: author, committer and co-authors as written, unverified."""

    id: str
    parents: tuple[str, ...]
    signer: str
    """The principal of the key, or of the statement that replaces the signature of a merge (A9)."""
    claimed: tuple[str, ...]
    subject: str
    """The first line of its message, without control characters."""


class FirstParentStep(Struct, frozen=True):
    """A commit on the first-parent line, the digest of its policy folder, and the commits that it brought."""

    commit: str
    folder_digest: str
    commits: tuple[VerifiedCommit, ...]
    files: tuple[PolicyFile, ...] | None = None
    """The files at this step. None where they were not read: a step that changed the folder then counts as loosening,
    so that approvals step by step (A5) have to cover it."""


class Candidate(Struct, frozen=True, kw_only=True):
    """The set of files that a source proposes now, verified as far as its settings demand."""

    source: str
    kind: SourceKind
    files: tuple[PolicyFile, ...]
    folder_digest: str
    ref: str | None = None
    path: str = ""
    commit: str | None = None
    steps: tuple[FirstParentStep, ...] = ()
    """From the last good commit, which is not among them, to the proposed one, oldest first."""
    statements: tuple[bytes, ...] = ()
    """Signed statements that came with the source; not verified yet."""
    trust: bytes | None = None
    """The text of the trust file that is in force for this candidate; None: that of the runner's configuration."""
    newest_commit_at: Instant | None = None
    """The date written in the proposed commit, for the metric of its age only."""
    generation: str | None = None
    """What the link of a mount, or of a directory that is switched, leads to: the culprit where there is no author."""
    manifest_version: int | None = None
    """The version of the signed manifest of a folder, which never falls."""
    signer: str | None = None
    """The principal that signed the manifest of a folder."""
    is_protected: bool = True
    """Whether signatures were demanded; a directory or a mount without them is not protected against a loosening."""


class SourceProblem(Struct, frozen=True, kw_only=True):
    """Why a source proposes nothing. `code`: a stable code that `ksctl explain` prints a page about."""

    code: str
    text: str
    fix: str
    is_page: bool
    """A problem of signatures, trust, history, ref or shape pages; one of reading or compiling is a warning."""
    file: str | None = None
    line: int | None = None
    commit: str | None = None
    principal: str | None = None


class SourceAnswer(Struct, frozen=True, kw_only=True):
    """The result of one poll: a candidate, the same as before (`candidate` None, no problems), or problems."""

    candidate: Candidate | None = None
    problems: tuple[SourceProblem, ...] = ()
    is_in_force: bool = False
    """Whether the source proposes exactly what is in force, so that no candidate is sent."""
    progress: str | None = None
    """What a long catch-up has verified so far; it is resumed at the next poll."""


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
