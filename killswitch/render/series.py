"""Data of charts: marked moments, and series thinned to the points that can be seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

NOTHING = math.nan


@dataclass(frozen=True, slots=True)
class ChartMark:
    """A marked moment: `at` in microseconds, a short label, and the level that selects its colour."""

    at: int
    label: str
    level: int


def extremes(at: Sequence[int], values: Sequence[float], columns: int) -> tuple[list[int], list[float]]:
    """Return at most four points a column in order of time: the first, lowest, highest and last of each.

    Columns have equal counts, not equal durations. Non-finite values become NaN, a gap; a column with a gap keeps one.
    """
    finite = [value if math.isfinite(value) else NOTHING for value in values]
    if len(finite) <= 4 * columns:
        return list(at), finite
    kept: list[int] = []
    for first, end in _columns(len(finite), columns):
        known = [row for row in range(first, end) if not math.isnan(finite[row])]
        chosen = {first, end - 1}
        if known:
            chosen |= {min(known, key=finite.__getitem__), max(known, key=finite.__getitem__)}
        if len(known) < end - first:
            chosen.add(next(row for row in range(first, end) if math.isnan(finite[row])))
        kept += sorted(chosen)
    return [at[row] for row in kept], [finite[row] for row in kept]


def stack_sample(
    at: Sequence[int], layers: Sequence[Sequence[float]], columns: int
) -> tuple[list[int], list[list[float]]]:
    """Return the same instants for all layers: of each column the first, the last, and those of the least and greatest
    sum of absolute values.

    Non-finite values count as zero: nothing is drawn there.
    """
    finite = [[value if math.isfinite(value) else 0.0 for value in layer] for layer in layers]
    if len(at) <= 4 * columns:
        return list(at), finite
    gross = [sum(abs(layer[row]) for layer in finite) for row in range(len(at))]
    kept: list[int] = []
    for first, end in _columns(len(at), columns):
        rows = range(first, end)
        kept += sorted({first, end - 1, min(rows, key=gross.__getitem__), max(rows, key=gross.__getitem__)})
    return [at[row] for row in kept], [[layer[row] for row in kept] for layer in finite]


def _columns(count: int, columns: int) -> Iterator[tuple[int, int]]:
    edges = [count * column // columns for column in range(columns + 1)]
    return ((first, end) for first, end in pairwise(edges) if end > first)
