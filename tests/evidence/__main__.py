"""`make evidence`: every shipped policy and variant over every folder of recorded bars.

    python -m tests.evidence --date 2026-01-31 [--random 10] [--seed 7] [--jobs 2] [--out docs/evidence.md]

It is told in docs/evidence.md and in the policies' READMEs. The bars are in $KILLSWITCH_SHARED/data/market, else in
../shared/data/market; the same bars, seed and date make the same page.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.evidence.gathering import gather
from tests.evidence.readmes import insert
from tests.evidence.writing import rendered

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def main(arguments: list[str]) -> int:
    """Gather and write; 1 where there are no bars."""
    parser = argparse.ArgumentParser(prog="python -m tests.evidence", description=__doc__)
    parser.add_argument("--date", required=True, help="what the page is dated, YYYY-MM-DD")
    parser.add_argument("--random", type=int, default=10, help="random books of each kind in each market")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "evidence.md")
    options = parser.parse_args(arguments)
    shared = Path(os.environ.get("KILLSWITCH_SHARED") or REPOSITORY.parent / "shared")
    markets = shared / "data" / "market"
    if not markets.is_dir():
        sys.stderr.write("no bars: set KILLSWITCH_SHARED to a folder with data/market in it\n")
        return 1
    evidence = gather(
        markets, REPOSITORY / "policies", random=options.random, seed=options.seed, jobs=options.jobs,
        say=lambda words: print(words, file=sys.stderr, flush=True),
    )  # fmt: skip
    command = f"make evidence DATE={options.date} BOOKS={options.random} SEED={options.seed}"
    options.out.write_text(rendered(evidence, command=command, date=options.date), encoding="utf-8")
    insert(evidence, REPOSITORY / "policies", command=command, date=options.date)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
