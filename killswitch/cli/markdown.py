"""Markdown on a terminal, rendered by rich except for tables, whose cells rich would cut ("09:…").

A file of its own, because rich is imported only where it prints something.
"""

from __future__ import annotations

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.text import Text

from killswitch.render.document import Table, left_out_line, table_text

EXPENDABLE = ("client order id", "delay cost", "mark when sent", "on", "sent", "slippage", "fee")
"""Columns of a report that a narrow terminal leaves out, the least important first."""


class FittedTable(TableElement):
    """A table within the console's width, which names the columns that do not fit; no word is broken."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [cell.content.plain for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content.plain for cell in row.cells] for row in self.body.rows] if self.body else []
        if not any(head):
            head, *rows = rows
        expendable = tuple(head.index(name) for name in EXPENDABLE if name in head)
        whole = Table(tuple(head), tuple(map(tuple, rows)), expendable=expendable)
        shown, left_out = whole.within(options.max_width)
        yield Text(table_text(shown, indent="", within=options.max_width), no_wrap=True)
        yield from (Text(line) for line in (left_out_line(left_out),) if line)


class FittedMarkdown(Markdown):
    """Markdown whose tables fit."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": FittedTable}
