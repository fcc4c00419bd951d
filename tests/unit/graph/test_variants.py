"""Variants: selected by the document or for one compilation, like a document that declares the values itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from killswitch.cli import ksctl
from killswitch.graph.compile import compile_loaded, compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.graph.variants import NoSuchVariantError
from killswitch.policy.loader import load

POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  mode: enforce
  scope: {{each: account, match: {{}}}}
  max_gap: 10m
  {more}
  triggers:
    fall: {{signal: equity.drawdown, window: 15m, at_least: {at_least}, confirm: {confirm}, on_unknown: hold}}
  stages:
    - {{name: trim, level: 1, any: [fall], cooldown: 30m, reset: manual, actions: []}}
"""
TIGHT = "variants: {tight: {triggers: {fall: {at_least: 3%, confirm: 1m}}}}"


def policy_text(name: str = "example", more: str = TIGHT, at_least: str = "4.5%", confirm: str = "2m") -> str:
    return POLICY.format(name=name, more=more, at_least=at_least, confirm=confirm)


def compiled(folder: Path, *texts: str, variant: str | None = None) -> PolicySet:
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    policy_set, diagnostics = compile_policies(load([folder]).documents, variant=variant)
    assert diagnostics == ()
    assert policy_set is not None
    return policy_set


def triggers_of(policy_set: PolicySet) -> list[tuple[str | None, float | None, int]]:
    """(variant, threshold, confirmation in seconds) of each policy's one trigger."""
    return [
        (graph.variant, trigger.threshold.value if trigger.threshold else None, trigger.confirm // 1_000_000)
        for graph in policy_set.graphs
        for trigger in graph.triggers
    ]


def test_without_a_selection_the_triggers_are_as_written(tmp_path: Path) -> None:
    """Declaring a variant changes nothing by itself."""
    assert triggers_of(compiled(tmp_path, policy_text())) == [(None, 0.045, 120)]


def test_a_document_selects_a_variant(tmp_path: Path) -> None:
    """Its threshold and its confirmation are in the triggers and in the conditions that run."""
    (graph,) = compiled(tmp_path, policy_text(more=f"variant: tight\n  {TIGHT}")).graphs
    (plain,) = compiled(tmp_path / "plain", policy_text(more="", at_least="3%", confirm="1m")).graphs
    assert graph.conditions == plain.conditions
    assert triggers_of(PolicySet("", None, (graph,))) == [("tight", 0.03, 60)]


def test_a_compilation_selects_a_variant_in_every_policy_that_has_it(tmp_path: Path) -> None:
    """The others are unchanged; the digest is that of the document that selects it itself."""
    other = policy_text("other", more="")
    asked_for = compiled(tmp_path / "a", policy_text(), other, variant="tight")
    by_text = compiled(tmp_path / "b", policy_text(more=f"variant: tight\n  {TIGHT}"), other)
    assert triggers_of(asked_for) == [("tight", 0.03, 60), (None, 0.045, 120)]
    assert asked_for.digest == by_text.digest
    assert asked_for.digest != compiled(tmp_path / "c", policy_text(), other).digest


def test_a_missing_variant_is_refused_with_the_existing_ones(tmp_path: Path) -> None:
    """NoSuchVariantError, with a message for people."""
    (tmp_path / "a.yaml").write_text(policy_text())
    with pytest.raises(NoSuchVariantError, match=r"declares a variant `thight`; there is `tight` \(example\)$"):
        compile_loaded(load([tmp_path]), variant="thight")
    (tmp_path / "a.yaml").write_text(policy_text(more=""))
    with pytest.raises(NoSuchVariantError, match=r"declares a variant `tight`; there is none at all$"):
        compile_loaded(load([tmp_path]), variant="tight")


def test_a_variant_without_any_trigger_is_reported_at_its_name(tmp_path: Path) -> None:
    """Selecting it would seem to change the protection, and keeps the policy's own thresholds."""
    path = tmp_path / "policy.yaml"
    path.write_text(policy_text(more="variants: {tight: {triggers: {}}}"))
    policy_set, (found,) = compile_policies(load([path]).documents)
    assert policy_set is not None
    assert (found.code, found.line, found.column) == ("KS5012", 8, 14)


def test_mistakes_are_reported_before_a_missing_variant(tmp_path: Path) -> None:
    """A set that cannot be read is not searched for variants."""
    (tmp_path / "a.yaml").write_text(policy_text().replace("max_gap", "maxgap"))
    policy_set, found = compile_loaded(load([tmp_path]), variant="thight")
    assert policy_set is None
    assert {each.code for each in found} == {"KS2001"}


def test_a_mistake_in_a_variant_is_reported_once_and_the_others_are_checked(tmp_path: Path) -> None:
    """A mistake in one variant hides none of another."""
    (tmp_path / "a.yaml").write_text(
        policy_text(
            more="variants: {a: {triggers: {fall: {at_least: x, confirm: 1m}}}, b: {triggers: {fal: {grace: 1m}}}}"
        )
    )
    _, found = compile_loaded(load([tmp_path]))
    assert [each.code for each in found] == ["KS2103", "KS3010"]


@pytest.mark.parametrize("verb", ["validate", "graph"])
def test_the_text_verbs_take_a_variant(verb: str, tmp_path: Path) -> None:
    """`graph` names it in its title; an undeclared variant is one line and exit 1."""
    (tmp_path / "a.yaml").write_text(policy_text())
    run = CliRunner()
    found = run.invoke(ksctl, [verb, str(tmp_path), "--variant", "tight"])
    assert found.exit_code == 0, found.output
    if verb == "graph":
        assert "example (variant tight, enforce, each account)" in found.output
    wrong = run.invoke(ksctl, [verb, str(tmp_path), "--variant", "loose"])
    assert wrong.exit_code == 1
    assert wrong.stderr == "Error: no policy declares a variant `loose`; there is `tight` (example)\n"


@pytest.mark.parametrize("verb", ["replay", "plan"])
def test_the_verbs_over_recordings_take_a_variant(verb: str, tmp_path: Path) -> None:
    """An undeclared variant stops them before they read anything."""
    (tmp_path / "a.yaml").write_text(policy_text())
    recording = tmp_path / "empty.jsonl"
    recording.touch()
    option = "--snapshots" if verb == "replay" else "--snapshot"
    arguments = [verb, "--policies", str(tmp_path / "a.yaml"), option, str(recording), "--variant"]
    wrong = CliRunner().invoke(ksctl, [*arguments, "loose"])
    assert (wrong.exit_code, wrong.stderr) == (
        1, "Error: no policy declares a variant `loose`; there is `tight` (example)\n",
    )  # fmt: skip
    assert "loose" not in CliRunner().invoke(ksctl, [*arguments, "tight"]).output


def test_run_takes_no_variant() -> None:
    """`run` uses the document's own selection."""
    assert "--variant" not in CliRunner().invoke(ksctl, ["run", "--help"]).output
