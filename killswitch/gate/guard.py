"""One writer at a time in a lock folder: the guard is tried for, and never waited for.

It is the owner's alone (mode 0600): whoever can open a file can also hold an advisory lock on it.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from killswitch.gate.errors import GuardError

if sys.platform != "win32":
    import fcntl

TRIES = 5
PAUSE = 0.01
"""Seconds between two tries. An honest writer is done within one; a stopped one must not stop ours."""

MODE = 0o600


@contextmanager
def alone_in(folder: Path, guard: str = ".guard") -> Iterator[None]:
    """Hold the folder's guard. GuardError if it cannot be had; OSError if the folder cannot be written to."""
    path = folder / guard
    if sys.platform == "win32":
        raise GuardError("lock files are written on POSIX systems only; on this one they can be read")
    descriptor = _opened(path)
    try:
        if not _is_locked(descriptor):
            raise GuardError(
                f"another process holds {path} and does not let go of it; `fuser -v {path}` names it. Locks are "
                "written all the same, but no lock is ended and no file kept alive until it is free"
            )
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, MODE)
    except PermissionError as error:
        raise GuardError(f"{path} cannot be opened: it belongs to another user; remove it") from error
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise GuardError(f"{path} is no regular file: remove it") from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise GuardError(f"{path} is no regular file: remove it")
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
