"""Anchors in git: each is a signed commit on the one before, pushed to a branch that only grows.

A protected branch shows one public sequence: two histories are a fork, which a push without force cannot make. It does
not show the time.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from killswitch.audit.anchor_settings import GitAnchors
from killswitch.audit.log_files import AuditError
from killswitch.record.anchors import Anchor, FetchedAnchor, anchor_text, read_anchors
from killswitch.source.limited_process import LimitedProcessError, ProcessLimits, run_limited

PATH: Final = "/usr/local/bin:/usr/bin:/bin"
FILE: Final = "anchors"
"""The file of each commit: the anchors of all chains, as four lines each."""
_LIMITS: Final = ProcessLimits(seconds=60.0)
_BRANCH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_SSH_ALONE: Final = ("gpg.program=false", "gpg.x509.program=false")
"""Signatures of other kinds are not judged: keys that this machine trusts for them are none of `allowed_signers`."""
_NOT_READ: Final = "and the repository exists."
"""The end of what git says of a repository that it does not read, also where it is there."""
_IDENTITY: Final = "Killswitch anchor <anchor@killswitch.invalid>"


class _Git(Struct, frozen=True):
    """git in a folder, with a configuration and an environment of its own."""

    folder: Path
    ssh: str = "false"

    def run(self, *arguments: str, stdin: bytes = b"", settings: Sequence[str] = ()) -> bytes:
        """The output of a command. AuditError with its last line of errors."""
        fixed = ("core.hooksPath=/dev/null", "protocol.ext.allow=never", "gc.auto=0", "credential.helper=")
        options = [part for each in (*fixed, *settings) for part in ("-c", each)]
        name, _, mail = _IDENTITY.partition(" <")
        environment = {
            "PATH": PATH, "HOME": str(self.folder), "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": self.ssh,
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": mail.rstrip(">"),
            "GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": mail.rstrip(">"),
        }  # fmt: skip
        try:
            return run_limited(["git", "-C", str(self.folder), *options, *arguments], stdin, _LIMITS, environment)
        except LimitedProcessError as error:
            raise AuditError(f"git {arguments[0]} in {self.folder}: {error}") from error


def publish_commit(settings: GitAnchors, folder: Path, anchors: Sequence[Anchor]) -> str:
    """Push a signed commit with these anchors; returns its id. Raises AuditError where that fails.

    `folder`: the working copy, which is made where there is none. The commit follows the newest one of the branch.
    """
    if not _BRANCH.fullmatch(settings.branch) or ".." in settings.branch:
        raise AuditError(f"{settings.branch!r} is not the name of a branch")
    folder.mkdir(parents=True, exist_ok=True)
    git = _Git(folder, _ssh_command(settings))
    if not (folder / "HEAD").exists():
        git.run("init", "--quiet", "--bare", ".")
    head = f"refs/heads/{settings.branch}"
    listed = git.run("ls-remote", "--", settings.remote, head).decode()
    parent = listed.split("\t")[0] if listed else None
    if parent is not None:
        git.run("fetch", "--quiet", "--no-tags", "--", settings.remote, f"+{head}:refs/killswitch/newest")
    text = "".join(map(anchor_text, sorted(anchors))).encode()
    blob = git.run("hash-object", "-w", "--stdin", stdin=text).decode().strip()
    tree = git.run("mktree", stdin=f"100644 blob {blob}\t{FILE}\n".encode()).decode().strip()
    subject = ", ".join(f"{each.chain[:8]} {each.number}" for each in sorted(anchors))
    signing = ("gpg.format=ssh", f"user.signingKey={settings.key}")
    parents = () if parent is None else ("-p", parent)
    made = git.run("commit-tree", "-S", *parents, "-m", f"Anchor {subject}", tree, settings=signing).decode().strip()
    git.run("push", "--quiet", "--", settings.remote, f"{made}:{head}")
    return made


def _ssh_command(settings: GitAnchors) -> str:
    if settings.ssh_key is None:
        return "false"
    known = settings.known_hosts or "/dev/null"
    options = ("BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "IdentitiesOnly=yes")
    return shlex.join(["ssh", "-F", "none", "-i", settings.ssh_key, *(part for it in options for part in ("-o", it))])


def anchors_in_clone(clone: Path, branch: str, allowed_signers: Path | None) -> tuple[FetchedAnchor, ...]:
    """The anchors in the commits of a branch, the oldest first. Raises AuditError where it cannot be read.

    An anchor is refused where its commit has no signature of a key in `allowed_signers`, a file in the form of
    ssh-keygen: whoever can write the record could have written the commit.

    The clone may come from whoever wrote the record. Its branch is fetched into a repository of our own, where every
    object has the content that its id says, and neither settings, keys nor replacements of the clone count.
    """
    if not _BRANCH.fullmatch(branch):
        raise AuditError(f"{branch!r} is not the name of a branch")
    with TemporaryDirectory(prefix="ksctl-") as folder:
        git = _Git(Path(folder))
        git.run("init", "--quiet", "--bare", ".")
        given = ("fetch", "--quiet", "--no-tags", "--update-shallow", "--", str(clone.absolute()))
        try:
            git.run(*given, f"{branch}:refs/heads/anchors", settings=("fetch.fsckObjects=true",))
        except AuditError as error:
            why = (_of_another(clone) if str(error).endswith(_NOT_READ) else None) or str(error)
            raise AuditError(f"the branch {branch} of {clone} cannot be read: {why}") from error
        return tuple(_anchors_of(git, clone, allowed_signers))


def _of_another(clone: Path) -> str | None:
    """That git reads no repository of another user, such as one on a foreign disk; its own way out is a setting."""
    with suppress(OSError):
        folders = (each for each in (clone, clone / ".git") if each.exists())
        if hasattr(os, "geteuid") and any(each.stat().st_uid != os.geteuid() for each in folders):
            return (
                f"it belongs to another user, whose repositories git does not read: copy it first (`cp -r {clone} .`)"
            )
    return None


def _anchors_of(git: _Git, clone: Path, allowed_signers: Path | None) -> Iterator[FetchedAnchor]:
    """The anchors in the commits that were fetched from a clone, the oldest first."""
    listed = git.run("log", "--reverse", "--first-parent", "--format=%H %cI", "refs/heads/anchors", "--").decode()
    for line in listed.splitlines():
        commit, _, at = line.partition(" ")
        refused = _refusal(git, commit, allowed_signers)
        try:
            anchors = read_anchors(git.run("cat-file", "blob", f"{commit}:{FILE}").decode("ascii"))
        except ValueError as error:
            raise AuditError(f"the commit {commit} of {clone} has no anchors: {error}") from error
        yield from (FetchedAnchor(each, f"{clone} {commit[:12]}", at, refused, commit) for each in anchors)


def _refusal(git: _Git, commit: str, allowed_signers: Path | None) -> str | None:
    """Why the signature of a commit does not count; None where it does."""
    if allowed_signers is None:
        return "no allowed signers are named: whoever can write the record could have written this commit"
    trusted = (f"gpg.ssh.allowedSignersFile={allowed_signers.absolute()}", *_SSH_ALONE)
    try:
        git.run("verify-commit", commit, settings=trusted)
    except AuditError:
        return f"no key of {allowed_signers} has signed the commit"
    return None
