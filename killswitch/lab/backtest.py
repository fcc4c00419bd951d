"""Runs a book through a market's bars under a policy set: the live `tick`, the live closing, and a paper venue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.state.intents import planned_entries
from killswitch.graph.nodes import PolicySet
from killswitch.lab.alternatives import close_all, in_proportion
from killswitch.lab.book import BacktestBook
from killswitch.lab.equity_curve import PnlAccumulator
from killswitch.lab.fast_forward import FastForward
from killswitch.lab.feed import market_with
from killswitch.lab.firings import FiringFollower
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.lab.rehearsal import MemoryJournal, VirtualClock
from killswitch.lab.static_book import StaticBook
from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import Closing, Snapshot
from killswitch.model.venue import VenueAdapter
from killswitch.planning.targets.merge import ordered_on
from killswitch.planning.tick import Interpreter

Rule = Literal["none", "staged", "close-all", "in-proportion"]
"""The rule that is tested: no protection; the policies as they are; closing everything at the first trigger; or the
policies' cuts spread over all positions in proportion."""

VenueOf = Callable[[PaperMarket, str, Clock], VenueAdapter]
"""Makes the adapter of one account of a paper market: the lab imports no adapter by name."""

WORKING = ("planned", "closing")
ROUNDS, PAUSE = 200, 0.25
"""The most passes of closing between two bars, and the seconds between them."""


def never_stop() -> bool:
    """Return False: never stop."""
    return False


async def backtest(
    policies: PolicySet,
    panel: PriceMatrix,
    book: BacktestBook,
    *,
    rule: Rule,
    venue: VenueOf,
    seed: int = 0,
    rules: MarketRules | None = None,
    course: bool = False,
    is_skipping: bool = True,
    stop: Callable[[], bool] = never_stop,
    on_bars: Callable[[int], None] | None = None,
) -> Run:
    """Run `book` from the first bar by which all its symbols have a price to the last one, or until `stop`.

    `passing` false ticks every bar, also where nothing can happen: slower, with the same result to the last digit.
    `on_bars` receives the number of processed bars. Policies in mode `enforce` act. BarsError for a symbol that the
    panel lacks; ValueError for a book that cannot be opened.
    """
    run = _Backtest(policies, panel, book, rule, venue, seed, rules or MarketRules(), course)
    while not stop():
        await run.tick()
        passed = run.pass_over() if is_skipping else 0
        if on_bars is not None:
            on_bars(passed + 1)
        if not run.next_bar():
            return run.result(complete=True)
    return run.result(complete=False)


class _Backtest:
    """One run under way. Call `tick`, `pass_over` and `next_bar` in turn from the first bar on."""

    def __init__(
        self,
        policies: PolicySet,
        panel: PriceMatrix,
        book: BacktestBook,
        rule: Rule,
        venue: VenueOf,
        seed: int,
        rules: MarketRules,
        course: bool,
    ) -> None:
        self._panel, self._book, self._rule = panel, book, rule
        self._number = panel.first(book.symbols)
        self._begins = self._number
        self._market = market_with(book, panel.instruments, self._now, panel.bars(self._number), seed=seed, rules=rules)
        self._clock = VirtualClock(self._now)
        watched = replace(policies, graphs=()) if rule == "none" else policies
        self._interpreter = Interpreter(close_all(watched) if rule == "close-all" else watched)
        self._quiet = FastForward(panel, self._interpreter, rules)
        self._journal = MemoryJournal()
        self._closers = {
            name: AccountExecutor(name, venue(self._market, name, self._clock), self._journal, self._clock)
            for name in self._market.accounts
        }
        self._accumulator = PnlAccumulator(panel, self._number, course=course)
        self._firings = FiringFollower(self._journal)
        self._are_instruments_sent = False
        self._notices = 0
        self._snapshot: Snapshot | None = None

    @property
    def _now(self) -> datetime:
        return from_micros(int(self._panel.at[self._number]))

    async def tick(self) -> None:
        """Process the bar's close: take a snapshot, decide, journal, act."""
        snapshot = self._snapshot = self._look()
        outcome = self._interpreter.tick(snapshot)
        self._notices += len(outcome.notices)
        self._accumulator.add_bar(snapshot)
        cut: dict[str, Decimal] = {}
        for decision in outcome.decisions:
            self._adopt(decision, snapshot, cut)
        if self._working:
            await self._work()

    def pass_over(self) -> int:
        """Skip the bars before which nothing can happen; return their number."""
        assert self._snapshot is not None  # a tick was first
        if self._working:
            return 0
        standing = StaticBook(self._panel, self._snapshot, self._number)
        count = self._quiet.count_quiet_bars(standing)
        if count:
            self._quiet.skip(count, standing)
            self._accumulator.add_quiet_bars(count, standing)
            self._number += count
            self._market.advance(self._now, self._panel.bars(self._number))
        return count

    def next_bar(self) -> bool:
        """Close the next bar; return False if there is none."""
        if self._number + 1 >= len(self._panel):
            return False
        self._number += 1
        self._market.advance(self._now, self._panel.bars(self._number))
        self._clock.set(self._now)
        return True

    def result(self, *, complete: bool) -> Run:
        """Return the results so far."""
        if self._accumulator.bars < self._number - self._begins + 1:
            self._accumulator.add_bar(self._look())
        self._accumulator.add_last_bar_again(self._look())
        firings = self._firings.outcomes(self._market)
        return self._accumulator.run(self._rule, self._book.name, firings, self._notices, complete=complete)

    def _look(self) -> Snapshot:
        first, self._are_instruments_sent = not self._are_instruments_sent, True
        accounts = tuple(self._market.snapshot(name, instruments=first) for name in self._market.accounts)
        if first:
            for account in accounts:
                self._closers[account.account].apply_snapshot(account)
        return Snapshot(as_of=self._now, accounts=accounts, format="killswitch.snapshot/v1", closings=self._progress())

    def _progress(self) -> tuple[Closing, ...]:
        return tuple(closing for closer in self._closers.values() for closing in closer.progress())

    @property
    def _working(self) -> bool:
        return any(closing.status in WORKING for closing in self._progress())

    def _adopt(self, decision: Decision, snapshot: Snapshot, cut: dict[str, Decimal]) -> None:
        """Journal and adopt a decision. `cut` is the gross that this tick's decisions cut in proportion, by account."""
        if self._rule == "in-proportion" and ordered_on(decision) and decision.mode == "enforce":
            decision = in_proportion(decision, snapshot, self._panel.instruments, cut)
            self._interpreter.replace_targets(decision)
        planned = planned_entries(decision, snapshot=snapshot)
        self._journal.add_decision(decision, planned)
        if decision.kind not in ("reset", "suspicion") and decision.mode == "enforce":
            self._accumulator.remember_marks(decision, snapshot)
            self._firings.add(decision, snapshot)
        for name in {entry.account for entry in planned if entry.account is not None}:
            self._closers[name].adopt(decision)

    async def _work(self) -> None:
        """Run the closing until it has nothing to do, or the next bar closes."""
        last = self._number + 1 >= len(self._panel)
        due = None if last else from_micros(int(self._panel.at[self._number + 1]))
        longest = timedelta(seconds=PAUSE + len(self._closers))  # the longest time of a round
        for _ in range(ROUNDS):
            for closer in self._closers.values():
                await closer.advance()
            self._firings.follow(self._progress(), self._clock.now(), self._market)
            if not self._working or (due is not None and self._clock.now() + longest >= due):
                return
            await self._clock.sleep(PAUSE)
