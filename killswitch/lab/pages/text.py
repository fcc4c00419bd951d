"""A page as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from killswitch.lab.pages.parts import Page, Section, aligned


def text(page: Page) -> str:
    """The page in columns. Folded sections are left out, and named at the end; no name commands the terminal."""
    lines = "\n".join(_lines(page)).rstrip()
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in lines) + "\n"


def _lines(page: Page) -> Iterator[str]:
    if page.warning:
        yield page.warning
        yield ""
    width = max((len(name) for name, _ in page.facts), default=0)
    for name, value in page.facts:
        yield f"{name:<{width}}  {value}"
    yield ""
    yield from page.verdict
    for section in page.sections:
        if not section.folded:
            yield from _section(section)
    folded = [section.title for section in page.sections if section.folded]
    if folded:
        yield ""
        yield f"Left out here, but in --output json, markdown and html: {', '.join(folded)}."


def _section(section: Section) -> Iterator[str]:
    yield ""
    yield section.title
    yield from (f"  {words}" for words in section.words)
    for table in section.tables:
        if table.caption:
            yield ""
            yield f"  {table.caption}"
        yield aligned(table, "    " if table.caption else "  ")
