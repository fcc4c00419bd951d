"""The evidence page: what counts as a false firing, and that a page can be made of little."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from killswitch.accounts.opening import read_policies
from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, CampaignPart
from killswitch.lab.outcome import RunCurve
from killswitch.model.instant import to_micros
from tests.evidence.gathering import HORIZON, Candidate, Case, Evidence, Firings, recovered
from tests.evidence.readmes import BEGIN, END, insert
from tests.evidence.writing import MEANT, rendered
from tests.runs import START, run, tried

HOUR = timedelta(hours=1)


def course(**at_hours: float) -> RunCurve:
    """Equity by hour (`h0`, `h24`): held until the next one that is given, for 48 hours."""
    known = {int(name[1:]): value for name, value in at_hours.items()}
    equity: list[float] = []
    for hour in range(48):
        equity.append(known.get(hour, equity[-1] if equity else 0.0))
    return RunCurve([to_micros(START + hour * HOUR) for hour in range(48)], equity, [], [], {})


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
    assert recovered(course(**path), to_micros(START + fired * HOUR)) is false


def of_one_book(repository: Path, name: str = "futures-degross", kind: str = "hedged") -> Evidence:
    """A book in a crash, a hedged one in a calm month: 101,000 after 30% unprotected, 95,000 after 12% with it."""
    folder = repository / "policies" / name
    tested = (Candidate(name, folder.name, read_policies([folder]).policies),)
    runs = {(name, rule): run(rule, "95000", "0.12") for rule in (STAGED, CLOSE_ALL, IN_PROPORTION)}
    cases = tuple(
        Case(CampaignPart(market, tried(kind=of).member), run(NONE, "101000", "0.3"), runs)
        for market, of in (("crash", kind), ("calm-month", "hedged"))
    )
    calm = (Firings(name, "hedged", fired=3, false=1, cost=Decimal(6000)),)
    return Evidence(tested, cases, calm, ("crash: no splits",), seed=5, random=1)


def test_a_page_is_made_of_one_crash_and_one_calm_book(repository: Path) -> None:
    """With its command, counts and caveat, and the same each time."""
    evidence = of_one_book(repository)
    page = rendered(evidence, command="make evidence DATE=2026-01-31", date="2026-01-31")
    assert page == rendered(evidence, command="make evidence DATE=2026-01-31", date="2026-01-31")
    assert "make evidence DATE=2026-01-31" in page
    assert "always rewards cutting sooner and more" in page
    assert "the 1 of 1 books in crashes" in page
    assert "| futures-degross | staged | 12.0% | 12.0% | 0% | 95.0% | 1.00 | 50% | 0 |" in page
    assert "| hedged | futures-degross | 1 | 100% | 3 | 1 | 6,000 |" in page


def test_a_readme_gets_its_own_numbers_between_its_marks_and_keeps_the_rest(repository: Path, tmp_path: Path) -> None:
    """Written twice it is the same; the book came back to 101%, so protection lost 6% of the start."""
    evidence = of_one_book(repository)
    readme = tmp_path / "futures-degross" / "README.md"
    readme.parent.mkdir()
    readme.write_text(f"# before\n\n{BEGIN}\nold\n{END}\n\n# after\n", encoding="utf-8")
    for _ in range(2):
        insert(evidence, tmp_path, command="make evidence DATE=2026-01-31", date="2026-01-31")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"# before\n\n{BEGIN}\n\n1 hedged books of gross 3")
    assert text.endswith(f"\n\n{END}\n\n# after\n")
    assert "old" not in text
    assert "| no protection | 30.0% |" in text
    assert "| as shipped | 12.0% |" in text
    assert "| as shipped | 1 | 100% | 3 | 1 | 6,000 | 0 of 1 | - |" in text


@pytest.mark.parametrize(
    ("name", "kind", "row"),
    [
        ("circuit-breaker", "hedged", "| as shipped | 1 | 100% | 3 | 1 | 6,000 | 0 of 1 | - |"),
        ("futures-drawdown", "split", "| as shipped, hedged books | 1 | 100% | 3 | 1 | 6,000 | 0 of 0 | - |"),
    ],
)
def test_a_policy_without_calm_books_of_its_own_kind_gets_those_of_the_others(
    repository: Path, tmp_path: Path, name: str, kind: str, row: str
) -> None:
    """A policy for every book, and one for split books, of which no calm month has any."""
    readme = tmp_path / name / "README.md"
    readme.parent.mkdir()
    readme.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    insert(of_one_book(repository, name, kind), tmp_path, command="make evidence", date="2026-01-31")
    assert row in readme.read_text(encoding="utf-8")


def test_a_readme_without_a_place_for_its_numbers_is_named(repository: Path, tmp_path: Path) -> None:
    """The marks are what a new policy must have."""
    readme = tmp_path / "futures-degross" / "README.md"
    readme.parent.mkdir()
    readme.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"futures-degross.README\.md has no place for its numbers"):
        insert(of_one_book(repository), tmp_path, command="make evidence", date="2026-01-31")


def test_the_calm_month_of_each_readme_is_that_of_the_page(repository: Path) -> None:
    """The numbers of every row with calm books are in a row of the page; each policy has such a row."""
    page = (repository / "docs" / "evidence.md").read_text(encoding="utf-8")
    for folder in [*MEANT, "circuit-breaker"]:
        text = (repository / "policies" / folder / "README.md").read_text(encoding="utf-8")
        table = text[text.index("| rule | calm books |") : text.index(END)]
        rows = [line.split(" | ")[1:6] for line in table.splitlines()[2:] if line and "| - |" not in line]
        assert rows
        assert [row for row in rows if f"| {' | '.join(row)} |" not in page] == [], folder


def test_every_policy_that_is_for_a_kind_of_book_has_its_place(repository: Path) -> None:
    """In its README, once."""
    for folder in MEANT:
        text = (repository / "policies" / folder / "README.md").read_text(encoding="utf-8")
        assert (text.count(BEGIN), text.count(END)) == (1, 1), folder
