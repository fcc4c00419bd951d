"""Every tool on every declared mistake in a shipped policy set (`tests/corpus`), against what was expected of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

from tests.corpus.catalogue import CAREFUL, MUTANTS, only_against, only_reviewers, only_scenarios
from tests.corpus.mutant import Category, Edit, Mutant

pytest.importorskip("z3", reason="the extra `prove` is not installed")

from tests.corpus.judge import Judge

BY_NAME = {each.name: each for each in MUTANTS}


@pytest.fixture(scope="module")
def judge(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """The tools, with what they share."""
    return Judge(repository / "policies", tmp_path_factory.mktemp("mutants"))


def test_the_corpus_has_every_set_and_kind_of_mistake(repository: Path) -> None:
    """At least sixty mistakes, each with a name of its own, in each shipped set and of each category."""
    assert len(MUTANTS) == len(BY_NAME) >= 60
    assert {each.shipped for each in MUTANTS} == {it.name for it in (repository / "policies").iterdir() if it.is_dir()}
    assert {each.category for each in MUTANTS} == set(get_args(Category))
    assert BY_NAME.keys() >= CAREFUL.keys()


def test_no_loosening_is_expected_to_pass_for_anything_else() -> None:
    """What loosens is LOOSENING or NEITHER, or UNDECIDED; what does not is never expected to be a LOOSENING."""
    valid = [each for each in MUTANTS if each.against is not None]
    expected = {each.name: each.against for each in valid if each.loosens}
    assert set(expected.values()) <= {"LOOSENING", "NEITHER", "UNDECIDED"}
    others = [each for each in valid if not each.loosens]
    assert {each.against for each in others} <= {"TIGHTENING", "EQUIVALENT", "NEITHER"}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_mistake_is_found_by_what_was_expected_to_find_it(judge: Judge, name: str) -> None:
    """`validate` and `lint` by their codes, the scenarios of the set, and the properties that are no longer proved."""
    mutant = BY_NAME[name]
    original, mutated = judge.original(mutant), judge.mutated(mutant)
    assert original.compiled is not None and original.scenarios == ""
    assert {code for code, _ in mutated.problems - original.problems} == set(mutant.codes)
    assert (mutated.compiled is None) == (mutant.against is None)
    if mutated.compiled is not None and mutated.has_scenarios:
        assert mutated.scenarios == mutant.scenarios
    lost = {found for _, found, _ in mutated.unproved - original.unproved}
    assert len(lost) == len(mutant.proofs)
    assert all(any(each in found for found in lost) for each in mutant.proofs)


@pytest.mark.parametrize("name", [each.name for each in MUTANTS if each.against is not None])
def test_the_comparison_with_the_original_answers_what_was_expected(judge: Judge, name: str) -> None:
    """No loosening is called TIGHTENING or EQUIVALENT."""
    mutant = BY_NAME[name]
    verdict = judge.compared(mutant).verdict()
    if mutant.loosens:
        assert verdict in ("LOOSENING", "NEITHER", "UNDECIDED")
    if not (name in CAREFUL and verdict in ("NEITHER", "UNDECIDED")):
        assert verdict == mutant.against


def test_the_shipped_set_is_equivalent_to_itself(judge: Judge) -> None:
    """So that every other verdict is due to the edit."""
    for mutant in {each.shipped: each for each in MUTANTS}.values():
        compared = judge.compared(replace(mutant, edits=()))
        assert compared.verdict() == "EQUIVALENT" and compared.messages == ()


def test_a_message_is_listed_where_nothing_else_differs(judge: Judge) -> None:
    """Routes, names, runbooks, graces and labels are no part of the verdict, and never go unmentioned."""
    for mutant in MUTANTS:
        if mutant.category == "messages":
            assert judge.compared(mutant).messages != (), mutant.name


def test_every_mistake_is_counted_once(repository: Path) -> None:
    """What only scenarios, only a comparison and only a reviewer find are different mistakes; some of each exist."""
    policies = repository / "policies"
    found = [*only_scenarios(policies), *only_against(policies), *only_reviewers(policies)]
    assert max(Counter(each.name for each in found).values()) == 1
    assert all(list(each(policies)) for each in (only_scenarios, only_against, only_reviewers))


FILES = {"policy.yaml": "a: 1\nb: {a: 1}\nc: 2\n", "route.yaml": "x: 1\n"}


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (Edit("c: 2", "c: 3"), "a: 1\nb: {a: 1}\nc: 3\n"),
        (Edit("a: 1", "a: 2", at="b:"), "a: 1\nb: {a: 2}\nc: 2\n"),
        (Edit("b:", "", until="c:"), "a: 1\nc: 2\n"),
        (Edit("b:", "", until=""), "a: 1\n"),
    ],
)
def test_an_edit_replaces_one_place(edit: Edit, text: str) -> None:
    """The only one, or the first after its anchor; with an end, everything up to it."""
    assert edit.of(FILES) == {**FILES, "policy.yaml": text}


def test_an_edit_adds_and_removes_files() -> None:
    """A new file has the text; one without any text is gone."""
    assert Edit("", "y: 2\n", file="new.yaml").of(FILES) == {**FILES, "new.yaml": "y: 2\n"}
    assert Edit("x", "", until="", file="route.yaml").of(FILES) == {"policy.yaml": FILES["policy.yaml"]}


@pytest.mark.parametrize(
    "edit", [Edit("a: 1", "a: 2"), Edit("d: 1", "d: 2"), Edit("c: 2", "c: 2"), Edit("c: 2", "", until="d:")]
)
def test_an_edit_that_does_not_fit_is_an_error(edit: Edit) -> None:
    """Text that occurs twice, not at all, or becomes itself: a shipped policy has changed, which the mutant follows."""
    with pytest.raises(ValueError, match=r"policy\.yaml"):
        edit.of(FILES)


def test_a_mutant_states_its_tools() -> None:
    """Codes of `lint` begin with KS72, all others are of `validate`."""
    both = Mutant("x", "set", "y", "z", (), (), False, ("KS7201", "KS5001"), "", (), None)
    assert both.is_linted and both.is_refused
