"""Checks the expressions of a template against the types of its variables."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

from jinja2 import nodes
from jinja2.visitor import NodeVisitor

from killswitch.incident.record.filters import FILTERS, OWN_OF_JINJA, TESTS
from killswitch.incident.report.template_shapes import (
    AnyShape,
    ListShape,
    ProblemReport,
    RecordShape,
    ScalarShape,
    Shape,
)

Scope = dict[str, Shape]


class Macro(NamedTuple):
    """A macro and the template that defines it."""

    node: nodes.Macro
    template: ParsedTemplate
    names: Scope


class ParsedTemplate(NamedTuple):
    """A parsed template."""

    name: str
    file: str
    tree: nodes.Template
    macros: tuple[nodes.Macro, ...]


_DEEPEST = 20
"""The deepest nesting of templates and macros."""
_MOST_STEPS = 10_000
"""The most nodes that a walk visits, a macro body once for each call. The shipped report needs an eighth."""


class WalkLimitError(Exception):
    """The walk has visited too many nodes, or is nested too deeply."""


class ExpressionChecker(NodeVisitor):
    """Walks expressions and returns the shape of each value. `report` receives every problem."""

    def __init__(self, report: ProblemReport) -> None:
        self._report = report
        self._at: list[ParsedTemplate] = []
        """The templates that the walk is in, the innermost last."""
        self._macros: list[dict[str, Macro | dict[str, Macro]]] = [{}]
        self._depth = 0
        self._steps = 0
        self._under_way: list[nodes.Node] = []
        """The templates and macros that the walk is in."""

    @contextmanager
    def _inside(self, template: ParsedTemplate, part: nodes.Node, at: nodes.Node) -> Iterator[bool]:
        """Enter a template or a macro; yield False, and report a problem at `at`, if that is a recursion."""
        # By identity: Jinja2 compares two macros with the same text as equal.
        if any(part is each for each in self._under_way) or self._depth >= _DEEPEST:
            self._flag("KS6106", at, "templates and macros call each other in a circle here", "remove one of the calls")
            yield False
            return
        self._depth += 1
        self._under_way.append(part)
        self._at.append(template)
        try:
            yield True
        finally:
            self._at.pop()
            self._under_way.pop()
            self._depth -= 1

    def get_visitor(self, node: nodes.Node) -> Callable[..., Any] | None:
        """Return the method for a kind of node: `visit_condexpr` for a `CondExpr`."""
        return getattr(self, f"visit_{type(node).__name__.lower()}", None)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Visit a node; raise WalkLimitError after too many."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise WalkLimitError(f"it takes more than {_MOST_STEPS:,} steps")
        return super().visit(node, *args, **kwargs)

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Visit an expression without a rule of its own as a plain value; report such a statement."""
        if isinstance(node, nodes.Stmt):
            what = type(node).__name__
            self._flag("KS6106", node, f"a template may not use {what}", "write it with loops, conditions and macros")
        else:
            super().generic_visit(node, *args, **kwargs)
        return ScalarShape()

    def _value(self, node: nodes.Node | None, scope: Scope) -> Shape:
        shape: Shape = ScalarShape() if node is None else self.visit(node, scope)
        return shape

    def _walk(self, parts: Iterable[nodes.Node | None], scope: Scope) -> None:
        for part in parts:
            self._value(part, scope)

    def visit_getattr(self, node: nodes.Getattr, scope: Scope) -> Shape:
        return self._part(node, node.attr, self._value(node.node, scope))

    def visit_test(self, node: nodes.Test, scope: Scope) -> Shape:
        if node.name not in TESTS:
            self._flag("KS6105", node, f"there is no test `{node.name}`", suggest(node.name, TESTS), node.name)
        self._walk((node.node, *node.args), scope)
        return ScalarShape()

    def visit_condexpr(self, node: nodes.CondExpr, scope: Scope) -> Shape:
        self._value(node.test, scope)
        return self._either((node.expr1, node.expr2), scope)

    def visit_or(self, node: nodes.And | nodes.Or, scope: Scope) -> Shape:
        return self._either((node.left, node.right), scope)

    visit_and = visit_or

    def _either(self, found: Iterable[nodes.Node | None], scope: Scope) -> Shape:
        """Return the first shape with fields; the others are plain values then, such as an empty text."""
        shapes = [self._value(each, scope) for each in found]
        return next((shape for shape in shapes if not isinstance(shape, ScalarShape)), ScalarShape())

    def visit_list(self, node: nodes.List | nodes.Tuple, scope: Scope) -> Shape:
        shapes = [self._value(each, scope) for each in node.items]
        return ListShape(shapes[0] if shapes else AnyShape())

    visit_tuple = visit_list

    def visit_name(self, node: nodes.Name, scope: Scope) -> Shape:
        if node.name in scope:
            return scope[node.name]
        if node.name not in self._known_macros():
            self._flag("KS6103", node, f"there is no `{node.name}` here", suggest(node.name, scope), node.name)
        return AnyShape()

    def _part(self, node: nodes.Node, name: str, shape: Shape) -> Shape:
        if isinstance(shape, AnyShape):
            return AnyShape()
        if isinstance(shape, RecordShape):
            if name in shape.fields:
                return shape.fields[name]
            self._flag("KS6104", node, f"{shape_text(shape)} has no field `{name}`", suggest(name, shape.fields), name)
        else:
            what = "a list" if isinstance(shape, ListShape) else "a plain value"
            self._flag("KS6104", node, f"{what} has no field `{name}`", "print it as it is, or with a filter", name)
        return AnyShape()

    def visit_getitem(self, node: nodes.Getitem, scope: Scope) -> Shape:
        shape = self._value(node.node, scope)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return self._part(node, node.arg.value, shape)
        self._value(node.arg, scope)
        if isinstance(shape, ListShape):
            return shape if isinstance(node.arg, nodes.Slice) else shape.item
        return AnyShape()

    def visit_filter(self, node: nodes.Filter, scope: Scope) -> Shape:
        known = (*FILTERS, *OWN_OF_JINJA)
        if node.name not in known:
            self._flag("KS6105", node, f"there is no filter `{node.name}`", suggest(node.name, known), node.name)
        shape = self._value(node.node, scope)
        self._walk((*node.args, *(each.value for each in node.kwargs), node.dyn_args, node.dyn_kwargs), scope)
        if node.name in ("first", "last") and isinstance(shape, ListShape):
            return shape.item
        return ScalarShape() if node.name in known else AnyShape()

    def visit_call(self, node: nodes.Call, scope: Scope) -> Shape:
        arguments = [self._value(each, scope) for each in node.args]
        keywords = {each.key: self._value(each.value, scope) for each in node.kwargs}
        macro = self._macro(node.node)
        if isinstance(node.node, nodes.Name) and node.node.name in ("super", "caller"):
            return ScalarShape()
        if macro is None:
            self._flag("KS6106", node, "only macros can be called in a template", "use a filter, or write a macro")
            return ScalarShape()
        parameters = [each.name for each in macro.node.args]
        bound: Scope = {**macro.names, **dict.fromkeys(parameters, AnyShape()), **keywords}
        bound |= dict(zip(parameters, arguments, strict=False))
        with self._inside(macro.template, macro.node, node) as is_new:
            if is_new:
                self._macros.append(dict(macros_of(macro.template, macro.names)))
                self._walk(macro.node.body, bound)
                self._macros.pop()
        return ScalarShape()

    def _macro(self, called: nodes.Expr) -> Macro | None:
        if isinstance(called, nodes.Getattr) and isinstance(called.node, nodes.Name):
            group = self._known_macros().get(called.node.name)
            return group.get(called.attr) if isinstance(group, dict) else None
        found = self._known_macros().get(called.name) if isinstance(called, nodes.Name) else None
        return found if isinstance(found, Macro) else None

    def _known_macros(self) -> Mapping[str, Macro | dict[str, Macro]]:
        """Return the macros and imported templates by name, the innermost first."""
        return ChainMap(*reversed(self._macros))

    def _flag(self, code: str, node: nodes.Node | None, message: str, fix: str, word: str | None = None) -> None:
        file = self._at[-1].file if self._at else None
        line = 1 if node is None else node.lineno
        self._report(code, file, line, word, message, fix)


def macros_of(template: ParsedTemplate, names: Scope) -> dict[str, Macro]:
    return {node.name: Macro(node, template, names) for node in template.macros}


def shape_text(shape: RecordShape) -> str:
    return f"the {shape.name.lower()}" if shape.name == "loop" else f"a record of {shape.name}"


def suggest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names) or 'nothing'}"
