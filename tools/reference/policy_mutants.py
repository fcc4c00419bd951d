"""Generates docs/reference/policy-mutants.md from the declared mutants of the shipped sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.corpus.catalogue import (
    CAREFUL,
    MUTANTS,
    is_passed_by_against,
    only_against,
    only_reviewers,
    only_scenarios,
    scenarios_find,
    scenarios_run,
)
from tests.corpus.mutant import Mutant
from tools.reference.markdown import code, page, table

POLICIES = Path(__file__).parents[2] / "policies"

INTRODUCTION = """\
What finds which mistake. Each row is a shipped policy set with one mistake; a cell is what the tool finds in it that it
does not find in the set as shipped. The table is declared, by reasoning, and a test runs every tool on every row.

`ksctl validate --strict` and `lint --strict` report the code. `test --fail-under 100%` *fails*, or *covers less* than
everything. `prove` no longer proves the property. `prove --against` the set as shipped answers with a word. A cell with
`—` has no answer, because the set is not valid or has no scenarios."""

PROPERTIES = {
    "past the outermost": "the last level is demanded past its threshold",
    "idle": "no trigger is idle",
    "reset": "a reset holds no trigger",
    "deeper": "a deeper loss demands no less",
    "can fire": "a stage can fire",
    "delivered": "a notice is delivered",
}


def policy_mutants_page() -> str:
    """The page: how many each tool finds, the table by category, and what only one of them finds."""
    categories = dict.fromkeys(each.category for each in MUTANTS)
    parts = ["## What each finds", table(("", "mistakes"), _counts())]
    parts += ["## Found by their scenarios alone", _scenarios_text(), _names(only_scenarios(POLICIES))]
    parts += ["## Found by a comparison alone", _against_text(), _names(only_against(POLICIES))]
    parts += ["## Found by a reviewer, or by nobody", _reviewers_text(), _names(only_reviewers(POLICIES))]
    parts.append("## All")
    for category in categories:
        rows = [_row(each) for each in MUTANTS if each.category == category]
        head = ("set", "mistake", "validate", "lint", "test", "prove", "against", "loosens")
        parts += [f"### Mistakes: {category}", table(head, rows)]
    parts += ["## Where the comparison is careful", _careful_text(), table(("mistake", "is", "why"), _careful())]
    return page("Mistakes, and what finds them", INTRODUCTION, parts)


def _counts() -> Iterator[tuple[str, str]]:
    yield "all", str(len(MUTANTS))
    yield "`validate`", str(sum(each.is_refused for each in MUTANTS))
    yield "`lint`", str(sum(each.is_linted for each in MUTANTS))
    yield "`test`", str(sum(scenarios_find(each, POLICIES) for each in MUTANTS))
    yield "`prove`", str(sum(bool(each.proofs) for each in MUTANTS))
    valid = [each for each in MUTANTS if each.against is not None]
    yield "`prove --against`, of the valid", f"{sum(not is_passed_by_against(each) for each in valid)} of {len(valid)}"
    yield "loosenings among the valid", str(sum(each.loosens for each in valid))
    yield "`test` alone, without a comparison", str(len(list(only_scenarios(POLICIES))))
    yield "`prove --against` alone", str(len(list(only_against(POLICIES))))
    yield "none of them", str(len(list(only_reviewers(POLICIES))))


def _scenarios_text() -> str:
    return """\
A threshold that is a little off is valid, provable, and wrong: only somebody who wrote down what should happen finds
it. `--against` names the loosenings among them too, if there is an original to compare with."""


def _against_text() -> str:
    return """\
Valid, provable, and no scenario of the set sees it. A loosening of this kind passes every check but the comparison with
what was there before."""


def _reviewers_text() -> str:
    return """\
At least as strict, or the same in all that is done: who is notified and when, what is read in a message, a variant that
is not selected, a tightening that may be meant. `--against` lists what differs in messages, and exits 0."""


def _careful_text() -> str:
    return """\
For these `--against` may answer NEITHER or UNDECIDED, which also exits 1, where more is true."""


def _names(mutants: Iterable[Mutant]) -> str:
    return "\n".join(f"- {code(each.shipped)}: {each.what}" for each in mutants)


def _row(mutant: Mutant) -> tuple[str, ...]:
    refused = [each for each in mutant.codes if not each.startswith("KS72")]
    linted = [each for each in mutant.codes if each.startswith("KS72")]
    proofs = "; ".join(PROPERTIES[each] for each in mutant.proofs)
    if mutant.against is None:
        return code(mutant.shipped), mutant.what, _codes(refused), "—", "—", "—", "—", _loosens(mutant)
    against = "NEITHER or UNDECIDED" if mutant.name in CAREFUL else mutant.against
    test = mutant.scenarios if scenarios_run(mutant, POLICIES) else "—"
    return code(mutant.shipped), mutant.what, _codes(refused), _codes(linted), test, proofs, against, _loosens(mutant)


def _loosens(mutant: Mutant) -> str:
    return "yes" if mutant.loosens else ""


def _codes(codes: Iterable[str]) -> str:
    return ", ".join(f"[{each}](diagnostics.md#{each.lower()})" for each in codes)


def _careful() -> Iterator[tuple[str, str, str]]:
    for each in MUTANTS:
        if each.name in CAREFUL:
            yield f"{code(each.shipped)}: {each.what}", str(each.against), CAREFUL[each.name]
