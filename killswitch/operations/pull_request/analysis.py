"""The whole analysis of a change: read both sides, compare documents, prove, replay, and evaluate on arrival."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.graph.nodes import PolicySet
from killswitch.lab.book import BacktestBook
from killswitch.lab.campaign import RunOne
from killswitch.lab.impact.replays import ReplayedAccount, ReplayedSpan, ReplayPlan, replay_recording, replay_spans
from killswitch.operations.impact.classification import (
    WHOLE_SET,
    Classification,
    ClassifiedChange,
    ProofLimits,
    classify,
    with_changes,
)
from killswitch.operations.impact.document_differences import DocumentDifference, combined, document_differences
from killswitch.operations.impact.policy_side import PolicySide, UnreadableSideError
from killswitch.operations.pages.shadow import set_sentence, stage_sentence
from killswitch.operations.pull_request.answer import ImpactAnswer, ImpactSubject, SideFacts, UnknownPart, side_facts
from killswitch.operations.pull_request.live_arrival import LiveInput, live_arrival
from killswitch.operations.review.demands_of_base import broken_demands
from killswitch.operations.review.uncompared_keys import uncompared
from killswitch.policy.schema.account import AccountDocument, venue_of
from killswitch.render.formats import count_of, instant
from killswitch.runner.shadow.comparison import ShadowReport

MOST_SHADOW_DIFFERENCES: Final = 10
"""The differences of a set in shadow that are listed."""
NO_SIDE = SideFacts("-", None, "", None)


class ShadowReportError(Exception):
    """The file of a report of sets in shadow cannot be read as one."""


class _ShadowReports(Struct, frozen=True):
    reports: tuple[ShadowReport, ...]


class ImpactInputs(Struct, frozen=True):
    """What a change is replayed over and evaluated on. `runner_of`: makes what runs one book under a set."""

    spans: tuple[ReplayedSpan, ...]
    books: tuple[BacktestBook, ...]
    recordings: tuple[Path, ...]
    live: LiveInput | None
    shadow: Path | None
    """The JSON of `ksctl shadow report`."""
    limits: ProofLimits
    runner_of: Callable[[PolicySet], RunOne]
    jobs: int = 1
    with_curves: bool = False


def analyse(
    subject: ImpactSubject, read_base: Callable[[], PolicySide], read_head: Callable[[], PolicySide],
    inputs: ImpactInputs, clock: Callable[[], float],
) -> ImpactAnswer:  # fmt: skip
    """Analyse a change. A side that cannot be read or compiled is an answer that could not tell, not an error."""
    sides: list[PolicySide] = []
    for code, read in (("KS8501", read_base), ("KS8502", read_head)):
        try:
            sides.append(read())
        except UnreadableSideError as error:
            known = side_facts(sides[0]) if sides else NO_SIDE
            return ImpactAnswer(subject, known, NO_SIDE, missing=(UnknownPart(code, str(error), prevents=True),))
    base, head = sides
    facts = side_facts(base), side_facts(head)
    if not head.compiles or head.policies is None:
        broken = UnknownPart("KS8502", "the head does not compile", prevents=True)
        return ImpactAnswer(subject, *facts, missing=(broken,), diagnostics=head.problems)
    if base.policies is None:
        first = next((f" ({each.problem})" for each in base.left_out), "")
        broken = UnknownPart("KS8501", f"nothing of the base compiles{first}", prevents=True)
        return ImpactAnswer(subject, *facts, missing=(broken,))
    return _compared(subject, base, head, inputs, clock)


def _compared(
    subject: ImpactSubject, base: PolicySide, head: PolicySide, inputs: ImpactInputs, clock: Callable[[], float]
) -> ImpactAnswer:
    assert base.policies is not None and head.policies is not None  # the caller has asked
    facts = side_facts(base), side_facts(head)
    differences = document_differences(base, head)
    if not base.policies.graphs and not head.policies.graphs:
        empty = UnknownPart("KS8503", "neither side holds a policy", prevents=True)
        return ImpactAnswer(subject, *facts, differences, missing=(empty,))
    arrival = None
    if inputs.live is not None:
        arrival = live_arrival(inputs.live, base.policies, head.policies, _armed(base))
    late = () if arrival is None else arrival.missing
    missing = tuple(UnknownPart("KS8505", each, prevents=True) for each in late)
    shadow: tuple[str, ...] = ()
    if inputs.shadow is not None:
        shadow = shadow_sentences(inputs.shadow, head.policies.digest)
        if not shadow:
            missing += (UnknownPart("KS8507", f"{inputs.shadow} has no set in shadow that is this head"),)
    if not differences:
        return ImpactAnswer(subject, *facts, arrival=arrival, missing=missing)
    classification = _classified(base, head, differences, inputs.limits, clock)
    sets = base.policies, head.policies
    replays = replay_spans(_plan(base, inputs, sets), inputs.jobs)
    recordings = tuple(replay_recording(path, path.name, sets) for path in inputs.recordings)
    is_replayed = any(not each.problem for each in replays) or any(not each.problem for each in recordings)
    if not classification.is_proved and not is_replayed:
        missing += (UnknownPart("KS8503", "nothing was proved and nothing could be replayed", prevents=True),)
    missing += tuple(_unproved(classification, base))
    return ImpactAnswer(subject, *facts, differences, classification, replays, recordings, arrival, shadow, missing)


def shadow_sentences(file: Path, digest: str) -> tuple[str, ...]:
    """What the sets with this digest did in shadow, by the JSON of `ksctl shadow report`, in a sentence each.

    None if the report has no such set. ShadowReportError if the file is no such report.
    """
    try:
        reports = msgspec.json.decode(file.read_bytes(), type=_ShadowReports).reports
    except (OSError, msgspec.DecodeError) as error:
        raise ShadowReportError(f"{file} is not the JSON of `ksctl shadow report`: {error}") from error
    found: list[str] = []
    for report in (each for each in reports if each.record.digest == digest):
        found.append(set_sentence(report))
        found += (stage_sentence(each, report) for each in report.counts)
        found += (f"{instant(each.as_of)}, {each.stage} of {each.policy} on {each.scope}: {each.what}"
                  for each in report.differences[:MOST_SHADOW_DIFFERENCES])  # fmt: skip
        left = len(report.differences) - MOST_SHADOW_DIFFERENCES
        found += [f"{count_of(left, 'difference')} more, in the report"] if left > 0 else []
    return tuple(found)


def _classified(
    base: PolicySide, head: PolicySide, differences: Sequence[DocumentDifference], limits: ProofLimits,
    clock: Callable[[], float],
) -> Classification:  # fmt: skip
    """What the runner's own review finds too: the proof, keys that no proof compares, and the demands of the base."""
    until = clock() + limits.whole
    found = classify(base, head, differences, clock, limits)
    reported = {each.policy for each in found.changes if each.part != "messages" and each.verdict != "EQUIVALENT"}
    more = [ClassifiedChange(name, "scope", "UNDECIDED", text) for name, text in uncompared(base, head, reported)]
    known = [each.verdict for each in differences if each.verdict is not None]
    verdict = combined([found.verdict, *known, *(each.verdict for each in more)])
    demands = () if base.left_out else broken_demands(base, head, verdict, until, clock)
    more += [ClassifiedChange(WHOLE_SET, "tests", class_, text) for class_, text in demands]
    together = combined([verdict, *(each.verdict for each in more)])
    return with_changes(found, more, "UNDECIDED" if base.left_out else together)


