"""A file's text for display: line by line, with possible secrets masked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from killswitch.model.words import Place
from killswitch.policy.yaml.parser import TextSpan, split_lines

# possessive throughout: a long line must not cost more than its length
_PAIR = re.compile(r"(?<![\w-])([\w-]++)([\"']?+\s*+:\s++[\"']?+)(?!env:|file:|[\[{|>])([^\s\"',}][^\"',}]*+)")
_SECRET = re.compile(r"(?i)^(?:url|apprise)$|secret|passw|passphrase|token|api[_-]?key|private[_-]?key")
_USERINFO = re.compile(r"(://)([^/\s]+)(?=@)")
_QUERY = re.compile(r"(?i)([?&#;][^=\s&]*(?:secret|token|passw|key|sig)[^=\s&]*=)([^&\s\"']+)")
_CREDENTIALS = re.compile(r"(?<![\w-])[\"']?credentials[\"']?\s*+:")
_FIRST_KEY = re.compile(r"\s*+[^\s:]++\s*+:(?=\s|$)")
_VALUE = re.compile(r"[\"']?(?:env|file):\S*|#.*|(?<=[{,])\s*+[^\s:{},]++\s*+:(?=\s)|[{}\[\],|>&*-]|([^\s{}\[\],]++)")


class MaskedText:
    """A file's text, its lines, and places in them."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.lines: Sequence[str] = split_lines(text)

    def place(self, span: TextSpan) -> Place:
        """The place where `span` begins, with its masked source line."""
        shown = self._line(span.line) if span.line < len(self.lines) else ""
        return Place(self.file, span.line + 1, span.column + 1, shown)

    def length(self, span: TextSpan) -> int:
        """The number of characters that `span` covers on its first line, at least 1."""
        if span.end_line == span.line:
            return max(1, span.end_column - span.column)
        line = self.lines[span.line] if span.line < len(self.lines) else ""
        return max(1, len(line.rstrip()) - span.column)

    def _line(self, number: int) -> str:
        """A masked line. Without a block of credentials, which is known by the lines above, it is masked alone."""
        return self.shown[number] if self._has_credentials else _hide_in(self.lines[number])

    @cached_property
    def _has_credentials(self) -> bool:
        return "credentials" in self.text and _CREDENTIALS.search(self.text) is not None

    @cached_property
    def shown(self) -> Sequence[str]:
        """The masked lines."""
        return list(_masked(self.lines))


def _masked(lines: Sequence[str]) -> Iterator[str]:
    """The masked lines. Each keeps its length, so that columns stay valid."""
    block: _Credentials | None = None
    for line in lines:
        if block is not None and block.contains(line):
            yield block.hide(line)
        elif found := _CREDENTIALS.search(line):
            block = _Credentials(line, found.end())
            yield line[: found.end()] + _hide_values(line[found.end() :])
        else:
            block = None
            yield _hide_in(line)


def _hide_in(line: str) -> str:
    """A line outside credentials with what may be a secret masked."""
    return _QUERY.sub(_hide_user, _USERINFO.sub(_hide_user, _PAIR.sub(_hide_secret, line)))


class _Credentials:
    """The block of lines below one `credentials:` key, detected from the text alone, which may not be valid YAML."""

    def __init__(self, line: str, end: int) -> None:
        self._indent = _indent(line)
        self._open = _brackets(line[end:])
        self._children: int | None = None

    def contains(self, line: str) -> bool:
        """Whether the line belongs to the block: deeper lines, blank lines, and lines inside open brackets."""
        return self._open > 0 or not line.strip() or _indent(line) > self._indent

    def hide(self, line: str) -> str:
        """The line with values masked and keys kept; text deeper than the keys continues a value."""
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
    """Mask everything but keys in braces, punctuation, references and comments."""
    return _VALUE.sub(lambda found: "•" * len(found[0]) if found[1] else found[0], text)


def _hide_secret(found: re.Match[str]) -> str:
    """Mask the value of a key whose name suggests a secret."""
    return found[1] + found[2] + "•" * len(found[3]) if _SECRET.search(found[1]) else found[0]


def _hide_user(found: re.Match[str]) -> str:
    return found[1] + "•" * len(found[2])
