"""What a template may contain: an allow-list of the language, and the fields of the record, in one walk of its syntax
tree.

A template shows fields, filters them, branches, and loops over lists of the incident. A loop inside a loop goes over a
list of the outer loop's item, so that the work of a template grows with the incident and never with a power of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_type_hints

from jinja2 import nodes
from jinja2.visitor import NodeVisitor
from msgspec import Struct

from killswitch.incident.record.document import Command, WrittenAt
from killswitch.incident.record.filters import FILTERS, OWN_OF_JINJA, TESTS
from killswitch.incident.report.template_fields import (
    MIXED,
    SCALAR,
    Loop,
    either,
    fields_of,
    is_list,
    is_record,
    is_scalar,
    item_of,
    type_of,
)

MOST_IN_LOOPS = 300
"""The most parts of a user's template in loops: each runs once for every item. The shipped report has twice as many."""
LONGEST_CONSTANT = 64
"""Characters of a constant text that is filtered, or put between the items of a list."""
MOST_FILTERS = 3
"""The most filters in a row: each may lengthen the text."""
_CHARACTERS_PER_PART = 16

_OF_LISTS = frozenset({"length", "first", "last", "join", "fenced", "numbered"})
_WHOLE_LISTS = frozenset({"join", "fenced", "numbered"})
"""Filters that go through a whole list, as a loop does."""
_OF_RECORDS: Mapping[str, type[Struct]] = {"quoted": WrittenAt, "shell": Command}

_IN_PLACE = "write the text in place, or fill a block of a template that this one extends"
_REFUSED: Sequence[tuple[type[nodes.Node] | tuple[type[nodes.Node], ...], str, str]] = (
    ((nodes.Macro, nodes.CallBlock), "define or call a macro", _IN_PLACE),
    ((nodes.Import, nodes.FromImport, nodes.Include), "include or import another template", _IN_PLACE),
    ((nodes.Assign, nodes.AssignBlock, nodes.With), "set a variable", "write the expression where it is used"),
    (
        (nodes.BinExpr, nodes.UnaryExpr), "calculate",
        "use a field that has the number, such as `filled_share` of an order; the filter `percent` formats a fraction",
    ),
    (nodes.Call, "call a function or a method", "use a filter"),
    (
        (nodes.List, nodes.Tuple, nodes.Dict), "make a list",
        "loop over a list of the incident, with a condition; only `in` accepts a written list",
    ),
    (nodes.Scope, "switch escaping", "leave it out: every value is escaped for Markdown"),
    ((nodes.Block, nodes.Extends), "contain a block or a second `extends` there", "write them one after another"),
)  # fmt: skip


class BrokenRule(Struct, frozen=True):
    """A rule that a template breaks: at its line, with the word to underline, and the way out."""

    code: str
    line: int
    word: str | None
    message: str
    fix: str


Scope = Mapping[str, Any]


def problems_of(tree: nodes.Template, variables: type[Struct], *, is_shipped: bool) -> list[BrokenRule]:
    """Return the problems of one template. Only shipped templates may include others, which are shipped as well."""
    rules = _Rules(is_shipped)
    rules.visit(tree, get_type_hints(variables))
    return rules.problems


