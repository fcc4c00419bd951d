"""A few hundred random closes; `make bench-long` runs ten thousand of the same."""

from __future__ import annotations

import pytest

from tests.faults.campaign import random_run, smallest

RUNS = 300
BLOCK = 50


@pytest.mark.parametrize("first", range(0, RUNS, BLOCK))
def test_no_random_close_loses_doubles_turns_or_misreports_anything(first: int) -> None:
    """Whatever fails, and however often the process is killed, the truth and the journal agree in the end."""
    failed = [seed for seed in range(first, first + BLOCK) if random_run(seed).violations]
    assert not failed, str(smallest(failed[0]))


@pytest.mark.parametrize("first", [0, 50])
def test_no_close_in_parts_of_all_positions_in_turn_does_either(first: int) -> None:
    """Four parts of each position at a pace of four orders a second, under the same faults."""
    failed = [seed for seed in range(first, first + BLOCK) if (run := random_run(seed, slices=4)).violations]
    assert not failed, str(run)


@pytest.mark.parametrize("first", range(1000, 1000 + RUNS // 2, BLOCK))
def test_no_random_neutralisation_turns_a_position_or_opens_more_than_its_hedge(first: int) -> None:
    """Two cuts of one book, the second as if no fill of the first was seen, and a hedge: whatever fails meanwhile."""
    runs = [random_run(seed, neutral=True) for seed in range(first, first + BLOCK)]
    failed = [run.seed for run in runs if run.violations]
    assert not failed, str(smallest(failed[0], neutral=True))
    assert sum(run.statuses.get("h1") == "flat" for run in runs) > BLOCK // 2


@pytest.mark.parametrize("first", [2000, 2050])
def test_no_halt_in_the_middle_of_a_close_takes_an_exit_or_leaves_an_entry(first: int) -> None:
    """Nor is anything sold twice: requests and answers are lost and late, and the process is killed meanwhile."""
    runs = [random_run(seed, halted=True) for seed in range(first, first + BLOCK)]
    failed = [run.seed for run in runs if run.violations]
    assert not failed, str(smallest(failed[0], halted=True))
    assert sum(any(name.startswith("halt") for name in run.statuses) for run in runs) > BLOCK // 2


def test_the_same_seed_gives_the_same_run() -> None:
    """Every request, every mishap and every second of it; otherwise a failing seed would be of no use."""
    assert random_run(7) == random_run(7)


def test_a_close_without_faults_needs_no_more_than_a_second() -> None:
    """One position: cancel, poll, send and poll again, at 40 ms each."""
    run = random_run(1, failing=0.0, disturbed=False, positions=1)
    assert (run.violations, run.statuses) == ((), {"d1": "flat"})
    assert run.seconds is not None
    assert run.seconds < 1.0
