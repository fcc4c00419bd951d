"""`make bench`: the promised numbers, each with its reference; exit 1 if a limit is missed.

Names of parts (`replay`, `tick`, `backtest`, …) as arguments run only those.
"""

from __future__ import annotations

import importlib
import sys

from tests.bench.measure import Measure

PARTS = (
    "replay", "tick", "scale", "backtest", "startup", "memory", "notifications", "report", "closing", "polling",
    "sinks", "latency", "worlds",
)  # fmt: skip


def main(wanted: list[str]) -> int:
    """Measure the parts and print every result; 1 if one misses its limit."""
    all_hold = True
    for part in wanted or PARTS:
        measure: Measure
        for measure in importlib.import_module(f"tests.bench.{part}").measures():
            print(measure.line(), flush=True)
            all_hold = all_hold and measure.holds
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
