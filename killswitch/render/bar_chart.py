"""Signed amounts as horizontal bars, one row each: in text, and as SVG for HTML.

A bar never speaks by its colour alone: its row ends with the amount in words; what is unknown has no bar and a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Literal

from msgspec import Struct

from killswitch.render.document import Figure

Tone = Literal["plain", "good", "bad"]

CELLS = 24
"""Characters of the longest bar in text."""
_COLOURS: dict[Tone, str] = {"plain": "#3d6fb4", "good": "#1a7f4b", "bad": "#d6334a"}
_ROW, _BAR, _LETTER, _RIGHT = 24, 13, 6.9, 10
_WIDE, _NARROW = 760.0, 340.0


class ChartBar(Struct, frozen=True):
    """One row. `value` is None where it is unknown, and `text` says what the bar means; `begins` is where it starts."""

    name: str
    value: float | None
    text: str
    tone: Tone = "plain"
    begins: float = 0.0
    whole: float | None = None
    """A size to compare with, drawn pale behind the bar; None for none."""


class BarLimit(Struct, frozen=True):
    """A value that is marked in every row, such as a target, with its label."""

    value: float
    label: str


def bar_lines(rows: Sequence[ChartBar], limit: BarLimit | None = None) -> tuple[str, ...]:
    """Return a line for each row: name, bar, text. A bar below zero is hatched, and `|` marks the limit."""
    names = max((len(each.name) for each in rows), default=0)
    low, high = _span(rows, limit)
    size = max(abs(low), abs(high)) or 1.0
    lines = []
    for row in rows:
        cells = [" "] * CELLS
        if row.value is not None:
            first, last = sorted((abs(row.begins), abs(row.value)))
            filled = range(int(first / size * CELLS), max(int(first / size * CELLS) + 1, round(last / size * CELLS)))
            for cell in filled if row.value != row.begins else ():
                cells[min(cell, CELLS - 1)] = "▒" if row.value < 0 else "█"
        if row.whole is not None:
            cells = ["░" if cell == " " and at < row.whole / size * CELLS else cell for at, cell in enumerate(cells)]
        if limit is not None:
            at = min(CELLS - 1, int(limit.value / size * CELLS))
            cells[at] = "|" if cells[at] == " " else cells[at]
        lines.append(f"{row.name:<{names}}  {''.join(cells)}  {row.text}")
    if limit is not None:
        lines.append(f"{'':<{names}}  {'| ' + limit.label}")
    return tuple(lines)


def bar_figure(caption: str, rows: Sequence[ChartBar], limit: BarLimit | None = None) -> Figure:
    """Return the rows as a chart, for a desktop and for a phone, where each name is above its bar."""
    return Figure("", _svg(caption, rows, limit, _WIDE), _svg(caption, rows, limit, _NARROW))


def _span(rows: Sequence[ChartBar], limit: BarLimit | None) -> tuple[float, float]:
    values = [end for each in rows if each.value is not None for end in (each.begins, each.value)]
    values += [each.whole for each in rows if each.whole is not None]
    values += [] if limit is None else [limit.value]
    return min((0.0, *values)), max((0.0, *values))


def _svg(caption: str, rows: Sequence[ChartBar], limit: BarLimit | None, width: float) -> str:
    is_narrow = width < 500
    names = _LETTER * max((len(each.name) for each in rows), default=0) + 14
    texts = _LETTER * max((len(each.text) for each in rows), default=0) + 12
    left, room = (4.0, width - 8) if is_narrow else (names, max(120.0, width - names - texts - _RIGHT))
    tall_row = _ROW + 16 if is_narrow else _ROW
    above = 18 if limit is not None else 4
    low, high = _span(rows, limit)
    scale = room / ((high - low) or 1.0)
    tall = above + tall_row * len(rows) + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {tall:g}" role="img" class="chart" '
        f'font-family="sans-serif" font-size="11.5" fill="currentColor"><title>{escape(caption)}</title>'
    ]
    for number, row in enumerate(rows):
        top = above + tall_row * number
        bar_top = top + 16 if is_narrow else top
        name = f'<text x="4" y="{top + 11:g}">{escape(row.name)}</text>'
        end = f'<text x="{width - 4:g}" y="{top + 11:g}" text-anchor="end">{escape(row.text)}</text>'
        beyond = f'<text x="{left + room + 8:.1f}" y="{top + 11:g}">{escape(row.text)}</text>'
        parts += [name, end if is_narrow else beyond]
        parts += _bar(row, left - low * scale, bar_top, scale, left, room)
    if limit is not None:
        parts += _limit(limit, left + (limit.value - low) * scale, above, tall, width)
    return "".join((*parts, "</svg>"))


def _bar(row: ChartBar, zero: float, top: float, scale: float, left: float, room: float) -> Iterator[str]:
    middle = top + _BAR / 2
    yield (
        f'<line x1="{left:.1f}" x2="{left + room:.1f}" y1="{middle:g}" y2="{middle:g}" stroke="currentColor" '
        'stroke-width="0.5" stroke-dasharray="1 3"/>'
    )
    if row.whole is not None:
        yield (
            f'<rect x="{zero:.1f}" y="{top:g}" width="{row.whole * scale:.1f}" height="{_BAR}" rx="2" '
            'fill="currentColor" opacity="0.18"/>'
        )
    if row.value is None or row.value == row.begins:
        return
    first, last = sorted((row.begins, row.value))
    wide = max(1.5, (last - first) * scale)
    yield (
        f'<rect x="{zero + first * scale:.1f}" y="{top:g}" width="{wide:.1f}" height="{_BAR}" rx="2" '
        f'fill="{_COLOURS[row.tone]}"/>'
    )


def _limit(limit: BarLimit, across: float, top: float, tall: float, width: float) -> Iterator[str]:
    yield (
        f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{top - 2:g}" y2="{tall - 2:g}" stroke="currentColor" '
        'stroke-width="1.2" stroke-dasharray="4 3"/>'
    )
    is_right = across + _LETTER * len(limit.label) > width
    anchor = ' text-anchor="end"' if is_right else ""
    yield f'<text x="{across:.1f}" y="11"{anchor} font-weight="600">{escape(limit.label)}</text>'
