"""Diagnostics as SARIF, GitHub annotations and JUnit, of `validate` and `lint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.diagnostics.report_formats import github, junit, sarif

MISTAKES = Path(__file__).parent / "mistakes"

MESSAGE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
}
REGION = {
    "type": "object",
    "additionalProperties": False,
    "required": ["startLine"],
    "properties": {
        "startLine": {"type": "integer", "minimum": 1},
        "startColumn": {"type": "integer", "minimum": 1},
        "endColumn": {"type": "integer", "minimum": 1},
        "snippet": MESSAGE,
    },
}
RESULT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["ruleId", "ruleIndex", "level", "message", "locations"],
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": -1},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": MESSAGE,
        "locations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "physicalLocation": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["artifactLocation"],
                        "properties": {
                            "artifactLocation": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {"uri": {"type": "string", "format": "uri-reference"}},
                            },
                            "region": REGION,
                        },
                    }
                },
            },
        },
    },
}
RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id"],
    "properties": {"id": {"type": "string"}} | dict.fromkeys(("shortDescription", "fullDescription", "help"), MESSAGE),
}
SARIF_2_1_0 = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["tool"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "version": {"type": "string"},
                                    "rules": {"type": "array", "uniqueItems": True, "items": RULE},
                                },
                            }
                        },
                    },
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "results": {"type": "array", "items": RESULT},
                },
            },
        },
    },
}
"""The part of the published schema that a log of ours uses, written down from the standard; nothing else is allowed."""


def check_sarif(log: Any) -> None:
    """Valid by the schema, and each result refers to its rule."""
    jsonschema.Draft202012Validator(
        SARIF_2_1_0, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    assert len({each["id"] for each in rules}) == len(rules)


def problem(file: str, **changes: Any) -> Diagnostic:
    """A diagnostic of a file."""
    values: dict[str, Any] = {
        "code": "KS2001",
        "severity": "error",
        "message": "unknown key `a,b`: 5%",
        "fix": "write\n`c`",
        "file": file,
        "line": 3,
        "column": 5,
        "length": 4,
        "source_line": "    a,b: 5%",
    }
    return Diagnostic(**(values | changes))


@pytest.mark.parametrize("fixture", sorted(MISTAKES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_mistake_has_a_valid_result(fixture: Path) -> None:
    """The log of each fixture is valid SARIF, with the places of `--output json`."""
    done = CliRunner().invoke(ksctl, ["validate", str(fixture), "-o", "sarif"])
    log = json.loads(done.output)
    check_sarif(log)
    answer = json.loads(CliRunner().invoke(ksctl, ["validate", str(fixture), "-o", "json"]).output)
    regions = [each["locations"][0]["physicalLocation"]["region"] for each in log["runs"][0]["results"]]
    assert [(each["startLine"], each["startColumn"]) for each in regions] == [
        (each["line"], each["column"]) for each in answer["diagnostics"]
    ]


def test_a_set_without_a_problem_has_an_empty_run(repository: Path) -> None:
    """Exit 0: `results` is there and empty, which says that the check ran."""
    for verb in ("validate", "lint"):
        done = CliRunner().invoke(ksctl, [verb, str(repository / "policies"), "-o", "sarif"])
        log = json.loads(done.output)
        check_sarif(log)
        assert (done.exit_code, log["runs"][0]["results"]) == (0, [])


def test_addresses_are_relative_to_the_folder_of_the_run() -> None:
    """With escapes; a file elsewhere has a whole address."""
    folder = Path("/srv/desk")
    files = ("policies/a b.yaml", "/srv/desk/policies/c.yaml", "/etc/d.yaml", "../e.yaml")
    log: Any = sarif([problem(file) for file in files], "1.0", folder)
    check_sarif(log)
    found = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in log["runs"][0]["results"]]
    assert found == ["policies/a%20b.yaml", "policies/c.yaml", "file:///etc/d.yaml", "file:///srv/desk/../e.yaml"]


def test_a_problem_of_a_whole_file_has_no_snippet() -> None:
    """And no end of a column that is not there."""
    log: Any = sarif([problem("a.yaml", source_line="", line=1, column=1)], "1.0", Path("/srv"))
    check_sarif(log)
    region = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 1, "startColumn": 1}


def test_a_rule_of_a_desk_has_only_its_code() -> None:
    """It has no page."""
    log: Any = sarif([problem("a.yaml", code="DESK1")], "1.0", Path("/srv"))
    check_sarif(log)
    assert log["runs"][0]["tool"]["driver"]["rules"] == [{"id": "DESK1"}]


def test_annotations_escape_what_commands_reserve() -> None:
    """Percent signs and line ends in the text; colons and commas in properties as well."""
    (line,) = github([problem("a,b:c.yaml")], Path("/srv"))
    assert line == (
        "::error file=a%2Cb%3Ac.yaml,line=3,col=5,endColumn=9,title=KS2001::unknown key `a,b`: 5%25. Fix: write%0A`c`"
    )


def test_a_file_is_a_test_case() -> None:
    """Files without problems pass; a warning fails only if warnings do; XML's forbidden characters are replaced."""
    warning = problem("b.yaml", severity="warning", message="odd \x07 <text>")
    found = [problem("a.yaml"), problem("a.yaml", line=9), warning]
    top = ElementTree.fromstring(junit("ksctl validate", ["a.yaml", "b.yaml", "c.yaml"], found, strict=False))
    assert (top.attrib["tests"], top.attrib["failures"]) == ("3", "1")
    a, b, c = top.findall("testsuite/testcase")
    assert [len(each.findall("failure")) for each in (a, b, c)] == [1, 0, 0]
    assert (a.find("failure") or a[0]).attrib["type"] == "KS2001"
    assert "a.yaml:9:5: error KS2001" in (a[0].text or "")
    assert "odd \N{REPLACEMENT CHARACTER} <text>" in (b[0].text or "")
    strict = ElementTree.fromstring(junit("ksctl validate", ["c.yaml"], found, strict=True))
    assert strict.attrib["failures"] == "2"


def test_the_verbs_print_each_format(tmp_path: Path) -> None:
    """With the exit codes of text: 1 for an error, 3 for warnings with --strict."""
    bad = MISTAKES / "KS2004-misspelt-mode.yaml"
    for verb in ("validate", "lint"):
        shown = CliRunner().invoke(ksctl, [verb, str(bad), "-o", "github"])
        assert shown.exit_code == 1
        assert shown.output.startswith("::error file=")
        cases = CliRunner().invoke(ksctl, [verb, str(bad), "-o", "junit"])
        assert cases.exit_code == 1
        assert ElementTree.fromstring(cases.output.encode()).attrib["failures"] == "1"
    missing = CliRunner().invoke(ksctl, ["validate", str(tmp_path / "gone"), "-o", "sarif"])
    assert missing.exit_code == 1
    check_sarif(json.loads(missing.output))
