"""A lock that an older program left at the union path: it is a lock, and taking over must not open it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from killswitch.gate.reading import read_file
from killswitch.model.lock import FAR_FUTURE, Lock

FOREIGN_SCOPE = "foreign"
"""The scope under which such a lock lives on; lifting it by hand ends it."""


class _SixFields(msgspec.Struct):
    """The fields that version 6 wrote, of which only `locked` is sure to be there."""

    locked: bool
    stage: str | None = None
    reason: str | None = None
    expires_ts: float | None = None


def standing_foreign_lock(union: Path, now: datetime, generation: int, alive_until: float) -> Lock | None:
    """The lock at `union` if it is not of our making and still holds at `now`; None otherwise.

    A file that is no lock file at all is one without end: nobody knows what it said.
    """
    found = read_file(union)
    if found.problem is None:
        return None
    try:
        old = msgspec.json.decode(union.read_bytes(), type=_SixFields)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        old = _SixFields(locked=True, reason=f"{union.name} {found.problem}")
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
        mode="reduce_only",
        generation=generation,
        alive_until=alive_until,
    )
