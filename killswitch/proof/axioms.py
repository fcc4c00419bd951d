"""Inputs of one evaluation, and what their signals' declarations let a proof assume of them.

Assumed: the declared range, that counts are whole numbers, that a signal which is never unknown, or never partly
known, is not, and the declared `Axioms`. Nothing connects two evaluations but the time, which grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from msgspec import Struct

from killswitch.graph.nodes import Graph, SignalRef
from killswitch.graph.wording import signal_text
from killswitch.proof.conditions import SignalInput
from killswitch.proof.solver import Term, real
from killswitch.signals.arguments import Value
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import Axioms, TextSignal


class Inputs(Struct, frozen=True):
    """Everything that one evaluation reads, as terms.

    `now` and the times derived from it are whole microseconds. `limits`: trigger → its computed threshold. `lost`: the
    unit value is surely below that of the last firing. `refused`: by stage, planning declines. `by_hand`: the automatic
    resets of a firing stage that limits them are used up.
    """

    signals: tuple[SignalInput, ...]
    now: Term
    scheduled: Term
    lost: Term
    refused: tuple[Term, ...]
    by_hand: Term
    limits: dict[int, Term]


def new_inputs(z3: Any, graph: Graph, name: str) -> Inputs:
    """Free inputs of an evaluation; `name` makes their names unique."""
    signals = tuple(
        SignalInput(
            z3.Real(f"{name}_low{i}"), z3.Real(f"{name}_high{i}"), z3.Bool(f"{name}_unknown{i}"),
            z3.Int(f"{name}_text{i}") if isinstance(BY_NAME[each.name], TextSignal) else z3.IntVal(0),
        )
        for i, each in enumerate(graph.signals)
    )  # fmt: skip
    limits = {
        i: z3.Real(f"{name}_limit{i}")
        for i, each in enumerate(graph.triggers)
        if each.threshold is not None and each.threshold.adaptive is not None
    }
    return Inputs(
        signals, z3.Int(f"{name}_now"), z3.Bool(f"{name}_scheduled"), z3.Bool(f"{name}_lost"),
        tuple(z3.Bool(f"{name}_refused{i}") for i in range(len(graph.stages))), z3.Bool(f"{name}_by_hand"), limits,
    )  # fmt: skip


def is_never_unknown(name: str) -> bool:
    """Whether the declaration of a signal excludes that it is unknown."""
    return BY_NAME[name].unknown == "never"


def assumptions(z3: Any, graph: Graph, inputs: Inputs) -> list[Term]:
    """What may be assumed of these inputs."""
    facts = [fact for i, each in enumerate(graph.signals) for fact in _of_signal(z3, each, inputs.signals[i])]
    for lesser, greater in related(graph.signals):
        facts += _at_most(z3, graph.signals, inputs, lesser, greater)
    for i, limit in inputs.limits.items():
        threshold = graph.triggers[i].threshold
        if threshold is not None and threshold.adaptive is not None:
            facts += [limit >= real(z3, threshold.adaptive.floor), limit <= real(z3, threshold.adaptive.cap)]
    return facts


def _of_signal(z3: Any, signal: SignalRef, read: SignalInput) -> Iterator[Term]:
    spec = BY_NAME[signal.name]
    if is_never_unknown(signal.name):
        yield z3.Not(read.unknown)
    if isinstance(spec, TextSignal):
        yield from (read.text >= 0, read.text < len(spec.values))
        return
    yield read.low <= read.high
    least, most = spec.range
    known = z3.Not(read.unknown)
    if spec.partly_known == "never":
        yield z3.Implies(known, read.low == read.high)
    if spec.unit == "count":
        yield z3.Implies(known, z3.And(z3.IsInt(read.low), z3.IsInt(read.high)))
    if spec.type == "bool":
        yield z3.And(read.low == read.high, z3.Or(read.low == 0, read.low == 1))
        return
    if isfinite(least):
        yield z3.Implies(known, read.low >= real(z3, least))
    if isfinite(most):
        yield z3.Implies(known, read.high <= real(z3, most))


def related(signals: Sequence[SignalRef]) -> list[tuple[int, int]]:
    """Pairs of columns of which the declarations state that the first never exceeds the second, at either end."""
    found = []
    for i, one in enumerate(signals):
        for j, other in enumerate(signals):
            if i != j and _is_at_most(one, other):
                found.append((i, j))
    return found


def _is_at_most(one: SignalRef, other: SignalRef) -> bool:
    spec = BY_NAME[one.name]
    keys = [each.key for each in spec.arguments]
    if one.name == other.name:  # one argument after the other moves, each to where the signal is no smaller
        moved = [(key, a, b) for key, a, b in zip(keys, one.arguments, other.arguments, strict=True) if a != b]
        return bool(moved) and all(_grows(spec.axioms, *each) for each in moved)
    if other.name not in spec.axioms.at_most:
        return False
    given = dict(zip(keys, one.arguments, strict=True))
    theirs = zip((each.key for each in BY_NAME[other.name].arguments), other.arguments, strict=True)
    return all(given.get(key, value) == value for key, value in theirs)


def _grows(axioms: Axioms, key: str, one: Value, other: Value) -> bool:
    """Whether the signal is declared to be no smaller with the second value of the argument."""
    if isinstance(one, str) and isinstance(other, str):
        return other in _wider(axioms, key, one)
    if not isinstance(one, int | float | Decimal) or not isinstance(other, int | float | Decimal):
        return False
    return (key in axioms.grows_with and one < other) or (key in axioms.falls_with and one > other)


def _wider(axioms: Axioms, key: str, word: str) -> set[str]:
    """The words that include this one, by one step or several."""
    found: set[str] = set()
    new = {word}
    while new:
        new = {wide for name, narrow, wide in axioms.within if name == key and narrow in new} - found
        found |= new
    return found


def _at_most(z3: Any, signals: Sequence[SignalRef], inputs: Inputs, lesser: int, greater: int) -> Iterator[Term]:
    """Both ends of one signal are at most those of another; the ends of an unknown one are infinite."""
    one, other = inputs.signals[lesser], inputs.signals[greater]
    known = z3.And(z3.Not(one.unknown), z3.Not(other.unknown))
    yield z3.Implies(known, z3.And(one.low <= other.low, one.high <= other.high))
    if isfinite(BY_NAME[signals[lesser].name].range[0]):
        yield z3.Implies(other.unknown, one.unknown)
    if isfinite(BY_NAME[signals[greater].name].range[1]):
        yield z3.Implies(one.unknown, other.unknown)


def assumed(graph: Graph) -> tuple[str, ...]:
    """What the proofs of this graph assume of its signals, in words."""
    found = []
    for each in graph.signals:
        spec = BY_NAME[each.name]
        least, most = spec.range
        if isinstance(spec, TextSignal):
            found.append(f"{signal_text(each)} is one of {', '.join(spec.values)}")
        elif isfinite(least) or isfinite(most):
            bounds = [f"at least {least:g}"] if isfinite(least) else []
            bounds += [f"at most {most:g}"] if isfinite(most) else []
            found.append(f"{signal_text(each)} is {' and '.join(bounds)} where it is known")
        if spec.unit == "count":
            found.append(f"{signal_text(each)} is a whole number where it is known")
        if spec.partly_known == "never" and not isinstance(spec, TextSignal):
            found.append(f"{signal_text(each)} is never partly known")
        if is_never_unknown(each.name):
            found.append(f"{signal_text(each)} is never unknown")
    found += [
        f"{signal_text(graph.signals[i])} never exceeds {signal_text(graph.signals[j])}"
        for i, j in related(graph.signals)
    ]
    for trigger in graph.triggers:
        if trigger.threshold is not None and trigger.threshold.adaptive is not None:
            rule = trigger.threshold.adaptive
            found.append(f"the computed threshold of {trigger.name} is anywhere from {rule.floor:g} to {rule.cap:g}")
    return tuple(found)
