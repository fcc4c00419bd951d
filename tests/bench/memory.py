"""Memory of a runner after 100,000 ticks, against its own after 10,000: it must not grow.

The real runner, armed, on the paper venue in the same process: a tick a second of virtual time through a calm
day, with a crash on the way in which stages fire and positions are closed. The store is a real one on disk.
It runs in a separate process (`python -m tests.bench.memory`), so that nothing else is counted.

The part `footprint`: memory of an interpreter of 1,000 accounts × 50 positions after an hour of virtual ticks, a minute
apart. The policy is that of `scale`; nothing fires. What is counted is the resident memory of a separate process
(`python -m tests.bench.memory accounts`) beyond that of its imports and of the compiled policy, next to the memory of
the 1,000 account snapshots of one tick alone.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from killswitch.accounts.arming import ArmedAccount
from killswitch.lab.book import demo_book
from killswitch.lab.crash import CrashModel, crash_bars
from killswitch.lab.feed import Feed
from killswitch.lab.rehearsal import VirtualClock
from killswitch.planning.interpreter import Interpreter
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.store.sqlite import open_store
from killswitch_paper.local import LocalVenue
from tests.bench.accounts import HELD, Holdings, snapshots, walk
from tests.bench.measure import Measure
from tests.bench.replay import POLICIES, compiled
from tests.bench.scale import POLICY

EARLY, LATE = 10_000, 100_000
CRASH = CrashModel(calm=700, after=900)
"""The minutes of a little more than 100,000 seconds; the crash comes at tick 42,000."""
ACCOUNTS, TICKS = 1_000, 61


def measures() -> Iterator[Measure]:
    """The promise: growth of at most five hundredths."""
    early, late, decisions = _measured_apart()
    name = f"memory after {LATE:,} ticks ({decisions} decisions)"
    yield Measure(name, late / 1024, early / 1024, f"after {EARLY:,}", 1.05, "MB")


def footprint() -> Iterator[Measure]:
    """Memory of each account, next to that of its snapshot; nothing is promised yet."""
    ours, reference = (each / ACCOUNTS for each in _measured_apart("accounts"))
    name = f"memory of each of {ACCOUNTS:,} accounts × {HELD} positions after an hour"
    yield Measure(name, ours, reference, "one snapshot of it", unit="KB")


def _measured_apart(*arguments: str) -> list[int]:
    """What this module prints as a process of its own."""
    command = [sys.executable, "-m", "tests.bench.memory", *arguments]
    return [int(part) for part in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def resident() -> int:
    """Resident memory of this process in KB (Linux)."""
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("this system does not report resident memory in /proc")


def fast_folder() -> str | None:
    """A folder in memory if there is one, because the process is measured and not the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


async def ticks(runner: Runner, clock: VirtualClock, feed: Feed, count: int) -> int:
    """Run `count` ticks a second apart, closing in between; the number of decisions."""
    decisions = 0
    for _ in range(count):
        decisions += len((await runner.tick()).decisions)
        for _ in range(10):
            if not await runner.advance():
                break
        await clock.sleep(1.0)
        feed.until(clock.now())
    return decisions


async def run(folder: Path) -> tuple[int, int, int]:
    """Run all ticks: (KB after EARLY ticks, KB after LATE ticks, decisions)."""
    feed = Feed(crash_bars(7, CRASH), demo_book(), seed=7)
    begin = feed.market.now
    assert begin is not None
    clock = VirtualClock(begin)
    account = demo_book().accounts[0]
    venue = LocalVenue(account.account, feed.market, clock)
    armed = ArmedAccount(account.account, "paper", account.market, account.currency, venue, armed=True)
    store = open_store(str(folder / "store.sqlite"))
    pace = RunnerPace(interval=1.0, read_timeout=5.0)
    locks = LockPaths(folder / "locks", None)
    runner = assemble(compiled(POLICIES), {account.account: armed}, store, clock, pace, live=True, locks=locks)
    await runner.start()
    decisions = await ticks(runner, clock, feed, EARLY)
    early = resident()
    decisions += await ticks(runner, clock, feed, LATE - EARLY)
    late = resident()
    await runner.finish()
    store.close()
    return early, late, decisions


def run_accounts() -> tuple[int, int]:
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
    if sys.argv[1:] == ["accounts"]:
        print(*run_accounts())
        sys.exit()
    with tempfile.TemporaryDirectory(dir=fast_folder()) as place:
        print(*asyncio.run(run(Path(place))))
