"""Scenarios for tests, written the short way: a policy, its scenario, and what is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from killswitch.graph.compile import compile_loaded
from killswitch.graph.nodes import PolicySet
from killswitch.lab.recording import read
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import load
from killswitch.scenario.cases import Scenario
from killswitch.scenario.resolve import resolve
from killswitch.scenario.running import CaseResult, Ran, ScenarioRunner

POLICY = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: falls}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    three: {signal: equity.loss_from_start, at_least: 3%, on_unknown: hold}
    five: {signal: equity.loss_from_start, at_least: 5%, confirm: 2m, on_unknown: hold}
  stages:
    - name: warn
      level: 1
      any: [three]
      cooldown: 5m
      reset: {auto: {when: 'equity.loss_from_start < 0.015', for: 2m}}
      actions: []
      notify: [desk]
    - name: close
      level: 2
      any: [five]
      cooldown: 5m
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
        - close: {side: both, fraction: 100%}
      notify: [desk]
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: desk}
spec:
  match: {notify: desk}
  targets: [{log: {level: warning}}]
---
apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: everything}
spec:
  match: {}
  targets: [{log: {level: warning}}]
"""

POSITION = 'positions: [{symbol: "BTC/USDT:USDT", side: long, contracts: 1, price: 20000, amount_step: 0.001}]'


def scenario_text(equity: str, *more: str, name: str = "it", account: Sequence[str] = (POSITION,)) -> str:
    """The YAML of a scenario of the policy `falls` with one account; `more`: further lines of its spec."""
    lines = [
        "apiVersion: killswitch.dev/v1", "kind: Scenario", f"metadata: {{name: {name}}}", "spec:",
        "  policies: [falls]", "  starts: 2026-03-02 09:00 Europe/Berlin", "  every: 1m", "  accounts:", "    main:",
        "      venue: paper", "      market: swap", "      currency: USDT", f"      equity: {equity}",
        *(f"      {line}" for line in account), *(f"  {line}" for line in more),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def loaded(
    folder: Path, *texts: str, policy: str = POLICY
) -> tuple[PolicySet, tuple[Scenario, ...], tuple[Diagnostic, ...]]:
    """The policies, the scenarios, and the diagnostics of everything, from files in `folder`."""
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    for number, text in enumerate(texts):
        (folder / f"scenario-{number}.yaml").write_text(text, encoding="utf-8")
    documents = load([folder])
    policies, problems = compile_loaded(documents)
    if policies is None:
        return PolicySet("", None, ()), (), problems
    scenarios, found = resolve(documents.documents, policies)
    return policies, scenarios, (*problems, *found)


def ran(folder: Path, text: str, policy: str = POLICY) -> Ran:
    """The run of one scenario without an error."""
    policies, scenarios, problems = loaded(folder, text, policy=policy)
    assert [each for each in problems if each.severity == "error"] == []
    return ScenarioRunner(policies, lambda path: read(Path(path))).run(scenarios[0])


def result(folder: Path, text: str, policy: str = POLICY) -> CaseResult:
    """The result of one scenario without a problem."""
    return ran(folder, text, policy).result
