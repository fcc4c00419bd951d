"""Witnesses: the evaluations of a model, replayed in the engine before anybody sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from killswitch.engine.state import StageMachineState, initial
from killswitch.engine.step import StageMachine, is_confirmed, latch, reset, step
from killswitch.graph.analysis.reachability import can_decline
from killswitch.graph.lowering import lower
from killswitch.graph.nodes import Graph
from killswitch.graph.wording import signal_text
from killswitch.proof.axioms import Inputs
from killswitch.proof.solver import float_of, integer_of, truth_of
from killswitch.signals.arguments import span
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import TextSignal

FIRED_VALUE = 1.0
"""The unit value at every firing of a replay; below it is 0.9."""


class Evaluation(Struct, frozen=True):
    """What one evaluation of a witness reads. Times are microseconds since its first."""

    now: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    text: tuple[str | None, ...]
    scheduled: bool
    lost: bool
    refused: frozenset[int]
    limits: dict[int, float]


class Replayed(Struct, frozen=True):
    """The engine's result of one evaluation. `moved`: the state before a latch or a reset."""

    seen: Evaluation
    moved: StageMachineState
    state: StageMachineState
    fired: str | None
    reset: bool
    demanded: int
    """The highest level of which the triggers are confirmed; 0 for none."""


Witness = tuple[Replayed, ...]


def evaluation_of(model: Any, graph: Graph, inputs: Inputs, start: int) -> Evaluation:
    """The inputs of one evaluation in a model; `start` is the time of the first."""
    low, high, text = [], [], []
    for each, read in zip(graph.signals, inputs.signals, strict=True):
        spec, unknown = BY_NAME[each.name], truth_of(model, read.unknown)
        is_text = isinstance(spec, TextSignal)
        low.append(-inf if unknown or is_text else float_of(model, read.low))
        high.append(inf if unknown or is_text else float_of(model, read.high))
        known_text = spec.values[integer_of(model, read.text)] if isinstance(spec, TextSignal) else None
        text.append(None if unknown else known_text)
    return Evaluation(
        integer_of(model, inputs.now) - start, tuple(low), tuple(high), tuple(text),
        truth_of(model, inputs.scheduled), truth_of(model, inputs.lost),
        frozenset(i for i, each in enumerate(inputs.refused) if truth_of(model, each)),
        {i: float_of(model, each) for i, each in inputs.limits.items()},
    )  # fmt: skip


def evaluations_of(model: Any, graph: Graph, run: Sequence[Inputs]) -> tuple[Evaluation, ...]:
    """The evaluations of a run in a model."""
    start = integer_of(model, run[0].now)
    return tuple(evaluation_of(model, graph, each, start) for each in run)


def replay(graph: Graph, run: Sequence[Evaluation], at: int = 1_000_000_000_000_000) -> Witness:
    """Let the engine evaluate the run from its initial state; the first evaluation is at `at` (microseconds).

    What the solver could not lower is evaluated by the engine's own code, so that a witness never depends on it.
    """
    machine = StageMachine.of(graph, lower(graph.conditions))
    state, found = initial(), []
    for seen in run:
        now = at + seen.now
        columns = list(seen.low), list(seen.high), list(seen.text)
        stepped = step(
            replace(machine, evaluate=_with_limits(machine, seen)), state, columns, now, scheduled=seen.scheduled,
            unit_value=(FIRED_VALUE * 0.9,) * 2 if seen.lost else (FIRED_VALUE,) * 2,
        )  # fmt: skip
        state = moved = stepped.state
        stages = graph.stages
        fired = next(
            (each for each in stepped.eligible if not (can_decline(each) and stages.index(each) in seen.refused)), None
        )
        if fired is not None:
            state = latch(state, fired, now, (FIRED_VALUE,) * 2)
        elif stepped.reset:
            state = reset(state, now, automatic=True)
        demanded = max((each.level for each in stages if is_confirmed(each, moved.triggers.confirmed)), default=0)
        name = None if fired is None else fired.name
        found.append(Replayed(seen, moved, state, name, stepped.reset and fired is None, demanded))
    return tuple(found)


