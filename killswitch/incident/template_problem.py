"""A problem in a template, with its place in the template and the document that names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from killswitch.policy.diagnostics import Diagnostic


class Report(Protocol):
    """Is told of a problem: `file` None is the document itself, `word` what to underline in the line."""

    def __call__(self, code: str, file: str | None, line: int, word: str | None, message: str, fix: str) -> None: ...


def in_template(code: str, file: str, line: int, word: str | None, message: str, fix: str) -> Diagnostic:
    """The problem at its line of the template, the word underlined where it stands there."""
    text = _line(file, line)
    found = None if word is None else re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    start, end = found.span() if found else (len(text) - len(text.lstrip()), len(text.rstrip()))
    return Diagnostic(code, "error", message, fix, file, line, start + 1, max(1, end - start), text)


def _line(file: str, line: int) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""  # it is gone since, or is no text: then the place has no line to show
    return lines[line - 1] if 0 < line <= len(lines) else ""
