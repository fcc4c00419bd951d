"""A YAML text as a tree of nodes that know where they were written.

Built from ruamel.yaml's events rather than by its composer: policies use a small part of YAML (no anchors, tags
or merges), and what lies outside it is named at its own place while reading goes on. Nothing here recurses, so
no nesting, however deep, ends in anything but a diagnostic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, cast

DEEPEST = 40
"""Policies nest about ten deep."""
LARGEST = 100_000
"""Nodes in one file; more than any policy set of a firm."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d{1,18}\.\d{0,18}|\.\d{1,18}|\d{1,18}(?=[eE]))(?:[eE][+-]?\d{1,2})?", re.ASCII)


class Span(NamedTuple):
    """Where something begins and ends, lines and columns counted from 0; the end is just past it."""

    line: int
    column: int
    end_line: int
    end_column: int


class Note(NamedTuple):
    """Something wrong with the text itself."""

    code: str
    span: Span
    message: str
    fix: str


class Root(NamedTuple):
    """The top of one document; `sound` is false when something in its text has had a note."""

    node: Node
    sound: bool


class Node:
    """A value as written. Of `text`, `pairs` and `items` exactly one is not None; `pairs` is key → (key, value).

    `refused` marks what has had its diagnostic, so that nothing more need be said about it.
    """

    __slots__ = ("items", "pairs", "plain", "refused", "span", "text")

    def __init__(self, span: Span, text: str | None = None, plain: bool = False) -> None:
        self.span = span
        self.text = text
        self.plain = plain
        self.refused = False
        self.pairs: dict[str, tuple[Node, Node]] | None = None
        self.items: list[Node] | None = None


