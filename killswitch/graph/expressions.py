"""The expression form: CEL text → the same condition nodes that the threshold form makes.

CEL parses and checks types. What a name means, which constructs mean something over intervals, and how a mistake is
told, is ours (`reading`). Whole numbers are read as decimals (`equity.value > 10`), which CEL by itself refuses.
"""

from __future__ import annotations

import re
from typing import Any

from killswitch.graph.cel import CelError, parse, result_type
from killswitch.graph.nodes import ConditionNode
from killswitch.graph.problems import Problem
from killswitch.graph.reading import ColumnOf, Reader
from killswitch.graph.tree import Tree, children, is_literal
from killswitch.signals.catalogue import Level

LONGEST = 10_000
"""Characters of an expression; CEL itself refuses nesting deeper than 32."""

_WHOLE = re.compile(r"-?\s*(?:0[xX][0-9a-fA-F]+|[0-9]+)")
_COMMENTS = re.compile(r"""(//[^\n]*)|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")
_SPLIT = "split it into several triggers"
_TYPES = "a condition compares numbers with numbers and texts with texts"


def condition(text: str, level: Level, column: ColumnOf) -> tuple[ConditionNode | None, tuple[Problem, ...]]:
    """The condition that `text` means, or None with every problem found in it.

    `level` says which signals it may read: a scope's, or (in `close.all_if`) one position's.
    """
    if len(text) > LONGEST:
        return None, (Problem("KS4006", f"the expression is longer than {LONGEST} characters", _SPLIT),)
    try:
        parsed = parse(text)
    except CelError as refusal:
        from killswitch.graph.syntax import syntax_problem

        return None, (syntax_problem(refusal.mistakes[0], text),)
    reader = Reader(Tree(text, parsed.positions), level, column)
    node = reader.read(parsed.tree)
    if reader.problems or node is None:
        return None, tuple(reader.problems)
    problems = _type_problems(text, _whole_numbers(parsed.tree, parsed.positions, text))
    return (None, problems) if problems else (node, ())


def comments(text: str) -> list[tuple[int, int]]:
    """Start and end of every comment in an expression; `//` inside a text is none."""
    return [found.span(1) for found in _COMMENTS.finditer(text) if found[1] is not None]


def _type_problems(text: str, widened: list[tuple[int, int, str]]) -> tuple[Problem, ...]:
    """What CEL's type checker has against `text`, its whole numbers replaced by decimals.

    The reader refuses with better words whatever does not fit; this is the second opinion, for what it overlooks.
    """
    written = text
    for start, end, decimal in sorted(widened, reverse=True):
        written = written[:start] + decimal + written[end:]
    try:
        kind = result_type(written)
    except CelError as refusal:
        return tuple(Problem("KS4002", mistake.text, _TYPES, 0, len(text)) for mistake in refusal.mistakes)
    return () if kind == "BOOL" else (Problem("KS4003", f"this is a {kind}", _TYPES, 0, len(text)),)


def _whole_numbers(root: Any, positions: dict[int, int], text: str) -> list[tuple[int, int, str]]:
    """(start, end, decimal) of every whole number written in the text."""
    found = []
    pending = [root]
    while pending:
        node = pending.pop()
        pending += children(node)
        if is_literal(node, "int64_value"):
            match = _WHOLE.match(text, positions.get(node.id, 0))
            if match is not None:
                found.append((match.start(), match.end(), f"{node.const_expr.int64_value}.0"))
    return found
