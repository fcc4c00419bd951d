"""All mutants, and what is known of the tools: where `--against` is more careful than it need be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.corpus.mutant import Mutant
from tests.corpus.responses import IN_RESPONSES
from tests.corpus.sets import IN_SETS
from tests.corpus.stages import IN_STAGES
from tests.corpus.triggers import IN_TRIGGERS

MUTANTS: tuple[Mutant, ...] = (*IN_TRIGGERS, *IN_STAGES, *IN_RESPONSES, *IN_SETS)

_ANOTHER_SIGNAL = "another argument is another signal, and another rule another threshold: nothing relates the two"
_COMPARED_AS_A_WHOLE = "compared as a whole, without an order of what is harder"
CAREFUL: Mapping[str, str] = {
    "multiple-too-large": _ANOTHER_SIGNAL,
    "minutes-for-hours": _ANOTHER_SIGNAL,
    "capital-a-digit-short": _ANOTHER_SIGNAL,
    "capital-a-digit-too-many": _ANOTHER_SIGNAL,
    "any-for-all": "more ways to fire choose more windows in which a side has lost",
    "last-level-removed": "the last level waits for prices, which counts as less, though a lower one fires then",
    "trigger-of-the-lower-level": "a trigger that both sets have is compared with itself only",
    "runner-stays": _COMPARED_AS_A_WHOLE,
    "close-within-seconds": _COMPARED_AS_A_WHOLE,
    "breach-only-paged": _COMPARED_AS_A_WHOLE,
    "breach-at-half-the-equity": _COMPARED_AS_A_WHOLE,
    "liquidation-distance-in-percent": _COMPARED_AS_A_WHOLE,
    "one-a-day": _COMPARED_AS_A_WHOLE,
}
"""Mutants for which `--against` may answer NEITHER or UNDECIDED where more is true, and why."""


def is_passed_by_against(mutant: Mutant) -> bool:
    """Whether `--against` exits 0: the mutant is at least as strict as the original."""
    return mutant.against in ("TIGHTENING", "EQUIVALENT") and mutant.name not in CAREFUL


def scenarios_run(mutant: Mutant, policies: Path) -> bool:
    """Whether the set is valid, and has scenarios."""
    are_removed = any(each.file == "scenarios.yaml" for each in mutant.given)
    return mutant.against is not None and not are_removed and (policies / mutant.shipped / "scenarios.yaml").exists()


def scenarios_find(mutant: Mutant, policies: Path) -> bool:
    """Whether a scenario of the set fails, or they cover less."""
    return scenarios_run(mutant, policies) and mutant.scenarios != ""


def only_scenarios(policies: Path) -> Iterator[Mutant]:
    """Those that neither `validate`, `lint` nor `prove` finds, and the scenarios do."""
    for each in MUTANTS:
        if scenarios_find(each, policies) and not each.codes and not each.proofs:
            yield each


def only_against(policies: Path) -> Iterator[Mutant]:
    """Those that only a comparison with the original finds."""
    for each in MUTANTS:
        if not is_passed_by_against(each) and not _is_found_alone(each, policies):
            yield each


def only_reviewers(policies: Path) -> Iterator[Mutant]:
    """Those that no tool finds."""
    for each in MUTANTS:
        if is_passed_by_against(each) and not _is_found_alone(each, policies):
            yield each


def _is_found_alone(mutant: Mutant, policies: Path) -> bool:
    """Whether a tool finds it without the original."""
    return bool(mutant.codes or mutant.proofs) or scenarios_find(mutant, policies)
