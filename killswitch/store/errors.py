"""Errors of the store, each with a message for the operator."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from killswitch.model.store import OvertakenError, StoreTroubleError

EMERGENCY: Final = (
    "to close positions without the disk, run `ksctl close --live --journal memory` (docs/operator-commands.md)"
)
"""The way out when a store cannot be written or read."""


class StoreError(StoreTroubleError):
    """The store could not carry out a call; nothing of the call was written."""

    def __init__(self, message: str, cause: str | None = None) -> None:
        super().__init__(message)
        self.cause = message if cause is None else cause
        """The cause, without the way out."""


class StoreMissingError(StoreError):
    """There is no store at the path that was opened for reading."""


class StoreVersionError(StoreError):
    """This program cannot use the store's schema."""


class _ExplainedError(StoreError):
    """An error whose cause and next step are known."""

    def __init__(self, place: str, failed: str, cause: str, next_step: str) -> None:
        super().__init__(f"the store {place} {failed}: {cause}; {next_step}; {EMERGENCY}", f"{cause}; {next_step}")


class MediumError(_ExplainedError):
    """The disk accepts no writes: it is full, over a quota, read-only or failing. Reads may still work."""


class NoDescriptorsError(MediumError):
    """This process may open no more files: the disk is not the cause, and free space does not help."""


class WriteLockedError(_ExplainedError):
    """Another process holds the store's write lock for longer than this one waits. The store itself is intact."""


class DamagedStoreError(StoreError):
    """The contents of the file are not what a store wrote."""

    def __init__(self, place: str, what: str, verdict: str = "is damaged") -> None:
        super().__init__(
            f"the store {place} {verdict}: {what}. Keep a copy of it (and of its -wal) for analysis; restore a "
            "backup, or move it away so that `ksctl run` creates a new one, which has no earlier close, latch or lock; "
            + EMERGENCY,
            f"the file {place} {verdict} ({what})",
        )


class TextFileError(DamagedStoreError):
    """The file is a text: another file was named, or a text was written over a store."""

    def __init__(self, place: str) -> None:
        cause = f"{place} is a text file and no store: name the store with --store"
        StoreError.__init__(self, f"{cause}. If there was a store, restore a backup; {EMERGENCY}", cause)


class DuplicateDecisionError(StoreError):
    """A decision with this id is already recorded: a tick was committed twice."""


class FencedError(StoreError, OvertakenError):
    """The lease of this handle has passed to another runner: its memory is older than the store."""


def require_lease(fence: int | None, generation: int, owner: str | None, consequence: str) -> None:
    """Raise FencedError where the lease of generation `fence` has passed on to `generation`."""
    if fence is not None and generation > fence:
        raise FencedError(
            f"the lease of generation {fence} has passed to generation {generation} ({owner or 'released since'})"
            + consequence
        )


_MEDIUM: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    # What write(2) answers over a quota (EDQUOT), over a file size limit (EFBIG) or on a failing disk (EIO).
    sqlite3.SQLITE_IOERR: "the disk failed, or a quota or a file size limit was reached: see `df`, `quota`, `dmesg`",
    sqlite3.SQLITE_READONLY: "writing is not permitted: check its mode and owner, and whether the disk is read-only",
    sqlite3.SQLITE_CANTOPEN: "its files cannot be opened or created: check the folder's mode and the free inodes",
}
_NO_INDEX: Final = "the disk is full, so that the index of its log (-shm) cannot grow: free some space"
_LOCKED: Final = (
    "another process holds its write lock, such as a shell with an open transaction or a backup: find it with "
    "`fuser` on the file and end its transaction"
)
_OTHER_FILE: Final = "this is another file (name the store with --store), or its beginning was overwritten"
_BEGINNING: Final = 1_000
"""Bytes of a file by which a text is recognised."""
_PRIMARY: Final = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org/rescode.html)."""


def store_error(place: str, error: BaseException | None, failed: str = "could not be written") -> StoreError:
    """The driver's error as a StoreError with the file, the cause and the next step."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & _PRIMARY if isinstance(code, int) else None
    cause = f"{error} ({getattr(error, 'sqlite_errorname', '')})"
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and (exhausted := _descriptors_are_used_up()):
        return NoDescriptorsError(place, failed, cause, exhausted)
    if primary in _MEDIUM:
        step = _NO_INDEX if code == sqlite3.SQLITE_IOERR_SHMSIZE else _MEDIUM[primary]
        return MediumError(place, failed, cause, step)
    if primary == sqlite3.SQLITE_BUSY:
        return WriteLockedError(place, failed, cause, _LOCKED)
    if primary == sqlite3.SQLITE_NOTADB:
        return (
            TextFileError(place)
            if _is_text(place)
            else DamagedStoreError(place, f"{_OTHER_FILE} ({cause})", "is no store")
        )
    if primary == sqlite3.SQLITE_CORRUPT or (primary == sqlite3.SQLITE_ERROR and "no such" in str(error)):
        return DamagedStoreError(place, str(error))
    is_late = primary == sqlite3.SQLITE_INTERRUPT
    why = " in time: it is large, or the machine is busy" if is_late else f": {error}"
    return StoreError(f"the store {place} {failed}{why}")


def _is_text(path: str) -> bool:
    """Whether the file begins with text, which no store does."""
    try:
        with Path(path).open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:
        return False
    # The last character may be cut.
    return b"\0" not in beginning and "\ufffd" not in beginning.decode(errors="replace").rstrip("\ufffd")


def _descriptors_are_used_up() -> str | None:
    """What to do where this process may open no more files: SQLite does not report that cause."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EMFILE:
            return (
                "this process has used up its file descriptors, the disk is not the cause: raise their limit "
                "(`ulimit -n`, LimitNOFILE= of the service) before the next start"
            )
        if error.errno == errno.ENFILE:
            return "this machine has used up its file descriptors: raise fs.file-max, or end what holds them"
    return None
