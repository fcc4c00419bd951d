"""The page of an impact, for the terminal and as HTML with charts; the comment is another text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from killswitch.lab.impact.replays import SpanReplay
from killswitch.lab.outcome import Run
from killswitch.model.instant import to_micros
from killswitch.operations.impact.classification import NEEDS_APPROVAL
from killswitch.operations.pull_request import tables
from killswitch.operations.pull_request.answer import ImpactAnswer, SideFacts
from killswitch.render.chart_layers import BLUE, GREY
from killswitch.render.document import Code, Facts, Figure, Items, Page, Part, Section, section

if TYPE_CHECKING:
    from killswitch.render.chart import ChartMark

Charts = Mapping[tuple[str, str], Figure]
"""(span, book) → the equity of both sides."""
NOTES = (
    "The class of a change comes from the proof alone: a replay is one history, and overrules nothing.",
    "Crashes are replayed through the paper market of `ksctl backtest`, with its fees, spreads and liquidations.",
    "A recording is replayed for decisions only: its equity is that of the set that ran.",
)


def impact_page(answer: ImpactAnswer, charts: Charts | None = None) -> Page:
    """The page of an answer, with charts where there are any."""
    sections = (
        *section("Not known", Items((*tables.problem_lines(answer), *_unfinished(answer)))),
        *section("Differences", tables.differences_table(answer.differences)),
        *_proved(answer),
        *_arrival(answer),
        *section("In shadow", Items(answer.shadow)),
        *_crashes(answer, charts or {}),
        *section("False firings in calm spans", tables.calm_table(answer.calm)),
        *_recordings(answer),
    )
    facts = (
        ("Head", _side(answer.head)), ("Base", _side(answer.base)), ("Now", tables.snapshot_line(answer)),
    )  # fmt: skip
    return Page("Impact", Facts(facts), summary=(answer.sentence,), sections=sections, notes=NOTES)


def _side(side: SideFacts) -> str:
    commit = "files that no commit holds" if side.commit is None else f"commit {side.commit[:12]}"
    return f"{side.label} ({commit}, {side.digest[:19]})"


def _unfinished(answer: ImpactAnswer) -> tuple[str, ...]:
    return () if answer.classification is None else answer.classification.unfinished


def _proved(answer: ImpactAnswer) -> Iterator[Section]:
    if answer.classification is None:
        return
    changes = sorted(answer.classification.changes, key=lambda each: each.verdict not in NEEDS_APPROVAL)
    parts = (tables.verdicts_table(answer), tables.changes_table(changes))
    yield from section(f"What is proved: {answer.classification.verdict}", *parts)
    for each in changes:
        if each.scenario:
            code = Code(tuple(each.scenario.rstrip("\n").split("\n")))
            yield Section(f"Witness: {each.policy}, {each.part}", (each.text, code), folded=True)


def _arrival(answer: ImpactAnswer) -> Iterator[Section]:
    if answer.classification is not None:
        yield from section("On arrival", Items(tuple(tables.arrival_lines(answer))))


def _crashes(answer: ImpactAnswer, charts: Charts) -> Iterator[Section]:
    replayed = [each for each in answer.crashes if not each.problem]
    yield from section("In past crashes", tables.crashes_table(replayed))
    for each in replayed:
        yield from section(f"{each.span}: {each.book}", *_span_parts(each, charts))


def _span_parts(each: SpanReplay, charts: Charts) -> Iterator[Part]:
    figure = charts.get((each.span, each.book))
    if figure is not None:
        yield figure
    table = tables.firings_table(each.firings)
    if table.rows:
        yield table


def _recordings(answer: ImpactAnswer) -> Iterator[Section]:
    for each in answer.recordings:
        if not each.problem:
            words = f"{len(each.firings)} firings over {each.snapshots:,} snapshots; decisions only."
            table = tables.firings_table(each.firings)
            yield Section(f"Recording {each.recording}", (words, table) if table.rows else (words, "None differs."))


# -- charts: the equity of both sides, with their firings -----------------------------------------------------------

SIZES = (11.0, 3.0), (3.9, 2.4)
"""Sizes in inches on a wide screen and on a phone."""
MOST_MARKS = 8
_COLOURS = (BLUE, GREY)


def impact_charts(replays: Sequence[SpanReplay]) -> dict[tuple[str, str], Figure]:
    """A chart of each replay in which base and head differ, by span and book; of all, where none differs."""
    shown = [each for each in replays if tables.differs(each)] or replays
    return {(each.span, each.book): found for each in shown if (found := _figure(each)) is not None}


def _figure(each: SpanReplay) -> Figure | None:
    if each.base is None or each.head is None or each.base.course is None or each.head.course is None:
        return None
    at, series = each.base.course.at, {"head": each.head.course.equity, "base": each.base.course.equity}
    if len(each.head.course.at) != len(at):
        return None  # one of them was stopped
    from killswitch.render.chart import line_chart  # matplotlib, which text does not need

    title = f"Equity in {each.span}: head and base"
    marks = sorted((*_marks(each.head, "head"), *_marks(each.base, "base")), key=lambda mark: (mark.at, mark.label))
    wide, narrow = (
        line_chart(title, at, series, unit="", marks=marks if size is SIZES[0] else (), size=size, colours=_COLOURS)
        for size in SIZES
    )
    return Figure(title, wide, narrow)


def _marks(run: Run, side: Literal["base", "head"]) -> Iterator[ChartMark]:
    from killswitch.render.chart import ChartMark

    for firing in run.firings[: MOST_MARKS // 2]:
        yield ChartMark(to_micros(firing.at), f"{side}: {firing.stage or firing.level}", firing.level)


def chart_files(charts: Mapping[tuple[str, str], Figure]) -> dict[str, str]:
    """File name → SVG of the wide drawing of each chart."""
    names = {key: re.sub(r"[^a-zA-Z0-9]+", "-", " ".join(key)).strip("-").lower() for key in charts}
    return {f"impact-{names[key]}.svg": figure.wide + "\n" for key, figure in charts.items()}
