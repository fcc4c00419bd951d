"""Expressions: compiles CEL text to condition nodes, or to problems with suggestions.

CEL only parses. `conditions` defines names, the constructs and types that are valid over intervals, and the messages.
Whole numbers are read as decimals (`equity.value > 10`), which CEL itself rejects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from killswitch.graph.expressions.arguments import NO_DECLARATIONS, Declarations
from killswitch.graph.expressions.cel import CelError, Mistake, parse
from killswitch.graph.expressions.conditions import ColumnOf, ConditionReader
from killswitch.graph.expressions.tree import Tree
from killswitch.graph.nodes import ConditionNode
from killswitch.graph.problems import Problem
from killswitch.signals.declaration import Level

LONGEST = 10_000
"""Maximum number of characters of an expression; CEL itself rejects nesting deeper than 32."""

_COMMENTS = re.compile(r"""(//[^\n]*)|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")
_SPLIT = "split it into several triggers"


def condition(
    text: str, level: Level, column: ColumnOf, declared: Declarations = NO_DECLARATIONS, others: Sequence[str] = ()
) -> tuple[ConditionNode | None, tuple[Problem, ...]]:
    """Compile `text` to a condition, or None with all problems.

    `level`: the level of the signals that it may read, a scope or (in `close.all_if`) a position. `declared`: what
    their arguments may name. `others`: names of plain numbers that it may read beside signals.
    """
    if len(text) > LONGEST:
        return None, (Problem("KS4006", f"the expression is longer than {LONGEST} characters", _SPLIT),)
    try:
        parsed = parse(text)
    except CelError as refusal:
        return None, (syntax_problem(refusal.mistakes[0], text),)
    reader = ConditionReader(Tree(text, parsed.positions), level, column, declared, others)
    node = reader.read(parsed.tree)
    if reader.problems or node is None:
        return None, tuple(reader.problems)
    return node, ()


def comments(text: str) -> list[tuple[int, int]]:
    """Start and end of every comment in an expression; `//` inside a text is no comment."""
    return [found.span(1) for found in _COMMENTS.finditer(text) if found[1] is not None]


_HABITS = (
    (re.compile(r"\s*=(?!=)"), "equality is written `==`"),
    (re.compile(r"\s*and\b"), "`and` is written `&&`"),
    (re.compile(r"\s*or\b"), "`or` is written `||`"),
    (re.compile(r"\s*not\b"), "`not` is written `!`"),
    (re.compile(r"\s*implies\b"), "`a implies b` is written `!(a) || b`"),
    (re.compile(r"\s*[≥≤≠]"), "comparisons are written `>=`, `<=` and `!=`"),
    (re.compile(r"\s*#"), "a comment begins with `//`"),
)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\s*(?=$|[)&|])")
_BARE_WINDOW = re.compile(r"(?<=\()\s*((?:\d+(?:\.\d+)?(?:ms|[smhd]))+)\s*(?=\))")


_BARE_TIME = re.compile(r"""(?<![\w."'(])(\d+(?:\.\d+)?)(?:ms|[smhd])\b(?!["'])""")
_REFUSED = re.compile(r"(?:input|error at:) '([^']+)'")
_MISSING = re.compile(r"missing '([^']+)' at")
"""What the parser refuses and what it misses, in its own messages."""


def syntax_problem(mistake: Mistake, text: str) -> Problem:
    """The problem of a CEL `mistake` in `text`, with a fix for habits of other languages."""
    if "recursion" in mistake.text or "nested" in mistake.text:
        return Problem("KS4006", "the expression is nested too deeply", f"at most 32 levels: {_SPLIT}")
    value = _value_of_a_policy(text)
    if value is not None:
        return value
    offset = min(mistake.offset or 0, len(text))
    message = mistake.text.removeprefix("Syntax error: ")
    refused = _REFUSED.search(message)
    cannot = "CEL cannot read this" if refused is None else f"CEL cannot read `{refused[1].strip()}` here"
    for habit, fix in _HABITS:
        match = habit.match(text, offset)
        if match is not None:
            start = offset + len(match[0]) - len(match[0].lstrip())
            return Problem("KS4001", cannot, fix, start, len(match[0].lstrip()))
    if "'<EOF>'" in message and "mismatched input '<EOF>'" in message:
        return Problem("KS4001", "the expression ends too early", "something is missing here", max(0, len(text) - 1))
    if message == "invalid int literal":
        return Problem("KS4009", "this whole number is too large", "write it as a decimal, `1e19`", offset)
    fix = "the language is CEL; `ksctl explain KS4001`"
    if (missing := _MISSING.search(message)) is not None:
        cannot, fix = f"a `{missing[1]}` is missing", "add it here or before"
    return Problem("KS4001", cannot, fix, offset)


def _value_of_a_policy(text: str) -> Problem | None:
    """The problem of a percentage or a window that is written as elsewhere in a policy, or None."""
    percent = _PERCENT.search(text)
    if percent is not None:
        fix = f"an expression has no percent: write {float(percent[1]) / 100:.10g}"
        return Problem("KS4001", "CEL cannot read `%` here", fix, percent.start(), len(percent[0].rstrip()))
    time = _BARE_TIME.search(text)
    if time is not None and text[: time.start()].count('"') % 2 == 0:
        fix = "write it as a number, of seconds or of what the signal is in: `ksctl schema signals`"
        return Problem("KS4001", f"CEL cannot read the time `{time[0]}`", fix, time.start(), len(time[0]))
    window = _BARE_WINDOW.search(text)
    if window is not None:
        message, fix = f"the window {window[1]} is not written as a text", f'write "{window[1]}", in quotes'
        return Problem("KS4005", message, fix, window.start(1), len(window[1]))
    return None
