"""Files of other programs: locks at the union path, which must not be overwritten, and unmanaged files."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from killswitch.gate.changes import FAR_FUTURE, LockError, LockRecord, Stamp, UnwritableError
from killswitch.gate.files import is_temporary
from killswitch.gate.lock_reader import LockFile, read_file, some_fields
from killswitch.model.decision import LockMode
from killswitch.model.legible import legible, one_line

FOREIGN_SCOPE = "foreign"
"""The scope under which such a lock is kept; `ksctl reset` of it ends the lock."""


def signature(folder: Path) -> dict[str, str | None]:
    """The `details` by which a union file names its lock folder; `folder` is resolved."""
    return {"folder": str(folder)}


def is_signed(union: LockRecord, *folders: Path) -> bool:
    """Whether the union is the sum of the files of one of `folders`, which are names of the same folder."""
    return any(signature(folder).items() <= union.details.items() for folder in folders)


class _OldFields(msgspec.Struct):
    """The fields of any writer's lock. Version 6 wrote no mode, and only `locked` is always present."""

    locked: bool
    stage: str | None = None
    reason: str | None = None
    expires_ts: float | None = None
    mode: LockMode = "reduce_only"


def foreign_lock(union: Path, folders: tuple[Path, ...], stamp: Stamp) -> LockRecord | None:
    """The lock at `union` if it is not the sum of `folders` and is in force at the turn's `now`; None otherwise.

    A file that is not a lock file is a lock without end, as its content is unknown. OSError if a temporary disk error
    prevents reading it.
    """
    found = read_file(union)
    if found.may_pass:
        raise OSError(f"it {found.problem}")
    if found.lock is None and found.problem is None:
        return None
    if found.lock is not None and is_signed(found.lock, *folders):
        return None
    old = some_fields(union, _OldFields) or _OldFields(locked=True, reason=found.problem or "cannot be understood")
    expires_ts = FAR_FUTURE.timestamp() if old.expires_ts is None else old.expires_ts
    if not old.locked or expires_ts <= stamp.now.timestamp():
        return None
    details: dict[str, str | None] = {"found": str(union)}
    return stamp.lock(FOREIGN_SCOPE, old.reason, details, until=expires_ts, mode=old.mode, stage=old.stage)


_SCOPE_KINDS = frozenset({"account", "venue", "portfolio", "strategy", "symbol", "label", FOREIGN_SCOPE})


def require_separate_path(folder: Path, union: Path) -> None:
    """LockError if `union` has the name of a scope's file in `folder`. Both paths are resolved already."""
    if union.parent == folder and union.suffix == ".json" and union.stem.partition("__")[0] in _SCOPE_KINDS:
        raise LockError(
            f"{union} cannot be the file for all scopes: in the lock folder that is the name of one scope's own file. "
            "Give it another name, or put it elsewhere"
        )


MOST = 200
"""Most files that one turn reads: ten milliseconds on a disk that answers."""
LISTED = 20_000
"""Most names that one turn lists."""
STEP = 50
NAMED = 3


class UnmanagedFiles(Struct, frozen=True):
    """The files in the folder that this runner does not write."""

    files: tuple[LockFile, ...]
    count: int
    is_cut: bool
    """Whether there are more than were read or counted."""
    temporary: tuple[Path, ...] = ()


def unmanaged_files(folder: Path, expected: Collection[Path], is_late: Callable[[], bool]) -> UnmanagedFiles:
    """Every lock file of `folder` except `expected`. OSError if the folder cannot be listed, or the turn is late."""
    ours = {path.name for path in expected if path.parent == folder}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, LISTED)]
    others = sorted(name for name in names if name.endswith(".json") and name not in ours)
    return UnmanagedFiles(
        files=tuple(_read([folder / name for name in others[:MOST]], is_late)),
        count=len(others),
        is_cut=len(others) > MOST or len(names) == LISTED,
        temporary=tuple(folder / name for name in names if is_temporary(name)),
    )


def _read(paths: list[Path], is_late: Callable[[], bool]) -> Iterator[LockFile]:
    for number, path in enumerate(paths):
        if number % STEP == 0 and is_late():
            raise TimeoutError("the lock folder is too slow")
        file = read_file(path)
        if file.lock is not None or file.problem is not None:
            yield file


def some_of(paths: Collection[Path]) -> str:
    """The first names, for a message."""
    names = [one_line(legible(path.name)) for path in sorted(paths)[:NAMED]]
    return ", ".join(names) + (", …" if len(paths) > NAMED else "")


def require_writable(folder: Path, union: Path | None, now: datetime) -> None:
    """LockError, with the path and the way out, if a lock could not be written to `folder` or `union`.

    UnwritableError if the disk refuses the write. The folder is created if it does not exist. A union that another lock
    folder keeps alive is refused, too: each runner would treat the other's lock as foreign.
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
    existing = read_file(union).lock
    if existing is not None and existing.alive_until > now.timestamp() and not is_signed(existing, folder.resolve()):
        raise LockError(
            f"{union} is kept by a runner with another lock folder ({existing.details.get('folder')}): "
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
