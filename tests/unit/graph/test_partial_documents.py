"""Partial documents: a document with a mistake is checked as far as it could be read, and no further."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load

HERE = Path(__file__).parent
INVALID = [file for file in sorted((HERE / "golden" / "invalid").glob("*.yaml")) if "kind: Policy" in file.read_text()]
MISTAKES = sorted((HERE.parent / "policy" / "mistakes").glob("*.yaml"))
POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example}
spec:
  mode: enforc
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdwn, windw: 15m, at_least: 4.5%, on_unknown: hold}
    deep: {signal: equity.drawdown, window: 15m, at_least: 9%, confirm: 2, on_unknown: hold}
    late: {when: 'equity.drawdown("15m") >=', on_unknwon: hold}
  stages:
    - {name: trim, level: 1, any: [fal], cooldwn: 1h, reset: manual, actions: [{close: {side: both}}]}
    - name: close
      level: 12
      any: [deep]
      all: [lat]
      cooldown: 1h
      reset: {auto: {when: 'equity.drawdown("1h") < 2%', for: 1x}}
      actions:
        - {close: {side: both, rank: mine, fraction: 50, all_if: 'position.los > 1.0'}}
        - {close: {side: both, rank: min, fraction: 50%, worst: 10%}}
---
apiVersion: killswitch.dev/v1
kind: Ranking
metadata: {name: mine}
spec: {formula: normalised, window: 1}
"""


def diagnostics_of(text: str, folder: Path) -> tuple[Diagnostic, ...]:
    """All diagnostics of a text."""
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    policy_set, diagnostics = compile_loaded(load([file]))
    assert policy_set is None
    return diagnostics


def test_an_extra_key_in_a_complete_part_hides_no_other_mistake(tmp_path: Path) -> None:
    """Nothing is missing, and no value needs a filler: the rest of the document is checked all the same."""
    text = POLICY.replace("enforc\n", "enforce\n").split("  triggers:")[0] + (
        "  triggers: {fall: {signal: equity.drawdwn, window: 15m, at_least: 4%, on_unknown: hold}}\n"
        "  stages: [{name: trim, level: 1, any: [fall], cooldown: 1h, reset: manual,\n"
        "            actions: [{close: {side: both, fraction: 1}}, {lock_trading: {mode: all, for: 1h, upto: 2h}}]}]\n"
    )
    assert {"KS2001", "KS3001"} <= {each.code for each in diagnostics_of(text, tmp_path)}


def test_a_null_in_a_list_where_a_mapping_belongs_is_one_mistake(tmp_path: Path) -> None:
    """The list's content was never declared, so no diagnostic is about it."""
    text = POLICY.split("  stages:", maxsplit=1)[0] + "  variants: {tight: {triggers: [null]}}\n"
    assert "KS2005" not in {each.code for each in diagnostics_of(text, tmp_path)}


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_a_mistake_of_the_schema_hides_no_mistake_of_the_graph(file: Path, tmp_path: Path) -> None:
    """With a misspelt value elsewhere in each policy, all other diagnostics stay, warnings included."""
    sound = load([file])
    before = [(each.line, each.column, each.code) for each in compile_loaded(sound)[1]]
    text = file.read_text(encoding="utf-8").replace("mode: observe", "mode: observ").replace("mode: enforce", "mode: x")
    after = [(each.line, each.column, each.code) for each in diagnostics_of(text, tmp_path)]
    assert "KS2004" in {code for _, _, code in after}
    assert [each for each in after if each[2] != "KS2004"] == before


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_unreadable_values_cause_no_follow_up_diagnostics(file: Path, tmp_path: Path) -> None:
    """The fixtures are sound but for their mistakes of the schema, so the graph has nothing to add."""
    diagnostics = diagnostics_of(file.read_text(encoding="utf-8"), tmp_path)
    assert diagnostics == load([tmp_path / "policy.yaml"]).diagnostics


def test_every_readable_part_is_checked(tmp_path: Path) -> None:
    """Triggers, stages, actions and expressions, each with a mistake of its own; the faulty ranking exists."""
    assert [(each.line, each.code) for each in diagnostics_of(POLICY, tmp_path)] == [
        (5, "KS2004"),
        (9, "KS3001"),
        (9, "KS2001"),
        (10, "KS2104"),
        (11, "KS4001"),
        (11, "KS2001"),
        (13, "KS3010"),
        (13, "KS2001"),
        (13, "KS2002"),
        (15, "KS2006"),
        (17, "KS3010"),
        (19, "KS4001"),
        (19, "KS2101"),
        (21, "KS2102"),
        (21, "KS3001"),
        (22, "KS3011"),
        (22, "KS5007"),
        (27, "KS2101"),
    ]


def test_a_faulty_trigger_does_not_prevent_the_reachability_check_of_other_stages(tmp_path: Path) -> None:
    """Levels 1 and 2 contradict each other, whatever the trigger of level 3 was meant to be."""
    text = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example}
spec:
  mode: observe
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    low: {signal: equity.drawdown, window: 15m, at_least: 9%, on_unknown: hold}
    high: {signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}
    other: {signal: equity.drawdwn, window: 15m, at_least: 5%, on_unknown: hold}
  stages:
    - {name: one, level: 1, any: [low], cooldown: 1h, reset: manual, actions: []}
    - {name: two, level: 2, any: [high], cooldown: 1h, reset: manual, actions: []}
    - {name: three, level: 3, any: [other], cooldown: 1h, reset: manual, actions: []}
"""
    assert [each.code for each in diagnostics_of(text, tmp_path)] == ["KS3022", "KS3001"]
