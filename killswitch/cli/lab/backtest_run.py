"""Execution of `ksctl backtest`: the engine with the installed paper adapter, progress on stderr, and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
from msgspec.structs import replace

from killswitch.accounts.plug_ins import make_adapter
from killswitch.cli.lab.backtest_books import BacktestBooks
from killswitch.cli.terminal import ProgressLines, print_note, print_page, progress_bars, terminal_width
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import Rule
from killswitch.lab.backtest import backtest as rehearse
from killswitch.lab.book import BacktestBook, BookError
from killswitch.lab.campaign import BookRuns, Campaign, OnBar, OnProgress, Results, Stop
from killswitch.lab.impact.replays import is_watched
from killswitch.lab.outcome import Run
from killswitch.lab.pages.answer import BacktestAnswer, build_answer, policies_used
from killswitch.lab.pages.content import Drawings, build_page
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.lab.sampling import SamplingError, require_served
from killswitch.market.paper import PaperMarket
from killswitch.model.clock import Clock
from killswitch.model.venue import AccountSpec, VenueAdapter
from killswitch.policy.diagnostics.diagnostic import counts, diagnostics_page
from killswitch.render.document import Page
from killswitch.render.formats import count_of

MAX_CHARTED_BOOKS = 8
"""Maximum books with charts of their own; above it, only those in which staging loses most."""
PLAIN_EVERY = 10.0
"""Seconds between two progress lines."""


def paper_venue(market: PaperMarket, account: str, clock: Clock) -> VenueAdapter:
    """Create the adapter of one account by its entry point, as a runner does."""
    shown = market.snapshot(account)
    spec = AccountSpec(
        account=account, adapter="paper", market=shown.market, currency=shown.currency, endpoint=None,
        options={"market": market, "clock": clock}, credentials={},
    )  # fmt: skip
    return make_adapter(spec)


class BacktestRun:
    """Run one book under one rule (`campaign.RunOne`); picklable, so that worker processes can run it."""

    def __init__(self, policies: PolicySet, seed: int) -> None:
        self.policies = policies
        self.seed = seed

    def __call__(
        self, bars: PriceMatrix, book: BacktestBook, rule: Rule, *, with_curve: bool, stop: Stop, on_bar: OnBar
    ) -> Run:
        done = 0

        def add_bars(count: int) -> None:
            nonlocal done
            done += count
            on_bar(done)

        return asyncio.run(
            rehearse(
                self.policies, bars, book, rule=rule, venue=paper_venue, seed=self.seed, with_curve=with_curve,
                stop=stop, on_bars=add_bars,
            )
        )  # fmt: skip


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Whether Ctrl-C or SIGTERM arrived: the first one requests a stop, the second one ends the program."""
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watched_books(policies: PolicySet, books: BacktestBooks) -> BacktestBooks:
    """Drop the books that no policy watches, because the policies do nothing to them. BookError if none remains."""
    if not policies.graphs:
        raise BookError("the policies hold no Policy document, so there is nothing to try; name more with --policies")
    parts = tuple(part for part in books.parts if is_watched(policies, part.member.book))
    if not parts:
        raise BookError(_unwatched_error(policies, books.parts[0].member.book))
    unwatched = [part.member.book.name for part in books.parts if part not in parts]
    missing = (
        (f"no policy watches {count_of(len(unwatched), 'book')}, {unwatched[0]} for one: left out",)
        if unwatched
        else ()
    )
    acting = any(graph.mode == "enforce" for graph in policies.graphs)
    observing = () if acting else ("every policy says mode: observe, so staging closes nothing; write mode: enforce",)
    return replace(books, parts=parts, missing=(*books.missing, *missing, *observing))


def require_bars(policies: PolicySet, books: BacktestBooks) -> None:
    """Print a diagnostic for each signal whose samples the bars of a market cannot serve, and end."""
    try:
        for market, interval in books.intervals.items():
            require_served(policies, market, interval)
    except SamplingError as error:
        print_page(diagnostics_page(error.diagnostics), err=True)
        raise click.ClickException(f"{counts(error.diagnostics)} in the policies; nothing was run") from None


def _unwatched_error(policies: PolicySet, book: BacktestBook) -> str:
    accounts = ", ".join(f"{each.account} ({each.venue}, {each.market}, {each.currency})" for each in book.accounts)
    names = ", ".join(graph.policy for graph in policies.graphs)
    return (
        f"no policy watches the book {book.name}, whose accounts are {accounts}: the scope of {names} matches none of "
        "them; change scope.match, or give a --book that it matches"
    )


def run_campaign(
    policies: PolicySet, books: BacktestBooks, rules: Sequence[Rule], run_one: BacktestRun, *,
    variant: str | None = None,
    jobs: int, drawn: bool, stop: Stop, quiet: bool,
) -> tuple[BacktestAnswer, Page]:  # fmt: skip
    """Run all books and return the answer and its page; with `drawn`, the page has charts."""
    with_curves = drawn and len(books.parts) <= MAX_CHARTED_BOOKS
    campaign = Campaign(books.markets, books.parts, tuple(rules), run_one, with_curves)
    with _progress(len(books.parts), len(rules), len(books.markets), quiet=quiet) as progress:
        results = campaign.run(jobs=min(jobs, len(books.parts)), stop=stop, on_progress=progress)
    answer = build_answer(policies_used(policies, variant), campaign, results, seed=run_one.seed, missing=books.missing)
    drawings = _drawings(campaign, results, answer, stop) if drawn else None
    return answer, build_page(answer, results, policies, drawings)


def _drawings(campaign: Campaign, results: Results, answer: BacktestAnswer, stop: Stop) -> Drawings:
    from killswitch.lab.pages.content import figures

    charted = results.tried if campaign.with_curves else _run_worst_again(campaign, answer, stop)
    return {(each.market, each.member.book.name): figures(each, _currency(each.member.book)) for each in charted}


def _run_worst_again(campaign: Campaign, answer: BacktestAnswer, stop: Stop) -> tuple[BookRuns, ...]:
    """Run the book that loses most against each alternative again, with its equity curve."""
    worst = {(one.market, one.book) for losers in answer.summary.losers for one in losers.books[:1]}
    parts = tuple(part for part in campaign.parts if (part.market, part.member.book.name) in worst)
    return replace(campaign, parts=parts, with_curves=True).run(stop=stop, on_progress=lambda _: None).tried


def _currency(book: BacktestBook) -> str:
    return "/".join(dict.fromkeys(account.currency for account in book.accounts))


# -- progress --------------------------------------------------------------------------------------------------


@contextmanager
def _progress(books: int, rules: int, markets: int, *, quiet: bool) -> Iterator[OnProgress]:
    title = f"{count_of(books, 'book')} under {count_of(rules, 'rule')} in {count_of(markets, 'market')}"
    if quiet:
        yield lambda _: None
    elif terminal_width(sys.stderr) is None:
        print_note(f"running {title}")
        lines = ProgressLines(PLAIN_EVERY)
        yield lambda state: lines.print_due(f"{int(state.done)} of {state.total} runs: {state.what}")
    else:
        from rich.progress import MofNCompleteColumn

        with progress_bars(MofNCompleteColumn()) as bar:
            task = bar.add_task(title, total=books * rules)
            yield lambda state: bar.update(task, completed=state.done, description=state.what)
