"""The report and the runbooks of one incident, as Markdown and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from killswitch.incident.markdown import escape
from killswitch.incident.page import LONGEST_FORMATTED, page, page_as_written
from killswitch.incident.record import Incident, RunbookFacts
from killswitch.incident.shown import context_of
from killswitch.incident.templates import GENERIC, REPORT, SUFFIX, environment, render
from killswitch.model.instant import to_micros

_DESK, _PHONE = (10.0, 3.4), (4.4, 2.8)
"""Width and height of the drawings, in inches."""


class Rendered(NamedTuple):
    """One document in both forms."""

    markdown: str
    html: str


def report_markdown(incident: Incident) -> str:
    """The report. RenderingError where a template is wrong."""
    return render(environment(), REPORT, context_of(incident))


def report(incident: Incident) -> Rendered:
    """The report in both forms, the page with its chart. RenderingError where a template is wrong."""
    text = report_markdown(incident)
    return Rendered(text, page(text, charts(incident)))


def runbook(incident: Incident, stage: str, facts: RunbookFacts | None) -> Rendered:
    """The runbook of one stage: its own template, else the shipped one of its name, else the generic one."""
    own = None if facts is None or facts.folder is None or facts.template is None else facts.template
    found = environment((Path(facts.folder),) if own is not None and facts is not None and facts.folder else ())
    wanted = own or f"{facts.name if facts else stage}{SUFFIX}"
    if own is None and wanted not in found.list_templates():
        wanted = GENERIC
    text = render(found, wanted, context_of(incident, stage))
    if own is not None and len(text) > LONGEST_FORMATTED:
        return Rendered(text, page_as_written(text))
    return Rendered(text, page(text, ()))


def generic_runbook(incident: Incident, stage: str, why: str) -> Rendered:
    """The generic runbook of one stage, headed by `why` its own could not be rendered. RenderingError as above."""
    text = render(environment(), GENERIC, context_of(incident, stage))
    text = f"> **This is the generic runbook:** the stage's own could not be rendered, {escape(why)}.\n\n{text}"
    return Rendered(text, page(text, ()))


def charts(incident: Incident) -> tuple[str, ...]:
    """The course of equity with the firings marked, as `<svg>` elements: for a desk, and for a phone.

    None where no course is known.
    """
    course = incident.course
    if course is None:
        return ()
    from killswitch.charts.lines import line_chart
    from killswitch.charts.sampling import Mark

    marks = [Mark(to_micros(each.at), each.stage, each.level) for each in incident.firings]
    if incident.reset is not None:
        marks.append(Mark(to_micros(incident.reset.at), "reset", 0))
    at = [to_micros(point.at) for point in course.points]
    series = {"value of a unit": [point.value for point in course.points]}
    title, unit = "Value of a unit around the incident", "first firing = 100"
    return tuple(
        line_chart(title, at, series, unit=unit, marks=marks, width=width, height=height)
        for width, height in (_DESK, _PHONE)
    )
