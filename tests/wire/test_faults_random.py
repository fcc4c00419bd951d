"""Random closes under random mishaps, over the wire: the runs of `tests.faults.campaign`, kills in the middle included.

For more of them: `python -m tests.wire.faults random VENUE FIRST COUNT`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.faults.campaign import random_run
from tests.faults.plans import Plan, disturbed_plan
from tests.rotation import LEFT, at_its_turn
from tests.wire.adapter_wire import closing_over
from tests.wire.closing_venues import CLOSING_VENUES, ClosingVenue

RUNS: Final = 30


def seeds_for(closing_venue: ClosingVenue, first: int, count: int) -> list[int]:
    """The next `count` seeds that the venue supports: in an account mode that it has on loopback, with stops only if
    its stops have client ids.
    """
    found: list[int] = []
    while len(found) < count:
        plan = plan_of(first)
        if plan.mode in closing_venue.modes and (closing_venue.names_stops or not plan.stops):
            found.append(first)
        first += 1
    return found


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    return disturbed_plan(random.Random(seed), None)


def _runs() -> Iterator[Any]:
    """One run of each venue in turn, then the next of each: of each group one runs now."""
    seeds = {name: seeds_for(closing_venue, 1, RUNS) for name, closing_venue in CLOSING_VENUES.items()}
    for number in range(RUNS):
        now = at_its_turn(CLOSING_VENUES, f"a random close {number}")
        for name in CLOSING_VENUES:
            yield pytest.param(name, seeds[name][number], marks=() if name == now else LEFT)


@pytest.mark.parametrize(("venue", "seed"), list(_runs()))
def test_a_random_close_ends_and_breaks_no_guarantee(venue: str, seed: int) -> None:
    """Every order is journaled, no position is turned or closed too far, nothing that is not flat is called flat, and
    it ends.
    """
    with closing_over(venue):
        outcome = random_run(seed)
    assert outcome.violations == (), str(outcome)
    assert outcome.seconds is not None


def test_the_seeds_cover_every_kind_of_run() -> None:
    """Among the seeds of a venue are kills, both account modes, blocking stops, and orders sent in batches."""
    plans = [plan_of(seed) for seed in seeds_for(CLOSING_VENUES["binanceusdm"], 1, RUNS)]
    assert sum(bool(plan.deaths) for plan in plans) >= 5
    assert {plan.mode for plan in plans} >= {"one_way", "hedge"}
    assert any(plan.stops for plan in plans)
    assert any(plan.traits.batch > 1 for plan in plans)
