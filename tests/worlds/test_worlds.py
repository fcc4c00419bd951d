"""Random worlds of every family against the naive truth: no false close, and no loss that is seen too late.

Each family has three worlds here, and each has seeds of its own (0 to 2, 3 to 5, 6 to 8, and again), always the same:
some 450 worlds, for which a busy machine only takes longer, since nothing in a world is measured by its clock. The rest
is run by hand, and what came of it is in `docs/benchmarks.md`: `make bench` takes ten of each family and prints their
delays, and

    python -m tests.worlds --worlds 70 --seed 10000

more than ten thousand. `--show FAMILY --seed S` prints one tick by tick.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.worlds.catalogue import FAMILIES, NAMED
from tests.worlds.report import complaints, run_one

EACH: Final = 3
TURNS: Final = 3
"""After so many families the seeds begin anew."""


@pytest.mark.parametrize(("number", "name"), list(enumerate(FAMILIES)), ids=list(FAMILIES))
def test_no_false_close_and_no_late_one(number: int, name: str) -> None:
    """Three worlds of each family; only where the rule chooses an error may one close falsely."""
    first = number % TURNS * EACH
    problems = complaints(FAMILIES[name], [run_one(name, seed) for seed in range(first, first + EACH)])
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_world_has_its_right_outcome(name: str) -> None:
    """It closes where the loss is real, in the time that the world allows, and nowhere else."""
    problems = NAMED[name].complaints(name)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def test_every_number_has_a_named_world() -> None:
    """No number is left out."""
    assert {each.number for each in NAMED.values()} == set(range(1, 21))
