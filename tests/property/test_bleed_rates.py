"""The rates at which positions lose, which are computed in floats, against the formula in exact decimals."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import HOUR, to_micros
from killswitch.signals.history.bleed_rates import bleed_rates
from killswitch.signals.history.samples import SampleSeries
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, position
from tests.worlds.signals import history_of, restarted

EVERY = 10
"""Minutes between two snapshots."""
WINDOWS = (15, 60, 240)
SYMBOLS = ("A", "B", "C")
PRECISE = Decimal("1e-13")
"""The greatest error of a difference of P&L, as a share of the position's own largest amount."""

AMOUNTS = st.one_of(
    st.decimals(-10_000, 10_000, places=2),
    st.decimals(-(10**6), 10**6, places=8),
    st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("0.3"), Decimal("-0.7"), Decimal("1e-8"), Decimal(10) ** 12]),
)


class Seen(Struct, frozen=True):
    """One snapshot: symbol → P&L of the open positions, in the venue's order, and whether a run restarts before it."""

    pnl: Mapping[str, Decimal]
    is_restarted: bool


@st.composite
def courses(draw: st.DrawFn) -> list[Seen]:
    """Snapshots over up to six hours: two positions, in changing order, and a third that is opened at some time."""
    opened = draw(st.integers(0, 40))
    found = []
    for number in range(draw(st.integers(27, 36))):
        order = draw(st.sampled_from([SYMBOLS, SYMBOLS, SYMBOLS, ("B", "A", "C")]))
        pnl = {name: draw(AMOUNTS) for name in order if name != "C" or number >= opened}
        found.append(Seen(pnl, draw(st.sampled_from([False] * 7 + [True]))))
    return found


def exact(course: list[Seen], symbol: str, now: int) -> Decimal | None:
    """The mean of the three rates by the words of the definition, in decimals; None if a window's begin is unknown.

    What a position had made before it was opened is nothing.
    """
    opened = next(number for number, seen in enumerate(course) if symbol in seen.pnl)
    total = Decimal(0)
    for window in WINDOWS:
        begin = (now * EVERY - window) // EVERY
        if opened > 0 and opened >= begin:
            begin, made = opened, Decimal(0)
        elif begin >= 0:
            made = course[begin].pnl[symbol]
        else:
            return None
        elapsed = max(Decimal((now - begin) * EVERY), Decimal(window) / 4)
        total += (made - course[now].pnl[symbol]) * 60 / elapsed
    return total / 3


def observed(course: list[Seen]) -> list[Mapping[str, float | None]]:
    """The rates after each snapshot."""
    needed = SignalRef("position.bleed_rate")
    past, found = history_of([needed], 6 * HOUR), list[Mapping[str, float | None]]()
    for number, seen in enumerate(course):
        held = [position(name, "long", f"{made:f}") for name, made in seen.pnl.items()]
        total = sum(seen.pnl.values(), Decimal(10) ** 13)
        if seen.is_restarted:
            past = restarted(past, history_of([needed], 6 * HOUR))
        at = to_micros(after(minutes=EVERY * number))
        past.observe(ScopeView(at, True, (account(f"{total:f}", held),), {}, None))
        rates = bleed_rates(past)
        assert bleed_rates(past) == rates, "the reading that is kept"
        found.append({symbol: rate for (_, symbol, _), rate in rates.items()})
    return found


@settings(max_examples=60, deadline=None)
@given(courses())
def test_each_rate_is_the_decimal_one_but_for_the_rounding_of_its_own_amounts(course: list[Seen]) -> None:
    """Whatever the order of the rows, restarts, young positions, and how large the P&L of the others is."""
    for now, rates in enumerate(observed(course)):
        for symbol, rate in rates.items():
            wanted = exact(course, symbol, now)
            if wanted is None or rate is None:
                assert (rate, wanted) == (None, None)
                continue
            largest = max(abs(seen.pnl[symbol]) for seen in course[: now + 1] if symbol in seen.pnl)
            error = abs(Decimal(rate) - wanted)
            assert error <= abs(wanted) * Decimal("1e-12") + 10 * largest * PRECISE, (symbol, now)


@pytest.mark.parametrize("size", ["0.1", "1000", "100000000"])
def test_amounts_of_cents_have_the_rate_to_the_last_digit(size: str) -> None:
    """0.3 − 0.1 is no 0.2 in floats: one unit in the last place would make a threshold of exactly 0.2 untrue.

    It lost two tenths in the last 15 minutes and nothing before: 0.8 an hour, 0.2 and 0.05, in the mean 0.35.
    """
    before, now = Decimal(size) * 3, Decimal(size)
    course = [Seen({"A": before, "B": Decimal(0)}, False)] * 26 + [Seen({"A": now, "B": Decimal(0)}, False)] * 2
    lost = float(before - now)
    rate = observed(course)[-2]["A"]
    # the last row at or before the begin of 15 minutes is 20 minutes old
    assert rate == pytest.approx(lost * (3 + 1 + 0.25) / 3, rel=1e-15)
    assert observed(course)[-2]["B"] == 0.0


@given(st.lists(st.integers(1, 400_000_000), min_size=1, max_size=60), st.sampled_from([1, 60_000_000, 900_000_000]))
def test_a_sample_is_due_with_the_first_observation_at_or_after_each_grid_point(steps: list[int], every: int) -> None:
    """In whole microseconds since 1970, without floats: by counting the grid points that lie between."""
    series, at, last = SampleSeries(every, 10**18), 1_700_000_000_000_000, None
    for step in steps:
        at += step
        points = (
            1
            if last is None
            else sum(1 for _ in range(-(-(last + 1) // every) * every, at + 1, every))
            if every > 1
            else 1
        )
        assert series.is_due(at) == (points > 0)
        if points:
            series.add(at, 100.0, None, 10**18)
            last = at
