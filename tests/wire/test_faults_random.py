"""Random closes under random trouble, over the wire: the runs of `tests.faults.campaign`, kills in the middle included.

More of them: `python -m tests.wire.faults random VENUE FIRST COUNT`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.faults.campaign import random_run
from tests.faults.plans import Plan, disturbed_plan
from tests.rotation import LEFT, at_its_turn
from tests.wire.carriers import CARRIERS, Carrier
from tests.wire.scene import carried_by

RUNS: Final = 30


def seeds_for(carrier: Carrier, first: int, count: int) -> list[int]:
    """The next `count` seeds that can be told at the venue: in an account mode that it has on loopback, with stops only
    where these have names."""
    found: list[int] = []
    while len(found) < count:
        plan = plan_of(first)
        if plan.mode in carrier.modes and (carrier.names_stops or not plan.stops):
            found.append(first)
        first += 1
    return found


def plan_of(seed: int) -> Plan:
    """What a seed stands for."""
    return disturbed_plan(random.Random(seed), None)


def _told() -> Iterator[Any]:
    """Each run of a venue's, the first of all venues beside each other, the second, and so on: one of each is here."""
    seeds = {name: seeds_for(carrier, 1, RUNS) for name, carrier in CARRIERS.items()}
    for number in range(RUNS):
        now = at_its_turn(CARRIERS, f"a random close {number}")
        for name in CARRIERS:
            yield pytest.param(name, seeds[name][number], marks=() if name == now else LEFT)


@pytest.mark.parametrize(("venue", "seed"), list(_told()))
def test_a_random_close_ends_and_no_promise_is_broken(venue: str, seed: int) -> None:
    """No order is unwritten, no position turned or closed too far, nothing called flat that is not, and it ends."""
    with carried_by(venue):
        outcome = random_run(seed)
    assert outcome.violations == (), str(outcome)
    assert outcome.seconds is not None


def test_the_runs_are_of_every_kind() -> None:
    """Among the seeds of a venue are kills, both account modes, stops that block, and orders sent several at once."""
    plans = [plan_of(seed) for seed in seeds_for(CARRIERS["binanceusdm"], 1, RUNS)]
    assert sum(bool(plan.deaths) for plan in plans) >= 5
    assert {plan.mode for plan in plans} >= {"one_way", "hedge"}
    assert any(plan.stops for plan in plans)
    assert any(plan.traits.batch > 1 for plan in plans)
