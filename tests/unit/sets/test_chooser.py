"""The chooser of README and docs/index.md: shipped sets, measured figures, and what `ksctl init` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from killswitch.operations.first_set import BOOKS
from tests.evidence.results import read_results
from tests.unit.docs.pages import sections

CHOOSER = "Which policies fit the book"
FIRST_SCREEN = 45
"""Lines of a page that a screen shows at most."""
Row = dict[str, str]


def chooser(repository: Path, name: str) -> list[Row]:
    (table,) = sections((repository / name).read_text(encoding="utf-8"))[CHOOSER].tables
    return table


def chosen(row: Row) -> str:
    found = re.search(r"`([\w-]+)`", row["begin with"])
    assert found is not None
    return found[1]


def measured(repository: Path, name: str, rule: str) -> tuple[str, str]:
    """Mean and 95th percentile drawdown of the set's own kind of book, in its README."""
    text = (repository / "policies" / name / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {rule} \| ([\d.]+%) \| ([\d.]+%) \|", text, re.MULTILINE)
    assert found is not None
    return found[1], found[2]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_chooser_has_the_figures_that_the_sets_were_measured_with(page: str, repository: Path) -> None:
    """Those of `make evidence`, of the first kind of book that the set is for."""
    for row in chooser(repository, page):
        cells = [row["mean drawdown, without → with it"], row["95th percentile"]]
        without, with_it = (measured(repository, chosen(row), rule) for rule in ("no protection", "as shipped"))
        assert cells == [f"{without[0]} → {with_it[0]}", f"{without[1]} → {with_it[1]}"]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_chooser_recommends_what_init_writes(page: str, repository: Path) -> None:
    """One row for each kind of book; directional and concentrated books share theirs."""
    assert [chosen(row) for row in chooser(repository, page)] == list(
        dict.fromkeys(BOOKS[kind][0] for kind in ("hedged", "directional", "concentrated", "several", "spot"))
    )


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_sentences_below_the_chooser_have_the_figures_of_the_evidence(page: str, repository: Path) -> None:
    """False firings before the crashes, what the tight variant changes, and the sets that are named besides."""
    crashes, calm = (read_results()[part].numbers for part in ("crashes", "calm"))

    def falsely(kind: str, name: str) -> str:
        false, books = (calm[f"{kind}/{name}/before/{each}"] for each in ("false", "books"))
        return f"{false / books:.0%}"

    def high(name: str) -> str:
        return f"{crashes[f'hedged/{name}/p95']:.1%}"

    hedged = "one-exchange-hedged"
    expected = [
        falsely("hedged", hedged), falsely("directional", "one-exchange-directional"), high(f"{hedged} (tight)"),
        high(hedged), falsely("hedged", f"{hedged} (tight)"), f"{crashes['spot/circuit-breaker/mean']:.1%}",
        high("futures-drawdown"), high("none"),
    ]  # fmt: skip
    text = (repository / page).read_text(encoding="utf-8").partition("On ordinary days before them")[2]
    assert re.findall(r"[\d.]+%", text.partition("`ksctl init`")[0]) == expected


def test_the_chooser_is_on_the_first_screen(repository: Path) -> None:
    """Of README, of the documentation and of the evidence, before commands and tables."""
    for page, begins in (
        ("README.md", f"## {CHOOSER}"), ("docs/index.md", f"## {CHOOSER}"),
        ("docs/evidence.md", "**Which set to begin with.**"),
    ):  # fmt: skip
        lines = (repository / page).read_text(encoding="utf-8").splitlines()
        assert any(line.startswith(begins) for line in lines[:FIRST_SCREEN]), page


def test_the_set_that_closes_the_losing_side_begins_with_what_was_measured(repository: Path) -> None:
    """Its hedged 95th percentile drawdown on the page of evidence, against that with no protection."""
    page = (repository / "docs" / "evidence.md").read_text(encoding="utf-8")
    hedged = page.partition("### Hedged books")[2].partition("###")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in hedged.splitlines() if "|" in line]
    (none,) = [row[3] for row in rows if row[0] == "none"]
    (staged,) = [row[3] for row in rows if row[:2] == ["futures-drawdown", "staged"]]
    readme = (repository / "policies" / "futures-drawdown" / "README.md").read_text(encoding="utf-8")
    first = readme.split("\n\n")[1]
    assert [f"{float(each):.0f}" for each in (staged.strip("%"), none.strip("%"))] == re.findall(r"\b(\d+)%", first)
    assert all(staged in (repository / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md"))
