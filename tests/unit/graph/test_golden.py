"""The compiler against its golden files: what each input compiles to, and how each mistake is reported.

`KILLSWITCH_WRITE_GOLDEN=1` writes the files anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.graph.diagram import dot, mermaid
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.diagnostics.pages import pages
from killswitch.policy.loader import Document, load
from tests.shown import diagnostics_text
from tests.unit.graph.golden_text import as_text

GOLDEN = Path(__file__).parent / "golden"
VALID = sorted(path.name for path in GOLDEN.glob("*.yaml"))
FOUND_AFTER_COMPILING = {"KS3051", "KS3052", "KS3059", "KS3060", "KS3090", "KS5029", "KS5071", "KS5096"}
"""Found in accounts, venues, targets and runbooks, after compiling."""
RENAMES = {"KS8401", "KS8402"}
OF_THE_GRAPH = {code for code in pages() if "KS3" <= code < "KS6" or code in RENAMES} - FOUND_AFTER_COMPILING
INVALID = sorted(path.name for path in (GOLDEN / "invalid").glob("*.yaml"))


def documents(name: str) -> tuple[Document, ...]:
    loaded = load([Path(name)])
    assert diagnostics_text(loaded.diagnostics) == ""
    return loaded.documents


def diagnostics_of(name: str) -> tuple[Diagnostic, ...]:
    return compile_policies(documents(name))[1]


def assert_golden(path: Path, actual: str) -> None:
    if os.environ.get("KILLSWITCH_WRITE_GOLDEN"):
        path.write_text(actual, encoding="utf-8")
    assert actual == path.read_text(encoding="utf-8"), "KILLSWITCH_WRITE_GOLDEN=1 writes it again: read the difference"


@pytest.mark.parametrize("name", VALID)
def test_a_policy_compiles_to_its_golden_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field of every node is as in the golden file, without a diagnostic."""
    monkeypatch.chdir(GOLDEN)
    policy_set, diagnostics = compile_policies(documents(name))
    assert diagnostics_text(diagnostics) == ""
    assert policy_set is not None
    assert_golden(GOLDEN / name.replace(".yaml", ".txt"), as_text(policy_set))


@pytest.mark.parametrize("name", INVALID)
def test_a_mistake_is_reported_as_in_its_golden_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All mistakes of a file in one pass, each with its place, code, caret and fix."""
    monkeypatch.chdir(GOLDEN / "invalid")
    assert_golden(GOLDEN / "invalid" / name.replace(".yaml", ".txt"), diagnostics_text(diagnostics_of(name)) + "\n")


@pytest.mark.parametrize("name", [name for name in INVALID if not name.startswith("ks4000")])
def test_a_file_of_mistakes_holds_the_code_of_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part of the file name is among the codes; errors leave no graph, warnings leave one."""
    monkeypatch.chdir(GOLDEN / "invalid")
    policy_set, diagnostics = compile_policies(documents(name))
    code = name.split("-", maxsplit=1)[0].upper()
    assert code in {each.code for each in diagnostics}
    assert (policy_set is None) == (not code.startswith("KS5"))


def test_every_code_of_the_graph_has_a_file() -> None:
    """Every page has a policy with its problem."""
    shown = {name.split("-")[0].upper() for name in INVALID}
    assert shown >= OF_THE_GRAPH


@pytest.mark.parametrize("name", INVALID)
def test_only_codes_with_a_page_are_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ksctl explain` knows every code that compiling gives."""
    monkeypatch.chdir(GOLDEN / "invalid")
    assert {each.code for each in diagnostics_of(name)} <= OF_THE_GRAPH


def test_the_graph_is_drawn_as_in_its_golden_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals lead to triggers, triggers to stages, stages to what they do; in Mermaid and in DOT."""
    monkeypatch.chdir(GOLDEN)
    policy_set, _ = compile_policies(documents("futures.yaml"))
    assert policy_set is not None
    assert_golden(GOLDEN / "futures.mmd", mermaid(policy_set))
    assert_golden(GOLDEN / "futures.dot", dot(policy_set))
