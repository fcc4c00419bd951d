"""Ranges of one quantity as rows of bands: what happens from which value on. In text, and as SVG for HTML.

A band is named by the digit of its level as well as by its colour, and what is in no band is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from msgspec import Struct

from killswitch.render.document import Figure


class RangeBand(Struct, frozen=True):
    """From `begins` up to `ends` (shares of 1), `level` is what happens."""

    begins: float
    ends: float
    level: int


class RangeRow(Struct, frozen=True):
    """One row: its group, its name, and its bands in ascending order without overlaps."""

    group: str
    name: str
    bands: tuple[RangeBand, ...]


CELLS = 40
_COLOURS = ("#5b6470", "#b58500", "#d9650f", "#d6334a")
"""Of the levels 0 to 3 and above, as in other charts."""
_HEIGHT, _GAP, _LETTER = 16, 6, 6.6


def range_lines(rows: Sequence[RangeRow], most: float) -> tuple[str, ...]:
    """Each row as `CELLS` characters up to `most`: a dot where nothing happens, else the digit of the level."""
    names = max((len(each.name) for each in rows), default=0)
    groups = max((len(each.group) for each in rows), default=0)
    ends = "".join(f"{f'{most * part / 4:.0%}':>{CELLS // 4}}" for part in range(1, 5))
    lines, before = [f"{'':<{groups}}  {'':<{names}}  {ends}"], ""
    for row in rows:
        group = row.group if row.group != before else ""
        before = row.group
        cells = (_cell(row, most * (cell + 1) / CELLS) for cell in range(CELLS))
        lines.append(f"{group:<{groups}}  {row.name:<{names}}  {''.join(cells)}")
    return tuple(lines)


def _cell(row: RangeRow, value: float) -> str:
    """The character of a value; the value of a cell that a threshold meets exactly counts as reached."""
    levels = [band.level for band in row.bands if band.begins <= value + 1e-12]
    return str(levels[-1]) if levels else "·"


def range_figure(caption: str, rows: Sequence[RangeRow], most: float) -> Figure:
    """The rows as a chart up to `most`."""
    return Figure(caption, _svg(caption, rows, most, 720.0), _svg(caption, rows, most, 340.0))


def _svg(caption: str, rows: Sequence[RangeRow], most: float, width: float) -> str:
    names = [f"{each.group}: {each.name}" for each in rows]
    is_narrow = width < 500
    left = 14.0 if is_narrow else _LETTER * max((len(each) for each in names), default=0) + 12
    row_height = _HEIGHT + _GAP + (14 if is_narrow else 0)
    tall = row_height * len(rows) + 24
    scale = (width - left - 24) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {tall:g}" role="img" '
        f'aria-label="{escape(caption, quote=True)}" font-family="sans-serif" font-size="11" fill="currentColor">'
    ]
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = row_height * number + (14 if is_narrow else 0)
        at = (4.0, top - 3.0) if is_narrow else (4.0, top + 12.0)
        parts.append(f'<text x="{at[0]:g}" y="{at[1]:g}">{escape(name)}</text>')
        parts += _bands(row, left, top, scale, most)
    parts += _axis(left, tall - 20, scale, most)
    return "".join((*parts, "</svg>"))


def _bands(row: RangeRow, left: float, top: float, scale: float, most: float) -> Iterator[str]:
    yield (
        f'<rect x="{left:.1f}" y="{top:g}" width="{most * scale:.1f}" height="{_HEIGHT}" fill="none" '
        'stroke="currentColor" stroke-width="0.6" stroke-dasharray="2 2"/>'
    )
    for band in row.bands:
        across, wide = left + band.begins * scale, (band.ends - band.begins) * scale
        colour = _COLOURS[min(band.level, len(_COLOURS) - 1)]
        yield f'<rect x="{across:.1f}" y="{top:g}" width="{wide:.1f}" height="{_HEIGHT}" fill="{colour}"/>'
        if wide >= 10:
            middle = f'x="{across + wide / 2:.1f}" y="{top + 12:g}" text-anchor="middle"'
            yield f'<text {middle} fill="#fff">{band.level}</text>'


def _axis(left: float, top: float, scale: float, most: float) -> Iterator[str]:
    for part in range(5):
        value = most * part / 4
        across = left + value * scale
        yield f'<text x="{across:.1f}" y="{top + 12:g}" text-anchor="middle">{value:.0%}</text>'
