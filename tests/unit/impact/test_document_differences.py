"""Which documents differ, and the class of what no proof compares: each kind, each way of being gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.operations.impact.classification import ProofLimits, classify
from killswitch.operations.impact.document_differences import (
    OUTSIDE_PROOF,
    PROVED,
    DocumentDifference,
    combined,
    document_differences,
)
from killswitch.operations.impact.policy_side import side_on_disk
from killswitch.policy.kinds import KINDS, TESTS
from killswitch.proof import solver
from tests.unit.proof.policies import policy, stage

FALL = "a: {signal: equity.drawdown, window: 1h, at_least: 7%, on_unknown: hold, grace: 75m}"
POLICY = policy(FALL, stage(1, "any: [a]"))
HEAD = "apiVersion: killswitch.dev/v1\n"
EXAMPLES = Path(__file__).resolve().parents[3] / "tools" / "reference" / "examples"
OUTSIDE = sorted(set(KINDS) - TESTS - PROVED)


def sides(tmp_path: Path, base: dict[str, str], head: dict[str, str]) -> tuple[DocumentDifference, ...]:
    """The differences of two sets that compile."""
    return differences_of(tmp_path, base, head, compiling=True)


def differences_of(
    tmp_path: Path, base: dict[str, str], head: dict[str, str], *, compiling: bool = False
) -> tuple[DocumentDifference, ...]:
    found = []
    for name, files in (("base", base), ("head", head)):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        found.append(side_on_disk([folder], None))
    assert not compiling or all(each.policies is not None for each in found), [each.problems for each in found]
    return document_differences(*found)


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_document_outside_the_proof_that_differs_or_is_new_is_undecided_and_one_that_is_gone_loosens(
    tmp_path: Path, kind: str
) -> None:
    """A2: every kind but policies and tests: never equivalent, with a reason."""
    text = (EXAMPLES / f"{kind}.yaml").read_text(encoding="utf-8").split("---\n")[-1]
    name = next(line for line in text.splitlines() if line.startswith("metadata:"))
    other = text.replace(name, name.replace("{name:", "{annotations: {ticket: 'RISK-7'}, name:"))
    assert other != text
    for number, (base, head, change, verdict) in enumerate(
        (
            (text, other, "changed", "UNDECIDED"),
            (None, text, "added", "UNDECIDED"),
            (text, None, "no longer loaded", "LOOSENING"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = differences_of(folder, *({} if each is None else {"d.yaml": each} for each in (base, head)))
        (only,) = [each for each in found if each.kind == kind]
        assert (only.change, only.verdict, bool(only.why)) == (change, verdict, True)


def test_every_kind_of_document_has_its_reason() -> None:
    """A new kind is outside the proof until somebody states what the proof knows of it."""
    assert set(KINDS) == set(OUTSIDE_PROOF) | PROVED | TESTS


def test_a_document_that_moved_to_another_file_is_no_difference(tmp_path: Path) -> None:
    """Documents are compared by kind and name."""
    assert sides(tmp_path, {"p.yaml": POLICY}, {"q.yaml": "# moved\n" + POLICY}) == ()


def test_a_renamed_policy_is_gone_and_new(tmp_path: Path) -> None:
    """Its latches and histories go with its name."""
    renamed = POLICY.replace("name: test", "name: other")
    found = sides(tmp_path, {"p.yaml": POLICY}, {"p.yaml": renamed})
    assert [(each.name, each.change, each.verdict) for each in found] == [
        ("test", "no longer loaded", "LOOSENING"), ("other", "added", None),
    ]  # fmt: skip


def test_a_test_that_is_new_demands_more_and_one_that_is_gone_less(tmp_path: Path) -> None:
    """Tests are no part of what runs, and part of what was demanded."""
    invariant = (
        HEAD + "kind: Invariant\nmetadata: {name: stays}\nspec:\n  policies: [test]\n"
        "  holds: '!(equity.drawdown(\"1h\") >= 0.5) || stage.level >= 0'\n"
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_test = {"p.yaml": POLICY, "i.yaml": invariant}
    (added,) = sides(tmp_path / "a", {"p.yaml": POLICY}, with_test)
    (gone,) = sides(tmp_path / "b", with_test, {"p.yaml": POLICY})
    assert (added.verdict, gone.verdict) == ("TIGHTENING", "LOOSENING")


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((), "EQUIVALENT"),
        (("EQUIVALENT", "TIGHTENING"), "TIGHTENING"),
        (("TIGHTENING", "LOOSENING"), "NEITHER"),
        (("EQUIVALENT", "LOOSENING"), "LOOSENING"),
        (("TIGHTENING", "UNDECIDED"), "UNDECIDED"),
        (("LOOSENING", "UNDECIDED"), "UNDECIDED"),
        (("NEITHER", "UNDECIDED"), "NEITHER"),
    ],
)
def test_the_class_of_several_changes_is_never_milder_than_one_of_them(parts: tuple[str, ...], whole: str) -> None:
    """Only tightenings and what changes nothing make a tightening."""
    assert combined(parts) == whole  # type: ignore[arg-type] # words of the class


def test_without_the_prover_a_changed_policy_is_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: a missing prover is named; nothing of the change reads as a tightening."""

    def missing(*_: object) -> object:
        raise solver.SolverMissingError("z3 is not installed")

    monkeypatch.setattr(solver, "require_z3", missing)
    found = []
    for name, text in (("base", POLICY), ("head", POLICY.replace("7%", "5%"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.yaml").write_text(text, encoding="utf-8")
        found.append(side_on_disk([tmp_path / name], None))
    base, head = found
    known = classify(base, head, document_differences(base, head), lambda: 0.0, ProofLimits(1.0, 1.0))
    assert (known.verdict, known.is_proved) == ("UNDECIDED", False)
    assert known.unfinished == ("z3 is not installed",)
