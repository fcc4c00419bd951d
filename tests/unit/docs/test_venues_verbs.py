"""docs/venues-verbs.md: its commands work as written, and its numbers are those of the program."""

from __future__ import annotations

from pathlib import Path

from killswitch.lab import fetching
from killswitch.preflight import findings
from tests.unit.docs.test_tutorial_and_guides import PORT, follow_page, free_port


def test_the_page_works_as_written(repository: Path, tmp_path: Path) -> None:
    """A check that warns about the tick, one without a warning, and a snapshot that a replay reads."""
    page = (repository / "docs" / "venues-verbs.md").read_text(encoding="utf-8")
    bars = page.index("## Bars")
    follow_page(page[:bars].replace(PORT, free_port()), repository, tmp_path)


def test_the_bounds_of_the_page_are_those_of_the_code(repository: Path) -> None:
    """Milliseconds, days and seconds."""
    page = (repository / "docs" / "venues-verbs.md").read_text(encoding="utf-8")
    bound = f"more than {findings.SKEW_FAILS / 1000:g} s apart where nothing could be read"
    assert f"{bound} | more than {findings.SKEW_WARNS / 1000:g} s apart" in page
    assert f"expires within {findings.EXPIRES_SOON.days} days" in page
    assert f"after {fetching.WAITS.first:g}, 2, 4 … {fetching.WAITS.longest:g} s" in page
    assert fetching.TRIES == 8
    assert "eight failures in a row" in page
