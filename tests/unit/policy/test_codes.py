"""Diagnostic codes: every code has a page, and a test exercises every code of the policy package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import astuple

from killswitch.cli import ksctl
from killswitch.policy.diagnostics.pages import families, page, pages

PROGRAM = Path(__file__).parents[3] / "killswitch"
TESTS = Path(__file__).parents[2]
RAISING = ("policy", "graph", "incident", "accounts", "source", "operations", "runner", "lab", "scenario")
CODE = re.compile(r"\bKS[1-9]\d{3}\b")

PAGES = pages()


def codes_in_files(files: list[Path]) -> set[str]:
    """Every code written in the files."""
    return {code for file in files for code in CODE.findall(file.read_text())}


def raised_codes() -> set[str]:
    """Every code that the packages can raise."""
    return codes_in_files([file for package in RAISING for file in (PROGRAM / package).rglob("*.py")])


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    """`ksctl explain` knows every code of `ksctl validate`, and no others."""
    assert raised_codes() == set(PAGES)


def test_every_code_of_the_policy_package_is_exercised() -> None:
    """A fixture or a test causes it, so that its place and its fix are checked."""
    of_policy = {code for code in raised_codes() if code < "KS3"}
    here = [file for file in Path(__file__).parent.rglob("*") if file.suffix in (".py", ".yaml")]
    assert of_policy - codes_in_files([file for file in here if file != Path(__file__)]) == set()


@pytest.mark.parametrize("code", sorted(PAGES))
def test_a_page_says_what_is_wrong_and_how_to_fix_it(code: str) -> None:
    """No part of a page is empty, and the page begins with the code and its title."""
    assert all(part.strip() for part in astuple(PAGES[code]))
    text = page(code)
    assert text.startswith(f"{code}: {PAGES[code].title}\n")
    assert PAGES[code].meaning in text
    assert text.endswith(f"How to fix it:\n\n{PAGES[code].fix}\n")


def test_a_code_is_case_insensitive() -> None:
    """Input typed by people is normalised."""
    assert page(" ks2001 ") == page("KS2001")


def test_an_unknown_code_suggests_the_nearest() -> None:
    """LookupError, with a message for people."""
    with pytest.raises(LookupError, match=r"unknown code KS20011; did you mean KS2001\?"):
        page("KS20011")
    with pytest.raises(LookupError, match=r"unknown code KS9999$"):
        page("KS9999")
    with pytest.raises(LookupError, match=r"unknown code nonsense$"):
        page("nonsense")


def test_an_invalid_file_of_pages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name, and where it stops being one: a section never ends at the end of the next one."""
    whole = "## KS9902: whole\n\nA meaning.\n\n```yaml\na: 1\n```\n\n**Fix**: b\n"
    (tmp_path / "ks99-odd.md").write_text(
        f"# Odd (KS99xx)\n\n{whole.replace('9902', '9901').replace('**Fix', 'Fix')}{whole}"
    )
    monkeypatch.setattr("killswitch.policy.diagnostics.pages.FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"ks99-odd\.md: no page of a KS99xx code begins with '## KS9901"):
        families.__wrapped__()


def test_an_installation_without_its_pages_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder is not reported as an unknown code."""
    monkeypatch.setattr("killswitch.policy.diagnostics.pages.FOLDER", tmp_path / "gone")
    monkeypatch.setattr("killswitch.policy.diagnostics.pages.pages", pages.__wrapped__)
    monkeypatch.setattr("killswitch.policy.diagnostics.pages.families", families.__wrapped__)
    done = CliRunner().invoke(ksctl, ["explain", "KS1203"])
    assert done.exit_code == 1
    assert "the diagnostic pages of this installation are damaged" in done.output
    assert "gone holds no pages): reinstall it" in done.output
