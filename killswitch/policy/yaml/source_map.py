"""Source positions of a document's values, for diagnostics and for `explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from killswitch.model.words import Place
from killswitch.policy.diagnostics.diagnostic import Diagnostic, Severity, diagnostic
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import Node, TextSpan

Path = tuple[str | int, ...]
NO_ALIASES: Mapping[Path, Path] = {}


class SourceMap:
    """The text of one document with the positions of its nodes. Paths are keys and list indexes as written.

    `aliases`: paths of derived values → paths at which they are written; where nothing is written there, they do not
    apply.
    """

    def __init__(self, written: MaskedText, root: Node, aliases: Mapping[Path, Path] = NO_ALIASES) -> None:
        self.file = written.file
        self._aliases = [each for each in aliases.items() if _written(root, each[1])]
        self._written = written
        self._root = root

    @property
    def lines(self) -> Sequence[str]:
        """The lines of the whole file, as written."""
        return self._written.lines

    @property
    def written(self) -> MaskedText:
        """The whole file."""
        return self._written

    def as_written(self, path: Path) -> Path:
        """The path at which the value is written; itself unless it is a derived one."""
        for derived, written in self._aliases:
            if path[: len(derived)] == derived:
                return (*written, *path[len(derived) :])
        return path

    def place(self, path: Path, *, key: bool = False) -> Place:
        """The place of the value at `path`, or of its key; for a missing path, the place of its last existing part."""
        return self._written.place(self._span(path, key=key))

    def diagnostic(
        self, code: str, path: Path, message: str, fix: str, *, key: bool = False, severity: Severity = "error"
    ) -> Diagnostic:
        """A diagnostic at the value at `path`, or at its key, which underlines its first line."""
        span = self._span(path, key=key)
        place, length = self._written.place(span), self._written.length(span)
        return diagnostic(code, place, message, fix, length=length, severity=severity)

    def inside(self, path: Path, offset: int) -> Place:
        """The place of character `offset` of the text at `path`, for any quoting and folding."""
        node = self._node(self.as_written(path))[0]
        if node.text is None:
            return self._written.place(node.span)
        line, column = _position(self._written.lines, node, offset)
        return self._written.place(TextSpan(line, column, line, column + 1))

    def node(self, path: Path) -> Node | None:
        """The node at `path`, or None if there is none."""
        path = self.as_written(path)
        node, found = self._node(path)
        return node if found == len(path) else None

    def _node(self, path: Path) -> tuple[Node, int]:
        """The last existing node on the path, and the number of steps to it."""
        node = self._root
        for depth, step in enumerate(path):
            below = _below(node, step)
            if below is None:
                return node, depth
            node = below[1]
        return node, len(path)

    def _span(self, path: Path, *, key: bool) -> TextSpan:
        """The span of a value or its key; of a missing value, that of the key of its nearest existing container."""
        path = self.as_written(path)
        node, found = self._node(path)
        if found == len(path) and not key:
            return node.span
        while found:
            below = _below(self._node(path[: found - 1])[0], path[found - 1])
            if below is not None:
                return (below[0] or below[1]).span
            found -= 1
        return _first(self._root)


def _below(node: Node, step: str | int) -> tuple[Node | None, Node] | None:
    """(key, value) one step down."""
    if node.pairs is not None and isinstance(step, str):
        return node.pairs.get(step)
    if node.items is not None and isinstance(step, int) and 0 <= step < len(node.items):
        return None, node.items[step]
    return None


def _written(root: Node, path: Path) -> bool:
    """Whether there is a value at the path."""
    node: Node | None = root
    for step in path:
        below = None if node is None else _below(node, step)
        node = None if below is None else below[1]
    return node is not None


def _first(root: Node) -> TextSpan:
    """The first key of a document, where missing keys are reported."""
    if root.pairs:
        return next(iter(root.pairs.values()))[0].span
    return root.span


def _position(lines: Sequence[str], node: Node, offset: int) -> tuple[int, int]:
    """The line and column of a character of a value, skipping escapes, folding and indentation."""
    value = node.text or ""
    line, column = node.span.line, node.span.column
    head = lines[line][column : column + 1] if line < len(lines) else ""
    quote = head if head in ("'", '"') and not node.plain else ""
    if quote:
        column += 1
    elif head in ("|", ">") and not node.plain:
        line, column = line + 1, 0
    for index, wanted in enumerate(value):
        line, column = _next(lines, line, column, wanted, quote)
        if index == min(offset, len(value) - 1):
            break
        column += _width(lines[line], column, wanted, quote) if line < len(lines) else 1
    return min(line, len(lines) - 1), column


def _next(lines: Sequence[str], line: int, column: int, wanted: str, quote: str) -> tuple[int, int]:
    """The position at or after this one where `wanted` is written, past line ends and indentation."""
    while line < len(lines):
        remaining = lines[line][column:]
        if wanted in " \n" and not remaining.strip() and line + 1 < len(lines):
            return line, column
        if remaining.startswith((wanted, "\\")) or (quote == "'" and remaining.startswith("''")):
            return line, column
        if remaining.strip():
            # indentation before the text of a continued line
            column += len(remaining) - len(remaining.lstrip())
            if not lines[line][column:].startswith((wanted, "\\")):
                return line, column
            continue
        line, column = line + 1, 0
    return line, column


def _width(text: str, column: int, wanted: str, quote: str) -> int:
    """The number of written characters that represent `wanted`."""
    remaining = text[column:]
    if quote == "'" and wanted == "'":
        return 2
    if quote == '"' and remaining.startswith("\\"):
        return {"x": 4, "u": 6, "U": 10}.get(remaining[1:2], 2)
    return 1
