"""Writes one lock file, under the generation of a runner and with an end of its life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import structs

from killswitch.gate.changes import LockRecord, StaleGenerationError, Stamp
from killswitch.gate.files import replace_file
from killswitch.gate.lock_merge import tightens
from killswitch.gate.lock_reader import read_file


@dataclass(frozen=True, slots=True)
class LockFileWriter:
    """Writes the lock files of one runner.

    `wall`: the clock that readers hold `alive_until` against. What is written and ended goes by the `now` of each call,
    which a wall clock that jumps does not move; without `wall`, both are one.
    """

    generation: int
    alive_for: float
    """Seconds."""
    wall: Callable[[], datetime] | None = None

    def wall_at(self, now: datetime) -> float:
        """Unix seconds of the readers' clock."""
        return (now if self.wall is None else self.wall()).timestamp()

    def stamp(self, now: datetime) -> Stamp:
        """What a turn at `now` writes into its files: each is kept alive for a whole life."""
        return Stamp(now, self.generation, self.wall_at(now) + self.alive_for)

    def is_settled(self, found: LockRecord | None, lock: LockRecord, now: datetime, *, kept: bool = True) -> bool:
        """Whether the file says the same already. `kept`: and is alive for long enough."""
        if found is None:
            return False
        left = found.alive_until - self.wall_at(now)
        # One of more than a whole life was written before a clock stepped back.
        lives = left <= self.alive_for and (left >= self.alive_for / 2 or not kept)
        return lives and found == structs.replace(lock, alive_until=found.alive_until, generation=self.generation)

    def write(self, path: Path, lock: LockRecord, now: datetime, *, kept: bool = True) -> None:
        """StaleGenerationError where a newer runner has written, and `lock` would not only lock more."""
        found = read_file(path).lock
        is_newer = found is not None and found.generation > self.generation
        if found is not None and is_newer and not tightens(found, lock, now):
            raise StaleGenerationError(
                f"{path} was written in generation {found.generation}, this runner is of {self.generation}: "
                "a newer runner has taken over, or this store is younger than the lock folder; if no other runner "
                "keeps the file, remove it"
            )
        self.replace(path, lock, now, kept=kept)

    def replace(self, path: Path, lock: LockRecord, now: datetime, *, kept: bool = True) -> None:
        """Write the file, alive for a whole life; where it is not `kept`, stale from the first second on."""
        alive_until = self.stamp(now).alive_until if kept else self.wall_at(now) - 1.0
        fresh = structs.replace(lock, generation=self.generation, alive_until=alive_until)
        replace_file(path, msgspec.json.encode(fresh))


def cause_of(error: Exception) -> str:
    """Why a file could not be written, in words that are the same at each attempt."""
    # The message of an OSError names the temporary file, whose name is another one each time.
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
