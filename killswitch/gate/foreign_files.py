"""Files of other programs: locks at the union path, which must not be overwritten, and unmanaged files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from killswitch.gate.changes import FAR_FUTURE, LockError, LockRecord, Stamp
from killswitch.gate.files import is_temporary
from killswitch.gate.lock_reader import LockFile, read_file, some_fields
from killswitch.model.decision import LockMode
from killswitch.model.legible import legible, one_line

FOREIGN_SCOPE = "foreign"
"""The scope under which such a lock is kept; `ksctl reset` of it ends the lock."""


def signature(folder: Path) -> dict[str, str | None]:
    """What a union file's details say of the lock folder that it is the sum of; `folder` is resolved."""
    return {"folder": str(folder)}


def is_signed(union: LockRecord, *folders: Path) -> bool:
    """Whether the union was made of the files of one of `folders`, which are names of the same one."""
    return any(signature(folder).items() <= union.details.items() for folder in folders)


class _OldFields(msgspec.Struct):
    """The fields of any writer's lock. Version 6 wrote no mode, and only `locked` is always present."""

    locked: bool
    stage: str | None = None
    reason: str | None = None
    expires_ts: float | None = None
    mode: LockMode = "reduce_only"


def foreign_lock(union: Path, folders: tuple[Path, ...], stamp: Stamp) -> LockRecord | None:
    """The lock at `union` if it is not the sum of `folders` and still holds at the turn's `now`; None otherwise.

    A file that is no lock file at all is one without end, as its content is unknown. OSError where the disk would not
    read it this time.
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


_SCOPE_KINDS = frozenset({"account", "venue", "portfolio", FOREIGN_SCOPE})


def require_separate_path(folder: Path, union: Path) -> None:
    """LockError if `union` has the name of a scope's file in `folder`. Both paths are resolved already."""
    if union.parent == folder and union.suffix == ".json" and union.stem.partition("__")[0] in _SCOPE_KINDS:
        raise LockError(
            f"{union} cannot be the file for all scopes: in the lock folder that is the name of one scope's own file. "
            "Give it another name, or put it elsewhere"
        )


MOST = 200
"""So many files are read in one turn: ten milliseconds on a disk that answers."""
LISTED = 20_000
"""So many names are looked at in one turn."""
STEP = 50
NAMED = 3


@dataclass(frozen=True, slots=True)
class UnmanagedFiles:
    """What else is in the folder."""

    files: tuple[LockFile, ...]
    count: int
    is_cut: bool
    """There are more than were read, or more than were counted."""
    temporary: tuple[Path, ...] = ()


def unmanaged_files(folder: Path, expected: Collection[Path], is_late: Callable[[], bool]) -> UnmanagedFiles:
    """Every lock file of `folder` but those `expected`. OSError if it cannot be listed, or if it is late."""
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
    """The first names, for people."""
    names = [one_line(legible(path.name)) for path in sorted(paths)[:NAMED]]
    return ", ".join(names) + (", …" if len(paths) > NAMED else "")
