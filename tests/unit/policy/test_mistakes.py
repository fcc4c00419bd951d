"""The mistakes of `mistakes/`, a fixture for each: its last lines, after `#!`, are the expected diagnostics.

`#! 9:37 KS2001 write …` is line, column, code, and how the fix goes on; every diagnostic of the file is listed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load

FIXTURES = sorted((Path(__file__).parent / "mistakes").glob("*.yaml"))
MARK = "#! "


def expected(fixture: Path) -> list[tuple[str, str, str]]:
    """(place, code, part of the fix) of every diagnostic, in order."""
    fields = [line.removeprefix(MARK) for line in fixture.read_text().splitlines() if line.startswith(MARK)]
    places = [tuple(line.split(" ", 2)) for line in fields]
    return [(place, code, fix) for place, code, fix in places]


def found_in(fixture: Path, folder: Path) -> tuple[Diagnostic, ...]:
    """The loader's diagnostics of the fixture without its last lines."""
    lines = [line for line in fixture.read_text().splitlines(keepends=True) if not line.startswith(MARK)]
    copy = folder / fixture.name
    copy.write_text("".join(lines))
    return load([copy]).diagnostics


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.stem)
def test_every_mistake_is_found_at_its_place_with_its_fix(fixture: Path, tmp_path: Path) -> None:
    """Exactly the listed diagnostics are found, each with code, line, column and fix."""
    found = found_in(fixture, tmp_path)
    wanted = expected(fixture)
    assert [(f"{each.line}:{each.column}", each.code) for each in found] == [each[:2] for each in wanted]
    for each, (_, _, fix) in zip(found, wanted, strict=True):
        assert fix in each.fix


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.stem)
def test_a_mistake_is_underlined_within_its_own_line(fixture: Path, tmp_path: Path) -> None:
    """The source line is that of the file, and the underlined part begins in it."""
    lines = fixture.read_text().splitlines()
    for each in found_in(fixture, tmp_path):
        assert each.severity == "error"
        assert each.length >= 1
        assert each.column <= len(each.source_line) + 1
        if "•" not in each.source_line:
            assert each.source_line == lines[each.line - 1] or each.source_line == ""


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.stem)
def test_a_file_with_a_mistake_gives_no_document_of_it(fixture: Path, tmp_path: Path) -> None:
    """A document with a mistake is never partly used: it is not loaded."""
    text = fixture.read_text()
    copy = tmp_path / fixture.name
    copy.write_text(text)
    sound = 1 if fixture.stem == "KS1207-same-name-twice" else 0
    assert len(load([copy]).documents) == sound
