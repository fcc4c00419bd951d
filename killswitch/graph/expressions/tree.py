"""Access to a CEL syntax tree (`cel.expr.Expr`, a protobuf message): kinds and offsets of nodes."""

from __future__ import annotations

import re
from typing import Any

_WORD = r"[\w.]+|\"[^\"\n]*\"|'[^'\n]*'|\S"
_KINDS = {
    "comprehension_expr": "a comprehension",
    "list_expr": "a list",
    "struct_expr": "a map",
    "select_expr": "a field of a value",
}
_OPERATORS = {"_?_:_": "`? :`", "_%_": "`%`", "_[_]": "an index", "@in": "`in`"}


class Tree:
    """A parsed expression: its text, and the offset of the token of each node."""

    def __init__(self, text: str, positions: dict[int, int]) -> None:
        self._text = text
        self._positions = positions

    def at(self, node: Any) -> int:
        """Offset of the node's token: the operator, or the parenthesis of a call."""
        return self._positions.get(node.id, 0)

    def start(self, node: Any) -> int:
        """Offset of the start of the node's text."""
        kind = node.WhichOneof("expr_kind")
        if kind == "select_expr":
            return self.start(node.select_expr.operand)
        if kind == "call_expr":
            call = node.call_expr
            if call.HasField("target"):
                return self.start(call.target)
            if call.function in ("-_", "!_") or not call.args:
                return self.at(node)
            if call.function.startswith(("_", "@")):
                return self.start(call.args[0])
            return max(0, self.at(node) - len(call.function))
        return self.at(node)

    def width(self, node: Any) -> int:
        """Number of characters to underline from `start`: the name, or the first word."""
        name = dotted(node)
        if name is not None:
            return len(name)
        match = re.match(_WORD, self._text[self.start(node) :])
        return len(match[0]) if match else 1


def dotted(node: Any) -> str | None:
    """Dotted name of a variable or call, as `equity.drawdown`; None for other nodes."""
    kind = node.WhichOneof("expr_kind")
    if kind == "ident_expr":
        return str(node.ident_expr.name).removeprefix(".")
    if kind == "select_expr" and not node.select_expr.test_only:
        owner, last = node.select_expr.operand, node.select_expr.field
    elif kind == "call_expr" and node.call_expr.HasField("target"):
        owner, last = node.call_expr.target, node.call_expr.function
    else:
        return None
    before = None if owner.WhichOneof("expr_kind") == "call_expr" else dotted(owner)
    return None if before is None else f"{before}.{last}"


def operation(node: Any) -> tuple[str, list[Any]]:
    """Operator in CEL's spelling (`_&&_`) and operands; ("", []) for other nodes."""
    if node.WhichOneof("expr_kind") != "call_expr" or node.call_expr.HasField("target"):
        return "", []
    return str(node.call_expr.function), list(node.call_expr.args)


def is_literal(node: Any, *kinds: str) -> bool:
    """Whether the node is a literal of one of `kinds` (any kind if none is given)."""
    if node.WhichOneof("expr_kind") != "const_expr":
        return False
    return not kinds or node.const_expr.WhichOneof("constant_kind") in kinds


def construct(node: Any) -> str:
    """Name of an unsupported construct for messages."""
    kind = node.WhichOneof("expr_kind")
    if kind == "call_expr":
        function = node.call_expr.function
        return _OPERATORS.get(function, f"the function `{function}`")
    return _KINDS.get(kind, "this")
