"""The plain part of YAML, read line by line: what nearly every policy is written in, several times as fast.

Block mappings and lists with flow values, quoted and plain texts that end on their own line. Whatever else a text holds
(a tab, an anchor, a text over several lines, an empty value, a key given twice, anything that is wrong) makes this
reader give up, and the whole text is read by ruamel.yaml instead, which says what is wrong. What this one does read is,
to the last column, what that one reads: a test holds them together.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from killswitch.policy.yaml.tree import Node, Note, Root, Span, parse_any

_FOREIGN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
"""Tabs, other ends of lines, byte order marks, and what is not printable."""
_DEEPEST = 20
_LONGEST = 1000
"""Characters in a line: YAML ends what can be a key at 1024."""
_LARGEST = 100_000
"""Characters: beyond, how many values there are is counted by the other reader."""

_KEY = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_./-]*):(?: +|$)")
_PLAIN = re.compile(r"(?:[A-Za-z0-9_./+(<=~]|-(?=[0-9.]))(?:[^:#,\[\]{}]|(?<! )#|:(?=[^ ,\[\]{}])|[,\[\]{}])*")
_FLOW_PLAIN = re.compile(r"(?:[A-Za-z0-9_./+(~]|-(?=[0-9.]))(?:[^:#,\[\]{}?\"'\n]|:(?=[A-Za-z0-9]))*")
_QUOTED = re.compile(r"'((?:[^']|'')*)'|\"([^\"\\]*)\"")
_REST = re.compile(r" *(?: #.*)?$")
_BLANKS = re.compile(" *")


class _GivenUpError(Exception):
    """The text is not of the plain part."""


class _Block:
    """A block mapping or list that is still open; `key` waits for its value on the lines below."""

    __slots__ = ("column", "key", "node")

    def __init__(self, column: int, node: Node) -> None:
        self.column = column
        self.node = node
        self.key: Node | None = None


def parse(text: str, note: Callable[[Note], None]) -> list[Root]:
    """As `parse_any`, and fast where the text is plain."""
    plain = read_plain(text)
    return parse_any(text, note) if plain is None else plain


def read_plain(text: str) -> list[Root] | None:
    """The documents of a text that is wholly of the plain part; None where it is not."""
    if len(text) > _LARGEST or _FOREIGN.search(text) is not None:
        return None
    reader = _Reader()
    try:
        return reader.read(text.split("\n"))
    except _GivenUpError:
        return None


class _Reader:
    def __init__(self) -> None:
        self._roots: list[Root] = []
        self._open: list[_Block] = []
        self._begun = False

    def read(self, lines: list[str]) -> list[Root]:
        for number, line in enumerate(lines):
            content = line.lstrip(" ")
            if not content or content[0] == "#":
                continue
            if len(line) > _LONGEST:
                raise _GivenUpError
            if line.startswith(("---", "...")):
                self._document(number, line)
            else:
                self._line(number, len(line) - len(content), line)
        self._end(len(lines) - 1, len(lines[-1]))
        return self._roots

    def _document(self, number: int, line: str) -> None:
        if line.rstrip(" ") != "---" or (self._begun and not self._open):
            raise _GivenUpError
        self._end(number, 0)
        self._begun = True

    def _end(self, line: int, column: int) -> None:
        """Close the document that is open."""
        if self._open:
            root = self._open[0].node
            self._close(line, column, 0)
            self._roots.append(Root(root, sound=True))
        elif self._begun:
            raise _GivenUpError

    def _close(self, line: int, column: int, left: int) -> None:
        """Close all but the first `left` blocks: they end where the next thing begins."""
        for block in self._open[left:]:
            if block.key is not None:
                raise _GivenUpError
            start = block.node.span
            block.node.span = Span(start.line, start.column, line, column)
        del self._open[left:]

    def _line(self, number: int, column: int, line: str) -> None:
        left = len(self._open)
        while left and self._open[left - 1].column > column:
            left -= 1
        if self._open and not left:
            raise _GivenUpError
        self._close(number, column, left)
        item = line.startswith("- ", column)
        block = self._open[-1] if self._open else None
        if block is None or column > block.column:
            if block is not None and block.key is None:
                raise _GivenUpError
            block = self._block(number, column, mapping=not item)
        elif (block.node.items is not None) != item or block.key is not None:
            raise _GivenUpError
        if item:
            self._item(number, block, line)
        else:
            self._pair(number, block, line, column)

    def _block(self, number: int, column: int, *, mapping: bool) -> _Block:
        """Open a block where a value is waited for."""
        if len(self._open) >= _DEEPEST:
            raise _GivenUpError
        node = Node(Span(number, column, number, column))
        if mapping:
            node.pairs = {}
        else:
            node.items = []
        if self._open:
            self._hang(self._open[-1], node)
        elif not mapping:
            raise _GivenUpError
        block = _Block(column, node)
        self._open.append(block)
        self._begun = True
        return block

    def _hang(self, block: _Block, node: Node) -> None:
        if block.node.items is not None:
            block.node.items.append(node)
        elif block.key is not None and block.node.pairs is not None and block.key.text is not None:
            block.node.pairs[block.key.text] = (block.key, node)
            block.key = None

    def _item(self, number: int, block: _Block, line: str) -> None:
        column = _past_blanks(line, block.column + 1)
        if _KEY.match(line, column) is None:
            self._hang(block, _value(number, line, column))
        else:
            self._pair(number, self._block(number, column, mapping=True), line, column)

    def _pair(self, number: int, block: _Block, line: str, column: int) -> None:
        found = _KEY.match(line, column)
        if found is None or block.node.pairs is None or found[1] in block.node.pairs:
            raise _GivenUpError
        block.key = Node(Span(number, column, number, column + len(found[1])), found[1], plain=True)
        if found.end() < len(line) and line[found.end()] != "#":
            self._hang(block, _value(number, line, found.end()))


def _value(number: int, line: str, column: int) -> Node:
    """The value at `column`, with nothing but a comment after it."""
    if column >= len(line):
        raise _GivenUpError
    if line[column] in "{[":
        node, column = _flow(number, line, column, 0)
    elif line[column] in "'\"":
        node, column = _quoted(number, line, column)
    else:
        node, column = _plain(number, line, column, _PLAIN)
    if _REST.match(line, column) is None:
        raise _GivenUpError
    return node


def _plain(number: int, line: str, column: int, pattern: re.Pattern[str]) -> tuple[Node, int]:
    found = pattern.match(line, column)
    if found is None:
        raise _GivenUpError
    text = found[0].rstrip(" ")
    end = column + len(text)
    return Node(Span(number, column, number, end), text, plain=True), end


def _quoted(number: int, line: str, column: int) -> tuple[Node, int]:
    found = _QUOTED.match(line, column)
    if found is None:
        raise _GivenUpError
    text = found[2] if found[1] is None else found[1].replace("''", "'")
    return Node(Span(number, column, number, found.end()), text), found.end()


def _flow(number: int, line: str, column: int, depth: int) -> tuple[Node, int]:
    """A mapping in braces or a list in brackets, ended on its line; and where it ends."""
    if depth > _DEEPEST:
        raise _GivenUpError
    mapping, start = line[column] == "{", column
    close = "}" if mapping else "]"
    node = Node(Span(number, start, number, start))
    pairs: dict[str, tuple[Node, Node]] = {}
    items: list[Node] = []
    column = _past_blanks(line, column + 1)
    while line[column : column + 1] != close or pairs or items:
        if mapping:
            column = _flow_pair(number, line, column, depth, pairs)
        else:
            item, column = _flow_value(number, line, column, depth)
            items.append(item)
        column = _past_blanks(line, column)
        if line[column : column + 1] == close:
            break
        if line[column : column + 2] != ", ":
            raise _GivenUpError
        column = _past_blanks(line, column + 1)
    if mapping:
        node.pairs = pairs
    else:
        node.items = items
    node.span = Span(number, start, number, column + 1)
    return node, column + 1


def _flow_pair(number: int, line: str, column: int, depth: int, pairs: dict[str, tuple[Node, Node]]) -> int:
    found = _KEY.match(line, column)
    if found is None or found[1] in pairs:
        raise _GivenUpError
    key = Node(Span(number, column, number, column + len(found[1])), found[1], plain=True)
    value, column = _flow_value(number, line, found.end(), depth)
    pairs[found[1]] = (key, value)
    return column


def _flow_value(number: int, line: str, column: int, depth: int) -> tuple[Node, int]:
    first = line[column : column + 1]
    if first in ("{", "["):
        return _flow(number, line, column, depth + 1)
    if first in ("'", '"'):
        return _quoted(number, line, column)
    return _plain(number, line, column, _FLOW_PLAIN)


def _past_blanks(line: str, column: int) -> int:
    found = _BLANKS.match(line, column)
    return column if found is None else found.end()
