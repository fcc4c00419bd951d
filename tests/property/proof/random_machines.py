"""Random stage machines and inputs, and the engine's evaluation of them: what lowered evaluations are compared with."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

from msgspec import Struct

from killswitch.engine.state import StageMachineState
from killswitch.engine.step import StageMachine, latch, reset, step
from killswitch.graph.analysis.reachability import can_decline
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    AutoReset,
    Compare,
    ConditionNode,
    Graph,
    Not,
    Number,
    SignalRead,
    SignalRef,
    Stage,
    TextIs,
    Trigger,
)
from killswitch.model.instant import HOUR, MINUTE
from tests.graphs import HERE, close, graph, stage

SIGNALS = (
    SignalRef("equity.drawdown", (15 * MINUTE,)),
    SignalRef("equity.drawdown", (HOUR,)),
    SignalRef("exposure.leverage"),
    SignalRef("attribution.source", (15 * MINUTE,)),
)
TEXT = 3
THRESHOLDS = (0.02, 0.045, 0.07, 0.225)
TEXTS = ("LONG", "SHORT", "MIXED")


def condition_in(random: Random, depth: int = 2) -> ConditionNode:
    """A condition over the signals, mostly a threshold."""
    kind = random.random()
    if depth and kind < 0.3:
        parts = tuple(condition_in(random, depth - 1) for _ in range(random.randint(1, 2)))
        return random.choice([AllOf(parts), AnyOf(parts), Not(parts[0])])
    if kind < 0.36:
        return TextIs(TEXT, tuple(random.sample(TEXTS, random.randint(1, 2))))
    if kind < 0.42:
        return Compare(random.choice(["<", "<=", ">", ">=", "==", "!="]), SignalRead(0), SignalRead(1))
    left: Any = SignalRead(random.randrange(TEXT))
    if kind < 0.6:
        op, number = random.choice(["+", "-", "*", "/"]), random.choice([5.0, -2.0, 0.1, 3.0])
        left = Arithmetic(op, left, Number(number))
        if op != "/" and random.random() < 0.3:
            left = Arithmetic(op, Number(number), left.left)
    op = random.choice([">=", ">=", ">=", ">", "<", "<=", "==", "!="])
    return Compare(op, left, Number(random.choice(THRESHOLDS)))


def graph_in(random: Random) -> Graph:
    """A policy of up to four triggers and three stages."""
    triggers = [
        Trigger(
            f"t{i}", condition_in(random), None, 0, 0, random.choice(["hold", "hold", "trip", "warn"]),
            random.choice([None, 5, 20]), HERE, random.random() < 0.3,
        )
        for i in range(random.randint(1, 4))
    ]  # fmt: skip
    triggers = [_confirming(random, each) for each in triggers]
    resets: list[ConditionNode] = []
    stages: list[Stage] = []
    for number in range(random.randint(1, 3)):
        chosen = [random.randrange(len(triggers)) for _ in range(random.randint(1, 2))]
        any_of, all_of = (chosen, []) if random.random() < 0.7 else (chosen[:1], chosen[1:])
        auto = None
        if random.random() < 0.7:
            resets.append(condition_in(random, 0))
            at_most = random.choice([None, None, 1])
            auto = AutoReset(len(triggers) + len(resets) - 1, random.choice([0, 5, 12]), at_most)
        made = stage(
            f"s{number}", random.randint(1, 3), *any_of, all_of=all_of, cooldown=random.choice([0, 4, 15]), reset=auto,
            corroborate=random.random() < 0.3, actions=[close()] if random.random() < 0.5 else [],
        )  # fmt: skip
        stages.append(made)
    return graph(SIGNALS, triggers, stages, reset_when=resets)  # type: ignore[arg-type]  # any condition resets


def _confirming(random: Random, trigger: Trigger) -> Trigger:
    from msgspec.structs import replace

    kind = random.random()
    if kind < 0.3:
        return replace(trigger, confirm_ticks=random.randint(1, 3))
    return replace(trigger, confirm=random.choice([3, 10]) if kind < 0.7 else 0)


class Observation(Struct, frozen=True):
    """What one evaluation reads, as the engine takes it."""

    low: list[float]
    high: list[float]
    text: list[str | None]
    now: int
    scheduled: bool
    lost: bool
    refused: tuple[bool, ...]


class Evaluated(Struct, frozen=True):
    """The engine's result: the state, before that the state without latch and reset, and what happened."""

    state: StageMachineState
    moved: StageMachineState
    fired: str | None
    reset: bool
    by_hand: bool


def observation_in(random: Random, policy: Graph, after: Observation | None) -> Observation:
    """The next inputs, often the same as before."""
    now = 1 if after is None else after.now + random.choice([1, 1, 3, 5, 12])
    low, high = [0.0] * len(SIGNALS), [0.0] * len(SIGNALS)
    text: list[str | None] = [None] * len(SIGNALS)
    for i in range(TEXT):
        if after is not None and random.random() < 0.5:
            low[i], high[i] = after.low[i], after.high[i]
            continue
        edges = [0.0, *(each * k for each in THRESHOLDS for k in (0.2, 1.0)), 0.01, 0.3, 1.0, 2.5 if i == 2 else 0.9]
        ends = sorted(random.choice(edges) for _ in range(2))
        kind = random.random()
        low[i], high[i] = (-inf, inf) if kind < 0.2 else (ends[0], ends[1]) if kind < 0.5 else (ends[0], ends[0])
    text[TEXT] = random.choice([None, *TEXTS])
    return Observation(
        low, high, text, now, random.random() < 0.7, random.random() < 0.4,
        tuple(random.random() < 0.3 for _ in policy.stages),
    )  # fmt: skip


class Engine:
    """The engine on one graph."""

    def __init__(self, policy: Graph) -> None:
        self.machine = StageMachine.of(policy, lower(policy.conditions))

    def evaluate(self, state: StageMachineState, seen: Observation) -> Evaluated:
        """One evaluation, with planning that declines what it may decline and `seen` refuses."""
        value = (0.5, 0.5) if seen.lost else (1.0, 1.0)
        found = step(
            self.machine, state, (seen.low, seen.high, seen.text), seen.now, scheduled=seen.scheduled, unit_value=value
        )
        stages = self.machine.graph.stages
        for each in found.eligible:
            if not (can_decline(each) and seen.refused[stages.index(each)]):
                fired = latch(found.state, each, seen.now, (1.0, 1.0))
                return Evaluated(fired, found.state, each.name, False, fired.by_hand)
        if found.reset:
            return Evaluated(reset(found.state, seen.now, automatic=True), found.state, None, True, False)
        return Evaluated(found.state, found.state, None, False, False)
