"""Conditions as three-valued facts about intervals, exactly as the generated code of `graph.lowering` evaluates them.

A signal is two reals and whether it is unknown; infinite bounds are reals beyond every number of the policy. Arithmetic
of one signal with numbers is rounded as floats round it: the least float that reaches the threshold is found by
bisection, since each operation is monotone. Anything else (products of signals, divisions by a signal) is opaque: it
may be true, false or unknown at any time, and is named.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from msgspec import Struct

from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    Compare,
    ComparisonOp,
    ConditionNode,
    Constant,
    Graph,
    Not,
    Number,
    NumberNode,
    SignalRead,
    SignalRef,
    TextIs,
)
from killswitch.graph.wording import condition_text, signals_of
from killswitch.proof.solver import Term, all_of, any_of, real
from killswitch.signals.catalogue import BY_NAME
from killswitch.signals.declaration import TextSignal

LARGEST = sys.float_info.max


class SignalInput(Struct, frozen=True):
    """One signal at one evaluation. `text` is the index of its text among the declared ones."""

    low: Term
    high: Term
    unknown: Term
    text: Term


class Verdict(Struct, frozen=True):
    """Whether a condition is surely true, and whether it is surely false; neither is unknown."""

    true: Term
    false: Term


class FoldedSignal(Struct, frozen=True):
    """A float function of one signal: monotone, `rising` or falling."""

    index: int
    rising: bool
    of: Callable[[float], float]
    is_plain: bool = False
    """Whether it is the signal itself."""


def fold(node: NumberNode) -> FoldedSignal | None:
    """`node` as a monotone function of one signal; None if it is something else."""
    if isinstance(node, SignalRead):
        return FoldedSignal(node.index, True, lambda value: value, is_plain=True)
    if not isinstance(node, Arithmetic):
        return None
    op, is_right = node.op, isinstance(node.right, Number)
    part, number = (node.left, node.right) if is_right else (node.right, node.left)
    inner = fold(part)
    if inner is None or not isinstance(number, Number) or not isfinite(number.value) or (op == "/" and not is_right):
        return None
    c, f = number.value, inner.of
    if op in ("*", "/") and c == 0.0:
        return None
    made: dict[str, Callable[[float], float]] = {
        "+": lambda value: f(value) + c,
        "-": (lambda value: f(value) - c) if is_right else (lambda value: c - f(value)),
        "*": lambda value: f(value) * c,
        "/": lambda value: f(value) / c,
    }
    falls = not is_right if op == "-" else op in ("*", "/") and c < 0
    return FoldedSignal(inner.index, inner.rising != falls, made[op])


_MIRRORED: dict[ComparisonOp, ComparisonOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def _ordinal(value: float) -> int:
    """The position of a float among all floats."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _float_at(ordinal: int) -> float:
    bits = ordinal if ordinal >= 0 else -ordinal | -0x8000_0000_0000_0000
    value: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return value


def first_float(reaches: Callable[[float], bool], least: float, most: float) -> float | None:
    """The least float of `least`…`most` that `reaches`, which stays true once it is; None if none does."""
    if not reaches(most):
        return None
    low, high = _ordinal(least), _ordinal(most)
    while low < high:
        middle = (low + high) // 2
        if reaches(_float_at(middle)):
            high = middle
        else:
            low = middle + 1
    return _float_at(high)


