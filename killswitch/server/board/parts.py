"""The page in parts: what is rendered for a board, and which parts a change of it replaces.

A scope whose words are the same and whose bars moved costs a few bytes for each bar, because all move at each tick.
Everything else is replaced whole: it changes rarely, and then a person should see it as it was rendered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from msgspec import Struct, structs

from killswitch.model.legible import one_line
from killswitch.operations.board import Board, BoardScope, TriggerBar, without_values
from killswitch.render.formats import instant
from killswitch.server.board.event_stream import Audience
from killswitch.server.board.feed import ReadBoard

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "headline": ("headline",),
    "firings": ("firings",),
    "approvals": ("approvals",),
    "troubles": ("troubles", "pending"),
    "incidents": ("incidents",),
    "locks": ("locks", "ways_back", "part"),
    "switches": ("switches",),
    "venues": ("venues",),
    "messages": ("targets", "silences", "held", "part"),
    "policies": ("policies",),
    "mode": ("mode", "part"),
}
"""Each is a template, an element of the page with its name as id, and a part of a change. With it the fields of a board
that its template reads: where they are as before it is not rendered at all."""
MOST_BARS: Final = 2000
"""Bars of calm scopes on one page. Where there are more, each calm scope shows its nearest ones and counts the rest."""

PAGES_KEPT: Final = 32
"""Pages of audiences that are kept rendered; of more, the one that was opened longest ago is forgotten."""

Moved = list[tuple[int, float | None, str]]
"""The bars of one scope that moved: their place, the share of the threshold that is reached, and the value."""


def _printable(value: object) -> object:
    """A text with its control characters escaped."""
    return value if not isinstance(value, str) or isinstance(value, Markup) else one_line(value)


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S}"


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@cache
def environment() -> Environment:
    """The templates of the board; every text is escaped."""
    found = Environment(
        loader=PackageLoader("killswitch.server.board", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    found.filters |= {"instant": instant, "clock": _clock, "milliseconds": _milliseconds}
    return found


@cache
def _template(name: str) -> Template:
    return environment().get_template(f"{name}.html.j2")


def bars_shown(board: Board) -> int:
    """How many bars a calm scope shows. It depends on the number of scopes alone, which no tick changes."""
    return max(1, MOST_BARS // max(1, len(board.scopes)))


def shown_bars(scope: BoardScope, most: int) -> tuple[TriggerBar, ...]:
    """The bars of a scope on the page, in the order of the policy's names, so that none changes its place."""
    if scope.tone != "calm" or len(scope.bars) <= most:
        return scope.bars
    nearest = sorted(scope.bars, key=lambda each: -(each.reached or 0.0))[:most]
    return tuple(each for each in scope.bars if each in nearest)


def section_html(name: str, board: Board) -> str:
    """The content of one section."""
    return _template(name).render(board=board)


def scope_html(scope: BoardScope, most: int) -> str:
    """One scope, as an item of the list."""
    bars = shown_bars(scope, most)
    return _template("scope").render(scope=scope, bars=bars, more=len(scope.bars) - len(bars))


class PageContent(Struct, frozen=True):
    """The content of each section, and the items of all scopes, of the board with this number."""

    number: int
    sections: Mapping[str, Markup]
    scopes: Markup


class RenderedBoards:
    """The newest page of each audience, rendered once for everybody of it who opens it."""

    def __init__(self) -> None:
        self._pages: OrderedDict[Audience, PageContent] = OrderedDict()

    def content(self, audience: Audience, read: ReadBoard) -> PageContent:
        """The content of the page of an audience."""
        found = self._pages.get(audience)
        if found is None or found.number != read.number:
            most = bars_shown(read.board)
            # Every text in them was escaped by the templates.
            found = PageContent(
                read.number,
                {name: Markup(section_html(name, read.board)) for name in SECTIONS},
                Markup("".join(scope_html(each, most) for each in read.board.scopes)),
            )
            self._pages[audience] = found
        self._pages.move_to_end(audience)
        if len(self._pages) > PAGES_KEPT:
            self._pages.popitem(last=False)
        return found


class HtmlChannel:
    """What a page replaces."""

    def changed(self, before: Board | None, after: Board) -> Mapping[str, object]:
        """`html`: sections by name. `scopes`: items by key. `order`: all keys, if another. `values`: bars by key."""
        if before is None:
            return {"reload": True}
        parts = {
            name: section_html(name, after)
            for name, fields in SECTIONS.items()
            if any(getattr(after, field) != getattr(before, field) for field in fields)
        }
        scopes, values = _moved(before, after, bars_shown(before), bars_shown(after))
        found: dict[str, object] = {"html": parts, "scopes": scopes, "values": values}
        keys = [each.key for each in after.scopes]
        return found if keys == [each.key for each in before.scopes] else {**found, "order": keys}


def _moved(old: Board, new: Board, before: int, most: int) -> tuple[dict[str, str], dict[str, Moved]]:
    known = {each.key: each for each in old.scopes}
    scopes: dict[str, str] = {}
    values: dict[str, Moved] = {}
    for scope in new.scopes:
        earlier = known.get(scope.key)
        shown = shown_bars(scope, most)
        was = () if earlier is None else shown_bars(earlier, before)
        is_alike = earlier is not None and without_values(earlier) == without_values(scope)
        if is_alike and [each.name for each in was] == [each.name for each in shown]:
            moved = [
                (i, it.reached, it.value) for i, (it, last) in enumerate(zip(shown, was, strict=True)) if it != last
            ]
            if moved:
                values[scope.key] = moved
        else:
            scopes[scope.key] = scope_html(scope, most)
    return scopes, values


class RecordChannel:
    """What programs get: the same change, as data."""

    def changed(self, before: Board | None, after: Board) -> Mapping[str, object]:
        """Lists that changed, whole; of the scopes those that changed, the keys of those that are gone, and bars."""
        if before is None:
            return {"board": after}
        found: dict[str, object] = dict(_lists(before, after))
        known, present = {each.key: each for each in before.scopes}, {each.key for each in after.scopes}
        values: dict[str, Moved] = {}
        scopes = []
        for scope in after.scopes:
            earlier = known.get(scope.key)
            if earlier is not None and without_values(earlier) == without_values(scope):
                pairs = enumerate(zip(scope.bars, earlier.bars, strict=True))
                if moved := [(i, it.reached, it.value) for i, (it, last) in pairs if it != last]:
                    values[scope.key] = moved
            elif earlier != scope:
                scopes.append(scope)
        gone = [key for key in known if key not in present]
        return found | {name: each for name, each in (("scopes", scopes), ("gone", gone), ("values", values)) if each}


def _lists(old: Board, new: Board) -> Iterator[tuple[str, object]]:
    for field in structs.fields(Board):
        if field.name not in ("as_of", "now", "scopes", "format"):
            value = getattr(new, field.name)
            if value != getattr(old, field.name):
                yield field.name, value
