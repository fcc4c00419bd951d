"""Markdown on a terminal, rendered by rich except for tables, whose cells rich would cut ("09:…").

A file of its own, because rich is imported only where it prints something.
"""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.text import Text

from killswitch.render.layout import table


class FittedTable(TableElement):
    """A table within the console's width: wide rows become a line per column, and no word is broken."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [cell.content.plain for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content.plain for cell in row.cells] for row in self.body.rows] if self.body else []
        if not any(head):
            head, *rows = rows
        yield Text(table(head, rows, indent="", within=options.max_width), no_wrap=True)


class FittedMarkdown(Markdown):
    """Markdown whose tables fit."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": FittedTable}
