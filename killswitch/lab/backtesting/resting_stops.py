"""The catastrophe stops of a backtest: at each bar's close they are brought in step, and the next bars trigger them.

Triggers are compared with the prices that the backtest has, which are those of the bars: a stop between a bar's low and
its close fills where the paper market lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from killswitch.execution.account_context import AccountContext
from killswitch.execution.catastrophe_stops import (
    PlannedStops,
    StopOrders,
    StopRecord,
    first_marks,
    keep_first_marks,
)
from killswitch.execution.closing_pace import PACE
from killswitch.graph.nodes import CatastropheStopRule
from killswitch.journal.entries import Entry
from killswitch.model.clock import Clock
from killswitch.model.snapshot import AccountSnapshot, Event, Instrument, Order, Snapshot
from killswitch.model.venue import VenueAdapter, is_catastrophe_stop
from killswitch.planning.catastrophe_stops import (
    AccountStops,
    StopInputs,
    StopKey,
    closes_of_other_legs,
    stops_of,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.ratelimit.budget import RequestBudget


class BacktestStops:
    """The stops of all accounts of one backtest, without a journal: nothing outlives the run."""

    def __init__(
        self,
        rules: Sequence[CatastropheStopRule],
        venues: Mapping[str, VenueAdapter],
        instruments: Iterable[Instrument],
        clock: Clock,
    ) -> None:
        """`venues`: the adapter of each account. `instruments`: the rules of the symbols, which do not change."""
        self._rules = tuple(rules)
        covered = {name for rule in self._rules for name in rule.accounts if name in venues}
        self._orders = {name: StopOrders(_session(name, venues[name], clock), StopRecord(), _keep_nothing)
                        for name in sorted(covered)}  # fmt: skip
        self._instruments = {each.symbol: each for each in instruments}
        self._names: dict[str, str] = {}
        """The venue's id of each stop that was seen resting → its client order id."""
        self._filled: set[str] = set()

    @property
    def is_active(self) -> bool:
        """Whether an account has stops, so that no bar may be skipped."""
        return bool(self._orders)

    def commands(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """The closes of legs that a filled stop has left naked, once for each stop, as a run commands them."""
        found: list[Event] = []
        for account in snapshot.accounts:
            for fill in account.fills or ():
                name = fill.client_order_id or self._names.get(fill.order or "", "")
                if is_catastrophe_stop(name) and name not in self._filled:
                    self._filled.add(name)
                    found += closes_of_other_legs(self._rules, account.account, fill.symbol, name, snapshot.as_of)
        return tuple(found)

    async def keep(self, snapshot: Snapshot, closing: Mapping[str, frozenset[StopKey]]) -> None:
        """Cancel and place what the positions of the snapshot need. `closing`: what a close works on, by account."""
        accounts = {each.account: each for each in snapshot.accounts}
        for account in accounts.values():
            stops = (it for it in account.orders or () if is_catastrophe_stop(it.client_order_id))
            self._names.update((it.id, it.client_order_id or "") for it in stops)
        for name, orders in self._orders.items():
            if name not in accounts:
                continue
            found = self._stops(name, accounts, closing)
            held = {position.key for position in accounts[name].positions or () if position.contracts > 0}
            for each in found:
                keep_first_marks(orders.record, each.first_marks, held)
            if not self._planned(found).is_empty:
                await orders.keep(self._planner(name, accounts, closing))

    def _planner(
        self, name: str, accounts: Mapping[str, AccountSnapshot], closing: Mapping[str, frozenset[StopKey]]
    ) -> Callable[[tuple[Order, ...]], PlannedStops]:
        def plan(orders: tuple[Order, ...]) -> PlannedStops:
            shown = replace(accounts[name], orders=orders)
            return self._planned(self._stops(name, {**accounts, name: shown}, closing))

        return plan

    def _stops(
        self, name: str, accounts: Mapping[str, AccountSnapshot], closing: Mapping[str, frozenset[StopKey]]
    ) -> tuple[AccountStops, ...]:
        inputs = {
            each: StopInputs(
                self._instruments,
                first_marks(self._orders[each].record) if each in self._orders else {},
                closing.get(each, frozenset()),
            )
            for each in accounts
        }
        return tuple(stops_of(rule, name, accounts, inputs) for rule in self._rules if name in rule.accounts)

    def _planned(self, found: Sequence[AccountStops]) -> PlannedStops:
        by_name = {rule.name: rule.trigger for rule in self._rules}
        lines = tuple((line, by_name[each.rule]) for each in found for line in each.lines)
        return PlannedStops(found[0].leftovers if found else (), lines)


def _session(name: str, venue: VenueAdapter, clock: Clock) -> AccountContext:
    return AccountContext(name, venue, clock, PACE, _record_nothing, RequestBudget.unlimited(), Breaker())


def _record_nothing(_entries: Sequence[Entry]) -> None:
    """The journal of a stop is for a restart, and a backtest has none."""


def _keep_nothing() -> None:
    """As is its record."""
