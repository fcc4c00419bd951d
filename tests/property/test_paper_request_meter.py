"""The request meter of the paper venue, compared with a plain log of requests."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from killswitch.market.meter import NEVER, Meter
from killswitch.model.instant import SECOND
from killswitch.model.venue import Cost, RateLimit, VenueTraits

PER, ALLOWED = 2.0, 5
asks = st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 6)), max_size=40)


def _taken(log: Sequence[tuple[int, int]], at: int) -> int:
    return sum(units for when, units in log if at - PER * SECOND < when <= at)


@given(asks)
def test_it_admits_what_fits_and_gives_the_exact_wait_of_the_rest(steps: list[tuple[int, int]]) -> None:
    """Never more than is allowed in any window; a refused call fits at the given time, and not a microsecond before."""
    meter = Meter(VenueTraits((RateLimit("a", ALLOWED, PER),), (Cost("submit", "a", each=1),)))
    log: list[tuple[int, int]] = []
    at = 0
    for pause, units in steps:
        at += pause
        wait = meter.charge("main", "submit", ["A"] * units, at)
        assert (wait is None) == (_taken(log, at) + units <= ALLOWED)
        if wait is None:
            log.append((at, units))
        elif wait == NEVER:
            assert units > ALLOWED
        else:
            then = at + round(wait * SECOND)
            assert _taken(log, then) + units <= ALLOWED < _taken(log, then - 1) + units
        assert meter.used("main", at) == {"a": _taken(log, at)}
