"""Frame of every chart: axes in the page's text colour, a legend, labelled moments, and compact SVG text.

matplotlib never sees text from users: it draws tokens, which are replaced by the escaped text afterwards. So a name is
never parsed as mathematics, and no font needs its letters.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from threading import Lock
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from msgspec import Struct

from killswitch.render.chart_layers import INK, PALETTE, Areas, Lines, Swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ChartMark(Struct, frozen=True):
    """A marked moment: `at` in microseconds, a short label, and the level that selects its colour."""

    at: int
    label: str
    level: int


LEVEL_COLOURS = ("#5b6470", "#b58500", "#d9650f", "#d6334a")
"""Of the marks of levels 0 (a reset) to 3 and above; no series has one of them."""
_TEXT = 9.0
_LETTER_WIDTH = 0.58 * _TEXT / 72
"""The width of a letter in inches, rounded up."""
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROW = 0.62, 0.24, 0.28, 0.3, 0.2
_DRAWING = Lock()
"""matplotlib reads its SVG settings from one global place."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.image_inline": True, "font.family": "sans-serif", "font.size": _TEXT,
    "text.usetex": False, "path.simplify": True, "path.simplify_threshold": 1 / 9, "path.sketch": None,
    "axes.unicode_minus": True, "hatch.linewidth": 0.6, "text.parse_math": False,
}  # fmt: skip


