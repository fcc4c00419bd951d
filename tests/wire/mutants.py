"""Every field of every answer of a venue changed in turn: `python -m tests.wire.mutants [VENUE…]`.

Prints each answer that an adapter turned into a wrong number; the tests try a sample. A venue takes some minutes.
"""

from __future__ import annotations

import argparse
import sys
import time

from killswitch.conformance.answers import wrong_query_results
from killswitch.conformance.order_answers import wrong_order_results
from tests.conformance.mutation_harnesses import mutation_harnesses


def main() -> int:
    """Exit status 1 if an adapter makes a wrong number of an answer."""
    harnesses = mutation_harnesses()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venue", nargs="*", help=", ".join(harnesses))
    parser.add_argument("--most", type=int, help="number of changes for each venue")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.venue if name not in harnesses]:
        parser.error(f"no venue here is called {unknown[0]}; there are {', '.join(harnesses)}")
    failed = False
    for name in arguments.venue or harnesses:
        harness, started = harnesses[name](), time.process_time()
        tried, wrong = harness.run(
            wrong_query_results(harness, most=arguments.most, report=lambda it: print(it, flush=True))
        )
        harness = harnesses[name]()
        done, refused = harness.run(
            wrong_order_results(harness, most=arguments.most, report=lambda it: print(it, flush=True))
        )
        acts = ", ".join(f"{count} of {call}" for call, count in done.items())
        print(
            f"{name}: {tried} changes of readings, {acts or 'no acts'}, {len(wrong) + len(refused)} wrong, "
            f"{time.process_time() - started:.1f} s of CPU",
            flush=True,
        )
        failed = failed or bool(wrong or refused)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
