"""`ksctl test`: exit codes, formats, empty runs, jobs and the watch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.cli.lab.scenarios import watch_files
from tests.unit.scenario.written import POLICY, scenario_text

PASSES = scenario_text("10000 -1%x4 =x2", "expect: [{at: 4m, fires: warn}]", name="passes")
FAILS = scenario_text("10000 -1%x4 =x2", "expect: [{at: 3m, fires: warn}]", name="fails")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the policies, and a scenario that passes."""
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "passes.yaml").write_text(PASSES, encoding="utf-8")
    return tmp_path


def run(folder: Path, *args: str) -> Result:
    """`ksctl test` on the folder."""
    return CliRunner().invoke(ksctl, ["test", str(folder), *args])


def test_a_run_in_which_everything_passes_exits_0(folder: Path) -> None:
    """With the counts and the coverage."""
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "1 scenario: 1 passed; 7 steps" in result.stdout
    assert "coverage " in result.stdout


def test_a_failure_exits_1_and_shows_place_wanted_seen_and_values(folder: Path) -> None:
    """Both failures of the file: nothing at 3m, and the firing at 4m."""
    (folder / "fails.yaml").write_text(FAILS, encoding="utf-8")
    result = run(folder)
    assert result.exit_code == 1
    assert f"FAILED fails at 3m  {folder / 'fails.yaml'}:15:12" in result.stdout
    assert "wanted  fires warn (falls on account/main)" in result.stdout
    assert "equity.loss_from_start >= 3%  [2.9701%]" in result.stdout
    assert "seen    fires warn (falls on account/main)" in result.stdout


def test_w5_tests_that_never_ran_are_no_success(folder: Path) -> None:
    """No scenario, a pattern that matches none, and only pending ones each exit 1; `--allow-empty` accepts them."""
    assert run(folder, "--run", "nothing").exit_code == 1
    assert "there is no scenario to run whose name contains 'nothing'" in run(folder, "--run", "nothing").output
    assert run(folder, "--run", "nothing", "--allow-empty").exit_code == 0
    (folder / "passes.yaml").write_text(PASSES.replace("  expect", "  pending: later\n  expect"), encoding="utf-8")
    assert "1 pending" in run(folder).output
    assert run(folder).exit_code == 1
    (folder / "passes.yaml").unlink()
    assert run(folder).exit_code == 1


def test_w5_a_mistake_in_a_file_runs_nothing(folder: Path) -> None:
    """A misspelt stage is an error with its place, in every format, and never a test that passes."""
    (folder / "fails.yaml").write_text(FAILS.replace("fires: warn", "fires: wran"), encoding="utf-8")
    result = run(folder)
    assert result.exit_code == 1
    assert "KS7020" in result.stdout
    assert "nothing was run" in result.stdout
    assert json.loads(run(folder, "-o", "json").stdout)["diagnostics"][0]["code"] == "KS7020"
    assert run(folder, "-o", "github").stdout.startswith("::error file=")
    assert ET.fromstring(run(folder, "-o", "junit").stdout).find("testsuite/testcase/failure") is not None
    (of_stage,) = json.loads(run(folder, "-o", "sarif").stdout)["runs"][0]["results"]
    assert of_stage["ruleId"] == "KS7020"


def test_a_pattern_chooses_by_name(folder: Path) -> None:
    """A part of the name, with `*` for any text."""
    (folder / "fails.yaml").write_text(FAILS, encoding="utf-8")
    assert run(folder, "--run", "p*ses").exit_code == 0
    assert run(folder, "--run", "fail").exit_code == 1


def test_the_output_is_the_same_with_any_number_of_jobs(folder: Path) -> None:
    """Thirty scenarios, in one process and in three."""
    for number in range(30):
        text = (PASSES if number % 3 else FAILS).replace("passes", f"n{number}").replace("fails", f"n{number}")
        (folder / f"n{number}.yaml").write_text(text, encoding="utf-8")
    one, three = run(folder, "--jobs", "1", "-o", "json"), run(folder, "--jobs", "3", "-o", "json")
    assert one.exit_code == three.exit_code == 1
    assert one.stdout == three.stdout
    assert json.loads(one.stdout)["counts"] == {"passed": 21, "failed": 10, "error": 0, "pending": 0}


