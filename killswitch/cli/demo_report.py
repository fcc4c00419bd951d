"""The demo's end: the same bars and book once more under every rule, told side by side, with a report to open."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from pathlib import Path

import click

from killswitch.cli.backtest import written_as
from killswitch.cli.backtest_books import Books
from killswitch.cli.backtest_run import Rehearsal, matching, run_campaign
from killswitch.cli.demo_run import Excerpt
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import never
from killswitch.lab.bars import BarTable, Series
from killswitch.lab.book import Book, BookError
from killswitch.lab.campaign import RULES, Part
from killswitch.lab.families import Member
from killswitch.lab.pages.parts import aligned
from killswitch.lab.panel import Panel
from killswitch.model.snapshot import Instrument

REPORT = "backtest.html"


def compare(policies: PolicySet, bars: BarTable, book: Book, shown: Excerpt, seed: int, folder: Path) -> None:
    """Tell how staging compares over the bars that were shown, and write the page of it into `folder`."""
    table = excerpt_of(bars, book, shown)
    parts = (Part(table.name, Member("given", book)),)
    books = Books({table.name: partial(_panel, table, bars.instruments())}, parts, ())
    try:
        watched = matching(policies, books)
    except BookError as error:
        click.echo(f"\nNothing to compare: {error}")
        return
    answer, page = run_campaign(
        policies, watched, RULES, Rehearsal(policies, seed), jobs=1, drawn=True, stop=never,
        quiet=True,
    )  # fmt: skip
    report = folder / REPORT
    report.write_text(written_as("html", answer, page), encoding="utf-8")
    click.secho("\nBeside the alternatives", bold=True)
    click.echo(aligned(page.sections[0].tables[0]))
    click.echo()
    for words in page.verdict:
        click.echo(words)
    click.echo(f"The report, with charts: {report}")


def excerpt_of(bars: BarTable, book: Book, shown: Excerpt) -> BarTable:
    """Only the bars that the demo shows."""
    opened = bars.opened
    first = max((one.opened[0] for one in bars.series if one.symbol in book.symbols), default=opened[0])
    begin = bisect_left(opened, first) + shown.skip
    last = opened[min(begin + shown.count, len(opened)) - 1]
    return BarTable(bars.name, [_between(one, opened[begin], last) for one in bars.series if one.opened[0] <= last])


def _panel(table: BarTable, instruments: tuple[Instrument, ...]) -> Panel:
    """With the trading rules of the whole market: those derived from an excerpt could have other lots."""
    panel = Panel(table)
    panel.instruments = instruments
    return panel


def _between(one: Series, first: int, last: int) -> Series:
    """The rows from `first` to `last`; a symbol without a bar at `first` begins with the one that it carries."""
    begin, end = bisect_left(one.opened, first), bisect_left(one.opened, last + 1)
    if begin and (begin == len(one.opened) or one.opened[begin] != first):
        begin -= 1
    rows = slice(begin, end)
    return Series(one.symbol, one.opened[rows], one.open[rows], one.high[rows], one.low[rows], one.close[rows],
                  one.volume[rows])  # fmt: skip