def _unproved(classification: Classification, base: PolicySide) -> Iterator[UnknownPart]:
    if base.left_out:
        yield UnknownPart("KS8501", "the base does not compile: it is compared without the documents named below")
    if not classification.is_proved or len(classification.unfinished) > len(base.left_out):
        yield UnknownPart("KS8504", "the proof is not complete: what it did not reach is undecided")


def _plan(base: PolicySide, inputs: ImpactInputs, sets: tuple[PolicySet, PolicySet]) -> ReplayPlan:
    before, after = sets
    is_same = _graphs(before) == _graphs(after)
    run_head = None if is_same else inputs.runner_of(after)
    return ReplayPlan(
        inputs.spans, inputs.books, _accounts(base), sets, inputs.runner_of(before), run_head, inputs.with_curves
    )


def _graphs(policies: PolicySet) -> object:
    """What a replay depends on: everything compiled, without the digest of the set and the places in its files."""
    return _without_places(msgspec.to_builtins((policies.graphs, policies.unwindings, policies.strategies)))


def _without_places(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_places(each) for key, each in value.items() if key not in ("place", "digest")}
    if isinstance(value, list | tuple):
        return [_without_places(each) for each in value]
    return value


def _accounts(side: PolicySide) -> tuple[ReplayedAccount, ...]:
    """The accounts of the documents, which generated books have; those of a set without any are one `main`."""
    found = {
        each.name: ReplayedAccount(
            each.name, venue_of(each.model.spec), each.model.spec.market, each.model.spec.currency
        )
        for each in side.loaded.documents
        if isinstance(each.model, AccountDocument)
    }
    return tuple(found[name] for name in sorted(found))


def _armed(side: PolicySide) -> frozenset[str]:
    """The accounts that the base arms: nothing of the head is asked."""
    documents = (each.model for each in side.loaded.documents)
    live = (each for each in documents if isinstance(each, AccountDocument) and each.spec.execution == "live")
    return frozenset(each.metadata.name for each in live)
