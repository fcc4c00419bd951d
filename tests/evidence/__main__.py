"""`make evidence`: the shipped sets over every folder of recorded bars, in parts.

    python -m tests.evidence --date 2026-01-31 [--part crashes] [--books 3] [--seed 7] [--jobs 2]

The bars are in $KILLSWITCH_SHARED/data/market, else in ../shared/data/market. Each part keeps its result in
tests/evidence/results/; docs/evidence.md and the figures in the policies' READMEs are written from all of them, and
what changed on the page is printed. The same bars, seed and counts make the same results. With 3 books all parts take
about ten minutes of processor time: `crashes` eight, in `jobs` processes, and each of the others less than one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from tests.evidence.crashes import crashes
from tests.evidence.ordinary import ordinary
from tests.evidence.readmes import insert
from tests.evidence.results import changes, read_results, write_result
from tests.evidence.sensitivity import bridge
from tests.evidence.thresholds import scaled, walk
from tests.evidence.writing import rendered

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PARTS = {"crashes": crashes, "calm": ordinary, "bridge": bridge, "scaled": scaled, "walk": walk}
TIMES = {"bridge": 2, "calm": 5, "scaled": 4, "walk": 3}
"""So many books for each of those of `crashes`: the parts without backtests take more of them."""


def main(arguments: list[str]) -> int:
    """Run, keep, write, and print what changed; 1 where there are no bars, or parts have never been run."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence", description=__doc__)
    parser.add_argument("--date", required=True, help="what the results are dated, YYYY-MM-DD")
    parser.add_argument("--part", choices=[*PARTS, "all", "page"], default="all", help="`page` runs nothing")
    parser.add_argument("--books", type=int, default=3, help="books of each kind in each market")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    shared = Path(os.environ.get("KILLSWITCH_SHARED") or REPOSITORY.parent / "shared")
    markets = shared / "data" / "market"
    wanted = {"all": list(PARTS), "page": []}.get(options.part, [options.part])
    if wanted and not markets.is_dir():
        sys.stderr.write("no bars: set KILLSWITCH_SHARED to a folder with data/market in it\n")
        return 1
    for name in wanted:
        begun = time.monotonic()
        print(name, file=sys.stderr, flush=True)
        count = max(1, round(options.books * TIMES.get(name, 1)))
        found = PARTS[name](
            markets, REPOSITORY / "policies", count=count, seed=options.seed, jobs=options.jobs,
            say=lambda words: print(words, file=sys.stderr, flush=True),
        )  # fmt: skip
        command = f"make evidence PART={name} DATE={options.date} BOOKS={options.books} SEED={options.seed}"
        write_result(replace(found, command=command, date=options.date))
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return _write()


def _write() -> int:
    results = read_results()
    absent = [name for name in PARTS if name not in results]
    if absent:
        sys.stderr.write(f"no page: {', '.join(absent)} never ran; make evidence PART={absent[0]}\n")
        return 1
    page = REPOSITORY / "docs" / "evidence.md"
    before, after = page.read_text(encoding="utf-8"), rendered(results)
    page.write_text(after, encoding="utf-8")
    insert(results, REPOSITORY / "policies")
    found = changes(before, after)
    print("\n".join(found) if found else "nothing changed on the page")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
