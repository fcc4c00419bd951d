"""Coverage: each point is seen where it decides, and a missing one says why."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from killswitch.scenario.coverage import PolicyCoverage, coverage
from killswitch.scenario.pages import coverage_line, coverage_page, percent
from killswitch.scenario.running import ScenarioRunner
from killswitch.scenario.trace import joined
from tests.unit.scenario.written import POLICY, POSITION, loaded, scenario_text

# ruff: noqa: E501  # a reason is one line
CLAUSES = POLICY.replace(
    "three: {signal: equity.loss_from_start, at_least: 3%, on_unknown: hold}",
    "three: {when: 'equity.loss_from_start >= 0.03 && equity.value < 9650.0', on_unknown: hold}",
).replace("match: {}}\n  max_gap", "match: {currency: USDT}}\n  max_gap")
"""A trigger of two clauses: a fall of 3% to 9,700 is the first alone, of 4% to 9,600 both."""


def covered(folder: Path, *texts: str, policy: str = POLICY) -> PolicyCoverage:
    """The coverage by these scenarios, whatever they expect."""
    policies, scenarios, problems = loaded(folder, *texts, policy=policy)
    assert problems == ()
    runner = ScenarioRunner(policies, lambda _: iter(()))
    return coverage(policies, joined(runner.run(each).trace for each in scenarios))


def missed(found: PolicyCoverage) -> dict[str, str]:
    """`subject, what` → why, of every point that was not seen."""
    return {f"{point.subject}, {point.what}": point.why for point in found.missed}


def test_without_a_scenario_nothing_is_covered(tmp_path: Path) -> None:
    """Every point says so."""
    found = covered(tmp_path)
    assert (found.covered, found.share) == (0, 0)
    assert missed(found) == {
        "trigger three, seen true": "the policy was never evaluated",
        "trigger three, seen false": "the policy was never evaluated",
        "trigger three, seen unknown": "the policy was never evaluated",
        "trigger five, seen true": "the policy was never evaluated",
        "trigger five, seen false": "the policy was never evaluated",
        "trigger five, seen unknown": "the policy was never evaluated",
        "stage warn, entered": "its triggers were never confirmed",
        "stage warn, refused": "its triggers were never confirmed",
        "reset of stage warn, by its condition": "it never fired",
        "clause of reset of stage warn: equity.loss_from_start < 0.015, decides as true": "it was never evaluated",
        "clause of reset of stage warn: equity.loss_from_start < 0.015, decides as false": "it was never evaluated",
        "stage close, entered": "its triggers were never confirmed",
        "stage close, refused": "its triggers were never confirmed",
        "reset of stage close, by a person": "it never fired",
        "route desk, hit": "no message reached it",
        "route everything, hit": "no message reached it",
    }


def test_everything_is_covered_by_a_fall_an_outage_and_two_resets(tmp_path: Path) -> None:
    """Two scenarios show every point."""
    fall = scenario_text(
        "stale 10000 -1%x12", "events: [{at: 12m, kind: reset, scope: account/main, author: jo, reason: seen}]", name="fall",
        account=[POSITION],
    )  # fmt: skip
    back = scenario_text("10000 -1%x4 9800 9900 =x6", name="back")
    found = covered(tmp_path, fall, back)
    assert missed(found) == {}
    assert found.share == 1


def test_a_reset_by_a_person_does_not_show_that_the_condition_resets(tmp_path: Path) -> None:
    """A stage that was meant to wait for a person, and resets by itself, would otherwise be covered."""
    by_hand = scenario_text(
        "10000 -4% =x8", "events: [{at: 8m, kind: reset, scope: account/main, author: jo, reason: seen}]"
    )
    assert (
        missed(covered(tmp_path, by_hand))["reset of stage warn, by its condition"] == "it was reset by a person only"
    )


@pytest.mark.parametrize(
    ("equity", "wanted"),
    [
        (
            "10000 9700 9600",  # false and false, true and false, true and true: the second decides both ways
            {"equity.loss_from_start >= 0.03, decides as false": "it was false only where another clause decided: `equity.value < 9650` was false"},
        ),
        (
            "10000 9600",
            {
                "equity.loss_from_start >= 0.03, decides as false": "it was false only where another clause decided: `equity.value < 9650` was false",
                "equity.value < 9650, decides as false": "it was false only where another clause decided: `equity.loss_from_start >= 0.03` was false",
            },
        ),
        (
            "10000 9999",
            {
                "equity.loss_from_start >= 0.03, decides as true": "it was never true",
                "equity.loss_from_start >= 0.03, decides as false": "it was false only where another clause decided: `equity.value < 9650` was false",
                "equity.value < 9650, decides as true": "it was never true",
                "equity.value < 9650, decides as false": "it was false only where another clause decided: `equity.loss_from_start >= 0.03` was false",
            },
        ),
    ],
)  # fmt: skip
def test_a_clause_counts_where_it_alone_decides(tmp_path: Path, equity: str, wanted: dict[str, str]) -> None:
    """`a && b` is decided by `a` only while `b` is true. Each missing direction names what decided instead."""
    found = missed(covered(tmp_path, scenario_text(equity), policy=CLAUSES))
    of_three = {key.partition(": ")[2]: why for key, why in found.items() if key.startswith("clause of trigger three")}
    assert of_three == wanted


def test_of_many_clauses_those_are_named_that_kept_one_from_deciding(tmp_path: Path) -> None:
    """In `a && (b || c) && d`, with b false and c true, b lacks c alone; with a false as well, no single one is to blame."""
    three = "three: {signal: equity.loss_from_start, at_least: 3%, on_unknown: hold}"
    when = "equity.value < 9900.0 && (equity.value < 9000.0 || equity.value > 1.0) && equity.value > NUMBER"
    wanted = {
        ("5.0", "10000 9800"): "it was false only where another clause decided: `equity.value > 1` was true",
        ("9990.0", "10000 =x2"): "it was false only where another clause decided: `equity.value < 9900` was false, "
        "`equity.value > 1` was true, `equity.value > 9990` was true",
    }
    for (number, equity), why in wanted.items():
        clauses = POLICY.replace(three, f"three: {{when: '{when.replace('NUMBER', number)}', on_unknown: hold}}")
        (tmp_path / number).mkdir()
        found = missed(
            covered(
                tmp_path / number,
                scenario_text(equity),
                policy=clauses.replace("match: {}}\n  max_gap", "match: {currency: USDT}}\n  max_gap"),
            )
        )
        assert found["clause of trigger three: equity.value < 9000, decides as false"] == why


def test_a_policy_that_no_scenario_evaluates_is_one_line(tmp_path: Path) -> None:
    """Its points are counted, and not listed one by one."""
    other = POLICY.partition("---")[0].replace("name: falls", "name: other")
    found = covered(tmp_path, scenario_text("10000 9600"), policy=f"{POLICY}---\n{other}")
    page = coverage_page(found, {})
    lines = [line for section in page.sections for part in section.parts for line in getattr(part, "lines", ())]
    items = [str(item) for section in page.sections for part in section.parts for item in getattr(part, "items", ())]
    of_other = [each for each in (*lines, *items) if "other: " in each]
    assert len(of_other) == 1
    assert of_other[0].endswith("other: 14 points: the policy was never evaluated")


def test_reformatting_a_policy_changes_no_figure(tmp_path: Path) -> None:
    """Points are of what is compiled, not of lines."""
    texts = (scenario_text("10000 9700 9600"),)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    spread = CLAUSES.replace(
        "{each: account, match: {currency: USDT}}", "\n    each: account\n    match: {currency: USDT}"
    )
    one, two = covered(tmp_path / "one", *texts, policy=CLAUSES), covered(tmp_path / "two", *texts, policy=spread)
    assert [(each.subject, each.what, each.status) for each in one.points] == [
        (each.subject, each.what, each.status) for each in two.points
    ]


def test_the_order_of_runs_changes_no_figure(tmp_path: Path) -> None:
    """Traces are joined as sets."""
    texts = [
        scenario_text(equity, name=f"n{i}") for i, equity in enumerate(("10000 9700", "10000 9600", "10000 9400 =x9"))
    ]
    policies, scenarios, _ = loaded(tmp_path, *texts)
    traces = [ScenarioRunner(policies, lambda _: iter(())).run(each).trace for each in scenarios]
    assert coverage(policies, joined(traces)) == coverage(policies, joined(reversed(traces)))


def test_a_share_is_never_rounded_up() -> None:
    """9,999 of 10,000 and one of a million less than all are less than 100%."""
    assert percent(Fraction(1)) == "100.00%"
    assert percent(Fraction(99_999, 100_000)) == "99.99%"
    assert percent(Fraction(2, 3)) == "66.66%"


def test_the_page_marks_every_line_that_has_points(tmp_path: Path) -> None:
    """`+` all covered, `-` with what is missing below it."""
    found = covered(tmp_path, scenario_text("10000 9600 =x9"))
    file = str(tmp_path / "policy.yaml")
    page = coverage_page(found, {file: POLICY.splitlines()})
    (code,) = page.sections[-1].parts
    lines = list(getattr(code, "lines", ()))
    at = next(i for i, line in enumerate(lines) if "three: {signal" in line)
    assert lines[at].startswith("-    9 |     three:")
    assert lines[at + 1] == "       ! trigger three, seen unknown: it was never unknown"
    assert coverage_line(found).startswith(f"coverage {found.covered} of {len(found.points)} (")
