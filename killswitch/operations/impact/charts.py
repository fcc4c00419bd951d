"""Charts of an impact: the equity of base and head through each crash, with the firings of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from killswitch.lab.impact.replays import SpanReplay
from killswitch.lab.outcome import Run
from killswitch.model.instant import to_micros
from killswitch.render.chart import ChartMark, line_chart
from killswitch.render.chart_layers import BLUE, GREY
from killswitch.render.document import Figure

SIZES = (11.0, 3.0), (3.9, 2.4)
"""Sizes in inches on a wide screen and on a phone."""
MOST_MARKS = 8
_COLOURS = (BLUE, GREY)


def impact_charts(replays: Sequence[SpanReplay]) -> dict[tuple[str, str], Figure]:
    """A chart of each replay that kept its curves, by span and book."""
    return {(each.span, each.book): found for each in replays if (found := _figure(each)) is not None}


def _figure(each: SpanReplay) -> Figure | None:
    if each.base is None or each.head is None or each.base.course is None or each.head.course is None:
        return None
    at, series = each.base.course.at, {"head": each.head.course.equity, "base": each.base.course.equity}
    if len(each.head.course.at) != len(at):
        return None  # one of them was stopped
    title = f"Equity in {each.span}: head and base"
    marks = sorted((*_marks(each.head, "head"), *_marks(each.base, "base")), key=lambda mark: (mark.at, mark.label))
    wide, narrow = (
        line_chart(title, at, series, unit="", marks=marks if size is SIZES[0] else (), size=size, colours=_COLOURS)
        for size in SIZES
    )
    return Figure(title, wide, narrow)


def _marks(run: Run, side: Literal["base", "head"]) -> Iterator[ChartMark]:
    for firing in run.firings[: MOST_MARKS // 2]:
        yield ChartMark(to_micros(firing.at), f"{side}: {firing.stage or firing.level}", firing.level)


def chart_files(charts: Mapping[tuple[str, str], Figure]) -> dict[str, str]:
    """File name → SVG of the wide drawing of each chart."""
    names = {key: re.sub(r"[^a-zA-Z0-9]+", "-", " ".join(key)).strip("-").lower() for key in charts}
    return {f"impact-{names[key]}.svg": figure.wide + "\n" for key, figure in charts.items()}
