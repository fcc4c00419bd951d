"""Interval arithmetic as generated Python statements that compute the bounds of number nodes.

The interval `(-inf, inf)` is *unknown*, and every result computed from it is unknown. `inf − inf`, `0 × inf` and a
division by an interval that contains zero are unknown. Rounding to the nearest float is monotone, so the bounds contain
every result of floats inside the operands.
"""

from __future__ import annotations

from itertools import count
from math import isfinite, isnan

from msgspec import Struct

from killswitch.graph.nodes import Arithmetic, Compare, ComparisonOp, Number, NumberNode, SignalRead

INFINITY = "1e999"  # a Python float literal that overflows to inf: a constant, where a name would be a look-up
NOWHERE = f"-{INFINITY}, {INFINITY}"


class Bounds(Struct, frozen=True):
    """Python expressions (names or literals) of the bounds of an interval."""

    low: str
    high: str
    finite: bool = False
    """Known at compile time to be a finite number, so never unknown."""


class NumberWriter:
    """Generates the statements that compute number nodes, each node once.

    `lines` are the statements in order; `reads` are the columns whose bounds they use, as locals `l3` and `h3`.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reads: set[int] = set()
        self._done: dict[NumberNode, Bounds] = {}
        self._names = count(1)

    def fresh(self) -> str:
        """A new number for unique names."""
        return str(next(self._names))

    def bounds(self, node: NumberNode) -> Bounds:
        """Bounds of `node`; generates its statements unless an earlier one computes them."""
        if isinstance(node, SignalRead):
            self.reads.add(node.index)
            return Bounds(f"l{node.index}", f"h{node.index}")
        if isinstance(node, Number):
            return _literal(node.value)
        if node not in self._done:
            self._done[node] = self._arithmetic(node)
        return self._done[node]

    def _arithmetic(self, node: Arithmetic) -> Bounds:
        left, right = self.bounds(node.left), self.bounds(node.right)
        name = self.fresh()
        result = Bounds(f"x{name}", f"y{name}")
        if node.op == "+":
            self._ends(result, f"{left.low} + {right.low}", f"{left.high} + {right.high}")
        elif node.op == "-":
            self._ends(result, f"{left.low} - {right.high}", f"{left.high} - {right.low}")
        elif node.op == "*":
            self._corners(result, left, right, "*", name, indent="")
        else:
            self.lines.append(f"if {right.low} <= 0.0 <= {right.high}: {_set(result, NOWHERE)}")
            self.lines.append("else:")
            self._corners(result, left, right, "/", name, indent=" ")
        return result

    def _ends(self, result: Bounds, low: str, high: str) -> None:
        x, y = result.low, result.high
        self.lines.append(f"{x} = {low}; {y} = {high}")
        self.lines.append(f"if {x} != {x} or {y} != {y}: {_set(result, NOWHERE)}")

    def _corners(self, result: Bounds, left: Bounds, right: Bounds, op: str, name: str, indent: str) -> None:
        """Bounds of a product or quotient, which lie at the corners because both are monotone in each operand."""
        x, y = result.low, result.high
        corners = [f"{a} {op} {b}" for a in (left.low, left.high) for b in (right.low, right.high)]
        written = list(dict.fromkeys(corners))
        names = [f"p{name}_{i}" for i in range(len(written))]
        put = self.lines.append
        put(indent + "; ".join(f"{p} = {corner}" for p, corner in zip(names, written, strict=True)))
        put(f"{indent}if {' or '.join(f'{p} != {p}' for p in names)}: {_set(result, NOWHERE)}")
        put(f"{indent}else:")
        put(f"{indent} {x} = {y} = {names[0]}")
        for p in names[1:]:
            put(f"{indent} if {p} < {x}: {x} = {p}")
            put(f"{indent} elif {p} > {y}: {y} = {p}")

    def verdict(self, node: Compare) -> tuple[str, str]:
        """Two Python conditions: the comparison is surely true, and it is surely false."""
        left, right = self.bounds(node.left), self.bounds(node.right)
        true, false = _agreement(node.op, left, right)
        if left.finite or right.finite:
            return true, false  # a comparison of an unknown with a finite number is never sure
        known = f"k{self.fresh()}"
        self.lines.append(f"{known} = {_is_known(left)} and {_is_known(right)}")
        return f"({known} and {true})", f"({known} and {false})"


def _agreement(op: ComparisonOp, left: Bounds, right: Bounds) -> tuple[str, str]:
    below, not_above = f"{left.high} < {right.low}", f"{left.high} <= {right.low}"
    above, not_below = f"{left.low} > {right.high}", f"{left.low} >= {right.high}"
    equal, different = f"({not_below} and {not_above})", f"({below} or {above})"
    return {
        "<": (below, not_below),
        "<=": (not_above, above),
        ">": (above, not_above),
        ">=": (not_below, below),
        "==": (equal, different),
        "!=": (different, equal),
    }[op]


def _is_known(bounds: Bounds) -> str:
    return f"({bounds.low} > -{INFINITY} or {bounds.high} < {INFINITY})"


def _set(result: Bounds, values: str) -> str:
    return f"{result.low}, {result.high} = {values}"


def _literal(value: float) -> Bounds:
    if isfinite(value):
        text = repr(value) if value >= 0 else f"({value!r})"
        return Bounds(text, text, finite=True)
    if isnan(value):
        return Bounds(f"-{INFINITY}", INFINITY)
    text = INFINITY if value > 0 else f"(-{INFINITY})"
    return Bounds(text, text)
