"""What a page is made of, whatever it is written in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap

WIDEST = 48
"""Letters of a cell on one line of text."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their heads; `numbers` are the columns that hold numbers, which stand to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart in two drawings: for a wide screen and for a phone. Both are `<svg>` elements."""

    caption: str
    wide: str
    narrow: str


@dataclass(frozen=True, slots=True)
class Section:
    """A title with words, tables and figures under it; a `folded` one is closed until it is asked for."""

    title: str
    words: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """`verdict` is the answer in plain words, `facts` is what it was made from, `warning` what is wrong with it."""

    title: str
    warning: str
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def aligned(table: Table, indent: str = "  ") -> str:
    """The table as text in columns, numbers to the right, long cells on several lines, without trailing blanks."""
    rows = [[_wrapped(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(len(line) for row in rows for line in row[column]) for column in range(len(table.head))]

    def lines(row: Sequence[list[str]]) -> Iterator[str]:
        for cells in zip_longest(*row, fillvalue=""):
            padded = (
                cell.rjust(width) if column in table.numbers else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            yield (indent + "  ".join(padded)).rstrip()

    return "\n".join(line for row in rows for line in lines(row))


def _wrapped(cell: str) -> list[str]:
    return wrap(cell, WIDEST, break_long_words=False, break_on_hyphens=False) or [""]
