"""The page of a verified record: the verdict first, then what it rests on, then everything that is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.record.verification import Numbers, RecordReport
from killswitch.render.document import Facts, Items, Page, Section, Table
from killswitch.render.formats import count_of

_SHORT = 16
"""Characters of a digest on a page."""


def record_page(report: RecordReport, server: RecordReport | None = None) -> Page:
    """What a report says, for people; `--output json` has all of it. `server`: that of the chain of the servers."""
    sections = tuple(_sections(report))
    if server is not None:
        sections += (Section("The record of the server", (_facts(server),)), *_sections(server, "Server: "))
    return Page("Record", _facts(report), sections=sections)


def _facts(report: RecordReport) -> Facts:
    rows: list[tuple[str, ...]] = [("verdict", *_verdict(report))]
    if report.entries:
        rows.append(("entries", f"{report.entries:,}, from {report.first:,} to {report.last:,}"))
    if report.removed and report.removal is not None:
        declared = f"line {report.removal:,} states that, with the digest of what is known of them"
        rows.append(("removed", f"lines 1 to {report.removed:,}, by retention", declared))
    rows += [("chain", report.chain or "unknown"), ("root", report.root or "unknown: lines are missing or changed")]
    rows.append(("uncovered", *_uncovered(report)))
    return Facts(tuple(rows))


def _verdict(report: RecordReport) -> Iterator[str]:
    yield report.verdict
    if report.entries == 0:
        yield "a record without entries is never verified"
    if report.needs_anchor and not any(each.state == "confirmed" for each in report.anchors):
        yield "no anchor confirms it: whoever can write the record could have written all of it again"


def _uncovered(report: RecordReport) -> Iterator[str]:
    """How many entries no anchor covers; that a chain is whole says nothing about them."""
    if report.uncovered is None:
        yield "none: an anchor covers every entry" if report.entries else "there are no entries"
        return
    first, last = report.uncovered
    if first == last:
        yield f"1 entry, {last:,}, is covered by no anchor"
    else:
        yield f"{count_of(last - first + 1, 'entry')}, from {first:,} to {last:,}, are covered by no anchor"
    yield "a cut end, a changed last line and a rewrite of them would not show"


def _sections(report: RecordReport, of: str = "") -> Iterator[Section]:
    if report.breaks or report.altered.count or report.missing or report.torn or report.unknown_format:
        yield Section(f"{of}What is wrong", (Items(tuple(_wrong(report))),))
    if report.anchors or report.refused:
        yield Section(f"{of}Anchors", (_anchor_table(report),))
    if any(_remarks(report)):
        yield Section(f"{of}Remarks", (Items(tuple(_remarks(report))),))
    if len(report.segments) > 1:
        rows = tuple((each.name, _number(each.first), _number(each.last)) for each in report.segments)
        yield Section(f"{of}Segments", (Table(("segment", "first", "last"), rows, numbers=(1, 2)),))


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _wrong(report: RecordReport) -> Iterator[str]:
    if report.first_break is not None:
        first = report.first_break
        yield f"{count_of(report.breaks, 'break')}; the first at {first.segment}:{first.line}: {first.what}"
    if report.altered.count:
        yield f"{_which(report.altered)} with a body that is not the one that the line names"
    for first_missing, last_missing in report.missing:
        yield f"lines {first_missing:,} to {last_missing:,} are missing: a segment is elsewhere, or was deleted"
    if report.torn is not None:
        half = f"half a line of {report.torn.size} bytes ({report.torn.digest[:_SHORT]})"
        yield f"{report.torn.segment} ends with {half}, as a crash leaves it"
    if report.unknown_format is not None:
        yield report.unknown_format


def _anchor_table(report: RecordReport) -> Table:
    judged = [(each.fetched, str(each.state), each.why) for each in report.anchors]
    judged += [(each, "not genuine", each.refused) for each in report.refused]
    rows = [(f"{it.anchor.number:,}", state, it.at or "unknown", it.place, why or "") for it, state, why in judged]
    return Table(("number", "verdict", "made at", "place", "why"), tuple(rows), numbers=(0,), expendable=(3,))


def _remarks(report: RecordReport) -> Iterator[str]:
    yield from report.remarks
    if report.unanswered.count:
        yield f"{_which(report.unanswered)} announced what is not known to have happened"
    if report.withheld.count:
        yield f"{_which(report.withheld)} with a body that is missing: withheld, which is no sign of a change"
    if report.late.count:
        yield f"{_which(report.late)} made while the store refused writes, and stored late"
    if report.clock_back.count:
        yield f"{_which(report.clock_back)} with an earlier time than the one before: the numbers give the order"
    for epoch in report.epochs:
        lost = "unknown" if epoch.lost is None else f"{epoch.lost:,}"
        yield f"the store was restored before line {epoch.at:,}; entries lost, by the newest anchor known: {lost}"


def _which(numbers: Numbers) -> str:
    more = ", …" if numbers.count > len(numbers.first) else ""
    return f"{count_of(numbers.count, 'line')} ({', '.join(map(str, numbers.first))}{more})"
