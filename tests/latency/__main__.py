"""The latency suite as a table: `python -m tests.latency [VENUE] [CASE]`; a part of a case's name is enough.

Seconds from the event at the venue to the first closing order that it received, by the venue's own clock. Exit 1 if
one misses its bound. `python -m tests.latency breaches [VENUE]` prints instead how soon a breach of a lock is answered:
seconds from the fill of a bot at the venue to our order there (minimum, median, maximum).
"""

from __future__ import annotations

import sys

from tests.latency.breaches import measure
from tests.latency.case_runner import cases_of, run
from tests.latency.sites import VENUES


def main(wanted: list[str]) -> int:
    """Run every case at every venue, or the wanted ones, and print a line for each."""
    venues = [it for it in wanted if it in VENUES] or list(VENUES)
    if "breaches" in wanted:
        for name in venues:
            for times in measure(name):
                print(times.line, flush=True)
        return 0
    parts = [it for it in wanted if it not in VENUES]
    missed = total = 0
    for name in venues:
        for case in cases_of(VENUES[name]):
            if parts and not any(part in case.name for part in parts):
                continue
            outcome = run(name, case.name)
            print(outcome.line, flush=True)
            total, missed = total + 1, missed + (not outcome.holds)
    print(f"{total} cases, {missed} missed")
    return bool(missed) or not total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
