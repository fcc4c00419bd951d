"""Renders a page as one self-contained HTML file without scripts or other files, readable on a phone and in the dark.

Prose is Markdown: its tables and figures look like those of the page. Every text is escaped; only charts, which this
program drew, are inserted as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from killswitch.model.legible import one_line
from killswitch.render.document import Figure, Page, Prose

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

CARDS_FROM = 4
"""Tables with this many columns become cards on a narrow screen."""


class RenderedProse(Struct, frozen=True):
    """The first heading of a prose without its markup, and its HTML around its figure."""

    title: str
    pieces: tuple[Markup | Figure, ...]


def html(page: Page) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=PackageLoader("killswitch.render", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    rendered = cache(rendered_prose)
    prose = (part for section in page.sections for part in section.parts if isinstance(part, Prose))
    return environment.get_template("page.html.j2").render(
        page=page,
        title=page.title or next((rendered(part).title for part in prose), ""),
        style=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        pieces=lambda part: rendered(part).pieces,
        drawing=Markup,
        kind=lambda part: type(part).__name__,
        cards_from=CARDS_FROM,
    )


def _printable(value: object) -> object:
    """A text with its control characters escaped; line breaks, and what this program drew, stay."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "\n".join(map(one_line, value.split("\n")))


def rendered_prose(prose: Prose) -> RenderedProse:
    """Parse the Markdown of `prose`, in which no HTML is allowed, and render it."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable("table")
    tokens = parser.parse(prose.markdown)
    heading = next((t.content for before, t in pairwise(tokens) if before.tag == "h1"), "Incident")
    title = "".join(child.content for child in parser.parseInline(heading)[0].children or ())
    _mark_tables(tokens)
    _tick_boxes(tokens)
    renderer: Any = parser.renderer
    renderer.rules["table_open"] = lambda found, index, *rest: (
        f'<div class="box" tabindex="0">{renderer.renderToken(found, index, *rest)}'
    )
    renderer.rules["table_close"] = lambda *_: "</table></div>\n"
    return RenderedProse(title, tuple(_pieces(parser, tokens, dict(prose.figures))))


def _pieces(parser: MarkdownIt, tokens: Sequence[Token], figures: Mapping[str, Figure]) -> Iterator[Markup | Figure]:
    """Yield the HTML, with each figure in place of the code block in its language."""
    began = 0
    for index, token in enumerate(tokens):
        figure = figures.get(token.info.strip()) if token.type == "fence" and not token.level else None
        if figure is not None:
            yield Markup(parser.renderer.render(tokens[began:index], parser.options, {}))
            yield figure
            began = index + 1
    yield Markup(parser.renderer.render(tokens[began:], parser.options, {}))


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
                if not in_head and table is not None and len(heads) >= CARDS_FROM:
                    table.attrJoin("class", "cards")
            case "tr_open":
                row, column = token, 0
            case "th_open":
                _align(token)
                heads.append(tokens[index + 1].content)
            case "td_open":
                content = tokens[index + 1].content
                _align(token)
                token.attrSet("data-label", heads[column])
                if heads[column].lower() == "level" and content[:1].isdigit() and row is not None:
                    row.attrJoin("class", f"level level-{content[0]}")
                column += 1


def _align(token: Token) -> None:
    """A column of numbers, which its head aligns to the right, by the class that phones show as text."""
    if token.attrs.pop("style", None) == "text-align:right":
        token.attrJoin("class", "number")


def _tick_boxes(tokens: Sequence[Token]) -> None:
    """Convert `[x]` and `[ ]` at the beginning of list items to boxes."""
    for opened, _, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opened.type == "list_item_open" and inline.type == "inline" and inline.children:
            box = {"[x] ": "done", "[ ] ": "todo"}.get(inline.content[:4])
            first = inline.children[0]
            if box is not None and first.type == "text":
                opened.attrJoin("class", box)
                first.content = first.content[4:]
