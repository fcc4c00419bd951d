"""`Invariant` documents: what is proved, what is refuted with a witness, and what is a mistake."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pytest

from killswitch.accounts.opening import read_policies
from killswitch.graph.compile import compile_loaded
from killswitch.graph.invariants import Invariant, compile_invariants
from killswitch.graph.nodes import PolicySet
from killswitch.operations.witness_scenarios import WitnessItem, scenario_of
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load
from killswitch.proof.invariants import is_violated, prove_invariants, with_columns
from killswitch.proof.solver import Prover
from killswitch.proof.verdicts import ProofVerdict
from tests.unit.proof.policies import policy, stage

pytest.importorskip("z3", reason="the extra `prove` is not installed")

AT_ONCE = "a: {signal: equity.drawdown, window: 1h, at_least: 7%, on_unknown: hold, grace: 75m}"
SLOW = "a: {signal: equity.drawdown, window: 1h, at_least: 7%, confirm: 2m, on_unknown: hold, grace: 75m}"
ONE = policy(AT_ONCE, stage(1, "any: [a]"))
"""7% closes everything at once."""
FALL = 'equity.drawdown("1h")'


def invariant(holds: str, policies: str = "test") -> str:
    return (
        "apiVersion: killswitch.dev/v1\nkind: Invariant\nmetadata: {name: it}\n"
        f"spec:\n  policies: [{policies}]\n  holds: '{holds}'\n"
    )


def read(folder: Path, *documents: str) -> tuple[PolicySet, tuple[Invariant, ...], tuple[Diagnostic, ...]]:
    path = folder / "policies.yaml"
    path.write_text("---\n".join(documents), encoding="utf-8")
    loaded = load([path])
    policies, problems = compile_loaded(loaded)
    assert policies is not None, problems
    return policies, *compile_invariants(loaded.documents, policies)


def verdict(folder: Path, document: str, holds: str, prover: Prover | None = None) -> ProofVerdict:
    policies, found, problems = read(folder, document, invariant(holds))
    assert problems == ()
    (one,) = prove_invariants(prover or Prover(perf_counter), policies.graphs[0], found)
    return one


@pytest.mark.parametrize(
    ("document", "holds", "outcome"),
    [
        (ONE, f"!({FALL} >= 0.07) || stage.level >= 1", "proved"),  # at once, judged after the firing
        (ONE, f"!({FALL} >= 0.0699) || stage.level >= 1", "refuted"),
        (policy(SLOW, stage(1, "any: [a]")), f"!({FALL} >= 0.07) || stage.level >= 1", "refuted"),  # for 2m nothing
        (ONE, "stage.level <= 1", "proved"),
        (ONE, "1 >= stage.level", "proved"),
        (ONE, "stage.level != 1", "refuted"),
        (ONE, "stage.level in_range", ""),
        # surely false is a violation, unknown is none: at an unknown leverage nothing is said
        # true of any policy: a percent sign is missing, or nothing is stated
        (ONE, "exposure.leverage >= 0.0", "undecided"),
        (ONE, f"!({FALL} >= 5.0) || stage.level >= 1", "undecided"),
        (ONE, "stage.level >= 0", "undecided"),
        (ONE, "stage.level != 7", "proved"),
        (ONE, "exposure.leverage >= 1.0", "refuted"),
        # a mark far from its index declines
        (policy(AT_ONCE, stage(1, "any: [a]", "corroborate: true")), f"!({FALL} >= 0.07) || stage.level >= 1",
         "refuted"),
    ],
)  # fmt: skip
def test_verdicts(tmp_path: Path, document: str, holds: str, outcome: str) -> None:
    """Proved by induction, or refuted with a run that the engine replays to a violation."""
    if not outcome:
        _, _, problems = read(tmp_path, document, invariant(holds))
        assert [each.code for each in problems] == ["KS4001"]
        return
    found = verdict(tmp_path, document, holds)
    assert found.outcome == outcome, found.text
    assert (found.witness is not None) == (outcome == "refuted")


def test_a_witness_of_an_invariant_is_a_violation_in_the_engine(tmp_path: Path) -> None:
    """At the last evaluation the engine's own evaluation of the condition is false, and at no earlier one."""
    _, found, _ = read(tmp_path, ONE, invariant("stage.level != 1"))
    witness = verdict(tmp_path, ONE, "stage.level != 1").witness
    assert witness is not None
    assert [is_violated(found[0])(each) for each in witness] == [*([False] * (len(witness) - 1)), True]


def test_an_invariant_of_states_that_never_occur_needs_the_longer_induction(tmp_path: Path) -> None:
    """Whatever fires level 1 fires level 2 too, which declines nothing: level 1 is never in force.

    From any state level 1 may stay in force, so that one evaluation does not prove it.
    """
    more = f"b: {{when: '{FALL} >= 0.08 && exposure.leverage >= 1.0', on_unknown: hold, grace: 75m}}"
    shadowed = policy(f"{AT_ONCE}\n{more}", f"{stage(1, 'any: [b]')}\n{stage(2, 'any: [a]')}")
    assert verdict(tmp_path, shadowed, "stage.level != 1").outcome == "proved"
    assert verdict(tmp_path, shadowed, "stage.level != 2").outcome == "refuted"


