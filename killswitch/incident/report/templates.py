"""Templates of runbooks and reports: strict Jinja2 in its sandbox, restricted to their own folders."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    StrictUndefined,
    TemplateError,
    nodes,
)
from jinja2.loaders import split_template_path
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from killswitch.content import runbooks_folder
from killswitch.incident.record.filters import FILTERS, OWN_OF_JINJA, TESTS, escape
from killswitch.incident.report.template_budget import (
    LONGEST_SHIPPED,
    LONGEST_TEXT,
    RenderBudget,
    RenderBudgetError,
    insert_counting,
)

SUFFIX = ".md.j2"
REPORT = "report" + SUFFIX
GENERIC = "stage" + SUFFIX
ESCAPED = "escaped"
LARGEST = 64 << 10
"""The largest template in bytes. Templates are written and read by people."""
_WRONG = (
    ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip
"""What rendering raises besides Jinja2's own errors; SyntaxError where Python rejects the compiled template."""


class RenderingError(Exception):
    """A template could not be rendered; the message has its name, the line and the cause."""


class _Sandbox(SandboxedEnvironment):
    """A field of an unknown value is unknown; an unknown attribute is an error.

    One is made for each rendering and holds its budget.
    """

    budget: RenderBudget
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def getattr(self, obj: Any, attribute: str) -> Any:
        return None if obj is None else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return None if obj is None else super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers only: a text times a billion fills the memory. `~` joins texts."""
        if operator == "**" or not all(isinstance(each, int | float | Decimal) for each in (left, right)):
            raise RenderingError(f"a template can calculate with numbers only, not with {operator} of other values")
        self.budget.number(left)
        self.budget.number(right)
        return super().call_binop(context, operator, left, right)

    def concat(self, pieces: Iterable[str]) -> str:
        """Join the page, and the results of macros and blocks."""
        return self.budget.concat(pieces)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call macros, blocks and loops; a method of a value is refused."""
        if not type(obj).__module__.startswith("jinja2."):
            raise RenderingError(f"a template can call macros only, not {type(obj).__name__}")
        return super().call(context, obj, *args, **kwargs)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Prevent that Jinja2 escapes for HTML where a value meets text in `~`, and that an `if` without `else` is
        an error."""
        for joined in source.find_all(nodes.Concat):
            joined.nodes = [_for_markdown(node) for node in joined.nodes]
        for choice in source.find_all(nodes.CondExpr):
            choice.expr2 = nodes.Const("", lineno=choice.lineno) if choice.expr2 is None else choice.expr2
        insert_counting(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)


def _for_markdown(node: nodes.Expr) -> nodes.Expr:
    """Return a text of the template as it is; anything else escaped."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return nodes.MarkSafe(node, lineno=node.lineno)
    return nodes.Filter(node, ESCAPED, [], [], None, None, lineno=node.lineno)


def environment(own: Collection[Path] = ()) -> SandboxedEnvironment:
    """Return the environment: the templates' own folders first, then the shipped ones; no other file is read.

    `shipped/NAME` is a shipped template even where there is an own one of that name. Every value is escaped for
    Markdown, whatever a template does with it.
    """
    loaders: list[BaseLoader] = [_OwnFolder([folder]) for folder in dict.fromkeys(own)]
    ours = FileSystemLoader([runbooks_folder()])
    loaders += [ours, PrefixLoader({"shipped": ours})]
    budget = RenderBudget(LONGEST_TEXT if own else LONGEST_SHIPPED)

    made = _Sandbox(
        loader=ChoiceLoader(loaders),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=lambda value: _finalize(budget.value(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.budget = budget
    made.globals.clear()
    own_of_jinja = {name: _bound(made, made.filters[name]) for name in OWN_OF_JINJA}
    made.filters = budget.filters({**own_of_jinja, **FILTERS, ESCAPED: _finalize})
    tests: dict[str, Any] = {**made.tests}
    made.tests = budget.tests({name: tests[name] for name in TESTS if name in tests})
    return made


def _bound(made: SandboxedEnvironment, known: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter of Jinja2 as a function of the value alone: some take the environment first."""
    return partial(known, made) if hasattr(known, "jinja_pass_arg") else known


class _OwnFolder(FileSystemLoader):
    """The folder of a document, which may have changed since the documents were checked."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        for folder in self.searchpath:
            file = Path(folder, *split_template_path(template))
            if file.is_file() and file.stat().st_size > LARGEST:
                raise TemplateError(f"{file} is larger than {LARGEST >> 10} KiB")
        return super().get_source(environment, template)


def _finalize(value: object) -> object:
    """Escape for Markdown here, so that Jinja2 does not escape for HTML."""
    if isinstance(value, Undefined):
        return value  # printing it raises and names what is missing
    return value if isinstance(value, Markup) else escape(value)


def render(found: SandboxedEnvironment, template: str, context: dict[str, object]) -> str:
    """Return the Markdown of a template. RenderingError for any failure."""
    try:
        return found.get_template(template).render(context)
    except RenderBudgetError as error:
        raise RenderingError(f"{template} costs too much: {error}") from error
    except TemplateError as error:
        where = getattr(error, "filename", None) or template
        line = getattr(error, "lineno", None)
        raise RenderingError(f"{where}{f':{line}' if line else ''}: {error.message or type(error).__name__}") from error
    except _WRONG as error:
        raise RenderingError(f"{template}: {type(error).__name__}: {error}") from error
