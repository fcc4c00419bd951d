"""The trading lock that bots obey: the v6 fields plus `mode`, `generation` and `alive_until`."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from killswitch.model.decision import LockMode

FAR_FUTURE = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""`expires_ts` of a lock without end: the v6 reader takes a missing one for unlocked."""

LONGEST_LIFE = 86_400.0
"""Seconds. An open file whose `alive_until` is further ahead is a lock: no runner may be dead for so long unnoticed."""


class Lock(Struct, frozen=True, omit_defaults=True):
    """One lock file. Times are Unix seconds; `alive_until` in the past means locked, whatever `locked` says.

    `generation` is the lease generation of the runner that wrote it: an older writer must not overwrite a newer.
    """

    locked: bool
    scope: str
    stage: str | None
    reason: str | None
    created_ts: float
    expires_ts: float
    details: dict[str, str | None]
    mode: LockMode
    generation: int
    alive_until: float
    own: Lock | None = None
    """What the scope's file would say without the locks of wider scopes; there only where such a lock is in force."""
