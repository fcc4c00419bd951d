"""Venue pages contain valid documents, every venue supported by name has a page, and the verbs work as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from killswitch.accounts.plug_ins import load_plug_ins
from killswitch.lab import fetching
from killswitch.policy.loader import load
from killswitch.preflight import findings
from tests.unit.docs.test_tutorial_and_guides import PORT, follow_page, free_port

PAGE_OF = {
    "binanceusdm": "binance", "binancecoinm": "binance", "binance": "binance", None: "alpaca",
}  # fmt: skip
"""Exchanges whose page has a different name."""


def _pages(repository: Path) -> list[Path]:
    return [repository / "docs" / "venues.md", *sorted((repository / "docs" / "venues").glob("*.md"))]


def test_every_supported_venue_has_a_page_that_the_overview_links(repository: Path) -> None:
    """Pages describe keys, permissions, modes, limits, and what the venue does not support."""
    overview = (repository / "docs" / "venues.md").read_text(encoding="utf-8")
    found = load_plug_ins()
    assert found.absent == ()
    for listing in found.listings:
        page = PAGE_OF.get(listing.exchange, listing.exchange)
        assert (repository / "docs" / "venues" / f"{page}.md").is_file(), listing.exchange
        assert f"](venues/{page}.md)" in overview, listing.exchange


def test_every_document_of_these_pages_validates(repository: Path, tmp_path: Path) -> None:
    """Documents can be copied: no unknown key, no misspelt value."""
    shown = 0
    for page in _pages(repository):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            margin = min((len(line) - len(line.lstrip()) for line in block.splitlines() if line.strip()), default=0)
            text = "\n".join(line[margin:] for line in block.splitlines()) + "\n"
            if "apiVersion:" not in text:
                continue
            path = tmp_path / f"{page.stem}-{number}.yaml"
            path.write_text(text, encoding="utf-8")
            loaded = load([path])
            errors = [str(it) for it in loaded.diagnostics if it.severity == "error"]
            assert errors == [], f"{page.name}: {errors}"
            shown += 1
    if shown == 0:
        pytest.fail("no page shows a document")


def test_the_page_of_the_verbs_works_as_written(repository: Path, tmp_path: Path) -> None:
    """A check that warns about the tick, one without a warning, and a snapshot that a replay reads."""
    page = (repository / "docs" / "venues-verbs.md").read_text(encoding="utf-8")
    bars = page.index("## Bars")
    follow_page(page[:bars].replace(PORT, free_port()), repository, tmp_path)


def test_the_bounds_of_the_page_of_the_verbs_are_those_of_the_code(repository: Path) -> None:
    """Milliseconds, days and seconds."""
    page = (repository / "docs" / "venues-verbs.md").read_text(encoding="utf-8")
    bound = f"more than {findings.SKEW_FAILS / 1000:g} s apart where nothing could be read"
    assert f"{bound} | more than {findings.SKEW_WARNS / 1000:g} s apart" in page
    assert f"expires within {findings.EXPIRES_SOON.days} days" in page
    assert f"after {fetching.WAITS.first:g}, 2, 4 … {fetching.WAITS.longest:g} s" in page
    assert fetching.TRIES == 8
    assert "eight failures in a row" in page
