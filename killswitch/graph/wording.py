"""Nodes of the graph in words: conditions as expressions, times with their units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

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
from killswitch.graph.unwinding import RungRule, UnwindingRule
from killswitch.model.instant import HOUR, MINUTE, SECOND

_UNITS = (("d", 24 * HOUR), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", SECOND // 1000), ("us", 1))


def span(micros: int) -> str:
    """A time as a policy would write it: `1h30m`, `90s` as `1m30s`, `0s`."""
    parts = []
    for unit, size in _UNITS:
        count, micros = divmod(micros, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def percent(share: Decimal) -> str:
    """A share as a policy would write it: `12.5%`."""
    return f"{(share * 100).normalize():f}%"


def unwinding_text(rule: UnwindingRule) -> str:
    """How a close is carried out, in words: `within 3% of the mark, 1 try; at market, 2 tries`."""
    parts = [_rung_text(number, rung, rule) for number, rung in enumerate(rule.ladder)] or ["at market"]
    if rule.impact is not None:
        slices = f"slices of at most {percent(rule.impact.at_most)} expected impact ({rule.impact.model})"
        if rule.impact.participation is not None:
            slices += f" and {percent(rule.impact.participation)} of the depth or volume"
        parts.append(slices)
    if rule.pause:
        parts.append(f"{span(rule.pause)} between slices")
    pace = rule.max_orders_per_minute
    if pace is not None:
        parts.append(f"at most {pace} orders a minute")
    elif not rule.pause:
        parts.append("as fast as the venue allows")
    return "; ".join(parts)


def _rung_text(number: int, rung: RungRule, rule: UnwindingRule) -> str:
    tries = f"{rung.tries} {'try' if rung.tries == 1 else 'tries'}"
    if rung.order == "market":
        return f"at market, {tries}"
    if not rule.slippage:
        told = "the best price of the other side"
    elif len(rule.slippage) == 1 and rule.slippage[0].symbols is None:
        limit = percent(rule.slippage[0].at_most * rung.widen)
        told = f"{limit} of the mark" if number == 0 else limit
    else:
        times = "its bound" if rung.widen == 1 else f"{rung.widen:f} × its bound"
        told = f"{times} of the mark ({', '.join(_bounds(rule))})" if number == 0 else times
    if rung.order == "limit":
        return f"resting at {told} where there are no market orders"
    return f"{'within' if rule.slippage else 'at'} {told}, {tries}"


def _bounds(rule: UnwindingRule) -> Iterator[str]:
    for each in rule.slippage:
        which = each.group or " ".join(each.symbols or ())
        yield f"{percent(each.at_most)} for {which}" if which else percent(each.at_most)


def signal_text(signal: SignalRef) -> str:
    """A signal as an expression has it: `equity.drawdown("15m")`."""
    return signal.name if signal.window is None else f'{signal.name}("{span(signal.window)}")'


def condition_text(node: ConditionNode, signals: Sequence[SignalRef]) -> str:
    """A condition as an expression, every part in parentheses but the plainest."""
    if isinstance(node, Constant):
        return str(node.value).lower()
    if isinstance(node, TextIs):
        values = ", ".join(f'"{value}"' for value in node.values)
        name = signal_text(signals[node.index])
        return f"{name} == {values}" if len(node.values) == 1 else f"{name} in [{values}]"
    if isinstance(node, Compare):
        return f"{_number(node.left, signals)} {node.op} {_number(node.right, signals)}"
    if isinstance(node, Not):
        return f"!({condition_text(node.part, signals)})"
    word = " && " if isinstance(node, AllOf) else " || "
    return word.join(_inner(part, signals) for part in node.parts)


def signals_of(node: ConditionNode) -> frozenset[int]:
    """The columns that a condition reads."""
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
