"""From an event at the venue to the first closing order: every named case at one venue, and a few at all of them.

The cases are distributed over the venues in turn, so that each has its share; three cases run at all venues, each
venue in turn (`tests/rotation.py`). Seconds are those of the venues' clocks, which a busy machine does not slow. All
cases at all venues run in `make bench-long` (its part `latency`) or `python -m tests.latency [VENUE] [CASE]`, and the
results are in `docs/benchmarks.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import pytest

from tests.latency.case_runner import Outcome, cases_of, run
from tests.latency.cases import CASES
from tests.latency.sites import VENUES
from tests.rotation import taking_turns

EVERYWHERE: Final = ("plain", "stops fill, rows 10s", "30% out, rows 15s")


def _distributed() -> Iterator[tuple[str, str]]:
    able = {name: {case.name for case in cases_of(venue)} for name, venue in VENUES.items()}
    for number, name in enumerate(CASES):
        venues = [venue for venue in VENUES if name in able[venue]]
        yield from ((venue, name) for venue in (venues if name in EVERYWHERE else [venues[number % len(venues)]]))


def _in_turn() -> Iterator[Any]:
    for name, pairs in groupby(_distributed(), key=itemgetter(1)):
        yield from taking_turns([venue for venue, _ in pairs], "from an event to an order", name)


@pytest.mark.parametrize(("venue", "name"), list(_in_turn()), ids=str)
def test_a_loss_is_closed_in_time_and_a_transfer_closes_nothing(venue: str, name: str) -> None:
    """The first order arrives within the case's bound; where nothing was lost, none arrives."""
    outcome = run(venue, name)
    assert outcome.holds, outcome.line


def test_every_case_runs_at_some_venue_and_every_venue_runs_a_case() -> None:
    """The distribution omits no case and no venue."""
    assert {name for _, name in _distributed()} == set(CASES)
    assert {venue for venue, _ in _distributed()} == set(VENUES)


@pytest.mark.parametrize(
    ("elapsed", "must_by", "holds"),
    [
        (1.0, 1.3, True),
        (1.4, 1.3, False),
        (None, 1.3, False),
        (-0.5, 1.3, False),
        (None, None, True),
        (3.0, None, False),
    ],
)
def test_an_outcome_holds_where_the_order_was_in_time_or_none_was_due(
    elapsed: float | None, must_by: float | None, holds: bool
) -> None:
    """An order before the event is as wrong as one that is too late."""
    assert Outcome("okx", "plain", elapsed, must_by).holds is holds
    assert not Outcome("okx", "plain", elapsed, must_by, ("the runner died",)).holds
