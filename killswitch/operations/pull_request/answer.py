"""The answer of `ksctl impact` as records, and its conclusion: nothing changed, analysed, or could not tell."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal

import msgspec
from msgspec import Struct, structs

from killswitch.lab.impact.replays import RecordingReplay, SpanReplay
from killswitch.lab.outcome import Run
from killswitch.model.applied_set import ChangeClass
from killswitch.operations.impact.classification import NEEDS_APPROVAL, Classification
from killswitch.operations.impact.document_differences import DocumentDifference
from killswitch.operations.impact.policy_side import PolicySide
from killswitch.operations.pull_request.live_arrival import LiveArrival
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.render.formats import count_of

IMPACT_FORMAT: Final = "killswitch.impact/v1"
Conclusion = Literal["nothing changed", "analysed", "could not tell"]
ZERO = Decimal(0)


class SideFacts(Struct, frozen=True):
    """One side, as the comment names it. `digest`: of its files; `policy_set`: that of its documents."""

    label: str
    commit: str | None
    digest: str
    policy_set: str | None


class UnknownPart(Struct, frozen=True):
    """Something that is not known, with its code. `prevents`: whether the answer therefore could not tell."""

    code: str
    text: str
    prevents: bool = False


class ImpactSubject(Struct, frozen=True):
    """What the comment is about: its marker carries these, so that two jobs keep two comments."""

    repository: str
    environment: str
    set: str


class ImpactAnswer(Struct, frozen=True):
    """Everything that is known of a change. `verdict` is None where nothing was classified."""

    subject: ImpactSubject
    base: SideFacts
    head: SideFacts
    differences: tuple[DocumentDifference, ...] = ()
    classification: Classification | None = None
    spans: tuple[SpanReplay, ...] = ()
    recordings: tuple[RecordingReplay, ...] = ()
    arrival: LiveArrival | None = None
    shadow: tuple[str, ...] = ()
    """What the head has done in shadow, a sentence each; none where no report was given."""
    missing: tuple[UnknownPart, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    """Why head does not compile."""

    @property
    def conclusion(self) -> Conclusion:
        """Whether there is a difference, and whether it could be analysed."""
        if any(each.prevents for each in self.missing):
            return "could not tell"
        return "analysed" if self.differences else "nothing changed"

    @property
    def verdict(self) -> ChangeClass | None:
        """The class of the whole change."""
        return None if self.classification is None else self.classification.verdict

    @property
    def needs_approval(self) -> bool:
        """Whether the change needs what a loosening needs."""
        return self.verdict is None or self.verdict in NEEDS_APPROVAL

    @property
    def crashes(self) -> tuple[SpanReplay, ...]:
        """The replays of crashes."""
        return tuple(each for each in self.spans if each.kind == "crash")

    @property
    def calm(self) -> tuple[SpanReplay, ...]:
        """The replays of calm spans."""
        return tuple(each for each in self.spans if each.kind == "calm")

    @property
    def sentence(self) -> str:
        """The first line: the verdict in a sentence."""
        if self.conclusion == "could not tell":
            causes = "; ".join(each.text for each in self.missing if each.prevents)
            known = f" What is proved of the change: {self.verdict}." if self.verdict else ""
            return f"Could not tell: {causes}.{known}"
        if self.conclusion == "nothing changed":
            return "Nothing changed: both sides load the same documents with the same meaning."
        return " ".join(_sentences(self))


def _sentences(answer: ImpactAnswer) -> Iterator[str]:
    assert answer.classification is not None  # an analysed change has one
    changes = [each for each in answer.classification.changes if each.part != "tests"]
    broken = len(answer.classification.changes) - len(changes)
    softer = sum(each.verdict in ("LOOSENING", "NEITHER") for each in changes)
    softer += sum(each.verdict in ("LOOSENING", "NEITHER") for each in answer.differences)
    undecided = sum(each.verdict == "UNDECIDED" for each in changes)
    undecided += sum(each.verdict == "UNDECIDED" for each in answer.differences)
    counted = [
        count_of(softer, "softer difference") if softer else "",
        f"{undecided} undecided" if undecided else "",
        f"{count_of(broken, 'test')} of the base broken" if broken else "",
    ]
    found = ", ".join(each for each in counted if each)
    meaning = {
        "TIGHTENING": "whenever the base fires, the head fires at once and at least as hard, in every situation.",
        "EQUIVALENT": "in every situation both do the same.",
        "LOOSENING": f"there are situations in which the head does less than the base ({found}).",
        "NEITHER": f"the head does less in some situations and more in others ({found}).",
        "UNDECIDED": f"it is not proved that the head does at least as much as the base ({found or 'see below'}).",
    }
    yield f"{answer.classification.verdict}: {meaning[answer.classification.verdict]}"
    if answer.needs_approval:
        yield "It needs the approvals of a loosening."
    if answer.arrival is not None and answer.arrival.new:
        yield f"On arrival {count_of(len(answer.arrival.new), 'stage')} would fire that the base does not."


class SpanFigures(Struct, frozen=True):
    """Sums of one replay: what was closed (notional), equity at its end, and the worst drawdown (a fraction)."""

    closed: Decimal
    final_equity: Decimal
    worst_drawdown: Decimal
    firings: int


def figures_of(run: Run) -> SpanFigures:
    """The figures of one run that the comment compares."""
    closed = sum((each.notional for firing in run.firings for each in firing.closed), ZERO)
    return SpanFigures(closed, run.final_equity, run.worst_drawdown, len(run.firings))


def side_facts(side: PolicySide) -> SideFacts:
    """What the comment names of a side."""
    digest = None if side.policies is None else side.policies.digest
    return SideFacts(side.label, side.commit, side.digest, digest if side.compiles else None)


def encode_answer(answer: ImpactAnswer) -> bytes:
    """The answer as indented JSON, format `killswitch.impact/v1`: decimals are text, instants RFC 3339."""
    record = {
        "format": IMPACT_FORMAT,
        "conclusion": answer.conclusion,
        "verdict": answer.verdict,
        "sentence": answer.sentence,
        "needs_approval": answer.needs_approval if answer.conclusion != "nothing changed" else False,
        "subject": answer.subject,
        "head": answer.head,
        "base": answer.base,
        "differences": answer.differences,
        "classification": answer.classification,
        "spans": [_without_courses(each) for each in answer.spans],
        "recordings": answer.recordings,
        "arrival": answer.arrival,
        "shadow": answer.shadow,
        "missing": answer.missing,
        "diagnostics": answer.diagnostics,
    }
    return msgspec.json.format(msgspec.json.encode(record), indent=2)


def _without_courses(each: SpanReplay) -> SpanReplay:
    runs = (None if run is None else structs.replace(run, course=None) for run in (each.base, each.head))
    base, head = runs
    return structs.replace(each, base=base, head=head)
