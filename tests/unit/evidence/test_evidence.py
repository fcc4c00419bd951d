"""The evidence page: its figures, what counts as false, what changed, and that it is what its results say."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import binomtest, norm

from killswitch.lab.campaign import CLOSE_ALL, STAGED
from killswitch.model.instant import to_micros
from tests.backtests import POLICIES
from tests.evidence.crashes import AT_ONCE
from tests.evidence.gathering import MEANT, RECOMMENDED, REFERENCE
from tests.evidence.ordinary import HORIZON, recovered
from tests.evidence.players import Held
from tests.evidence.readmes import BEGIN, END, EVERY_KIND, insert
from tests.evidence.results import (
    PartResult,
    bootstrap,
    changes,
    percent,
    read_results,
    share_text,
    wilson,
    write_result,
)  # fmt: skip
from tests.evidence.thresholds import (
    FIXED,
    PAIRS,
    SHIPPED,
    TIMES,
    Measured,
    Outcome,
    Outcomes,
    chosen,
    closed_by_pairs,
    pairs,
)  # fmt: skip
from tests.evidence.verdicts import requirements
from tests.evidence.writing import rendered
from tests.runs import START

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("fired", "path", "false"),
    [
        (5, {0: 100.0, 5: 95.0, 6: 90.0, 29: 95.0}, True),
        (5, {0: 100.0, 5: 95.0, 6: 99.0, 29: 94.0}, False),
        (5, {0: 100.0, 5: 95.0, 6: 90.0, 30: 99.0}, False),
        (40, {0: 100.0, 40: 95.0, 47: 96.0}, True),
        (40, {0: 100.0, 40: 95.0, 47: 94.0}, False),
    ],
    ids=["came-back", "fell-later", "came-back-too-late", "back-at-the-end", "down-at-the-end"],
)
def test_a_firing_is_false_if_the_book_had_as_much_a_day_later(fired: int, path: dict[int, float], false: bool) -> None:
    """At the end of the bars where they end sooner; what was between does not matter. Equity holds until the next."""
    assert timedelta(hours=24) == HORIZON
    equity = [path[max(each for each in path if each <= hour)] for hour in range(48)]
    at = [to_micros(START + hour * HOUR) for hour in range(48)]
    assert recovered(at, equity, at[fired]) is false


@given(st.integers(1, 300), st.data())
def test_the_interval_of_a_share_is_wilsons(of: int, data: st.DataObject) -> None:
    """As scipy computes it."""
    hits = data.draw(st.integers(0, of))
    expected = binomtest(hits, of).proportion_ci(method="wilson")
    assert wilson(hits, of) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_share_of_nothing_is_unknown() -> None:
    """Its interval is everything, and no percentage is printed."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert share_text(0, 0) == "-"
    assert share_text(1, 4) == "25% (5 to 70)"


def test_the_interval_of_a_mean_is_near_that_of_the_normal_distribution_and_the_same_each_time() -> None:
    """Of 400 values with a standard deviation of 0.1, mean 0.2: ± 1.96 × 0.1 ÷ 20."""
    values = [0.2 + 0.1 * float(norm.ppf((each + 0.5) / 400)) for each in range(400)]
    assert bootstrap(values, 7) == pytest.approx((0.2 - 0.0098, 0.2 + 0.0098), abs=0.0015)
    assert bootstrap(values, 7) == bootstrap(values, 7)


def test_what_changed_on_a_page_is_named_by_heading_row_and_column() -> None:
    """Cells, rows that came and went, and lines of text."""
    before = "## A\n\nold words\n\n| set | rule | mean |\n| --- | --- | ---: |\n| x | staged | 1% |\n| gone | | 3% |\n"
    after = "## A\n\nnew words\n\n| set | rule | mean |\n| --- | --- | ---: |\n| x | staged | 2% |\n| came | | 3% |\n"
    assert changes(before, before) == []
    assert changes(before, after) == [
        "A | x | staged | mean: 1% → 2%", "gone: A | gone | ", "new: A | came | ", "text: new words",
    ]  # fmt: skip


