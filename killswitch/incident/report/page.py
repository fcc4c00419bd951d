"""Converts Markdown to one self-contained HTML page without scripts or other files, readable on a phone and in the
dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from killswitch.render.document import html_page

CHART = "equity"
"""The language of the code block that the chart replaces."""

LONGEST_FORMATTED = 32 << 10
"""The length in characters up to which a user's own page is parsed as Markdown. For a hostile page the time grows
with the square of its length, and its many tokens stop every other thread during garbage collection."""
_LONGEST_TITLE = 200
_FIRST_LINE = re.compile(r"\n.*|^[#> ]*", re.DOTALL)

_CARDS_FROM = 4
"""Tables with this many columns become cards on a narrow screen."""


def page(markdown: str, charts: Sequence[str]) -> str:
    """Return the Markdown as an HTML page.

    `charts` are `<svg>` elements of one drawing, for a wide and for a narrow screen; they replace the chart's code
    block. Without charts the block stays.
    """
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    tokens = parser.parse(markdown)
    title = next((t.content for before, t in pairwise(tokens) if before.tag == "h1"), "Incident")
    plain = "".join(child.content for child in parser.parseInline(title)[0].children or ())  # without its markup
    return html_page("base.html.j2", title=plain, body=_body(parser, tokens, charts))


def page_as_written(markdown: str) -> str:
    """Return the Markdown as an HTML page that shows its source, in time linear in its length."""
    note = f"This page is longer than {LONGEST_FORMATTED:,} characters, and is shown as source."
    body = f"<p><strong>{note}</strong></p>\n<pre>{escape(markdown)}</pre>\n"
    return html_page("base.html.j2", title=_FIRST_LINE.sub("", markdown[:_LONGEST_TITLE]), body=Markup(body))


def _body(parser: MarkdownIt, tokens: list[Token], charts: Sequence[str]) -> Markup:
    _mark_tables(tokens)
    _tick_boxes(tokens)
    for token in tokens:
        if token.type == "fence" and token.info.strip() == CHART and charts:
            token.type, token.content = "chart", "".join(_figure(*each) for each in enumerate(charts))
    renderer: Any = parser.renderer
    renderer.rules["chart"] = lambda found, index, *_: found[index].content
    return Markup(parser.renderer.render(tokens, parser.options, {}))


def _figure(number: int, chart: str) -> str:
    return f'<figure class="course {"narrow" if number else "wide"}">{chart}</figure>\n'


def _mark_tables(tokens: Sequence[Token]) -> None:
    """Label cells with their column's head for narrow screens, and rows with the class of their level."""
    heads: list[str] = []
    table = row = None
    column = 0
    in_head = False
    for index, token in enumerate(tokens):
        match token.type:
            case "table_open":
                heads, table = [], token
            case "thead_open" | "thead_close":
                in_head = token.type == "thead_open"
                if not in_head and table is not None and len(heads) >= _CARDS_FROM:
                    table.attrJoin("class", "cards")
            case "tr_open":
                row, column = token, 0
            case "th_open":
                heads.append(tokens[index + 1].content)
            case "td_open":
                content = tokens[index + 1].content
                token.attrSet("data-label", heads[column])
                if heads[column].lower() == "level" and content[:1].isdigit() and row is not None:
                    row.attrJoin("class", f"level level-{content[0]}")
                column += 1


def _tick_boxes(tokens: Sequence[Token]) -> None:
    """Convert `[x]` and `[ ]` at the beginning of list items to boxes."""
    for opened, _, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opened.type == "list_item_open" and inline.type == "inline" and inline.children:
            box = {"[x] ": "done", "[ ] ": "todo"}.get(inline.content[:4])
            first = inline.children[0]
            if box is not None and first.type == "text":
                opened.attrJoin("class", box)
                first.content = first.content[4:]
