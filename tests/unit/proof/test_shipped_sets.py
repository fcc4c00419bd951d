"""`ksctl prove` of each shipped set: proved, or refuted as docs/proofs.md lists it, with a witness and a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl

pytest.importorskip("z3", reason="the extra `prove` is not installed")

REPOSITORY = Path(__file__).parents[3]
SETS = tuple(sorted(each.name for each in (REPOSITORY / "policies").iterdir() if each.is_dir()))
ROW = re.compile(r"\| `(?P<set>[\w-]+)` \| (?P<policy>[\w-]+) \| (?P<property>.+?) \| (?P<subject>[\w-]*) \|")
Finding = tuple[str, str, str]
"""Policy, property, and what of it."""


def documented(name: str) -> set[Finding]:
    """The refutations of a set on the page."""
    page = (REPOSITORY / "docs/proofs.md").read_text(encoding="utf-8")
    rows = ROW.finditer(page.partition("## Shipped policies")[2])
    return {(row["policy"], row["property"], row["subject"]) for row in rows if row["set"] == name}


@pytest.mark.parametrize("name", SETS)
def test_a_shipped_set_is_proved_or_refuted_as_documented(name: str) -> None:
    """Nothing is undecided; a refutation that appears or disappears fails; each has a witness of the engine."""
    result = CliRunner().invoke(ksctl, ["prove", str(REPOSITORY / "policies" / name), "-o", "json"])
    findings = json.loads(result.stdout)["findings"]
    assert findings and {each["outcome"] for each in findings} <= {"proved", "refuted"}
    refuted = [each for each in findings if each["outcome"] == "refuted"]
    assert {(each["policy"], each["property"], each["subject"]) for each in refuted} == documented(name)
    assert all(each["witness"] for each in refuted)
    assert result.exit_code == (1 if refuted else 0)


def test_the_page_lists_refutations_of_shipped_sets_only() -> None:
    """Each row of its table names a set, and gives the witness and the reason."""
    page = (REPOSITORY / "docs/proofs.md").read_text(encoding="utf-8")
    rows = [line for line in page.partition("## Shipped policies")[2].splitlines() if line.startswith("| `")]
    assert all((found := ROW.match(line)) and found["set"] in SETS for line in rows)
    assert all(all(cell.strip() for cell in line.strip("|").split("|")) for line in rows)


def test_w5_what_builds_the_tests_installs_the_solver() -> None:
    """Tests of proofs are skipped without z3: `make test` has it, so that none is skipped there unseen."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"\$\(INSTALL\) --editable '\.\[[\w,]*\bprove\b[\w,]*\]'", makefile)
    assert "make test\n" in (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
