"""A parser of YAML texts into trees of nodes with source positions.

It uses ruamel.yaml's events rather than its composer: policies use a subset of YAML (no anchors, tags or merges), and
each construct outside it is reported at its place while parsing continues. Parsing does not recurse, so deep nesting
always ends in a diagnostic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

DEEPEST = 40
"""The maximum nesting; policies nest about ten deep."""
LARGEST = 100_000
"""The maximum number of nodes in one file, more than in any firm's policy set."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d{1,18}\.\d{0,18}|\.\d{1,18}|\d{1,18}(?=[eE]))(?:[eE][+-]?\d{1,2})?", re.ASCII)


class TextSpan(Struct, frozen=True):
    """Where something begins and ends, lines and columns counted from 0; the end is just past it."""

    line: int
    column: int
    end_line: int
    end_column: int


class YamlProblem(Struct, frozen=True):
    """A problem of the YAML text itself."""

    code: str
    span: TextSpan
    message: str
    fix: str


class DocumentRoot(Struct, frozen=True):
    """The root of one document; `sound` is false if its text has a problem."""

    node: Node
    sound: bool


class Node:
    """A value as written. Exactly one of `text`, `pairs` and `items` is not None; `pairs` is key → (key, value).

    `refused`: the value already has a diagnostic and needs no other.
    """

    __slots__ = ("items", "pairs", "plain", "refused", "span", "text")

    def __init__(self, span: TextSpan, text: str | None = None, plain: bool = False) -> None:
        self.span = span
        self.text = text
        self.plain = plain
        self.refused = False
        self.pairs: dict[str, tuple[Node, Node]] | None = None
        self.items: list[Node] | None = None


def parse(text: str, note: Callable[[YamlProblem], None]) -> list[DocumentRoot]:
    """The non-empty documents of a text; problems are passed to `note`.

    If the text stops being valid YAML, the result is the documents before that point.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    documents: list[DocumentRoot] = []
    builder = _Builder(documents, note)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.process(event)
    except _TooLargeError:
        pass  # the problem is reported already
    except MarkedYAMLError as error:
        note(_syntax(error, text))
    except ReaderError as error:
        note(_unprintable(error.position, text))
    return documents


ParseText = Callable[[str, Callable[[YamlProblem], None]], list[DocumentRoot]]
"""What `parse` does: the documents of a text, with its problems passed on."""


def plain_value(node: Node) -> object:
    """The value as dict, list, str, int, Decimal, bool or None, by YAML 1.2's core schema.

    Numbers with a decimal point are Decimal, exactly as written. Overlong numbers stay text.
    """
    if node.pairs is not None:
        return {key: plain_value(value) for key, (_, value) in node.pairs.items()}
    if node.items is not None:
        return [plain_value(item) for item in node.items]
    text = node.text or ""
    return _scalar_value(text) if node.plain else text


def is_null(text: str) -> bool:
    """Whether a plain scalar with this text is null."""
    return text in _NULL


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
    """An open mapping or list, with the key that waits for its value."""

    __slots__ = ("key", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key: Node | None = None


class _Builder:
    """Builds the tree from events."""

    def __init__(self, documents: list[DocumentRoot], note: Callable[[YamlProblem], None]) -> None:
        self._documents = documents
        self._note = note
        self._open: list[_Frame] = []
        self._count = 0
        self._root: Node | None = None
        self._sound = True

    def process(self, event: Any) -> None:
        """Process the next event. Raises _TooLargeError, after a note, if the rest must not be parsed."""
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
                node.span = replace(node.span, end_line=event.end_mark.line, end_column=event.end_mark.column)
            case "AliasEvent":
                self._alias(event)
            case "DocumentStartEvent":
                self._root, self._sound = None, True
                self._directives(event)
            case "DocumentEndEvent" if self._root is not None:
                self._documents.append(DocumentRoot(self._root, self._sound))

    def _begin(self, event: Any, node: Node) -> None:
        """Attach a node to its container; a mapping or a list stays open."""
        self._properties(event)
        node.refused = event.ctag is not None
        self._attach(node)
        self._count += 1
        if node.text is None:
            self._open.append(_Frame(node))
        if len(self._open) > DEEPEST:
            self._report("KS1107", node.span, f"nested more than {DEEPEST} deep", "reduce the nesting")
            raise _TooLargeError
        if self._count > LARGEST:
            self._report("KS1107", _span(event), f"more than {LARGEST} values in one file", "split the file")
            raise _TooLargeError

    def _alias(self, event: Any) -> None:
        span = _span(event)
        self._report("KS1104", span, f"`*{event.anchor}` is an alias of a value written elsewhere", _WRITE_OUT)
        node = Node(span, f"*{event.anchor}")
        node.refused = True
        self._attach(node)

    def _properties(self, event: Any) -> None:
        """Report anchors and tags, which precede the value."""
        start = event.start_mark
        if event.anchor is not None:
            span = TextSpan(start.line, start.column, start.line, start.column + len(event.anchor) + 1)
            self._report("KS1104", span, f"`&{event.anchor}` is an anchor", f"remove it; {_WRITE_OUT}")
        if event.ctag is not None:
            span = TextSpan(start.line, start.column, start.line, start.column + 1)
            fix = "remove it; quote text that YAML would parse as a number"
            self._report("KS1106", span, "tags are not allowed in policies", fix)

    def _directives(self, event: Any) -> None:
        if event.version is not None or event.tags:
            # the event is at the `---`, the directive above it
            span = TextSpan(max(0, event.start_mark.line - 1), 0, event.start_mark.line, 0)
            self._report("KS1108", span, "directives are not allowed in policies", "remove the line that begins with %")

    def _attach(self, node: Node) -> None:
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
            self._report("KS1109", key.span, "a key must be a plain word", "write the key as a plain word")
        elif key.text == "<<" and key.plain:
            frame.node.refused = True
            self._report("KS1105", key.span, "`<<` merges keys of another mapping", _WRITE_OUT)
        elif key.text in pairs:
            first = pairs[key.text][0].span.line + 1
            fix = "keep one of the two; which of them applies is ambiguous"
            self._report("KS1103", key.span, f"`{key.text}` is already given in line {first}", fix)
        else:
            pairs[key.text] = (key, value)

    def _report(self, code: str, span: TextSpan, message: str, fix: str) -> None:
        self._sound = False
        self._note(YamlProblem(code, span, message, fix))


_WRITE_OUT = "write the value out here, so that readers of the policy see it"


def _span(event: Any) -> TextSpan:
    start, end = event.start_mark, event.end_mark
    return TextSpan(start.line, start.column, end.line, end.column)


def _content_span(event: Any) -> TextSpan:
    """The span without trailing spaces and comments: ruamel ends an empty value at the next token."""
    span = _span(event)
    if not event.value and event.style is None:
        return replace(span, end_line=span.line, end_column=span.column)
    return span


def _syntax(error: Any, text: str) -> YamlProblem:
    """A note of ruamel's syntax error at its position; a tab is reported as such."""
    mark = error.problem_mark or error.context_mark
    lines = split_lines(text)
    line = min(mark.line, len(lines) - 1)
    written = lines[line]
    indentation = written[: len(written) - len(written.lstrip(" \t"))]
    at = mark.column if written[mark.column : mark.column + 1] == "\t" else indentation.find("\t")
    if at >= 0:
        span = TextSpan(line, at, line, at + 1)
        return YamlProblem("KS1102", span, "a tab where YAML requires spaces", "replace the tab with spaces")
    message, fix = _explained(error.problem or "", error.context or "", (error.context_mark or mark).line + 1)
    column = mark.column if line == mark.line else len(written)
    return YamlProblem("KS1101", TextSpan(line, column, line, column + 1), message, fix)


