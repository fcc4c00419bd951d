"""The run of the demo: the real runner on the paper market, with a clock that advances when a bar closes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.next_set import program_version
from killswitch.accounts.opening import LoadedPolicies
from killswitch.cli.lab.backtest_run import paper_venue
from killswitch.cli.lab.demo_screen import DemoScreen
from killswitch.cli.live.run_outputs import open_reports
from killswitch.cli.session import opened_store
from killswitch.incident.notify.targets import LOGGER
from killswitch.lab.bars import BarTable, read_market
from killswitch.lab.book import BacktestBook, BookAccount, demo_book, read_book
from killswitch.lab.crash import crash_bars
from killswitch.lab.families import half_and_half
from killswitch.lab.feed import Feed
from killswitch.lab.recording import RecordingWriter
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.applied_set import AppliedSet, PolicyOrigin
from killswitch.model.tracing import NO_TRACER
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.hot_reload import SetOfStart
from killswitch.runner.loop import RunnerPace
from killswitch.runner.status_blob import keep_start

if TYPE_CHECKING:
    from killswitch.market.paper import PaperMarket

BEFORE, AFTER = timedelta(hours=3), timedelta(hours=5)
"""Time shown before and after the worst hour of real bars."""
WORST = timedelta(hours=1)
REPORT_INTERVAL, REPORT_TIMEOUT = timedelta(minutes=30), 20.0
"""How often the bars wait for reports, and the maximum wait in seconds: an hour of bars may pass in a second, and data
older than the longest window is no longer available."""
ROUNDS = 200
"""Maximum closing passes between two bars, 0.25 s apart."""


class Excerpt(Struct, frozen=True):
    """Range of bars: how many are skipped first, and how many are run."""

    skip: int
    count: int


def bars_and_book(market: Path | None, book_at: Path | None, seed: int) -> tuple[BarTable, BacktestBook]:
    """Load the bars and the book. Raises BarsError or BookError."""
    bars = crash_bars(seed) if market is None else read_market(market)
    if book_at is not None:
        return bars, read_book(book_at)
    demo = demo_book()
    return bars, demo if demo.symbols <= set(bars.symbols) else half_and_half(bars.symbols)


def worst_hours(bars: BarTable, book: BacktestBook) -> Excerpt:
    """The hours around the worst hourly fall of the held symbols, or all bars if there are few."""
    levels: list[float] = []
    first_closes: dict[str, float] = {}
    for _, prices in bars.since(book.symbols):
        closes = {symbol: float(bar.close) for symbol, bar in prices.items() if symbol in book.symbols}
        first_closes = first_closes or closes
        levels.append(sum(price / first_closes[symbol] for symbol, price in closes.items()) / len(closes))
    before, after, hour = (max(1, span // bars.interval) for span in (BEFORE, AFTER, WORST))
    if len(levels) <= before + after:
        return Excerpt(0, len(levels))
    worst = min(range(hour, len(levels)), key=lambda i: levels[i] / max(levels[i - hour : i + 1]))
    skip = max(0, worst - hour - before)
    return Excerpt(skip, min(len(levels) - skip, before + hour + after))


async def run_demo(
    loaded: LoadedPolicies, bars: BarTable, book: BacktestBook, seed: int, folder: Path, screen: DemoScreen
) -> None:
    """Run the demo in `folder` and report to `screen`. BarsError or ValueError for a book that cannot be opened."""
    policies = loaded.policies
    shown = worst_hours(bars, book)
    feed = Feed(bars, book, seed=seed, skip=shown.skip)
    bystander = Feed(bars, book, seed=seed, skip=shown.skip)
    assert feed.market.now is not None  # a feed closes its first bars at its creation
    clock = VirtualClock(feed.market.now, feed.until)
    screen.begin(bars, book, policies, shown.count)
    accounts = {account.account: _account(account, feed.market, clock) for account in book.accounts}
    store_at = str(folder / "killswitch.sqlite")
    pace = RunnerPace(interval=bars.interval.total_seconds(), read_timeout=5.0)
    locks = LockPaths(folder / "locks", folder / "trading_lock.json")
    recording = folder / "recording.jsonl"
    bars_between_reports = max(1, REPORT_INTERVAL // bars.interval)
    with (
        _messages_in(folder / "messages.log"),
        opened_store(store_at, read_only=False) as store,
        open_reports(store, store_at, NO_TRACER, pause=0.0, pause_for_work=0.0) as reports,
    ):
        runner = assemble(
            policies, accounts, store, clock, pace,
            live=True, locks=locks, store_at=store_at, recorder=RecordingWriter(recording),
            observers=(screen.observe(store), reports), of_start=SetOfStart(_set_of(loaded, clock)),
        )  # fmt: skip
        keep_start(store, policies.digest, loaded.runbooks, recording)
        await runner.start()
        for bars_left in reversed(range(shown.count)):
            await runner.tick()
            screen.observe_unprotected(bystander.until(clock.now()))
            due = feed.due
            for _ in range(ROUNDS):
                working = await runner.advance()
                screen.print_journal()
                if not working or due is None:
                    break
                await clock.sleep(0.25)
            if due is None or not bars_left:
                break
            if not bars_left % bars_between_reports:
                await asyncio.to_thread(reports.wait, REPORT_TIMEOUT)
            await clock.sleep((due - clock.now()).total_seconds())
        await runner.finish()
    screen.end(feed, bystander, book, folder)


def _set_of(loaded: LoadedPolicies, clock: VirtualClock) -> AppliedSet:
    """The set as a run records it, so that its decisions can be evaluated again from the store alone."""
    origin = PolicyOrigin(source="ksctl demo", commit=loaded.policies.commit)
    return AppliedSet(
        digest=loaded.policies.digest, at=clock.now(), program=program_version(), origin=origin, files=loaded.files
    )


@contextmanager
def _messages_in(path: Path) -> Iterator[None]:
    """Write messages of `log` targets to the file instead of between the lines of the screen."""
    handler, logger = logging.FileHandler(path, encoding="utf-8"), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _account(account: BookAccount, market: PaperMarket, clock: VirtualClock) -> ArmedAccount:
    adapter = paper_venue(market, account.account, clock)
    return ArmedAccount(account.account, account.venue, account.market, account.currency, adapter, armed=True)
