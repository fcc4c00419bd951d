"""`ksctl report`: what happened in an incident and why, from the store alone; `ksctl report list`: all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import options
from killswitch.cli.wording import instant, money, table
from killswitch.incident.record.document import Incident

if TYPE_CHECKING:
    from killswitch.incident.record.document import Incident
    from killswitch.store.sql import SqlStore

_LIST = "list"


@click.command(epilog=options.example("ksctl report --store ks.sqlite", "ksctl report list --store ks.sqlite"))
@click.argument("incident", metavar="[INCIDENT|list]", required=False)
@options.store
@click.option("--format", "form", type=click.Choice(["markdown", "html"]), default="markdown", show_default=True,
              help="What the report is written in. A terminal shows Markdown rendered, a file or a pipe gets it as it "
                   "is.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file. Left out: stdout.")
@options.output
def report(incident: str | None, store_at: str, form: str, out: Path | None, output: str) -> None:
    """Report an incident: what happened and why, every order, what is open, and what to do next.

    INCIDENT is the beginning of its id, or of any of its decisions' ids; left out, the newest. `ksctl report list`
    lists them. Reads the store only, whether a runner lives or not. With --output json: the record that the report
    is made from.
    """
    if incident == _LIST:
        _list(store_at, output)
        return
    found = _found(store_at, incident)
    text = _json(found) if output == "json" else _written(found, form)
    if out is None and output == "text" and form == "markdown" and sys.stdout.isatty():
        _show(text)
    else:
        _deliver(text, out)


def _found(store_at: str, incident: str | None) -> Incident:
    from killswitch.incident.incident_builder import incident_of
    from killswitch.incident.record.lifetime import life_of
    from killswitch.runner.status_blob import last_tick, started_as

    with _opened(store_at) as store:
        return incident_of(store, life_of(store, incident), started_as(store, store_at), last_tick(store))


def _list(store_at: str, output: str) -> None:
    from killswitch.incident.incident_builder import incident_of
    from killswitch.incident.record.lifetime import lives_in
    from killswitch.runner.status_blob import last_tick, started_as

    with _opened(store_at) as store:
        started, now = started_as(store, store_at), last_tick(store)
        found = [incident_of(store, life, started, now) for life in reversed(lives_in(store))]
    if output == "text":
        click.echo(list_text(found))
        return
    for each in found:
        click.echo(_json(each))


@contextmanager
def _opened(store_at: str) -> Iterator[SqlStore]:
    from killswitch.cli.session import friendly
    from killswitch.incident.record.lifetime import UnknownIncidentError
    from killswitch.incident.report.templates import RenderingError
    from killswitch.store.sqlite import open_store

    with friendly():
        store = open_store(store_at, read_only=True)
        try:
            yield store
        except (RenderingError, UnknownIncidentError) as error:
            raise click.ClickException(str(error.args[0])) from error
        finally:
            store.close()


def _json(incident: Incident) -> str:
    import msgspec

    return msgspec.json.Encoder(decimal_format="string").encode(incident).decode()


def _written(incident: Incident, form: str) -> str:
    from killswitch.incident.report.rendering import report as both
    from killswitch.incident.report.rendering import report_markdown
    from killswitch.incident.report.templates import RenderingError

    try:
        return report_markdown(incident) if form == "markdown" else both(incident).html
    except RenderingError as error:
        raise click.ClickException(str(error)) from error


def _show(markdown: str) -> None:
    """The report on a terminal, in its width; colours where the terminal has them and NO_COLOR is not set."""
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(markdown))


def _deliver(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text.rstrip("\n"))
        return
    try:
        out.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {out}: {error.strerror}") from error
    click.echo(f"wrote {out}", err=True)


def list_text(found: Sequence[Incident]) -> str:
    """One line for each incident, newest first."""
    if not found:
        return "No incident is recorded on this store."
    rows = [
        (
            instant(each.opened_at), each.id, each.policy, each.scope, _level(each), _state(each),
            str(len(each.orders)) if each.orders else "-",
            money(each.money.cost, each.money.currency or "") if any(order.filled for order in each.orders) else "-",
        )
        for each in found
    ]  # fmt: skip
    return table(("opened", "incident", "policy", "scope", "highest level", "state", "orders", "cost"), rows, indent="")


def _level(incident: Incident) -> str:
    return "by hand" if incident.by_hand else f"{incident.level} {incident.stage}"


def _state(incident: Incident) -> str:
    left = f", {len(incident.left)} not closed" if incident.left else ""
    return f"{incident.state}{left}"
