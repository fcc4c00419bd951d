"""Writes files of a lock folder: each replaced as a whole, by one writer at a time.

The guard file has mode 0600: whoever can open a file can also hold an advisory lock on it.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from killswitch.gate.changes import GuardError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_PREFIX, _SUFFIX = ".killswitch-", ".tmp"
ABANDONED = 60.0
"""Seconds after which a temporary file is one that a killed writer left."""


def replace_file(path: Path, content: bytes, *, is_private: bool = False) -> None:
    """Write `content` to a temporary file, sync it, rename it to `path`, and sync the folder; OSError if it fails.

    The temporary name cannot be guessed, so nothing that others put into the folder is opened or written through,
    and two writers do not share it. Only its owner can read it until it is complete; then the umask applies, unless it
    `is_private`.
    """
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    descriptor = os.open(temporary, _CREATE, 0o644)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 # a descriptor is no path
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fchmod(descriptor, 0o600 if is_private else mode)
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is a temporary file of a writer."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def remove_abandoned(temporary: Iterable[Path], now: float) -> None:
    """Remove temporary files of killed writers. `now` in Unix seconds."""
    for each in temporary:
        with suppress(OSError):
            if now - each.lstat().st_mtime > ABANDONED:
                each.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.platform != "win32":
    import fcntl

TRIES = 5
PAUSE = 0.01
"""Seconds between two tries. A writer that runs is done within one; one that is stopped must not block ours."""

MODE = 0o600


@contextmanager
def guarded(folder: Path, guard: str = ".guard") -> Iterator[None]:
    """Hold the lock on the folder's guard file. GuardError if that fails; OSError if the folder is not writable."""
    path = folder / guard
    if sys.platform == "win32":
        raise GuardError("lock files are written on POSIX systems only; on this one they can be read")
    descriptor = _opened(path)
    try:
        if not _is_locked(descriptor):
            raise GuardError(
                f"another process holds {path} and does not release it; `fuser -v {path}` names it. Locks are "
                "still written, but no lock is ended and no file kept alive until it is free"
            )
        yield
    finally:
        os.close(descriptor)  # which releases the lock


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, MODE)
    except PermissionError as error:
        raise GuardError(f"{path} cannot be opened: it belongs to another user; remove it") from error
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise GuardError(f"{path} is not a regular file: remove it") from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise GuardError(f"{path} is not a regular file: remove it")
    if stat.S_IMODE(found.st_mode) != MODE:
        with suppress(OSError):  # one of an earlier version, which any reader could hold
            os.fchmod(descriptor, MODE)
    return descriptor


def _is_locked(descriptor: int) -> bool:
    for turn in range(TRIES):
        if turn:
            time.sleep(PAUSE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:  # a network file system without a lock service
            raise GuardError(f"the guard of the lock folder cannot be locked: {error.strerror}") from error
        return True
    return False
