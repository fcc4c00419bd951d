"""What rendering a template may cost: steps, text and time, counted while it happens.

Templates are written by others and rendered inside a live runner. What is counted is put into the template's syntax
tree before Jinja2 compiles it, so that nothing a template does is left out: every pass of a loop, every call of a
macro, every text that is made of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from time import monotonic
from typing import Any

from jinja2 import nodes, pass_context
from markupsafe import Markup

MOST_STEPS = 5_000_000
"""Nodes of the syntax tree that are run; a report of ten thousand orders takes a tenth of them."""
LONGEST_TEXT = 256 << 10
"""Characters of a text of somebody's own template, the whole page included: making HTML of it takes memory and time."""
LONGEST_SHIPPED = 4 << 20
"""The same of a shipped template, whose text grows with the incident alone."""
MOST_TEXT = 32 << 20
"""Characters of all texts that are made on the way to the page."""
LONGEST_VALUE = 64 << 10
"""Characters of a value that is escaped: that holds up every other thread while it lasts."""
MOST_SECONDS = 30.0
LARGEST_NUMBER = 10**40
MOST_DIGITS = 10_000
"""Of a number, before and after its point: `1e999999999` is short only while nobody writes it out."""
DATA_PER_STEP = 16
"""Characters of a template's own words that count as one step."""

STEPS = "count_steps"
JOINED = "count_joined"
COMPARED = "count_compared"
_RUN_OFTEN = (nodes.For, nodes.Macro, nodes.Block, nodes.CallBlock)
_TAKE_RECORDS = frozenset({"first", "last", "length", "quoted", "shell"})
_TAKE_LISTS = frozenset({"fenced", "join", "numbered"})


class BudgetError(Exception):
    """A template costs more than it may; the text says of what."""


class Budget:
    """What one rendering has left."""

    def __init__(self, longest: int = LONGEST_TEXT) -> None:
        """`longest`: characters of any text."""
        self._longest = longest
        self._steps = MOST_STEPS
        self._text = MOST_TEXT
        self._until = monotonic() + MOST_SECONDS

    def steps(self, count: int) -> None:
        """BudgetError where nothing is left of the steps or of the time."""
        self._steps -= count
        if self._steps < 0:
            raise BudgetError(f"it takes more than {MOST_STEPS:,} steps: loops in loops, or macros that call macros")
        if monotonic() > self._until:
            raise BudgetError(f"it takes longer than {MOST_SECONDS:g} s")

    def text(self, length: int) -> None:
        """Before a text of so many characters is made; BudgetError if it is too long, or one too many."""
        self._text -= length
        if length > self._longest or self._text < 0:
            raise BudgetError(f"it makes a text of more than {self._longest:,} characters, or too many long ones")

    def concat(self, pieces: Iterable[str]) -> str:
        """`"".join`, counted piece by piece."""
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
        """What may be written out: a short text, a number, an instant; BudgetError for anything that has parts."""
        if isinstance(value, str) and not isinstance(value, Markup) and len(value) > LONGEST_VALUE:
            raise BudgetError(f"a value has more than {LONGEST_VALUE:,} characters")
        if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > MOST_DIGITS:
            raise BudgetError(f"a number has more than {MOST_DIGITS:,} digits")
        if _has_parts(value):
            raise BudgetError(f"a {type(value).__name__} is no text: show its parts")
        return value

    def number(self, value: object) -> None:
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise BudgetError("a whole number of more than 40 digits is reckoned with")

    def filters(self, known: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
        """The same filters, given what may be written out, and their texts counted."""
        counted = {name: self._filter(name, each) for name, each in known.items()}

        @pass_context
        def steps(_: object, count: int) -> bool:
            self.steps(count)
            return True

        def joined(first: object, *others: object) -> Markup:
            return Markup(self.concat([str(first), *map(str, others)]))

        return {**counted, STEPS: steps, JOINED: joined, COMPARED: self._compared}

    def tests(self, known: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
        """The same tests, which compare values and lists of values only."""
        return {name: self._test(each) for name, each in known.items()}

    def _filter(self, name: str, known: Callable[..., Any]) -> Callable[..., Any]:
        def bounded(value: object, *args: Any, **kwargs: Any) -> Any:
            if name in _TAKE_LISTS and not isinstance(value, str):
                value = list(value) if isinstance(value, Sequence) else value
                texts = [self.value(each) for each in value] if isinstance(value, list) else []
                between = max((len(each) for each in (*args, *kwargs.values()) if isinstance(each, str)), default=0)
                self.text(sum(len(each) if isinstance(each, str) else 1 for each in texts) + len(texts) * between)
            elif name not in _TAKE_RECORDS:
                self.value(value)
            made = known(value, *args, **kwargs)
            if isinstance(made, str):
                self.text(len(made))
            return made

        return bounded

    def _test(self, known: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *values: known(*map(self._compared, values))

    def _compared(self, value: object) -> object:
        """Lists in lists take longer to compare than to write down, each level twice as long as the one in it."""
        if isinstance(value, list | tuple):
            self.steps(len(value))
            if any(isinstance(each, list | tuple | dict) for each in value):
                raise BudgetError("lists of lists cannot be compared: compare their parts")
        elif isinstance(value, dict):
            raise BudgetError("what is not a value cannot be compared: compare its parts")
        return value


def _has_parts(value: object) -> bool:
    """Whether a value is a list, a mapping or a record."""
    return isinstance(value, list | tuple | dict | set) or hasattr(type(value), "__struct_fields__")


def count(source: nodes.Template) -> None:
    """Put the counting into a template, in place, before it is compiled."""
    for joined in source.find_all(nodes.Concat):
        joined.nodes = [_filtered(joined.nodes[0], JOINED, *joined.nodes[1:])]
    for compared in source.find_all(nodes.Compare):
        compared.expr = _filtered(compared.expr, COMPARED)
        for operand in compared.ops:
            operand.expr = _filtered(operand.expr, COMPARED)
    parts: list[Any] = [source, *source.find_all(_RUN_OFTEN)]
    for part in parts:
        cost = nodes.Const(_cost(part))
        if isinstance(part, nodes.For) and part.test is not None:
            part.test = nodes.And(_filtered(cost, STEPS), part.test, lineno=part.lineno)
        part.body.insert(0, nodes.ExprStmt(_filtered(cost, STEPS), lineno=part.lineno))


def _filtered(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _cost(part: nodes.Node) -> int:
    """Steps of one pass: a body is counted with the bodies in it, which count themselves once more."""
    data = sum(len(each.data) for each in part.find_all(nodes.TemplateData))
    return 1 + sum(1 for _ in part.find_all(nodes.Node)) + data // DATA_PER_STEP
