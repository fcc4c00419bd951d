"""docs/on-unknown.md, docs/strategies.md and docs/compliance.md, the pages for risk teams: what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.diagnostics.pages import pages
from killswitch.policy.loader import load
from tests.backtests import written
from tests.evidence.on_unknown import AND_A_LOCK, CHOICES, COLUMNS, SITUATIONS, Seen, compiled, observe
from tests.unit.docs.pages import Rows, sections
from tests.worlds.judge import seeded

QUIET = "no loss, outage of 5 to 60 s"


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "on-unknown.md").read_text(encoding="utf-8")


def _worlds(choice: str) -> list[Seen]:
    policies = compiled(choice)
    return [observe(SITUATIONS[QUIET](seeded(QUIET, seed)), seed, policies) for seed in range(2)]


def test_the_table_has_each_choice_in_each_situation(page: str) -> None:
    """In the order in which the program prints them."""
    assert f"| {' | '.join(COLUMNS)} |" in page
    rows = [tuple(line.split(" | ")[:2]) for line in page.splitlines() if line.startswith(("| no loss", "| crash"))]
    assert rows == [(f"| {situation}", choice) for situation in SITUATIONS for choice in CHOICES]


def test_a_quiet_outage_closes_a_book_only_with_trip() -> None:
    """`hold` does nothing; with a second stage on the silence trading is locked, and nothing is closed."""
    assert all((each.ordered, each.locked) == (None, None) for each in _worlds("hold"))
    assert all(each.ordered is None and each.locked is not None for each in _worlds(AND_A_LOCK))
    assert all(each.false for each in _worlds("trip"))


def test_its_policy_is_valid(page: str, tmp_path: Path) -> None:
    """It can be copied."""
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "policy.yaml").write_text(text, encoding="utf-8")
    found, problems = compile_loaded(load([tmp_path / "policy.yaml"]))
    assert found is not None, problems


def test_each_shipped_set_names_its_choice_and_the_delay_that_the_page_measured(page: str, repository: Path) -> None:
    """`hold` on every trigger, and the p50 and p90 of the page, in whole seconds."""
    row = next(line for line in page.splitlines() if line.startswith("| crash, outage of 5 to 60 s | hold |"))
    median, ninth = re.findall(r"(\d+)\.\d s", row.split(" | ")[5])
    for policy in sorted((repository / "policies").glob("*/policy.yaml")):
        choices = re.findall(r"on_unknown: (\w+)", policy.read_text(encoding="utf-8"))
        readme = " ".join((policy.parent / "README.md").read_text(encoding="utf-8").split())
        assert set(choices) == {"hold"}
        assert "`on_unknown: hold`" in readme
        assert f"within {median} s of the loss, nine of ten within {ninth} s" in readme
        assert "(../../docs/on-unknown.md)" in readme


def test_the_documents_of_the_page_of_strategies_compile(repository: Path) -> None:
    """A reader of docs/strategies.md can copy them: two strategies, and a policy for one of them; its codes exist."""
    text = (repository / "docs" / "strategies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    found = written(block)
    assert [rule.name for rule in found.strategies] == ["carry", "grid"]
    assert [rule.name for rule in found.graphs[0].scope.strategies] == ["grid"]
    assert set(re.findall(r"KS\d{4}", text)) <= pages().keys()


def _compliance(repository: Path, heading: str) -> Rows:
    (table,) = sections((repository / "docs" / "compliance.md").read_text(encoding="utf-8"))[heading].tables
    return table


def test_the_page_on_compliance_has_every_article_of_rts_6_once(repository: Path) -> None:
    """Articles 1 to 28 of Delegated Regulation (EU) 2017/589; 29 is its entry into force."""
    found: set[int] = set()
    for row in _compliance(repository, "RTS 6: Commission Delegated Regulation (EU) 2017/589"):
        numbers = re.match(r"(\d+)(?: to (\d+))?\b", row["article"])
        if numbers is not None:
            first, last = numbers.groups()
            found.update(range(int(first), int(last or first) + 1))
    assert found == set(range(1, 29))


@pytest.mark.parametrize(
    "heading", ["RTS 6: Commission Delegated Regulation (EU) 2017/589", "Rule 15c3-5 (Market Access Rule, SEC)"]
)
def test_no_row_on_compliance_is_without_a_verdict_or_the_firms_part(repository: Path, heading: str) -> None:
    """Where a feature only helps, or nothing here does it, the page names what is left."""
    for row in _compliance(repository, heading):
        first, what, verdict, here, duty = row.values()
        assert verdict in {"does", "helps", "firm"}, first
        assert what, first
        assert duty, first
        assert here or verdict == "firm", first