def _explained(problem: str, context: str, begun: int) -> tuple[str, str]:
    """Message and fix for a syntax error of ruamel: its `problem`, and the `context` that has `begun` in that line."""
    for pattern, message, fix in _SYNTAX_ERRORS:
        if (found := re.search(pattern, f"{problem}; {context}")) is not None:
            return message.format(*found.groups(), line=begun), fix.format(*found.groups())
    return "this is not valid YAML", "look for a missing colon, quote or bracket, or for inconsistent indentation"


_SYNTAX_ERRORS = (
    (r"mapping values are not allowed", "a `:` where no key can be",
     "quote a value that contains `: `, or align the key with its neighbours"),
    (r"(?:mapping keys|sequence entries) are not allowed", "an item of a list or mapping cannot begin here",
     "begin it on a line of its own, below its key"),
    (r"(?:end of stream|document separator).*quoted scalar",
     "the text in quotes that begins in line {line} does not end", "add the closing quote"),
    (r"expected ',' or '(\S)', but got '<stream end>'", "the bracket that opens in line {line} is not closed",
     "add `{0}` at its end"),
    (r"expected ',' or '(\S)'", "a comma or `{0}` is missing", "separate items with commas, and close with `{0}`"),
    (r"<block end>, but found '(?:-|<block sequence start>)'", "a list item cannot begin here",
     "align it with the other items, or put the list below a key of its own"),
    (r"<block end>, but found '<scalar>'", "more text after the end of a value", "put the whole value in quotes"),
    (r"<block end>", "the indentation fits no line above", "align the key with the keys that it belongs to"),
    (r"character ['\"](.)['\"] that cannot start", "a value cannot begin with `{0}`", "put the value in quotes"),
    (r"chomping or indentation|indentation indicator", "text behind `|` or `>`", "begin the text in the next line"),
    (r"escape (?:character|sequence)|double-quoted scalar", "an escape that YAML does not have",
     "write a backslash as `\\\\`, or use single quotes"),
    (r"expected the node content", "a value is missing here", "write the value, or remove the bracket"),
    (r"could not find expected ':'", "a key without a colon", "write `key: value`"),
    (r"document (?:start|end)", "more text after the end of the document", "separate documents by a line with `---`"),
)  # fmt: skip
"""Pattern in a syntax error of ruamel → message, and fix; `{0}` is what the pattern captured, `{line}` where the
context begins."""


def _unprintable(position: int, text: str) -> YamlProblem:
    before = split_lines(text[:position])
    line, column = len(before) - 1, len(before[-1])
    message = f"the character U+{ord(text[position]):04X} is not allowed in a policy"
    return YamlProblem("KS1005", TextSpan(line, column, line, column + 1), message, "remove the character")


_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def split_lines(text: str) -> list[str]:
    """The lines of a text by YAML's rules, without line ends; at least one."""
    return _BREAK.split(text)


def line_starts(text: str) -> list[int]:
    """The offset of the first character of each line, by the same rules."""
    return [0, *(found.end() for found in _BREAK.finditer(text))]
