"""The ways in which a store refuses, each with a sentence for the person who runs it."""

from __future__ import annotations

import sqlite3
from typing import Final

from killswitch.model.store import OvertakenError, StoreTroubleError

EMERGENCY: Final = "to close all the same, `ksctl close --live --journal memory` needs no disk (docs/hands.md)"
"""The way that is left when a store takes no writes or cannot be read."""


class StoreError(StoreTroubleError):
    """The store could not do what was asked; nothing of the call was written."""


class StoreMissingError(StoreError):
    """There is no store at that place, and it was opened to read."""


class StoreVersionError(StoreError):
    """The store's schema is not one that this program may use."""


class MediumError(StoreError):
    """What the store lies on takes no writes: it is full, over a quota, read-only or failing. Reads may still work."""

    def __init__(self, place: str, failed: str, cause: str, next_step: str) -> None:
        super().__init__(f"the store {place} {failed}: {cause}; {next_step}; {EMERGENCY}")
        self.cause = f"{cause}; {next_step}"


class DamagedStoreError(StoreError):
    """What lies in the file is not what a store wrote there."""


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
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY: Final = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org/rescode.html)."""


def store_error(place: str, error: BaseException | None, failed: str = "did not take it") -> StoreError:
    """What the driver complained of, with the file, the cause and the next step."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & _PRIMARY if isinstance(code, int) else None
    if primary in _MEDIUM:
        name = getattr(error, "sqlite_errorname", "")
        return MediumError(place, failed, f"{error} ({name})", _MEDIUM[primary])
    if primary in _DAMAGED or (primary == sqlite3.SQLITE_ERROR and "no such" in str(error)):
        return damaged(place, str(error))
    return StoreError(f"the store {place} {failed}: {error}")


def damaged(place: str, what: str) -> DamagedStoreError:
    """A store whose contents make no sense: what, and what is left to do."""
    return DamagedStoreError(
        f"the store {place} is damaged: {what}. Keep a copy of it (and of its -wal) to look at; put back a backup, "
        "or move it away so that `ksctl run` makes a new one, which knows of no earlier close, latch or lock; "
        + EMERGENCY
    )
