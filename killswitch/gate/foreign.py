"""What must not be overwritten: locks of other programs, and scope files at the union path."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from killswitch.gate.changes import FAR_FUTURE, Lock, LockError
from killswitch.gate.reading import UnfitFileError, content_of, read_file
from killswitch.model.decision import LockMode

FOREIGN_SCOPE = "foreign"
"""The scope under which such a lock lives on; lifting it by hand ends it."""


def signature(folder: Path) -> dict[str, str | None]:
    """What a union file's details say of the lock folder that it is the sum of; `folder` is resolved."""
    return {"folder": str(folder)}


def is_signed(union: Lock, *folders: Path) -> bool:
    """Whether the union was made of the files of one of `folders`, which are names of the same one."""
    return any(signature(folder).items() <= union.details.items() for folder in folders)


class _OldFields(msgspec.Struct):
    """What any writer's lock says. Version 6 wrote no mode, and only `locked` is sure to be there."""

    locked: bool
    stage: str | None = None
    reason: str | None = None
    expires_ts: float | None = None
    mode: LockMode = "reduce_only"


def standing_foreign_lock(
    union: Path, folders: tuple[Path, ...], now: datetime, generation: int, alive_until: float
) -> Lock | None:
    """The lock at `union` if it is not the sum of `folders` and still holds at `now`; None otherwise.

    A file that is no lock file at all is one without end: nobody knows what it said. OSError where the disk would not
    read it this time.
    """
    found = read_file(union)
    if found.may_pass:
        raise OSError(f"it {found.problem}")
    if found.lock is None and found.problem is None:
        return None
    if found.lock is not None and is_signed(found.lock, *folders):
        return None
    old = _decoded(union)
    expires_ts = FAR_FUTURE.timestamp() if old.expires_ts is None else old.expires_ts
    if not old.locked or expires_ts <= now.timestamp():
        return None
    return Lock(
        locked=True,
        scope=FOREIGN_SCOPE,
        stage=old.stage,
        reason=old.reason,
        created_ts=now.timestamp(),
        expires_ts=expires_ts,
        details={"found": str(union)},
        mode=old.mode,
        generation=generation,
        alive_until=alive_until,
    )


def _decoded(union: Path) -> _OldFields:
    try:
        return msgspec.json.decode(content_of(union), type=_OldFields)
    except (OSError, UnfitFileError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return _OldFields(locked=True, reason=read_file(union).problem or "cannot be understood")


_SCOPE_KINDS = frozenset({"account", "venue", "portfolio", FOREIGN_SCOPE})


def require_apart(folder: Path, union: Path) -> None:
    """LockError if `union` has the name of a scope's file in `folder`. Both paths are resolved already."""
    if union.parent == folder and union.suffix == ".json" and union.stem.partition("__")[0] in _SCOPE_KINDS:
        raise LockError(
            f"{union} cannot be the file for all scopes: in the lock folder that is the name of one scope's own file. "
            "Give it another name, or put it elsewhere"
        )
