"""Renders the report and the runbooks of one incident, and writes them into its folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from killswitch.incident.record.checklist import file_name
from killswitch.incident.record.document import Incident, RunbookFacts
from killswitch.incident.record.filters import escape
from killswitch.incident.report.templates import GENERIC, REPORT, SUFFIX, environment, render, template_variables
from killswitch.model.instant import to_micros
from killswitch.render.curve_panels import drawn_points, panels
from killswitch.render.document import Code, Figure, Page, Prose, Section
from killswitch.render.html import html

_DESK, _PHONE = (10.0, 3.4), (4.4, 2.8)
"""Width and height of the drawings in inches."""

EQUITY = "equity"
"""The language of the code block that shows the equity curve."""

LONGEST_FORMATTED = 32 << 10
"""The length in characters up to which a user's own page is parsed as Markdown. For a hostile page the time grows
with the square of its length, and its many tokens stop every other thread during garbage collection."""
_LONGEST_TITLE = 200
_FIRST_LINE = re.compile(r"\n.*|^[#> ]*", re.DOTALL)


class Rendered(Struct, frozen=True):
    """One document as Markdown and as HTML."""

    markdown: str
    html: str


def report_markdown(incident: Incident) -> str:
    """Return the report as Markdown. RenderingError for a faulty template."""
    return render(environment(), REPORT, template_variables(incident))


def report(incident: Incident) -> Rendered:
    """Return the report in both forms, the page with its chart. RenderingError for a faulty template."""
    from killswitch.incident.report.charts import chart_figures

    equity = equity_figure(incident)
    figures = chart_figures(incident) | ({} if equity is None else {EQUITY: equity})
    return _rendered(report_markdown(incident), figures)


def runbook(incident: Incident, stage: str, facts: RunbookFacts | None) -> Rendered:
    """Return the runbook of one stage: its own template, else the shipped one of its name, else the generic one."""
    own = None if facts is None or facts.folder is None or facts.template is None else facts.template
    found = environment((Path(facts.folder),) if own is not None and facts is not None and facts.folder else ())
    wanted = own or f"{facts.name if facts else stage}{SUFFIX}"
    if own is None and wanted not in found.list_templates():
        wanted = GENERIC
    text = render(found, wanted, template_variables(incident, stage))
    if own is not None and len(text) > LONGEST_FORMATTED:
        return Rendered(text, html(_page_of_source(text)))
    return _rendered(text)


def generic_runbook(incident: Incident, stage: str, why: str) -> Rendered:
    """Return the generic runbook of one stage, headed by `why` its own could not be rendered. RenderingError as
    above."""
    text = render(environment(), GENERIC, template_variables(incident, stage))
    text = f"> **This is the generic runbook:** the stage's own could not be rendered, {escape(why)}.\n\n{text}"
    return _rendered(text)


def _rendered(text: str, figures: dict[str, Figure] | None = None) -> Rendered:
    return Rendered(text, html(Page("", sections=(Section("", (Prose(text, tuple((figures or {}).items())),)),))))


def _page_of_source(text: str) -> Page:
    """Return a page that shows Markdown as it is, in time linear in its length."""
    note = f"This page is longer than {LONGEST_FORMATTED:,} characters, and is shown as source."
    title = _FIRST_LINE.sub("", text[:_LONGEST_TITLE])
    return Page(title, warning=note, sections=(Section("", (Code(tuple(text.split("\n"))),)),))


def equity_figure(incident: Incident) -> Figure | None:
    """Return the equity curve with the firings marked, drawn for a desktop and for a phone; None for no curve.

    A short incident is drawn once more, enlarged.
    """
    curve = incident.course
    if curve is None:
        return None
    from killswitch.render.chart import ChartMark, line_chart

    marks = [ChartMark(to_micros(each.at), each.stage, each.level) for each in incident.firings]
    if incident.reset is not None:
        marks.append(ChartMark(to_micros(incident.reset.at), "reset", 0))
    drawn = ["", ""]
    for panel in panels(curve.points, incident.opened_at):
        at, values = drawn_points(panel.points)
        series = {"value of a unit": values}
        what = "enlarged: " if panel.is_enlarged else ""
        seen = [mark for mark in marks if at[0] <= mark.at <= at[-1]]
        for number, size in enumerate((_DESK, _PHONE)):
            title, unit = f"{what}value of a unit around the incident", f"{what}first firing = 100"
            drawn[number] += line_chart(title, at, series, unit=unit, marks=seen, size=size)
    return Figure("", *drawn)


def write_document(folder: Path, incident: str, name: str, rendered: Rendered) -> bool:
    """Write `name.md` and `name.html` of an incident unless they are up to date; return whether anything was written.

    Readers find the old or the new file, whole. OSError if it cannot be written.
    """
    incident_folder = folder / file_name(incident)
    incident_folder.mkdir(parents=True, exist_ok=True)
    written = [
        _replace(incident_folder / f"{file_name(name)}{suffix}", text.encode("utf-8", "backslashreplace"))
        for suffix, text in ((".md", rendered.markdown), (".html", rendered.html))
    ]
    return any(written)


def _replace(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    temporary = path.with_name(f".{path.name}.tmp")
    # Created again: an existing file there may be a link to another file, or a pipe that is never read.
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return True
