"""The layout of a policy file: the same text with other white space.

Only white space between tokens changes, so that comments, order, quoting and line breaks within a value stay as they
are written, by construction. ruamel's own round trip writes the text anew: it joins a mapping in braces that has been
broken on purpose, and moves comments within one (ADR 0160).

The rules: block collections are indented by two, lists below their key as well; one space after `-`, `:` and `,`, none
inside braces; spaces after a `:` stay where the values of neighbouring keys are aligned; two or more spaces before a
comment; at most one blank line, none at either end; no white space at the end of a line.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Sequence

from msgspec import Struct

from killswitch.policy.yaml.parser import DocumentRoot, Node, ParseText, YamlProblem, parse, plain_value, split_lines

STEP = 2
"""Columns of one level of indentation."""

_HEADER = re.compile(r"[|>][-+0-9]*")
_MARKER = re.compile(r"(?:---|\.\.\.)(?=\s|$)")


class KeptSpan(Struct, frozen=True):
    """Columns of a line that stay as they are, a key or a value; an empty one only says where something begins.

    `keeps_gap`: the spaces before it stay.
    """

    start: int
    end: int
    keeps_gap: bool = False


KeptSpans = Sequence[KeptSpan]
NO_SPANS: KeptSpans = ()

COMMENT_GAP = 2
"""The fewest spaces before a comment behind a value."""


class LayoutError(Exception):
    """The file cannot be formatted without a change of its content, or is not YAML; `problems` if it is not."""

    def __init__(self, message: str, problems: Sequence[YamlProblem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


def formatted(text: str, parse_text: ParseText = parse) -> str:
    """The text in the layout of this module, with `\\n` at the end of each line.

    LayoutError if it is not a policy file's YAML, or if a change of white space would change what it means. The result
    is a fixed point: formatting it again changes nothing. `parse_text`: another way to the result of `parse`.
    """
    content = _parsed(text, parse_text)
    shown = _laid_out(text, content)
    if shown == text:
        return text
    why = _damage(text, content, shown)
    if why is not None:
        raise LayoutError(f"cannot be formatted: {why}")
    return shown


def _damage(text: str, content: Sequence[DocumentRoot], shown: str) -> str | None:
    """Why the new text must not replace the old one; None if it may. The plan is never trusted alone."""
    problems: list[YamlProblem] = []
    again = parse(shown, problems.append)
    if problems or [plain_value(each.node) for each in again] != [plain_value(each.node) for each in content]:
        return "a change of its white space would change a value"
    if "".join(shown.split()) != "".join(text.split()) or _laid_out(shown, again) != shown:
        return "its layout has no stable form"
    return None


def _parsed(text: str, parse_text: ParseText) -> list[DocumentRoot]:
    problems: list[YamlProblem] = []
    roots = parse_text(text, problems.append)
    if problems:
        raise LayoutError(problems[0].message, problems)
    return roots


def _laid_out(text: str, roots: Sequence[DocumentRoot]) -> str:
    lines = split_lines(text)
    plan = _Plan(lines)
    for root in roots:
        plan.node(root.node, 0, None)
    written = list(_without_extra_blanks(plan.lines()))
    return "\n".join(written) + "\n" if written else ""


def _without_extra_blanks(lines: Iterator[tuple[str, bool]]) -> Iterator[str]:
    """At most one blank line in a row, none at either end; `True` marks a line that is part of a text."""
    blank = False
    begun = False
    for line, is_text in lines:
        if not line and not is_text:
            blank = begun
            continue
        if blank:
            yield ""
        yield line
        blank, begun = False, True


class _Shift(Struct, frozen=True):
    """A line that keeps its distance to the line where its value begins. `least`: its smallest new indentation."""

    first: int
    least: int


class _Plan:
    """The new indentation of every line, and the pieces of it that stay as they are."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._indents: dict[int, int] = {}
        """Line → its new indentation, for lines that begin with a key, a dash, or a value below its key."""
        self._shifts: dict[int, _Shift] = {}
        self._kept: dict[int, list[KeptSpan]] = {}
        self._texts: dict[int, int] = {}
        """Line of the content of a block text → the change of its indentation."""
        self._begun: list[int] = []
        """The lines of `_indents` in order, once all are known."""

    # From the tree

    def node(self, node: Node, indent: int, first: int | None) -> None:
        """Plan a node whose block begins at the new column `indent`. `first`: the line on which its key or dash is."""
        if self._is_block(node):
            if node.pairs is not None:
                self._mapping(node, indent)
            else:
                self._sequence(node, indent)
            return
        if node.text == "" and node.plain:
            return  # nothing is written, and the place is that of what comes next
        if first is None or node.span.line != first:
            self._begin(node.span.line, node.span.column, indent)
        self._flow_or_scalar(node, indent)

    def _is_block(self, node: Node) -> bool:
        if node.text is not None:
            return False
        line = self._lines[node.span.line] if node.span.line < len(self._lines) else ""
        return line[node.span.column : node.span.column + 1] not in ("{", "[")

    def _mapping(self, node: Node, indent: int) -> None:
        pairs = list((node.pairs or {}).values())
        for number, (key, value) in enumerate(pairs):
            self._begin(key.span.line, key.span.column, indent)
            self._scalar(key, indent)
            self.node(value, indent + STEP, key.span.end_line)
            if _is_aligned(pairs, number):
                self._keep(key.span.end_line, KeptSpan(value.span.column, value.span.column, keeps_gap=True))

    def _sequence(self, node: Node, indent: int) -> None:
        column = node.span.column
        for item in node.items or ():
            dash = self._dash(item, column)
            self._begin(dash, column, indent)
            self.node(item, indent + STEP, dash)

    def _dash(self, item: Node, column: int) -> int:
        """The line of an item's dash: its own, or above it."""
        line = item.span.line
        while line > 0 and (self._lines[line][column : column + 1] != "-" or self._is_comment(line)):
            line -= 1
        return line

    def _is_comment(self, line: int) -> bool:
        return self._lines[line].lstrip().startswith("#")

    def _begin(self, line: int, column: int, indent: int) -> None:
        """Indent the line if nothing is written before this column."""
        if not self._lines[line][:column].strip():
            self._indents[line] = indent

    def _flow_or_scalar(self, node: Node, indent: int) -> None:
        if node.text is not None:
            if node.text or not node.plain:  # an empty value is nothing written, and begins wherever the next one does
                self._scalar(node, indent)
            return
        for line in range(node.span.line + 1, node.span.end_line + 1):
            self._shifts.setdefault(line, _Shift(node.span.line, indent))
        for key, value in (node.pairs or {}).values():
            self._flow_or_scalar(key, indent)
            self._flow_or_scalar(value, indent)
        for item in node.items or ():
            self._flow_or_scalar(item, indent)

    def _scalar(self, node: Node, indent: int) -> None:
        span = node.span
        line = self._lines[span.line]
        if not node.plain and (header := _HEADER.match(line, span.column)) is not None:
            self._keep(span.line, KeptSpan(span.column, header.end()))
            self._block_text(span.line, header[0], indent)
            return
        if span.line == span.end_line:
            self._keep(span.line, KeptSpan(span.column, span.end_column))
            return
        self._keep(span.line, KeptSpan(span.column, len(line)))
        for number in range(span.line + 1, span.end_line + 1):
            end = span.end_column if number == span.end_line else len(self._lines[number])
            start = len(self._lines[number]) - len(self._lines[number].lstrip(" \t"))
            self._keep(number, KeptSpan(min(start, end), end))
            self._shifts.setdefault(number, _Shift(span.line, indent))

    def _keep(self, line: int, span: KeptSpan) -> None:
        self._kept.setdefault(line, []).append(span)

    def _block_text(self, header: int, marks: str, indent: int) -> None:
        """Plan the content of a text that begins with `|` or `>` in the line `header`."""
        parent = indent - STEP
        lines = self._lines
        first = next((number for number in range(header + 1, len(lines)) if lines[number].strip()), None)
        if first is None:
            return
        digits = re.sub(r"\D", "", marks)
        old_parent = _indentation(lines[header]) if not digits else self._column_of_parent(header)
        base = old_parent + int(digits) if digits else _indentation(lines[first])
        new = parent + int(digits) if digits else indent
        if not digits and base <= old_parent and not lines[header].lstrip().startswith(("|", ">", "-")):
            return  # the text is empty, and the next line is no part of it
        last = self._end_of_text(first, base)
        if "+" not in marks:
            while last > header + 1 and not lines[last - 1].strip():
                last -= 1
        elif last == len(lines) and not lines[-1]:
            last -= 1  # what follows the last line end is no line
        for number in range(header + 1, last):
            self._texts[number] = new - base

    def _end_of_text(self, first: int, base: int) -> int:
        """The first line at or after `first` that is written left of the column `base`."""
        below = range(first, len(self._lines))
        return next((it for it in below if self._lines[it].strip() and _indentation(self._lines[it]) < base),
                    len(self._lines))  # fmt: skip

    def _column_of_parent(self, header: int) -> int:
        """The column of the key on the line of a block text, behind any dashes."""
        line = self._lines[header]
        return len(line) - len(re.sub(r"^\s*(?:-\s+)*", "", line))

    # To the lines

    def lines(self) -> Iterator[tuple[str, bool]]:
        """The new lines, each with whether it is part of a text, whose blank lines count."""
        self._begun = sorted(self._indents)
        for number, line in enumerate(self._lines):
            if number in self._texts:
                yield self._text_line(line, self._texts[number]), True
            elif _MARKER.match(line):
                yield line.rstrip(), False
            elif not line.strip():
                yield "", number in self._shifts
            else:
                indent = self._new_indent(number)
                yield f"{' ' * indent}{spaced(line, self._kept.get(number, NO_SPANS))}", False

    def _text_line(self, line: str, change: int) -> str:
        if not line.strip(" ") and len(line) + change <= 0:
            return ""
        return " " * change + line if change >= 0 else line[min(-change, _indentation(line)) :]

    def _new_indent(self, number: int) -> int:
        if number in self._indents:
            return self._indents[number]
        if _MARKER.match(self._lines[number]):
            return 0
        old = _indentation(self._lines[number])
        if (shift := self._shifts.get(number)) is not None:
            change = self._new_indent(shift.first) - _indentation(self._lines[shift.first])
            return max(old + change, shift.least if self._kept.get(number) else 0)
        return self._comment_indent(number, old)

    def _comment_indent(self, number: int, old: int) -> int:
        """A comment is indented as the next line, or as the line above it that it is aligned with."""
        at = bisect(self._begun, number)
        below = self._begun[at] if at < len(self._begun) else None
        if below is not None and (number - 1 in self._texts or self._belongs_below(old, at)):
            return self._indents[below]
        for above in (self._begun[it] for it in range(at - 1, -1, -1)):
            if _indentation(self._lines[above]) <= old:
                return self._indents[above]
        return 0 if below is None else self._indents[below]

    def _belongs_below(self, old: int, at: int) -> bool:
        """Whether a comment belongs to the line `at` of those begun, below it: it may also end a deeper block above."""
        column = _indentation(self._lines[self._begun[at]])
        return old == column or (old > column and (at == 0 or _indentation(self._lines[self._begun[at - 1]]) <= column))


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_aligned(pairs: Sequence[tuple[Node, Node]], number: int) -> bool:
    """Whether the value of a pair is in the same column as that of the pair before or after it."""
    column = _value_column(pairs[number])
    near = (_value_column(pairs[other]) for other in (number - 1, number + 1) if 0 <= other < len(pairs))
    return column is not None and column in near


