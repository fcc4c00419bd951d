"""`python -m tests.baselines` compares all baselines; `record [NAME…]` writes the named ones, or all, again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tests.baselines.comparison import Baseline, baselines


def main(arguments: Sequence[str]) -> int:
    """0 where everything is the same or was written, 1 where something differs, 2 for an unknown name."""
    recording = bool(arguments) and arguments[0] == "record"
    names = arguments[1:] if recording else arguments
    chosen = [each for each in baselines() if not names or _is_named(each, names)]
    if not chosen:
        print(f"no baseline is called {' or '.join(names)}; there are {', '.join(each.name for each in baselines())}")
        return 2
    differing = 0
    for each in chosen:
        if recording:
            each.record()
            print(f"{each.name}: written")
            continue
        found = each.differences()
        differing += bool(found)
        print(f"{each.name}: {'; '.join(found) or 'same'}", flush=True)
    if not recording:
        print(f"{len(chosen) - differing} of {len(chosen)} the same; {time.process_time():.0f} CPU-seconds")
    return int(differing > 0)


def _is_named(baseline: Baseline, names: Sequence[str]) -> bool:
    """Whether a name is the baseline's name, or one of its parts between slashes."""
    return any(name == baseline.name or name in baseline.name.split("/") for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
