"""Checks by walking a template, without rendering it, that it reads existing variables and fields."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

from killswitch.incident.report.template_expressions import (
    ExpressionChecker,
    Macro,
    ParsedTemplate,
    Scope,
    WalkLimitError,
    macros_of,
    suggest,
)
from killswitch.incident.report.template_shapes import (
    LOOP,
    AnyShape,
    ListShape,
    ProblemReport,
    RecordShape,
    ScalarShape,
    Shape,
)

DEEPEST_LOOP = 4
"""The deepest nesting of loops, including those in called macros."""


class TemplateChecker(ExpressionChecker):
    """Walks a template and everything it includes. `report` receives every problem once."""

    def __init__(self, environment: SandboxedEnvironment, names: Scope, report: ProblemReport) -> None:
        super().__init__(report)
        self._environment = environment
        self._names = names
        self._top: Scope = {}
        """Variables set at the top level: all that a block sees, unless it is `scoped`."""
        self._blocks: dict[str, list[tuple[ParsedTemplate, nodes.Block]]] = {}
        self._loops = 0
        self._loaded: dict[str, ParsedTemplate] = {}

    def template(self, name: str) -> None:
        """Walk the template with this name, and those that it extends."""
        found = self._load(name, None)
        if found is None:
            return
        self._top = dict(self._names)
        try:
            self._walk_template(found, self._top, found.tree)
        except (WalkLimitError, RecursionError) as error:
            self._at = [found]
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            fix = "reduce the nesting of loops and macro calls"
            self._flag("KS6180", found.tree, f"this template is too large to render: {why}", fix)

    # Loading

    def _load(self, name: str, reference: nodes.Node | None) -> ParsedTemplate | None:
        """Load a template once for each name; report a problem each time it cannot be loaded."""
        found = self._loaded.get(name) or self._parsed(name, reference)
        if found is not None:
            self._loaded[name] = found
        return found

    def _parsed(self, name: str, reference: nodes.Node | None) -> ParsedTemplate | None:
        try:
            source, file, _ = self._source(name)
        except TemplateNotFound:
            self._flag("KS6101", reference, f"there is no template `{name}`", "correct the name", name)
            return None
        except (OSError, UnicodeDecodeError) as error:
            self._flag("KS6101", reference, f"the template `{name}` cannot be read: {error}", "save it as UTF-8", name)
            return None
        try:
            tree = self._environment.parse(source, name, file)
            macros = tuple(tree.find_all(nodes.Macro))
        except TemplateSyntaxError as error:
            self._report("KS6102", error.filename or file or name, error.lineno, None,
                         error.message or "not a Jinja2 template",
                         "correct it; `{{ }}` shows a value, `{% %}` is a statement")  # fmt: skip
            return None
        except (RecursionError, ValueError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            self._report("KS6102", file or name, 1, None, f"this cannot be parsed as a template: {why}", "shorten it")
            return None
        return ParsedTemplate(name, file or name, tree, macros)

    def _source(self, name: str) -> tuple[str, str | None, object]:
        if self._environment.loader is None:
            raise TemplateNotFound(name)
        return self._environment.loader.get_source(self._environment, name)

    # Statements

    def _walk_template(self, template: ParsedTemplate, scope: Scope, reference: nodes.Node) -> None:
        """Walk a template's own text, then that of its parent with the blocks in their places."""
        with self._inside(template, template.tree, reference) as is_new:
            if is_new:
                self._walk_source(template, scope)

    def _walk_source(self, template: ParsedTemplate, scope: Scope) -> None:
        extends = next(iter(template.tree.find_all(nodes.Extends)), None)
        for block in template.tree.find_all(nodes.Block):
            self._blocks.setdefault(block.name, []).append((template, block))
        if extends is None:
            self._walk(template.tree.body, scope)
        else:
            kept = (nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.Import, nodes.FromImport)
            self._walk([each for each in template.tree.body if isinstance(each, kept)], scope)
            parent = self._named(extends.template)
            if parent is not None:
                self._walk_template(parent, scope, extends)

    def _named(self, written: nodes.Expr) -> ParsedTemplate | None:
        if isinstance(written, nodes.Const) and isinstance(written.value, str):
            return self._load(written.value, written)
        self._flag("KS6106", written, "the name of a template must be a string", "write the name in quotes")
        return None

    def visit_output(self, node: nodes.Output, scope: Scope) -> None:
        for each in node.nodes:
            if isinstance(self._value(each, scope), RecordShape | ListShape):
                what = "this is a record or a list and cannot be printed"
                self._flag("KS6104", each, what, "print its fields, or loop over the list")

    def visit_assign(self, node: nodes.Assign, scope: Scope) -> None:
        self._bind(node.target, self._value(node.node, scope), scope)

    def visit_assignblock(self, node: nodes.AssignBlock, scope: Scope) -> None:
        self._walk(node.body, dict(scope))
        self._bind(node.target, ScalarShape(), scope)

    def visit_with(self, node: nodes.With, scope: Scope) -> None:
        inner = dict(scope)
        for target, value in zip(node.targets, node.values, strict=True):
            self._bind(target, self._value(value, scope), inner)
        self._walk(node.body, inner)

    def visit_macro(self, node: nodes.Macro, scope: Scope) -> None:
        self._macros[-1][node.name] = Macro(node, self._at[-1], scope)

    def visit_filterblock(self, node: nodes.FilterBlock, scope: Scope) -> None:
        self._value(node.filter, scope)
        self._walk(node.body, dict(scope))

    def visit_callblock(self, node: nodes.CallBlock, scope: Scope) -> None:
        self._value(node.call, scope)
        self._walk(node.body, {**scope, **{each.name: AnyShape() for each in node.args}})

    def visit_extends(self, node: nodes.Extends, scope: Scope) -> None:
        """Do nothing: handled with the template."""

    def visit_for(self, node: nodes.For, scope: Scope) -> None:
        iterated = self._value(node.iter, scope)
        item: Shape = AnyShape()
        if isinstance(iterated, ListShape):
            item = iterated.item
        elif not isinstance(iterated, AnyShape):
            self._flag("KS6104", node.iter, "this is not a list and cannot be looped over", "name a list")
        inner = {**scope, "loop": LOOP}
        self._bind(node.target, item, inner)
        if node.test is not None:
            self._value(node.test, inner)
        self._loops += 1
        if self._loops == DEEPEST_LOOP + 1:
            what = f"loops are nested {self._loops} deep; at most {DEEPEST_LOOP} levels are allowed"
            self._flag("KS6180", node, what, "remove one of them: each multiplies the work of those around it")
        self._walk(node.body, inner)
        self._loops -= 1
        self._walk(node.else_, dict(scope))

    def visit_if(self, node: nodes.If, scope: Scope) -> None:
        """Bind what is set in every branch; what only some branches set may be missing afterwards."""
        branches = [node, *node.elif_]
        scopes = []
        for branch in branches:
            self._value(branch.test, scope)
            scopes.append(dict(scope))
            self._walk(branch.body, scopes[-1])
        scopes.append(dict(scope))
        self._walk(node.else_, scopes[-1])
        common = set.intersection(*(set(each) for each in scopes))
        scope.update({name: scopes[0][name] for name in common if name not in scope})

    def _bind(self, target: nodes.Node, shape: Shape, scope: Scope) -> None:
        if isinstance(target, nodes.Name):
            scope[target.name] = shape
        elif isinstance(target, nodes.Tuple):
            for each in target.items:
                self._bind(each, AnyShape(), scope)
        else:
            self._flag("KS6106", target, "a template can set plain names only", "set a name of its own")

    def visit_block(self, node: nodes.Block, scope: Scope) -> None:
        """Walk the block of the most derived template; `super()` leads to the next one."""
        versions = self._blocks.get(node.name, [(self._at[-1], node)])
        for template, block in versions[: 1 + self._supers(versions)]:
            self._at.append(template)
            self._walk(block.body, dict(scope if node.scoped else self._top))
            self._at.pop()

    @staticmethod
    def _supers(versions: Sequence[tuple[ParsedTemplate, nodes.Block]]) -> int:
        """Return how many versions further `super()` leads."""
        steps = 0
        for _, block in versions[:-1]:
            calls = block.find_all(nodes.Call)
            if not any(isinstance(each.node, nodes.Name) and each.node.name == "super" for each in calls):
                break
            steps += 1
        return steps

    def visit_include(self, node: nodes.Include, scope: Scope) -> None:
        found = self._named(node.template)
        if found is None:
            return
        with self._inside(found, found.tree, node) as is_new:
            if is_new:
                self._walk(found.tree.body, dict(scope))

    def visit_import(self, node: nodes.Import, _scope: Scope) -> None:
        found = self._named(node.template)
        if found is not None:
            self._macros[-1][node.target] = macros_of(found, self._names if node.with_context else {})

    def visit_fromimport(self, node: nodes.FromImport, _scope: Scope) -> None:
        found = self._named(node.template)
        if found is None:
            return
        known = macros_of(found, self._names if node.with_context else {})
        for each in node.names:
            name, alias = each if isinstance(each, tuple) else (each, each)
            if name in known:
                self._macros[-1][alias] = known[name]
            else:
                self._flag("KS6103", node, f"`{found.name}` has no macro `{name}`", suggest(name, known), name)
