"""Keeps the catastrophe stops of all armed accounts in step with their positions, one pass after each tick.

A pass runs next to the ticks: a slow venue delays no tick and no close. It decides by the newest snapshot and by a list
of open orders that it reads itself, and only if the snapshot was begun after the last change of the account's stops.
Nothing is cancelled at the end of a run: the stops are there for the time in which no runner lives.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.plug_ins import AdapterError
from killswitch.accounts.poll.request_meter import RequestMeter
from killswitch.execution.account_context import AccountContext
from killswitch.execution.catastrophe_stops import (
    PlannedStops,
    StopOrders,
    StopRecord,
    first_marks,
    is_still_refused,
    keep_first_marks,
    key_text,
    without_places,
)
from killswitch.execution.client_order_id import names_catastrophe_stops
from killswitch.execution.closing_pace import PACE
from killswitch.graph.nodes import CatastropheStopRule, PolicySet
from killswitch.journal.codec import encode
from killswitch.journal.entries import Entry
from killswitch.model.alert import NO_ALERTS, Alert, Alerts, together
from killswitch.model.clock import Clock
from killswitch.model.legible import legible
from killswitch.model.snapshot import AccountSnapshot, Event, Instrument, Order, Snapshot
from killswitch.model.store import EPOCH, Store, decoded
from killswitch.model.venue import is_catastrophe_stop
from killswitch.model.words import Severity
from killswitch.planning.catastrophe_stops import (
    AccountStops,
    StopInputs,
    StopLine,
    closes_of_other_legs,
    closing_command,
    protected_by,
    stops_of,
)
from killswitch.ratelimit.breaker import Breaker
from killswitch.runner.closing_workers import ClosingWorkers
from killswitch.runner.hot_reload import TakenSet
from killswitch.store.errors import StoreError

LIVE_NAME: Final = "catastrophe_stops"
AGAIN_AFTER: Final = 60.0
"""Seconds after which a stop that the venue refused is tried again although nothing has changed."""
MOST_NAMES: Final = 1_000
"""Number of the venue's ids of stops that are remembered."""
KEPT: Final = 200
"""Number of filled stops that are remembered."""
SEVERITIES: Final[Mapping[str, Severity]] = {"dust": "info"}
"""Kind of a problem → its severity, where it is no page."""
EXITS: Final = frozenset({"reached", "refused"})
"""The problems for which `if_refused: exit` closes the position."""


class EndedTick(Protocol):
    """What is needed of the report of a tick."""

    @property
    def snapshot(self) -> Snapshot: ...


class StopView(Struct, frozen=True):
    """The stop of one position as `status` shows it. `covered`: contracts with a resting stop at `trigger`."""

    account: str
    symbol: str
    side: str
    contracts: Decimal
    covered: Decimal
    trigger: Decimal | None = None
    why: str | None = None
    rule: str = ""


class StopsRecord(Struct):
    """The stored blob: what each account's stops need after a restart, and how they were at the last tick."""

    accounts: dict[str, StopRecord] = {}
    views: tuple[StopView, ...] = ()
    exits: dict[str, str] = {}
    """`ACCOUNT/SYMBOL/side` → the id of the command that closes the position in place of a stop."""
    left: list[str] = []
    """Ids of filled stops whose other legs were closed."""


class StopsError(AdapterError):
    """A CatastropheStop needs what a venue cannot do; the message has the place, the cause and the way out."""


def require_stops(policies: PolicySet, accounts: Mapping[str, ArmedAccount]) -> None:
    """StopsError if the stops of an armed account cannot be placed, or would be cancelled by the venue's own timer."""
    refusals = [
        f"{rule.place.file}:{rule.place.line}:{rule.place.column}: CatastropheStop {rule.name}, account {name}: {why}"
        for rule in policies.stops
        for name in rule.accounts
        if name in accounts and accounts[name].armed
        for why in _refusals(rule, accounts[name], policies)
    ]
    if refusals:
        raise StopsError("; ".join(refusals))


