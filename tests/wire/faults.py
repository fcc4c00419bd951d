"""The faults of closing over a wire, as a program.

`python -m tests.wire.faults random VENUE FIRST COUNT`: so many random runs from a seed on; a failing one is printed
with the fewest mishaps that make it fail. `python -m tests.wire.faults cases VENUE [NAME]`: every named case that can
be told, or those whose name has NAME in it, the long ones included.
"""

from __future__ import annotations

import importlib
import sys
import time

import pytest

from tests.faults.campaign import random_run, smallest
from tests.wire.carriers import CARRIERS
from tests.wire.scene import carried_by
from tests.wire.test_faults_cases import MODULES, NOT_OVER_THE_WIRE, left_out, mark_defect, told_where_it_can_be
from tests.wire.test_faults_random import seeds_for


def random_runs(venue: str, first: int, count: int) -> int:
    """How many of them failed."""
    began, failed = time.perf_counter(), 0
    seeds = seeds_for(CARRIERS[venue], first, count)
    with carried_by(venue):
        for seed in seeds:
            if random_run(seed).violations:
                failed += 1
                print(smallest(seed), flush=True)
    print(
        f"{venue}: {count} runs, seeds {seeds[0]} to {seeds[-1]}, {failed} failed, {time.perf_counter() - began:.0f} s"
    )
    return failed


class _ToldHere:
    """A pytest plugin: of the cases themselves, those that can be told at a venue, the long ones included."""

    def __init__(self, venue: str, name: str) -> None:
        self._venue, self._name = venue, name

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Function]) -> None:
        """Leave out the others; one that wants an account mode that the venue lacks is skipped when it is told."""
        told: list[pytest.Function] = []
        untold: list[pytest.Function] = []
        for item in items:
            name, brackets, parameters = item.name.partition("[")
            whole = f"{name}[{self._venue}-{parameters}" if brackets else f"{name}[{self._venue}]"
            here = name not in NOT_OVER_THE_WIRE and left_out(self._venue, name, whole) is None
            (told if here and self._name in item.name else untold).append(item)
            item.obj = told_where_it_can_be(item.obj)
            mark_defect(item, whole)
        config.hook.pytest_deselected(items=untold)
        items[:] = told


def cases(venue: str, name: str) -> int:
    """Run the modules of the cases themselves, carried by the venue."""
    files = [str(importlib.import_module(f"tests.cases.test_{module}").__file__) for module in MODULES]
    with carried_by(venue):
        return int(pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[_ToldHere(venue, name)]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["random", venue, first, count]:
            sys.exit(bool(random_runs(venue, int(first), int(count))))
        case ["cases", venue, *names]:
            sys.exit(cases(venue, "".join(names)))
        case _:
            sys.exit(__doc__)
