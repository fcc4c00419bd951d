"""The alternative that closes everything at the first trigger, whatever action a stage closes by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from killswitch.graph.actions import registry
from killswitch.graph.actions.close import KIND, Close
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action, Stage
from killswitch.lab.alternatives import close_all
from tests.graphs import close, graph, policy_set, stage


class Halve(Action):
    """An action that closes positions, and is none of the program's."""


def alternative(*actions: Action) -> Stage:
    """The only stage of a policy of one stage with these actions, as it closes everything."""
    (found,) = close_all(policy_set(graph([], [], [stage("s", 1, actions=actions)]))).graphs[0].stages
    return found


def test_a_stage_that_closes_by_another_action_closes_everything_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one with a `close` of both sides does: it is compared by what it closes, and not by the action's name."""
    halve = replace(KIND, key="halve", node=Halve, rankings=lambda _: ("default",))  # type: ignore[arg-type]
    monkeypatch.setitem(registry._BY_NODE, Halve, halve)
    assert alternative(Halve()).actions == alternative(close("both", "1")).actions


def test_a_stage_that_closes_nothing_stays_as_it_is() -> None:
    """A lock alone has nothing to be held against."""
    assert alternative(LockTrading("all", None)).actions == (LockTrading("all", None),)
    assert any(isinstance(each, Close) for each in alternative(close("long", "0.5")).actions)
