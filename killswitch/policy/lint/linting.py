"""Runs the rules over a valid set of documents, without what comments ignore.

A comment is `# ksctl: ignore KS7201: the venue has no bots`, with a reason that is required.

A comment behind a value applies to its line, a comment of its own to the next line that is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import Struct

from killswitch.policy.diagnostics.diagnostic import Severity, diagnostic
from killswitch.policy.lint.document_rules import DOCUMENT_RULES
from killswitch.policy.lint.own_rules import OwnRules
from killswitch.policy.lint.rule import LintContext, LintFinding, LintRule
from killswitch.policy.lint.stage_rules import STAGE_RULES
from killswitch.policy.loader import Document
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import TextSpan

_COMMENT = re.compile(r"(?:^|(?<=\s))#\s*ksctl:\s*ignore\b(?P<rest>.*)$")
_REST = re.compile(r"\s+(?P<codes>[A-Za-z0-9-]+(?:\s*,\s*[A-Za-z0-9-]+)*)\s*(?::\s*(?P<reason>\S.*))?$")


class IgnoreComment(Struct, frozen=True):
    """A comment at `span`, which ignores `codes` in line `target`, counted from 0."""

    codes: tuple[str, ...]
    reason: str | None
    target: int
    span: TextSpan


def ignore_comments(lines: Sequence[str]) -> Iterator[IgnoreComment]:
    """The comments of a file."""
    for number, line in enumerate(lines):
        if (found := _COMMENT.search(line)) is None:
            continue
        rest = _REST.match(found["rest"].rstrip())
        codes = () if rest is None else tuple(each.strip().upper() for each in rest["codes"].split(","))
        reason = None if rest is None else rest["reason"]
        span = TextSpan(number, found.start(), number, len(line.rstrip()))
        yield IgnoreComment(codes, reason, _target(lines, number, found.start()), span)


def _target(lines: Sequence[str], number: int, column: int) -> int:
    if lines[number][:column].strip():
        return number
    below = range(number + 1, len(lines))
    return next((each for each in below if lines[each].strip() and not lines[each].lstrip().startswith("#")), number)


def without_ignored(
    findings: Iterable[LintFinding], files: Iterable[MaskedText], known: Collection[str]
) -> Iterator[LintFinding]:
    """The findings that no comment ignores, and findings about the comments themselves. `known`: all codes of rules."""
    left = list(findings)
    for written in files:
        for comment in ignore_comments(written.lines):
            is_sound = bool(comment.codes) and comment.reason is not None
            if not is_sound:
                message = "this ignores a finding without a reason" if comment.codes else "this names no code"
                fix = "write `# ksctl: ignore CODE: REASON`; until then nothing is ignored"
                yield _of_comment("KS7290", "error", written, comment, message, fix)
                continue
            for code in comment.codes:
                hit = [each for each in left if _is_hit(each, code, written.file, comment.target)]
                left = [each for each in left if each not in hit]
                if code not in known:
                    message = f"there is no rule `{code}`"
                    fix = "correct the code; `ksctl lint` prints that of each finding"
                    yield _of_comment("KS7292", "error", written, comment, message, fix)
                elif not hit:
                    message = f"the next line has no finding {code}" if _is_alone(written, comment) else (
                        f"this line has no finding {code}"
                    )  # fmt: skip
                    yield _of_comment("KS7291", "warning", written, comment, message, "take the comment out")
    yield from left


def _is_hit(finding: LintFinding, code: str, file: str, target: int) -> bool:
    found = finding.diagnostic
    return found.code == code and found.file == file and found.line == target + 1


def _is_alone(written: MaskedText, comment: IgnoreComment) -> bool:
    return not written.lines[comment.span.line][: comment.span.column].strip()


def _of_comment(
    code: str, severity: Severity, written: MaskedText, comment: IgnoreComment, message: str, fix: str
) -> LintFinding:
    place, length = written.place(comment.span), written.length(comment.span)
    return LintFinding(diagnostic(code, place, message, fix, length=length, severity=severity))


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