def parse(text: str, note: Callable[[Note], None]) -> list[Root]:
    """The documents of a text, empty ones left out; everything wrong with it goes to `note`.

    A text that breaks off being YAML gives the documents before the one in which it does.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    documents: list[Root] = []
    builder = _Builder(documents, note)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except _TooLargeError:
        pass  # it has had its note
    except MarkedYAMLError as error:
        note(_syntax(error, text))
    except ReaderError as error:
        note(_unprintable(error.position, text))
    return documents


def plain_value(node: Node) -> object:
    """The value as dict, list, str, int, Decimal, bool or None, by YAML 1.2's core schema.

    Numbers with a point are Decimal, exactly as written. Numbers too long to be meant stay text.
    """
    if node.pairs is not None:
        return {key: plain_value(value) for key, (_, value) in node.pairs.items()}
    if node.items is not None:
        return [plain_value(item) for item in node.items]
    text = node.text or ""
    return _scalar_value(text) if node.plain else text


def _scalar_value(text: str) -> object:
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return Decimal(text) if _FLOAT.fullmatch(text) else text


class _TooLargeError(Exception):
    """The text is nested too deep, or holds too many values."""


class _Frame:
    """A mapping or list that is still open, with the key that waits for its value."""

    __slots__ = ("key", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key: Node | None = None


class _Builder:
    """Takes events one by one and hangs what they say where it belongs."""

    def __init__(self, documents: list[Root], note: Callable[[Note], None]) -> None:
        self._documents = documents
        self._note = note
        self._open: list[_Frame] = []
        self._count = 0
        self._root: Node | None = None
        self._sound = True

    def take(self, event: Any) -> None:
        """Take the next event. _TooLargeError, once it has been noted, where the rest is not worth reading."""
        match type(event).__name__:
            case "ScalarEvent":
                plain = event.style is None and event.implicit[0]
                self._begin(event, Node(_content_span(event), event.value, plain))
            case "MappingStartEvent" | "SequenceStartEvent" as kind:
                node = Node(_span(event))
                if kind == "MappingStartEvent":
                    node.pairs = {}
                else:
                    node.items = []
                self._begin(event, node)
            case "MappingEndEvent" | "SequenceEndEvent":
                node = self._open.pop().node
                node.span = node.span._replace(end_line=event.end_mark.line, end_column=event.end_mark.column)
            case "AliasEvent":
                self._alias(event)
            case "DocumentStartEvent":
                self._root, self._sound = None, True
                self._directives(event)
            case "DocumentEndEvent" if self._root is not None:
                self._documents.append(Root(self._root, self._sound))

    def _begin(self, event: Any, node: Node) -> None:
        """Hang a node where it belongs; a mapping or a list stays open."""
        self._properties(event)
        node.refused = event.ctag is not None
        self._hang(node)
        self._count += 1
        if node.text is None:
            self._open.append(_Frame(node))
        if len(self._open) > DEEPEST:
            self._say("KS1107", node.span, f"nested more than {DEEPEST} deep", "take the nesting apart")
            raise _TooLargeError
        if self._count > LARGEST:
            self._say("KS1107", _span(event), f"more than {LARGEST} values in one file", "split the file")
            raise _TooLargeError

    def _alias(self, event: Any) -> None:
        span = _span(event)
        self._say("KS1104", span, f"`*{event.anchor}` repeats something written elsewhere", _WRITE_OUT)
        node = Node(span, f"*{event.anchor}")
        node.refused = True
        self._hang(node)

    def _properties(self, event: Any) -> None:
        """Anchors and tags, which stand before the value."""
        start = event.start_mark
        if event.anchor is not None:
            span = Span(start.line, start.column, start.line, start.column + len(event.anchor) + 1)
            self._say("KS1104", span, f"`&{event.anchor}` is an anchor", f"take it out; {_WRITE_OUT}")
        if event.ctag is not None:
            span = Span(start.line, start.column, start.line, start.column + 1)
            self._say(
                "KS1106", span, "tags are not part of policies", "take it out; text that must stay text goes in quotes"
            )

    def _directives(self, event: Any) -> None:
        if event.version is not None or event.tags:
            # the event stands at the `---`, the directive above it
            span = Span(max(0, event.start_mark.line - 1), 0, event.start_mark.line, 0)
            self._say("KS1108", span, "directives are not part of policies", "take the line that begins with % out")

    def _hang(self, node: Node) -> None:
        if not self._open:
            if node.text is None or node.text or not node.plain:
                self._root = node
            return
        frame = self._open[-1]
        if frame.node.items is not None:
            frame.node.items.append(node)
        elif frame.key is None:
            frame.key = node
        else:
            self._pair(frame, frame.key, node)
            frame.key = None

    def _pair(self, frame: _Frame, key: Node, value: Node) -> None:
        pairs = cast("dict[str, tuple[Node, Node]]", frame.node.pairs)
        if key.text is None or key.refused:
            self._say("KS1109", key.span, "a key must be a word", "write the key as a word")
        elif key.text == "<<" and key.plain:
            frame.node.refused = True
            self._say("KS1105", key.span, "`<<` merges in something written elsewhere", _WRITE_OUT)
        elif key.text in pairs:
            first = pairs[key.text][0].span.line + 1
            fix = "keep one of the two: which of them counts would be a guess"
            self._say("KS1103", key.span, f"`{key.text}` is already given in line {first}", fix)
        else:
            pairs[key.text] = (key, value)

    def _say(self, code: str, span: Span, message: str, fix: str) -> None:
        self._sound = False
        self._note(Note(code, span, message, fix))


_WRITE_OUT = "write the value out here: whoever reads a policy must see what it says"


def _span(event: Any) -> Span:
    start, end = event.start_mark, event.end_mark
    return Span(start.line, start.column, end.line, end.column)


def _content_span(event: Any) -> Span:
    """Without trailing blanks and comments: ruamel ends an empty value at the next token."""
    span = _span(event)
    if not event.value and event.style is None:
        return span._replace(end_line=span.line, end_column=span.column)
    return span


def _syntax(error: Any, text: str) -> Note:
    """What ruamel says, at the place where it says it; a tab is named as such."""
    mark = error.problem_mark or error.context_mark
    lines = split_lines(text)
    line = min(mark.line, len(lines) - 1)
    written = lines[line]
    indentation = written[: len(written) - len(written.lstrip(" \t"))]
    at = mark.column if written[mark.column : mark.column + 1] == "\t" else indentation.find("\t")
    if at >= 0:
        return Note(
            "KS1102", Span(line, at, line, at + 1), "a tab where YAML wants blanks", "replace the tab by blanks"
        )
    problem = (error.problem or "this is not YAML").replace("\n", " ")
    begun = error.context_mark
    if begun is not None and begun.line < mark.line:
        problem += f" ({error.context}, begun in line {begun.line + 1})"
    column = mark.column if line == mark.line else len(written)
    return Note("KS1101", Span(line, column, line, column + 1), problem, _SYNTAX_FIX)


_SYNTAX_FIX = "look for a missing colon, quote or bracket, or for indentation that does not line up, here or just above"


def _unprintable(position: int, text: str) -> Note:
    before = split_lines(text[:position])
    line, column = len(before) - 1, len(before[-1])
    message = f"the character U+{ord(text[position]):04X} cannot be in a policy"
    return Note("KS1005", Span(line, column, line, column + 1), message, "take the character out")


_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def split_lines(text: str) -> list[str]:
    """Lines as YAML counts them, without their ends; never empty."""
    return _BREAK.split(text)