def test_what_cannot_be_lowered_is_undecided_or_refuted_and_named(tmp_path: Path) -> None:
    """A product of two signals may be anything to the solver; the engine refuses its models, so that it is undecided.

    The product of a leverage and a drawdown is never below zero, which the lowering does not know.
    """
    found = verdict(tmp_path, ONE, f"exposure.leverage * {FALL} >= 0.0")
    assert found.outcome == "undecided"
    assert "cannot be lowered" in found.text and "exposure.leverage" in found.text


def test_time_that_runs_out_is_undecided_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that answers nothing proves nothing, and the text says what to do."""

    def late(self: Prover, *_facts: object) -> tuple[str, None]:
        self.unanswered += 1
        return "unknown", None

    monkeypatch.setattr(Prover, "model", late)
    found = verdict(tmp_path, ONE, "stage.level <= 1", Prover(perf_counter, 0.5))
    assert found.outcome == "undecided"
    assert "--limit" in found.text and "simplify" in found.text and "0.5 s" in found.text


@pytest.mark.parametrize(
    ("holds", "policies", "code", "fix"),
    [
        (f"{FALL} >= 0.1 and stage.level >= 1", "test", "KS4001", "&&"),
        ('equity.drawdwon("1h") >= 0.1', "test", "KS3001", "equity.drawdown"),
        ("stage.levle >= 1", "test", "KS3001", "stage.level"),
        ("equity.value > latency.p99", "test", "KS3001", ""),
        ("exposure.gross >= exposure.leverage", "test", "KS4007", "one unit"),
        (f"{FALL} < stage.level * 0.05", "test", "KS7302", "stage.level >= 2"),
        ("stage.level >= 1.5", "test", "KS7302", "whole number"),
        ("stage.level", "test", "KS4003", "compare it"),
        ("true", "test", "KS7303", "always true"),
        ("stage.level <= 1", "tset", "KS7301", "test"),
    ],
)
def test_a_mistake_has_its_code_its_place_and_its_way_out(
    tmp_path: Path, holds: str, policies: str, code: str, fix: str
) -> None:
    """What does not parse, names what does not exist or mixes units is no invariant."""
    _, found, problems = read(tmp_path, ONE, invariant(holds, policies))
    assert found == ()
    assert [each.code for each in problems] == [code]
    assert fix in problems[0].fix
    assert problems[0].line == ONE.count("\n") + (6 if code == "KS7301" else 7)


def test_an_invariant_changes_no_digest(tmp_path: Path) -> None:
    """What is deployed is the same with and without it, and the lock of a start reads no invariant."""
    with_one, _, _ = read(tmp_path, ONE, invariant("stage.level <= 1"))
    without, _, _ = read(tmp_path, ONE)
    assert with_one.digest == without.digest
    assert load([tmp_path / "policies.yaml"], without={"Invariant"}).diagnostics == ()


def test_a_run_starts_beside_an_invariant_with_a_mistake(tmp_path: Path) -> None:
    """A test of policies never keeps them from running; `validate` and `prove` report what is wrong with it."""
    (tmp_path / "policy.yaml").write_text(ONE, encoding="utf-8")
    (tmp_path / "invariants.yaml").write_text(invariant("stage.level and more"), encoding="utf-8")
    assert [each.policy for each in read_policies([tmp_path]).policies.graphs] == ["test"]


def test_a_refuted_invariant_states_why_it_matters(tmp_path: Path) -> None:
    """What the document gives as `because` is part of the verdict."""
    why = "  because: nobody may sleep through it\n"
    policies, found, _ = read(tmp_path, ONE, invariant("stage.level != 1") + why)
    (refuted,) = prove_invariants(Prover(perf_counter), policies.graphs[0], found)
    assert refuted.outcome == "refuted" and "nobody may sleep through it" in refuted.text


def test_the_scenario_of_an_invariant_names_signals_that_the_policy_does_not_read(tmp_path: Path) -> None:
    """A scenario gives only signals that its policies read; the others are in its comment."""
    policies, found, _ = read(tmp_path, ONE, invariant("exposure.leverage >= 1.0"))
    graph = policies.graphs[0]
    (refuted,) = prove_invariants(Prover(perf_counter), graph, found)
    assert refuted.witness is not None
    written = scenario_of(WitnessItem("it", with_columns(graph, found[0]), refuted.witness, ("Why.",)), policies)
    assert written.result is not None and written.result.outcome == "passed"
    assert "# The policy does not read exposure.leverage, which is " in written.text


def test_trap_half_of_the_book_may_go_without_any_level(repository: Path, tmp_path: Path) -> None:
    """A loss of 15% since the start, in a calm hour: "then some level is in force" is refuted for futures-drawdown."""
    shipped = (repository / "policies/futures-drawdown/policy.yaml").read_text(encoding="utf-8")
    named = shipped.replace("name: futures-drawdown", "name: test", 1)
    found = verdict(tmp_path, named, "!(equity.loss_from_start >= 0.15) || stage.level >= 1")
    assert found.outcome == "refuted" and found.witness is not None
    assert found.witness[-1].fired is None
