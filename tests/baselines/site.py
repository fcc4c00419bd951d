"""One place that is watched: policies, a paper market, a store and a runner, in time that jumps.

Everything is real but the time and the venue: policies are read from documents, the runner is put together as `ksctl
run` does it, and the store is the file that it writes. The same site takes the same course each time.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import structs

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import LoadedPolicies, read_policies
from killswitch.incident.report.rendering import incidents_folder
from killswitch.lab.recording import RecordingWriter
from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.market.tape import MarketBar
from killswitch.market.terms import VenueTerms
from killswitch.model.snapshot import AccountSnapshot, Event, Fill, Instrument, Order, Side, Snapshot
from killswitch.model.venue import FateUnknownError, OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import apply_event, operator_event
from killswitch.operations.preview import from_store, plan_of, preview
from killswitch.planning.operator.plan_file import SavedPlan
from killswitch.policy.schema.account import venue_of
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.loop import RunnerPace
from killswitch.runner.notify.reports import ReportRenderer
from killswitch.runner.observers import Observer, TickReport
from killswitch.runner.status_blob import keep_start
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from killswitch_paper.local import LocalVenue
from tests.virtual_time import VirtualTime

START = datetime(2024, 3, 4, 9, 0, tzinfo=UTC)
POLICIES = Path(__file__).parent / "policies"
BAR = 10
"""Seconds between two bars."""
LATENCY = 0.04
"""Seconds that a request to the venue takes."""
RENDERED_EVERY = 20
"""Ticks between two looks of the reports: each look draws every page that has changed."""
PATIENCE = 60.0
"""Real seconds that reports are waited for at each tick: they are rendered by a thread beside it."""


class Timeline(VirtualTime):
    """Time that jumps, under a name that is the same in every process: stores remember whose time they were in."""

    @property
    def origin(self) -> str:
        return "virtual"


class WaywardVenue(LocalVenue):
    """The paper venue with a way to it, on which answers get lost while `trouble` says so.

    `trouble`: call (`*`: every one) → what happens to it. `down`: the venue is not reached. `goes down`: it is not, and
    nor is any call after it. `lost`: it is done, and nobody hears of it.
    """

    def __init__(self, account: str, market: PaperMarket, clock: VirtualTime, trouble: dict[str, str]) -> None:
        super().__init__(account, market, clock)
        self.trouble = trouble

    async def snapshot(self) -> AccountSnapshot:
        return await self._on_its_way("snapshot", super().snapshot)

    async def submit(self, request: OrderRequest) -> OrderReport:
        return await self._on_its_way("submit", lambda: super(WaywardVenue, self).submit(request))

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        return await self._on_its_way(
            "find_order", lambda: super(WaywardVenue, self).find_order(symbol, client_order_id)
        )

    async def open_orders(self) -> tuple[Order, ...]:
        return await self._on_its_way("open_orders", super().open_orders)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        return await self._on_its_way("fills", lambda: super(WaywardVenue, self).fills(symbol, client_order_id))

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self._on_its_way("cancel", lambda: super(WaywardVenue, self).cancel(symbol, order_id))

    async def close_book(self) -> None:
        await self._on_its_way("close_book", super().close_book)

    async def _on_its_way(self, call: str, answer: Callable[[], Awaitable[Any]]) -> Any:
        await asyncio.sleep(LATENCY)
        trouble = self.trouble.get(call, self.trouble.get("*"))
        if trouble == "goes down":
            self.trouble["*"] = "down"
        if trouble in ("down", "goes down"):
            raise VenueDownError("maintenance")
        if trouble == "lost":
            if call in ("submit", "cancel"):
                await answer()
            raise FateUnknownError("no answer in time")
        return await answer()


@dataclass
class Reports:
    """A witness that waits until reports are rendered, so that they see the tick as it was; at what matters only."""

    reporting: ReportRenderer
    ticks: int = 0

    def ticked(self, report: TickReport) -> None:
        self.ticks += 1
        if report.decisions or self.ticks % RENDERED_EVERY == 0:
            self.reporting.ticked(report)
            self.reporting.wait(PATIENCE)


class Site:
    """One store in `folder` under the policies `name`, and a market of `symbols` at these prices.

    Say what is held, and what happens `at` which second; then `run`, as often as wanted: what a run leaves the next one
    finds, in the store and on the market.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        symbols: Mapping[str, str],
        *,
        instruments: Sequence[Instrument] = (),
        rules: MarketRules | None = None,
        terms: VenueTerms | None = None,
        volume: str = "100000",
        interval: float = 1.0,
    ) -> None:
        self.folder = folder
        self.store_at = folder / "store.sqlite"
        self.locks = LockPaths(folder / "locks", folder / "trading_lock.json")
        self.policies = folder / "policies"
        shutil.copytree(POLICIES / name, self.policies)
        self.written: LoadedPolicies = read_policies([self.policies])
        self.time = Timeline(START)
        self.interval = interval
        self.volume = Decimal(volume)
        self.prices = {symbol: Decimal(price) for symbol, price in symbols.items()}
        self._closed_at = dict(self.prices)
        listed = {instrument.symbol: instrument for instrument in instruments}
        self.market = PaperMarket(
            [listed.get(symbol) or linear(symbol) for symbol in symbols],
            seed=1, rules=rules, recall=timedelta(hours=1), terms=terms,
        )  # fmt: skip
        self.troubles: dict[str, dict[str, str]] = {}
        """Account → what goes wrong on the way to it."""
        self._happenings: list[tuple[float, Callable[[], object]]] = []
        self._hands = 0
        self.reports = False
        """Whether reports and runbooks are rendered beside the run."""
        self.recording: Path | None = None
        self._pass_bar()

    # -- before a run -------------------------------------------------------------------------------------

    def account(self, name: str, wallet: str, *, leverage: str = "10") -> None:
        """Open the account that the document `name` is about, with so much money."""
        spec = next(each.spec for each in self.written.accounts if each.metadata.name == name)
        cash = spec.market == "spot"
        self.market.add_account(
            name, market=spec.market, currency=spec.currency, wallet=Decimal(wallet),
            leverage=Decimal(1) if cash else Decimal(leverage), venue=venue_of(spec),
        )  # fmt: skip
        self.troubles[name] = {}

    def hold(self, account: str, symbol: str, side: Side, notional: str) -> None:
        self.market.open_position(account, symbol, side, Decimal(notional))

    def at(self, second: float, happens: Callable[[], object]) -> None:
        """Something happens at that second of the site's time."""
        self._happenings.append((second, happens))

    def moves(self, second: float, **prices: str) -> None:
        """From that second on these are the prices: the next bar closes there."""
        self.at(second, lambda: self.prices.update({symbol: Decimal(price) for symbol, price in prices.items()}))

    def command(self, second: float, kind: Any, scope: str | None, reason: str, **more: Any) -> None:
        """A hand of ada's, given at that second; what is given up is the newest decision."""
        self._hands += 1
        id_ = f"hand-{self._hands:016d}"
        self.at(second, lambda: self._give(id_, kind, scope, reason, **more))

    def decided(self) -> str:
        """The id of the newest decision; for happenings."""
        store = open_store(str(self.store_at), read_only=True)
        try:
            return store.decisions(1)[0].decision.id
        finally:
            store.close()

    def apply(self, plan: SavedPlan) -> None:
        """Give a saved plan to the next tick; for happenings."""
        store = open_store(str(self.store_at))
        try:
            store.put_event(apply_event(store, plan, "ada", self.time.now()))
        finally:
            store.close()

    def plan_of_closing(self, scope: str) -> SavedPlan:
        """What a close by hand of `scope` would do now."""
        now = self.time.now()
        given = operator_event("close", scope, "ada", "operator: before the holidays", now, cause="operator")
        accounts = tuple(self.market.snapshot(name, now) for name in self.troubles)
        snapshot = Snapshot(now, accounts, "killswitch.snapshot/v1", events=(structs.replace(given, id="hand-plan"),))
        store = open_store(str(self.store_at), read_only=True)
        try:
            interpreter, memory = from_store(self.written.policies, store)
            shown = preview(self.written.policies, snapshot, interpreter, memory, frozenset())
        finally:
            store.close()
        plan = plan_of(shown, [decision for decision in shown.decisions if decision.kind == "manual"])
        assert plan is not None
        return plan

    # -- running ------------------------------------------------------------------------------------------

    def run(self, until: float, *, begins: float = 0.0, killed: bool = False) -> None:
        """Run to that second of the site's time; then the run is stopped as by SIGTERM, or killed where it is.

        Before the second `begins` nobody runs, and the market goes on by itself.
        """
        self.time.run(self._run(until, begins, killed=killed))

    async def _run(self, until: float, begins: float, *, killed: bool) -> None:
        loop = asyncio.get_running_loop()
        now, wrong = loop.time(), []
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        for second, happens in self._happenings:
            if second >= now:
                loop.call_at(second, happens)
        bars = asyncio.create_task(self._pass_bars())
        await asyncio.sleep(max(begins - now, 0.0))
        store = open_store(str(self.store_at))
        stop = asyncio.Event()
        witnesses: tuple[Observer, ...] = ()
        reporting = None
        if self.reports:
            at = str(self.store_at)
            reporting = ReportRenderer(store, at, incidents_folder(at), pause=0.0, pause_for_work=0.0)
            witnesses = (Reports(reporting),)
        try:
            runner = assemble(
                self.written.policies, self._armed(), store, self.time, RunnerPace(self.interval, read_timeout=2.0),
                live=True, locks=self.locks, paths=(str(self.policies),), observers=witnesses,
                recorder=None if self.recording is None else RecordingWriter(self.recording,
                append=self.recording.exists()),
            )  # fmt: skip
            keep_start(store, self.written.policies.digest, self.written.runbooks, self.recording)
            running = asyncio.create_task(runner.run(stop))
            await asyncio.wait({running}, timeout=until - loop.time())
            _let_messages_leave(store)
            if killed:
                running.cancel()
            stop.set()
            await asyncio.gather(running, return_exceptions=killed)
        finally:
            bars.cancel()
            if reporting is not None:
                reporting.close()
            store.close()
        if wrong:
            raise RuntimeError(f"something beside the run went wrong: {wrong[0]}") from wrong[0].get("exception")

    def _armed(self) -> dict[str, ArmedAccount]:
        """The accounts with adapters of this run's own, which remember nothing."""
        specs = {each.metadata.name: each.spec for each in self.written.accounts}
        return {
            name: ArmedAccount(
                name, venue_of(specs[name]), specs[name].market, specs[name].currency,
                WaywardVenue(name, self.market, self.time, trouble), armed=specs[name].execution == "live",
            )
            for name, trouble in self.troubles.items()
        }  # fmt: skip

    async def _pass_bars(self) -> None:
        while True:
            await asyncio.sleep(BAR - self.time.elapsed % BAR)
            self._pass_bar()

    def _pass_bar(self) -> None:
        """Close a bar that goes straight from the prices of the last one to those of now."""
        bars = {}
        for symbol, price in self.prices.items():
            before = self._closed_at[symbol]
            bars[symbol] = MarketBar(before, max(before, price), min(before, price), price, self.volume)
        self.market.advance(self.time.now(), bars)
        self._closed_at = dict(self.prices)

    def _give(self, id_: str, kind: Any, scope: str | None, reason: str, **more: Any) -> None:
        named = self.decided() if kind == "give_up" else None
        event: Event = operator_event(kind, scope, "ada", reason, self.time.now(), decision=named, **more)
        store = open_store(str(self.store_at))
        try:
            store.put_event(structs.replace(event, id=id_))
        finally:
            store.close()


def _let_messages_leave(store: SqlStore) -> None:
    """Until no notification waits: they are sent by a thread, which takes real time while the site's stands still."""
    deadline = time.monotonic() + PATIENCE
    while any(route.pending for route in store.outbox()) and time.monotonic() < deadline:
        time.sleep(0.005)


def linear(symbol: str, **more: str) -> Instrument:
    """A linear contract, or a coin: lot 0.001, tick 0.01, unless said otherwise."""
    fields = {"contract_size": "1", "amount_step": "0.001", "price_step": "0.01", "min_amount": "0.001", **more}
    return Instrument(symbol=symbol, **{key: Decimal(value) for key, value in fields.items()})  # type: ignore[arg-type] # the names decide
