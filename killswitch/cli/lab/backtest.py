"""`ksctl backtest`: what the policies would have done in a crash, and in the alternatives."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED
from killswitch.cli.options import (
    COUNT,
    IN_FILE,
    IN_FOLDER,
    OUT_FILE,
    file_errors,
    option,
    page_output,
    policies,
    variant,
    verb,
)
from killswitch.cli.terminal import print_note, render_page, terminal_width

if TYPE_CHECKING:
    from killswitch.lab.pages.answer import BacktestAnswer
    from killswitch.render.document import Page

SUFFIXES = {".txt": "text", ".json": "json", ".md": "markdown", ".html": "html"}
RANDOM = 10


@verb("ksctl backtest --policies policies/futures-drawdown --market bars/ --book book.yaml")
@policies(required=True)
@variant
@click.option("--market", "markets_at", type=IN_FOLDER, multiple=True,
              help="Folder of bars, one file per symbol, or of such folders. May be given more than once.")  # fmt: skip
@click.option("--crash", type=int, metavar="SEED", help="A generated crash instead; each seed gives another one.")
@click.option("--book", "book_at", type=IN_FILE,
              help="Positions of the accounts. Default: half of the symbols long, half short.")  # fmt: skip
@click.option("--books", "books_at", type=IN_FOLDER, help="Folder of books (YAML); all of them are run.")
@click.option("--all-splits", type=click.IntRange(min=1), metavar="N",
              help="Every book with N symbols long and N others short; random books in addition.")  # fmt: skip
@click.option("--random", "count", type=COUNT, metavar="M",
              help="Number of seeded books of each kind: hedged, directional, concentrated.  "
                   "[default: 10 with --all-splits]")  # fmt: skip
@click.option("--gross", type=click.FloatRange(min=0, min_open=True, max=5),
              help="Gross exposure of generated books, in multiples of their equity.  [default: 3]")  # fmt: skip
@option("--seed", type=int, default=7, help="Seed of the random books and the paper market.")
@click.option("--in-proportion", is_flag=True, help="Add a rule: the same cuts, in proportion over all positions.")
@option("--jobs", type=click.IntRange(min=1), default=1, help="Number of worker processes.")
@page_output
@click.option("--out", "files", type=OUT_FILE, multiple=True, metavar="FILE",
              help="Write this file as well, in the format of its suffix: .html, .md, .json or .txt. "
                   "May be given more than once.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
def backtest(
    context: click.Context, policies_at: tuple[Path, ...], variant: str | None, markets_at: tuple[Path, ...],
    crash: int | None, book_at: Path | None, books_at: Path | None, all_splits: int | None, count: int | None,
    gross: float | None, seed: int, in_proportion: bool, jobs: int, output: str, files: tuple[Path, ...], quiet: bool,
) -> None:  # fmt: skip
    """Run books through recorded bars under the policies and under the alternatives.

    The alternatives are no protection, and a full close at the first trigger.

    Exits 0 when every run is complete. Ctrl-C stops it and keeps the results so far: they are marked as partial in
    every output format, and the exit code is 1. The exit code is also 1 when a book cannot be run.
    """
    if markets_at and crash is not None:
        raise click.UsageError("--market and --crash exclude each other")
    if not markets_at and crash is None:
        raise click.UsageError("name the source of the prices: --market DIR (or several), or --crash SEED")
    is_generated = all_splits is not None or count is not None
    if sum((book_at is not None, books_at is not None, is_generated)) > 1:
        raise click.UsageError("--book, --books and --all-splits (or --random) exclude each other")
    if gross is not None and (book_at or books_at):
        raise click.UsageError("--gross is for books that are made here; a book in a file has its own notionals")
    odd = [str(file) for file in files if file.suffix not in SUFFIXES]
    if odd:
        raise click.UsageError(f"--out {', '.join(odd)}: end its name in {', '.join(sorted(SUFFIXES))}")

    from killswitch.cli.lab.backtest_books import BacktestOptions, load_books
    from killswitch.cli.lab.backtest_run import BacktestRun, interruptible, require_bars, run_campaign, watched_books
    from killswitch.cli.session import load_policies
    from killswitch.lab.campaign import IN_PROPORTION, RULES

    loaded = load_policies(policies_at, variant)
    selection = BacktestOptions(
        markets_at, crash, book_at, books_at, all_splits, RANDOM if all_splits and count is None else count or 0,
        Decimal(str(gross or 3)), seed,
    )  # fmt: skip
    books = watched_books(loaded.policies, load_books(selection))
    require_bars(loaded.policies, books)
    rules = (*RULES, IN_PROPORTION) if in_proportion else RULES
    forms = {output, *(SUFFIXES[file.suffix] for file in files)}
    with interruptible() as interrupt:
        answer, page = run_campaign(
            loaded.policies, books, rules, BacktestRun(loaded.policies, seed), variant=variant, jobs=jobs,
            drawn="html" in forms, stop=interrupt, quiet=quiet,
        )  # fmt: skip
    for file in files:
        with file_errors(f"{file} cannot be written"):
            file.write_text(render_as(SUFFIXES[file.suffix], answer, page), encoding="utf-8")
    click.echo(render_as(output, answer, page, terminal_width()), nl=False)
    if not answer.complete:
        print_note(page.warning)
        context.exit(EXIT_FAILED)


def render_as(form: str, answer: BacktestAnswer, page: Page, within: int | None = None) -> str:
    """Render the result as text no wider than `within`, or as json, markdown or html; with a final newline."""
    if form == "json":
        from killswitch.lab.pages.answer import encode

        return encode(answer).decode() + "\n"
    return render_page(form, page, within) + "\n"
