"""The faults of closing over a wire, as a program.

`python -m tests.wire.faults random VENUE FIRST COUNT`: COUNT random runs from the seed FIRST on; a failing run is
printed with the fewest mishaps that make it fail. `python -m tests.wire.faults cases VENUE [NAME]`: every named case
that the venue supports, or those whose name contains NAME, the long ones included. VENUE is one of binanceusdm, bybit,
okx, bitget, mexc.
"""

from __future__ import annotations

import importlib
import sys
import time

import pytest

from tests.faults.campaign import random_run, smallest
from tests.wire.adapter_wire import closing_over
from tests.wire.closing_venues import CLOSING_VENUES
from tests.wire.test_faults_cases import (
    MODULES,
    NOT_OVER_THE_WIRE,
    exclusion_reason,
    mark_defect,
    skipping_unsupported_modes,
)
from tests.wire.test_faults_random import seeds_for


def random_runs(venue: str, first: int, count: int) -> int:
    """Run the seeds, and return how many failed."""
    started, failed = time.perf_counter(), 0
    seeds = seeds_for(CLOSING_VENUES[venue], first, count)
    with closing_over(venue):
        for seed in seeds:
            if random_run(seed).violations:
                failed += 1
                print(smallest(seed), flush=True)
    print(
        f"{venue}: {count} runs, seeds {seeds[0]} to {seeds[-1]}, {failed} failed, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return failed


class _SupportedCases:
    """A pytest plugin: selects the cases that a venue supports, the long ones included."""

    def __init__(self, venue: str, name: str) -> None:
        self._venue, self._name = venue, name

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Function]) -> None:
        """Deselect the others; a case that needs an account mode that the venue lacks is skipped when it runs."""
        selected: list[pytest.Function] = []
        deselected: list[pytest.Function] = []
        for item in items:
            name, brackets, parameters = item.name.partition("[")
            full_name = f"{name}[{self._venue}-{parameters}" if brackets else f"{name}[{self._venue}]"
            is_supported = name not in NOT_OVER_THE_WIRE and exclusion_reason(self._venue, name, full_name) is None
            (selected if is_supported and self._name in item.name else deselected).append(item)
            item.obj = skipping_unsupported_modes(item.obj)
            mark_defect(item, full_name)
        config.hook.pytest_deselected(items=deselected)
        items[:] = selected


def cases(venue: str, name: str) -> int:
    """Run the modules of the named cases over the venue."""
    files = [str(importlib.import_module(f"tests.cases.test_{module}").__file__) for module in MODULES]
    with closing_over(venue):
        return int(pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[_SupportedCases(venue, name)]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["random", venue, first, count] if venue in CLOSING_VENUES:
            sys.exit(bool(random_runs(venue, int(first), int(count))))
        case ["cases", venue, *names] if venue in CLOSING_VENUES:
            sys.exit(cases(venue, "".join(names)))
        case _:
            sys.exit(__doc__)
