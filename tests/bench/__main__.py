"""`make bench`: the numbers that are promised, each beside its reference; exit 1 if a limit is missed.

Names of parts (`replay`, `tick`, `backtest`, …) as arguments run only those.
"""

from __future__ import annotations

import importlib
import sys

from tests.bench.measure import Measure

PARTS = (
    "replay", "tick", "backtest", "startup", "memory", "notifications", "report", "closing", "reading", "sinks",
    "latency", "worlds",
)  # fmt: skip


def main(wanted: list[str]) -> int:
    """Print every measure of the parts as it is taken; 1 if one misses its limit."""
    held = True
    for part in wanted or PARTS:
        measure: Measure
        for measure in importlib.import_module(f"tests.bench.{part}").measures():
            print(measure.line(), flush=True)
            held = held and measure.holds
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
