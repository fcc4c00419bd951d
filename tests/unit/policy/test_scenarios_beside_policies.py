"""Scenarios lie beside the policies, and a mistake in one never keeps a run from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.accounts.opening import PolicyProblemsError, read_policies
from killswitch.policy.loader import load
from tests.unit.policy.test_versions import V1

MISSPELT = "apiVersion: killswitch.dev/v1\nkind: Scenario\nmetadata: {name: first}\nspec: {strat: tomorrow}\n"
OLD = "apiVersion: killswitch.dev/v0\nkind: Scenario\nmetadata: {name: first}\nspec: {}\n"
TWICE = "apiVersion: killswitch.dev/v1\nkind: Scenario\nmetadata: {name: a, name: b}\nspec: {}\n"
BROKEN = "apiVersion: killswitch.dev/v1\nkind: Scenario\nmetadata: {name: first\nspec: [\n"


@pytest.mark.parametrize("scenarios", [MISSPELT, OLD, TWICE, BROKEN], ids=["misspelt", "version", "twice", "broken"])
def test_a_run_reads_its_policies_beside_a_scenario_that_is_not_valid(tmp_path: Path, scenarios: str) -> None:
    """`validate` reports the scenario; what is deployed is the policy, with the digest that it has alone."""
    (tmp_path / "fall.yaml").write_text(V1, encoding="utf-8")
    alone = read_policies([tmp_path]).policies.digest
    (tmp_path / "scenarios.yaml").write_text(scenarios, encoding="utf-8")

    read = read_policies([tmp_path])

    assert [graph.policy for graph in read.policies.graphs] == ["fall"]
    assert read.policies.digest == alone
    assert load([tmp_path]).diagnostics


@pytest.mark.parametrize("second", ["kind: Policy\n", "{ kind : 'Policy' }\n", '  "kind": "Policy"\n'])
def test_a_broken_file_that_may_hold_a_policy_keeps_a_run_from_starting(tmp_path: Path, second: str) -> None:
    """A policy below a scenario that cannot be parsed would otherwise be left out unseen."""
    (tmp_path / "fall.yaml").write_text(V1, encoding="utf-8")
    (tmp_path / "scenarios.yaml").write_text(f"{BROKEN}---\n{second}", encoding="utf-8")

    with pytest.raises(PolicyProblemsError):
        read_policies([tmp_path])


def test_a_mistake_beside_a_policy_in_one_file_keeps_a_run_from_starting(tmp_path: Path) -> None:
    """A key that is written twice belongs to the file, and the file has a policy."""
    (tmp_path / "fall.yaml").write_text(f"{V1}---\n{TWICE}", encoding="utf-8")

    with pytest.raises(PolicyProblemsError):
        read_policies([tmp_path])
