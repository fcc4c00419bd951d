"""The ways in which a store refuses, each with a sentence for the person who runs it."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Final

from killswitch.model.store import OvertakenError, StoreTroubleError

EMERGENCY: Final = "to close all the same, `ksctl close --live --journal memory` needs no disk (docs/operator-commands.md)"
"""The way that is left when a store takes no writes or cannot be read."""


class StoreError(StoreTroubleError):
    """The store could not do what was asked; nothing of the call was written."""

    @property
    def cause(self) -> str:
        """Why, in words, without the way out."""
        return str(self)


class StoreMissingError(StoreError):
    """There is no store at that place, and it was opened to read."""


class StoreVersionError(StoreError):
    """The store's schema is not one that this program may use."""


class _ExplainedError(StoreError):
    """A refusal whose cause and next step are known."""

    def __init__(self, place: str, failed: str, cause: str, next_step: str) -> None:
        super().__init__(f"the store {place} {failed}: {cause}; {next_step}; {EMERGENCY}")
        self._cause = f"{cause}; {next_step}"

    @property
    def cause(self) -> str:
        return self._cause


class MediumError(_ExplainedError):
    """What the store lies on takes no writes: it is full, over a quota, read-only or failing. Reads may still work."""


class NoDescriptorsError(MediumError):
    """This process may open no more files: the disk is not to blame, and no space on it helps."""


class WriteLockedError(_ExplainedError):
    """Another process holds the store's write lock for longer than this one waits. Nothing is wrong with the store."""


class DamagedStoreError(StoreError):
    """What lies in the file is not what a store wrote there."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(
            f"the store {place} is damaged: {what}. Keep a copy of it (and of its -wal) to look at; put back a backup, "
            "or move it away so that `ksctl run` makes a new one, which knows of no earlier close, latch or lock; "
            + EMERGENCY
        )
        self._cause = f"the file {place} is damaged ({what})"

    @property
    def cause(self) -> str:
        return self._cause


class DuplicateDecisionError(StoreError):
    """A decision with this id is already recorded: a tick was committed twice."""


class FencedError(StoreError, OvertakenError):
    """The lease that this handle writes under has passed to another: what it knows is older than the store."""


_MEDIUM: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: make space there",
    # What write(2) answers over a quota (EDQUOT), over a file size limit (EFBIG) or on a failing disk (EIO).
    sqlite3.SQLITE_IOERR: "the disk failed, or a quota or a file size limit was reached: `df`, `quota`, `dmesg` tell",
    sqlite3.SQLITE_READONLY: "it may not be written: look at its mode and owner, and whether the disk is read-only",
    sqlite3.SQLITE_CANTOPEN: "its files cannot be opened or made: look at the folder's mode and the free inodes",
}
_NO_INDEX: Final = "the disk is full, so that the index of its log (-shm) cannot grow: make space there"
_LOCKED: Final = (
    "another process holds its write lock, such as a shell with an open transaction or a backup: find it with "
    "`fuser` on the file and end its transaction"
)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY: Final = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org/rescode.html)."""


def store_error(place: str, error: BaseException | None, failed: str = "did not take it") -> StoreError:
    """What the driver complained of, with the file, the cause and the next step."""
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
    if primary in _DAMAGED or (primary == sqlite3.SQLITE_ERROR and "no such" in str(error)):
        return damaged(place, str(error))
    return StoreError(f"the store {place} {failed}: {error}")


def _descriptors_are_used_up() -> str | None:
    """What to do about it, where this process may open no more files: SQLite does not pass on why it could not."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EMFILE:
            return (
                "this process has used up its file descriptors, the disk is not to blame: raise their limit "
                "(`ulimit -n`, LimitNOFILE= of the service) before the next start"
            )
        if error.errno == errno.ENFILE:
            return "this machine has used up its file descriptors: raise fs.file-max, or end what holds them"
    return None


def damaged(place: str, what: str) -> DamagedStoreError:
    """A store whose contents make no sense: what, and what is left to do."""
    return DamagedStoreError(place, what)
