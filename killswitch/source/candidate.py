"""What a source proposes, and what is wrong with a source that proposes nothing."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from killswitch.model.applied_set import PolicyFile
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