class _Rules(NodeVisitor):
    """One walk. A visit of an expression returns its type: `Any` where a problem was found already."""

    def __init__(self, is_shipped: bool) -> None:
        self.problems: list[BrokenRule] = []
        self._is_shipped = is_shipped
        self._item: str | None = None
        """The variable of the innermost loop."""
        self._in_loops = 0
        self._is_condition = False
        self._may_call_super = False

    def get_visitor(self, node: nodes.Node) -> Callable[..., Any] | None:
        """Return the method for a kind of node: `visit_condexpr` for a `CondExpr`. Without one it is refused."""
        return getattr(self, f"visit_{type(node).__name__.lower()}", None)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Visit a part, and count loops and what is in them."""
        if self._item is not None or isinstance(node, nodes.For):
            before = self._in_loops
            self._in_loops += 1 + len(str(getattr(node, "value", ""))) // _CHARACTERS_PER_PART
            if before <= MOST_IN_LOOPS < self._in_loops and not self._is_shipped:
                self._flag("KS6180", node, f"the loops of this template have more than {MOST_IN_LOOPS:,} parts",
                           "shorten them: a loop runs for every item")  # fmt: skip
        return super().visit(node, *args, **kwargs)

    def generic_visit(self, node: nodes.Node, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse what has no method here."""
        for kinds, what, fix in _REFUSED:
            if isinstance(node, kinds):
                return self._flag("KS6106", node, f"a template cannot {what}", fix)
        fix = "show fields, filter them, branch with `if`, and loop with `for`"
        return self._flag("KS6106", node, f"a template cannot use {type(node).__name__}", fix)

    # Statements

    def visit_template(self, node: nodes.Template, scope: Scope) -> None:
        has_parent = False
        for each in node.body:
            if isinstance(each, nodes.Block):
                self._may_call_super = True
                self._walk(each.body, scope)
                self._may_call_super = False
            elif isinstance(each, nodes.Extends) and not has_parent:
                has_parent = True
                if not isinstance(each.template, nodes.Const) or not isinstance(each.template.value, str):
                    self._flag("KS6106", each, "the name of a template must be a string", "write the name in quotes")
            else:
                self.visit(each, scope)

    def visit_include(self, node: nodes.Include, _scope: Scope) -> None:
        if not self._is_shipped:
            self.generic_visit(node)

    def visit_output(self, node: nodes.Output, scope: Scope) -> None:
        for each in node.nodes:
            if _is_super(each) and self._may_call_super and self._item is None:
                self._may_call_super = False
            elif _is_super(each):
                self._flag("KS6106", each, "a template can show `super()` once in a block, outside of loops",
                           "remove one of them")  # fmt: skip
            elif not is_scalar(self.visit(each, scope)):
                self._flag("KS6104", each, "this is a record or a list and cannot be printed",
                           "print its fields, or loop over the list")  # fmt: skip

    def visit_templatedata(self, _node: nodes.TemplateData, _scope: Scope) -> Any:
        return SCALAR

    def visit_if(self, node: nodes.If, scope: Scope) -> None:
        for branch in (node, *node.elif_):
            self._condition(branch.test, scope)
            self._walk(branch.body, scope)
        self._walk(node.else_, scope)

    def visit_for(self, node: nodes.For, scope: Scope) -> None:
        if node.recursive or not isinstance(node.target, nodes.Name):
            self._flag("KS6106", node, "a loop has one variable and cannot call itself", "write `for order in …`")
            return
        listed = self.visit(node.iter, scope)
        if listed is not Any and not is_list(listed):
            self._flag("KS6104", node.iter, "this is not a list and cannot be looped over", "name a list")
        self._through(node.iter, listed)
        inner = {**scope, node.target.name: item_of(listed)}
        around, self._item = self._item, node.target.name
        if node.test is not None:
            self._condition(node.test, inner)
        self._walk(node.body, {**inner, "loop": Loop})
        self._item = around
        self._walk(node.else_, scope)

    # Values

    def visit_const(self, _node: nodes.Const, _scope: Scope) -> Any:
        return SCALAR

    def visit_name(self, node: nodes.Name, scope: Scope) -> Any:
        if node.name in scope:
            return scope[node.name]
        return self._flag("KS6103", node, f"there is no `{node.name}` here", suggest(node.name, scope), node.name)

    def visit_getattr(self, node: nodes.Getattr, scope: Scope) -> Any:
        record, name = self.visit(node.node, scope), node.attr
        if record is Any:
            return Any
        if is_record(record):
            fields = fields_of(record)
            if name in fields:
                return type_of(fields[name])
            what = f"a record of {record.__name__} has no field `{name}`"
            return self._flag("KS6104", node, what, suggest(name, fields), name)
        what = "a list" if is_list(record) else "a choice" if record is MIXED else "a plain value"
        fix = "print it as it is, or with a filter" if record is SCALAR else "choose or loop first, then name the field"
        return self._flag("KS6104", node, f"{what} has no field `{name}`", fix, name)

    def visit_getitem(self, node: nodes.Getitem, scope: Scope) -> Any:
        listed = self.visit(node.node, scope)
        if listed is Any:
            return Any
        if isinstance(node.arg, nodes.Const) and type(node.arg.value) is int and is_list(listed):
            return item_of(listed)
        fix = "write a field with a dot, an item as `triggers[0]`, and the last one as `triggers|last`"
        return self._flag("KS6106", node, "brackets read one item of a list, by its number from 0", fix)

    def visit_neg(self, node: nodes.Neg, _scope: Scope) -> Any:
        is_number = isinstance(node.node, nodes.Const) and not isinstance(node.node.value, str)
        return SCALAR if is_number else self.generic_visit(node)

    def visit_not(self, node: nodes.Not, scope: Scope) -> Any:
        self._condition(node.node, scope)
        return SCALAR

    def visit_or(self, node: nodes.And | nodes.Or, scope: Scope) -> Any:
        return either(self._condition(node.left, scope), self._condition(node.right, scope))

    visit_and = visit_or

    def visit_condexpr(self, node: nodes.CondExpr, scope: Scope) -> Any:
        self._condition(node.test, scope)
        return either(self.visit(node.expr1, scope), SCALAR if node.expr2 is None else self.visit(node.expr2, scope))

    def visit_concat(self, node: nodes.Concat, scope: Scope) -> Any:
        self._is_shown(node)
        self._scalars(node.nodes, scope)
        return SCALAR

    def visit_compare(self, node: nodes.Compare, scope: Scope) -> Any:
        self._scalars([node.expr, *(each for operand in node.ops for each in _searched(operand))], scope)
        return SCALAR

    def visit_test(self, node: nodes.Test, scope: Scope) -> Any:
        if node.name not in TESTS:
            self._flag("KS6105", node, f"there is no test `{node.name}`", suggest(node.name, TESTS), node.name)
        elif node.name in ("none", "true", "false"):
            self.visit(node.node, scope)
        else:
            self._scalars([node.node], scope)
        self._scalars(self._arguments(node), scope)
        return SCALAR

    def visit_filter(self, node: nodes.Filter, scope: Scope) -> Any:
        known = (*FILTERS, *OWN_OF_JINJA)
        name, formatted = node.name, node.node
        if name not in known:
            return self._flag("KS6105", node, f"there is no filter `{name}`", suggest(name, known), name)
        if formatted is None or _filters_of(node) > MOST_FILTERS:
            what = f"a filter formats a field, and at most {MOST_FILTERS} follow each other"
            return self._flag("KS6106", node, what, "filter the field first, then join the texts with `~`", name)
        if name in FILTERS:
            self._is_shown(node)
        shape = self.visit(formatted, scope)
        arguments = self._arguments(node)
        self._scalars(arguments, scope)
        if name in OWN_OF_JINJA and arguments:
            self._flag("KS6106", node, f"the filter `{name}` has no arguments here", "remove them", name)
        if name in _WHOLE_LISTS:
            self._through(formatted, shape)
            if any(not isinstance(each, nodes.Const) or len(str(each.value)) > LONGEST_CONSTANT for each in arguments):
                what = f"`{name}` takes a written text of at most {LONGEST_CONSTANT} characters"
                self._flag("KS6106", node, what, "write a short text in quotes", name)
        if shape is Any or self._does_not_format(node, shape):
            return Any
        return item_of(shape) if name in ("first", "last") and is_list(shape) else SCALAR

    def _does_not_format(self, node: nodes.Filter, shape: Any) -> bool:
        """Report a filter that is not for values of this type."""
        wanted = _OF_RECORDS.get(node.name)
        fits, what = shape is SCALAR, "a plain value"
        if wanted is not None:
            fits, what = shape is wanted, f"a record of {wanted.__name__}"
        elif node.name in _OF_LISTS and is_list(shape):
            fits, what = node.name not in _WHOLE_LISTS or is_scalar(item_of(shape)), "a list of plain values"
        if not fits:
            self._flag("KS6104", node, f"the filter `{node.name}` formats {what}, which this is not",
                       "name a field of it, or loop over the list", node.name)  # fmt: skip
        return not fits

    # Parts of several rules

    def _walk(self, parts: Sequence[nodes.Node], scope: Scope) -> None:
        for part in parts:
            self.visit(part, scope)

    def _condition(self, node: nodes.Node, scope: Scope) -> Any:
        """Visit what may have no effect on the page, so that the length of the page does not bound its cost."""
        around, self._is_condition = self._is_condition, True
        shape = self.visit(node, scope)
        self._is_condition = around
        return shape

    def _is_shown(self, node: nodes.Expr) -> None:
        """Report a text that is formatted in a condition: to format takes far longer than to compare."""
        if self._is_condition:
            what = "a condition compares fields, not formatted or joined texts"
            self._flag("KS6106", node, what, f"compare the field itself, or with {', '.join(OWN_OF_JINJA)}")

    def _arguments(self, node: nodes.Filter | nodes.Test) -> Sequence[nodes.Expr]:
        """Return the arguments of a filter or test, which are written one by one."""
        for each in (node.dyn_args, node.dyn_kwargs):
            if each is not None:
                self._flag("KS6106", node, "a template cannot unpack arguments", "write them one by one", node.name)
        return [*node.args, *(each.value for each in node.kwargs)]

    def _scalars(self, parts: Sequence[nodes.Node], scope: Scope) -> None:
        for part in parts:
            if not is_scalar(self.visit(part, scope)):
                self._flag("KS6104", part, "this is a record or a list and cannot be compared or joined",
                           "use its fields; `is none` tests whether a record is unknown")  # fmt: skip

    def _through(self, node: nodes.Node, shape: Any) -> None:
        """Report a list inside of a loop that is not one of the loop's item: its length would multiply the work."""
        root: nodes.Node | None = node
        while isinstance(root, nodes.Getattr | nodes.Getitem | nodes.Filter):
            root = root.node
        is_own = isinstance(root, nodes.Name) and root.name == self._item
        if is_list(shape) and self._item is not None and not is_own:
            what = f"inside of a loop only a list of its item can be used, which is `{self._item}`"
            fix = "loop over `decisions`, whose items have their own orders, or end the outer loop first"
            self._flag("KS6180", node, what, fix)

    def _flag(self, code: str, node: nodes.Node, message: str, fix: str, word: str | None = None) -> Any:
        line = node.lineno or next((each.lineno for each in node.find_all(nodes.Node) if each.lineno), 1)
        self.problems.append(BrokenRule(code, line, word, message, fix))
        return Any


def _is_super(node: nodes.Node) -> bool:
    """Whether this is `super()`: the text of the block that this one replaces."""
    return (
        isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "super"
        and not (node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)
    )  # fmt: skip


def _searched(operand: nodes.Operand) -> Sequence[nodes.Expr]:
    """Return the parts of the right side: `in` searches a written list, or a text."""
    found = operand.expr
    return found.items if operand.op in ("in", "notin") and isinstance(found, nodes.List | nodes.Tuple) else [found]


def _filters_of(node: nodes.Filter) -> int:
    """Return how many filters follow each other on a field; too many where something else is filtered."""
    count, formatted = 1, node.node
    while isinstance(formatted, nodes.Filter):
        count, formatted = count + 1, formatted.node
    return count if isinstance(formatted, nodes.Name | nodes.Getattr | nodes.Getitem) else MOST_FILTERS + 1


def suggest(name: str, known: Collection[str]) -> str:
    """Return the nearest of the known names, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(names) or 'nothing'}"
