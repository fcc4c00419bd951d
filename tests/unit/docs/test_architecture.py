"""docs/architecture.md matches the code: rooms, layers, and the files of the linked functions."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.unit.docs.pages import Section, sections

LINK = re.compile(r"\[`([A-Za-z_.]+)`\]\(\.\./([a-z_/]+\.py)\)")
MOST_FILES = 15
"""Most files on the path from a price to an order, so that a newcomer can read all of them at once."""


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> dict[str, Section]:
    return sections(text)


def defined_names(source: str) -> set[str]:
    """The names that a module defines, and those of its classes as `Class.method`."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if hasattr(each, "name")}
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id for each in targets if isinstance(each, ast.Name)}
    return found


def test_every_name_is_defined_in_the_file_of_its_link(text: str, repository: Path) -> None:
    """Functions, methods, classes and tables of the program."""
    links = LINK.findall(text)
    assert len(links) > 20
    assert len(links) == text.count("](../"), "each link to code names what is there"
    lost = [name for name, path in links if name not in defined_names((repository / path).read_text(encoding="utf-8"))]
    assert lost == []


def test_the_path_from_a_price_to_an_order_has_at_most_fifteen_files(text: str) -> None:
    """The adapter's files are not counted."""
    path_section = text.partition("## From a falling price to an order")[2].partition("\n## ")[0]
    files = {path for row in path_section.splitlines() if row.startswith("|") for _, path in LINK.findall(row)}
    assert 10 <= len(files) <= MOST_FILES


def test_every_room_has_its_row(page: dict[str, Section], repository: Path) -> None:
    """Every row has its room, with all of its chapters."""
    packages = repository / "killswitch"
    rooms = {folder.name: folder for folder in packages.iterdir() if (folder / "__init__.py").exists()}
    (table,) = page["Rooms"].tables
    assert {row["room"].strip("`") for row in table} == rooms.keys()
    for row in table:
        room = rooms[row["room"].strip("`")]
        chapters = {folder.name for folder in room.iterdir() if (folder / "__init__.py").exists()}
        assert set(re.findall(r"`([a-z_]+)`", row["chapters"])) == chapters, row["room"]


def test_the_layers_are_those_of_import_linter(text: str, repository: Path) -> None:
    """In the same order, from the top."""
    drawn = text.partition("```\n")[2].partition("```")[0].splitlines()
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    assert drawn == [layer.replace("killswitch.", "") for layer in contract["layers"]]
