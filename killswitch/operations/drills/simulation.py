"""Runs a drill: the real runner with the policies of the set, in a generated crash on the paper market.

Time is virtual, so a crash of hours takes seconds; what the program computes is measured by the real clock and added.
Only paper venues exist in it: no adapter of an account document is ever opened, so no real position can be touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from time import perf_counter

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import LoadedPolicies
from killswitch.accounts.plug_ins import make_adapter
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import read_incidents
from killswitch.incident.record.results import read_decision
from killswitch.lab.book import BacktestBook, BookAccount, BookError, BookPosition, demo_book
from killswitch.lab.crash import crash_bars
from killswitch.lab.feed import Feed
from killswitch.lab.rehearsal import VirtualClock
from killswitch.market.account import CASH_MARKETS
from killswitch.model.instant import SECOND
from killswitch.model.venue import AccountSpec
from killswitch.operations.drills.measures import COMPLETED, DrillResult, Measure, Spent, measures_of
from killswitch.operations.drills.venue import DrillVenue, Fault
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.drill import DrillDocument
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.status_blob import keep_start
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

ROUNDS = 400
"""Maximum closing passes between two bars, 0.25 s apart."""
AFTER = 30
"""Bars that are run after the last close has ended."""
DELIVERED_WITHIN = 60.0
"""Real seconds for which a drill waits for the message of its first firing."""
LOOKS_EVERY = 0.05


class NothingFiredError(Exception):
    """The crash was over and no stage had fired, so that there is nothing to measure."""


class DrillWorld(Struct, frozen=True):
    """Where a drill runs, and what ends it: `real_event` returns why a real event ends it now, else None."""

    folder: Path
    at: datetime
    real_event: Callable[[], str | None] = lambda: None


def book_for(accounts: Sequence[AccountDocument]) -> BacktestBook:
    """Return the demo's positions on paper accounts with the names, markets and currencies of the set's accounts.

    BookError for a currency in which the generated crash has no prices.
    """
    (model,) = demo_book().accounts
    found = []
    for each in accounts:
        spec = each.spec
        if spec.currency != model.currency:
            raise BookError(
                f"the generated crash is priced in {model.currency}: give a --book for {each.metadata.name}"
            )
        is_cash = spec.market in CASH_MARKETS
        held = (one for one in model.positions if one.side == "long" or not is_cash)
        positions = tuple(_paid_in_cash(one) if is_cash else one for one in held)
        found.append(
            BookAccount(
                account=each.metadata.name, market=spec.market, currency=spec.currency, equity=model.equity,
                positions=positions,
            )
        )  # fmt: skip
    if not found:
        raise BookError("the set has no Account document, so that a drill has no account: give a --book")
    return BacktestBook(name="drill", accounts=tuple(found))


def _paid_in_cash(position: BookPosition) -> BookPosition:
    """The position on a market without margin, small enough that the equity pays for all of them."""
    return position.model_copy(update={"leverage": None, "notional": position.notional / 4})


def run_drill(document: DrillDocument, loaded: LoadedPolicies, book: BacktestBook, world: DrillWorld) -> DrillResult:
    """Run a dry run or a simulation, and return its measures. NothingFiredError if no stage fires.

    ValueError for a live drill, which is measured and not run, and for a book that cannot be opened.
    """
    if document.spec.mode == "live":
        raise ValueError("a live drill is not run: close the position by hand, then measure its incident")
    return asyncio.run(_Drill(document, loaded, book, world).run())


class _Drill:
    """One run."""

    def __init__(self, document: DrillDocument, loaded: LoadedPolicies, book: BacktestBook, world: DrillWorld) -> None:
        self._document = document
        self._loaded = loaded
        self._world = world
        self._feed = Feed(crash_bars(document.spec.seed), book, seed=document.spec.seed)
        assert self._feed.market.now is not None  # a feed closes its first bars at its creation
        self._clock = VirtualClock(self._feed.market.now, self._feed.until)
        self._is_armed = document.spec.mode == "simulation"
        self._accounts = {each.account: self._account(each) for each in book.accounts}
        self._tick_seconds = self._close_seconds = 0.0
        self._notified: float | None = None

    def _account(self, account: BookAccount) -> ArmedAccount:
        spec = AccountSpec(
            account=account.account, adapter="paper", market=account.market, currency=account.currency, endpoint=None,
            options={"market": self._feed.market, "clock": self._clock}, credentials={},
        )  # fmt: skip
        faults: Sequence[Fault] = self._document.spec.faults
        venue = DrillVenue(make_adapter(spec), faults, self._clock)
        return ArmedAccount(
            account.account, account.venue, account.market, account.currency, venue, armed=self._is_armed
        )

    async def run(self) -> DrillResult:
        folder, bars = self._world.folder, self._feed.interval.total_seconds()
        store_at = str(folder / "drill.sqlite")
        store = open_store(store_at)
        try:
            runner = assemble(
                self._loaded.policies, self._accounts, store, self._clock, RunnerPace(interval=bars, read_timeout=5.0),
                live=self._is_armed, locks=LockPaths(folder / "locks", folder / "trading_lock.json"), store_at=store_at,
                is_run=True, is_drill=True,
            )  # fmt: skip
            keep_start(store, self._loaded.policies.digest, self._loaded.runbooks, None, is_drill=True)
            await runner.start()
            try:
                ended = await self._crash(runner, store)
            finally:
                await runner.finish()
                await runner.shut_down()
            return self._result(store, store_at, ended)
        finally:
            store.close()

    @property
    def _confirms(self) -> dict[str, float]:
        """Trigger → the seconds of its confirmation."""
        return {each.name: each.confirm / SECOND for graph in self._loaded.policies.graphs for each in graph.triggers}

    async def _crash(self, runner: Runner, store: SqlStore) -> str:
        """Run the bars until everything is closed; return how it ended."""
        quiet = 0
        while self._feed.due is not None:
            if (why := self._world.real_event()) is not None:
                return f"ended by a real event: {why}"
            began = perf_counter()
            report = await runner.tick()
            fired = [each for each in report.decisions if not each.is_suspicion and each.kind != "reset"]
            if fired:
                self._tick_seconds = max(self._tick_seconds, perf_counter() - began)
            is_working = await self._close(runner)
            if fired:
                self._close_seconds = max(self._close_seconds, perf_counter() - began)
                if self._notified is None:
                    self._notified = await _delivery(store, began)
            has_fired = bool(self._notified is not None or self._tick_seconds)
            quiet = quiet + 1 if has_fired and not is_working and not fired else 0
            if quiet > AFTER:
                break
            due = self._feed.due
            if due is not None:
                await self._clock.sleep(max(0.0, (due - self._clock.now()).total_seconds()))
        return COMPLETED

    async def _close(self, runner: Runner) -> bool:
        """Run the closing passes that fit between two bars; whether work is left."""
        due = self._feed.due
        for _ in range(ROUNDS):
            if not await runner.advance():
                return False
            if due is not None and self._clock.now() >= due:
                return True
            await self._clock.sleep(0.25)
        return True

    def _result(self, store: SqlStore, store_at: str, ended: str) -> DrillResult:
        incidents = read_incidents(store)
        if not incidents and ended == COMPLETED:
            raise NothingFiredError(
                "no stage fired in the generated crash: choose another `seed`, or policies that watch these accounts"
            )
        measures: tuple[Measure, ...] = ()
        first = incidents[0] if incidents else None
        if first is not None and ended == COMPLETED:
            incident = incident_of(store, first, StartedAs(store_at))
            recorded = [read_decision(store, each) for each in first.decisions]
            spent = Spent(self._tick_seconds, self._close_seconds, self._notified)
            measures = measures_of(self._document, incident, recorded, store.deliveries(100), spent, self._confirms)
        spec = self._document.spec
        return DrillResult(
            self._document.metadata.name, spec.mode, self._world.at, self._loaded.policies.digest, spec.seed,
            spec.faults, measures, ended, None if first is None else first.id,
        )  # fmt: skip


async def _delivery(store: SqlStore, began: float) -> float | None:
    """Wait in real time until a message is delivered; return the seconds since `began`, None if none is."""
    if not store.outbox():
        return None
    while perf_counter() - began < DELIVERED_WITHIN:
        if any(each.delivered for each in store.outbox()):
            return perf_counter() - began
        if not any(each.pending for each in store.outbox()):
            return None
        await asyncio.sleep(LOOKS_EVERY)
    return None
