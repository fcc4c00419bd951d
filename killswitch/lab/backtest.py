"""Runs a book through a market's bars under a policy set, with the live `tick`, the live closing and a paper venue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from killswitch.engine.alerts import AlertState, advance
from killswitch.execution.account_executor import AccountExecutor
from killswitch.execution.state.intents import planned_entries
from killswitch.graph.nodes import PolicySet
from killswitch.lab.alternatives import close_all, in_proportion
from killswitch.lab.backtesting.effects import BacktestLocks, BacktestTransfers
from killswitch.lab.backtesting.fast_forward import FastForward
from killswitch.lab.backtesting.firings import FiringFollower
from killswitch.lab.backtesting.resting_stops import BacktestStops
from killswitch.lab.book import BacktestBook
from killswitch.lab.equity_curve import PnlAccumulator
from killswitch.lab.feed import market_with
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.lab.rehearsal import MemoryJournal, VirtualClock
from killswitch.lab.sampling import named_symbols, require_served
from killswitch.lab.static_book import StaticBook
from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.model.clock import Clock
from killswitch.model.decision import Decision
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.snapshot import IN_PROGRESS, Closing, Snapshot
from killswitch.model.venue import VenueAdapter
from killswitch.planning.catastrophe_stops import StopKey
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.targets.merge import ordered_on

Rule = Literal["none", "staged", "close-all", "in-proportion"]
"""The rule that is tested: no protection; the policies as they are; closing everything at the first trigger; or the
policies' cuts spread over all positions in proportion."""

VenueOf = Callable[[PaperMarket, str, Clock], VenueAdapter]
"""Makes the adapter of one account of a paper market: the lab imports no adapter by name."""

ROUNDS, PAUSE = 200, 0.25
"""The most passes of closing between two bars, and the seconds between them."""


def never_stop() -> bool:
    """Return False: never stop."""
    return False


async def backtest(
    policies: PolicySet,
    matrix: PriceMatrix,
    book: BacktestBook,
    *,
    rule: Rule,
    venue: VenueOf,
    seed: int = 0,
    rules: MarketRules | None = None,
    with_curve: bool = False,
    is_skipping: bool = True,
    stop: Callable[[], bool] = never_stop,
    on_bars: Callable[[int], None] | None = None,
) -> Run:
    """Run `book` from the first bar by which all its symbols have a price to the last one, or until `stop`.

    Without `is_skipping` every bar is ticked, also where nothing can happen: slower, with the same result to the last
    digit. `with_curve` also returns the equity curve, for charts.
    `on_bars` receives the number of processed bars. Policies in mode `enforce` act. BarsError for a symbol that the
    matrix lacks, and as SamplingError for bars that cannot serve the samples of a signal; ValueError for a book that
    cannot be opened.
    """
    run = _Backtest(policies, matrix, book, rule, venue, seed, rules or MarketRules(), with_curve)
    while not stop():
        await run.tick()
        skipped = run.skip_quiet_bars() if is_skipping else 0
        if on_bars is not None:
            on_bars(skipped + 1)
        if not run.next_bar():
            return await run.result(complete=True)
    return await run.result(complete=False)


