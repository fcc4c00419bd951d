"""Text layout: tables, and long lines with hanging indents."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from textwrap import wrap

from killswitch.model.legible import one_line

MIN_CELL_WIDTH = 10
"""Minimum columns of a cell, however narrow the terminal is."""
HEAD = "\x1e"
"""First character of a line of heads, for output that colours it; texts of users cannot contain it."""
MAX_CELL_LINES = 2
"""Maximum lines of a cell while another column can be left out."""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    indent: str = "  ",
    within: int | None = None,
    numbers: Collection[int] = (),
    widest: int | None = None,
    *,
    is_marked: bool = False,
) -> str:
    """A table with aligned columns and no trailing blanks.

    Columns of `numbers` are right-aligned; cells longer than `widest` are wrapped. `is_marked`: lines of heads begin
    with `HEAD`.

    With `within`, the widest columns are narrowed until the rows fit, and words are never broken; if they do not fit,
    each row becomes a paragraph with a line per column: `kept_columns` prevents that for more than one row. Without
    `within`, each row is one line.

    rich.table is not used: it narrows columns below their longest word, so fewer tables fit.
    """
    cells = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths, is_fitting = _widths(cells, None if within is None else within - len(indent), widest)
    if within is not None and not is_fitting:
        return _paragraphs(cells[0], cells[1:], indent, within)
    lines = []
    for number, row in enumerate(cells):
        mark = HEAD if is_marked and number == 0 else ""
        parts = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*parts, fillvalue=""):
            filled = "  ".join(
                part.rjust(width) if column in numbers else part.ljust(width)
                for column, (part, width) in enumerate(zip(line, widths, strict=True))
            )
            lines.append(mark + (indent + filled).rstrip())
    return "\n".join(lines)


def kept_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], room: int, expendable: Sequence[int] = ()
) -> tuple[int, ...]:
    """The columns that a terminal with `room` columns shows, in their order.

    `expendable` ones are left out, those without a value and then the least important first, until no cell needs more
    than `MAX_CELL_LINES` lines. If the rows still do not fit, the last column is left out, and so on; but a single row
    keeps all others.
    """
    cells = [[one_line(cell) for cell in row] for row in (head, *rows)]
    kept = list(range(len(head)))
    rest = sorted(expendable, key=lambda column: any(row[column] not in ("", "-") for row in rows))

    def is_fitting(most_lines: int | None) -> bool:
        shown = [[row[column] for column in kept] for row in cells]
        widths, fits = _widths(shown, room, None)
        return fits and (
            most_lines is None
            or all(len(wrapped(cell, at)) <= most_lines for row in shown for cell, at in zip(row, widths, strict=True))
        )

    while rest and not is_fitting(MAX_CELL_LINES):
        kept.remove(rest.pop(0))
    while len(rows) > 1 and len(kept) > 1 and not is_fitting(None):
        kept.pop()
    return tuple(kept)


def _widths(cells: Sequence[Sequence[str]], room: int | None, widest: int | None) -> tuple[list[int], bool]:
    """The width of each column, narrowed to `room`, and whether the rows fit."""
    columns = list(zip(*cells, strict=True))
    widths = [max(_width(cell, widest) for cell in column) for column in columns]
    if room is None:
        return widths, True
    least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    return widths, _narrow(widths, least, room - 2 * (len(widths) - 1)) <= 0


def _width(cell: str, widest: int | None) -> int:
    """The columns of a cell on one line, or wrapped to `widest`."""
    return len(cell) if widest is None or len(cell) <= widest else max(map(len, wrapped(cell, widest)))


def _narrow(widths: list[int], least: Sequence[int], room: int) -> int:
    """Narrow the widest columns until the sum fits `room`; returns the excess."""
    over = sum(widths) - room
    while over > 0:
        floors = (max(word, min(MIN_CELL_WIDTH, width)) for word, width in zip(least, widths, strict=True))
        spare, widest = max((width - floor, i) for i, (width, floor) in enumerate(zip(widths, floors, strict=True)))
        if spare <= 0:
            break
        widths[widest] -= 1
        over -= 1
    return over


def _paragraphs(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str, within: int) -> str:
    label = max(map(len, head))
    below = " " * (len(indent) + label + 2)
    return "\n\n".join(
        "\n".join(
            hanging(f"{indent}{name.ljust(label)}  {cell}".rstrip(), below, within)
            for name, cell in zip(head, row, strict=True)
        )
        for row in rows
    )


def wrapped(text: str, width: int, below: str = "") -> list[str]:
    """Wrap text to `width` columns. Words are never broken, so that addresses can be copied."""
    return wrap(text, max(1, width), subsequent_indent=below, break_long_words=False, break_on_hyphens=False) or [""]


def labelled(label: str, text: str, indent: str, within: int | None) -> list[str]:
    """Lines of `text` below each other to the right of `label`; below it where a word of the text is too long."""
    if within is None:
        return [label + text]
    longest = max(map(len, text.split()), default=0)
    if len(label) + longest <= within or len(indent) + 2 + longest > within:
        found = wrapped(text, max(within - len(label), 2 * MIN_CELL_WIDTH))
        return [label + found[0], *(" " * len(label) + line for line in found[1:])]
    found = [f"{indent}  {line}" for line in wrapped(text, within - len(indent) - 2)]
    return [label.rstrip(), *found] if label.strip() else found


def hanging(text: str, below: str, within: int) -> str:
    """Wrap `text` to `within` columns; continuation lines begin with `below`."""
    return "\n".join(wrapped(text, max(within, len(below) + 2 * MIN_CELL_WIDTH), below))


def cut(line: str, within: int | None) -> str:
    """The line, cut to `within` columns."""
    return line if within is None or len(line) <= within else f"{line[: within - 1].rstrip()}…"


def fit(text: str, within: int) -> str:
    """Wrap long lines with a hanging indent."""
    return "\n".join(
        line if len(line.removeprefix(HEAD)) <= within else _fit(line, within) for line in text.split("\n")
    )


def _fit(line: str, within: int) -> str:
    label = re.match(r" *\S+ {2,}(?=\S)", line)
    return hanging(line, " " * (label.end() if label else len(line) - len(line.lstrip()) + 2), within)
