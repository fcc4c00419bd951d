"""One writer at a time in a lock folder: the turn is asked for, and never waited for."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from killswitch.gate.errors import LockError

TRIES = 5
PAUSE = 0.01
"""Seconds between two tries. An honest writer is done within one; a stopped one must not stop ours."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's guard. LockError if another process holds it through every try."""
    with (folder / ".guard").open("wb") as guard:
        if not _taken(guard):
            raise LockError(
                f"another process holds {folder}/.guard and does not let go of it; `fuser -v {folder}/.guard` names it"
            )
        yield


def _taken(guard: BinaryIO) -> bool:
    for turn in range(TRIES):
        if turn:
            time.sleep(PAUSE)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False
