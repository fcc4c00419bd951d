"""Random worlds against the naive truth: false closes and delays, counted per family.

    python -m tests.worlds [--worlds N] [--family NAME] [--seed S] [--jobs J] [--list] [--verbose]
    python -m tests.worlds --rule page                  # the first rule read naively, instead of the product
    python -m tests.worlds --show FAMILY --seed S       # one world, tick by tick
    python -m tests.worlds --show NAMED                 # the same for a named world

`--worlds` is the number of worlds of each family, `--seed` the first of their seeds (0). `--family` takes a part of a
name, and may be given more than once. The same family and seed are the same world on every machine. The exit status is
1 when any family is outside of what it is allowed.

The table has, per family: worlds, false closes, losses that were real, their delays (p50, p90, max, in seconds), how
many were late or missed, worlds in which a value or a latch was wrong, worlds with a lock that sent nothing, and the
figures of the page next to them. `--verbose`
prints every world that went wrong with its seed.
"""

from __future__ import annotations

import argparse
import sys

from tests.worlds.report import show, table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.worlds", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--worlds", type=int, default=20, help="worlds of each family")
    parser.add_argument("--family", action="append", default=[], help="only families whose name contains this")
    parser.add_argument("--seed", type=int, default=0, help="first seed, or the world's where one is shown")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--verbose", action="store_true", help="print every world that went wrong")
    parser.add_argument("--rule", choices=["product", "page"], default="product", help="who is judged")
    parser.add_argument("--list", action="store_true", help="print the names of families and named worlds")
    parser.add_argument("--show", metavar="FAMILY", help="print one world tick by tick")
    given = parser.parse_args()
    if given.list:
        from tests.worlds.catalogue import FAMILIES, NAMED

        print("\n".join([*FAMILIES, *(f"{name} (named)" for name in NAMED)]))
        return 0
    if given.show:
        return show(given.show, given.seed)
    return table(given.family, given.worlds, given.seed, given.jobs, verbose=given.verbose, rule=given.rule)


if __name__ == "__main__":
    sys.exit(main())