def _refusals(rule: CatastropheStopRule, account: ArmedAccount, policies: PolicySet) -> Iterator[str]:
    offered, timer = account.adapter.traits.conditional_orders, account.adapter.dead_man
    if offered is None or not names_catastrophe_stops(account.adapter.traits.client_ids):
        yield f"venue {account.venue} has no conditional orders that can be placed; take the account out (KS3059)"
    elif rule.trigger not in offered.triggers:
        yield f"no {rule.trigger} price triggers an order at venue {account.venue}; write `trigger: mark` (KS3059)"
    if timer is None or timer.rule.takes_stops is False:
        return
    for each in policies.timers:
        if account.name in each.accounts:
            may = "cancels" if timer.rule.takes_stops else "may cancel"
            yield (
                f"the dead-man timer of the switch {each.name} {may} the stops when it goes off; take the account out "
                "of one of the two (KS3052)"
            )


class _Keeper:
    """The stops of one account, and the pass that is under way."""

    def __init__(self, orders: StopOrders) -> None:
        self.orders = orders
        self.rules: dict[str, Instrument] = {}
        self.stops: tuple[AccountStops, ...] = ()
        self.undeclared: tuple[Order, ...] = ()
        self.failure: str | None = None
        self.task: asyncio.Task[None] | None = None

    def collect(self) -> bool:
        """Take the result of a pass; whether another one may begin. Raises StoreError."""
        if self.task is None:
            return True
        if not self.task.done():
            return False
        ended, self.task = self.task, None
        error = None if ended.cancelled() else ended.exception()
        if isinstance(error, StoreError):
            raise error
        self.failure = None if error is None else legible(f"{type(error).__name__}: {error}")
        return True


