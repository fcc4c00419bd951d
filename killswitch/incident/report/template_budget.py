"""Limits what rendering a template may cost: steps, text and time, counted during rendering.

Users write templates, and a live runner renders them. The counting is inserted into the syntax tree before Jinja2
compiles it, so that it covers everything a template does: every loop pass, every macro call, every concatenation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from time import monotonic
from typing import Any

from jinja2 import nodes, pass_context
from markupsafe import Markup

MOST_STEPS = 5_000_000
"""Executed nodes of the syntax tree; a report of ten thousand orders needs a tenth of them."""
LONGEST_TEXT = 256 << 10
"""The longest text of a user's own template in characters, including the page: converting it to HTML takes memory
and time."""
LONGEST_SHIPPED = 4 << 20
"""The same for a shipped template, whose text grows only with the incident."""
MOST_TEXT = 32 << 20
"""Characters of all intermediate texts."""
LONGEST_VALUE = 64 << 10
"""Characters of a value that is escaped: escaping blocks every other thread."""
MOST_SECONDS = 30.0
LARGEST_NUMBER = 10**40
MOST_DIGITS = 10_000
"""Digits of a number before and after its point: `1e999999999` is short only until it is written out."""
DATA_PER_STEP = 16
"""Characters of template text that count as one step."""

STEPS = "count_steps"
JOINED = "count_joined"
COMPARED = "count_compared"
_REPEATED = (nodes.For, nodes.Macro, nodes.Block, nodes.CallBlock)
_RECORD_FILTERS = frozenset({"first", "last", "length", "quoted", "shell"})
_LIST_FILTERS = frozenset({"fenced", "join", "numbered"})


class RenderBudgetError(Exception):
    """A template exceeds a limit; the text names it."""


class RenderBudget:
    """The remaining budget of one rendering."""

    def __init__(self, longest: int = LONGEST_TEXT) -> None:
        """`longest` is the limit of any text in characters."""
        self._longest = longest
        self._steps = MOST_STEPS
        self._text = MOST_TEXT
        self._until = monotonic() + MOST_SECONDS

    def steps(self, count: int) -> None:
        """Count steps; RenderBudgetError where none are left, or no time."""
        self._steps -= count
        if self._steps < 0:
            raise RenderBudgetError(
                f"it takes more than {MOST_STEPS:,} steps: loops in loops, or macros that call macros"
            )
        if monotonic() > self._until:
            raise RenderBudgetError(f"it takes longer than {MOST_SECONDS:g} s")

    def text(self, length: int) -> None:
        """Count a text before it is made; RenderBudgetError if it is too long, or if all texts together are."""
        self._text -= length
        if length > self._longest or self._text < 0:
            raise RenderBudgetError(f"it makes a text of more than {self._longest:,} characters, or too many long ones")

    def concat(self, pieces: Iterable[str]) -> str:
        """Join like `"".join`, counting each piece."""
        found: list[str] = []
        length = 0
        for piece in pieces:
            length += len(piece)
            if length > self._longest:
                self.text(length)
            found.append(piece)
        self.text(length)
        return "".join(found)

    def value(self, value: object) -> object:
        """Return a value that may be printed: a short text, a number, an instant; RenderBudgetError for anything with
        parts."""
        if isinstance(value, str) and not isinstance(value, Markup) and len(value) > LONGEST_VALUE:
            raise RenderBudgetError(f"a value has more than {LONGEST_VALUE:,} characters")
        if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > MOST_DIGITS:
            raise RenderBudgetError(f"a number has more than {MOST_DIGITS:,} digits")
        if _has_parts(value):
            raise RenderBudgetError(f"a {type(value).__name__} cannot be printed: print its fields")
        return value

    def number(self, value: object) -> None:
        """Raise RenderBudgetError for a whole number with too many digits to calculate with."""
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise RenderBudgetError("it calculates with a whole number of more than 40 digits")

    def filters(self, known: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
        """Wrap the filters: they accept only printable values, and their texts are counted."""
        counted = {name: self._filter(name, each) for name, each in known.items()}

        @pass_context
        def steps(_: object, count: int) -> bool:
            self.steps(count)
            return True

        def joined(first: object, *others: object) -> Markup:
            return Markup(self.concat([str(first), *map(str, others)]))

        return {**counted, STEPS: steps, JOINED: joined, COMPARED: self._compared}

    def tests(self, known: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
        """Wrap the tests: they compare only values and lists of values."""
        return {name: self._test(each) for name, each in known.items()}

    def _filter(self, name: str, known: Callable[..., Any]) -> Callable[..., Any]:
        def bounded(value: object, *args: Any, **kwargs: Any) -> Any:
            if name in _LIST_FILTERS and not isinstance(value, str):
                value = list(value) if isinstance(value, Sequence) else value
                texts = [self.value(each) for each in value] if isinstance(value, list) else []
                between = max((len(each) for each in (*args, *kwargs.values()) if isinstance(each, str)), default=0)
                self.text(sum(len(each) if isinstance(each, str) else 1 for each in texts) + len(texts) * between)
            elif name not in _RECORD_FILTERS:
                self.value(value)
            made = known(value, *args, **kwargs)
            if isinstance(made, str):
                self.text(len(made))
            return made

        return bounded

    def _test(self, known: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *values: known(*map(self._compared, values))

    def _compared(self, value: object) -> object:
        """Reject nested lists, whose comparison takes twice as long with each level."""
        if isinstance(value, list | tuple):
            self.steps(len(value))
            if any(isinstance(each, list | tuple | dict) for each in value):
                raise RenderBudgetError("lists of lists cannot be compared: compare their items")
        elif isinstance(value, dict):
            raise RenderBudgetError("only values can be compared: compare the fields")
        return value


def _has_parts(value: object) -> bool:
    """Whether a value is a list, a mapping or a record."""
    return isinstance(value, list | tuple | dict | set) or hasattr(type(value), "__struct_fields__")


def insert_counting(source: nodes.Template) -> None:
    """Insert the counting into a template, in place, before it is compiled."""
    for joined in source.find_all(nodes.Concat):
        joined.nodes = [_filtered(joined.nodes[0], JOINED, *joined.nodes[1:])]
    for compared in source.find_all(nodes.Compare):
        compared.expr = _filtered(compared.expr, COMPARED)
        for operand in compared.ops:
            operand.expr = _filtered(operand.expr, COMPARED)
    parts: list[Any] = [source, *source.find_all(_REPEATED)]
    for part in parts:
        cost = nodes.Const(_cost(part))
        if isinstance(part, nodes.For) and part.test is not None:
            part.test = nodes.And(_filtered(cost, STEPS), part.test, lineno=part.lineno)
        part.body.insert(0, nodes.ExprStmt(_filtered(cost, STEPS), lineno=part.lineno))


def _filtered(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _cost(part: nodes.Node) -> int:
    """Return the steps of one pass. Bodies inside it are included, and count again for their own passes."""
    data = sum(len(each.data) for each in part.find_all(nodes.TemplateData))
    return 1 + sum(1 for _ in part.find_all(nodes.Node)) + data // DATA_PER_STEP
