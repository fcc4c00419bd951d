"""Runs the rules over a valid set of documents, and makes their edits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from killswitch.policy.lint.document_rules import DOCUMENT_RULES
from killswitch.policy.lint.ignoring import without_ignored
from killswitch.policy.lint.own_rules import OwnRules
from killswitch.policy.lint.rule import LintContext, LintFinding, LintRule, TextEdit
from killswitch.policy.lint.stage_rules import STAGE_RULES
from killswitch.policy.loader import Document
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import line_starts

RULES: tuple[LintRule, ...] = (*STAGE_RULES, *DOCUMENT_RULES)
"""The built-in rules, in the order of their codes."""


def lint(documents: Sequence[Document], now: int, own: OwnRules) -> tuple[LintFinding, ...]:
    """All findings of valid documents, by place, without those that a comment ignores.

    `now`: Unix microseconds. `own`: the rules of the desk.
    """
    context = LintContext(documents, now)
    found = [*_of_rules(documents, context), *own.findings(documents)]
    files = {document.source.file: document.source.written for document in documents}
    known = {rule.code for rule in RULES} | own.codes
    left = without_ignored(found, files.values(), known)
    return tuple(sorted(left, key=lambda each: (each.diagnostic.file, each.diagnostic.line, each.diagnostic.column,
                                                each.diagnostic.code, each.diagnostic.message)))  # fmt: skip


def _of_rules(documents: Iterable[Document], context: LintContext) -> Iterator[LintFinding]:
    for document in documents:
        for rule in RULES:
            for it in rule.check(document, context):
                found = document.source.diagnostic(
                    rule.code, it.path, it.message, it.fix, key=it.key, severity=rule.severity
                )
                yield LintFinding(found, it.edit)


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