def unknown_evaluation(graph: Graph) -> Evaluation:
    """An evaluation at which every signal is unknown, but for those that never are."""
    low, high = [], []
    for each in graph.signals:
        spec = BY_NAME[each.name]
        known = min(max(0.0, spec.range[0]), spec.range[1])
        low.append(known if spec.unknown == "never" else -inf)
        high.append(known if spec.unknown == "never" else inf)
    return Evaluation(0, tuple(low), tuple(high), (None,) * len(low), True, False, frozenset(), {})


def _with_limits(
    machine: StageMachine, seen: Evaluation
) -> Callable[[list[float], list[float], list[str | None]], tuple[int, int]]:
    """The machine's conditions at the computed thresholds of this evaluation."""

    def evaluate(low: list[float], high: list[float], text: list[str | None]) -> tuple[int, int]:
        true, unknown = machine.evaluate(low, high, text)
        for i, limit in seen.limits.items():
            own = machine.graph.triggers[i].threshold
            if own is None:
                continue
            strict = own.op == ">"
            is_true = low[own.index] > limit if strict else low[own.index] >= limit
            may_be = high[own.index] > limit if strict else high[own.index] >= limit
            true = true & ~(1 << i) | is_true << i
            unknown = unknown & ~(1 << i) | (may_be and not is_true) << i
        return true, unknown

    return evaluate


def table_of(graph: Graph, witness: Witness) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The head and the rows of a witness as a table: one column for each evaluation, one row for each signal."""
    head = ("", *(f"after {span(each.seen.now)}" for each in witness))
    rows = [
        (signal_text(signal), *(_value_text(signal.name, each.seen, i) for each in witness))
        for i, signal in enumerate(graph.signals)
    ]
    return head, tuple(rows)


def events_of(graph: Graph, witness: Witness) -> tuple[str, ...]:
    """What each evaluation of a witness does, a line each."""
    lines = []
    for each in witness:
        confirmed = [trigger.name for i, trigger in enumerate(graph.triggers) if each.moved.triggers.confirmed >> i & 1]
        named = f"{', '.join(confirmed)} confirmed" if confirmed else "no trigger is confirmed"
        lines.append(f"after {span(each.seen.now)}: {named}; {_event_text(graph, each)}")
    return tuple(lines)


def _value_text(signal: str, seen: Evaluation, i: int) -> str:
    if seen.text[i] is not None:
        return str(seen.text[i])
    low, high = seen.low[i], seen.high[i]
    if low == -inf and high == inf:
        return "unknown"
    unit = BY_NAME[signal].unit
    return _number_text(low, unit) if low == high else f"{_number_text(low, unit)} to {_number_text(high, unit)}"


def _number_text(value: float, unit: str) -> str:
    return f"{value * 100:.6g}%" if unit == "fraction" else f"{value:.6g}"


def _event_text(graph: Graph, each: Replayed) -> str:
    parts = [f"{each.fired} fires"] if each.fired is not None else ["reset"] if each.reset else []
    refused = [graph.stages[i].name for i in sorted(each.seen.refused) if can_decline(graph.stages[i])]
    if refused and each.demanded:
        parts.append(f"{', '.join(refused)} declined")
    if each.seen.lost and each.state.level:
        parts.append("a new loss since the last firing")
    if not each.seen.scheduled:
        parts.append("on a push")
    return "; ".join(parts) or (f"level {each.state.level} in force" if each.state.level else "nothing happens")


def records_of(graph: Graph, witness: Witness) -> list[dict[str, object]]:
    """A witness as data: what each evaluation reads, and what the engine made of it."""
    return [
        {
            "after_us": each.seen.now,
            "signals": {
                signal_text(signal): each.seen.text[i]
                if each.seen.text[i] is not None
                else None
                if each.seen.low[i] == -inf and each.seen.high[i] == inf
                else [each.seen.low[i], each.seen.high[i]]
                for i, signal in enumerate(graph.signals)
            },
            "scheduled": each.seen.scheduled,
            "unit_value_below_firing": each.seen.lost,
            "declined": [graph.stages[i].name for i in sorted(each.seen.refused)],
            "fired": each.fired,
            "reset": each.reset,
            "level": each.state.level,
        }
        for each in witness
    ]
