"""Charts over time as SVG text: lines, and signed amounts stacked on either side of zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from killswitch.render.series import ChartMark, extremes, stack_sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 40
"""Columns of points for each inch of width: more would be invisible."""
_STACK_COLUMNS = 14
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
"""Lines differ by dashes as well as by colour."""


def line_chart(
    title: str,
    at: Sequence[int],
    series: Mapping[str, Sequence[float]],
    *,
    unit: str,
    marks: Sequence[ChartMark] = (),
    size: tuple[float, float] = (8.0, 3.0),
    stacked: bool = False,
) -> str:
    """Return one line for each of `series`, the first on top, as an `<svg …>` element.

    Each is as long as `at`, which is in microseconds and rising. `stacked` draws areas instead of lines: signed
    amounts, positive ones stacked upwards and negative ones downwards.

    The element has a viewBox and no size of its own. `title` is for screen readers and is not drawn. Text is text in
    the colour of the page (`currentColor`). NaN and infinities are gaps. Long series are thinned; lowest and highest
    points are kept. `unit` labels the axis; "fraction" is drawn in percent. `size` is the width and height of the
    drawing in inches, without legend and mark labels. Equal data make equal text.

    ValueError for a series of another length than `at`.
    """
    from killswitch.render.chart import ChartFrame

    for name, values in series.items():
        if len(values) != len(at):
            raise ValueError(f"{name}: {len(values)} values for {len(at)} instants")
    draw = partial(_areas if stacked else _lines, at=at, layers=list(series.values()), width=size[0])
    frame = ChartFrame(title, unit, *size, span=(at[0], at[-1]) if at else None)
    return frame.render(draw, list(series), marks, dashes=None if stacked else _DASHES)


def _lines(axes: Axes, at: Sequence[int], layers: Sequence[Sequence[float]], width: float) -> None:
    from killswitch.render.chart import colour

    for number, values in enumerate(layers):
        times, kept = extremes(at, values, round(width * _COLUMNS))
        dashes = _DASHES[number % len(_DASHES)]
        thick, above = (1.6, 3 - number / 100) if number else (2.0, 3.0)
        axes.plot(times, kept, color=colour(number), linewidth=thick, linestyle=dashes, zorder=above)


def _areas(axes: Axes, at: Sequence[int], layers: Sequence[Sequence[float]], width: float) -> None:
    from killswitch.render.chart import INK, colour

    times, sampled = stack_sample(at, layers, round(width * _STACK_COLUMNS))
    up, down = [0.0] * len(times), [0.0] * len(times)
    for number, values in enumerate(sampled):
        above = [base + max(value, 0.0) for base, value in zip(up, values, strict=True)]
        below = [base + min(value, 0.0) for base, value in zip(down, values, strict=True)]
        for base, edge in ((up, above), (down, below)):
            if edge != base:
                axes.fill_between(times, base, edge, color=colour(number), linewidth=0, alpha=0.85)
        up, down = above, below
    axes.axhline(0.0, color=INK, linewidth=0.8)
