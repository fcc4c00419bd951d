"""`ksctl demo`: the policies in a crash on the embedded paper venue, compared with the alternatives."""

from __future__ import annotations

import asyncio
import shutil
from bisect import bisect_left
from functools import partial
from pathlib import Path

import click

from killswitch.cli.lab.backtest import render_as
from killswitch.cli.lab.backtest_books import BacktestBooks
from killswitch.cli.lab.backtest_run import BacktestRun, run_campaign, watched_books
from killswitch.cli.lab.demo_run import Excerpt
from killswitch.cli.options import IN_FILE, IN_FOLDER, OUT_FOLDER, option, verb
from killswitch.cli.terminal import print_text, terminal_width
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import never_stop
from killswitch.lab.bars import BarTable, Series
from killswitch.lab.book import BacktestBook, BookError
from killswitch.lab.campaign import RULES, CampaignPart
from killswitch.lab.families import FamilyBook
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.model.snapshot import Instrument
from killswitch.render.document import Table, table_text
from killswitch.render.formats import listed

FOLDER = Path("demo-run")
POLICIES = "futures-degross"
"""The shipped set for the demo's book, which is long and short."""


@verb("ksctl demo")
@click.option("--market", type=IN_FOLDER, help="Folder of real bars. Default: a generated crash.")
@click.option("--book", "book_at", type=IN_FILE,
              help="Positions of the account. Default: eight symbols of the market, long and short.")  # fmt: skip
@click.option("--policies", "policies_at", type=click.Path(exists=True, path_type=Path),
              help="Policies to run. Default: the shipped futures-degross.")  # fmt: skip
@option("--seed", type=int, default=7, help="Seed of the generated crash and the paper venue.")
@option("--folder", type=OUT_FOLDER, default=FOLDER,
        help="Folder of the store, the lock and the recording; an earlier demo's is emptied first.")  # fmt: skip
@option("--pace", type=click.FloatRange(min=0), default=0.15,
        help="Seconds to pause after each line; 0 does not pause.")  # fmt: skip
def demo(
    market: Path | None, book_at: Path | None, policies_at: Path | None, seed: int, folder: Path, pace: float
) -> None:
    """Run the policies through a crash and print the events as they happen."""
    from killswitch.cli.lab.demo_run import bars_and_book, run_demo, worst_hours
    from killswitch.cli.lab.demo_screen import DemoScreen
    from killswitch.cli.session import load_policies
    from killswitch.content import policies_folder

    loaded = load_policies([policies_at or policies_folder() / POLICIES])
    bars, book = bars_and_book(market, book_at, seed)
    _make_room(folder)
    screen = DemoScreen(pace, policies_at or _nearest(policies_folder() / POLICIES))
    try:
        asyncio.run(run_demo(loaded, bars, book, seed, folder, screen))
        compare(loaded.policies, bars, book, worst_hours(bars, book), seed, folder)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _nearest(folder: Path) -> Path:
    """The folder as a command names it: `policies/NAME` in a clone, and its whole path elsewhere."""
    short = Path("policies") / folder.name
    return short if short.exists() and short.samefile(folder) else folder


def _make_room(folder: Path) -> None:
    """Empty the folder; a folder that no demo created is left unchanged."""
    marker = folder / ".ksctl-demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise click.ClickException(f"{folder} is not empty and no earlier demo made it: name another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("made by ksctl demo; emptied by the next one\n", encoding="utf-8")


REPORT = "backtest.html"


def compare(policies: PolicySet, bars: BarTable, book: BacktestBook, shown: Excerpt, seed: int, folder: Path) -> None:
    """Print how the policies compare with the alternatives over the same bars, and write the report into `folder`."""
    table = excerpt_of(bars, book, shown)
    parts = (CampaignPart(table.name, FamilyBook("given", book)),)
    books = BacktestBooks({table.name: partial(_panel, table, bars.instruments())}, parts, ())
    try:
        watched = watched_books(policies, books)
    except BookError as error:
        print_text(f"\nNothing to compare: {error}")
        return
    answer, page = run_campaign(
        policies, watched, RULES, BacktestRun(policies, seed), jobs=1, drawn=True, stop=never_stop,
        quiet=True,
    )  # fmt: skip
    report = folder / REPORT
    report.write_text(render_as("html", answer, page), encoding="utf-8")
    currencies = sorted({account.currency for account in book.accounts})
    click.secho(f"\nCompared with the alternatives (amounts in {listed(currencies)})", bold=True)
    _print_table(page.sections[0].tables[0])
    click.echo()
    for line in page.summary:
        print_text(line)
    print_text(f"The report, with charts: {report}")


def _print_table(table: Table) -> None:
    width = terminal_width()
    shown, left_out = (table, ()) if width is None else table.within(width - 2)
    print_text(table_text(shown, within=width, is_marked=True))
    if left_out:
        print_text(f"  Left out: {listed(left_out)}; the report has all columns.")


def excerpt_of(bars: BarTable, book: BacktestBook, shown: Excerpt) -> BarTable:
    """The part of the bars that the demo shows."""
    opened = bars.opened
    first = max((one.opened[0] for one in bars.series if one.symbol in book.symbols), default=opened[0])
    begin = bisect_left(opened, first) + shown.skip
    last = opened[min(begin + shown.count, len(opened)) - 1]
    return BarTable(bars.name, [_between(one, opened[begin], last) for one in bars.series if one.opened[0] <= last])


def _panel(table: BarTable, instruments: tuple[Instrument, ...]) -> PriceMatrix:
    """Prices with the trading rules of the whole market; rules derived from an excerpt could have other lot sizes."""
    prices = PriceMatrix(table)
    prices.instruments = instruments
    return prices


def _between(one: Series, first: int, last: int) -> Series:
    """Rows from `first` to `last`; a symbol without a bar at `first` starts with the bar before it."""
    begin, end = bisect_left(one.opened, first), bisect_left(one.opened, last + 1)
    if begin and (begin == len(one.opened) or one.opened[begin] != first):
        begin -= 1
    rows = slice(begin, end)
    return Series(one.symbol, one.opened[rows], one.open[rows], one.high[rows], one.low[rows], one.close[rows],
                  one.volume[rows])  # fmt: skip
