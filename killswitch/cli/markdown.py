"""Markdown on a terminal, rendered by rich except for tables, whose cells rich would cut ("09:…").

Words that guide the eye are coloured: levels, locks, losses, what is unknown or not closed, and what is proved. Each
says the same without colour. A file of its own, because rich is imported only where it prints something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import ClassVar, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from killswitch.render.document import Table, left_out_line, table_text
from killswitch.render.layout import HEAD

Words = Callable[[str], Iterable[tuple[int, int, str]]]

EXPENDABLE = ("client order id", "delay cost", "mark when sent", "on", "sent", "slippage", "fee")
"""Columns of a report that a narrow terminal leaves out, the least important first."""
GAINS: Final = ("unrealised P&L", "realised P&L")
"""Columns of tables whose numbers below zero are losses; those of other columns may be short positions or gains."""

THEME: Final = Theme(
    {
        "markdown.h1": Style(bold=True, color="cyan"),
        "markdown.h2": Style(bold=True, underline=True, color="cyan"),
        "markdown.h3": Style(bold=True, color="cyan"),
    }
)
_WORDS: Final = re.compile(
    r"(?P<red>\bNOT CLOSED\b|\bNot closed\b|\bNOTHING CLOSED\b|\bNOTHING SENT\b|\bCLOSING\b|\brejected\b|\bexceeded\b"
    r"|^loss at [\d:-]+(?=,)|\bhighest level +(?P<high>[3-9]\d* \S+)|\[page\])"
    r"|(?P<yellow>\bunknown\b|\breduce_only\b|\block(?:ed)? (?:all|reduce_only)\b|\bhighest level +(?P<low>[12] \S+)"
    r"|\[ \]|\[warning\])"
    r"|(?P<green>^AT TARGET\b|^FLAT\b|\[x\])"
)
_HEADS: Final = Style(color="cyan")
_BELOW_ZERO: Final = re.compile(r"-\d[\d,]*(?:\.\d+)?")


class FittedTable(TableElement):
    """A table within the console's width, which names the columns that do not fit; no word is broken."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [cell.content.plain for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content.plain for cell in row.cells] for row in self.body.rows] if self.body else []
        is_headed = any(head)
        if not is_headed:
            head, *rows = rows
        expendable = tuple(head.index(name) for name in EXPENDABLE if name in head)
        whole = Table(tuple(head), tuple(map(tuple, rows)), expendable=expendable)
        shown, left_out = whole.within(options.max_width)
        heads = ""
        for line in table_text(shown, indent="", within=options.max_width, is_marked=is_headed).split("\n"):
            heads = line.removeprefix(HEAD) if line.startswith(HEAD) else heads
            yield _table_line(line, heads)
        yield from (Text(line) for line in (left_out_line(left_out),) if line)


def _table_line(line: str, heads: str) -> Text:
    """A line of a table: heads are cyan, and so are losses red, in the columns of gains below `heads`."""
    if line.startswith(HEAD):
        return Text(line.removeprefix(HEAD), style=_HEADS, no_wrap=True)
    shown = Text(line, no_wrap=True)
    for start in (found.start() for name in GAINS for found in re.finditer(rf"(?:^|(?<=  )){name}", heads)):
        loss = _BELOW_ZERO.match(line, start)
        if loss is not None:
            shown.stylize("red", *loss.span())
    return shown


class FittedMarkdown(Markdown):
    """Markdown whose tables fit, with coloured words."""

    def __init__(self, text: str, words: Words) -> None:
        """`words`: (start, end, colour) of the words of a line that every text of this program colours."""
        super().__init__(text)
        self._words = words

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": FittedTable}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments = (
            piece
            for part in super().__rich_console__(console, options)
            for piece in ((part,) if isinstance(part, Segment) else console.render(part, options))
        )
        for line in Segment.split_lines(segments):
            yield Segments([*coloured(line, self._words), Segment.line()])


def coloured(line: list[Segment], words: Words) -> list[Segment]:
    """The segments of a line, split where a coloured word begins or ends. Other styles of the word stay.

    Heads of tables stay as they are, and so does a delay cost, which is a gain below zero.
    """
    text = "".join(each.text for each in line)
    if text.startswith("delay cost") or any(each.style == _HEADS for each in line):
        return line
    spans = [*words(text)]
    for found in _WORDS.finditer(text):
        colour = next(name for name in ("red", "yellow", "green") if found[name] is not None)
        level = next((name for name in ("high", "low") if found[name] is not None), colour)
        spans.append((*found.span(level), colour))
    cuts = sorted({edge for start, end, _ in spans for edge in (start, end)})
    shown: list[Segment] = []
    at = 0
    for segment in line:
        edges = [at, *(cut for cut in cuts if at < cut < at + len(segment.text)), at + len(segment.text)]
        for start, end in pairwise(edges):
            colour = next((name for first, last, name in spans if first <= start < last), "")
            style = segment.style
            if colour:
                style = Style(color=colour) if style is None else style + Style(color=colour)
            shown.append(Segment(text[start:end], style, segment.control))
        at += len(segment.text)
    return shown