class ConditionLowering:
    """Lowers the conditions of one graph at one evaluation."""

    def __init__(self, z3: Any, signals: Sequence[SignalRef]) -> None:
        self.z3 = z3
        self.signals = signals

    def verdict(self, node: ConditionNode, inputs: Sequence[SignalInput]) -> Verdict:
        """The condition over these inputs, by Kleene's logic."""
        z3 = self.z3
        if isinstance(node, Constant):
            return Verdict(z3.BoolVal(node.value), z3.BoolVal(not node.value))
        if isinstance(node, TextIs):
            return self._text(node, inputs)
        if isinstance(node, Not):
            part = self.verdict(node.part, inputs)
            return Verdict(part.false, part.true)
        if isinstance(node, Compare):
            return self._compare(node, inputs)
        parts = [self.verdict(part, inputs) for part in node.parts]
        trues, falses = [each.true for each in parts], [each.false for each in parts]
        if isinstance(node, AllOf):
            return Verdict(all_of(z3, trues), any_of(z3, falses))
        assert isinstance(node, AnyOf)
        return Verdict(any_of(z3, trues), all_of(z3, falses))

    def _text(self, node: TextIs, inputs: Sequence[SignalInput]) -> Verdict:
        z3, read = self.z3, inputs[node.index]
        spec = BY_NAME[self.signals[node.index].name]
        values = spec.values if isinstance(spec, TextSignal) else ()
        inside = any_of(z3, [read.text == values.index(value) for value in node.values if value in values])
        known = z3.Not(read.unknown)
        return Verdict(z3.And(known, inside), z3.And(known, z3.Not(inside)))

    def _compare(self, node: Compare, inputs: Sequence[SignalInput]) -> Verdict:
        left, op, right = node.left, node.op, node.right
        if isinstance(left, Number) and isinstance(right, Number):
            return self._numbers(op, left.value, right.value)
        if isinstance(left, Number):
            left, op, right = right, _MIRRORED[op], left
        if isinstance(left, SignalRead) and isinstance(right, SignalRead):
            return self._signals(op, inputs[left.index], inputs[right.index])
        folded = fold(left)
        if folded is None or not isinstance(right, Number) or not isfinite(right.value):
            return self._opaque(node, [inputs[i] for i in sorted(signals_of(node))])
        return self.threshold(node, folded, op, right.value, inputs[folded.index])

    def _numbers(self, op: ComparisonOp, left: float, right: float) -> Verdict:
        """Two numbers, which are compared once for all."""
        compared: dict[ComparisonOp, bool] = {
            "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right, "==": left == right,
            "!=": left != right,
        }  # fmt: skip
        return Verdict(self.z3.BoolVal(compared[op]), self.z3.BoolVal(not compared[op]))

    def threshold(
        self, node: Compare, folded: FoldedSignal, op: ComparisonOp, number: float, read: SignalInput
    ) -> Verdict:
        """A function of one signal against a number, at the ends of its interval."""
        z3, f = self.z3, folded.of
        least, most = BY_NAME[self.signals[folded.index].name].range
        if not folded.is_plain and not (isfinite(least) and isfinite(f(least))):
            return self._opaque(node, [read])  # an overflow at both ends would be unknown

        def reaches(strictly: bool, end: Term) -> Term:
            """f(end) >= number, or > number if `strictly`."""
            if folded.is_plain:
                return end > real(z3, number) if strictly else end >= real(z3, number)
            within = least, min(most, LARGEST)

            def met(value: float) -> bool:
                return f(value) > number if strictly else f(value) >= number

            if folded.rising:
                first = first_float(met, *within)
                return z3.BoolVal(False) if first is None else end >= real(z3, first)
            ended = first_float(lambda value: not met(value), *within)
            return z3.BoolVal(True) if ended is None else end < real(z3, ended)

        least_end, most_end = (read.low, read.high) if folded.rising else (read.high, read.low)
        truths: dict[ComparisonOp, Callable[[], tuple[Term, Term]]] = {
            ">=": lambda: (reaches(False, least_end), z3.Not(reaches(False, most_end))),
            ">": lambda: (reaches(True, least_end), z3.Not(reaches(True, most_end))),
            "<": lambda: (z3.Not(reaches(False, most_end)), reaches(False, least_end)),
            "<=": lambda: (z3.Not(reaches(True, most_end)), reaches(True, least_end)),
            "==": lambda: self._equal(reaches, least_end, most_end),
            "!=": lambda: self._equal(reaches, least_end, most_end)[::-1],
        }
        true, false = truths[op]()
        known = z3.Not(read.unknown)
        return Verdict(z3.And(known, true), z3.And(known, false))

    def _equal(self, reaches: Callable[[bool, Term], Term], least: Term, most: Term) -> tuple[Term, Term]:
        z3 = self.z3
        equal = z3.And(reaches(False, least), z3.Not(reaches(True, most)))
        return equal, z3.Or(z3.Not(reaches(False, most)), reaches(True, least))

    def _signals(self, op: ComparisonOp, left: SignalInput, right: SignalInput) -> Verdict:
        """Two signals against each other."""
        z3 = self.z3
        below, not_above = left.high < right.low, left.high <= right.low
        above, not_below = left.low > right.high, left.low >= right.high
        equal, different = z3.And(not_below, not_above), z3.Or(below, above)
        true, false = {
            "<": (below, not_below), "<=": (not_above, above), ">": (above, not_above), ">=": (not_below, below),
            "==": (equal, different), "!=": (different, equal),
        }[op]  # fmt: skip
        known = z3.And(z3.Not(left.unknown), z3.Not(right.unknown))
        return Verdict(z3.And(known, true), z3.And(known, false))

    def _opaque(self, node: Compare, reads: Sequence[SignalInput]) -> Verdict:
        """What cannot be lowered: true, false or unknown, whichever is worst; unknown if a signal in it is."""
        true, false = self.z3.FreshBool("opaque"), self.z3.FreshBool("opaque")
        known = [self.z3.Not(each.unknown) for each in reads]
        return Verdict(self.z3.And(true, self.z3.Not(false), *known), self.z3.And(false, self.z3.Not(true), *known))


def opaque_texts(graph: Graph) -> list[str]:
    """The comparisons of a graph that cannot be lowered, as text."""
    found: list[str] = []

    def visit(node: ConditionNode) -> None:
        if isinstance(node, AllOf | AnyOf):
            for part in node.parts:
                visit(part)
        elif isinstance(node, Not):
            visit(node.part)
        elif isinstance(node, Compare) and _is_opaque(node, graph.signals):
            found.append(condition_text(node, graph.signals))

    for condition in graph.conditions:
        visit(condition)
    return list(dict.fromkeys(found))


def _is_opaque(node: Compare, signals: Sequence[SignalRef]) -> bool:
    left, right = node.left, node.right
    if isinstance(left, Number) and isinstance(right, Number):
        return False
    if isinstance(left, Number):
        left, right = right, left
    if isinstance(left, SignalRead) and isinstance(right, SignalRead):
        return False
    folded = fold(left)
    if folded is None or not isinstance(right, Number) or not isfinite(right.value):
        return True
    least = BY_NAME[signals[folded.index].name].range[0]
    return not folded.is_plain and not (isfinite(least) and isfinite(folded.of(least)))