def _value_column(pair: tuple[Node, Node]) -> int | None:
    """The column of a value on the line of its key; None for any other, and for an empty one."""
    key, value = pair
    return value.span.column if value.span.line == key.span.line and value.text != "" else None


def spaced(line: str, spans: KeptSpans) -> str:
    """The line without its indentation, spaced. `spans`: its keys and values."""
    line = line if spans and spans[-1].end == len(line) else line.rstrip()
    kept = {span.start for span in spans if span.keeps_gap}
    parts: list[str] = []
    at = len(line) - len(line.lstrip(" \t"))
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if span.start == span.end or span.end <= at:
            continue
        parts += [_gap(line[at : span.start], kept, at, parts), line[span.start : span.end]]
        at = span.end
    parts.append(_tail(line[at:], kept, at, parts))
    return "".join(parts)


def _tail(text: str, kept: set[int], at: int, before: list[str]) -> str:
    """What follows the last value: brackets, and a comment."""
    mark = text.find("#")
    if mark < 0:
        return _gap(text, kept, at, before).rstrip(" ")
    head, comment = text[:mark], text[mark:]
    shown = _gap(head, kept, at, before).rstrip(" ")
    if not shown and not any(before):
        return comment
    spaces = len(head) - len(head.rstrip(" \t"))
    return f"{shown}{' ' * max(COMMENT_GAP, spaces)}{comment}"


def _gap(text: str, kept: set[int], at: int, before: list[str]) -> str:
    """The punctuation between two values. `at`: the column where it begins."""
    shown = ""
    for number, char in enumerate(text):
        if char in " \t":
            continue
        if char in "}],:":
            shown = shown.rstrip(" ")
            if shown.endswith(":"):
                shown += " "  # a value that is left out: `c:}` would be a word
        if char in "{[" and (at + number) in kept:
            shown = shown.rstrip(" ") + _written_gap(text, number)
        shown += char + ("" if char in "{[}]" else " ")
    if text and (at + len(text)) in kept and text[-1] in " \t":
        return shown.rstrip(" ") + _written_gap(text, len(text))
    if not shown and text and any(before):
        return " "
    return shown


def _written_gap(text: str, end: int) -> str:
    """The spaces before column `end` of the text."""
    return " " * (end - len(text[:end].rstrip(" \t")))
