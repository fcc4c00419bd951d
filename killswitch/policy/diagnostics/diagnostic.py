"""Diagnostics of policies: place, message and fix, as a page or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict

from killswitch.model.words import Place
from killswitch.render.document import Code, Items, Page, Section, section
from killswitch.render.formats import count_of

Severity = Literal["error", "warning"]


class Diagnostic(Struct, frozen=True):
    """One problem. `line` and `column` count from 1 in characters; `length` is how much to underline, at least 1.

    `source_line` is the line as written, with secrets masked; empty if there is no line (a missing file).
    """

    code: str
    severity: Severity
    message: str
    fix: str
    file: str
    line: int
    column: int
    length: int
    source_line: str


def diagnostic(
    code: str, place: Place, message: str, fix: str, *, length: int = 1, severity: Severity = "error"
) -> Diagnostic:
    """A diagnostic at a known place."""
    return Diagnostic(code, severity, message, fix, place.file, place.line, place.column, max(1, length), place.text)


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The diagnostics sorted by file, line, column and code, without duplicates."""
    return tuple(sorted(dict.fromkeys(diagnostics), key=lambda d: (d.file, d.line, d.column, d.code, d.message)))


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether any diagnostic is an error."""
    return any(found.severity == "error" for found in diagnostics)


def counts(diagnostics: Sequence[Diagnostic]) -> str:
    """`2 errors, 1 warning`."""
    errors = sum(each.severity == "error" for each in diagnostics)
    return f"{count_of(errors, 'error')}, {count_of(len(diagnostics) - errors, 'warning')}"


def diagnostics_page(diagnostics: Sequence[Diagnostic], *sums: str) -> Page:
    """The diagnostics: place, code and message, the underlined source line, the fix. Below them `sums`, a line each."""
    return Page("Diagnostics", sections=(*map(_section, diagnostics), *section("", Items(sums))))


def _section(found: Diagnostic) -> Section:
    title = f"{found.file}:{found.line}:{found.column}: {found.severity} {found.code}: {found.message}"
    fix = Items((f"fix: {found.fix}",))
    if not found.source_line:
        return Section(title, (fix,))
    shown, before, caret = _window(found)
    number = str(found.line)
    return Section(title, (Code((f"{number} | {shown}", f"{' ' * len(number)} | {' ' * before}{caret}")), fix))


_WIDEST = 120


def _window(found: Diagnostic) -> tuple[str, int, str]:
    """The part of the line to show, the caret's offset in it, and the caret; tabs become one space."""
    line = found.source_line.replace("\t", " ")
    start = 0
    if len(line) > _WIDEST and found.column > _WIDEST - 40:
        start = found.column - 40
    shown = line[start : start + _WIDEST]
    before = found.column - 1 - start
    length = max(1, min(found.length, len(shown) - before))
    return shown, before, "^" * length


def as_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, object]]:
    """The diagnostics as JSON objects, with the names of the fields as keys."""
    return [asdict(found) for found in diagnostics]
