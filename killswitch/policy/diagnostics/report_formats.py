"""Diagnostics for other programs: SARIF 2.1.0, the annotations of GitHub's workflows, and JUnit's XML.

Sources: the OASIS standard «Static Analysis Results Interchange Format (SARIF) Version 2.1.0», GitHub's «Workflow
commands», and the elements of JUnit's reports that Jenkins, GitLab and GitHub read.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from msgspec import Struct

from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.diagnostics.pages import pages

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def sarif(diagnostics: Sequence[Diagnostic], version: str, folder: Path) -> dict[str, object]:
    """A SARIF log of one run. `version`: of this program. Files below `folder` have relative addresses.

    Columns count characters, as `columnKind` declares.
    """
    codes = sorted({each.code for each in diagnostics})
    results = [_sarif_result(each, codes.index(each.code), folder) for each in diagnostics]
    driver = {"name": "ksctl", "version": version, "rules": [_sarif_rule(code) for code in codes]}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _sarif_rule(code: str) -> dict[str, object]:
    page = pages().get(code)
    if page is None:  # a rule of the desk
        return {"id": code}
    return {
        "id": code,
        "shortDescription": {"text": page.title},
        "fullDescription": {"text": page.meaning},
        "help": {"text": page.fix},
    }


def _sarif_result(found: Diagnostic, rule: int, folder: Path) -> dict[str, object]:
    region: dict[str, object] = {"startLine": found.line, "startColumn": found.column}
    if found.source_line:
        region["endColumn"] = found.column + found.length
        region["snippet"] = {"text": found.source_line}
    place = {"artifactLocation": {"uri": _uri(found.file, folder)}, "region": region}
    return {
        "ruleId": found.code,
        "ruleIndex": rule,
        "level": found.severity,
        "message": {"text": f"{found.message}. Fix: {found.fix}"},
        "locations": [{"physicalLocation": place}],
    }


def _relative(file: str, folder: Path) -> str | None:
    """The path below `folder`; None if it is elsewhere."""
    path = Path(file)
    if not path.is_absolute():
        return None if ".." in path.parts else path.as_posix()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None


def _uri(file: str, folder: Path) -> str:
    relative = _relative(file, folder)
    return quote(relative) if relative is not None else (folder / file).as_uri()


def github(diagnostics: Iterable[Diagnostic], folder: Path) -> Iterator[str]:
    """A workflow command for each diagnostic, which GitHub shows at its line. Paths are relative to `folder`."""
    for each in diagnostics:
        places = {
            "file": _relative(each.file, folder) or each.file,
            "line": str(each.line),
            "col": str(each.column),
            "endColumn": str(each.column + each.length),
            "title": each.code,
        }
        properties = ",".join(f"{name}={_property(value)}" for name, value in places.items())
        yield f"::{each.severity} {properties}::{_data(f'{each.message}. Fix: {each.fix}')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def junit(verb: str, files: Iterable[str], diagnostics: Iterable[Diagnostic], *, strict: bool) -> str:
    """A test suite with a case for each file, which fails if the file has an error or, if `strict`, a warning.

    Other warnings are the output of a case. `files`: those that were read; files with diagnostics are added.
    """
    of_file: defaultdict[str, list[Diagnostic]] = defaultdict(list)
    for each in diagnostics:
        of_file[each.file].append(each)
    names = sorted({*files, *of_file})
    return junit_of(verb, (ReportedCase(each, each, None, tuple(of_file[each])) for each in names), strict=strict)


class ReportedCase(Struct, frozen=True):
    """A test case: its name, the file and line that it is of, and its diagnostics.

    `is_error`: it could not be tested to its end. `skipped`: why it was not tested; empty: it was.
    """

    name: str
    file: str
    line: int | None
    diagnostics: tuple[Diagnostic, ...]
    is_error: bool = False
    skipped: str = ""


def junit_of(verb: str, cases: Iterable[ReportedCase], *, strict: bool) -> str:
    """A test suite of these cases; one fails if it has an error or, if `strict`, a warning."""
    suite = ElementTree.Element("testsuite", name=verb)
    found: Counter[str] = Counter()
    for each in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=verb, name=_legible(each.name))
        case.attrib["file"] = _legible(each.file)
        if each.line is not None:
            case.attrib["line"] = str(each.line)
        failing = [it for it in each.diagnostics if strict or it.severity == "error"]
        outcome = "passed" if not failing else "error" if each.is_error else "failure"
        if each.skipped:
            outcome = "skipped"
            ElementTree.SubElement(case, "skipped", message=_legible(each.skipped))
        elif failing:
            head = failing[0]
            failure = ElementTree.SubElement(case, outcome, type=head.code, message=_legible(head.message))
            failure.text = _lines(failing)
        if not each.skipped and (passed := [it for it in each.diagnostics if it not in failing]):
            ElementTree.SubElement(case, "system-out").text = _lines(passed)
        found[outcome] += 1
    numbers = (found.total(), found["failure"], found["error"], found["skipped"])
    counts = dict(zip(("tests", "failures", "errors", "skipped"), map(str, numbers), strict=True))
    suite.attrib |= counts
    top = ElementTree.Element("testsuites", counts)
    top.append(suite)
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode")


def _lines(diagnostics: Iterable[Diagnostic]) -> str:
    return _legible(
        "\n".join(
            f"{it.file}:{it.line}:{it.column}: {it.severity} {it.code}: {it.message}. Fix: {it.fix}"
            for it in diagnostics
        )
    )


def _legible(text: str) -> str:
    """The text without characters that XML cannot hold."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
