"""A small world for tests of the runner: scripted venues, a store on disk, one policy, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.graph.actions.cancel_orders import CancelOrders
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Graph, PolicySet
from killswitch.lab.rehearsal import VirtualClock
from killswitch.model.snapshot import AccountSnapshot, Fill, Order
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.hot_reload import WITHOUT_FILES, SetOfStart
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.observers import Observer, TickReport
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import graphs, worlds
from tests.fake_venue import FakeVenue, deviating

PACE = RunnerPace(interval=1.0, read_timeout=0.5, stop_timeout=0.5, lock_timeout=30.0)


class ScriptedVenue(FakeVenue):
    """Answers snapshots with `answer`: a snapshot, an exception to raise, or None for no answer at all."""

    def __init__(self, answer: AccountSnapshot | BaseException | None, account: str = "main") -> None:
        super().__init__()
        self.account = account
        self.answer = answer
        self.reads = 0
        self.in_flight = 0
        self.sent: list[OrderRequest] = []
        self.closed = False

    @deviating
    async def snapshot(self) -> AccountSnapshot:
        self.reads += 1
        self.in_flight += 1
        try:
            if self.answer is None:
                await asyncio.Event().wait()
        finally:
            self.in_flight -= 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        assert self.answer is not None
        return self.answer

    @deviating
    async def submit(self, request: OrderRequest) -> OrderReport:
        """Fills at the mark at once, for a fee of 1; the account shows it from then on."""
        self.sent.append(request)
        assert isinstance(self.answer, AccountSnapshot)
        held = {position.symbol: position for position in self.answer.positions or ()}
        position = held.pop(request.symbol)
        assert position.mark_price is not None
        assert position.unrealized_pnl is not None
        assert self.answer.equity is not None
        assert request.amount == position.contracts, "this venue closes positions whole"
        row = worlds.fill(
            f"f{len(self.sent)}", worlds.START, request.symbol, request.side, str(request.amount),
            str(position.mark_price), position_side=position.side, fee="1", fee_currency="USDT",
            realized_pnl=str(position.unrealized_pnl),
        )  # fmt: skip
        self.answer = replace(self.answer, positions=tuple(held.values()), equity=self.answer.equity - 1, fills=(row,))
        return OrderReport(
            f"o{len(self.sent)}", request.client_order_id, request.symbol, "filled", request.amount, request.amount,
            position.mark_price, Decimal(1),
        )  # fmt: skip

    @deviating
    async def find_order(self, symbol: str, client_order_id: str) -> OrderReport | None:
        return None

    @deviating
    async def open_orders(self) -> tuple[Order, ...]:
        return ()

    @deviating
    async def fills(self, symbol: str, client_order_id: str) -> tuple[Fill, ...]:
        return ()

    @deviating
    async def cancel(self, symbol: str, order_id: str) -> None:
        raise VenueDownError("this venue does not cancel")

    async def close(self) -> None:
        self.closed = True


def refusing(
    answer: AccountSnapshot | BaseException | None, error: BaseException, account: str = "main"
) -> ScriptedVenue:
    """A venue at which every order fails with `error`."""
    venue = ScriptedVenue(answer, account)
    venue.fail("submit", error)
    return venue


def book(equity: str, name: str = "main", **more: Any) -> AccountSnapshot:
    """An account of 1,100 at cost with 10 contracts long at 110, marked so that its equity is `equity`."""
    pnl = Decimal(equity) - 1100
    mark = 110 + pnl / 10
    held = worlds.position(
        "BTC", "long", str(pnl), contracts="10", entry_price="110", mark_price=str(mark), notional=str(mark * 10),
    )  # fmt: skip
    return worlds.account(equity, (held,), name=name, instruments=(worlds.rules("BTC"),), **more)


def crash_policy(**more: Any) -> Graph:
    """Closes everything and locks for reduce-only as soon as the account is 10% below its start."""
    from killswitch.graph.nodes import SignalRef

    fall = SignalRef("equity.loss_from_start")
    stage = graphs.stage(
        "close-everything", 3, 0,
        actions=(LockTrading("reduce_only", None), graphs.close(), CancelOrders("all")),
    )  # fmt: skip
    return graphs.graph([fall], [graphs.trigger("fall", 0, 0.10)], [stage], policy="crash", **more)


class Seen:
    """An observer that keeps its reports, for short runs."""

    def __init__(self) -> None:
        self.reports: list[TickReport] = []

    def ticked(self, report: TickReport) -> None:
        self.reports.append(report)


class World:
    """One store in `folder`, and runners on it. `accounts`: name → (venue, armed)."""

    def __init__(self, folder: Path, start: datetime = worlds.START) -> None:
        self.folder = folder
        self.clock = VirtualClock(start)
        self.locks = LockPaths(folder / "locks", folder / "union.json")
        self._opened: list[SqlStore] = []

    def open(self, *, read_only: bool = False) -> SqlStore:
        self._opened.append(open_store(str(self.folder / "store.sqlite"), read_only=read_only))
        return self._opened[-1]

    def close(self) -> None:
        """Close every store that was opened; closing one twice does no harm."""
        for store in self._opened:
            store.close()

    def runner(
        self,
        store: SqlStore,
        venues: Sequence[ScriptedVenue],
        *,
        armed: bool = True,
        policies: PolicySet | None = None,
        pace: RunnerPace = PACE,
        witnesses: tuple[Observer, ...] = (),
        of_start: SetOfStart = WITHOUT_FILES,
    ) -> Runner:
        accounts = {
            venue.account: ArmedAccount(venue.account, "paper", "swap", "USDT", venue, armed=armed) for venue in venues
        }
        return assemble(
            policies or graphs.policy_set(crash_policy()), accounts, store, self.clock, pace,
            live=armed, locks=self.locks, observers=witnesses, is_run=True,
            of_start=of_start,
        )  # fmt: skip


def observing(graph: Graph) -> Graph:
    return replace(graph, mode="observe")
