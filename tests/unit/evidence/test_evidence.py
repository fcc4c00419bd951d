"""The evidence page: what counts as a false firing, and that a page can be made of little."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, Part
from killswitch.lab.outcome import Course
from killswitch.model.instant import to_micros
from killswitch.runner.opening import read_policies
from tests.evidence.gathering import HORIZON, Candidate, Case, Evidence, Firings, came_back
from tests.evidence.writing import written
from tests.runs import START, run, tried

HOUR = timedelta(hours=1)


def course(**at_hours: float) -> Course:
    """Equity by hour (`h0`, `h24`): held until the next one that is given, for 48 hours."""
    known = {int(name[1:]): value for name, value in at_hours.items()}
    equity: list[float] = []
    for hour in range(48):
        equity.append(known.get(hour, equity[-1] if equity else 0.0))
    return Course([to_micros(START + hour * HOUR) for hour in range(48)], equity, [], [], {})


@pytest.mark.parametrize(
    ("fired", "path", "false"),
    [
        (5, {"h0": 100.0, "h5": 95.0, "h6": 90.0, "h29": 95.0}, True),
        (5, {"h0": 100.0, "h5": 95.0, "h6": 99.0, "h29": 94.0}, False),
        (5, {"h0": 100.0, "h5": 95.0, "h6": 90.0, "h30": 99.0}, False),
        (40, {"h0": 100.0, "h40": 95.0, "h47": 96.0}, True),
        (40, {"h0": 100.0, "h40": 95.0, "h47": 94.0}, False),
    ],
    ids=["came-back", "fell-later", "came-back-too-late", "back-at-the-end", "down-at-the-end"],
)
def test_a_firing_is_false_if_the_book_was_worth_as_much_a_day_later(
    fired: int, path: dict[str, float], false: bool
) -> None:
    """At the end of the bars where they end sooner; what was between does not matter."""
    assert timedelta(hours=24) == HORIZON
    assert came_back(course(**path), to_micros(START + fired * HOUR)) is false


def test_a_page_is_made_of_one_crash_and_one_calm_book(repository: Path) -> None:
    """With its command, counts and caveat, and the same each time."""
    folder = repository / "policies" / "futures-degross"
    tested = (Candidate("futures-degross", folder.name, read_policies([folder]).policies),)
    member = tried(kind="hedged").member
    runs = {("futures-degross", rule): run(rule, "95000", "0.12") for rule in (STAGED, CLOSE_ALL, IN_PROPORTION)}
    cases = tuple(Case(Part(market, member), run(NONE, "101000", "0.3"), runs) for market in ("crash", "calm-month"))
    calm = (Firings("futures-degross", "hedged", fired=3, false=1, cost=Decimal(6000)),)
    evidence = Evidence(tested, cases, calm, ("crash: no splits",), seed=5, random=1)
    page = written(evidence, command="make evidence DATE=2026-01-31", date="2026-01-31")
    assert page == written(evidence, command="make evidence DATE=2026-01-31", date="2026-01-31")
    assert "make evidence DATE=2026-01-31" in page
    assert "always rewards cutting sooner and more" in page
    assert "the 1 of 1 books in crashes" in page
    assert "| futures-degross | staged | 12.0% | 12.0% | 0% | 95.0% | 1.00 | 50% | 0 |" in page
    assert "| hedged | futures-degross | 1 | 100% | 3 | 1 | 6,000 |" in page
