"""`make bench`: the promised numbers, each with its reference; exit 1 if a limit is missed.

Without arguments it runs the parts of everyday work, at most ten minutes on a quiet machine; `long` (`make bench-long`)
runs the others, and names (`make bench PARTS="replay closing-1000"`) run those. Parts run one after the other, each in
a process of its own, and two benches on a machine wait for each other: nothing runs while a part is timed. Timed parts
run before those that count or that measure in virtual time, which load does not change.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from tests.bench.measure import Measure


class Part(Struct, frozen=True):
    """A function of a module that yields measures. `timed`: other load changes its numbers."""

    name: str
    module: str
    run: Literal["everyday", "long"]
    function: str = "measures"
    timed: bool = True


PARTS: Final = (
    Part("startup", "desk", "everyday", "startup"),
    Part("desk", "desk", "everyday"),
    Part("tick", "tick", "everyday"),
    Part("replay", "replay", "everyday"),
    Part("backtest", "backtest", "everyday"),
    Part("scale", "scale", "everyday"),
    Part("signals", "signals", "everyday"),
    Part("closing", "closing_parts", "everyday", "short"),
    Part("report", "report", "everyday"),
    Part("scenarios", "scenarios", "everyday"),
    Part("notifications", "notifications", "everyday"),
    Part("sinks", "sinks", "everyday"),
    Part("reload", "desk", "everyday", "reload"),
    Part("push", "source", "everyday", "pushes"),
    Part("proofs", "proofs", "everyday"),
    Part("impact", "backtest", "everyday", "impact"),
    Part("gate", "tick", "everyday", "gate"),
    Part("gate-http", "serving.gate", "everyday"),
    Part("board", "serving.board", "everyday"),
    Part("halt", "serving.commands", "everyday", "halts"),
    Part("audit", "record.audit", "everyday"),
    Part("footprint", "memory", "everyday", "footprint", timed=False),
    Part("closing-1000", "closing_parts", "long", "thousand"),
    Part("polling", "polling", "long"),
    Part("backtest-signals", "backtest_signals", "long"),
    Part("signals-10000", "signals", "long", "ten_thousand"),
    Part("dead-man", "latency", "long", "dead_man"),
    Part("memory", "memory", "long", timed=False),
    Part("closing-faults", "closing_parts", "long", "faults", timed=False),
    Part("latency", "latency", "long", timed=False),
    Part("worlds", "worlds", "long", timed=False),
)
"""In the order in which they run."""
QUIET: Final = 0.5
"""The load of the last minute above which timed numbers are those of a busy machine."""


def main(wanted: Sequence[str]) -> int:
    """Run the parts and print every result; 1 if one misses its limit, 64 for an unknown name."""
    parts = chosen(wanted)
    if parts is None:
        names = ", ".join(part.name for part in PARTS)
        print(f"no such part; parts are {names}; `long` is all that `make bench` leaves out", file=sys.stderr)
        return 64
    if len(parts) == 1:
        with alone_on_the_machine():
            return measure(parts[0])
    codes = [subprocess.run([sys.executable, "-m", "tests.bench", part.name], check=False).returncode for part in parts]
    return max(codes, key=abs)


def chosen(wanted: Sequence[str]) -> list[Part] | None:
    """The parts with these names, or of this run, in the order in which they run; None if a name is unknown."""
    asked = set(wanted or ["everyday"])
    if asked - {part.name for part in PARTS} - {part.run for part in PARTS}:
        return None
    return [part for part in PARTS if asked & {part.name, part.run}]


def measure(part: Part) -> int:
    """Run one part in this process; 1 if a limit is missed."""
    load = os.getloadavg()[0]
    if part.timed and load > QUIET:
        print(f"{part.name}: the machine is busy (a load of {load:.1f}): compare ratios, not times", flush=True)
    begun, all_hold = time.monotonic(), True
    each: Measure
    for each in getattr(importlib.import_module(f"tests.bench.{part.module}"), part.function)():
        print(each.line(), flush=True)
        all_hold = all_hold and each.holds
    print(f"({part.name}: {time.monotonic() - begun:.0f} s)", flush=True)
    return 0 if all_hold else 1


@contextmanager
def alone_on_the_machine() -> Iterator[None]:
    """Wait until no other bench runs."""
    with (Path(tempfile.gettempdir()) / "killswitch-bench.lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another bench on this machine", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
