"""W5 of the field's failures, for keys, `lint` and `prove`: what is misspelt or checks nothing never exits 0."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.cli import ksctl

POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: fall, labels: {owner: desk}}
spec:
  mode: enforce
  scope: {each: account, match: {market: swap}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 5%, confirm: 2m, on_unknown: hold}
  stages:
    - name: close-everything
      level: 2
      any: [fall]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
        - close: {side: both, fraction: 100%, symbols: [BTC]}
      notify: [desk]
      runbook: close-everything
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: desk}
spec: {match: {}, targets: [{log: {level: warning}}]}
"""
VERBS = ("validate", "lint", "prove", "test")
MISSPELT = (
    ("match: {market:", "match: {markets:", "KS2001"),
    ("match: {market: swap}", "macth: {market: swap}", "KS2001"),
    ("symbols: [BTC]", "symbol: [BTC]", "KS2001"),
    ("confirm: 2m", "confrim: 2m", "KS2001"),
    ("any: [fall]", "any: [fal]", "KS3010"),
    ("equity.drawdown", "equity.drawdwn", "KS3001"),
    ("reduce_only", "reduce-only", "KS2004"),
)


def run(*arguments: str | Path) -> Result:
    """The verb with its arguments, in this process."""
    return CliRunner().invoke(ksctl, [str(each) for each in arguments])


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A sound policy in a file."""
    path = tmp_path / "policies" / "policy.yaml"
    path.parent.mkdir()
    path.write_text(POLICY, encoding="utf-8")
    return path


def test_w5_the_policy_of_these_tests_is_sound(policy: Path) -> None:
    """So that each slip below is the only cause of its error."""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    assert {verb: run(verb, policy).exit_code for verb in ("validate", "lint", "prove")} == dict.fromkeys(
        ("validate", "lint", "prove"), 0
    )


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("old", "new", "code"), MISSPELT, ids=[new for _, new, _ in MISSPELT])
def test_w5_a_misspelt_key_stops_every_verb(policy: Path, verb: str, old: str, new: str, code: str) -> None:
    """A filter that is misspelt would watch everything: no verb goes on without it, and each names the code."""
    assert POLICY.count(old) == 1
    policy.write_text(POLICY.replace(old, new), encoding="utf-8")
    result = run(verb, policy)
    assert result.exit_code == 1
    assert code in result.output


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["empty", "misspelt"])
def test_w5_a_verb_that_checked_nothing_is_no_success(tmp_path: Path, verb: str, name: str) -> None:
    """A folder without documents, and one that does not exist."""
    (tmp_path / "empty").mkdir()
    result = run(verb, tmp_path / name)
    assert result.exit_code == 1
    assert "KS1002" in result.output or "KS1001" in result.output


def test_w5_a_set_without_a_policy_is_not_proved(tmp_path: Path) -> None:
    """There is nothing that could be refuted."""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    (tmp_path / "route.yaml").write_text(POLICY.partition("---\n")[2], encoding="utf-8")
    result = run("prove", tmp_path)
    assert result.exit_code == 1
    assert "there is no policy to prove" in result.output


@pytest.mark.parametrize("reference", ["misspelt-branch", "policies/misspelt.yaml"])
def test_w5_a_comparison_with_a_misspelt_reference_is_no_verdict(policy: Path, reference: str) -> None:
    """Neither a revision nor a file: an error, and no word."""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    result = run("prove", policy, "--against", reference)
    assert result.exit_code == 1
    assert not {"TIGHTENING", "EQUIVALENT"} & set(result.output.split())


RULES = """\
apiVersion: killswitch.dev/v1
kind: LintRules
rules:
  - code: DESK1
    each: spec.stages
    when: 'seconds(item.cooldown) < 60.0'
    message: a short cooldown
    fix: write a longer one
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("each: spec.stages", "eahc: spec.stages"), ("item.cooldown", "item.cooldwon"), ("    when:", "    wenn:"),
        ("each: spec.stages", "each: spec.stages\n    kinds: [Policies]"),
    ],
)  # fmt: skip
def test_w5_a_misspelt_rule_never_passes_for_one_that_found_nothing(policy: Path, old: str, new: str) -> None:
    """A key, a key of the documents, or a kind: each is an error."""
    rules = policy.parent.parent / "rules.yaml"
    rules.write_text(RULES, encoding="utf-8")
    assert run("lint", policy, "--rules", rules).exit_code == 0
    assert RULES.count(old) == 1
    rules.write_text(RULES.replace(old, new), encoding="utf-8")
    result = run("lint", policy, "--rules", rules)
    assert result.exit_code == 1
    assert "KS728" in result.output or "KS20" in result.output


def test_w5_a_file_of_rules_that_does_not_exist_is_an_error(policy: Path) -> None:
    """Nothing is linted without the rules that were asked for."""
    assert run("lint", policy, "--rules", policy.parent / "misspelt.yaml").exit_code == 1


def test_w5_an_ignored_code_that_is_misspelt_ignores_nothing(policy: Path) -> None:
    """The finding stays, and the comment is an error."""
    removed = POLICY.replace("      runbook: close-everything\n", "")
    named = "- name: close-everything"
    policy.write_text(removed.replace(named, f"{named} # ksctl: ignore KS7402: on paper"), encoding="utf-8")
    result = run("lint", policy)
    assert result.exit_code == 1
    assert "KS7204" in result.output and "KS7292" in result.output
