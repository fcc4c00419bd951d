"""What the machine itself costs a close: durable commits slower than promised, and event loops that wake up late."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from tests.bench.venues import until

COMMIT: Final = 0.0002
"""Seconds of one durable SQLite commit on the machine that the promises about closing are made for."""
WAKE_UPS: Final = 15
NAP: Final = 0.01


class Machine(Struct, frozen=True):
    """Seconds of one bare durable commit, and by which a sleeping event loop wakes up late; both as measured now."""

    commit: float
    late: float

    def share(self, commits: int, answers: int) -> float:
        """The seconds that the machine adds where `commits` and `answers` follow one another."""
        return commits * max(0.0, self.commit - COMMIT) + answers * self.late


def measured(folder: Path) -> Machine:
    """Measure this machine, with commits to a new file in `folder`."""
    return Machine(plain_commit(folder / "bare.sqlite", 60), asyncio.run(_late()))


def between(before: Machine, after: Machine) -> Machine:
    """The machine between two measurements: the faster of both, so that a disturbance excuses nothing else."""
    return Machine(min(before.commit, after.commit), min(before.late, after.late))


async def _late() -> float:
    """Median seconds by which an answer of a simulated venue is late while nothing else runs."""
    loop, found = asyncio.get_running_loop(), []
    for _ in range(WAKE_UPS):
        at = loop.time() + NAP
        await until(loop, at)
        found.append(loop.time() - at)
    return statistics.median(found)


def plain_commit(path: Path, commits: int = 500) -> float:
    """Mean seconds of one durable insert alone, with the settings of the store's connections."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE journal (sequence INTEGER PRIMARY KEY, body BLOB)")
    body = b"x" * 300
    begun = time.perf_counter()
    for _ in range(commits):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO journal (body) VALUES (?)", (body,))
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - begun
    connection.close()
    return elapsed / commits
