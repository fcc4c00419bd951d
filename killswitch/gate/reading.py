"""Reading a lock file as a bot must: what cannot be read is a lock, and a lock nobody keeps alive is a lock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from killswitch.model.decision import LockMode
from killswitch.model.lock import Lock

_DECODER = msgspec.json.Decoder(Lock)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether trading is locked. `mode` is None when it is not; `reduce_only` leaves the exits open."""

    locked: bool
    mode: LockMode | None
    reason: str

    def allows(self, *, reduces_risk: bool) -> bool:
        """Whether an order may be sent: with `reduce_only`, one that only reduces a position still may."""
        return not self.locked or (self.mode == "reduce_only" and reduces_risk)


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock file as found: its lock, or what is wrong with it. Neither: there is no such file."""

    path: Path
    lock: Lock | None
    problem: str | None


def read_file(path: Path) -> LockFile:
    """The file at `path` as it is; no reading of it ever raises."""
    try:
        return LockFile(path, _DECODER.decode(path.read_bytes()), None)
    except FileNotFoundError:
        return LockFile(path, None, None)
    except OSError as error:
        return LockFile(path, None, f"cannot be read: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return LockFile(path, None, f"is not a lock file: {error}")


def read_lock(path: Path, now: datetime) -> Verdict:
    """What the lock file at `path` says at `now`; missing, unreadable and stale files say locked.

    `expires_ts` is not looked at: the runner alone ends a lock, by writing `locked: false`, so that no two
    readers with different clocks disagree about it. What cannot be read closes the entries and leaves the
    exits open, because a halt never forbids reducing risk.
    """
    found = read_file(path)
    if found.problem is not None:
        return Verdict(True, "reduce_only", f"{path.name} {found.problem}")
    if found.lock is None:
        return Verdict(True, "reduce_only", f"{path.name} is not there: no runner has said that trading is open")
    lock = found.lock
    if lock.locked:
        return Verdict(True, lock.mode, lock.reason or "locked")
    if lock.alive_until < now.timestamp():
        return Verdict(True, "reduce_only", f"{path.name} is stale: no runner has kept it alive")
    return Verdict(False, None, "open")
