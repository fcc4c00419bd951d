"""Results of scenarios for programs: JSON, and diagnostics with places, which SARIF, GitHub and JUnit are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostic
from killswitch.policy.diagnostics.report_formats import ReportedCase
from killswitch.scenario.comparison import Failure
from killswitch.scenario.coverage import PolicyCoverage
from killswitch.scenario.running import CaseResult, counts, offset

RESULT_FORMAT = "killswitch.scenarios/v1"
UNMET, UNEXPECTED, ENDED, PENDING = "KS7030", "KS7031", "KS7032", "KS7033"
"""An expectation that nothing meets, what nothing expects, a run that ended before its end, and a pending scenario."""


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


def diagnostics(results: Iterable[CaseResult]) -> Iterator[Diagnostic]:
    """An error at each failure, and a warning at each pending scenario."""
    for result in results:
        yield from (_failed(result, each) for each in result.failures)
        if result.outcome == "error":
            fix = "correct what it says; a longer --timeout, if the time limit is over"
            yield diagnostic(ENDED, result.place, f"{result.name}: {result.error}", fix, length=len(result.name))
        elif result.outcome == "pending":
            message = f"{result.name} is pending: {result.pending}"
            fix = "remove `pending` once it passes"
            yield diagnostic(PENDING, result.place, message, fix, length=len(result.name), severity="warning")


def _failed(result: CaseResult, failure: Failure) -> Diagnostic:
    """The failure in lines: the scenario and when, wanted, seen, and the values of the parts."""
    head = (f"{result.name} at {offset(failure.at)}, wanted: {failure.wanted}", f"seen: {failure.seen}")
    message = "\n".join((*head, *(each.line for each in failure.values)))
    if failure.is_unexpected:
        fix = "correct the policy, or expect it; `ksctl test --update` prints what was seen"
        return diagnostic(UNEXPECTED, failure.place, message, fix, length=len(result.name))
    fix = "correct the policy, or the expectation; `ksctl test --update` prints what was seen"
    return diagnostic(UNMET, failure.place, message, fix)


def cases(results: Iterable[CaseResult]) -> Iterator[ReportedCase]:
    """A test case for each scenario, with all failures of it."""
    for each in results:
        yield ReportedCase(
            each.name, each.place.file, each.place.line, tuple(diagnostics([each])),
            is_error=each.outcome == "error", skipped=each.pending,
        )  # fmt: skip
