"""The shapes of values in templates, and the diagnostics for reading anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from killswitch.policy.diagnostics.diagnostic import Diagnostic


@dataclass(frozen=True, slots=True)
class ScalarShape:
    """A text, a number or an instant: it has no fields."""


@dataclass(frozen=True, slots=True)
class AnyShape:
    """An unknown value, which is not checked."""


@dataclass(frozen=True, slots=True)
class ListShape:
    """A list of values of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class RecordShape:
    """A record: the shape of each of its fields."""

    name: str
    fields: Mapping[str, Shape]

    def __hash__(self) -> int:
        return hash(self.name)


Shape = ScalarShape | AnyShape | ListShape | RecordShape

_COUNTERS = ("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth")
LOOP = RecordShape("loop", dict.fromkeys(_COUNTERS, ScalarShape()) | {"previtem": AnyShape(), "nextitem": AnyShape()})
"""The fields of Jinja2's `loop`."""


@cache
def shape_of(declared: Any) -> Shape:
    """Return the shape of an annotation of the record."""
    if get_origin(declared) is Annotated:
        return shape_of(get_args(declared)[0])
    if get_origin(declared) in (Union, UnionType):
        real = [option for option in get_args(declared) if option is not NoneType]
        return shape_of(real[0]) if len(real) == 1 else ScalarShape()
    if get_origin(declared) in (tuple, list):
        return ListShape(shape_of(get_args(declared)[0]))
    if isinstance(declared, type) and issubclass(declared, Struct):
        hints = get_type_hints(declared, include_extras=True)
        return RecordShape(declared.__name__, {name: shape_of(hints[name]) for name in declared.__struct_fields__})
    return ScalarShape()


class ProblemReport(Protocol):
    """Receives a problem: `file` None is the document itself, `word` is what to underline in the line."""

    def __call__(self, code: str, file: str | None, line: int, word: str | None, message: str, fix: str) -> None: ...


def template_diagnostic(code: str, file: str, line: int, word: str | None, message: str, fix: str) -> Diagnostic:
    """Return the problem at its line of the template, with the word underlined."""
    text = _line(file, line)
    found = None if word is None else re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    start, end = found.span() if found else (len(text) - len(text.lstrip()), len(text.rstrip()))
    return Diagnostic(code, "error", message, fix, file, line, start + 1, max(1, end - start), text)


def _line(file: str, line: int) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""  # deleted meanwhile, or not text: then the place has no line to show
    return lines[line - 1] if 0 < line <= len(lines) else ""
