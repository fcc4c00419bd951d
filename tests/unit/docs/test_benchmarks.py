"""docs/benchmarks.md: its commands and promises name the parts that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.__main__ import PARTS, chosen, main

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
PARTS_FOLDER = Path(__file__).resolve().parents[2] / "bench"


@pytest.mark.parametrize(("command", "run"), [("make bench", "everyday"), ("make bench-long", "long")])
def test_the_page_lists_the_parts_that_each_command_runs(command: str, run: str) -> None:
    """The row of a command names the parts of its run, in their order."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{command}` |"))
    assert re.findall(r"`([\w-]+)`", row.split("|")[2]) == [part.name for part in PARTS if part.run == run]


def test_every_part_has_a_promise_on_the_page() -> None:
    """The table of promises names each part, or says that a row is of all closes."""
    table = PAGE.partition("## Promises")[2].partition("## Results")[0]
    named = {name for line in table.splitlines() if line.startswith("| ") for name in re.findall(r"`([\w-]+)`", line)}
    assert {part.name for part in PARTS} <= named


def test_every_part_is_a_function_of_its_module() -> None:
    """A misspelt module or function would be found only after the parts before it, minutes later."""
    for part in PARTS:
        text = (PARTS_FOLDER / f"{part.module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert f"def {part.function}() -> Iterator[Measure]:" in text, part


def test_parts_are_chosen_by_name_and_by_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing chooses the everyday parts; names choose theirs, timed ones first; an unknown name is an error."""
    assert [part.name for part in chosen([]) or ()] == [part.name for part in PARTS if part.run == "everyday"]
    assert [part.name for part in chosen(["worlds", "tick"]) or ()] == ["tick", "worlds"]
    assert chosen(["tik"]) is None
    assert main(["tik"]) == 64
    assert "no such part" in capsys.readouterr().err


def test_timed_parts_run_before_the_others_of_their_run() -> None:
    """An untimed part leaves nothing behind that a timed one would share the machine with."""
    for run in ("everyday", "long"):
        timed = [part.timed for part in PARTS if part.run == run]
        assert timed == sorted(timed, reverse=True)
