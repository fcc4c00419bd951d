"""Generates docs/reference/incident.md from the incident record that templates receive."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from killswitch.incident.record.document import INCIDENT_FORMAT, Incident
from killswitch.incident.record.filters import FILTERS, OWN_OF_JINJA, TESTS
from killswitch.incident.report.template_fields import COMPUTED, Loop, fields_of
from killswitch.incident.report.templates import TemplateVariables
from tools.reference.markdown import code, page, sentence, table

INTRODUCTION = f"""\
`{INCIDENT_FORMAT}`: the record that a template of a [runbook](../runbooks.md) receives and `ksctl report --output json`
prints. A template has exactly three variables, `incident`, `firing` and `decisions`; any name that is not on this page
is an error of `ksctl validate`, with its place. A value that is unknown or does not exist yet is none, never zero. A
template cannot calculate: the fields marked *computed* are for it, and are not part of the JSON."""

WORDS: Mapping[object, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Decimal: "amount",
    datetime: "instant",
}


def incident_page() -> str:
    """The page: the variables, each record in the order in which they refer to it, `loop`, then filters and tests."""
    parts = [f"## {_title(each)} {{ #{_anchor(each)} }}\n\n{_words(each)}\n\n{_keys(each)}" for each in records()]
    filters = [(code(name), sentence((read.__doc__ or "").split("\n")[0])) for name, read in FILTERS.items()]
    parts += [
        "## Filters { #filters }",
        table(["filter", "result"], filters),
        f"Filters of Jinja2: {_listed(OWN_OF_JINJA)}. Tests of Jinja2: {_listed(TESTS)}.",
    ]
    return page("The incident record", INTRODUCTION, parts)


def records() -> list[type[Struct]]:
    """Every record that a template can reach, `TemplateVariables` and `Incident` first."""
    found: list[type[Struct]] = []
    waiting: list[type[Struct]] = [TemplateVariables, Incident]
    while waiting:
        record = waiting.pop(0)
        if record not in found:
            found.append(record)
            waiting += [inner for shape in get_type_hints(record).values() for inner in _inside(shape)]
    return [*found, Loop]


def _inside(shape: Any) -> Iterator[type[Struct]]:
    if isinstance(shape, type) and issubclass(shape, Struct):
        yield shape
    for argument in get_args(shape):
        yield from _inside(argument)


def _title(record: type[Struct]) -> str:
    return "Variables" if record is TemplateVariables else record.__name__


def _anchor(record: type[Struct]) -> str:
    return "names" if record is TemplateVariables else record.__name__.lower()


def _words(record: type[Struct]) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(record.__doc__ or "").split("\n\n"))


def _keys(record: type[Struct]) -> str:
    descriptions = _descriptions(record)
    rows = [(code(name), _shape(shape), descriptions.get(name, "")) for name, shape in fields_of(record).items()]
    return table(["name", "is", "meaning"], rows)


def _descriptions(record: type[Struct]) -> Mapping[str, str]:
    """Attribute → its docstring in the source, or that of the function that computes it."""
    (declared,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(declared, ast.ClassDef)
    found = {}
    for before, after in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            words = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            if isinstance(words, str):
                found[before.target.id] = sentence(" ".join(words.split()))
    computed = COMPUTED.get(record, {}).items()
    return found | {name: f"*Computed.* {sentence(inspect.getdoc(each) or '')}" for name, each in computed}


def _shape(declared: Any) -> str:
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return _shape(arguments[0])
    if origin in (Union, UnionType):
        real = [_shape(option) for option in arguments if option is not NoneType]
        return " or ".join(real) + (" or none" if len(real) < len(arguments) else "")
    if origin is Literal:
        return " or ".join(code(str(word)) for word in arguments)
    if origin in (tuple, list):
        return f"list of {_shape(arguments[0])}"
    if isinstance(declared, type) and issubclass(declared, Struct):
        return f"[{declared.__name__}](#{_anchor(declared)})"
    return WORDS[declared]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(code(name) for name in names)
