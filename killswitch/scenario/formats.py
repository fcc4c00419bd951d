"""Results of scenarios for programs: JUnit XML, annotations of GitHub, and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree as ET  # only written, never parsed

from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.render.formats import count_of
from killswitch.scenario.comparison import Failure
from killswitch.scenario.coverage import PolicyCoverage
from killswitch.scenario.running import CaseResult, counts, offset

RESULT_FORMAT = "killswitch.scenarios/v1"
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(results: Sequence[CaseResult], covered: PolicyCoverage) -> dict[str, object]:
    """The results, and the coverage with every point."""
    return {
        "format": RESULT_FORMAT,
        "counts": dict(counts(results)),
        "scenarios": [_case(each) for each in results],
        "coverage": {
            "covered": covered.covered,
            "of": covered.covered + len(covered.missed),
            "points": [
                {
                    "policy": point.policy, "kind": point.kind, "subject": point.subject, "what": point.what,
                    "status": point.status, "why": point.why, "file": point.place.file, "line": point.place.line,
                }
                for point in covered.points
            ],
        },
    }  # fmt: skip


def _case(result: CaseResult) -> dict[str, object]:
    return {
        "name": result.name,
        "file": result.place.file,
        "line": result.place.line,
        "outcome": result.outcome,
        "steps": result.steps,
        "error": result.error or None,
        "pending": result.pending or None,
        "failures": [_failure(each) for each in result.failures],
        "seen": [{"at": offset(each.at), "what": each.words, "message": each.message} for each in result.seen],
    }


def _failure(failure: Failure) -> dict[str, object]:
    return {
        "at": offset(failure.at),
        "file": failure.place.file,
        "line": failure.place.line,
        "column": failure.place.column,
        "wanted": failure.wanted,
        "seen": failure.seen,
        "values": [
            {"depth": it.depth, "text": it.text, "truth": it.truth, "values": list(it.values), "reason": it.reason}
            for it in failure.values
        ],
    }


def junit(results: Sequence[CaseResult]) -> str:
    """JUnit XML: a suite for each file, a case for each scenario, with all failures of it in one text."""
    root = ET.Element("testsuites", {"name": "ksctl test"} | _numbers(results))
    for file in dict.fromkeys(each.place.file for each in results):
        cases = [each for each in results if each.place.file == file]
        suite = ET.SubElement(root, "testsuite", {"name": _xml(file)} | _numbers(cases))
        for each in cases:
            case = ET.SubElement(
                suite,
                "testcase",
                name=_xml(each.name),
                classname=_xml(file),
                file=_xml(file),
                line=str(each.place.line),
            )
            _verdict(case, each)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def junit_problems(problems: Sequence[Diagnostic]) -> str:
    """JUnit XML of a run that could not be loaded: an error for each mistake in a file."""
    root = ET.Element("testsuites", name="ksctl test")
    errors = {"tests": str(len(problems)), "errors": str(len(problems))}
    suite = ET.SubElement(root, "testsuite", {"name": "load"} | errors)
    for each in problems:
        name = f"{each.file}:{each.line}:{each.column}"
        case = ET.SubElement(suite, "testcase", name=_xml(name), classname="load", file=_xml(each.file))
        ET.SubElement(case, "error", message=_xml(f"{each.code}: {each.message}; fix: {each.fix}"))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode")


def github_problems(problems: Iterable[Diagnostic]) -> Iterator[str]:
    """Annotations of a run that could not be loaded: one at each mistake."""
    for each in problems:
        text = f"{each.message}\nfix: {each.fix}"
        yield _annotation(each.severity, each.file, each.line, each.column, each.code, text)


def _numbers(results: Sequence[CaseResult]) -> dict[str, str]:
    found = counts(results)
    numbers = {"tests": len(results), "failures": found["failed"], "errors": found["error"]}
    return {key: str(value) for key, value in (numbers | {"skipped": found["pending"]}).items()}


def _verdict(case: ET.Element, result: CaseResult) -> None:
    if result.outcome == "failed":
        message = count_of(len(result.failures), "failure")
        ET.SubElement(case, "failure", message=message).text = _xml("\n\n".join(map(failure_text, result.failures)))
    elif result.outcome == "error":
        ET.SubElement(case, "error", message=_xml(result.error))
    elif result.outcome == "pending":
        ET.SubElement(case, "skipped", message=_xml(result.pending))


def _xml(text: str) -> str:
    """The text without characters that XML does not allow."""
    return _NOT_XML.sub("�", text)


def failure_text(failure: Failure) -> str:
    """A failure in lines: when, wanted, seen, and the values of the parts."""
    head = (f"at {offset(failure.at)}, wanted: {failure.wanted}", f"seen: {failure.seen}")
    return "\n".join((*head, *(each.line for each in failure.values)))


def github(results: Iterable[CaseResult]) -> Iterator[str]:
    """Annotations of a GitHub workflow: an error at each failure, a notice at each pending scenario."""
    for result in results:
        for failure in result.failures:
            place, title = failure.place, f"{result.name} at {offset(failure.at)}"
            yield _annotation("error", place.file, place.line, place.column, title, failure_text(failure))
        if result.outcome in ("error", "pending"):
            kind = "error" if result.outcome == "error" else "notice"
            text = result.error or result.pending
            yield _annotation(kind, result.place.file, result.place.line, result.place.column, result.name, text)


def _annotation(kind: str, file: str, line: int, column: int, title: str, text: str) -> str:
    message = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    shown = (_property(each) for each in (file, str(line), str(column), title))
    return "::{} file={},line={},col={},title={}::{}".format(kind, *shown, message)


def _property(text: str) -> str:
    found = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return found.replace(":", "%3A").replace(",", "%2C")