def test_the_formats_agree(folder: Path) -> None:
    """JSON has every value of every clause, JUnit a case for each scenario, the others a place for each failure."""
    (folder / "later.yaml").write_text(PASSES.replace("passes", "n").replace("  exp", "  pending: later\n  exp"))
    (folder / "fails.yaml").write_text(FAILS, encoding="utf-8")
    answer = json.loads(run(folder, "-o", "json").stdout)
    fails, _, passes = answer["scenarios"]
    assert (fails["outcome"], passes["outcome"]) == ("failed", "passed")
    assert fails["failures"][0]["values"][-1]["values"] == ["equity.loss_from_start = 2.9701%"]
    root = ET.fromstring(run(folder, "-o", "junit").stdout)
    assert root.attrib == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert "at 3m, wanted: fires warn" in str(failure.text)
    lines = run(folder, "-o", "github").stdout.splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::error", "::warning"]
    assert lines[0].startswith(
        f"::error file={folder / 'fails.yaml'},line=15,col=12,endColumn=13,title=KS7030::fails at"
    )
    log = json.loads(run(folder, "-o", "sarif").stdout)["runs"][0]
    assert [each["ruleId"] for each in log["results"]] == ["KS7030", "KS7031", "KS7033"]
    region = log["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert (region["startLine"], region["startColumn"]) == (15, 12)
    assert "equity.loss_from_start >= 3%  [2.9701%]" in log["results"][0]["message"]["text"]
    assert {each["id"] for each in log["tool"]["driver"]["rules"]} == {"KS7030", "KS7031", "KS7033"}


def test_fail_under_compares_exact_fractions(folder: Path) -> None:
    """A share that is met exits 0, and one point more exits 1 with what is missing."""
    answer = json.loads(run(folder, "-o", "json").stdout)["coverage"]
    covered, total = answer["covered"], answer["of"]
    assert run(folder, "--fail-under", f"{covered}/{total}").exit_code == 0
    less = run(folder, "--fail-under", f"{covered * 1000 + 1}/{total * 1000}")
    assert less.exit_code == 1
    assert "Not covered" in less.stderr
    assert run(folder, "--fail-under", "100%").exit_code == 1
    assert run(folder, "--fail-under", "101%").exit_code == 2  # click's own; the program maps it to 64


def test_update_prints_what_was_seen_and_writes_nothing(folder: Path) -> None:
    """The file keeps its bytes, and the exit code is that of the comparison."""
    (folder / "fails.yaml").write_text(FAILS, encoding="utf-8")
    result = run(folder, "--update", "--run", "fails")
    assert result.exit_code == 1
    assert "- {at: 4m, policy: falls, scope: 'account/main', fires: warn, lock: none, orders: []}" in result.stdout
    assert (folder / "fails.yaml").read_text(encoding="utf-8") == FAILS


def test_coverage_is_a_page_in_the_terminal_and_as_html(folder: Path) -> None:
    """The same page, line by line."""
    result = run(folder, "--coverage", "--coverage-html", str(folder / "coverage.html"))
    assert "! trigger three, seen unknown: it was never unknown" in result.stdout
    html = (folder / "coverage.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert "trigger three, seen unknown: it was never unknown" in html


def test_watch_runs_again_after_each_change(folder: Path) -> None:
    """A changed file, a new one and a removed one; nothing runs while nothing changes."""
    changes = iter(
        [
            lambda: None,
            lambda: os.utime(folder / "passes.yaml", ns=(1, 1)),
            lambda: (folder / "new.yaml").write_text("a", encoding="utf-8"),
            lambda: None,
            (folder / "new.yaml").unlink,
        ]
    )
    runs: list[int] = []
    watch_files([folder], lambda: runs.append(1), lambda _: next(changes)(), most=4)
    assert len(runs) == 4
    assert next(changes, None) is None
