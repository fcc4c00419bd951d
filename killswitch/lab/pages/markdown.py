"""A page as Markdown (GitHub's tables)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from killswitch.lab.pages.parts import Page, Section, Table

_MARKUP = re.compile(r"[\\`*{}\[\]<>#|~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown could take for markup; an underscore inside a word is none."""


def markdown(page: Page) -> str:
    """The whole page, folded sections too; charts are left to HTML."""
    return "\n".join(_lines(page)).rstrip() + "\n"


def table_lines(table: Table) -> Iterator[str]:
    """A table; names that others wrote stay names."""
    yield _row(table.head)
    yield _row(["---:" if column in table.numbers else "---" for column in range(len(table.head))], plain=True)
    yield from (_row(row) for row in table.rows)


def _lines(page: Page) -> Iterator[str]:
    yield f"# {page.title}"
    yield ""
    if page.warning:
        yield f"**{_plain(page.warning)}**"
        yield ""
    yield from (f"- {name}: {_plain(value)}" for name, value in page.facts)
    yield ""
    yield from (f"{_plain(words)}\n" for words in page.verdict)
    for section in page.sections:
        yield from _section(section)
    yield "## Notes"
    yield ""
    yield from (f"- {_plain(note)}" for note in page.notes)


def _section(section: Section) -> Iterator[str]:
    yield f"## {_plain(section.title)}"
    yield ""
    yield from (f"{_plain(words)}\n" for words in section.words)
    for table in section.tables:
        if table.caption:
            yield f"### {_plain(table.caption)}"
            yield ""
        yield from table_lines(table)
        yield ""


def _row(cells: Sequence[str], *, plain: bool = False) -> str:
    return f"| {' | '.join(cell if plain else _plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Nothing in it is markup, and it stays on its line."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
