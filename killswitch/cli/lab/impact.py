"""`ksctl impact`: what a change of policies loosens, what it would have done, and what it would do now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli import EXIT_PENDING, EXIT_TROUBLE
from killswitch.cli.options import (
    DURATION,
    IN_FILE,
    IN_FOLDER,
    OUT_FILE,
    OUT_FOLDER,
    PATH,
    ParsedParam,
    UncheckedPath,
    file_errors,
    option,
    page_output,
    variant,
    verb,
)
from killswitch.cli.terminal import print_note, print_page
from killswitch.lab.campaign import place_of

if TYPE_CHECKING:
    from killswitch.cli.lab.backtest_run import BacktestRun
    from killswitch.lab.book import BacktestBook
    from killswitch.lab.impact.replays import ReplayedSpan
    from killswitch.operations.impact.policy_side import PolicySide
    from killswitch.operations.pull_request.answer import ImpactAnswer, ImpactSubject


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is not an instant; write 2026-03-02T09:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


MOMENT = ParsedParam("instant", _moment)


class ImpactOptions(Struct, frozen=True):
    """What the command line selects; times in seconds."""

    paths: tuple[Path, ...]
    against: str
    head: str | None
    variant: str | None
    crashes: tuple[Path, ...]
    calm: tuple[Path, ...]
    books: tuple[Path, ...]
    recordings: tuple[Path, ...]
    live: Path | None
    store: str | None
    shadow: Path | None
    now: datetime
    max_age: float
    limit: float
    timeout: float
    seed: int
    jobs: int


class ImpactFiles(Struct, frozen=True):
    """Where the answer is written besides stdout."""

    comment: Path | None
    html: Path | None
    json: Path | None
    charts: Path | None


@verb("ksctl impact policies/ --against main --comment comment.md",
      "ksctl impact policies/ --against main --crashes bars/ --book book.yaml --html impact.html",
      "ksctl impact policies/ --against main --live run.jsonl --store ks.sqlite --detailed-exitcode")  # fmt: skip
@click.argument("paths", metavar="[PATH]…", nargs=-1, type=UncheckedPath())
@click.option("--against", metavar="REF", required=True,
              help="The base: a git revision of the paths, or a folder: ./FOLDER or an absolute path.")  # fmt: skip
@click.option("--head", metavar="REF", help="The paths at this git revision, instead of the files on disk.")
@variant
@click.option("--crashes", type=IN_FOLDER, multiple=True,
              help="Folder of bars, or of such folders; those whose names begin with `calm` are calm spans. May be "
                   "given more than once. Default: three generated crashes and a calm span.")  # fmt: skip
@click.option("--calm", type=IN_FOLDER, multiple=True, help="Folder of bars of a time in which nothing should fire.")
@click.option("--book", "books", type=IN_FILE, multiple=True,
              help="Positions of the accounts. Default: a long book, and one that is half long.")  # fmt: skip
@click.option("--recording", "recordings", type=IN_FILE, multiple=True,
              help="Replay this recording too, for decisions only.")  # fmt: skip
@click.option("--live", type=PATH, metavar="RECORDING",
              help="Show what would fire on arrival, on the last snapshot of this recording of a runner.")  # fmt: skip
@click.option("--store", "store_at", metavar="FILE",
              help="With --live: the store of the runner, read-only, for histories and stages.")  # fmt: skip
@click.option("--shadow", type=IN_FILE, metavar="REPORT",
              help="Show what the head did in shadow: the file of `ksctl shadow report --output json`.")  # fmt: skip
@option("--max-age", type=DURATION, default="5m", help="With --live: the age from which a snapshot is too old.")
@click.option("--now", type=MOMENT, metavar="INSTANT", help="The time from which ages are measured. Default: now.")
@option("--limit", type=click.FloatRange(min=0.01), default=10.0, metavar="SECONDS", help="Time of one question.")
@option("--timeout", type=DURATION, default="2m", help="Time of the whole proof; what is left then is undecided.")
@click.option("--repository", metavar="NAME", help="For the marker. Default: the name of the repository's folder.")
@option("--environment", metavar="NAME", default="default", help="For the marker.")
@click.option("--set", "set_name", metavar="NAME", help="For the marker. Default: the paths.")
@option("--seed", type=int, default=7, help="Seed of the paper market.")
@option("--jobs", type=click.IntRange(min=1), default=1, help="Number of processes that replay.")
@click.option("--comment", "comment_at", type=OUT_FILE, help="Write the comment, in Markdown, into this file.")
@click.option("--html", "html_at", type=OUT_FILE, help="Write a page with charts into this file.")
@click.option("--json", "json_at", type=OUT_FILE, help="Write the answer as JSON into this file.")
@click.option("--charts", "charts_at", type=OUT_FOLDER, help="Write each chart into this folder, as SVG.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if the change needs the approvals of a loosening.")
@page_output
@click.pass_context
def impact(
    context: click.Context, paths: tuple[Path, ...], against: str, head: str | None, variant: str | None,
    crashes: tuple[Path, ...], calm: tuple[Path, ...], books: tuple[Path, ...], recordings: tuple[Path, ...],
    live: Path | None, store_at: str | None, shadow: Path | None, max_age: float, now: datetime | None, limit: float,
    timeout: float, repository: str | None, environment: str, set_name: str | None, seed: int, jobs: int,
    comment_at: Path | None,
    html_at: Path | None, json_at: Path | None, charts_at: Path | None, detailed_exitcode: bool, output: str,
) -> None:  # fmt: skip
    """Show what a change of policies does, against a base: in every situation, in past crashes, and now.

    The class of the change is proved, per policy and part. Replays show what fires earlier, later and no more.
    Nothing of the head is run or opened: no adapter, endpoint or credential.

    Exits 0 if nothing changed or the change was analysed, 4 if it could not tell (the head does not compile, the base
    cannot be read, no present snapshot with --live), and 1 if it failed. With --detailed-exitcode it exits 2 if the
    change is a loosening, or cannot be proved to be none.
    """
    if store_at is not None and live is None:
        raise click.UsageError("--store belongs to --live RECORDING")
    chosen = ImpactOptions(
        paths or (Path(),), against, head, variant, crashes, calm, books, recordings, live, store_at, shadow,
        now or datetime.now(UTC), max_age, limit, timeout, seed, jobs,
    )  # fmt: skip
    files = ImpactFiles(comment_at, html_at, json_at, charts_at)
    subject = _subject(chosen, repository, environment, set_name)
    try:
        answer = _analysed(
            chosen, subject, with_curves=output == "html" or html_at is not None or charts_at is not None
        )
        status = _written(answer, files, output)
    except click.ClickException as error:
        _write_failure(subject, files, error.message)
        raise
    except Exception as error:
        _write_failure(subject, files, f"{type(error).__name__}: {error}")
        if type(error).__module__.startswith("killswitch."):
            raise
        raise click.ClickException(f"the tool failed ({place_of(error)}): nothing is known of this change") from error
    if detailed_exitcode and answer.conclusion == "analysed" and answer.needs_approval:
        context.exit(EXIT_PENDING)
    context.exit(status)


def _subject(chosen: ImpactOptions, repository: str | None, environment: str, set_name: str | None) -> ImpactSubject:
    from killswitch.operations.impact.revision import GitRevisionError, PolicyRepository
    from killswitch.operations.pull_request.answer import ImpactSubject

    if repository is None:
        try:
            repository = PolicyRepository(chosen.paths[0]).root.name
        except GitRevisionError:
            repository = chosen.paths[0].resolve().name
    return ImpactSubject(repository, environment, set_name or " ".join(path.as_posix() for path in chosen.paths))


def _analysed(chosen: ImpactOptions, subject: ImpactSubject, *, with_curves: bool) -> ImpactAnswer:
    from killswitch.cli.session import store_if_any
    from killswitch.operations.impact.classification import ProofLimits
    from killswitch.operations.pull_request.analysis import ImpactInputs, analyse
    from killswitch.operations.pull_request.live_arrival import LiveInput

    books = tuple(_books(chosen))
    spans = tuple(_spans(chosen))
    with nullcontext() if chosen.store is None else store_if_any(chosen.store) as store:
        live = None
        if chosen.live is not None:
            live = LiveInput(chosen.live, store, chosen.now, timedelta(seconds=chosen.max_age))
        inputs = ImpactInputs(
            spans, books, chosen.recordings, live, chosen.shadow, ProofLimits(chosen.limit, chosen.timeout),
            _runner_of(chosen.seed), chosen.jobs, with_curves,
        )  # fmt: skip
        return analyse(subject, partial(_base, chosen), partial(_head, chosen), inputs, perf_counter)


def _runner_of(seed: int) -> partial[BacktestRun]:
    from killswitch.cli.lab.backtest_run import BacktestRun

    return partial(BacktestRun, seed=seed)


def _base(chosen: ImpactOptions) -> PolicySide:
    from killswitch.graph.variants import NoSuchVariantError

    try:
        return _base_with(chosen, chosen.variant)
    except NoSuchVariantError:
        return _base_with(chosen, None)  # the head is the first to declare it


def _base_with(chosen: ImpactOptions, variant: str | None) -> PolicySide:
    from killswitch.operations.impact.policy_side import side_of_revision, side_on_disk

    if chosen.against.startswith(("./", "../", "/")):  # a folder of the head must not pass for a branch of its name
        return side_on_disk([Path(chosen.against)], variant, chosen.against)
    return side_of_revision(chosen.paths, chosen.against, variant)


def _head(chosen: ImpactOptions) -> PolicySide:
    from killswitch.operations.impact.policy_side import side_of_revision, side_on_disk

    if chosen.head is not None:
        return side_of_revision(chosen.paths, chosen.head, chosen.variant)
    return side_on_disk(chosen.paths, chosen.variant)


def _books(chosen: ImpactOptions) -> Iterator[BacktestBook]:
    from killswitch.lab.book import read_book

    yield from map(read_book, chosen.books)


def _spans(chosen: ImpactOptions) -> Iterator[ReplayedSpan]:
    from killswitch.cli.lab.backtest_books import market_folders, panel_of
    from killswitch.lab.impact.replays import ReplayedSpan, shipped_spans

    for folder in (inner for path in chosen.crashes for inner in market_folders(path)):
        yield ReplayedSpan(
            folder.name, "calm" if folder.name.startswith("calm") else "crash", partial(panel_of, folder)
        )
    for folder in (inner for path in chosen.calm for inner in market_folders(path)):
        yield ReplayedSpan(folder.name, "calm", partial(panel_of, folder))
    if not chosen.crashes and not chosen.calm:
        yield from shipped_spans()


def _written(answer: ImpactAnswer, files: ImpactFiles, output: str) -> int:
    """Write and print the answer; the exit code of its conclusion."""
    from killswitch.operations.pull_request.answer import encode_answer
    from killswitch.operations.pull_request.comment import CommentTooLongError, comment_text
    from killswitch.operations.pull_request.page import chart_files, impact_charts, impact_page
    from killswitch.render.html import html

    is_drawn = output == "html" or files.html is not None or files.charts is not None
    charts = impact_charts(answer.crashes) if is_drawn else {}
    drawn = chart_files(charts) if files.charts is not None else {}
    status = EXIT_TROUBLE if answer.conclusion == "could not tell" else 0
    try:
        comment = comment_text(answer, tuple(drawn))
    except CommentTooLongError as error:
        raise click.ClickException(f"{error}: review the change in parts") from error
    contents = {files.comment: comment, files.json: encode_answer(answer).decode() + "\n"}
    if files.html is not None:
        contents[files.html] = html(impact_page(answer, charts)) + "\n"
    if files.charts is not None:
        with file_errors(f"{files.charts} cannot be written"):
            files.charts.mkdir(parents=True, exist_ok=True)
        contents |= {files.charts / name: svg for name, svg in drawn.items()}
    for file, text in contents.items():
        if file is not None:
            with file_errors(f"{file} cannot be written"):
                file.write_text(text, encoding="utf-8")
    if output == "json":
        click.echo(encode_answer(answer))
    elif output == "markdown":
        click.echo(comment, nl=False)
    else:
        print_page(impact_page(answer, charts if output == "html" else None), output)
    if status:
        print_note(answer.sentence)
    return status


def _write_failure(subject: ImpactSubject, files: ImpactFiles, reason: str) -> None:
    """The comment of a run that failed, so that an older comment does not stay as if it were of this change."""
    from killswitch.operations.pull_request.comment import failure_comment

    if files.comment is not None:
        with file_errors(f"{files.comment} cannot be written"):
            files.comment.write_text(failure_comment(subject, reason), encoding="utf-8")
