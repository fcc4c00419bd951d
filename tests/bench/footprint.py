"""Memory of an interpreter of 1,000 accounts × 50 positions after an hour of virtual ticks, a minute apart.

The policy is that of `scale`; nothing fires. What is counted is the resident memory of a separate process
(`python -m tests.bench.footprint`) beyond that of its imports and of the compiled policy, next to the memory of the
1,000 account snapshots of one tick alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

from killswitch.planning.interpreter import Interpreter
from tests.bench.accounts import HELD, Holdings, snapshots, walk
from tests.bench.measure import Measure
from tests.bench.memory import resident
from tests.bench.replay import compiled
from tests.bench.scale import POLICY

ACCOUNTS, TICKS = 1_000, 61


def measures() -> Iterator[Measure]:
    """Memory of each account, next to that of its snapshot; nothing is promised yet."""
    command = [sys.executable, "-m", "tests.bench.footprint"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours, reference = (int(part) / ACCOUNTS for part in output.split())
    name = f"memory of each of {ACCOUNTS:,} accounts × {HELD} positions after an hour"
    yield Measure(name, ours, reference, "one snapshot of it", unit="KB")


def run() -> tuple[int, int]:
    """(KB after all ticks, KB of the snapshots of one tick), both without what the process needs before."""
    interpreter, holdings, marks = Interpreter(compiled(POLICY)), Holdings.of(ACCOUNTS), walk(TICKS)
    before = resident()
    first = tuple(snapshots(holdings, marks[:1], timedelta(minutes=1)))
    reference = resident() - before
    del first
    for snapshot in snapshots(holdings, marks, timedelta(minutes=1)):
        if interpreter.tick(snapshot).decisions:
            raise AssertionError("something fires: the accounts are no longer equal")
    return resident() - before, reference


if __name__ == "__main__":
    print(*run())
