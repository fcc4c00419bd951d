"""Writes one lock file, with the generation of the runner and the time until which it is kept alive."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from killswitch.gate.changes import LockRecord, StaleGenerationError, Stamp
from killswitch.gate.files import replace_file, sync_folder
from killswitch.gate.lock_merge import tightens
from killswitch.gate.lock_reader import read_file


class LockFileWriter:
    """Writes the lock files of one runner.

    `wall`: the clock with which readers compare `alive_until`; by default the `now` of each call. Locks begin and end
    by `now`, which a jump of the wall clock does not change.
    """

    def __init__(self, generation: int, alive_for: float, wall: Callable[[], datetime] | None = None) -> None:
        self.generation = generation
        self.alive_for = alive_for
        """Seconds."""
        self.wall = wall

    def wall_at(self, now: datetime) -> float:
        """Unix seconds of the readers' clock."""
        return (now if self.wall is None else self.wall()).timestamp()

    def stamp(self, now: datetime) -> Stamp:
        """The stamp of the files of a turn at `now`, which keeps them alive for `alive_for` seconds."""
        return Stamp(now, self.generation, self.wall_at(now) + self.alive_for)

    def is_settled(self, found: LockRecord | None, lock: LockRecord, now: datetime, *, kept: bool = True) -> bool:
        """Whether the file has this content already. `kept`: and is alive for at least half of `alive_for`."""
        if found is None:
            return False
        left = found.alive_until - self.wall_at(now)
        # A file that is alive for more than `alive_for` was written before a clock stepped back.
        lives = left <= self.alive_for and (left >= self.alive_for / 2 or not kept)
        return lives and found == replace(lock, alive_until=found.alive_until, generation=self.generation)

    def write(self, path: Path, lock: LockRecord, now: datetime, *, kept: bool = True) -> LockRecord:
        """Write the file, and return its content.

        StaleGenerationError if a newer runner wrote it and `lock` is not stricter.
        """
        found = read_file(path).lock
        if found is not None and not tightens(found, lock, now):
            self._require_not_newer(path, found)
        return self.replace(path, lock, now, kept=kept)

    def remove(self, path: Path) -> None:
        """Remove the file, whose scope is not locked. StaleGenerationError if a newer runner wrote it."""
        found = read_file(path).lock
        if found is not None:
            self._require_not_newer(path, found)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def _require_not_newer(self, path: Path, found: LockRecord) -> None:
        if found.generation > self.generation:
            raise StaleGenerationError(
                f"{path} was written in generation {found.generation}, this runner is of {self.generation}: "
                "a newer runner has taken over, or this store is younger than the lock folder; if no other runner "
                "keeps the file, remove it"
            )

    def replace(self, path: Path, lock: LockRecord, now: datetime, *, kept: bool = True) -> LockRecord:
        """Write the file, alive for `alive_for` seconds; if it is not `kept`, stale from the start."""
        alive_until = self.stamp(now).alive_until if kept else self.wall_at(now) - 1.0
        fresh = replace(lock, generation=self.generation, alive_until=alive_until)
        replace_file(path, msgspec.json.encode(fresh))
        return fresh


def cause_of(error: Exception) -> str:
    """Why a file could not be written, in a text that is the same at each attempt."""
    # The message of an OSError names the temporary file, whose name is another one each time.
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
