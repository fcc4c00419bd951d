"""What one poll of a git source is given and what it returns: settings, limits, and what the store keeps of it.

They are the messages between the runner and the child process that polls (`git_poll`).
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.snapshot import Instant
from killswitch.source.candidate import Candidate, SourceAnswer
from killswitch.source.git_problems import GitSourceError
from killswitch.source.trust import Trust

COMMIT_ID: Final = re.compile(r"[0-9a-f]{40}")
_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
_PATH: Final = r"(?:/[A-Za-z0-9._~+%@:,=-]+)*/?"
_URL: Final = re.compile(rf"https://(?:{_HOST})(?::\d{{1,5}})?{_PATH}")
_SSH: Final = re.compile(rf"ssh://(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?(?:{_HOST})(?::\d{{1,5}})?{_PATH}")
_FILE: Final = re.compile(r"file:///[^\x00-\x1f\x7f?#]+")
_REF: Final = re.compile(r"refs/(?:heads|tags)/[A-Za-z0-9_][A-Za-z0-9._/+@-]*")
_NOT_IN_REF: Final = re.compile(r"\.\.|//|/\.|@\{|\.lock(?:/|$)|[./]$")


class GitSource(Struct, frozen=True, kw_only=True):
    """The settings of a git source. Paths on this machine are whole; secrets are in files and never in a value."""

    name: str
    """The name of the source, as in statements of approval."""
    url: str
    ref: str
    """The full name of a branch or a tag, or the id of a commit (H1)."""
    path: str
    """The folder of policies in the repository; empty: its root."""
    folder: str
    """The folder of this source on this machine, of the runner's user only; it is made where it does not exist."""
    anchor: str | None = None
    trust_path: str | None = None
    """The file in the repository with later trust (T3). None: trust changes with the configuration alone."""
    approvals_path: str | None = None
    """The folder in the repository with signed statements."""
    credentials: str | None = None
    """A file with `user:password` for https."""
    ssh_key: str | None = None
    known_hosts: str | None = None
    ca_file: str | None = None
    """The certificates of authorities for https. None: those of the system."""
    allow_file: bool = False
    """Whether `url` may be a folder of this machine."""


class GitLimits(Struct, frozen=True, kw_only=True):
    """The bounds of one poll (S5). Sizes are bytes."""

    documents: int = 2_000
    file_bytes: int = 1 << 20
    folder_bytes: int = 32 << 20
    depth: int = 8
    entries: int = 20_000
    """Names that are read in all, of files and folders."""
    commits: int = 10_000
    """New commits that one poll verifies."""
    history: int = 500_000
    """Commits whose parents one poll reads, verified or not."""
    fetched_bytes: int = 256 << 20
    clone_bytes: int = 1 << 30
    """The copy of the repository on this machine; beyond that it is fetched again."""
    seconds: float = 60.0
    fetch_seconds: float = 45.0
    object_bytes: int = 1 << 20
    """A commit or a tag; a listing of a folder may have four times as much."""
    statements: int = 500


class SeenCommit(Struct, frozen=True, array_like=True):
    """A commit whose signature was verified once (S7). `key`: the fingerprint; `seen`: the runner's clock then (T5).

    `folder`: the digest of its policy folder, empty while unknown.
    """

    id: str
    key: str
    seen: int
    folder: str = ""


class VerifiedState(Struct, frozen=True, kw_only=True):
    """What the store keeps of a git source between two polls; the clone on the disk counts for nothing (H4)."""

    last_good: str | None = None
    """The commit in force, or the anchor that an operator moved (H7). None: nothing was ever in force."""
    verified: tuple[SeenCommit, ...] = ()
    """Commits that are verified and not in force yet."""
    in_force: tuple[SeenCommit, ...] = ()
    """The commits that the set in force brought, for revocations later (T6)."""
    trust: str | None = None
    """The text of the trust file of the repository that is in force with `last_good`; None: the configuration's."""
    trust_version: int = 0
    """The highest version of trust that was in force; it never falls (T3)."""
    pins: tuple[tuple[str, str], ...] = ()
    """Tag → the id of the object that it named first (H3)."""
    newest_commit_at: Instant | None = None
    """The date in the newest commit that was read, for the metric of its age (H6)."""
    path: str | None = None
    """The folder of `last_good` that is in force; None: an earlier version of this program has not kept it."""


