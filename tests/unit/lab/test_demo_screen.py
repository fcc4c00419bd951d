"""The lines of the demo on a terminal."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from killswitch.cli.lab.demo_screen import bar_of, bar_width, fitted
from tools.screens.capture import terminal_output

RULES = ("staged", "none", "close-all")
MIN_CELLS = 6
COLUMNS = 80


def test_a_bar_is_drawn_in_eighths_of_a_column() -> None:
    """Half of eight columns are four, 85% of them 6.8: six and six eighths; more than all is full, and none is none."""
    assert [bar_of(share, 8) for share in (0.5, 0.85, 1.3, 0.0, -0.2)] == ["████", "██████▊", "████████", "", ""]


def test_a_narrow_terminal_has_a_short_bar_or_none() -> None:
    """The amounts come first: 80 columns leave seven for the bar, 60 none; a pipe has the full bar of 30."""
    assert [bar_width(columns) for columns in (None, 120, 80, 60)] == [30, 30, 7, 0]


def test_a_long_line_continues_below_its_text() -> None:
    """A line that does not fit next to its time is wrapped two columns to the right of where it begins."""
    assert fitted(f"  {'one ' * 8}two three", 44) == [f"  {'one ' * 8}two".rstrip(), "    three"]
    assert fitted("one two", None) == ["one two"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The demo outside a clone on a terminal of 80 columns: its folder, and its lines without colours."""
    folder = tmp_path_factory.mktemp("demo")
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    command = [str(Path(sys.executable).parent / "ksctl"), "demo", "--pace", "0"]
    printed = terminal_output(command, folder, COLUMNS, kept)
    return folder, re.sub(r"\x1b\[[0-9;]*m", "", printed).split("\n")


def test_the_demo_fits_the_terminal(shown: tuple[Path, list[str]]) -> None:
    """No line is wider than the terminal but commands to copy, times of one day have no date, and a table is one."""
    _, lines = shown
    assert [line for line in lines if len(line) > COLUMNS and "ksctl" not in line] == []
    assert lines.count("2024-01-01, times in UTC") == 1
    assert any(re.match(r"\d\d:\d\d  LEVEL 1 FIRES", line) for line in lines)
    rows = [line.split() for line in lines if re.match(r"  (staged|none|close-all) .*% ", line)]
    assert [(row[0], len(row) >= MIN_CELLS) for row in rows] == [(rule, True) for rule in RULES]


def test_the_next_steps_of_the_demo_work_outside_a_clone(shown: tuple[Path, list[str]]) -> None:
    """In another folder the shipped policies are named by a path that exists."""
    folder, lines = shown
    found = re.search(r"replay --policies (\S+)", "\n".join(lines))
    assert found is not None
    assert (folder / found[1] / "policy.yaml").exists()
