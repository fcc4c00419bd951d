"""A page for people, rendered as text or Markdown: verbs and reports are pages. `html.py` renders it as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from msgspec import Struct

from killswitch.model.legible import one_line
from killswitch.render import layout

FOOTNOTE_FROM = 37
"""Longest reason in a table cell, in characters; longer ones become footnotes."""


class Items(Struct, frozen=True):
    """A list, one line each."""

    lines: tuple[str, ...]


class Facts(Struct, frozen=True):
    """Names with their values: each row is a name and the lines of its value."""

    rows: tuple[tuple[str, ...], ...]


class Table(Struct, frozen=True):
    """Rows under their heads; `numbers` are the right-aligned columns, `notes` the footnotes.

    `widest`: the most characters of a cell on one line of text; None: a row is one line where it fits.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    caption: str = ""
    notes: tuple[str, ...] = ()
    widest: int | None = None


class Figure(Struct, frozen=True):
    """A chart in two drawings, for a wide screen and for a phone. Both are `<svg>` elements; text has neither."""

    caption: str
    wide: str
    narrow: str


class Code(Struct, frozen=True):
    """Lines with a layout of their own, such as a line of a file above its caret: text cuts them and wraps none."""

    lines: tuple[str, ...]


class Prose(Struct, frozen=True):
    """Markdown that a template has written, with its own headings. `figure` replaces its code block of a drawing."""

    markdown: str
    figure: Figure | None = None

    DRAWN: ClassVar[str] = "equity"
    """The language of that code block; text and Markdown show the block itself."""


Part = str | Items | Facts | Table | Figure | Code | Prose
"""A piece of a section; a text is a paragraph."""


class Section(Struct, frozen=True):
    """A title with its parts; a `folded` one is closed until it is opened. Without a title, parts on their own."""

    title: str
    parts: tuple[Part, ...] = ()
    folded: bool = False

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Table))


class Page(Struct, frozen=True):
    """`summary` is the answer in sentences, `facts` is its basis, `warning` its limitation.

    Text begins with the facts: the command line above it is its title, and it has no `notes`. A page of prose has no
    title: the first heading of its prose is its title.
    """

    title: str
    facts: Facts = Facts(())
    summary: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    warning: str = ""
    notes: tuple[str, ...] = ()


class Footnotes:
    """Footnotes of a table: each long reason is printed once below it, and cells refer to its number."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The reason if it fits into a cell, else its footnote number."""
        if len(reason) <= FOOTNOTE_FROM:
            return reason
        return f"[{self._found.setdefault(reason, len(self._found) + 1)}]"

    @property
    def notes(self) -> tuple[str, ...]:
        """The footnotes."""
        return tuple(f"[{number}] {reason}" for reason, number in self._found.items())


def section(title: str, *parts: Part | None) -> Iterator[Section]:
    """A section of the parts that have something to show; none without such a part."""
    found = tuple(part for part in parts if part is not None and not _is_empty(part))
    if found:
        yield Section(title, found)


def _is_empty(part: Part) -> bool:
    match part:
        case Items(lines) | Code(lines):
            return not lines
        case Facts(rows) | Table(_, rows):
            return not rows
        case _:
            return not part


# Text


def text(page: Page, within: int | None = None) -> str:
    """Return the page in text columns, no wider than `within`, without a final line break.

    Folded sections are omitted and named at the end; control characters are escaped.
    """
    blocks = [
        one_line(page.warning),
        "\n".join(_fact_lines(page.facts, "", within)),
        "\n".join(map(one_line, page.summary)),
    ]
    blocks += [section_text(each, within) for each in page.sections if not each.folded]
    folded = [each.title for each in page.sections if each.folded]
    if folded:
        blocks.append(f"Omitted here, but included in --output json, markdown and html: {', '.join(folded)}.")
    lines = "\n\n".join(block for block in blocks if block)
    return lines if within is None else layout.fit(lines, within)


def section_text(shown: Section, within: int | None = None) -> str:
    """Return one section in text columns."""
    indent = "  " if shown.title else ""
    lines = [one_line(shown.title)] if shown.title else []
    for part in shown.parts:
        match part:
            case Items(items):
                lines += [indent + one_line(line) for line in items]
            case Code(code):
                lines += [layout.cut(indent + one_line(line), within) for line in code]
            case Prose(source):
                lines += map(one_line, source.rstrip().split("\n"))
            case Facts():
                lines += _fact_lines(part, indent, within)
            case Table():
                if part.caption:
                    lines += (
                        ["", f"{indent}{one_line(part.caption)}"] if lines[1:] else [indent + one_line(part.caption)]
                    )
                lines += table_text(part, f"{indent}  " if part.caption else indent, within).split("\n")
            case str():
                lines.append(indent + one_line(part))
    return "\n".join(line.rstrip() for line in lines)


def table_text(table: Table, indent: str = "  ", within: int | None = None) -> str:
    """Return a table in text columns with its footnotes, without its caption."""
    shown = layout.table(table.head, table.rows, indent, within, table.numbers, table.widest)
    return "\n".join((shown, *(one_line(f"{indent}{note}") for note in table.notes)))


def _fact_lines(facts: Facts, indent: str, within: int | None) -> Iterator[str]:
    width = max((len(one_line(name)) for name, *_ in facts.rows), default=0)
    for name, *lines in facts.rows:
        label = f"{indent}{one_line(name):<{width}}  "
        for line in map(one_line, lines):
            yield from layout.labelled(label, line, indent, within)
            label = " " * len(label)


# Markdown

_MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Characters that Markdown could parse as markup; an underscore inside a word is not."""


def markdown(page: Page) -> str:
    """Return the whole page as Markdown, including folded sections, without charts and a final line break."""
    return "\n".join(_markdown_lines(page)).rstrip()


def table_lines(table: Table) -> Iterator[str]:
    """Yield a table as Markdown; names written by users are escaped."""
    yield _row(table.head)
    yield _row(["---:" if column in table.numbers else "---" for column in range(len(table.head))])
    yield from (_row(row) for row in table.rows)


def _markdown_lines(page: Page) -> Iterator[str]:
    if page.title:
        yield f"# {_plain(page.title)}\n"
    if page.warning:
        yield f"**{_plain(page.warning)}**\n"
    if page.facts.rows:
        yield from _markdown_part(page.facts)
    yield from (f"{_plain(words)}\n" for words in page.summary)
    for each in page.sections:
        if each.title:
            yield f"## {_plain(each.title)}\n"
        for part in each.parts:
            yield from _markdown_part(part)
    if page.notes:
        yield "## Notes\n"
        yield from (f"- {_plain(note)}" for note in page.notes)


def _markdown_part(part: Part) -> Iterator[str]:
    match part:
        case str():
            yield f"{_plain(part)}\n"
        case Items(lines):
            yield "\n".join(f"- {_plain(line)}" for line in lines) + "\n"
        case Code(lines):
            fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
            yield "\n".join((fence, *map(one_line, lines), fence)) + "\n"
        case Prose(source):
            yield source
        case Facts(rows):
            yield "\n".join(f"- {_plain(name)}: {_plain('; '.join(lines))}" for name, *lines in rows) + "\n"
        case Table():
            if part.caption:
                yield f"### {_plain(part.caption)}\n"
            yield from table_lines(part)
            yield ""
            yield from (f"{_plain(note)}\n" for note in part.notes)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Escape all markup, on one line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
