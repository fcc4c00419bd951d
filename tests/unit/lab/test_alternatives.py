"""The `close-all` rule: everything is closed at the first trigger, by whichever action the stage closes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from killswitch.graph.actions import registry
from killswitch.graph.actions.close import KIND, Close
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action, Stage
from killswitch.lab.alternatives import close_all
from tests.graphs import close, graph, policy_set, stage


class Halve(Action, frozen=True):
    """A closing action that the product does not have."""


def close_all_stage(*actions: Action) -> Stage:
    """The stage that `close_all` makes of a one-stage policy with these actions."""
    (found,) = close_all(policy_set(graph([], [], [stage("s", 1, actions=actions)]))).graphs[0].stages
    return found


def test_a_stage_that_closes_by_another_action_closes_everything_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It equals a stage with a `close` of both sides: what it closes decides, not the action's name."""
    halve = replace(KIND, key="halve", node=Halve, rankings=lambda _: ("default",))
    monkeypatch.setattr(registry, "ACTIONS", (*registry.ACTIONS, halve))
    assert close_all_stage(Halve()).actions == close_all_stage(close("both", "1")).actions


def test_a_stage_that_closes_nothing_is_unchanged() -> None:
    """A lock alone has no close to replace."""
    assert close_all_stage(LockTrading("all", None)).actions == (LockTrading("all", None),)
    assert any(isinstance(each, Close) for each in close_all_stage(close("long", "0.5")).actions)
