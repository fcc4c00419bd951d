"""Merges locks: the stricter mode and the later end win, whoever wrote last. Locks of different parts stay apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

from msgspec.structs import replace

from killswitch.gate.changes import FAR_FUTURE, LockRecord, Stamp
from killswitch.gate.lock_reader import LockFile
from killswitch.model import lock_parts
from killswitch.model.instant import from_micros
from killswitch.model.legible import legible
from killswitch.model.lock_parts import merged_parts, strictest_mode
from killswitch.model.snapshot import LockPart

UNION_SCOPE = "union"
ON_SUSPICION = "on_suspicion"
"""The key of `details` that a lock on suspicion has."""
UNREADABLE = "unreadable"
"""The key of `details` of a lock that represents an unreadable file."""
ALSO = "also"
"""The key of `details` with the other decisions that a merged lock comes from."""


def in_force(lock: LockRecord, now: datetime) -> bool:
    """Whether the lock is in force at `now`."""
    return lock.locked and lock.expires_ts > now.timestamp()


def parts_of(lock: LockRecord) -> tuple[LockPart, ...]:
    """What a lock locks, as parts of its scope."""
    return lock.only or (LockPart(lock.mode, _end_of(lock)),)


def _end_of(lock: LockRecord) -> datetime | None:
    """The end of the lock; None for a lock without end, and for one beyond every calendar."""
    try:
        found = from_micros(round(lock.expires_ts * 1_000_000))
    except (OverflowError, ValueError):
        return None
    return None if found >= FAR_FUTURE else found


def _common_parts(locks: Iterable[LockRecord]) -> tuple[LockPart, ...]:
    """The parts of several locks; none if one of them is of all of its scope and no other is of a part."""
    held = tuple(locks)
    return merged_parts(part for lock in held for part in parts_of(lock)) if any(lock.only for lock in held) else ()


def joined(existing: LockRecord, requested: LockRecord) -> LockRecord:
    """`requested` merged with `existing` on the same scope: neither mode nor end gets weaker, and no part gets free."""
    return replace(
        requested,
        mode=strictest_mode((existing.mode, requested.mode)),
        expires_ts=max(existing.expires_ts, requested.expires_ts),
        created_ts=min(existing.created_ts, requested.created_ts),
        only=_common_parts((existing, requested)),
    )


def without_ended_parts(lock: LockRecord, now: datetime) -> LockRecord:
    """The lock without the parts that have ended; unchanged if none has, or all of them have."""
    left = lock_parts.in_force(lock.only, now)
    if not left or left == lock.only:
        return lock
    until = lock_parts.latest_end(part.until for part in left) or FAR_FUTURE
    mode = strictest_mode([part.mode for part in left])
    only = () if all(part.is_everything for part in left) else left
    return replace(lock, mode=mode, expires_ts=until.timestamp(), only=only)


def is_on_suspicion(lock: LockRecord) -> bool:
    """Whether it is a lock on suspicion: it was unknown whether a fall of equity was a loss."""
    return ON_SUSPICION in lock.details


def decisions_of(lock: LockRecord) -> set[str]:
    """The decisions that a lock names."""
    named = [lock.details.get("decision") or "", *(lock.details.get(ALSO) or "").split(", ")]
    return {decision for decision in named if decision}


def scope_of(path: Path) -> str:
    """The scope of a file, from its name."""
    return legible(unquote(path.stem.replace("__", "/")))


def unreadable(file: LockFile, stamp: Stamp) -> LockRecord:
    """The lock that an unreadable file counts as: without end, until an operator lifts it.

    Its mode is kept if it can be read, as in a lock of another version.
    """
    reason = f"{legible(file.path.name)} {file.problem}"
    return stamp.lock(scope_of(file.path), reason, {UNREADABLE: "yes"}, until=FAR_FUTURE.timestamp(), mode=file.mode)


def _details_of(held: Sequence[LockRecord]) -> dict[str, str | None]:
    """The details of the first lock; the sum is on suspicion only if every lock in it is."""
    firm = not all(is_on_suspicion(lock) for lock in held)
    return {key: value for key, value in held[0].details.items() if not (firm and key == ON_SUSPICION)}


def union_of(locks: Sequence[LockRecord], stamp: Stamp) -> LockRecord:
    """One lock for a reader that knows one file: locked if any is, in the strictest mode, to the latest end."""
    held = [_in_union(lock) for lock in locks if in_force(lock, stamp.now)]
    return _sum_of(held, UNION_SCOPE, stamp) if held else stamp.opened(UNION_SCOPE, "open")


def _in_union(lock: LockRecord) -> LockRecord:
    """The lock as a part of all scopes: that of a symbol is of that symbol alone."""
    kind, _, symbol = lock.scope.partition("/")
    if kind != "symbol" or UNREADABLE in lock.details:
        return lock
    parts = (part for part in parts_of(lock) if part.symbols is None or symbol in part.symbols)
    return replace(lock, only=merged_parts(replace(part, symbols=(symbol,)) for part in parts))


def with_wider(own: LockRecord, wider: Sequence[LockRecord], now: datetime) -> LockRecord:
    """The lock of a scope's file while `wider` scopes are locked too: the sum, with `own` in it.

    Only locks in force count; without one of `wider` it is `own`.
    """
    held = [lock for lock in wider if in_force(lock, now)]
    if not held:
        return own
    if in_force(own, now):
        held.append(own)
    return replace(_sum_of(held, own.scope, Stamp(now, own.generation, own.alive_until)), own=own)


def own_of(lock: LockRecord) -> LockRecord:
    """The lock of the scope itself, without the locks of wider scopes."""
    return lock if lock.own is None else replace(lock.own, own=None)


def own_in(file: LockFile, stamp: Stamp) -> LockRecord:
    """The lock of the file's own scope. An unreadable file counts as a lock."""
    return unreadable(file, stamp) if file.lock is None else own_of(file.lock)


def tightens(found: LockRecord | None, requested: LockRecord, now: datetime) -> bool:
    """Whether replacing `found` by `requested` makes the lock stricter and opens nothing."""
    if not in_force(requested, now):
        return False
    if found is None or not in_force(found, now):
        return True
    before, after = parts_of(found), parts_of(requested)
    return lock_parts.cover(after, before) and not lock_parts.cover(before, after)


def _sum_of(locks: Sequence[LockRecord], scope: str, stamp: Stamp) -> LockRecord:
    held = sorted(locks, key=lambda lock: (lock.mode != "all", -lock.expires_ts, lock.scope))
    return stamp.lock(
        scope,
        "; ".join(f"{lock.scope}: {lock.reason or 'locked'}" for lock in held),
        {**_details_of(held), "scopes": ", ".join(dict.fromkeys(lock.scope for lock in held))},
        until=max(lock.expires_ts for lock in held),
        mode=strictest_mode([lock.mode for lock in held]),
        stage=held[0].stage,
        created=min(lock.created_ts for lock in held),
        only=_common_parts(held),
    )