class GitPollRequest(Struct, frozen=True, kw_only=True):
    """One poll. `trust`: that of the configuration of the runner. `now`: the runner's clock in microseconds."""

    source: GitSource
    trust: Trust
    known: VerifiedState
    now: int
    statements: tuple[bytes, ...] = ()
    """Signed statements that reached the runner itself."""
    limits: GitLimits = GitLimits()


class GitPoll(Struct, frozen=True, kw_only=True):
    """The result of one poll: the answer, and what the store keeps from now on.

    `notes`: what an operator may want to know and what is no problem, such as the version of git.
    """

    answer: SourceAnswer
    known: VerifiedState
    notes: tuple[str, ...] = ()


def advanced(known: VerifiedState, candidate: Candidate, trust_version: int) -> VerifiedState:
    """What the store keeps once `candidate` is in force. `trust_version`: of the trust that came with it."""
    brought = {commit.id for step in candidate.steps for commit in step.commits}
    seen = tuple(each for each in known.verified if each.id in brought)
    return replace(
        known,
        last_good=candidate.commit,
        path=candidate.path,
        verified=(),
        in_force=seen or known.in_force,
        trust=known.trust if candidate.trust is None else candidate.trust.decode(),
        trust_version=max(known.trust_version, trust_version),
    )


def moved_anchor(known: VerifiedState, anchor: str) -> VerifiedState:
    """What the store keeps once an operator has moved the anchor (H7): history counts from there on."""
    return replace(known, last_good=anchor, verified=(), in_force=(), pins=())


def check_source(source: GitSource) -> str:
    """The protocol of the address. GitSourceError for an address, ref or path that git is not given."""
    protocol = _protocol(source)
    if not COMMIT_ID.fullmatch(source.ref) and (not _REF.fullmatch(source.ref) or _NOT_IN_REF.search(source.ref)):
        raise GitSourceError("KS8002", "`ref` is neither the full name of a branch or tag nor the id of a commit")
    for name, path in (("path", source.path), ("trust", source.trust_path), ("approvals", source.approvals_path)):
        if path and not is_repository_path(path):
            raise GitSourceError("KS8002", f"`{name}` is not a path in a repository")
    if source.approvals_path and _is_inside(source.approvals_path, source.path):
        raise GitSourceError("KS8002", "`approvals` is inside of `path`: an approval would change what it approves")
    if source.anchor is not None and not COMMIT_ID.fullmatch(source.anchor):
        raise GitSourceError("KS8002", "`anchor` is not the id of a commit, of 40 hexadecimal digits")
    return protocol


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path belongs to the content of a folder; a hidden one at the root of the repository does not."""
    return f"{path}/".startswith(f"{folder}/") if folder else not path.startswith(".")


def _protocol(source: GitSource) -> str:
    if _URL.fullmatch(source.url):
        return "https"
    if _SSH.fullmatch(source.url):
        return "ssh"
    if source.url.startswith("file:") and source.allow_file and _FILE.fullmatch(source.url):
        return "file"
    raise GitSourceError("KS8002", "`url` is not an address of https or ssh that git may be given")


def is_repository_path(path: str) -> bool:
    """Whether it is a relative path with ordinary names: no `.`, `..`, `.git`, leading dash or control character."""
    parts = path.split("/")
    return path.isprintable() and all(
        part not in ("", ".", "..") and part.lower() != ".git" and not part.startswith("-") for part in parts
    )
