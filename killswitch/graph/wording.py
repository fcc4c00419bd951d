"""Texts of graph nodes: conditions as expressions, times with their units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache

from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    Compare,
    ConditionNode,
    Constant,
    Not,
    Number,
    NumberNode,
    SignalRead,
    SignalRef,
    TextIs,
)
from killswitch.signals.arguments import call_text
from killswitch.signals.arguments import span as span
from killswitch.signals.catalogue import BY_NAME


def percent(share: Decimal) -> str:
    """Format a fraction as in policies: `12.5%`."""
    return f"{(share * 100).normalize():f}%"


def signal_text(signal: SignalRef) -> str:
    """Format a signal as in expressions: `equity.drawdown("15m")`."""
    return call_text(signal.name, BY_NAME[signal.name].arguments, signal.arguments)


def condition_text(node: ConditionNode, signals: Sequence[SignalRef]) -> str:
    """Format a condition as an expression, with compound parts in parentheses."""
    if isinstance(node, Constant):
        return str(node.value).lower()
    if isinstance(node, TextIs):
        values = ", ".join(f'"{value}"' for value in node.values)
        name = signal_text(signals[node.index])
        return f"{name} == {values}" if len(node.values) == 1 else f"{name} in [{values}]"
    if isinstance(node, Compare):
        if isinstance(node.left, SignalRead) and BY_NAME[signals[node.left.index].name].type == "bool":
            return ("" if node.op == ">=" else "!") + signal_text(signals[node.left.index])
        return f"{_number(node.left, signals)} {node.op} {_number(node.right, signals)}"
    if isinstance(node, Not):
        return f"!({condition_text(node.part, signals)})"
    operator = " && " if isinstance(node, AllOf) else " || "
    return operator.join(_inner(part, signals) for part in node.parts)


@lru_cache(maxsize=4096)
def signals_of(node: ConditionNode) -> frozenset[int]:
    """Indexes of the columns that a condition reads."""
    return frozenset(_columns(node))


def _columns(node: ConditionNode | NumberNode) -> Iterator[int]:
    if isinstance(node, SignalRead | TextIs):
        yield node.index
    elif isinstance(node, Compare | Arithmetic):
        yield from _columns(node.left)
        yield from _columns(node.right)
    elif isinstance(node, Not):
        yield from _columns(node.part)
    elif isinstance(node, AllOf | AnyOf):
        for part in node.parts:
            yield from _columns(part)


def _inner(node: ConditionNode, signals: Sequence[SignalRef]) -> str:
    text = condition_text(node, signals)
    return f"({text})" if isinstance(node, AllOf | AnyOf) else text


def _number(node: NumberNode, signals: Sequence[SignalRef]) -> str:
    if isinstance(node, SignalRead):
        return signal_text(signals[node.index])
    if isinstance(node, Number):
        return f"{node.value:.12g}"
    sides = (_number(side, signals) for side in (node.left, node.right))
    return "(" + f" {node.op} ".join(sides) + ")"
