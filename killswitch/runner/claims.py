"""Claims of a run: the armed accounts and the lock folder on which no other run of this machine may act.

The lease excludes a second runner on one store. A claim excludes one with another store: a file that its holder locks
for as long as its process lives, so that no dead process holds one.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from killswitch.model.words import Severity
from killswitch.runner.lease import process_text

if sys.platform != "win32":
    import fcntl

RUN_DIR = "KSCTL_RUN_DIR"
"""The environment variable with the folder of the claims of accounts."""
IN_LOCK_FOLDER = ".runner"
_MOST = 4096


class ClaimHolder(Struct, frozen=True):
    """The process that holds a claim, or held it last, and its store."""

    owner: str
    store: str


class AnotherRunnerError(Exception):
    """A living run with another store holds a claim; the message names it and the way out."""


class RunClaims:
    """The claims of this process, held until the end of the block."""

    def __init__(self, holder: ClaimHolder) -> None:
        self._holder = holder
        self._held: list[int] = []

    def __enter__(self) -> RunClaims:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        for descriptor in self._held:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)  # a clean end leaves nothing to warn of
            os.close(descriptor)
        self._held.clear()

    def take(self, claims: Mapping[str, Path], *, is_forced: bool) -> tuple[tuple[Severity, str], ...]:
        """Take `claims`: what is claimed → its file; return a warning for each that a dead run has left.

        AnotherRunnerError if a living run with another store holds one, unless `is_forced`; then that is a warning too.
        """
        found: list[tuple[Severity, str]] = []
        for what, path in claims.items():
            try:
                descriptor, before = _opened(path)
            except OSError as error:
                why = f"whether another runner acts on {what} is unknown: {path}: {error.strerror or error}"
                found.append(("warning", why))
                continue
            is_ours = before is not None and before.store == self._holder.store
            if not _is_locked(descriptor):
                os.close(descriptor)
                if is_ours:
                    continue  # the lease of the store decides
                text = f"another runner lives and acts on {what}: {_name(before)}"
                if not is_forced:
                    raise AnotherRunnerError(
                        f"{text}. Two runners on one book may sell twice what it holds: stop that one (SIGTERM), or "
                        "start with --another-runner"
                    )
                found.append(("page", f"{text}; this run was started with --another-runner"))
                continue
            self._held.append(descriptor)
            if before is not None and not is_ours:
                found.append(("page", _left_text(what, before)))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(self._holder), 0)
        return tuple(found)


def account_claim(identity: str) -> Path:
    """The file of the claim of an account, by the digest of its identity at the venue."""
    named = os.environ.get(RUN_DIR)
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"killswitch-{os.getuid()}"
    return folder / f"{identity}.run"


def _opened(path: Path) -> tuple[int, ClaimHolder | None]:
    """The file of a claim, and who holds it or held it last. OSError for a folder that others may write."""
    if path.name != IN_LOCK_FOLDER:  # that folder exists, and its owner decides who may write there
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = path.parent.lstat()
        if stat.S_ISLNK(folder.st_mode) or folder.st_uid != os.getuid():
            raise OSError(f"{path.parent} belongs to another user")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        return descriptor, msgspec.json.decode(os.pread(descriptor, _MOST, 0), type=ClaimHolder)
    except msgspec.DecodeError:
        return descriptor, None  # new, or left by a clean end
    except OSError:
        os.close(descriptor)
        raise


def _is_locked(descriptor: int) -> bool:
    """Whether this process holds the lock now; True where the file system has no locks, and nothing can be known."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _name(holder: ClaimHolder | None) -> str:
    return (
        "its name is not known yet"
        if holder is None
        else f"{process_text(holder.owner)}, with the store {holder.store}"
    )


def _left_text(what: str, before: ClaimHolder) -> str:
    return (
        f"a run with another store acted on {what} and ended without a stop: {_name(before)}. Its closes and latches "
        "are not known here, and its locks go stale, which bots read as locked: look at `ksctl status` of that store"
    )
