"""`ksctl report`: the report of an incident, from the store alone; `ksctl report list`: all incidents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import options
from killswitch.cli.terminal import encode_record, print_markdown, print_note, print_page, terminal_width
from killswitch.render.document import Page, Section, Table
from killswitch.render.formats import instant, money

if TYPE_CHECKING:
    from killswitch.incident.record.document import Incident
    from killswitch.incident.record.incident_decisions import IncidentDecisions
    from killswitch.store.sql import SqlStore

_LIST, _EXPORT = "list", "export"


@options.verb(
    "ksctl report --store ks.sqlite", "ksctl report list --store ks.sqlite",
    "ksctl report export --variant closing --format csv --out close.csv --store ks.sqlite",
)  # fmt: skip
@click.argument("incident", metavar="[INCIDENT|list|export]", required=False)
@click.argument("exported", metavar="[INCIDENT]", required=False)
@options.store
@options.option("--format", "form", type=click.Choice(["markdown", "html", "json", "csv"]),
                help="Format: markdown (the default) or html of a report, json (the default) or csv of an export. A "
                     "terminal shows Markdown rendered, a pipe gets the source.")  # fmt: skip
@options.option("--variant", type=click.Choice(["compliance", "closing"]),
                help="What an export has: who did what, when and by which authority with every order and its owner, "
                     "or the close in numbers. Default: compliance.")  # fmt: skip
@click.option("--out", type=options.OUT_FILE, help="Write to this file. Default: stdout.")
@options.output
def report(
    incident: str | None,
    exported: str | None,
    store_at: str,
    form: str | None,
    variant: str | None,
    out: Path | None,
    output: str,
) -> None:
    """Report an incident: what happened and why, every order, open positions, and the next steps.

    INCIDENT is the beginning of its id, or of the id of one of its decisions; the default is the newest. `ksctl report
    list` lists them; `ksctl report export` prints one for compliance, or its close in numbers, as JSON or CSV. Reads
    the store only, with or without a runner. --output json prints the record that the report is made from.
    """
    from killswitch.incident.record.incident_decisions import find_incident
    from killswitch.incident.report.rendering import report as render_report
    from killswitch.incident.report.rendering import report_markdown

    _require_fitting(incident, exported, form, variant)
    if incident == _EXPORT:
        _written(_exported(store_at, exported, variant or "compliance", form or "json"), out)
        return
    if incident == _LIST:
        _list(store_at, output)
        return
    (found,) = _incidents(store_at, lambda store: [find_incident(store, incident)])
    if output == "json":
        text = encode_record(found)
    elif form == "html":
        text = render_report(found).html
    else:
        text = report_markdown(_fitted(found, terminal_width() if out is None else None))
    if out is None and output == "text" and form in (None, "markdown"):
        print_markdown(text)
    else:
        _written(text, out)


def _require_fitting(incident: str | None, exported: str | None, form: str | None, variant: str | None) -> None:
    """Refuse words and options that do not belong together."""
    is_export = incident == _EXPORT
    if exported is not None and not is_export:
        raise click.UsageError(f"{exported!r} is one word too many: only `export` is followed by an incident")
    if variant is not None and not is_export:
        raise click.UsageError("--variant is for `ksctl report export`")
    if form in (("markdown", "html") if is_export else ("json", "csv")):
        fix = "write json or csv" if is_export else "write `ksctl report export`, or `--output json` for the record"
        raise click.UsageError(f"--format {form} does not fit: {fix}")


def _written(text: str, out: Path | None) -> None:
    """Write the text to the file, or print it."""
    if out is None:
        click.echo(text.rstrip("\n"))
        return
    with options.file_errors(f"cannot write {out}"):
        out.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8", newline="")
    print_note(f"wrote {out}")


def _exported(store_at: str, prefix: str | None, variant: str, form: str) -> str:
    """The export of one incident as JSON or CSV."""
    from killswitch.cli.session import opened_store
    from killswitch.incident.incident_builder import incident_of
    from killswitch.incident.record.incident_decisions import find_incident
    from killswitch.incident.record.results import read_decision
    from killswitch.incident.report.exports import as_csv, as_json, closing_report, compliance_report
    from killswitch.runner.status_blob import last_tick, machines_now, started_as

    with opened_store(store_at, read_only=True) as store:
        chosen = find_incident(store, prefix)
        found = incident_of(store, chosen, started_as(store, store_at), last_tick(store), machines_now(store))
        recorded = [read_decision(store, each) for each in chosen.decisions]
    built = closing_report(found) if variant == "closing" else compliance_report(found, recorded)
    return as_csv(built) if form == "csv" else as_json(built)


MARGINS = 2
"""Columns of a terminal around the lines of a drawing."""


def _fitted(found: Incident, columns: int | None) -> Incident:
    """The record with its equity curve as wide as a terminal of `columns` columns."""
    from msgspec.structs import replace

    from killswitch.render.curve_panels import panel_lines

    if columns is None or found.course is None:
        return found
    drawn = panel_lines(found.course.points, found.opened_at, max(MARGINS, columns - MARGINS))
    return replace(found, course=replace(found.course, sparkline=drawn))


def _list(store_at: str, output: str) -> None:
    from killswitch.incident.record.incident_decisions import read_incidents

    found = _incidents(store_at, lambda store: reversed(read_incidents(store)))
    if output == "text":
        print_page(incidents_page(found))
        return
    for each in found:
        click.echo(encode_record(each))


def _incidents(store_at: str, selected: Callable[[SqlStore], Iterable[IncidentDecisions]]) -> list[Incident]:
    from killswitch.cli.session import opened_store
    from killswitch.incident.incident_builder import incident_of
    from killswitch.runner.status_blob import last_tick, machines_now, started_as

    with opened_store(store_at, read_only=True) as store:
        started, now, machines = started_as(store, store_at), last_tick(store), machines_now(store)
        return [incident_of(store, each, started, now, machines) for each in selected(store)]


def incidents_page(found: Sequence[Incident]) -> Page:
    """One line per incident, newest first."""
    if not found:
        return Page("Incidents", summary=("No incident is recorded on this store.",))
    rows = tuple(
        (
            instant(each.opened_at), each.id, each.policy, each.scope, _level(each), _state(each),
            str(len(each.orders)) if each.orders else "-",
            money(each.money.cost, each.money.currency or "") if any(order.filled for order in each.orders) else "-",
        )
        for each in found
    )  # fmt: skip
    head = ("opened", "incident", "policy", "scope", "highest level", "state", "orders", "cost")
    return Page("Incidents", sections=(Section("", (Table(head, rows, expendable=(6, 7, 2), ids=(1,)),)),))


def _level(incident: Incident) -> str:
    if incident.reason is not None and incident.reason.cause == "dead-man":
        return "dead man"
    drill = "DRILL: " if incident.reason is not None and incident.reason.cause == "drill" else ""
    return f"{drill}by hand" if incident.by_hand else f"{drill}{incident.level} {incident.stage}"


def _state(incident: Incident) -> str:
    left = f", {len(incident.left)} not closed" if incident.left else ""
    return f"{incident.state}{left}"
