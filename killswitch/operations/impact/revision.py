"""Policy files of a git revision, read from its objects: nothing is checked out, and nothing of the repository is run.

git gets an environment made from nothing and an explicit repository. Only `rev-parse`, `rev-list`, `ls-tree` and
`cat-file` are called, which run no hook, filter, attribute, pager, file system monitor or credential helper; a missing
object is an error, because every transport is forbidden.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from killswitch.model.applied_set import PolicyFile
from killswitch.model.legible import legible, one_line

WITHIN = 60.0
"""Seconds of one call of git."""
MOST_FILES, LARGEST_FILE, LARGEST_SET = 2_000, 1 << 20, 32 << 20
"""Bounds of what is read: files, bytes of one, bytes of all."""
MOST_CHANGES = 10_000
"""Bound of the commits of a history."""
_LARGEST_LISTING = 1 << 20
_FILE_MODES = ("100644", "100755")
_NOTHING = "/dev/null"
_SETTINGS = (
    "core.fsmonitor=false", f"core.hooksPath={_NOTHING}", f"core.attributesFile={_NOTHING}", "core.pager=cat",
    "protocol.allow=never", "safe.bareRepository=explicit", "core.quotePath=true",
)  # fmt: skip


class GitRevisionError(Exception):
    """The files of a revision cannot be read; the message says why, and what to do."""


class SkippedEntry(Struct, frozen=True):
    """An entry below the path that is not read. `why`: a link, a submodule."""

    path: str
    why: str


class CommittedChange(Struct, frozen=True):
    """A commit as it states itself. `at`: seconds since 1970, of the committer.

    `has_signature`: whether it carries one, which nobody has verified here.
    """

    id: str
    author: str
    committer: str
    at: int
    has_signature: bool


class RevisionFiles(Struct, frozen=True):
    """The files of a path at one commit; `path` of each is relative to the root of the repository."""

    commit: str
    files: tuple[PolicyFile, ...]
    skipped: tuple[SkippedEntry, ...] = ()


class PolicyRepository:
    """The git repository that holds a path. Read only."""

    def __init__(self, path: Path) -> None:
        """GitRevisionError if the path is in no repository."""
        start = Path(os.path.abspath(path))  # noqa: PTH100 - without following links, as the path is written
        found = next((each for each in (start, *start.parents) if (each / ".git").exists()), None)
        if found is None:
            raise GitRevisionError(f"{path} is in no git repository: name a folder instead of a revision")
        self.root = found

    def relative(self, path: Path) -> str:
        """The path from the root of the repository, with slashes; empty for the root."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - without following links, as the path is written
        try:
            found = absolute.relative_to(self.root).as_posix()
        except ValueError:
            raise GitRevisionError(
                f"{path} is not in the repository {self.root}: name paths of one repository"
            ) from None
        return "" if found == "." else found

    def commit(self, revision: str) -> str:
        """The full id of the commit that a revision names. GitRevisionError if it names none."""
        if not revision or revision.startswith("-") or not revision.isprintable():
            raise GitRevisionError(f"{one_line(revision)!r} is no revision: name a branch, a tag or a commit id")
        wanted = f"{revision}^{{commit}}"
        found = self._git("rev-parse", "--verify", "--end-of-options", wanted, what=f"the revision {revision}")
        return found.decode("ascii", "replace").strip()

    def files(self, revision: str, paths: Sequence[Path]) -> RevisionFiles:
        """The regular files at or below the paths at a revision. GitRevisionError for more than the bounds allow."""
        commit = self.commit(revision)
        wanted = [self.relative(path) for path in paths]
        entries = list(self._entries(commit, wanted))
        files = [entry for entry in entries if entry.mode in _FILE_MODES]
        large = next((entry for entry in files if entry.size > LARGEST_FILE), None)
        if large is not None:
            raise GitRevisionError(f"{one_line(large.path)} at {revision} is larger than {LARGEST_FILE >> 20} MiB")
        if sum(entry.size for entry in files) > LARGEST_SET:
            raise GitRevisionError(f"the files at {revision} are larger than {LARGEST_SET >> 20} MiB together")
        read = self._contents([entry.id for entry in files], revision)
        skipped = (SkippedEntry(each.path, _why_skipped(each.mode)) for each in entries if each not in files)
        policy_files = (PolicyFile(each.path, content) for each, content in zip(files, read, strict=True))
        return RevisionFiles(commit, tuple(policy_files), tuple(skipped))

    def changes(self, revision: str, paths: Sequence[Path]) -> tuple[CommittedChange, ...]:
        """The commits on the first-parent line of a revision that changed anything at the paths, the newest first.

        GitRevisionError if there are more than `MOST_CHANGES`. Names and times are what the commits state.
        """
        commit, wanted = self.commit(revision), [each for each in map(self.relative, paths) if each]
        limits = ("--first-parent", f"--max-count={MOST_CHANGES + 1}")
        what = f"the history of {revision}"
        ids = self._git("rev-list", *limits, commit, "--", *wanted, what=what).decode("ascii", "replace").split()
        if len(ids) > MOST_CHANGES:
            raise GitRevisionError(f"more than {MOST_CHANGES:,} commits changed the policies: name a narrower path")
        return tuple(_change(id_, self._git("cat-file", "commit", id_, what=f"the commit {id_[:12]}")) for id_ in ids)

    def is_committed(self, commit: str, paths: Sequence[Path]) -> bool:
        """Whether the YAML files at the paths on disk are those of the commit, byte for byte, and no other ones."""
        entries = {each.path: each.id for each in self._entries(commit, [self.relative(path) for path in paths])}
        wanted = {path: id_ for path, id_ in entries.items() if path.endswith((".yaml", ".yml"))}
        found: dict[str, str] = {}
        for path in paths:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.suffix in (".yaml", ".yml") and file.is_file() and not file.is_symlink():
                    content = file.read_bytes()
                    object_ = b"blob %d\0%b" % (len(content), content)
                    found[self.relative(file)] = sha1(object_, usedforsecurity=False).hexdigest()
        return wanted == found

    def _entries(self, commit: str, paths: Sequence[str]) -> Iterator[_TreeEntry]:
        """All entries below the paths at a commit; the listing is bounded while it is read."""
        command = self._command(
            "ls-tree", "-r", "-z", "-l", "--full-tree", commit, "--", *(each for each in paths if each)
        )
        with TemporaryDirectory() as home, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            env=_environment(home),
        ) as listing:  # fmt: skip
            assert listing.stdout is not None and listing.stderr is not None  # both are pipes
            read = listing.stdout.read(_LARGEST_LISTING + 1)
            if len(read) > _LARGEST_LISTING:
                listing.kill()
                raise GitRevisionError(f"the tree of {commit[:12]} has more entries than a policy folder can have")
            problem = listing.stderr.read(4096)
            if listing.wait(WITHIN):
                raise GitRevisionError(_message(f"the tree of {commit[:12]}", problem))
        records = [each for each in read.split(b"\0") if each]
        if len(records) > MOST_FILES:
            raise GitRevisionError(f"there are more than {MOST_FILES:,} files at {commit[:12]}")
        for record in records:
            head, _, path = record.partition(b"\t")
            mode, _, id_, size = head.split()
            yield _TreeEntry(mode.decode(), id_.decode(), int(size) if size.isdigit() else 0, _readable_path(path))

    def _contents(self, ids: Sequence[str], revision: str) -> list[bytes]:
        """The content of each blob."""
        if not ids:
            return []
        answer = self._git("cat-file", "--batch", what=f"the files at {revision}", given="".join(f"{i}\n" for i in ids))
        found, at = [], 0
        for id_ in ids:
            end = answer.index(b"\n", at)
            head = answer[at:end].split()
            if len(head) != 3 or head[1] != b"blob":
                raise GitRevisionError(f"object {id_[:12]} of {revision} is missing: is the clone shallow or partial?")
            size = int(head[2])
            found.append(answer[end + 1 : end + 1 + size])
            at = end + 2 + size
        return found

    def _git(self, *arguments: str, what: str, given: str = "") -> bytes:
        """The output of git. GitRevisionError if it fails or takes too long."""
        with TemporaryDirectory() as home:
            try:
                done = subprocess.run(
                    self._command(*arguments), input=given.encode(), capture_output=True, timeout=WITHIN, check=False,
                    cwd="/", env=_environment(home),
                )  # fmt: skip
            except FileNotFoundError:
                raise GitRevisionError(f"{one_line(what)} needs git, which is not installed") from None
            except (OSError, subprocess.SubprocessError) as error:
                raise GitRevisionError(_message(what, str(error).encode())) from error
        if done.returncode:
            raise GitRevisionError(_message(what, done.stderr))
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        return [
            "git",
            "--literal-pathspecs",
            "--no-replace-objects",
            f"--git-dir={self.root / '.git'}",
            *settings,
            *arguments,
        ]


