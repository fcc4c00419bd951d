"""The block of figures in each policy's README: its own kind of book, from the same results as the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.evidence.crashes import FELL
from tests.evidence.gathering import MEANT
from tests.evidence.results import PageTable, PartResult

BEGIN, END = "<!-- evidence: written by make evidence -->", "<!-- end of evidence -->"
EVERY_KIND = "circuit-breaker"
"""A set for all kinds of book: its README has what it costs on ordinary days, by kind."""


def insert(results: Mapping[str, PartResult], policies: Path) -> None:
    """Replace the block in the README of every compared set. ValueError for one without its marks."""
    for folder in (*MEANT, EVERY_KIND):
        readme = policies / folder / "README.md"
        head, begun, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
        _, ended, tail = rest.partition(END)
        if not (begun and ended):
            raise ValueError(f"{readme} has no place for its numbers: {BEGIN} … {END}")
        block = "\n".join(_block(results, folder)).strip()
        readme.write_text(f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}", encoding="utf-8")


def _block(results: Mapping[str, PartResult], folder: str) -> Iterator[str]:
    """The results in crashes, for the kind of book that the policy is for, and what it costs elsewhere."""
    crashes, calm = results["crashes"], results["calm"]
    made = f"`make evidence`, {crashes.date}; what each word means, the bars, and other books: docs/evidence.md"
    ordinary = calm.tables[f"readme {folder}"]
    if folder not in MEANT:
        yield f"On ordinary days ({made}):"
        yield ""
        yield from ordinary.lines()
        return
    kind = MEANT[folder][0]
    yield (
        f"{crashes.numbers[f'{kind}/books']:.0f} {kind} books in real crashes, those that fell by {FELL:.0%} or more "
        f"without protection ({made}):"
    )
    yield ""
    yield from crashes.tables[f"readme {folder}"].lines()
    yield (
        "What it costs: on ordinary days (with 95% intervals), and in crashes where the book would have come back by "
        "itself."
    )
    yield ""
    yield from _joined(ordinary, crashes.tables[f"readme came back {folder}"]).lines()


def _joined(ordinary: PageTable, came_back: PageTable) -> PageTable:
    """Both costs by rule; the second is of the set's first kind of book, whose row is the first of the rule."""
    back = {row[0]: row[1:] for row in came_back.rows}
    rows = []
    for row in ordinary.rows:
        rows.append((*row, *back.pop(row[0].partition(",")[0], ("", ""))))
    return PageTable((*ordinary.head, *came_back.head[1:]), tuple(rows))
