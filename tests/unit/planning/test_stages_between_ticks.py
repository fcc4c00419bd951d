"""Evaluations that push messages cause count no tick: which stage fires on them, and which sets are rejected."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
from msgspec import Struct

from killswitch.engine.state import StageMachineState, initial
from killswitch.engine.step import StageMachine, step
from killswitch.graph.compile import compile_policies
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import OnUnknown, PolicySet
from killswitch.model.instant import SECOND
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.graphs import FALL_15M, graph, stage, trigger
from tests.worlds import account, after, position, snapshot

HEAD = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
"""
THRESHOLD = "signal: equity.drawdown, window: 15m, at_least: 5%"
EXPRESSION = "when: 'equity.drawdown(\"15m\") >= 0.05 && equity.value > 1.0'"


class Confirms(Struct, frozen=True):
    """How a trigger confirms, and its answer to unknown. `time` in microseconds."""

    written: str
    time: int
    ticks: int
    on_unknown: OnUnknown


CONFIRMATIONS = [
    Confirms(written, time, ticks, on_unknown)
    for (written, time, ticks) in (("0s", 0, 0), ("1 ticks", 0, 1), ("2 ticks", 0, 2), ("2s", 2 * SECOND, 0))
    for on_unknown in ("hold", "warn", "trip")
]  # fmt: skip


def compiled(folder: Path, condition: str, low: Confirms, high: Confirms) -> tuple[PolicySet | None, list[str]]:
    """Two levels with this condition; and the codes of the problems."""
    lines = [f"    {name}: {{{condition}, confirm: {each.written}, on_unknown: {each.on_unknown}}}"
             for name, each in (("low", low), ("high", high))]  # fmt: skip
    stages = [f"    - {{name: {name}, level: {level}, any: [{name}], cooldown: 1h, reset: manual, actions: []}}"
              for level, name in ((1, "low"), (2, "high"))]  # fmt: skip
    (folder / "p.yaml").write_text("\n".join([HEAD + "  triggers:", *lines, "  stages:", *stages]) + "\n")
    loaded = load([folder])
    assert loaded.diagnostics == ()
    policies, problems = compile_policies(loaded.documents)
    return policies, [each.code for each in problems if each.code != "KS5005"]


def fired(policies: PolicySet, *evaluations: tuple[float, int, bool]) -> list[tuple[float, str | None]]:
    """The stages that fire over evaluations (second, profit of a long of 500 at 100, whether it is a tick)."""
    interpreter, found = Interpreter(policies), []
    for second, profit, is_tick in evaluations:
        held = position("L", "long", str(profit), contracts="500", notional=str(50_000 + profit), entry_price="100",
                        mark_price=str(100 + profit / 500))  # fmt: skip
        polled = account(str(100_000 + profit), [held], unrealized=Decimal(profit))
        polled = snapshot(after(seconds=second), polled, scheduled=is_tick)
        found += [(second, decision.stage) for decision in interpreter.tick(polled).decisions]
    return found


@pytest.mark.parametrize(("condition", "codes"), [(THRESHOLD, ["KS5004"]), (EXPRESSION, [])])
@pytest.mark.parametrize("waits", ["0s", "2s"])
def test_a_lower_stage_fires_between_ticks_where_the_higher_one_counts_them(
    condition: str, codes: list[str], waits: str, tmp_path: Path
) -> None:
    """6% are lost at 1 s, and a little more at each push. The evaluations after pushes fire the lower stage, at once or
    after 2 s, and the tick at 5 s fires the higher one.
    """
    low, high = Confirms(waits, 0, 0, "hold"), Confirms("1 ticks", 0, 1, "hold")
    policies, problems = compiled(tmp_path, condition, low, high)
    assert problems == codes
    assert policies is not None
    pushed = [(second, -6_000 - second, False) for second in (1, 2, 3)]
    evaluations = [(0, 0, True), *pushed, (5, -6_000, True)]
    assert fired(policies, *evaluations) == [(1 if waits == "0s" else 3, "low"), (5, "high")]


@pytest.mark.parametrize(("condition", "code"), [(THRESHOLD, "KS3022"), (EXPRESSION, "KS3021")])
def test_a_lower_stage_that_counts_a_tick_is_rejected_next_to_a_higher_one_that_counts_none(
    condition: str, code: str, tmp_path: Path
) -> None:
    """The higher stage is confirmed at every evaluation, so also at the tick that confirms the lower one."""
    low, high = Confirms("1 ticks", 0, 1, "hold"), Confirms("0s", 0, 0, "hold")
    assert compiled(tmp_path, condition, low, high) == (None, [code])


VALUES = {"true": (0.06, 0.06), "false": (0.0, 0.0), "unknown": (float("-inf"), float("inf"))}


def can_fire_low(low: Confirms, high: Confirms, depth: int = 5) -> bool:
    """Whether some course of up to `depth` evaluations fires the lower of two levels with one condition first.

    Each evaluation is a tick or not, 0 or 1 s after the one before, and sees the condition true, false or unknown.
    """
    triggers = [
        trigger(name, 0, 0.05, confirm=each.time, ticks=each.ticks, on_unknown=each.on_unknown)
        for name, each in (("low", low), ("high", high))
    ]
    made = graph((FALL_15M,), triggers, (stage("low", 1, 0), stage("high", 2, 1)))
    machine = StageMachine.of(made, lower(made.conditions))
    states: list[tuple[int, StageMachineState]] = [(0, initial())]
    for _ in range(depth):
        following: dict[str, tuple[int, StageMachineState]] = {}
        for (now, state), (lo, hi), is_tick, later in product(states, VALUES.values(), (True, False), (0, SECOND)):
            moved = step(machine, state, ([lo], [hi], [None]), now + later, scheduled=is_tick)
            if not moved.eligible:
                following[f"{now + later} {moved.state}"] = now + later, moved.state
            elif moved.eligible[0].name == "low":
                return True
        states = list(following.values())
    return False


@pytest.mark.parametrize("high", CONFIRMATIONS, ids=lambda each: f"{each.written} {each.on_unknown}")
def test_a_set_is_rejected_only_if_its_lower_stage_never_fires(high: Confirms, tmp_path: Path) -> None:
    """All courses of five evaluations, with each confirmation and each answer to unknown of the lower level.

    With the same answer to unknown it is also rejected if none of them fires the lower stage.
    """
    for low in CONFIRMATIONS:
        fires = can_fire_low(low, high)
        for condition, code in ((THRESHOLD, "KS3022"), (EXPRESSION, "KS3021")):
            is_rejected = code in compiled(tmp_path, condition, low, high)[1]
            assert not (is_rejected and fires), (low, high, code)
            if low.on_unknown == high.on_unknown:
                assert is_rejected is not fires, (low, high, code)
