"""tests/README.md maps the folders of the tests."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
PAGE = (TESTS / "README.md").read_text(encoding="utf-8")


def test_the_map_lists_every_folder_and_no_other() -> None:
    """A folder without a row would be found only by those who know it."""
    listed = re.findall(r"^\| `(\w+)/` \|", PAGE, flags=re.MULTILINE)
    folders = {each.parent.relative_to(TESTS).parts[0] for each in TESTS.glob("*/**/*.py")}
    assert sorted(listed) == sorted(folders)


def test_the_page_names_modules_that_exist() -> None:
    """A module that was renamed is renamed on the page too."""
    named = re.findall(r"`((?:\w+/)?\w+\.py)`", PAGE)
    assert named
    assert [each for each in named if not (TESTS / each).is_file()] == []


def test_the_map_fits_on_two_screens() -> None:
    """A longer page is not read."""
    assert len(PAGE.splitlines()) <= 90