class _Backtest:
    """One run under way. Call `tick`, `skip_quiet_bars` and `next_bar` in turn from the first bar on."""

    def __init__(
        self,
        policies: PolicySet,
        matrix: PriceMatrix,
        book: BacktestBook,
        rule: Rule,
        venue: VenueOf,
        seed: int,
        rules: MarketRules,
        with_curve: bool,
    ) -> None:
        self._matrix, self._book, self._rule = matrix, book, rule
        self._number = matrix.first(book.symbols)
        self._begins = self._number
        self._market = market_with(
            book, matrix.instruments, self._now, matrix.bars(self._number), seed=seed, rules=rules
        )
        self._clock = VirtualClock(self._now)
        watched = replace(policies, graphs=(), stops=()) if rule == "none" else policies
        require_served(watched, matrix.name, round(matrix.interval.total_seconds() * 1_000_000))
        self._named = named_symbols(watched, matrix.symbols)
        self._interpreter = Interpreter(close_all(watched) if rule == "close-all" else watched)
        self._fast_forward = FastForward(matrix, self._interpreter, rules)
        self._journal = MemoryJournal()
        venues = {name: venue(self._market, name, self._clock) for name in self._market.accounts}
        self._executors = {
            name: AccountExecutor(name, each, self._journal, self._clock) for name, each in venues.items()
        }
        self._stops = BacktestStops(watched.stops, venues, self._matrix.instruments, self._clock)
        self._locks = BacktestLocks(watched)
        self._transfers = BacktestTransfers(venues, self._journal, self._clock)
        self._accumulator = PnlAccumulator(matrix, self._number, with_curve=with_curve)
        self._firings = FiringFollower(self._journal)
        self._are_instruments_sent = False
        self._notices = 0
        self._alerts = AlertState()
        self._snapshot: Snapshot | None = None

    @property
    def _now(self) -> datetime:
        return from_micros(int(self._matrix.at[self._number]))

    async def tick(self) -> None:
        """Process the bar's close: take a snapshot, decide, journal, act."""
        snapshot = self._take_snapshot()
        if self._stops.is_active:
            snapshot = replace(snapshot, events=self._stops.commands(snapshot))
        self._snapshot = snapshot
        outcome = self._interpreter.tick(snapshot)
        notices, self._alerts = advance(self._alerts, outcome.alerts, to_micros(snapshot.as_of))
        self._notices += len(outcome.notices) + len(notices)
        self._accumulator.add_bar(snapshot)
        cut: dict[str, Decimal] = {}
        for decision in outcome.decisions:
            self._adopt(decision, snapshot, cut)
        self._locks.change(outcome.decisions, snapshot)
        self._notices += len((await self._transfers.perform(outcome.decisions, snapshot)).found)
        if self._is_closing:
            await self._run_closing()
        if self._stops.is_active:
            await self._stops.keep(self._take_snapshot(), self._closing_keys)

    def skip_quiet_bars(self) -> int:
        """Skip the bars before which nothing can happen; return their number."""
        assert self._snapshot is not None  # a tick was first
        is_acting = self._is_closing or self._stops.is_active or self._transfers.is_active
        if is_acting or not self._fast_forward.is_due():
            return 0
        static_book = StaticBook(self._matrix, self._snapshot, self._number)
        count = self._fast_forward.count_quiet_bars(static_book, has_alerts=bool(self._alerts.active))
        if count:
            self._fast_forward.skip(count, static_book)
            self._accumulator.add_quiet_bars(count, static_book)
            self._number += count
            self._market.advance(self._now, self._matrix.bars(self._number))
        return count

    def next_bar(self) -> bool:
        """Close the next bar; return False if there is none."""
        if self._number + 1 >= len(self._matrix):
            return False
        self._number += 1
        self._market.advance(self._now, self._matrix.bars(self._number))
        self._clock.set(self._now)
        return True

    async def result(self, *, complete: bool) -> Run:
        """End the run, and return the results so far."""
        await self._transfers.abandon()
        if self._accumulator.bars < self._number - self._begins + 1:
            self._accumulator.add_bar(self._take_snapshot())
        self._accumulator.add_last_bar_again(self._take_snapshot())
        firings = self._firings.outcomes(self._market)
        return self._accumulator.run(self._rule, self._book.name, firings, self._notices, complete=complete)

    def _take_snapshot(self) -> Snapshot:
        first, self._are_instruments_sent = not self._are_instruments_sent, True
        accounts = tuple(
            self._market.snapshot(name, instruments=first, watch=self._named) for name in self._market.accounts
        )
        if first:
            for account in accounts:
                self._executors[account.account].apply_snapshot(account)
        return Snapshot(
            as_of=self._now, accounts=accounts, format="killswitch.snapshot/v1", closings=self._progress(),
            locks=self._locks.in_force(self._now),
        )  # fmt: skip

    @property
    def _closing_keys(self) -> dict[str, frozenset[StopKey]]:
        """The positions that a close works on, by account."""
        return {name: executor.closing for name, executor in self._executors.items()}

    def _progress(self) -> tuple[Closing, ...]:
        return tuple(closing for executor in self._executors.values() for closing in executor.progress())

    @property
    def _is_closing(self) -> bool:
        return any(closing.status in IN_PROGRESS for closing in self._progress())

    def _adopt(self, decision: Decision, snapshot: Snapshot, cut: dict[str, Decimal]) -> None:
        """Journal and adopt a decision. `cut` is the gross that this tick's decisions cut in proportion, by account."""
        if self._rule == "in-proportion" and ordered_on(decision) and decision.mode == "enforce":
            decision = in_proportion(decision, snapshot, self._matrix.instruments, cut)
            self._interpreter.replace_targets(decision)
        planned = (*planned_entries(decision, snapshot=snapshot), *self._transfers.planned(decision, snapshot))
        self._journal.add_decision(decision, planned)
        if decision.kind not in ("reset", "suspicion") and decision.mode == "enforce":
            self._accumulator.remember_marks(decision, snapshot)
            self._firings.add(decision, snapshot)
        for name in {entry.account for entry in planned if entry.account is not None}:
            self._executors[name].adopt(decision)

    async def _run_closing(self) -> None:
        """Run the closing until it has nothing to do, or the next bar closes."""
        last = self._number + 1 >= len(self._matrix)
        due = None if last else from_micros(int(self._matrix.at[self._number + 1]))
        longest = timedelta(seconds=PAUSE + len(self._executors))  # the longest time of a round
        for _ in range(ROUNDS):
            for executor in self._executors.values():
                await executor.advance()
            self._firings.follow(self._progress(), self._clock.now(), self._market)
            if not self._is_closing or (due is not None and self._clock.now() + longest >= due):
                return
            await self._clock.sleep(PAUSE)
