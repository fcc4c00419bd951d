"""One file's text as it may be shown: line by line, with what may be a secret made unreadable."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from killswitch.model.words import Place
from killswitch.policy.yaml.tree import Span, split_lines

# possessive throughout: a long line must not cost more than its length
_PAIR = re.compile(r"(?<![\w-])([\w-]++)([\"']?+\s*+:\s++[\"']?+)(?!env:|file:|[\[{|>])([^\s\"',}][^\"',}]*+)")
_SECRET = re.compile(r"(?i)^(?:url|apprise)$|secret|passw|passphrase|token|api[_-]?key|private[_-]?key")
_USERINFO = re.compile(r"(://)([^/\s]+)(?=@)")
_QUERY = re.compile(r"(?i)([?&#;][^=\s&]*(?:secret|token|passw|key|sig)[^=\s&]*=)([^&\s\"']+)")
_CREDENTIALS = re.compile(r"(?<![\w-])[\"']?credentials[\"']?\s*+:")
_FIRST_KEY = re.compile(r"\s*+[^\s:]++\s*+:(?=\s|$)")
_VALUE = re.compile(r"[\"']?(?:env|file):\S*|#.*|(?<=[{,])\s*+[^\s:{},]++\s*+:(?=\s)|[{}\[\],|>&*-]|([^\s{}\[\],]++)")


class Written:
    """A file's lines, and places in them."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.lines: Sequence[str] = split_lines(text)

    def place(self, span: Span) -> Place:
        """Where `span` begins."""
        shown = self._shown[span.line] if span.line < len(self.lines) else ""
        return Place(self.file, span.line + 1, span.column + 1, shown)

    def length(self, span: Span) -> int:
        """How many characters of its first line `span` takes, at least 1."""
        if span.end_line == span.line:
            return max(1, span.end_column - span.column)
        line = self.lines[span.line] if span.line < len(self.lines) else ""
        return max(1, len(line.rstrip()) - span.column)

    @cached_property
    def _shown(self) -> Sequence[str]:
        return list(_masked(self.lines))


def _masked(lines: Sequence[str]) -> Iterator[str]:
    """Every line at its full length, so that columns stay where they are."""
    block: _Credentials | None = None
    for line in lines:
        if block is not None and block.goes_on(line):
            yield block.hide(line)
        elif found := _CREDENTIALS.search(line):
            block = _Credentials(line, found.end())
            yield line[: found.end()] + _hide_values(line[found.end() :])
        else:
            block = None
            yield _QUERY.sub(_hide_user, _USERINFO.sub(_hide_user, _PAIR.sub(_hide_secret, line)))


class _Credentials:
    """The lines that belong to one `credentials:`, told from the text alone: it may not even be YAML."""

    def __init__(self, line: str, end: int) -> None:
        self._indent = _indent(line)
        self._open = _brackets(line[end:])
        self._children: int | None = None

    def goes_on(self, line: str) -> bool:
        """Deeper lines, blank ones, and whatever comes before the brackets are closed."""
        return self._open > 0 or not line.strip() or _indent(line) > self._indent

    def hide(self, line: str) -> str:
        """The line with its keys left; what is deeper than the keys is a value that goes on."""
        self._open += _brackets(line)
        if self._children is None and line.strip():
            self._children = _indent(line)
        first = _FIRST_KEY.match(line) if _indent(line) == self._children else None
        start = first.end() if first else 0
        return line[:start] + _hide_values(line[start:])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _brackets(text: str) -> int:
    return sum((char in "{[") - (char in "}]") for char in text)


def _hide_values(text: str) -> str:
    """Everything but keys in braces, punctuation, references and comments."""
    return _VALUE.sub(lambda found: "•" * len(found[0]) if found[1] else found[0], text)


def _hide_secret(found: re.Match[str]) -> str:
    """The value of a key that sounds like a secret."""
    return found[1] + found[2] + "•" * len(found[3]) if _SECRET.search(found[1]) else found[0]


def _hide_user(found: re.Match[str]) -> str:
    return found[1] + "•" * len(found[2])
