"""One evaluation of 200 triggers over 60 signals, confirmation included, against 200 hand-written lambdas.

The values walk at random, so that triggers start and end and confirmation clocks run; both sides get the same values.
A quarter of the triggers join two conditions. The lambdas only compare, without intervals,
unknown values or confirmation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from killswitch.engine.state import initial
from killswitch.engine.step import StageMachine, step
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import (
    AnyOf,
    Compare,
    ConditionNode,
    EquityRule,
    Graph,
    Number,
    Place,
    ScopeRule,
    SignalRead,
    SignalRef,
    Trigger,
)
from killswitch.model.instant import MINUTE, SECOND
from tests.bench.measure import Measure, best_of

SIGNALS, TRIGGERS, TICKS, ROUNDS = 60, 200, 4000, 9
NOWHERE = Place("bench.yaml", 1, 1, "")

Values = list[float]


def measures() -> Iterator[Measure]:
    """The promise: at most the time of the lambdas."""
    random = Random(20210519)
    conditions, lambdas = _conditions(random)
    ticks = _values(random)
    texts: list[str | None] = [None] * SIGNALS
    columns = [(values, values, texts) for values in ticks]
    machine = StageMachine.of(_graph(conditions), lower(conditions))

    def ours() -> None:
        state, now = initial(), 1_600_000_000 * SECOND
        for column in columns:
            now += SECOND
            state = step(machine, state, column, now).state

    def reference() -> None:
        for values in ticks:
            [condition(values) for condition in lambdas]

    _check_same(machine, lambdas, ticks)
    best, against = best_of(ROUNDS, ours, reference)
    yield Measure(
        f"tick of {TRIGGERS} triggers over {SIGNALS} signals",
        best / TICKS * 1e6, against / TICKS * 1e6, f"{TRIGGERS} hand-written lambdas", 1.0, "µs",
    )  # fmt: skip


def _conditions(random: Random) -> tuple[list[ConditionNode], list[Callable[[Values], bool]]]:
    nodes: list[ConditionNode] = []
    texts: list[str] = []
    for position in range(TRIGGERS):
        parts = [
            (random.randrange(SIGNALS), round(random.uniform(0.01, 0.2), 3)) for _ in range(1 + (position % 4 == 0))
        ]
        compares = [Compare(">=", SignalRead(index), Number(value)) for index, value in parts]
        nodes.append(compares[0] if len(compares) == 1 else AnyOf(tuple(compares)))
        texts.append("lambda v: " + " or ".join(f"v[{index}] >= {value}" for index, value in parts))
    return nodes, [eval(text) for text in texts]


def _values(random: Random) -> list[Values]:
    """Values of each signal, a tick a row: steps of a percent of the range, kept inside it."""
    now = [random.uniform(0, 0.2) for _ in range(SIGNALS)]
    rows = []
    for _ in range(TICKS):
        now = [min(0.2, max(0.0, value + random.gauss(0, 0.002))) for value in now]
        rows.append(now)
    return rows


def _graph(conditions: list[ConditionNode]) -> Graph:
    triggers = tuple(
        Trigger(f"t{i}", condition, None, 2 * MINUTE, 0, "hold", None, NOWHERE)
        for i, condition in enumerate(conditions)
    )
    return Graph(
        policy="bench", digest="sha256:0", mode="observe", scope=ScopeRule("account", None, None, None, None),
        equity=EquityRule(10 * MINUTE, 0.001, MINUTE, None),
        signals=tuple(SignalRef("equity.drawdown", ((i + 1) * MINUTE,)) for i in range(SIGNALS)),
        position_signals=(),
        triggers=triggers, conditions=tuple(conditions), stages=(), rankings=(), groups=(), place=NOWHERE,
    )  # fmt: skip


def _check_same(machine: StageMachine, lambdas: list[Callable[[Values], bool]], ticks: list[Values]) -> None:
    """AssertionError unless both sides agree on the same values; the comparison would mean nothing."""
    for values in ticks[:100]:
        true, unknown = machine.evaluate(values, values, [None] * SIGNALS)
        expected = sum(1 << i for i, condition in enumerate(lambdas) if condition(values))
        if (true, unknown) != (expected, 0):
            raise AssertionError("the lambdas and the graph disagree")
