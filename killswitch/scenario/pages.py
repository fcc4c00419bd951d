"""Results and coverage as pages for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from killswitch.render.document import Code, Facts, Items, Page, Section, Table
from killswitch.render.formats import count_of
from killswitch.scenario.comparison import Failure, Seen
from killswitch.scenario.coverage import UNEVALUATED, CoveragePoint, PolicyCoverage, by_line
from killswitch.scenario.running import CaseResult, counts, offset

Texts = Mapping[str, Sequence[str]]
"""File → its lines."""


def results_page(results: Sequence[CaseResult]) -> Page:
    """Every failure of every scenario, and the counts."""
    sections = [section for each in results for section in _case_sections(each)]
    return Page("Scenarios", sections=tuple(sections), summary=(summary(results),))


def summary(results: Sequence[CaseResult]) -> str:
    """`12 scenarios: 10 passed, 1 failed, 1 pending; 480 steps`."""
    found = [f"{count:,} {outcome}" for outcome, count in counts(results).items() if count]
    steps = count_of(sum(each.steps for each in results), "step")
    return f"{count_of(len(results), 'scenario')}: {', '.join(found) or 'none was run'}; {steps}"


def _case_sections(result: CaseResult) -> Iterator[Section]:
    where = f"{result.place.file}:{result.place.line}"
    if result.outcome == "error":
        yield Section(f"ERROR {result.name}  {where}", (Items((result.error,)),))
    elif result.outcome == "pending":
        yield Section(f"pending {result.name}  {where}", (Items((result.pending,)),))
    for failure in result.failures:
        yield _failure_section(result, failure)


def _failure_section(result: CaseResult, failure: Failure) -> Section:
    place = failure.place
    title = f"FAILED {result.name} at {offset(failure.at)}  {place.file}:{place.line}:{place.column}"
    first, *more = failure.seen.split("\n")
    facts = Facts((("wanted", failure.wanted), ("seen", first, *more)))
    values = tuple(each.line for each in failure.values)
    return Section(title, (facts, Code(values)) if values else (facts,))


def seen_page(results: Sequence[CaseResult]) -> Page:
    """What each scenario has shown, as expectations to copy; nothing is written anywhere."""
    sections = []
    for each in results:
        lines = ["expect:", *(f"  - {line}" for found in each.seen for line in seen_lines(found))]
        sections.append(
            Section(f"{each.name}  {each.place.file}", (Code(tuple(lines if each.seen else ["expect: []"])),))
        )
    note = "Compare it with what is right before you copy it: a test that repeats what it saw proves nothing."
    return Page("Seen", sections=tuple(sections), summary=(note,))


def seen_lines(found: Seen) -> Iterator[str]:
    """The expectation, in YAML, that this decision or notice meets."""
    where = f"policy: {found.policy}, scope: {_quoted(found.scope)}"
    line = f"at: {offset(found.at)}, {where}, {found.subject}: {found.name}"
    if found.subject == "fires":
        line += f", lock: {found.lock}"
        if found.lock_of:
            line += f", lock_of: [{', '.join(_quoted(each) for each in found.lock_of)}]"
        line += f", orders: [{', '.join(_quoted(each) for each in found.orders)}]"
    yield f"{{{line}}}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# Coverage


def percent(share: Fraction) -> str:
    """A share in percent, rounded down: 100% only if nothing is missing."""
    hundredths = share.numerator * 10_000 // share.denominator
    return f"{hundredths // 100}.{hundredths % 100:02}%"


def coverage_line(found: PolicyCoverage) -> str:
    """`coverage 37 of 40 (92.50%), 2 excluded`."""
    excluded = len(found.points) - found.covered - len(found.missed)
    more = f", {excluded} excluded" if excluded else ""
    return f"coverage {found.covered} of {found.covered + len(found.missed)} ({percent(found.share)}){more}"


def coverage_page(found: PolicyCoverage, texts: Texts) -> Page:
    """The coverage of each policy, what is missing, and the text of the policies line by line."""
    policies = list(dict.fromkeys(point.policy for point in found.points))
    rows = []
    for policy in policies:
        points = PolicyCoverage(tuple(point for point in found.points if point.policy == policy))
        total = points.covered + len(points.missed)
        rows.append((policy or "routes", str(points.covered), str(total), percent(points.share)))
    table = Table(("policy", "covered", "of", "share"), tuple(rows), numbers=(1, 2, 3))
    sections = [Section("Coverage", (table,))]
    if found.missed:
        sections.append(Section("Not covered", (Items(tuple(_missed_lines(found.missed))),)))
    excluded = [point for point in found.points if point.status == "excluded"]
    if excluded:
        sections.append(Section("Excluded", (Items(tuple(map(_missed_line, excluded))),)))
    sections += [Section(file, (Code(tuple(_lines(file, lines, found))),)) for file, lines in sorted(texts.items())]
    return Page("Coverage of the policies", summary=(coverage_line(found),), sections=tuple(sections))


def _missed_lines(missed: Sequence[CoveragePoint]) -> Iterator[str]:
    """A line for each point, and one for all of a policy that no scenario evaluates."""
    unevaluated = {point.policy: point for point in reversed(missed) if point.why == UNEVALUATED}
    for point in missed:
        first = unevaluated.get(point.policy)
        if first is None:
            yield _missed_line(point)
        elif first is point:
            count = count_of(sum(each.policy == point.policy for each in missed), "point")
            yield f"{point.place.file}:{point.place.line} {point.policy}: {count}: {point.why}"


def _missed_line(point: CoveragePoint) -> str:
    why = f": {point.why}" if point.why else ""
    where = f"{point.place.file}:{point.place.line}"
    name = f"{point.policy}: " if point.policy else ""
    return f"{where} {name}{point.subject}, {point.what}{why}"


def _lines(file: str, lines: Sequence[str], found: PolicyCoverage) -> Iterator[str]:
    """The lines of a file: `+` all of a line is covered, `-` something is not, with what below it."""
    points = by_line(found.points)
    for number, text in enumerate(lines, start=1):
        here = [point for point in points.get((file, number), ()) if point.status != "excluded"]
        missed = [point for point in here if point.status == "missed"]
        mark = "-" if missed else "+" if here else " "
        yield f"{mark} {number:>4} | {text}"
        yield from (f"       ! {point.subject}, {point.what}: {point.why}" for point in missed)
