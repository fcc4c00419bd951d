"""The class of a change: what is proved of each policy by part, what the documents add, and why.

Replays have no part in it. What is not proved tightening or equivalent needs what a loosening needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.applied_set import ChangeClass
from killswitch.operations.comparison_witnesses import change_witnesses
from killswitch.operations.impact.document_differences import DocumentDifference, combined
from killswitch.operations.impact.policy_side import PolicySide
from killswitch.proof.against import Change, compare_sets
from killswitch.proof.solver import Prover, SolverMissingError

ProofPart = Literal["scope", "demand", "memory", "response", "messages", "tests"]
PARTS: tuple[ProofPart, ...] = get_args(ProofPart)
"""The kinds of input that are compared: what is watched, which levels are confirmed, what is remembered, what a firing
does, whom it notifies, and what the scenarios and invariants of the base demand."""
NEEDS_APPROVAL: frozenset[ChangeClass] = frozenset({"LOOSENING", "NEITHER", "UNDECIDED"})
"""Classes that need what a loosening needs."""
MOST_SCENARIOS = 20
"""Witnesses that are written as scenarios: a person reads no more, and each takes a part of a second."""
WHOLE_SET = "(the set)"
"""The name of a change that is no single policy's."""


class ClassifiedChange(Struct, frozen=True):
    """One difference with its class. `scenario`: of a run that shows it, as YAML; `why_none`: why there is none."""

    policy: str
    part: ProofPart
    verdict: ChangeClass
    text: str
    scenario: str = ""
    why_none: str = ""


class PolicyVerdict(Struct, frozen=True):
    """The class of one policy by part, and of all of it."""

    policy: str
    parts: tuple[tuple[ProofPart, ChangeClass], ...]
    verdict: ChangeClass


class Classification(Struct, frozen=True):
    """The class of the whole change. `unfinished`: why the proof did not finish, with the place; empty if it did."""

    verdict: ChangeClass
    policies: tuple[PolicyVerdict, ...]
    changes: tuple[ClassifiedChange, ...]
    unfinished: tuple[str, ...] = ()
    is_proved: bool = True
    """False if nothing could be proved: the prover is not installed."""


class ProofLimits(Struct, frozen=True):
    """Seconds of one question, and of all together; with `with_scenarios`, witnesses of loosenings are written."""

    question: float
    whole: float
    with_scenarios: bool = True


def classify(
    base: PolicySide, head: PolicySide, differences: Sequence[DocumentDifference], clock: Callable[[], float],
    limits: ProofLimits,
) -> Classification:  # fmt: skip
    """Classify the change from base to head. `clock`: seconds. Both sides have compiled, at least in part."""
    assert base.policies is not None and head.policies is not None  # the caller has sides that compile
    faulty = {each.name or "": each.problem for each in base.left_out if each.kind == "Policy"}
    unfinished = [
        f"{each.kind} {each.name or '?'} of the base does not compile: {each.problem}" for each in base.left_out
    ]
    changes: list[ClassifiedChange] = []
    is_proved = True
    try:
        prover = Prover(clock, limits.question, until=clock() + limits.whole)
        changes += _proved(prover, base.policies, head.policies, faulty, limits)
        if prover.is_over:
            place = next((each.policy for each in changes if each.verdict == "UNDECIDED"), "the witnesses")
            unfinished.append(f"the time limit of {limits.whole:g} s ended the proof at {place}")
    except SolverMissingError as error:
        is_proved = False
        unfinished.append(str(error))
        changed = [each for each in differences if each.kind == "Policy" and each.verdict is None]
        changes += [ClassifiedChange(each.name, "scope", "UNDECIDED", f"not proved: {error}") for each in changed]
    changes += _only_written_otherwise(differences, changes)
    found = [each.verdict for each in changes] + [each.verdict for each in differences if each.verdict is not None]
    verdict = "UNDECIDED" if base.left_out or base.policies is None else combined(found)
    return Classification(verdict, tuple(_by_policy(changes)), tuple(changes), tuple(unfinished), is_proved)


def _proved(
    prover: Prover, base: PolicySet, head: PolicySet, faulty: dict[str, str], limits: ProofLimits
) -> Iterator[ClassifiedChange]:
    """What the proof states of every policy. What base has under a name of `faulty` is unknown."""
    compared = compare_sets(prover, base, head)
    known = [each for each in compared.changes if each.policy not in faulty]
    for name, problem in sorted(faulty.items()):
        yield ClassifiedChange(name, "scope", "UNDECIDED", f"the base does not compile, so it is not known: {problem}")
    scenarios = _scenarios(prover, base, head, known) if limits.with_scenarios else {}
    for number, each in enumerate(known):
        text, why_none = scenarios.get(number, ("", ""))
        yield ClassifiedChange(each.policy or WHOLE_SET, each.part, class_of(each), each.text, text, why_none)
    for message in compared.messages:
        policy, found, rest = message.partition(": ")
        yield ClassifiedChange(
            policy if found else WHOLE_SET, "messages", "UNDECIDED",
            f"{rest if found else message}; whether the new ones are reached as surely is outside the proof",
        )  # fmt: skip


def _scenarios(
    prover: Prover, base: PolicySet, head: PolicySet, changes: Sequence[Change]
) -> dict[int, tuple[str, str]]:
    """The scenarios of the first changes that are softer somewhere, by their number."""
    softer = [number for number, each in enumerate(changes) if each.keeps is False]
    wanted = [changes[number] for number in softer[:MOST_SCENARIOS]]
    found = dict.fromkeys(softer[MOST_SCENARIOS:], ("", f"only the first {MOST_SCENARIOS} are written"))
    for number, shown in zip(softer, change_witnesses(prover, base, head, wanted, with_scenarios=True), strict=False):
        written = next((each for each in shown.scenarios if each.text), None)
        reason = next((each.reason for each in shown.scenarios), "no short run shows it")
        found[number] = ("", reason) if written is None else (written.text, "")
    return found


def class_of(change: Change) -> ChangeClass:
    """The class of one difference."""
    if change.keeps is None or change.exceeds_nothing is None:
        return "UNDECIDED"
    if change.keeps:
        return "EQUIVALENT" if change.exceeds_nothing else "TIGHTENING"
    return "LOOSENING" if change.exceeds_nothing else "NEITHER"


def _only_written_otherwise(
    differences: Iterable[DocumentDifference], changes: Sequence[ClassifiedChange]
) -> Iterator[ClassifiedChange]:
    """Policies that differ as documents, of which the proof finds no change."""
    reported = {each.policy for each in changes}
    for each in differences:
        if each.kind == "Policy" and each.change == "changed" and each.verdict is None and each.name not in reported:
            yield ClassifiedChange(each.name, "demand", "EQUIVALENT", "written otherwise, and the same in effect")


def with_changes(found: Classification, more: Iterable[ClassifiedChange], verdict: ChangeClass) -> Classification:
    """The classification with further changes, and the class of all together."""
    changes = (*found.changes, *more)
    return replace(found, verdict=verdict, changes=changes, policies=tuple(_by_policy(changes)))


def _by_policy(changes: Sequence[ClassifiedChange]) -> Iterator[PolicyVerdict]:
    for name in sorted({each.policy for each in changes}):
        own = [each for each in changes if each.policy == name]
        parts = tuple((part, combined(each.verdict for each in own if each.part == part)) for part in PARTS)
        yield PolicyVerdict(name, parts, combined(each.verdict for each in own))
