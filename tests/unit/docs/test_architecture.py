"""docs/architecture.md and docs/traced-tick.md match the code: packages, layers, linked functions, a traced tick."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.traced_tick import PAGE, by_package, with_table
from tests.unit.docs.pages import Section, sections

LINK = re.compile(r"\[`([A-Za-z_.]+)`\]\(\.\./([a-z_/]+\.py)\)")
PATH = "## From a falling price to an order"


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


@pytest.fixture(scope="module")
def files(repository: Path) -> frozenset[str]:
    """Traced in a process of its own: other tests may have switched something on in this one, as traces."""
    code = "import json; from tests.traced_tick import traced_tick; print(json.dumps(sorted(traced_tick())))"
    paths = {"PYTHONPATH": os.pathsep.join([str(repository), str(repository / "adapters")])}
    traced = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env={**os.environ, **paths}, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    return frozenset(json.loads(traced.stdout))


def test_the_page_of_a_tick_names_every_file_that_it_enters(files: frozenset[str]) -> None:
    """`python -m tests.traced_tick` writes the table."""
    page = PAGE.read_text(encoding="utf-8")
    is_current = page == with_table(page, files)
    assert is_current, "run `python -m tests.traced_tick`, and commit the page that it writes"


def test_the_path_refers_to_the_files_of_the_tick(text: str) -> None:
    """A reader of the functions that decide is one link away from all that they enter."""
    assert f"]({PAGE.name})" in text.partition(PATH)[2].partition("\n## ")[0]


def test_the_functions_that_decide_are_on_the_traced_path(text: str, files: frozenset[str]) -> None:
    """Each row names a function of a file that the traced tick enters; adapters of other venues do not count."""
    section = text.partition(PATH)[2].partition("\n## ")[0]
    linked = {path for row in section.splitlines() if row.startswith("| ") for _, path in LINK.findall(row)}
    assert linked - files == set()


def test_the_packages_of_the_path_are_on_the_traced_path(text: str, files: frozenset[str]) -> None:
    """In a line of six to eight, which ends at the adapter."""
    line = text.partition(PATH)[2].partition("```\n")[2].partition("\n")[0].split(" → ")
    assert 6 <= len(line) <= 8
    assert set(line[:-1]) <= by_package(files).keys()
    assert line[-1] == "adapter"


def test_every_package_has_its_row(page: dict[str, Section], repository: Path) -> None:
    """Every row has its package, with all packages in it."""
    packages = _packages_in(repository / "killswitch")
    (table,) = page["Packages"].tables
    assert {row["package"].strip("`") for row in table} == packages.keys()
    for row in table:
        inner = _packages_in(packages[row["package"].strip("`")])
        assert set(re.findall(r"`([a-z_]+)`", row["packages in it"])) == inner.keys(), row["package"]


def _packages_in(folder: Path) -> dict[str, Path]:
    return {each.name: each for each in folder.iterdir() if (each / "__init__.py").exists()}


def test_the_layers_are_those_of_import_linter(text: str, repository: Path) -> None:
    """In the same order, from the top."""
    drawn = text.partition("```\n")[2].partition("```")[0].splitlines()
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    assert drawn == [layer.replace("killswitch.", "") for layer in contract["layers"]]
