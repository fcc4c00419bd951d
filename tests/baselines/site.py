"""A site for the baselines: policies, a paper market, a store and a runner, in virtual time.

Everything is real except the time and the venue: policies are read from documents, the runner is assembled as `ksctl
run` does it, and the store is the file that it writes. The same site runs identically each time.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import LoadedPolicies, read_policies
from killswitch.incident.record.checklist import incidents_folder
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
"""Ticks between two renderings of the reports; each renders every page that has changed."""
WAIT_LIMIT = 60.0
"""Real seconds to wait for the reports at each tick: a thread renders them."""


class Timeline(VirtualTime):
    """Virtual time with the same origin in every process, because stores record the origin of their clock."""

    @property
    def origin(self) -> str:
        return "virtual"


class FaultyVenue(LocalVenue):
    """The paper venue behind a connection with faults.

    `trouble`: call (`*`: every one) → its fault. `down`: the venue is unreachable. `goes down`: it is unreachable from
    this call on. `lost`: the call is executed, and its answer is lost.
    """

    def __init__(self, account: str, market: PaperMarket, clock: VirtualTime, trouble: dict[str, str]) -> None:
        super().__init__(account, market, clock)
        self.trouble = trouble

    async def snapshot(self) -> AccountSnapshot:
        return await self._transmit("snapshot", super().snapshot)

    async def submit(self, request: OrderRequest) -> OrderReport:
        return await self._transmit("submit", lambda: super(FaultyVenue, self).submit(request))

    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        return await self._transmit("find_order", lambda: super(FaultyVenue, self).find_order(symbol, client_order_id))

    async def open_orders(self) -> tuple[Order, ...]:
        return await self._transmit("open_orders", super().open_orders)

    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        return await self._transmit("fills", lambda: super(FaultyVenue, self).fills(symbol, client_order_id))

    async def cancel(self, symbol: str, order_id: str) -> None:
        await self._transmit("cancel", lambda: super(FaultyVenue, self).cancel(symbol, order_id))

    async def _close_book(self) -> None:
        await self._transmit("close_book", super()._close_book)

    async def _transmit(self, call: str, answer: Callable[[], Awaitable[Any]]) -> Any:
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


class Reports(Struct):
    """An observer that waits until reports show the tick: at decisions, and every `RENDERED_EVERY` ticks."""

    reporting: ReportRenderer
    ticks: int = 0

    def ticked(self, report: TickReport) -> None:
        self.ticks += 1
        if report.decisions or self.ticks % RENDERED_EVERY == 0:
            self.reporting.ticked(report)
            self.reporting.wait(WAIT_LIMIT)


class Site:
    """A store in `folder` under the policies `name`, and a market of `symbols` at these prices.

    Declare positions, and events with `at`; then `run` repeatedly: each run continues with the store and the market of
    the one before.
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
        """Account → the faults of its connection."""
        self._events: list[tuple[float, Callable[[], object]]] = []
        self._commands = 0
        self.reports = False
        """Whether reports and runbooks are rendered during the run."""
        self.recording: Path | None = None
        self._pass_bar()

    # -- before a run -------------------------------------------------------------------------------------

    def account(self, name: str, wallet: str, *, leverage: str = "10") -> None:
        """Open the account of the document `name` with this wallet balance."""
        spec = next(each.spec for each in self.written.accounts if each.metadata.name == name)
        cash = spec.market == "spot"
        self.market.add_account(
            name, market=spec.market, currency=spec.currency, wallet=Decimal(wallet),
            leverage=Decimal(1) if cash else Decimal(leverage), venue=venue_of(spec),
        )  # fmt: skip
        self.troubles[name] = {}

    def hold(self, account: str, symbol: str, side: Side, notional: str) -> None:
        self.market.open_position(account, symbol, side, Decimal(notional))

    def at(self, second: float, event: Callable[[], object]) -> None:
        """Schedule an event at that second of the site's time."""
        self._events.append((second, event))

    def set_prices(self, second: float, **prices: str) -> None:
        """Set these prices from that second on: the next bar closes at them."""
        self.at(second, lambda: self.prices.update({symbol: Decimal(price) for symbol, price in prices.items()}))

    def command(self, second: float, kind: Any, scope: str | None, reason: str, **more: Any) -> None:
        """Schedule an operator command of ada's; `give_up` refers to the newest decision."""
        self._commands += 1
        id_ = f"hand-{self._commands:016d}"
        self.at(second, lambda: self._queue(id_, kind, scope, reason, **more))

    def newest_decision(self) -> str:
        """The id of the newest decision; for scheduled events."""
        store = open_store(str(self.store_at), read_only=True)
        try:
            return store.decisions(1)[0].decision.id
        finally:
            store.close()

    def apply(self, plan: SavedPlan) -> None:
        """Queue a saved plan for the next tick; for scheduled events."""
        store = open_store(str(self.store_at))
        try:
            store.put_event(apply_event(store, plan, "ada", self.time.now()))
        finally:
            store.close()

    def plan_of_closing(self, scope: str) -> SavedPlan:
        """The plan of an operator close of `scope` now."""
        now = self.time.now()
        command = operator_event("close", scope, "ada", "operator: before the holidays", now, cause="operator")
        accounts = tuple(self.market.snapshot(name, now) for name in self.troubles)
        snapshot = Snapshot(now, accounts, "killswitch.snapshot/v1", events=(replace(command, id="hand-plan"),))
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

    def run(self, until: float, *, start: float = 0.0, killed: bool = False) -> None:
        """Run to that second of the site's time; then stop the runner as SIGTERM does, or kill it.

        Before the second `start` no runner exists, and only the market advances.
        """
        self.time.run(self._run(until, start, killed=killed))

    async def _run(self, until: float, start: float, *, killed: bool) -> None:
        loop = asyncio.get_running_loop()
        now, errors = loop.time(), []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        for second, event in self._events:
            if second >= now:
                loop.call_at(second, event)
        bars = asyncio.create_task(self._pass_bars())
        await asyncio.sleep(max(start - now, 0.0))
        store = open_store(str(self.store_at))
        stop = asyncio.Event()
        observers: tuple[Observer, ...] = ()
        reporting = None
        if self.reports:
            at = str(self.store_at)
            reporting = ReportRenderer(store, at, incidents_folder(at), pause=0.0, pause_for_work=0.0)
            observers = (Reports(reporting),)
        try:
            runner = assemble(
                self.written.policies, self._armed(), store, self.time, RunnerPace(self.interval, read_timeout=2.0),
                live=True, locks=self.locks, store_at=str(self.store_at), paths=(str(self.policies),),
                observers=observers,
                recorder=None if self.recording is None else RecordingWriter(self.recording,
                append=self.recording.exists()),
            )  # fmt: skip
            keep_start(store, self.written.policies.digest, self.written.runbooks, self.recording)
            running = asyncio.create_task(runner.run(stop))
            await asyncio.wait({running}, timeout=until - loop.time())
            _wait_for_notifications(store)
            if killed:
                running.cancel()
            stop.set()
            await asyncio.gather(running, return_exceptions=killed)
        finally:
            bars.cancel()
            if reporting is not None:
                reporting.close()
            store.close()
        if errors:
            raise RuntimeError(f"an error outside the run: {errors[0]}") from errors[0].get("exception")

    def _armed(self) -> dict[str, ArmedAccount]:
        """The armed accounts with new adapters, which have no state of earlier runs."""
        specs = {each.metadata.name: each.spec for each in self.written.accounts}
        return {
            name: ArmedAccount(
                name, venue_of(specs[name]), specs[name].market, specs[name].currency,
                FaultyVenue(name, self.market, self.time, trouble), armed=specs[name].execution == "live",
            )
            for name, trouble in self.troubles.items()
        }  # fmt: skip

    async def _pass_bars(self) -> None:
        while True:
            await asyncio.sleep(BAR - self.time.elapsed % BAR)
            self._pass_bar()

    def _pass_bar(self) -> None:
        """Close a bar that moves straight from the last bar's prices to the present ones."""
        bars = {}
        for symbol, price in self.prices.items():
            before = self._closed_at[symbol]
            bars[symbol] = MarketBar(before, max(before, price), min(before, price), price, self.volume)
        self.market.advance(self.time.now(), bars)
        self._closed_at = dict(self.prices)

    def _queue(self, id_: str, kind: Any, scope: str | None, reason: str, **more: Any) -> None:
        decision = self.newest_decision() if kind == "give_up" else None
        event: Event = operator_event(kind, scope, "ada", reason, self.time.now(), decision=decision, **more)
        store = open_store(str(self.store_at))
        try:
            store.put_event(replace(event, id=id_))
        finally:
            store.close()


def _wait_for_notifications(store: SqlStore) -> None:
    """Wait until no notification is pending: a thread sends them in real time while virtual time does not advance."""
    deadline = time.monotonic() + WAIT_LIMIT
    while any(route.pending for route in store.outbox()) and time.monotonic() < deadline:
        time.sleep(0.005)


def linear(symbol: str, **more: str) -> Instrument:
    """A linear contract, or a coin: lot 0.001 and tick 0.01 by default."""
    fields = {"contract_size": "1", "amount_step": "0.001", "price_step": "0.01", "min_amount": "0.001", **more}
    return Instrument(symbol=symbol, **{key: Decimal(value) for key, value in fields.items()})  # type: ignore[arg-type] # the names decide
