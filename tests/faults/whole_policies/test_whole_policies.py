"""Whole policies with a hedge, `neutralise` and stops, run over venues' own payloads while requests fail."""

from __future__ import annotations

from functools import cache

import pytest

from tests.faults.whole_policies.simulation import Played, played
from tests.rotation import at_its_turn, each_taking_turns
from tests.wire.closing_venues import CLOSING_VENUES

VENUES = [name for name, each in CLOSING_VENUES.items() if each.names_stops]
SEEDS = range(1, 7)
once = cache(played)


@pytest.mark.parametrize(("venue", "seed"), each_taking_turns(VENUES, "a run of whole policies", SEEDS))
def test_a_run_of_whole_policies_comes_to_rest_and_breaks_no_invariant(venue: str, seed: int) -> None:
    """Stops never cover more than the position and none is left after it is flat; nothing is opened or turned; a leg
    that is naked in the end, or a position without its stop, was reported; the journal knows every order.
    """
    outcome = once(seed, venue)
    assert outcome.violations == (), str(outcome)


def test_the_runs_fire_both_stages_and_stops_and_lose_requests() -> None:
    """Among the seeds of the venue whose turn it is: a cut to neutral, a close of everything, and a stop that fires."""
    venue = at_its_turn(VENUES, "the cover of whole policies")
    runs: list[Played] = [once(seed, venue) for seed in SEEDS]
    fired = {stage for run in runs for stage in run.fired}
    assert fired == {"neutralise", "close"}
    assert sum(run.filled_stops for run in runs) >= 2
    assert sum(run.mishaps for run in runs) >= 20