class _TreeEntry(Struct, frozen=True):
    mode: str
    id: str
    size: int
    path: str


def _change(id_: str, content: bytes) -> CommittedChange:
    """A commit by its raw object. GitRevisionError for one that has no committer with a time."""
    head = content.partition(b"\n\n")[0].decode("utf-8", "backslashreplace")
    fields: dict[str, str] = {}
    for line in head.split("\n"):
        key, _, value = line.partition(" ")
        if key and not line.startswith(" "):
            fields.setdefault(key, value)
    committer, _, at = fields.get("committer", "").rpartition("> ")
    seconds = at.split(" ")[0]
    if not seconds.isdigit():
        raise GitRevisionError(f"the commit {id_[:12]} states no time")
    author = fields.get("author", "").rpartition("> ")[0]
    signed = "gpgsig" in fields or "gpgsig-sha256" in fields
    return CommittedChange(
        id_, one_line(legible(f"{author}>")), one_line(legible(f"{committer}>")), int(seconds), signed
    )


def _why_skipped(mode: str) -> str:
    return {"120000": "a symbolic link", "160000": "a submodule"}.get(mode, f"an entry of mode {mode}")


def _readable_path(path: bytes) -> str:
    """GitRevisionError for a path that leaves the folder or that no person can read."""
    text = path.decode("utf-8", "backslashreplace")
    if not text.isprintable() or text.startswith("/") or ".." in text.split("/"):
        raise GitRevisionError(f"a path of the tree has characters that are not allowed: {one_line(text)}")
    return text


def _environment(home: str) -> dict[str, str]:
    """An environment without any configuration but the repository's own, and without every transport."""
    return {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": home, "XDG_CONFIG_HOME": home, "GNUPGHOME": home,
        "LC_ALL": "C", "TZ": "UTC", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": _NOTHING,
        "GIT_CONFIG_SYSTEM": _NOTHING, "GIT_ATTR_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "",
        "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "none", "GIT_PAGER": "cat", "GIT_EDITOR": "false", "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_GRAFT_FILE": _NOTHING,
    }  # fmt: skip


def _message(what: str, problem: bytes) -> str:
    lines = problem.decode(errors="replace").strip().splitlines()
    reason = one_line(lines[-1].removeprefix("fatal: "))[:200] if lines else "git failed without a message"
    return f"cannot read {one_line(what)} ({reason})"
