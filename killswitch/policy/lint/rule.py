"""What a rule of `ksctl lint` is: a check of one valid document, with a code, a severity and, where it is certain, an
edit that satisfies it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from killswitch.policy.diagnostics.diagnostic import Diagnostic, Severity
from killswitch.policy.loader import Document
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import Node, TextSpan, line_starts
from killswitch.policy.yaml.source_map import Path


class TextEdit(Struct, frozen=True):
    """A replacement of what is written at `span` by `text`."""

    span: TextSpan
    text: str


class Remark(Struct, frozen=True):
    """What a rule finds in a document, at the value at `path` or, with `key`, at its key."""

    path: Path
    message: str
    fix: str
    key: bool = True
    edit: TextEdit | None = None


class LintContext(Struct, frozen=True):
    """What a rule knows besides its document: the whole set, and the time (Unix microseconds)."""

    documents: Sequence[Document]
    now: int


class LintRule(Struct, frozen=True):
    """A rule; its page is that of its code."""

    code: str
    severity: Severity
    check: Callable[[Document, LintContext], Iterator[Remark]]


class LintFinding(Struct, frozen=True):
    """A diagnostic of a rule, with the edit that `--fix` makes, if there is one."""

    diagnostic: Diagnostic
    edit: TextEdit | None = None


def without_item(items: Sequence[Node], number: int, lines: Sequence[str]) -> TextEdit | None:
    """The edit that takes item `number`, not the first, out of a list; None where a comment would go with it."""
    before, item = items[number - 1].span, items[number].span
    span = TextSpan(before.end_line, before.end_column, item.end_line, item.end_column)
    return None if "#" in text_at(span, lines) else TextEdit(span, "")


def without_block_key(key: Node, value: Node, lines: Sequence[str]) -> TextEdit | None:
    """The edit that takes a key with its value out of a block.

    None inside braces, for the key behind a dash, and where a comment would go with it.
    """
    if lines[key.span.line][: key.span.column].strip() or value.span.end_line + 1 >= len(lines):
        return None
    span = TextSpan(key.span.line, 0, value.span.end_line + 1, 0)
    if "#" in text_at(span, lines):
        return None
    return None if value.text is None and lines[value.span.line][value.span.column : value.span.column + 1] not in (
        "{", "["
    ) else TextEdit(span, "")  # fmt: skip


def text_at(span: TextSpan, lines: Sequence[str]) -> str:
    """What is written at a span, its lines joined by line ends."""
    if span.line == span.end_line:
        return lines[span.line][span.column : span.end_column]
    whole = lines[span.line + 1 : span.end_line]
    return "\n".join((lines[span.line][span.column :], *whole, lines[span.end_line][: span.end_column]))


def edited(written: MaskedText, edits: Iterable[TextEdit]) -> str:
    """The text of a file after the edits; of two that overlap, the first."""
    text, starts = written.text, line_starts(written.text)
    parts: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda each: (each.span.line, each.span.column)):
        begin, end = starts[edit.span.line] + edit.span.column, starts[edit.span.end_line] + edit.span.end_column
        if begin >= at:
            parts += [text[at:begin], edit.text]
            at = end
    return "".join((*parts, text[at:]))


def edits_of(findings: Iterable[LintFinding]) -> Mapping[str, Sequence[TextEdit]]:
    """File → the edits of its findings, each once."""
    edits: dict[str, list[TextEdit]] = {}
    for each in findings:
        if each.edit is not None and each.edit not in edits.setdefault(each.diagnostic.file, []):
            edits[each.diagnostic.file].append(each.edit)
    return {file: found for file, found in edits.items() if found}
