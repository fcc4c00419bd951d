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
    value is unknown. A live drill is run by `ksctl drill live`.
    """
    from killswitch.cli.session import load_policies
    from killswitch.lab.book import BookError, read_book
    from killswitch.operations.drills.simulation import DrillWorld, NothingFiredError, book_for, run_drill

    document = _document(policies_at, name)
    if document.spec.mode == "live":
        raise click.ClickException(_how_to_run_live(document))
    loaded = load_policies(policies_at)
    run_folder = folder / name
    shutil.rmtree(run_folder, ignore_errors=True)
    with options.file_errors(f"the folder {run_folder} of the drill cannot be made"):
        run_folder.mkdir(parents=True)
    loaded = _routed(loaded, None if notify else run_folder / "messages.jsonl")
    world = DrillWorld(run_folder, datetime.now(UTC), _real_event(store_at))
    try:
        book = book_for(loaded.accounts) if book_at is None else read_book(book_at)
        result = run_drill(document, loaded, book, world)
    except (BookError, NothingFiredError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    _show(context, result, folder, output)


@options.verb(
    "ksctl drill live quarterly --policies policies --source source.yaml --store ks.sqlite --live", group=drill,
)  # fmt: skip
@click.argument("name")
@options.policies(required=True)
@click.option("--source", "source_at", type=options.IN_FILE, required=True,
              help="The source file of the runner, whose trust set counts the approvals.")  # fmt: skip
@options.store
@_folder
@click.option("--live", "is_live", is_flag=True, help="Send the order. Default: only show what would be opened.")
@click.option("--approval", "approvals_at", type=options.IN_FILE, multiple=True,
              help="File of an approval; repeatable. Those delivered to the store count as well.")  # fmt: skip
@click.option("--continue", "is_continued", is_flag=True,
              help="End what an earlier run has left: nothing is opened, and no order is sent twice.")  # fmt: skip
@click.option("--author", type=options.RECORD_TEXT, help="Name of the operator. Default: the user of this session.")
@options.output
@click.pass_context
def live(
    context: click.Context, name: str, policies_at: tuple[Path, ...], source_at: Path, store_at: str, folder: Path,
    is_live: bool, approvals_at: tuple[Path, ...], is_continued: bool, author: str | None, output: str,
) -> None:  # fmt: skip
    """Run the live drill NAME: open its smallest position at the venue, and have the runner close it.

    The document names the account, the symbol and the largest size. As many people as a loosening needs approve it with
    `ksctl approve --purpose drill`; each approval counts once, and none by whoever runs the drill. The runner on the
    store is alive and armed for the account, no lock and no stage is in force, and the account holds nothing in the
    symbol. An order without an answer is asked for and never sent again. A real event ends the drill: its position is
    still closed.
    """
    from killswitch.cli.lab.live_drill import LiveSite, run_live

    site = LiveSite(policies_at, source_at, store_at, approvals_at, author)
    result = run_live(_document(policies_at, name), site, is_live=is_live, is_continued=is_continued)
    if result is not None:
        _show(context, result, folder, output)


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

    document = _document(policies_at, name)
    from killswitch.cli.session import opened_store

    with opened_store(store_at, read_only=True) as store:
        try:
            result = measure_live(document, store, store_at, incident, datetime.now(UTC))
        except NotADrillError as error:
            raise click.ClickException(str(error)) from error
    _show(context, result, folder, output)


@options.verb("ksctl drill list --policies policies", group=drill, name="list")
@options.policies(required=True)
@_folder
def due(policies_at: tuple[Path, ...], folder: Path) -> None:
    """List the drills of a set with their last results, and which are due."""
    from killswitch.operations.drills.live_checks import drills_at
    from killswitch.operations.drills.pages import due_page, kept_results

    drills = drills_at(policies_at)
    if not drills:
        _require_readable(policies_at)
    print_page(due_page(drills, kept_results(folder)[0], datetime.now(UTC)))


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


def _show(context: click.Context, result: DrillResult, folder: Path, output: str) -> None:
    from killswitch.operations.drills.pages import keep, result_page

    if output == "json":
        click.echo(encode_record(result))
    else:
        print_page(result_page(result))
    with options.file_errors(f"the result cannot be kept in {folder}"):
        kept = keep(folder, result)
    print_note(f"kept in {kept}")
    if not result.is_passed:
        context.exit(EXIT_FAILED)


def _document(policies_at: Sequence[Path], name: str) -> DrillDocument:
    from killswitch.operations.drills.live_checks import drills_at, find_drill

    try:
        return find_drill(policies_at, name)
    except ValueError as error:
        if not drills_at(policies_at):
            _require_readable(policies_at)
        raise click.ClickException(str(error)) from error


def _require_readable(policies_at: Sequence[Path]) -> None:
    """End with the errors of the documents, if there are any: a document that cannot be read is not an absent one."""
    from killswitch.cli.session import load_policies

    load_policies(policies_at)


def _how_to_run_live(document: DrillDocument) -> str:
    live = document.spec.live
    assert live is not None  # a live drill without a position does not compile
    name = document.metadata.name
    return (
        f"{name} is a live drill, which opens at most {live.most.normalize():f} contracts of {live.symbol} on "
        f"{live.account} at its venue: have it approved with `ksctl approve --purpose drill --drill {name} …`, and run "
        f"it with `ksctl drill live {name} --live …`"
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
