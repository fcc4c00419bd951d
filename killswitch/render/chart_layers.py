"""What a chart shows: lines that differ by dashes, or stacked areas that differ by hatching; and thinning.

No two layers differ by colour alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from msgspec import Struct

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

GAP = math.nan
INK = "#010203"
"""Placeholder for the page's text colour while matplotlib draws."""
BLUE, GREEN, PINK, GREY, TEAL, VIOLET = "#3d83d1", "#2f9e62", "#cb5aa5", "#7d8590", "#1593a5", "#8a70d6"
"""Middle tones: contrast three to one against white and near black (WCAG 2.2, 1.4.11). Yellow to red are levels."""
PALETTE = (BLUE, GREEN, PINK, GREY, TEAL, VIOLET)
_COLUMNS = 40
"""Columns of points for each inch of width: more would be invisible."""
_STACK_COLUMNS = 14
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
"""Lines differ by dashes as well as by colour."""
_HATCHES = ("", "//", "\\\\", "--", "xx", "||", "++", "////", "----")
"""Of straight lines alone: a pattern of dots is a hundred times as long in an SVG."""
_SHADES = (0.85, 0.55)
_LABEL = 8.0
_LABEL_WIDTH, _LABEL_HEIGHT = 0.62 * _LABEL / 72, 1.5 * _LABEL / 72
"""Inches of a letter, and of a line with its margin, of a name inside an area."""


class Swatch(Struct, frozen=True):
    """How a layer looks in the legend: a line with its dashes, or an area with its hatching and shade."""

    colour: str
    dashes: Any = None
    hatch: str = ""
    shade: float = 1.0

    def drawn(self, at: tuple[float, float], size: tuple[float, float]) -> Artist:
        """The swatch with its left middle `at`, in fractions of the figure."""
        (left, middle), (width, height) = at, size
        if self.dashes is not None:
            return Line2D([left, left + width], [middle] * 2, color=self.colour, linewidth=2.0, linestyle=self.dashes,
                          solid_capstyle="butt")  # fmt: skip
        return Rectangle((left, middle - height / 2), width, height, facecolor=self.colour, hatch=self.hatch,
                         edgecolor=INK, linewidth=0, alpha=self.shade)  # fmt: skip


class Lines:
    """One line for each series, the first on top."""

    def __init__(self, at: Sequence[int], series: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
        self._at, self._series = at, series
        self.swatches = [
            Swatch(colours[number % len(colours)], _DASHES[number % len(_DASHES)]) for number in range(len(series))
        ]

    def draw(self, axes: Axes, width: float, height: float, names: Sequence[tuple[str, int]]) -> None:
        """Draw the lines into axes of `width` inches."""
        for number, (values, swatch) in enumerate(zip(self._series, self.swatches, strict=True)):
            times, kept = extremes(self._at, values, round(width * _COLUMNS))
            thick, above = (1.6, 3 - number / 100) if number else (2.0, 3.0)
            axes.plot(times, kept, color=swatch.colour, linewidth=thick, linestyle=swatch.dashes, zorder=above)


class Areas:
    """Stacked areas: positive amounts upwards in the first colour, negative ones downwards in the second."""

    def __init__(self, at: Sequence[int], series: Sequence[Sequence[float]], colours: tuple[str, str]) -> None:
        self._at, self._series, self._colours = at, series, colours
        self.swatches = []
        for number, values in enumerate(series):
            known = [value for value in values if math.isfinite(value)]
            colour = colours[sum(known) < 0]
            self.swatches.append(Swatch(colour, None, _HATCHES[number % len(_HATCHES)], _SHADES[number % len(_SHADES)]))

    def draw(self, axes: Axes, width: float, height: float, names: Sequence[tuple[str, int]]) -> None:
        """Draw the areas into axes of `width` × `height` inches, and the names of those with room for them.

        `names` has the text of each layer for matplotlib, and the letters of its name.
        """
        times, sampled = stack_sample(self._at, self._series, round(width * _STACK_COLUMNS))
        up, down = [0.0] * len(times), [0.0] * len(times)
        places = []
        for values, swatch, (name, length) in zip(sampled, self.swatches, names, strict=True):
            above = [base + max(value, 0.0) for base, value in zip(up, values, strict=True)]
            below = [base + min(value, 0.0) for base, value in zip(down, values, strict=True)]
            for base, edge, colour in ((up, above, self._colours[0]), (down, below, self._colours[1])):
                if edge != base:
                    axes.fill_between(times, base, edge, facecolor=colour, edgecolor=INK, linewidth=0,
                                      alpha=swatch.shade, hatch=swatch.hatch)  # fmt: skip
                    axes.plot(times, edge, color=INK, linewidth=0.5)
                    places.append(((base, edge), _AreaName(name, length, colour)))
            up, down = above, below
        axes.axhline(0.0, color=INK, linewidth=0.8)
        span = max(up, default=0.0) - min(down, default=0.0)
        time_scale = (times[-1] - times[0]) / width if times else 0.0
        for edges, each in places:
            each.draw(axes, times, edges, (time_scale, span / height))


class _AreaName:
    """The name of an area, written where the area is first about as thick as anywhere along a whole name."""

    def __init__(self, token: str, length: int, colour: str) -> None:
        self._token, self._colour = token, colour
        self._width = _LABEL_WIDTH * length + 0.04

    def draw(
        self, axes: Axes, times: Sequence[int], edges: tuple[Sequence[float], Sequence[float]],
        scale: tuple[float, float],
    ) -> None:  # fmt: skip
        """Write nothing where the area is thinner than the name. `scale`: microseconds, and amount, for an inch."""
        base, edge = edges
        time_scale, amount_scale = scale
        half = self._width / 2 * time_scale
        thickness = {
            row: min(abs(edge[each] - base[each]) for each in range(*_span(times, at - half, at + half)))
            for row, at in enumerate(times)
            if times[0] + half <= at <= times[-1] - half
        }
        enough = max(_LABEL_HEIGHT * amount_scale, 0.9 * max(thickness.values(), default=0.0))
        place = next((row for row, found in thickness.items() if found >= enough), None)
        if place is None:
            return
        across, middle = times[place], (base[place] + edge[place]) / 2
        tall = 0.85 * _LABEL_HEIGHT * amount_scale
        box = Rectangle(
            (across - half, middle - tall / 2), 2 * half, tall, facecolor=self._colour, linewidth=0, zorder=4
        )
        axes.add_patch(box)
        axes.text(across, middle, self._token, color=INK, fontsize=_LABEL, ha="center", va="center_baseline", zorder=5)


def _span(times: Sequence[int], first: float, last: float) -> tuple[int, int]:
    """The rows from `first` to `last`, as a range."""
    return bisect_left(times, first), bisect_right(times, last)


def extremes(at: Sequence[int], values: Sequence[float], columns: int) -> tuple[list[int], list[float]]:
    """Return at most four points a column in order of time: the first, lowest, highest and last of each.

    Columns have equal counts, not equal durations. Non-finite values become NaN, a gap; a column with a gap keeps one.
    """
    finite = [value if math.isfinite(value) else GAP for value in values]
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
