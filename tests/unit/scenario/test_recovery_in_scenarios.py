"""Scenarios of the way back after a reset: it acts, it must not act, and an input is unknown."""

from __future__ import annotations

from pathlib import Path

from tests.unit.scenario.written import POLICY, result, scenario_text

PLAN = """---
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, execution: live}
---
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {name: main}
spec: {match: {}, stale_after: 10s, gross: 1000000 USDT}
---
apiVersion: killswitch.dev/v1
kind: RecoveryPlan
metadata: {name: way-back}
spec:
  policies: falls
  level: 2
  health: {when: 'equity.drawdown("1m") < 0.01', for: 2m}
  start: {share: 25%}
  ramp: {steps: 2, every: 5m, thresholds: fixed}
"""
RESET = "events: [{at: 5m, kind: reset, scope: account/main, author: ann, reason: reviewed}]"


def failures(folder: Path, equity: str, *expect: str, events: str = RESET) -> list[tuple[str, str]]:
    """(wanted, seen) of every failure of a scenario with these expectations."""
    lines = ("notices: none", events, f"expect: [{', '.join(expect)}]")
    return [(each.wanted, each.seen) for each in result(folder, scenario_text(equity, *lines), POLICY + PLAN).failures]


CLOSES = ("{at: 1m, fires: warn}", "{at: 3m, fires: close}", "{at: 5m, resets: close}")


def test_a_way_back_that_acts(tmp_path: Path) -> None:
    """Closed at 3m, reset at 5m, healthy from 6m to 8m: then 25%, 50% and 100%, 5m apart."""
    expect = (
        "{at: 2m, may_open: everything}", "{at: 4m, may_open: nothing}", "{at: 7m, may_open: nothing}",
        "{at: 8m, may_open: 25%}", "{at: 12m, may_open: 25%}", "{at: 13m, may_open: 50%}",
        "{at: 18m, may_open: everything}",
    )  # fmt: skip
    assert failures(tmp_path, "10000 9400 =x18", *CLOSES, *expect) == []


def test_a_way_back_that_must_not_act(tmp_path: Path) -> None:
    """A stage below its level fires and is reset: nothing is reduced."""
    expect = ("{at: 1m, fires: warn}", "{at: 2m, may_open: everything}", "{at: 6m, may_open: everything}")
    events = "events: []"
    assert failures(tmp_path, "10000 9650 =x8", *expect, events=events) == []


def test_a_way_back_with_an_unknown_input(tmp_path: Path) -> None:
    """The account is stale from 9m to 11m: what is not known counts neither as clean nor as a warning."""
    expect = (
        "{at: 8m, may_open: 25%}",
        "{at: 13m, may_open: 25%}",
        "{at: 16m, may_open: 25%}",
        "{at: 17m, may_open: 50%}",
    )
    assert failures(tmp_path, "10000 9400 =x7 stale stale stale 9400 =x12", *CLOSES, *expect) == []