class CatastropheStops:
    """An observer of a run that keeps the stops of every armed account. Raises StoreError only."""

    def __init__(
        self,
        policies: PolicySet,
        accounts: Mapping[str, ArmedAccount],
        meters: Mapping[str, RequestMeter],
        store: Store,
        clock: Clock,
        closings: ClosingWorkers,
        dated: Callable[[str], float],
        wrote: Callable[[Entry], None],
    ) -> None:
        """`dated`: when an account's last snapshot was begun, in seconds of its clock. `wrote`: receives each entry."""
        self._rules = policies.stops
        self._store, self._clock, self._closings, self._dated, self._wrote = store, clock, closings, dated, wrote
        blob, epoch = store.live(LIVE_NAME), (store.live(EPOCH) or b"").decode("ascii", "replace")
        self._record = decoded(msgspec.json.Decoder(StopsRecord).decode, blob) or StopsRecord()
        self._names: dict[str, str] = {}
        self._saved = blob or msgspec.json.encode(StopsRecord())
        self._keepers = {
            name: _Keeper(StopOrders(self._context(name, account, meters[name]), self._of(name), self._save, epoch))
            for name, account in accounts.items()
            if account.armed
        }

    def _context(self, name: str, account: ArmedAccount, meter: RequestMeter) -> AccountContext:
        """A session on the account's limits, with a breaker of its own: no failure here holds a close back."""
        return AccountContext(name, account.adapter, self._clock, PACE, self._journal, meter.budget, Breaker())

    def _of(self, name: str) -> StopRecord:
        return self._record.accounts.setdefault(name, StopRecord())

    def reload(self, taken: TakenSet) -> None:
        """Keep the stops of another policy set from the next tick on."""
        self._rules = taken.loaded.policies.stops

    def polled(self, accounts: tuple[AccountSnapshot, ...]) -> None:
        """Command the close of the legs that a filled stop has left naked, for the tick that sees the fill."""
        for account in accounts:
            if account.account in self._keepers:
                self._close_other_legs(account)
        for name, keeper in self._keepers.items():
            filled = keeper.orders.record.filled
            for stop, symbol in filled.items():
                self._close_legs_of(name, symbol, stop)
            filled.clear()

    def ticked(self, report: EndedTick) -> None:
        """Decide every account's stops by the snapshot of the tick, and begin a pass where something is to be done."""
        accounts = {each.account: each for each in report.snapshot.accounts}
        self._note_rules(report.snapshot)
        self._note_names(report.snapshot)
        resting = {
            name: replace(account, orders=self._keepers[name].orders.resting(account.orders))
            for name, account in accounts.items()
            if name in self._keepers and account.orders is not None
        }
        seen = accounts | resting
        for name, keeper in self._keepers.items():
            if name not in accounts or not keeper.collect() or self._dated(name) <= keeper.orders.changed_at:
                continue
            keeper.stops = self._stops(name, seen)
            keeper.undeclared = self._undeclared(name, seen[name])
            self._keep_marks(name, keeper.stops, seen[name])
            self._exit(keeper.stops)
            planned = self._planned(name, keeper.stops)
            if not planned.is_empty or keeper.orders.has_unanswered:
                is_quiet = self._closings.closing(name) == frozenset()
                keeper.task = asyncio.create_task(keeper.orders.keep(self._planner(name, seen), is_quiet=is_quiet))
        self._record.views = tuple(self._views())
        self._save()

    def _planner(self, name: str, seen: Mapping[str, AccountSnapshot]) -> Callable[[tuple[Order, ...]], PlannedStops]:
        def plan(orders: tuple[Order, ...]) -> PlannedStops:
            return self._planned(name, self._stops(name, {**seen, name: replace(seen[name], orders=orders)}))

        return plan

    def _stops(self, name: str, accounts: Mapping[str, AccountSnapshot]) -> tuple[AccountStops, ...]:
        inputs = {each: self._inputs(each, accounts[each]) for each in self._keepers if each in accounts}
        return tuple(stops_of(rule, name, accounts, inputs) for rule in self._rules if name in rule.accounts)

    def _inputs(self, name: str, account: AccountSnapshot) -> StopInputs:
        closing = self._closings.closing(name)
        if closing is None:  # after a start, until the journal has shown what is being closed
            closing = frozenset(each.key for each in account.positions or ())
        return StopInputs(self._keepers[name].rules, first_marks(self._of(name)), closing)

    def _planned(self, name: str, found: Sequence[AccountStops]) -> PlannedStops:
        """What a pass does: leftovers once, and the lines without what the venue has refused a moment ago."""
        by_name = {rule.name: rule for rule in self._rules}
        record, now = self._of(name), self._clock.now()
        lines = tuple(
            (line if is_still_refused(line, record, now, AGAIN_AFTER) is None else without_places(line), rule.trigger)
            for each in found
            if (rule := by_name.get(each.rule)) is not None
            for line in each.lines
        )
        return PlannedStops(found[0].leftovers if found else (), lines)

    def _undeclared(self, name: str, account: AccountSnapshot) -> tuple[Order, ...]:
        """Stops of ours on positions that no document covers any more."""
        return tuple(
            order
            for order in account.orders or ()
            if is_catastrophe_stop(order.client_order_id)
            and not any(rule.covers(name, order.symbol) for rule in self._rules)
        )

    def _keep_marks(self, name: str, found: Sequence[AccountStops], account: AccountSnapshot) -> None:
        for each in found:
            if each.unknown is None:
                held = {position.key for position in account.positions or () if position.contracts > 0}
                keep_first_marks(self._of(name), each.first_marks, held)

    def _note_rules(self, snapshot: Snapshot) -> None:
        for account in snapshot.accounts:
            if account.account in self._keepers:
                rules = self._keepers[account.account].rules
                rules.update((each.symbol, each) for each in account.instruments or ())

    def _note_names(self, snapshot: Snapshot) -> None:
        """Remember the venue's ids of resting stops: some venues state no client order id of a fill."""
        orders = (order for account in snapshot.accounts for order in account.orders or ())
        found = {it.id: it.client_order_id or "" for it in orders if is_catastrophe_stop(it.client_order_id)}
        self._names = dict([*self._names.items(), *found.items()][-MOST_NAMES:]) if found else self._names

    # Problems

    def _problems(self) -> Iterator[tuple[AccountStops, StopLine, str, str]]:
        """Account, position, kind and text of everything for which a position has not the declared stop."""
        for name, keeper in self._keepers.items():
            for found in keeper.stops:
                for line in found.lines:
                    refused = is_still_refused(line, self._of(name), self._clock.now(), math.inf)
                    if line.problem is not None:
                        yield found, line, line.problem.kind, line.problem.why
                    elif refused is not None and line.naked > 0:
                        yield found, line, "refused", f"the venue refuses it: {refused.why}"

    def _exit(self, found: Sequence[AccountStops]) -> None:
        """Command the close of positions whose stop is refused, or is reached already, where that is declared."""
        exits = {rule.name for rule in self._rules if rule.if_refused == "exit"}
        current = {each.account for each in found}
        wanted = {
            f"{stops.account}/{key_text(line.key)}": (stops, line, why)
            for stops, line, kind, why in self._problems()
            if kind in EXITS and stops.rule in exits and stops.account in current
        }
        mine = {key for key in self._record.exits if key.partition("/")[0] in current}
        for key in mine - wanted.keys():
            del self._record.exits[key]
        for key in wanted.keys() - mine:
            stops, line, why = wanted[key]
            event = self._close(stops, line, why)
            self._record.exits[key] = event.id
            self._save()
            self._store.put_event(event)

    def _close(self, stops: AccountStops, line: StopLine, why: str) -> Event:
        now, (symbol, side) = self._clock.now(), line.key
        name = f"{stops.account}/{symbol}/{side}/{now}"
        why = f"no stop could be placed: {why}"
        return replace(closing_command(name, now, stops.account, symbol, stops.rule, why), side=side)

    def _close_other_legs(self, account: AccountSnapshot) -> None:
        """Command the close of the legs that a filled stop has left naked, once for each stop."""
        for fill in account.fills or ():
            name = fill.client_order_id or self._names.get(fill.order or "", "")
            if is_catastrophe_stop(name):
                self._close_legs_of(account.account, fill.symbol, name)

    def _close_legs_of(self, account: str, symbol: str, stop: str) -> None:
        if stop in self._record.left:
            return
        for event in closes_of_other_legs(self._rules, account, symbol, stop, self._clock.now()):
            self._store.put_event(event)
        self._record.left = [*self._record.left, stop][-KEPT:]
        self._save()

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(f"stops/{name}" for name in self._keepers)

    @property
    def alerts(self) -> Alerts:
        """A page for each position without its declared stop; dust is only information."""
        found = [
            Alert(
                f"stops/{stops.account}/{key_text(line.key)}/{kind}", SEVERITIES.get(kind, "page"),
                f"{line.key[1]} {line.key[0]} has no catastrophe stop for {line.naked:f} contracts: {why}",
                heading=f"catastrophe stops on account {stops.account}",
            )
            for stops, line, kind, why in self._problems()
        ]  # fmt: skip
        return together((Alerts(tuple(found)), *(self._of_account(*each) for each in self._keepers.items())))

    def _of_account(self, name: str, keeper: _Keeper) -> Alerts:
        heading = f"catastrophe stops on account {name}"
        found = [
            Alert(
                f"stops/{name}/{key_text(protected_by(order))}/undeclared", "page",
                f"a stop for {order.amount:f} {order.symbol} rests, and no CatastropheStop declares it: cancel it at "
                "the venue, or restore the document",
                heading=heading,
            )
            for order in keeper.undeclared
        ]  # fmt: skip
        if keeper.failure is not None:
            text = f"the last pass failed, and is repeated: {keeper.failure}"
            found.append(Alert(f"stops/{name}/failed", "page", text, heading=heading))
        is_unknown = not keeper.stops and any(name in rule.accounts for rule in self._rules)
        is_unknown |= any(each.unknown is not None for each in keeper.stops)
        unknown = Alerts(unknown=(f"stops/{name}",)) if is_unknown else NO_ALERTS
        return Alerts(tuple(found)) + unknown

    def _views(self) -> Iterator[StopView]:
        reasons = {(stops.account, line.key): why for stops, line, _, why in self._problems()}
        for name, keeper in self._keepers.items():
            for found in keeper.stops:
                if found.unknown is not None:
                    yield StopView(name, "", "", Decimal(0), Decimal(0), why=found.unknown, rule=found.rule)
                for line in found.lines:
                    symbol, side = line.key
                    why = reasons.get((name, line.key))
                    yield StopView(name, symbol, side, line.contracts, line.covered, line.trigger, why, found.rule)

    # Storing

    def _journal(self, entries: Sequence[Entry]) -> None:
        self._store.append_all([encode(entry) for entry in entries])
        for entry in entries:
            self._wrote(entry)

    def _save(self) -> None:
        blob = msgspec.json.encode(self._record)
        if blob != self._saved:
            self._store.put_live(LIVE_NAME, blob)
            self._saved = blob

    async def abandon(self) -> None:
        """Cancel the passes under way: the record has what they have sent."""
        tasks = [keeper.task for keeper in self._keepers.values() if keeper.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stop_views(blob: bytes | None) -> tuple[StopView, ...]:
    """The stops at the last tick, from the stored blob."""
    found = decoded(msgspec.json.Decoder(StopsRecord).decode, blob)
    return () if found is None else found.views
