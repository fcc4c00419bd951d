"""Converts CEL syntax trees to conditions and checks names, windows, types and units, reporting all problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any, Literal, NoReturn

from msgspec import Struct

from killswitch.graph.expressions.arguments import Declarations, InvalidCall, arguments_of_call
from killswitch.graph.expressions.tree import Tree, construct, dotted, is_literal, operation
from killswitch.graph.nodes import (
    AllOf,
    AnyOf,
    Arithmetic,
    ArithmeticOp,
    Compare,
    ComparisonOp,
    ConditionNode,
    Constant,
    Not,
    Number,
    NumberNode,
    SignalRead,
    SignalRef,
    TextIs,
    is_true,
)
from killswitch.graph.problems import Problem, signal_names, signal_problem, suggestion
from killswitch.model.instant import SECOND
from killswitch.policy.diagnostics.unsupported import nearest_of
from killswitch.policy.schema.part import MistakeError
from killswitch.policy.schema.scalars import duration
from killswitch.signals.arguments import example_text
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.declaration import BoolSignal, Level, SignalSpec, SignalType, TextSignal, Unit

ColumnOf = Callable[[SignalRef], int]
"""Signal → its column; equal signals have the same column."""

_COMPARISONS: dict[str, ComparisonOp] = {
    "_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">=", "_==_": "==", "_!=_": "!=",
}  # fmt: skip
_ARITHMETIC: dict[str, ArithmeticOp] = {"_+_": "+", "_-_": "-", "_*_": "*", "_/_": "/"}
_CONDITIONS = {*_COMPARISONS, "_&&_", "_||_", "!_", "@in"}
_MEANINGFUL = (
    "use signals, numbers, texts, `&&`, `||`, `!`, comparisons, `+ - * /` and `in`; for `a implies b` write `!(a) || b`"
)


_A_TEXT = next(spec for spec in CATALOGUE if isinstance(spec, TextSignal))
"""Text signal for examples in messages."""


class _RefusedError(Exception):
    """A part of the tree is invalid; the problem is already reported."""


class _Value(Struct, frozen=True):
    """A number node and its dimension."""

    node: NumberNode
    dimension: Dimension | None


class ConditionReader:
    """Converts one tree. `problems` collects its problems; conversion continues after a problem if possible."""

    def __init__(
        self, tree: Tree, level: Level, column: ColumnOf, declared: Declarations, others: Sequence[str] = ()
    ) -> None:
        """`others`: names of plain numbers that a condition may read beside signals."""
        self.problems: list[Problem] = []
        self._tree = tree
        self._level = level
        self._column = column
        self._declared = declared
        self._others = others

    def read(self, node: Any) -> ConditionNode | None:
        """Convert `node` to a condition; None if it has problems."""
        try:
            return self._condition(node)
        except _RefusedError:
            return None

    def _condition(self, node: Any) -> ConditionNode:
        if is_literal(node, "bool_value"):
            return Constant(node.const_expr.bool_value)
        function, operands = operation(node)
        if function in ("_&&_", "_||_"):
            return self._junction(AllOf if function == "_&&_" else AnyOf, operands)
        if function == "!_":
            return Not(self._condition(operands[0]))
        if function in _COMPARISONS:
            return self._comparison(node, _COMPARISONS[function], operands[0], operands[1])
        if function == "@in":
            return self._membership(node, operands[0], operands[1])
        spec = BY_NAME.get(dotted(node) or "")
        if isinstance(spec, BoolSignal) and self._level == "scope":
            return is_true(self._signal(node, "bool")[1])
        if function in _ARITHMETIC or function == "-_" or dotted(node) is not None or is_literal(node):
            message, fix = "this is a value, where a condition is needed", "compare it: `… >= 0.05`"
            self._refuse("KS4003", message, fix, self._tree.start(node), self._tree.width(node))
        raise self._unsupported(node)

    def _junction(self, kind: type[AllOf | AnyOf], operands: list[Any]) -> ConditionNode:
        """Convert `a && b && c` to one node, however CEL nests it."""
        read = [self.read(operand) for operand in operands]
        parts: list[ConditionNode] = []
        for part in read:
            if part is None:
                raise _RefusedError
            parts += part.parts if isinstance(part, kind) else (part,)
        return kind(tuple(parts))

    def _comparison(self, node: Any, op: ComparisonOp, left: Any, right: Any) -> ConditionNode:
        if self._is_text(left) or self._is_text(right):
            return self._text_comparison(node, op, left, right)
        first, second = self._both(left, right)
        self._same_unit(node, op, first, second)
        return Compare(op, first.node, second.node)

    def _text_comparison(self, node: Any, op: ComparisonOp, left: Any, right: Any) -> ConditionNode:
        signal, literal = (right, left) if is_literal(left) else (left, right)
        if op not in ("==", "!=") or dotted(signal) is None or not is_literal(literal, "string_value"):
            fix = f"a text signal is compared with a text: `{text_condition(_A_TEXT)}`"
            self._refuse("KS4002", f"`{op}` cannot compare these", fix, self._tree.at(node), len(op))
        found = self._text_is(signal, [literal])
        return found if op == "==" else Not(found)

    def _membership(self, node: Any, left: Any, right: Any) -> ConditionNode:
        elements = list(right.list_expr.elements)
        if dotted(left) is None or not elements or not all(is_literal(each, "string_value") for each in elements):
            some = f'{spelled(_A_TEXT)} in ["{_A_TEXT.values[0]}", "{_A_TEXT.values[-1]}"]'
            fix = f"write `{some}`; for numbers `x == 1.0 || x == 2.0`"
            self._refuse("KS4004", "`in` is for a text signal and a list of texts", fix, self._tree.at(node), 2)
        return self._text_is(left, elements)

    def _text_is(self, signal: Any, literals: list[Any]) -> TextIs:
        spec, index = self._signal(signal, "text")
        assert isinstance(spec, TextSignal)  # no other signal is a text
        texts = {literal.const_expr.string_value: literal for literal in literals}
        for text, literal in texts.items():
            if text not in spec.values:
                fix = "its values are " + ", ".join(spec.values)
                if text == "UNKNOWN":
                    fix = "unknown is no value: what a trigger makes of it is its `on_unknown`; " + fix
                self._note("KS4008", f"`{spec.name}` is never {text!r}", fix, self._tree.at(literal), len(text) + 2)
        return TextIs(index, tuple(sorted(texts)))

    def _both(self, left: Any, right: Any) -> tuple[_Value, _Value]:
        """Convert both operands, so that a mistake in the first does not hide one in the second."""
        values: list[_Value] = []
        for operand in (left, right):
            try:
                values.append(self._number(operand))
            except _RefusedError:
                continue  # its problem is reported; the other operand may have one too
        if len(values) < 2:
            raise _RefusedError
        return values[0], values[1]

    def _number(self, node: Any) -> _Value:
        if is_literal(node):
            return _Value(Number(self._literal(node)), None)
        if dotted(node) in self._others and node.WhichOneof("expr_kind") != "call_expr":
            return _Value(SignalRead(self._column(SignalRef(dotted(node) or "", ()))), _PLAIN)
        if dotted(node) is not None:
            spec, index = self._signal(node, "number")
            return _Value(SignalRead(index), _DIMENSIONS.get(spec.unit, _PLAIN))
        function, operands = operation(node)
        if function == "-_":
            value = self._number(operands[0])
            return _Value(Arithmetic("*", Number(-1.0), value.node), value.dimension)
        if function in _ARITHMETIC:
            return self._arithmetic(node, _ARITHMETIC[function], operands)
        if function in _CONDITIONS:
            message = "this is a condition, where a number is needed"
            fix = "combine conditions with `&&`, `||` and `!`"
            self._refuse("KS4002", message, fix, self._tree.at(node), len(function.strip("_@")))
        raise self._unsupported(node)

    def _arithmetic(self, node: Any, op: ArithmeticOp, operands: list[Any]) -> _Value:
        left, right = self._both(operands[0], operands[1])
        made = Arithmetic(op, left.node, right.node)
        if op == "*":
            return _Value(made, product(left.dimension, right.dimension))
        if op == "/":
            if right.node == Number(0.0):
                self._note("KS4009", "this divides by zero", "its result is always unknown", self._tree.at(node))
            return _Value(made, quotient(left.dimension, right.dimension))
        self._same_unit(node, op, left, right)
        return _Value(made, left.dimension or right.dimension)

    def _literal(self, node: Any) -> float:
        kind = node.const_expr.WhichOneof("constant_kind")
        start, width = self._tree.at(node), self._tree.width(node)
        if kind not in ("double_value", "int64_value"):
            self._refuse("KS4002", "a number is needed here", "write one, such as 0.05", start, width)
        value = float(getattr(node.const_expr, kind))
        if not isfinite(value):
            self._refuse("KS4009", "this number is too large", "nothing can reach it", start, width)
        return value

    def _signal(self, node: Any, wanted: SignalType) -> tuple[SignalSpec, int]:
        """Declaration and column of a signal, after checking its name, type and arguments."""
        name = dotted(node) or ""
        start = self._tree.start(node)
        problem = signal_problem(name, self._level)
        if problem is not None:
            code, message, fix = problem
            near = suggestion(name, self._others) if self._others else ""
            self._refuse(code, message, near or fix, start, len(name))
        spec = BY_NAME[name]
        if spec.type != wanted:
            fix = "compare it with a number"
            if isinstance(spec, TextSignal):
                fix = f'compare it with a text: `== "{spec.values[0]}"`'
            elif isinstance(spec, BoolSignal):
                fix = f"it is true or false: write `{spelled(spec)}` or `!{spelled(spec)}`"
            kind = "condition" if spec.type == "bool" else spec.type
            self._refuse("KS4002", f"`{name}` is a {kind}", fix, start, len(name))
        nodes = list(node.call_expr.args) if node.WhichOneof("expr_kind") == "call_expr" else None
        values = arguments_of_call(spec, nodes, self._declared)
        if isinstance(values, InvalidCall):
            shown = node if values.index is None or nodes is None else nodes[values.index]
            code, message, fix = values.problem.code, values.problem.message, values.problem.fix
            self._refuse(code, message, fix, self._tree.start(shown), self._tree.width(shown))
        return spec, self._column(SignalRef(name, values))

    def _is_text(self, node: Any) -> bool:
        spec = BY_NAME.get(dotted(node) or "")
        return is_literal(node, "string_value") or (spec is not None and spec.type == "text")

    def _same_unit(self, node: Any, op: str, left: _Value, right: _Value) -> None:
        if not same(left.dimension, right.dimension):
            message = f"`{op}` mixes {left.dimension} and {right.dimension}"
            fix = "bring both sides to one unit; a part of something is written as a quotient, `a / b`"
            self._note("KS4007", message, fix, self._tree.at(node), len(op))

    def _unsupported(self, node: Any) -> _RefusedError:
        """Report the problem; the caller raises the returned error."""
        start, width = self._tree.start(node), self._tree.width(node)
        function, operands = operation(node)
        if function in ("duration", "timestamp"):
            self._note("KS4004", f"`{function}` is not needed: times are numbers", _seconds_of(operands), start, width)
            return _RefusedError()
        near = nearest_of(function, "signal")
        if not near and function.isidentifier():
            near = suggestion(function, signal_names(self._level))
        if near:
            self._note("KS3001", f"there is no signal `{function}`", near, start, width)
        else:
            self._note("KS4004", f"{construct(node)} has no meaning here", _MEANINGFUL, start, width)
        return _RefusedError()

    def _refuse(self, code: str, message: str, fix: str, start: int, length: int = 1) -> NoReturn:
        self._note(code, message, fix, start, length)
        raise _RefusedError

    def _note(self, code: str, message: str, fix: str, start: int, length: int = 1) -> None:
        self.problems.append(Problem(code, message, fix, start, max(1, length)))


def _seconds_of(operands: list[Any]) -> str:
    """How a CEL duration is written as a number; with an example where it cannot be read."""
    example = "10.0"
    if len(operands) == 1 and is_literal(operands[0], "string_value"):
        with suppress(MistakeError):
            example = f"{duration(operands[0].const_expr.string_value) / SECOND}"
    return f"write the number of seconds, `{example}`; of milliseconds for a signal in ms"


Dimension = Literal["a plain number", "money", "seconds", "milliseconds", "a compound of units"]
"""Dimension of a value. A literal number has none and adopts that of the other operand."""

_DIMENSIONS: dict[Unit, Dimension] = {"money": "money", "seconds": "seconds", "milliseconds": "milliseconds"}
"""Unit → dimension; all other units (fractions, ratios, counts and scores) are plain numbers."""
_PLAIN: Dimension = "a plain number"
_COMPOUND: Dimension = "a compound of units"


def same(left: Dimension | None, right: Dimension | None) -> bool:
    """Whether two dimensions may be added or compared."""
    return left is None or right is None or left == right or _COMPOUND in (left, right)


def product(left: Dimension | None, right: Dimension | None) -> Dimension | None:
    """Dimension of `left × right`."""
    factors = {dimension for dimension in (left, right) if dimension is not None}
    if len(factors - {_PLAIN}) == 0:
        return _PLAIN if factors else None
    if left in (None, _PLAIN) or right in (None, _PLAIN):
        return (factors - {_PLAIN}).pop()
    return _COMPOUND


def quotient(left: Dimension | None, right: Dimension | None) -> Dimension | None:
    """Dimension of `left ÷ right`."""
    if right is None or right == _PLAIN:
        return left if left is not None else right
    if left == right and left != _COMPOUND:
        return _PLAIN
    return _COMPOUND


def spelled(spec: SignalSpec) -> str:
    """Example of the signal in an expression."""
    return example_text(spec.name, spec.arguments)


def text_condition(spec: TextSignal) -> str:
    """Example of a condition on the signal."""
    return f'{spelled(spec)} == "{spec.values[0]}"'
