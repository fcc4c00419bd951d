"""The page of screens and its pictures belong together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.screens.capture import MAX_BYTES, excerpt, terminal_output, terminal_svg

MIN_SCREENS = 10


def test_the_page_of_screens_shows_every_picture_and_no_other(repository: Path) -> None:
    """Each picture has a place on the page, and each place has a picture that is small enough for a clone."""
    page = (repository / "docs" / "screens.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(assets/screens/([^)]+)\)", page)
    pictures = sorted((repository / "docs" / "assets" / "screens").iterdir())
    assert sorted(shown) == [each.name for each in pictures]
    assert len(shown) >= MIN_SCREENS
    assert {each.name for each in pictures if each.stat().st_size > MAX_BYTES} == set()


def test_a_picture_loads_nothing(repository: Path) -> None:
    """A drawn terminal names no other host, except the name of its format."""
    for picture in (repository / "docs" / "assets" / "screens").glob("*.svg"):
        text = picture.read_text(encoding="utf-8")
        assert "@font-face" not in text
        assert set(re.findall(r"https?://[^/\"' )]+", text)) <= {"http://www.w3.org", "http://127.0.0.1:8701"}, picture


def test_a_command_on_a_terminal_keeps_its_width_and_colours(tmp_path: Path) -> None:
    """The command sees a terminal of the given width, and the drawing has the text and the colour."""
    script = "[ -t 1 ] && stty size && printf '\\033[31malarm\\033[0m\\n'"
    printed = terminal_output(["bash", "-c", script], tmp_path, 80, {"PATH": "/usr/bin:/bin"})
    assert printed.split("\n")[0].split()[1] == "80"
    drawn = terminal_svg(printed, "a title", 80)
    assert "alarm" in drawn
    assert re.search(r"fill: #[0-9a-f]{6}", drawn) is not None


def test_an_excerpt_says_that_lines_are_missing() -> None:
    """Left-out lines leave a mark, and a cut that names no line is an error."""
    assert excerpt("a\nb\nc\nd", ("a", "d")) == "a\n…\nd"
    with pytest.raises(StopIteration):
        excerpt("a\nb", ("x", "b"))
