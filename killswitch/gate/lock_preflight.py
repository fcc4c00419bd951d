"""Checks that locks can be written, before anything is armed."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from killswitch.gate.changes import LockError, UnwritableError
from killswitch.gate.foreign_files import is_signed, require_separate_path
from killswitch.gate.lock_reader import read_file


def require_writable(folder: Path, union: Path | None, now: datetime) -> None:
    """LockError, naming the path and the way out, if a lock could not be written to `folder` or `union`.

    UnwritableError where the disk refuses it.
    The folder is made if it is not there. A union that another lock folder keeps alive is refused too: each would
    take the other's lock for one that it may not open.
    """
    if sys.platform == "win32":
        raise LockError("lock files are written on POSIX systems only; elsewhere they can be read")
    _require_room(folder, make=True)
    if union is None:
        return
    union = union.resolve()
    require_separate_path(folder.resolve(), union)
    _require_lock_file(union)
    _require_room(union.parent, make=False)
    standing = read_file(union).lock
    if standing is not None and standing.alive_until > now.timestamp() and not is_signed(standing, folder.resolve()):
        raise LockError(
            f"{union} is kept by a runner with another lock folder ({standing.details.get('folder')}): "
            "give each runner a lock file of its own, or stop that one first"
        )


def _require_lock_file(union: Path) -> None:
    """LockError for a file at `union` that a lock would destroy: a store, a policy, a device."""
    try:
        mode = union.stat().st_mode
        if stat.S_ISDIR(mode):
            raise LockError(f"the lock file {union} is a folder")
        if not stat.S_ISREG(mode):
            raise LockError(f"the lock file {union} is not a regular file: name another path for it")
        with union.open("rb") as file:
            begins = file.read(1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LockError(f"the lock file {union} cannot be read: {error.strerror}") from error
    if begins not in (b"", b"{"):
        raise LockError(f"{union} does not hold a lock: name another path for the lock file")


def _require_room(folder: Path, *, make: bool) -> None:
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".probe", dir=folder)
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise UnwritableError(f"no lock can be written in {folder}: {error.strerror}") from error


def weaknesses(folder: Path, union: Path | None) -> tuple[str, ...]:
    """A message for each folder in which every user could replace a lock and so open trading."""
    folders = dict.fromkeys([folder] if union is None else [folder, union.parent])
    return tuple(
        f"every user may replace the lock files in {each} (mode {stat.S_IMODE(each.stat().st_mode):04o}), and so open "
        f"trading: chmod o-w {each}"
        for each in folders
        if each.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH
    )
