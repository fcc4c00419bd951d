"""`ksctl drill`: rehearsals of the whole way from a crash to a flat book, measured against targets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, options
from killswitch.cli.terminal import encode_record, print_note, print_page
from killswitch.render.document import Page

if TYPE_CHECKING:
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.operations.drills.measures import DrillResult
    from killswitch.policy.schema.drill import DrillDocument

FOLDER = Path("drills")
GIVEN_UP_AFTER = 3600 * 1_000_000
"""Microseconds after which a message of a drill is dropped."""
_folder = options.option(
    "--folder", type=options.OUT_FOLDER, default=FOLDER,
    help="Folder of the drills' results, and of the store of the last one.",
)  # fmt: skip


@click.group(epilog=options.example_text("ksctl drill run weekly --policies policies"))
def drill() -> None:
    """Rehearse a crash, and measure the time and the cost until the book is flat."""


@options.verb(
    "ksctl drill run weekly --policies policies", "ksctl drill run monthly --policies policies --store ks.sqlite",
    group=drill,
)  # fmt: skip
@click.argument("name")
@options.policies(required=True)
@_folder
@click.option("--book", "book_at", type=options.IN_FILE,
              help="Positions of the accounts. Default: eight symbols, long and short.")  # fmt: skip
@click.option("--store", "store_at", type=options.OUT_FILE,
              help="Store of the live runner: a stage that fires there ends the drill.")  # fmt: skip
@click.option("--notify", is_flag=True,
              help="Send the messages, marked as DRILL, to the routes. Default: only to a file.")  # fmt: skip
@options.output
@click.pass_context
def run(
    context: click.Context,
    name: str,
    policies_at: tuple[Path, ...],
    folder: Path,
    book_at: Path | None,
    store_at: Path | None,
    notify: bool,
    output: str,
) -> None:
    """Run the drill NAME of a set: its policies in a generated crash on the paper market.

    No venue of an Account document is contacted, and no order leaves this process. Exits 1 if a target is missed or a
    value is unknown. A live drill is not run: a person closes its position, and `ksctl drill measure` measures that.
    """
    from killswitch.cli.session import load_policies
    from killswitch.lab.book import BookError, read_book
    from killswitch.operations.drills.pages import keep, result_page
    from killswitch.operations.drills.simulation import DrillWorld, NothingFiredError, book_for, run_drill

    document = _document(policies_at, name)
    if document.spec.mode == "live":
        raise click.ClickException(_how_to_run_live(document))
    loaded = load_policies(policies_at)
    run_folder = folder / name
    shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir(parents=True)
    loaded = _routed(loaded, None if notify else run_folder / "messages.jsonl")
    world = DrillWorld(run_folder, datetime.now(UTC), _real_event(store_at))
    try:
        book = book_for(loaded.accounts) if book_at is None else read_book(book_at)
        result = run_drill(document, loaded, book, world)
    except (BookError, NothingFiredError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _show(context, result, result_page(result), keep(folder, result), output)


@options.verb("ksctl drill measure quarterly 2e090 --policies policies --store ks.sqlite", group=drill)
@click.argument("name")
@click.argument("incident")
@options.policies(required=True)
@options.store
@_folder
@options.output
@click.pass_context
def measure(
    context: click.Context,
    name: str,
    incident: str,
    policies_at: tuple[Path, ...],
    store_at: str,
    folder: Path,
    output: str,
) -> None:
    """Measure the recorded INCIDENT as the live drill NAME.

    The incident is a close by hand whose reason begins with `drill`, on the account of the drill, of no other symbol
    and of at most its size. Reads the store only.
    """
    from killswitch.operations.drills.live import NotADrillError, measure_live
    from killswitch.operations.drills.pages import keep, result_page

    document = _document(policies_at, name)
    from killswitch.cli.session import opened_store

    with opened_store(store_at, read_only=True) as store:
        try:
            result = measure_live(document, store, store_at, incident, datetime.now(UTC))
        except NotADrillError as error:
            raise click.ClickException(str(error)) from error
    _show(context, result, result_page(result), keep(folder, result), output)


@options.verb("ksctl drill list --policies policies", group=drill, name="list")
@options.policies(required=True)
@_folder
def due(policies_at: tuple[Path, ...], folder: Path) -> None:
    """List the drills of a set with their last results, and which are due."""
    from killswitch.operations.drills.pages import due_page, kept_results

    print_page(due_page(_documents(policies_at), kept_results(folder)[0], datetime.now(UTC)))


@options.verb("ksctl drill trend", group=drill)
@_folder
@options.output
def trend(folder: Path, output: str) -> None:
    """Show the measures of all kept drills, the newest first."""
    from killswitch.operations.drills.pages import kept_results, trend_page

    found, damaged = kept_results(folder)
    if output == "json":
        for each in found:
            click.echo(encode_record(each))
    elif not found:
        print_page(Page("Trend of drills", summary=(f"No drill is kept in {folder}.",)))
    else:
        print_page(trend_page(found, damaged))


def _show(context: click.Context, result: DrillResult, page: Page, kept: Path, output: str) -> None:
    if output == "json":
        click.echo(encode_record(result))
    else:
        print_page(page)
    print_note(f"kept in {kept}")
    if not result.is_passed:
        context.exit(EXIT_FAILED)


def _documents(policies_at: Sequence[Path]) -> list[DrillDocument]:
    from killswitch.policy.loader import load
    from killswitch.policy.schema.drill import DrillDocument

    models = (each.model for each in load(list(policies_at)).documents)
    return [each for each in models if isinstance(each, DrillDocument)]


def _document(policies_at: Sequence[Path], name: str) -> DrillDocument:
    found = {each.metadata.name: each for each in _documents(policies_at)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none; add a document of kind Drill"
        raise click.ClickException(f"the set has no Drill named {name}; it has {known}")
    return found[name]


def _how_to_run_live(document: DrillDocument) -> str:
    live = document.spec.live
    assert live is not None  # a live drill without a position does not compile
    name, place = document.metadata.name, f"{live.symbol}, and nothing else, on {live.account}"
    close = f"ksctl close --scope account/{live.account} --reason 'drill: {name}' --live --policies …"
    return (
        f"the live drill {name} sends nothing by itself: hold at most {live.most} contracts of {place}, have a second "
        f"person agree, close it with `{close}`, and then run `ksctl drill measure {name} INCIDENT --store …`"
    )


def _real_event(store_at: Path | None) -> Callable[[], str | None]:
    """What says whether a stage has fired on the live runner's store since the drill began."""
    if store_at is None:
        return lambda: None
    from killswitch.operations.drills.live import real_event_since

    return real_event_since(str(store_at), datetime.now(UTC))


def _routed(loaded: LoadedPolicies, messages: Path | None) -> LoadedPolicies:
    """The set with its routes; unless their targets are to be notified, the file of messages is the only target."""
    from msgspec.structs import replace

    from killswitch.graph.nodes import Place
    from killswitch.graph.routing import Route, RouteRule, RouteTarget

    if messages is None:
        return loaded
    everything = RouteRule(None, None, None, None, None, None, ())
    target = RouteTarget("file", str(messages.resolve()))
    route = Route("drill", everything, (target,), GIVEN_UP_AFTER, Place("", 1, 1, ""))
    return replace(loaded, policies=replace(loaded.policies, routes=(route,), notification=None))