def test_a_scaled_rule_is_compared_with_the_lowest_fixed_one_that_is_no_noisier() -> None:
    """The fixed rules fire falsely in 20, 18, 16 … of 20 books; the scaled ones in 9, 8, 7 …"""

    def outcome(false: int) -> Outcome:
        return Outcome((0.1,) * 20, tuple(number < false for number in range(20)))

    outcomes = {percent(each): outcome(20 - 2 * place) for place, each in enumerate(FIXED)}
    outcomes |= {f"{each:g} ×": outcome(9 - place) for place, each in enumerate(TIMES)}
    assert list(pairs(outcomes))[:2] == [
        (f"{TIMES[0]:g} ×", percent(FIXED[6])), (f"{TIMES[1]:g} ×", percent(FIXED[6])),
    ]  # fmt: skip


def test_thresholds_are_chosen_on_the_folders_that_are_given_and_within_the_bound() -> None:
    """Of hedged books: 3% and 8% fall least but fire falsely in all; later folders would have chosen them."""
    found = Outcomes()
    first = {(0.03, 0.08): (0.05, 3), (0.03, 0.10): (0.07, None), (0.04, 0.12): (0.06, None)}
    for quarter, long in PAIRS:
        name = f"{quarter:.1%} / {long:.0%}"
        drawdown, fired = first.get((quarter, long), (0.5, None))
        found.add(name, measured("2020"), drawdown, fired)
        found.add(name, measured("2021"), 0.01 if fired else 0.5, None)
    assert chosen(found, "hedged", ["2020"]) == (0.04, 0.12)
    assert chosen(found, "hedged", ["2021"]) == (0.03, 0.08)


def test_everything_is_closed_where_the_first_of_two_thresholds_is_confirmed() -> None:
    """One position of 3 × equity: −1.3% at minute 5 is a fall of 3.9%, −2.1% at minute 20 one of 6.3% from the start.

    3.5% within a quarter of an hour is confirmed 2 minutes after the first; 6% never, since the first is then a quarter
    of an hour old; 8% in 48 hours never.
    """
    price = np.array([100.0] * 5 + [98.7] * 15 + [97.9] * 20)
    held = Held(price[:, None], np.full((40, 1), 1e9), np.array([3.0]), 100.0, timedelta(minutes=1))
    at = tuple(minute * 60_000_000 for minute in range(40))
    book = Measured("directional", "2020", "1m", ("A",), held, 100 + 3 * (price - 100), at, 40, 60_000_000)
    places = {rule: place for rule, place, _ in closed_by_pairs(book)}
    assert len(places) == len(PAIRS)
    assert (places["3.5% / 8%"], places["6.0% / 20%"], places["7.0% / 20%"]) == (7, None, None)
    drawdowns = {rule: drawdown for rule, _, drawdown in closed_by_pairs(book)}
    assert drawdowns["7.0% / 20%"] == pytest.approx(0.063)
    assert drawdowns["3.5% / 8%"] == pytest.approx(0.039 + 3 * 0.987 * 0.0006)


def measured(folder: str) -> Measured:
    """A book whose equity stays: every firing before its fifth close is false."""
    close = np.ones((10, 1))
    held = Held(close, close, np.ones(1), 1.0, timedelta(minutes=1))
    at = tuple(minute * 60_000_000 for minute in range(10))
    return Measured("hedged", folder, "1m", ("A",), held, np.ones(10), at, 5, 60_000_000)


# -- the page that is in the repository --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results() -> dict[str, PartResult]:
    return read_results()


def test_the_page_is_what_its_results_say(results: dict[str, PartResult], repository: Path) -> None:
    """To the last character: a page that was edited by hand, or made from other results, differs."""
    assert (repository / "docs" / "evidence.md").read_text(encoding="utf-8") == rendered(results)