class ChartFrame:
    """One chart around what `render`'s `draw` puts into its axes. Lengths are in inches."""

    def __init__(self, title: str, unit: str, width: float, height: float, *, span: tuple[int, int] | None) -> None:
        self._title, self._unit, self._width, self._height = title, unit, width, height
        self._span = span
        self._texts: list[str] = []

    def render(self, layers: Lines | Areas, names: Sequence[str], marks: Sequence[ChartMark]) -> str:
        """Return the `<svg>` element with the layers, of which `names` has a name each."""
        self._texts = []
        rows = self._mark_rows(marks)
        legend = self._legend_rows(names)
        above = _TOP + _ROW * (max(rows, default=-1) + 1)
        below = _BOTTOM + _ROW * (max((row for row, _ in legend), default=-1) + 1) + 0.05
        tall = self._height + above + below
        with _DRAWING, mpl.rc_context({**_SETTINGS, "svg.hashsalt": f"{self._title} {self._width}"}):
            figure = Figure(figsize=(self._width, tall))
            FigureCanvasSVG(figure)
            inside = (_LEFT / self._width, below / tall, self._inner / self._width, self._height / tall)
            axes = figure.add_axes(inside)
            layers.draw(axes, self._inner, self._height, [(self._token(name), len(name)) for name in names])
            self._style_axes(axes)
            for mark, row in zip(marks, rows, strict=True):
                self._mark(axes, mark, row)
            self._legend(figure, names, legend, layers.swatches, tall)
            written = io.StringIO()
            figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
        return self._clean(written.getvalue())

    @property
    def _inner(self) -> float:
        return self._width - _LEFT - _RIGHT

    # -- axes ---------------------------------------------------------------------------------------------

    def _style_axes(self, axes: Axes) -> None:
        for side, spine in axes.spines.items():
            spine.set_visible(side in {"left", "bottom"})
            spine.set_color(INK)
            spine.set_linewidth(0.6)
        axes.tick_params(colors=INK, labelsize=_TEXT, length=3, width=0.6)
        axes.grid(True, color=INK, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        self._style_time_axis(axes)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=max(3, round(self._height * 2))))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value, axes, self._unit)))
        unit = "" if self._unit == "fraction" else self._unit
        axes.annotate(
            self._token(unit), (0, 1), (-_LEFT * 72 + 2, 8), xycoords="axes fraction", textcoords="offset points",
            color=INK, fontsize=_TEXT, annotation_clip=False,
        )  # fmt: skip

    def _style_time_axis(self, axes: Axes) -> None:
        if self._span is None:
            axes.set_xticks([])
            return
        first, last = self._span
        last = max(last, first + 1)
        axes.set_xlim(first, last)
        ticks = _instants(first, last, max(2, int(self._inner / 0.95)))
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        days = (last - first) >= 36 * 3600 * 1_000_000
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: _when(round(at), days)))

    # -- marks: labels in as many rows as they need ---------------------------------------------------------

    def _mark_rows(self, marks: Sequence[ChartMark]) -> list[int]:
        ends: list[float] = []
        rows = []
        for mark in marks:
            first, last = self._label_span(mark)
            row = next((number for number, end in enumerate(ends) if end <= first), len(ends))
            ends[row:] = [last + _LETTER_WIDTH, *ends[row + 1 :]]
            rows.append(row)
        return rows

    def _label_span(self, mark: ChartMark) -> tuple[float, float]:
        """Return where a mark's label begins and ends, inside the axes where it fits."""
        at, length = self._across(mark.at), len(mark.label) * _LETTER_WIDTH
        first = at if at + length <= self._inner else max(0.0, self._inner - length)
        return first, first + length

    def _across(self, at: int) -> float:
        if self._span is None:
            return 0.0
        first, last = self._span
        return self._inner * min(1.0, max(0.0, (at - first) / max(1, last - first)))

    def _mark(self, axes: Axes, mark: ChartMark, row: int) -> None:
        shade = LEVEL_COLOURS[min(max(mark.level, 0), len(LEVEL_COLOURS) - 1)]
        axes.axvline(mark.at, color=shade, linewidth=1.0, linestyle=(0, (3, 2)))
        first, _ = self._label_span(mark)
        axes.annotate(
            self._token(mark.label), (first / self._inner, 1), (0, 4 + 8 + 72 * _ROW * row + (8 if self._unit else 0)),
            xycoords="axes fraction", textcoords="offset points", color=shade, fontsize=_TEXT, annotation_clip=False,
        )  # fmt: skip

    # -- the legend -----------------------------------------------------------------------------------------

    def _legend_rows(self, names: Sequence[str]) -> list[tuple[int, float]]:
        """Return (row, horizontal position) of each name."""
        places = []
        row, across = 0, 0.0
        for name in names:
            length = 0.42 + len(name) * _LETTER_WIDTH
            if across and across + length > self._inner + _LEFT - 0.1:
                row, across = row + 1, 0.0
            places.append((row, across))
            across += length + 0.12
        return places

    def _legend(
        self, figure: Figure, names: Sequence[str], places: Sequence[tuple[int, float]], swatches: Sequence[Swatch],
        tall: float,
    ) -> None:  # fmt: skip
        down = max((row for row, _ in places), default=0)
        for name, swatch, (row, across) in zip(names, swatches, places, strict=True):
            left, level = 0.1 + across, 0.1 + _ROW * (down - row)
            figure.add_artist(swatch.drawn((left / self._width, level / tall), (0.26 / self._width, 0.11 / tall)))
            text = self._token(name)
            figure.text((left + 0.32) / self._width, (level - 0.045) / tall, text, color=INK, fontsize=_TEXT)

    # -- text, and the output of matplotlib --------------------------------------------------------------------

    def _token(self, text: str) -> str:
        self._texts.append(text)
        return f"Word{len(self._texts) - 1}x"

    def _clean(self, written: str) -> str:
        """Return only the element: no prologue, size, comments, metadata or ids that another chart on the page has."""
        svg = written[written.index("<svg") :]
        svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        box = re.search(r'viewBox="[^"]*"', svg)
        assert box is not None  # matplotlib always writes one
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} '
            f'role="img" class="chart"><title>{_xml(self._title)}</title>'
        )
        svg = head + svg[svg.index(">") + 1 :]
        svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
        svg = re.sub(r"\n\s*", "\n", svg).replace(INK, "currentColor")
        svg = re.sub(r' d="[^"]*"', _shorter, svg)
        svg = re.sub(r"font: [^;\"]*?(\d+)px [^;\"]*", r"font: \1px sans-serif", svg)
        return re.sub(r"Word(\d+)x", lambda found: _xml(self._texts[int(found[1])]), svg).strip()


def _shorter(path: re.Match[str]) -> str:
    """Round a path to a tenth of a point, on one line."""
    return re.sub(r"(\.\d)\d+", r"\1", path[0]).replace("\n", " ")


