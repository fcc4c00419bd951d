"""Templates of runbooks and reports: strict Jinja2 that follows the rules of templates, from their own folders only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from functools import wraps
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
from msgspec import Struct
from msgspec.structs import asdict

from killswitch.content import runbooks_folder
from killswitch.incident.record.document import Firing, Incident, PositionLeft
from killswitch.incident.record.filters import FILTERS, OWN_OF_JINJA, TESTS, escape
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.incident.record.results import AccountClose
from killswitch.incident.report.template_fields import COMPUTED
from killswitch.incident.report.template_rules import BrokenRule, problems_of

SUFFIX = ".md.j2"
REPORT = "report" + SUFFIX
GENERIC = "stage" + SUFFIX
ESCAPED = "escaped"
LARGEST = 64 << 10
"""The largest template in bytes. Templates are written and read by people."""
LONGEST_TEXT = 256 << 10
"""The longest page of a user's own template in characters: converting it to HTML takes memory and time."""
LONGEST_SHIPPED = 4 << 20
"""The same for a shipped template, whose page grows only with the incident."""
LONGEST_VALUE = 64 << 10
"""Characters of a value that is escaped: escaping blocks every other thread."""
MOST_DIGITS = 10_000
"""Digits of a number before and after its point: `1e999999999` is short only until it is formatted."""
_WRONG = (
    ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip
"""What rendering raises besides Jinja2's own errors; SyntaxError where Python rejects the compiled template."""


class FiringDetails(Struct, frozen=True):
    """One firing with its own orders, and how its work ended."""

    firing: Firing
    orders: tuple[OrderOutcome, ...]
    endings: tuple[AccountClose, ...]
    left: tuple[PositionLeft, ...]


class TemplateVariables(Struct, frozen=True):
    """The variables of a template. `firing` is the newest one of the runbook's stage; in a report, of the highest
    stage. `decisions` are all firings, each with what belongs to it."""

    incident: Incident
    firing: Firing
    decisions: tuple[FiringDetails, ...]


def template_variables(incident: Incident, stage: str | None = None) -> TemplateVariables:
    """Return the variables of a runbook of `stage`, or of the report."""
    wanted = incident.stage if stage is None else stage
    firing = next((each for each in reversed(incident.firings) if each.stage == wanted), incident.firings[-1])
    return TemplateVariables(incident, firing, tuple(_details(incident, each) for each in incident.firings))


def _details(incident: Incident, firing: Firing) -> FiringDetails:
    return FiringDetails(
        firing,
        orders=tuple(each for each in incident.orders if each.decision == firing.decision),
        endings=tuple(each for each in incident.endings if each.decision == firing.decision),
        left=tuple(each for each in incident.left if each.decision == firing.decision),
    )


class RenderingError(Exception):
    """A template could not be rendered; the message has its name, the line and the cause."""


class _TooLongError(ValueError):
    """A page, a text or a number is too long."""


class TemplateEnvironment(SandboxedEnvironment):
    """Compiles only templates that follow the rules. A field of an unknown value is unknown."""

    def __init__(self, templates: BaseLoader, longest_text: int) -> None:
        """`longest_text` is the limit of a page in characters."""
        super().__init__(
            loader=templates,
            undefined=StrictUndefined,
            autoescape=True,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.templates = templates
        self._longest_text = longest_text
        self.globals.clear()
        ours = {name: _bounded(each) for name, each in FILTERS.items()} | {ESCAPED: _finalize}
        self.filters = {name: self.filters[name] for name in OWN_OF_JINJA} | ours
        self.tests = {name: self.tests[name] for name in TESTS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        computed = COMPUTED.get(type(obj), {}).get(attribute)
        if computed is not None:
            return computed(obj)
        return None if obj is None else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return None if obj is None else super().getitem(obj, argument)

    def concat(self, pieces: Iterable[str]) -> str:
        """Join the page piece by piece; _TooLongError as soon as it is too long."""
        found: list[str] = []
        length = 0
        for piece in pieces:
            length += len(piece)
            if length > self._longest_text:
                raise _TooLongError(f"its page has more than {self._longest_text:,} characters: show less of the lists")
            found.append(piece)
        return "".join(found)

    def problems(self, source: nodes.Template, file: str | None) -> list[BrokenRule]:
        """Return the rules that a parsed template breaks."""
        is_shipped = file is not None and runbooks_folder() in Path(file).parents
        return problems_of(source, TemplateVariables, is_shipped=is_shipped)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        """Refuse a template that breaks a rule. Prevent that Jinja2 escapes for HTML where a value meets text in `~`,
        and that an `if` without `else` is an error."""
        for found in self.problems(source, filename):
            raise RenderingError(f"{filename or name}:{found.line}: {found.code}: {found.message}; {found.fix}")
        for joined in source.find_all(nodes.Concat):
            joined.nodes = [_for_markdown(node) for node in joined.nodes]
        for choice in source.find_all(nodes.CondExpr):
            choice.expr2 = nodes.Const("", lineno=choice.lineno) if choice.expr2 is None else choice.expr2
        source.set_environment(self)
        return super()._generate(source, name, filename, defer_init)


def _for_markdown(node: nodes.Expr) -> nodes.Expr:
    """Return a text of the template as it is; anything else escaped."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return nodes.MarkSafe(node, lineno=node.lineno)
    return nodes.Filter(node, ESCAPED, [], [], None, None, lineno=node.lineno)


def environment(own: Collection[Path] = ()) -> TemplateEnvironment:
    """Return the environment: the templates' own folders first, then the shipped ones; no other file is read.

    `shipped/NAME` is a shipped template even where there is an own one of that name. Every value is escaped for
    Markdown, whatever a template does with it.
    """
    loaders: list[BaseLoader] = [_OwnFolder([folder]) for folder in dict.fromkeys(own)]
    ours = FileSystemLoader([runbooks_folder()])
    loaders += [ours, PrefixLoader({"shipped": ours})]
    return TemplateEnvironment(ChoiceLoader(loaders), LONGEST_TEXT if own else LONGEST_SHIPPED)


def _bounded(known: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter for values of a length that can be formatted."""

    @wraps(known)
    def bounded(value: object, *args: Any, **kwargs: Any) -> Any:
        return known(_printable(value), *args, **kwargs)

    return bounded


def _printable(value: object) -> object:
    """Return the value; _TooLongError for a text or a number of the record that is too long to format."""
    if isinstance(value, str) and not isinstance(value, Markup) and len(value) > LONGEST_VALUE:
        raise _TooLongError(f"a value has more than {LONGEST_VALUE:,} characters")
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > MOST_DIGITS:
        raise _TooLongError(f"a number has more than {MOST_DIGITS:,} digits")
    return value


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
    return value if isinstance(value, Markup) else escape(_printable(value))


def render(found: TemplateEnvironment, template: str, variables: TemplateVariables) -> str:
    """Return the Markdown of a template. RenderingError for any failure."""
    try:
        return found.get_template(template).render(asdict(variables))
    except _TooLongError as error:
        raise RenderingError(f"{template}: {error}") from error
    except TemplateError as error:
        where = getattr(error, "filename", None) or template
        line = getattr(error, "lineno", None)
        raise RenderingError(f"{where}{f':{line}' if line else ''}: {error.message or type(error).__name__}") from error
    except _WRONG as error:
        raise RenderingError(f"{template}: {type(error).__name__}: {error}") from error