def test_the_readmes_of_the_sets_have_the_figures_of_the_results(
    results: dict[str, PartResult], repository: Path, tmp_path: Path
) -> None:
    """Written again they are the same; each has its place once."""
    for folder in (*MEANT, EVERY_KIND):
        (tmp_path / folder).mkdir()
        shutil.copy(repository / "policies" / folder / "README.md", tmp_path / folder)
    insert(results, tmp_path)
    for folder in (*MEANT, EVERY_KIND):
        ours, again = ((each / folder / "README.md").read_text(encoding="utf-8") for each in (POLICIES, tmp_path))
        assert (ours.count(BEGIN), ours.count(END)) == (1, 1), folder
        assert ours == again, folder


def test_a_readme_without_a_place_for_its_numbers_is_named(results: dict[str, PartResult], tmp_path: Path) -> None:
    """The marks are what a new policy must have."""
    for folder in (*MEANT, EVERY_KIND):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md has no place for its numbers"):
        insert(results, tmp_path)


def test_results_are_kept_and_read_back(results: dict[str, PartResult], tmp_path: Path) -> None:
    """Equal, and in the same bytes each time."""
    for each in results.values():
        write_result(each, tmp_path)
    assert read_results(tmp_path) == results
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for each in read_results(tmp_path).values():
        write_result(each, tmp_path)
    assert kept == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_recommendation_that_falls_deeper_or_fires_falsely_more_often_fails(results: dict[str, PartResult]) -> None:
    """One requirement at a time, and the page says so."""
    crashes, calm = results["crashes"], results["calm"]
    worse = {"hedged/one-exchange-hedged/p95": crashes.numbers[f"hedged/{REFERENCE}/p95"] + 0.01}
    noisy = {"hedged/one-exchange-hedged/before/false": calm.numbers["hedged/one-exchange-hedged/before/books"]}
    changed = {
        **results,
        "crashes": replace(crashes, numbers=crashes.numbers | worse),
        "calm": replace(calm, numbers=calm.numbers | noisy),
    }
    failed = [each.sentence for each in requirements(changed) if each.kind == "hedged" and not each.holds]
    assert any("95th percentile over all crash folders" in each for each in failed)
    assert any(each.startswith("it fires falsely in 100%") for each in failed)
    page = rendered(changed)
    assert all(each in page for each in failed)


def test_every_table_of_the_page_says_the_bars(results: dict[str, PartResult]) -> None:
    """In a column, or in the sentence above it."""
    page = rendered(results).partition("## Methods")[0]
    for section in page.split("\n## ")[1:]:
        assert "bars" in section.lower(), section.partition("\n")[0]


def test_more_false_firings_never_cost_more_drawdown_in_the_table_of_what_they_cost(
    results: dict[str, PartResult],
) -> None:
    """A pair that is quiet enough for one row is so for the next; no row is noisier than it says."""
    rows = [row for row in results["walk"].tables["frontier"].rows if row[1] != SHIPPED]
    for kind in sorted({row[0] for row in rows}):
        mine = [[float(cell.split("%")[0]) for cell in (row[1], row[4], row[5])] for row in rows if row[0] == kind]
        assert all(found <= most for most, found, _ in mine)
        means = [each for *_, each in mine]
        assert len(means) > 1 and means == sorted(means, reverse=True)


def test_every_recommended_set_is_on_the_page_with_every_rule(results: dict[str, PartResult]) -> None:
    """As it is; at once, too, where it is not at once anyway."""
    for kind, name in RECOMMENDED.items():
        rows = [row[:2] for row in results["crashes"].tables[f"kind {kind}"].rows]
        assert ("none", "") in rows
        assert (name, STAGED) in rows
        assert ((name, CLOSE_ALL) in rows) == (name not in AT_ONCE)
