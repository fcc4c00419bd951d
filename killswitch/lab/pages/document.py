"""A page document, rendered as text, Markdown or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup

from killswitch.incident.report.page import html_page
from killswitch.render import layout

WIDEST = 48
"""The most characters of a cell on one line of text."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their heads; `numbers` are the right-aligned columns."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart in two drawings, for a wide screen and for a phone. Both are `<svg>` elements."""

    caption: str
    wide: str
    narrow: str


@dataclass(frozen=True, slots=True)
class Section:
    """A title with text, tables and figures; a `folded` one is closed until it is opened."""

    title: str
    words: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    folded: bool = False


@dataclass(frozen=True, slots=True)
class BacktestPage:
    """`verdict` is the answer in sentences, `facts` is its basis, `warning` its limitation."""

    title: str
    warning: str
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def aligned(table: Table, indent: str = "  ", within: int | None = None) -> str:
    """Return the table as text columns, numbers right-aligned, long cells wrapped, without trailing blanks.

    A table wider than `within` is laid out as on a terminal: narrowed, or a line per column.
    """
    rows = [[layout.wrapped(cell, WIDEST) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(len(line) for row in rows for line in row[column]) for column in range(len(table.head))]

    def lines(row: Sequence[list[str]]) -> Iterator[str]:
        for cells in zip_longest(*row, fillvalue=""):
            padded = (
                cell.rjust(width) if column in table.numbers else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            yield (indent + "  ".join(padded)).rstrip()

    found = [line for row in rows for line in lines(row)]
    if within is not None and max(map(len, found)) > within:
        return layout.table(table.head, table.rows, indent, within)
    return "\n".join(found)


def text(page: BacktestPage, within: int | None = None) -> str:
    """Return the page in text columns, no wider than `within`. Folded sections are omitted and named at the end;
    control characters are replaced."""
    lines = "\n".join(_text_lines(page, within)).rstrip()
    printable = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in lines) + "\n"
    return printable if within is None else layout.fit(printable, within)


def _text_lines(page: BacktestPage, within: int | None) -> Iterator[str]:
    if page.warning:
        yield f"{page.warning}\n"
    width = max((len(name) for name, _ in page.facts), default=0)
    for name, value in page.facts:
        yield f"{name:<{width}}  {value}"
    yield ""
    yield from page.verdict
    for section in page.sections:
        if not section.folded:
            yield from _text_section(section, within)
    folded = [section.title for section in page.sections if section.folded]
    if folded:
        yield f"\nOmitted here, but included in --output json, markdown and html: {', '.join(folded)}."


def _text_section(section: Section, within: int | None) -> Iterator[str]:
    yield f"\n{section.title}"
    yield from (f"  {words}" for words in section.words)
    for table in section.tables:
        if table.caption:
            yield f"\n  {table.caption}"
        yield aligned(table, "    " if table.caption else "  ", within)


_MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Characters that Markdown could parse as markup; an underscore inside a word is not."""


def markdown(page: BacktestPage) -> str:
    """Return the whole page as Markdown, including folded sections, without charts."""
    return "\n".join(_markdown_lines(page)).rstrip() + "\n"


def table_lines(table: Table) -> Iterator[str]:
    """Yield a table as Markdown; names written by users are escaped."""
    yield _row(table.head)
    yield _row(["---:" if column in table.numbers else "---" for column in range(len(table.head))])
    yield from (_row(row) for row in table.rows)


def _markdown_lines(page: BacktestPage) -> Iterator[str]:
    yield f"# {page.title}\n"
    if page.warning:
        yield f"**{_plain(page.warning)}**\n"
    yield from (f"- {name}: {_plain(value)}" for name, value in page.facts)
    yield ""
    yield from (f"{_plain(words)}\n" for words in page.verdict)
    for section in page.sections:
        yield from _markdown_section(section)
    yield "## Notes\n"
    yield from (f"- {_plain(note)}" for note in page.notes)


def _markdown_section(section: Section) -> Iterator[str]:
    yield f"## {_plain(section.title)}\n"
    yield from (f"{_plain(words)}\n" for words in section.words)
    for table in section.tables:
        if table.caption:
            yield f"### {_plain(table.caption)}\n"
        yield from table_lines(table)
        yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Escape all markup, on one line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def html(page: BacktestPage) -> str:
    """Return the page as HTML. Every text is escaped; only charts, which this program drew, are inserted as they
    are."""
    return html_page("page.html.j2", "killswitch.lab.pages", page=page, drawing=Markup)
