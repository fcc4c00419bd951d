"""`ksctl test` on 1,000 scenarios of 100 steps, promised within 10 seconds on two cores.

The scenarios are of `futures-drawdown` with two positions, in 100 files; each fires its first level. The time is that
of the whole command in a process of its own: reading the files, compiling, running in as many processes as there are
processors, coverage, and the counts. Its processor time is compared with that of the engine alone on the same
snapshots, in the same run: what scenarios add to a tick.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from killswitch.cli.policy.verbs import read_set
from killswitch.planning.replayed_ticks import ReplayedTicks
from killswitch.scenario.book import snapshots
from killswitch.scenario.resolve import resolve
from tests.bench.measure import Measure

POLICIES = Path(__file__).resolve().parents[2] / "policies" / "futures-drawdown" / "policy.yaml"
SCENARIOS, IN_A_FILE = 1_000, 10
PROMISED = 10.0
"""Seconds."""
MOST_TIMES = 2.0
"""A scenario has its book, trace, comparison and files besides the engine."""

TEXT = """apiVersion: killswitch.dev/v1
kind: Scenario
metadata: {{name: n{number}}}
spec:
  policies: [futures-drawdown]
  starts: 2026-03-02 09:00 UTC
  every: 1m
  accounts:
    main:
      venue: paper
      market: swap
      currency: USDT
      equity: 10000 =x60 9500 =x38
      positions:
        - {{symbol: "BTC/USDT:USDT", side: long, contracts: 1, price: 20000, amount_step: 0.001}}
        - {{symbol: "ETH/USDT:USDT", side: short, contracts: 2, price: 1000, amount_step: 0.001}}
  expect:
    - {{at: 63m, fires: trim-top-risk, lock: reduce_only}}
"""

_PROGRAM = "from killswitch.cli import main; main()"


def measures() -> Iterator[Measure]:
    """The promise, for the whole command."""
    with TemporaryDirectory() as folder:
        for first in range(0, SCENARIOS, IN_A_FILE):
            texts = (TEXT.format(number=number) for number in range(first, first + IN_A_FILE))
            (Path(folder) / f"{first}.yaml").write_text("---\n".join(texts), encoding="utf-8")
        command = [sys.executable, "-c", _PROGRAM, "test", str(POLICIES), folder]
        begun, used = time.perf_counter(), _of_children()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took, used = time.perf_counter() - begun, _of_children() - used
        if f"{SCENARIOS:,} scenarios: {SCENARIOS:,} passed; {SCENARIOS * 100:,} steps" not in done.stdout:
            raise AssertionError(done.stdout[-2000:] + done.stderr[-2000:])
        yield Measure(f"{SCENARIOS:,} scenarios of 100 steps", took * 1e3, PROMISED * 1e3, "promised", 1.0)
        engine = _engine_alone(Path(folder)) * SCENARIOS / IN_A_FILE
        yield Measure("processor time of them", used * 1e3, engine * 1e3, "the engine alone", MOST_TIMES)


def _of_children() -> float:
    """Seconds that processes of ours which have ended, and theirs, have computed."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _engine_alone(folder: Path) -> float:
    """Processor seconds of the engine for the scenarios of one file, with snapshots made before; the best of 20."""
    loaded, policies, _ = read_set([POLICIES, folder / "0.yaml"], None, accounts=False)
    if policies is None:
        raise AssertionError("the policies do not compile")
    cases = [[it for _, it in snapshots(each)] for each in resolve(loaded.documents, policies)[0]]
    best = float("inf")
    for _ in range(20):
        begun = time.process_time()
        for case in cases:
            ticks = ReplayedTicks(policies)
            for snapshot in case:
                ticks.tick(snapshot, lambda: None)
        best = min(best, time.process_time() - begun)
    return best