def _xml(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _amount(value: float, axes: Axes, unit: str) -> str:
    """Format a tick with as many decimals as its neighbours need."""
    low, high = axes.get_ylim()
    ticks = axes.get_yticks()
    step = float(ticks[1] - ticks[0]) if len(ticks) > 1 else 0.0
    if unit == "fraction":
        return f"{value * 100:.{_decimals((high - low) * 100, step * 100)}f}%"
    largest = max(abs(low), abs(high))
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if largest >= size:
            size = 1e3 if letter == "k" else size  # noqa: PLW2901 - `k` is used from ten thousand on
            return f"{value / size:,.{_decimals((high - low) / size, step / size)}f}{letter}" if value else "0"
    return f"{value:,.{_decimals(high - low, step)}f}"


def _decimals(span: float, step: float) -> int:
    """Return enough decimals for the span and for every multiple of the step: ticks 1.5 apart need one."""
    least = next((places for places, least in enumerate((6.0, 0.6, 0.06)) if span >= least), 4)
    exact = next((places for places in range(least, 5) if abs(step - round(step, places)) < step / 1000), least)
    return max(least, exact)


_STEPS = tuple(
    timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)
) + tuple(timedelta(days=days) for days in (1, 2, 5, 10, 20, 50, 100, 365, 1000, 5000))  # fmt: skip


def _instants(first: int, last: int, most: int) -> list[int]:
    """Return at most `most` round instants between two, in microseconds UTC."""
    lengths = [round(step.total_seconds()) * 1_000_000 for step in _STEPS]
    step = next((length for length in lengths if (last - first) // length <= most), lengths[-1])
    return list(range(-(-first // step) * step, last + 1, step)) or [first]


def _when(at: int, days: bool) -> str:
    moment = datetime.fromtimestamp(at / 1_000_000, UTC)
    midnight = at % (24 * 3600 * 1_000_000) == 0
    if midnight or (days and moment.hour == moment.minute == 0):
        return f"{moment:%b} {moment.day}"
    return f"{moment:%b} {moment.day} {moment:%H:%M}" if days else f"{moment:%H:%M}"


def line_chart(
    title: str,
    at: Sequence[int],
    series: Mapping[str, Sequence[float]],
    *,
    unit: str,
    marks: Sequence[ChartMark] = (),
    size: tuple[float, float] = (8.0, 3.0),
    colours: Sequence[str] = PALETTE,
) -> str:
    """Return one line for each of `series`, the first on top, as an `<svg …>` element.

    Each is as long as `at`, which is in microseconds and rising. Lines differ by `colours`, one for each, and by
    dashes.

    The element has a viewBox and no size of its own. `title` is for screen readers and is not drawn. Text is text in
    the colour of the page (`currentColor`). NaN and infinities are gaps. Long series are thinned; lowest and highest
    points are kept. `unit` labels the axis; "fraction" is drawn in percent. `size` is the width and height of the
    drawing in inches, without legend and mark labels. Equal data make equal text.

    ValueError for a series of another length than `at`.
    """
    _check_lengths(at, series)
    frame = ChartFrame(title, unit, *size, span=(at[0], at[-1]) if at else None)
    return frame.render(Lines(at, list(series.values()), colours), list(series), marks)


def area_chart(
    title: str,
    at: Sequence[int],
    series: Mapping[str, Sequence[float]],
    *,
    unit: str,
    marks: Sequence[ChartMark] = (),
    size: tuple[float, float] = (8.0, 3.0),
    colours: tuple[str, str] = (PALETTE[0], PALETTE[1]),
) -> str:
    """Return an area for each of `series`, signed amounts, as an `<svg …>` element like that of `line_chart`.

    Positive amounts are stacked upwards in the first of `colours`, negative ones downwards in the second. Areas differ
    by shade and hatching, and those with room for it have their name inside.
    """
    _check_lengths(at, series)
    frame = ChartFrame(title, unit, *size, span=(at[0], at[-1]) if at else None)
    return frame.render(Areas(at, list(series.values()), colours), list(series), marks)


def _check_lengths(at: Sequence[int], series: Mapping[str, Sequence[float]]) -> None:
    for name, values in series.items():
        if len(values) != len(at):
            raise ValueError(f"{name}: {len(values)} values for {len(at)} instants")
