"""A page for people, rendered as text or Markdown: verbs and reports are pages. `html.py` renders it as HTML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.legible import one_line
from killswitch.render import layout
from killswitch.render.formats import listed

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

    `widest`: the most characters of a cell on one line of text; None: a row is one line where it fits. `expendable`:
    the columns that a narrow terminal leaves out, the least important first. `ids`: the columns of ids, of which a
    terminal shows what is unique on the page.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    caption: str = ""
    notes: tuple[str, ...] = ()
    widest: int | None = None
    expendable: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()

    def within(self, room: int) -> tuple[Table, tuple[str, ...]]:
        """The table without the columns for which a terminal of `room` columns is too narrow, and their names."""
        kept = layout.kept_columns(self.head, self.rows, room, self.expendable)
        left_out = tuple(name for column, name in enumerate(self.head) if column not in kept)
        shown = replace(
            self,
            head=tuple(self.head[column] for column in kept),
            rows=tuple(tuple(row[column] for column in kept) for row in self.rows),
            numbers=tuple(kept.index(column) for column in self.numbers if column in kept),
            expendable=(),
            ids=(),
        )
        return shown, left_out


def left_out_line(names: Iterable[str]) -> str:
    """The line below what was left out on a terminal; empty for nothing."""
    found = list(dict.fromkeys(name for name in names if name))
    return f"Left out: {listed(found)}; `-o wide` shows all." if found else ""


class Figure(Struct, frozen=True):
    """A chart in two drawings, for a wide screen and for a phone. Both are `<svg>` elements; text has neither."""

    caption: str
    wide: str
    narrow: str


class Code(Struct, frozen=True):
    """Lines with a layout of their own, such as a line of a file above its caret: text cuts them and wraps none."""

    lines: tuple[str, ...]


class Prose(Struct, frozen=True):
    """Markdown that a template has written, with its own headings.

    Each figure, with its name, replaces the code block whose language that is; text and Markdown show the block itself.
    """

    markdown: str
    figures: tuple[tuple[str, Figure], ...] = ()


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
        return reason if len(reason) <= FOOTNOTE_FROM else self.numbered(reason)

    def numbered(self, reason: str) -> str:
        """The footnote number of a reason, however short."""
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


def text(page: Page, within: int | None = None, *, is_marked: bool = False) -> str:
    """Return the page in text columns, without a final line break; with `within`, as a terminal of that width shows it.

    Folded sections are omitted and named at the end; control characters are escaped. `is_marked`: lines of heads begin
    with `layout.HEAD`.
    """
    page = page if within is None else _narrowed(page, within)
    blocks = [
        one_line(page.warning),
        "\n".join(_fact_lines(page.facts, "", within)),
        "\n".join(map(one_line, page.summary)),
    ]
    blocks += [section_text(each, within, is_marked=is_marked) for each in page.sections if not each.folded]
    folded = [each.title for each in page.sections if each.folded]
    if folded:
        blocks.append(f"Omitted here, but included in --output json, markdown and html: {', '.join(folded)}.")
    lines = "\n\n".join(block for block in blocks if block)
    return lines if within is None else layout.fit(lines, within)


MIN_ID = 8
"""Minimum characters of an id on a terminal."""
_INSTANT = re.compile(r"(?<![^\s(\[])(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\dZ)(?![\w-])")
"""A time in a text of its own or in parentheses, but not one in a command."""


def _narrowed(page: Page, within: int) -> Page:
    """The page for a terminal: ids up to what is unique, no date of the commonest day, no columns that do not fit.

    Its last line names what is missing.
    """
    shown = [each for each in page.sections if not each.folded]
    found = [row[at] for each in shown for table in each.tables for row in table.rows for at in table.ids]
    length = next((n for n in range(MIN_ID, 64) if len({id_[:n] for id_ in found}) == len(set(found))), 64)
    cells = (cell for each in shown for table in each.tables for row in table.rows for cell in row)
    days = Counter(day for cell in cells for day, _ in _INSTANT.findall(cell))
    day = max(days, key=lambda it: (days[it], it), default="")

    def undated(words: str) -> str:
        return _INSTANT.sub(lambda it: it[2] if it[1] == day else it[0], words)

    page = _mapped_page(page, undated) if day else page
    sections, missing = [], list[str]()
    for each in page.sections:
        parts: list[Part] = []
        for part in each.parts:
            if isinstance(part, Table) and not each.folded:
                indent = 2 * (bool(each.title) + bool(part.caption))
                table, left_out = _with_short_ids(part, length).within(within - indent)
                missing += left_out
                parts.append(table)
            else:
                parts.append(part)
        sections.append(replace(each, parts=tuple(parts)))
    line = left_out_line((*missing, day and f"the date {day}"))
    if line and sections and not sections[-1].title and not isinstance(sections[-1].parts[-1], str):
        sections[-1] = replace(sections[-1], parts=(*sections[-1].parts, line))
    else:
        sections += section("", line)
    return replace(page, sections=tuple(sections))


def _with_short_ids(table: Table, length: int) -> Table:
    rows = (tuple(cell[:length] if at in table.ids else cell for at, cell in enumerate(row)) for row in table.rows)
    return replace(table, rows=tuple(rows)) if table.ids else table


def _mapped_page(page: Page, change: Callable[[str], str]) -> Page:
    """The page with its texts changed; figures, lines with a layout of their own and prose are as they are."""
    sections = (
        replace(each, title=change(each.title), parts=tuple(_mapped_part(part, change) for part in each.parts))
        for each in page.sections
        if not each.folded
    )
    return replace(
        page,
        warning=change(page.warning),
        facts=Facts(tuple(tuple(map(change, row)) for row in page.facts.rows)),
        summary=tuple(map(change, page.summary)),
        sections=(*sections, *(each for each in page.sections if each.folded)),
    )


def _mapped_part(part: Part, change: Callable[[str], str]) -> Part:
    match part:
        case str():
            return change(part)
        case Items(lines):
            return Items(tuple(map(change, lines)))
        case Facts(rows):
            return Facts(tuple(tuple(map(change, row)) for row in rows))
        case Table():
            rows = tuple(tuple(map(change, row)) for row in part.rows)
            return replace(part, rows=rows, caption=change(part.caption), notes=tuple(map(change, part.notes)))
        case _:
            return part


def section_text(shown: Section, within: int | None = None, *, is_marked: bool = False) -> str:
    """Return one section in text columns."""
    indent = "  " if shown.title else ""
    lines = [one_line(shown.title)] if shown.title else []
    for part in shown.parts:
        match part:
            case Items(items):
                lines += (_wrapped(indent + one_line(line), f"{indent}  ", within) for line in items)
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
                below = f"{indent}  " if part.caption else indent
                lines += table_text(part, below, within, is_marked=is_marked).split("\n")
            case str():
                lines.append(_wrapped(indent + one_line(part), indent, within))
    return "\n".join(line.rstrip() for line in lines)


def _wrapped(line: str, below: str, within: int | None) -> str:
    return line if within is None else layout.hanging(line, below, within)


def table_text(table: Table, indent: str = "  ", within: int | None = None, *, is_marked: bool = False) -> str:
    """Return a table in text columns with its footnotes, without its caption."""
    shown = layout.table(table.head, table.rows, indent, within, table.numbers, table.widest, is_marked=is_marked)
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
        yield f"# {escaped_markdown(page.title)}\n"
    if page.warning:
        yield f"**{escaped_markdown(page.warning)}**\n"
    if page.facts.rows:
        yield from _markdown_part(page.facts)
    yield from (f"{escaped_markdown(words)}\n" for words in page.summary)
    for each in page.sections:
        if each.title:
            yield f"## {escaped_markdown(each.title)}\n"
        for part in each.parts:
            yield from _markdown_part(part)
    if page.notes:
        yield "## Notes\n"
        yield from (f"- {escaped_markdown(note)}" for note in page.notes)


def _markdown_part(part: Part) -> Iterator[str]:
    match part:
        case str():
            yield f"{escaped_markdown(part)}\n"
        case Items(lines):
            yield "\n".join(f"- {escaped_markdown(line)}" for line in lines) + "\n"
        case Code(lines):
            fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
            yield "\n".join((fence, *map(one_line, lines), fence)) + "\n"
        case Prose(source):
            yield source
        case Facts(rows):
            yield (
                "\n".join(f"- {escaped_markdown(name)}: {escaped_markdown('; '.join(lines))}" for name, *lines in rows)
                + "\n"
            )
        case Table():
            if part.caption:
                yield f"### {escaped_markdown(part.caption)}\n"
            yield from table_lines(part)
            yield ""
            yield from (f"{escaped_markdown(note)}\n" for note in part.notes)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped_markdown, cells))} |"


def escaped_markdown(text: str) -> str:
    """Escape all markup, on one line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
