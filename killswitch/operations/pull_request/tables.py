"""The tables of an impact, of which the comment and the page are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal

from killswitch.lab.impact.firing_changes import ComparedFiring, FiringWord
from killswitch.lab.impact.replays import SpanReplay
from killswitch.operations.impact.classification import NEEDS_APPROVAL, PARTS, ClassifiedChange
from killswitch.operations.impact.document_differences import DocumentDifference
from killswitch.operations.pull_request.answer import ImpactAnswer, figures_of
from killswitch.render.document import Table
from killswitch.render.formats import amount_text, duration_text, instant

WIDEST = 48
FIRING_WORDS: tuple[FiringWord, ...] = ("no more", "later", "closes less", "earlier", "new", "closes more")
BY_PROOF = "by the proof"
"""The class of a difference that the proof classifies, in the table of differences."""


def differences_table(differences: Sequence[DocumentDifference]) -> Table:
    """Every difference, a row for each key: removed triggers first, then documents that are no longer loaded."""
    rows = [row for each in differences for row in _difference_rows(each)]
    rows.sort(key=lambda row: 0 if row[0] == "trigger removed" else 1 if row[0] == "no longer loaded" else 2)
    return Table(
        ("difference", "document", "key", "base", "head", "class", "place"),
        tuple(rows),
        widest=WIDEST,
        expendable=(6, 3),
    )


def _difference_rows(each: DocumentDifference) -> Iterator[tuple[str, ...]]:
    name, verdict = f"{each.kind} {each.name}", each.verdict or BY_PROOF
    if not each.keys:
        yield each.change, name, each.why or "-", "-", "-", verdict, each.place
    for key in each.keys:
        change = (
            "changed" if key.base is not None and key.head is not None else "removed" if key.head is None else "added"
        )
        what = f"trigger {change}" if key.is_whole and key.path.startswith("spec.triggers.") else change
        path = key.path.removeprefix("spec.").removeprefix("triggers." if what.startswith("trigger") else "spec.")
        yield what, name, path, key.base or "-", key.head or "-", verdict, each.place


def verdicts_table(answer: ImpactAnswer, *, needing_approval: bool = False) -> Table:
    """The class of each policy, by part; only of those that need approvals, if so wanted."""
    found = () if answer.classification is None else answer.classification.policies
    rows = tuple(
        (each.policy, each.verdict, *(verdict for _, verdict in each.parts))
        for each in found
        if not needing_approval or each.verdict in NEEDS_APPROVAL
    )
    return Table(("policy", "class", *PARTS), rows, widest=WIDEST)


def changes_table(changes: Sequence[ClassifiedChange]) -> Table:
    """What the proof found, a row for each difference."""
    rows = tuple((each.verdict, each.policy, each.part, each.text) for each in changes)
    return Table(("class", "policy", "part", "why"), rows, widest=WIDEST)


def crashes_table(replays: Sequence[SpanReplay]) -> Table:
    """What fires earlier, later, no more and in addition, and what that does to the book: base → head."""
    rows = tuple(_crash_row(each, name) for each, name in zip(replays, _names(replays), strict=True))
    return Table(("span", "fires", "closed", "final equity", "worst drawdown"), rows, (2, 3, 4), widest=WIDEST)


def differs(replay: SpanReplay) -> bool:
    """Whether base and head do anything differently in a replay."""
    return replay.base != replay.head and any(each.word != "the same" for each in replay.firings)


def _names(replays: Sequence[SpanReplay]) -> list[str]:
    """Each replay by its span and its book."""
    return [f"{each.span}, {each.book}" for each in replays]


def _crash_row(each: SpanReplay, name: str) -> tuple[str, ...]:
    if each.base is None or each.head is None:
        return (f"{name}: not replayed", "-", "-", "-", "-")
    words = Counter(firing.word for firing in each.firings)
    smaller = sum(firing.word == "no more" and firing.was_smaller is True for firing in each.firings)
    fires = [f"{words[word]} {word}" for word in FIRING_WORDS if words[word]]
    if smaller:
        fires.append(f"{smaller} of these because the book was smaller by then")
    base, head = figures_of(each.base), figures_of(each.head)
    return (
        name, ", ".join(fires) or "the same", _change(_money(base.closed), _money(head.closed)),
        _change(_money(base.final_equity), _money(head.final_equity)),
        _change(f"{base.worst_drawdown:.2%}", f"{head.worst_drawdown:.2%}"),
    )  # fmt: skip


def _change(base: str, head: str) -> str:
    return base if base == head else f"{base} → {head}"


def _money(amount: Decimal) -> str:
    return f"{amount:,.0f}"


def calm_table(replays: Sequence[SpanReplay]) -> Table:
    """False firings: what fires in spans in which nothing should."""
    rows = []
    for each, name in zip(replays, _names(replays), strict=True):
        found = [None if run is None else len(run.firings) for run in (each.base, each.head)]
        shown = tuple("not replayed" if number is None else str(number) for number in found)
        rows.append((name, *shown))
    return Table(("calm span", "false firings: base", "false firings: head"), tuple(rows), (1, 2))


def firings_table(firings: Sequence[ComparedFiring], caption: str = "") -> Table:
    """Each firing that differs."""
    rows = tuple(_firing_row(each) for each in firings if each.word != "the same")
    return Table(
        ("what", "stage", "scope", "base", "head", "closed: base", "closed: head", "because"),
        rows,
        (5, 6),
        caption,
        widest=WIDEST,
    )


def _firing_row(each: ComparedFiring) -> tuple[str, ...]:
    moved = "" if each.moved is None or not each.moved else f" by {_length(each.moved)}"
    closed = (("-" if amount is None else amount_text(amount)) for amount in (each.base_closed, each.head_closed))
    because = (
        "-" if each.was_smaller is None else "the book was smaller by then" if each.was_smaller else "the conditions"
    )
    return (
        f"{each.word}{moved}", f"{each.policy}/{each.stage}", each.scope, instant(each.base_at), instant(each.head_at),
        *closed, because,
    )  # fmt: skip


def _length(moved: timedelta) -> str:
    return duration_text(abs(moved))


def arrival_lines(answer: ImpactAnswer) -> Iterator[str]:
    """What would fire on arrival, in a line each."""
    found = answer.arrival
    if found is None:
        yield "not known: no present snapshot of a runner was given (--live)"
        return
    yield from (f"not known: {each}" for each in found.missing)
    if found.as_of is None:
        return
    if not found.new:
        yield "nothing fires on arrival that the base does not fire"
    for each in found.new:
        yield f"would fire on arrival: {each.policy}/{each.stage} of {each.scope}, {each.text}"
    known = {(each.policy, each.scope, each.stage) for each in found.head}
    for each in found.base:
        if (each.policy, each.scope, each.stage) not in known:
            yield f"no longer fires now: {each.policy}/{each.stage} of {each.scope}, {each.text}"
    yield from (f"the reload: {line}" for line in found.reload)


def snapshot_line(answer: ImpactAnswer) -> str:
    """The age of the snapshot, or that there is none."""
    found = answer.arrival
    if found is None or found.as_of is None or found.age is None:
        return "Snapshot: none."
    age = duration_text(timedelta(seconds=abs(found.age)))
    side = "old" if found.age >= 0 else "ahead of the clock"
    return f"Snapshot: {instant(found.as_of)}, {age} {side}; states: {found.memory}."


def problem_lines(answer: ImpactAnswer) -> Iterator[str]:
    """What is not known, with its code."""
    yield from (f"{each.code}: {each.text}" for each in answer.missing)
    for span in answer.spans:
        if span.problem:
            yield f"KS8506: {span.span} was not replayed: {span.problem}"
    for recording in answer.recordings:
        if recording.problem:
            yield f"KS8506: {recording.recording} was not replayed: {recording.problem}"
    for each in answer.diagnostics:
        if each.severity == "error":
            yield f"{each.file}:{each.line}:{each.column}: {each.code} {each.message} (fix: {each.fix})"
