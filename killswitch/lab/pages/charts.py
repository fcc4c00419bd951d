"""The charts of one book: equity under every rule, P&L by side, and positions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from killswitch.lab.campaign import STAGED, BookRuns
from killswitch.lab.outcome import Run, RunCurve
from killswitch.model.instant import to_micros
from killswitch.render.chart import ChartMark, line_chart
from killswitch.render.document import Figure

SIZES = (11.0, 3.4), (3.9, 2.6)
"""Sizes of the drawing in inches on a wide screen and on a phone: text keeps its size on both."""
_MOST_MARKS = 12
_HOUR = 3600 * 1_000_000
BEFORE, AFTER = 3 * _HOUR, 6 * _HOUR
"""The time around the first stage that fired which a second chart enlarges."""


def figures(tried: BookRuns, currency: str) -> tuple[Figure, ...]:
    """Return the charts of a book whose runs have equity curves; empty otherwise."""
    curves = [(run, run.course) for run in tried.runs if run.course is not None]
    if not curves:
        return ()
    drawn = [*_equity(curves, currency)]
    for run, curve in curves:
        if run.rule == STAGED:
            sides = {"longs": curve.long_pnl, "shorts": curve.short_pnl}
            drawn.append(_figure("P&L by side, staged (before fees)", curve.at, sides, currency, run))
            caption = "Positions, staged (long above zero)"
            drawn.append(_figure(caption, curve.at, curve.held, currency, run, stacked=True))
    return tuple(drawn)


def marks(run: Run) -> tuple[ChartMark, ...]:
    """Return the first stages that fired, each with its level."""
    return tuple(
        ChartMark(to_micros(firing.at), f"{firing.level} {firing.stage or ''}".strip(), firing.level)
        for firing in run.firings[:_MOST_MARKS]
    )


def _equity(curves: Sequence[tuple[Run, RunCurve]], currency: str) -> Iterator[Figure]:
    longest = max((curve for _, curve in curves), key=lambda curve: len(curve.at))
    gap = float("nan")
    series = {run.rule: [*curve.equity, *[gap] * (len(longest.at) - len(curve.at))] for run, curve in curves}
    staged = next((run for run, _ in curves if run.rule == STAGED), curves[0][0])
    yield _figure("Equity", longest.at, series, currency, staged)
    if not staged.firings:
        return
    fired = to_micros(staged.firings[0].at)
    first, end = bisect_left(longest.at, fired - BEFORE), bisect_right(longest.at, fired + AFTER)
    if 2 * (end - first) < len(longest.at):
        near = {rule: values[first:end] for rule, values in series.items()}
        caption = f"Equity around the first stage that fired ({staged.firings[0].at:%Y-%m-%d})"
        yield _figure(caption, longest.at[first:end], near, currency, staged)


def _figure(
    label: str, at: Sequence[int], series: Mapping[str, Sequence[float]], unit: str, run: Run, *, stacked: bool = False
) -> Figure:
    title = f"{label}: {run.book} in {run.market}"
    seen = [mark for mark in marks(run) if at and at[0] <= mark.at <= at[-1]]
    drawings = (line_chart(title, at, series, unit=unit, marks=seen, size=size, stacked=stacked) for size in SIZES)
    return Figure(label, *drawings)
