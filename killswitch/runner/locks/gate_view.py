"""Writes the gate's view after each tick: one file next to the store, for the gate and the server.

The tick only puts together what it has; a worker encodes and writes it, synced and renamed into place, so that a slow
disk delays no tick. A view that is not written any more grows old, and a gate proves nothing by an old view.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import MsgspecError
from msgspec.structs import replace

from killswitch.gate.files import replace_file
from killswitch.graph.limits import LimitsRule
from killswitch.graph.nodes import PolicySet
from killswitch.limits.day import next_day
from killswitch.limits.recovery import pause_of, reduced_limits
from killswitch.limits.view import (
    DayState,
    GateAccount,
    GateView,
    InFlight,
    Pause,
    ReadTimes,
    SeenFill,
    decode_gate_view,
    encode_gate_view,
)
from killswitch.model.alert import Alerts, alert_if
from killswitch.model.snapshot import AccountSnapshot, Instrument, LockPart, Snapshot, WrittenLock
from killswitch.planning.recovery.way_back import RecoveryCap
from killswitch.planning.reducing import OrderKind
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.observers import TickReport
from killswitch.worker import Worker

ENFORCED: Final[tuple[OrderKind, ...]] = ("market", "limit", "stop", "take_profit")
"""What a venue bounds that enforces the reduce-only flag of market and limit orders: a stop or a take-profit becomes
one of them with its flag. A trailing stop is none, because no adapter sends one."""
SEEN_KEPT: Final = 500
"""Client order ids, and orders with fills, that are remembered for each account."""
AGREED_FOR: Final = timedelta(seconds=60)
"""How long the clocks must have agreed after the wall clock went back, before entries pass."""
WENT_BACK: Final = timedelta(seconds=5)
HANGS_AFTER: Final = 10.0


def gate_view_file(store_at: str) -> Path:
    """The file next to the store at this path or `sqlite:///` URL."""
    return Path(store_at.removeprefix("sqlite:///") + ".gate.json")


class GateSources:
    """What a run knows besides its snapshots: when polls were requested, our orders under way, the run's clock."""

    def __init__(
        self,
        dated: Callable[[str], float],
        in_flight: Callable[[str], tuple[InFlight, ...]],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        off: Callable[[], timedelta],
        enforces: Mapping[str, bool | None],
        caps: Callable[[Iterable[AccountSnapshot]], Mapping[str, RecoveryCap]] = lambda _: {},
        unrecorded: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`off`: by how much the clock of the run is ahead of the wall clock. `enforces`: by account.

        `caps`: what the ways back after resets allow the accounts of a snapshot. `unrecorded`: why the record cannot be
        written; None while it is.
        """
        self.dated = dated
        self.in_flight = in_flight
        self.now = now
        self.monotonic = monotonic
        self.off = off
        self.enforces = enforces
        self.caps = caps
        self.unrecorded = unrecorded


class _AccountMemory:
    """What the view needs of earlier snapshots of one account."""

    def __init__(self, day: DayState | None, counted_until: datetime | None) -> None:
        self.rules: dict[str, Instrument] = {}
        self.filled: OrderedDict[str, SeenFill] = OrderedDict()
        self.ids: OrderedDict[str, None] = OrderedDict()
        self.day = day
        self.counted_until = counted_until
        """Rows up to here are in `day` already: an earlier run has counted them."""

    def observe(self, account: AccountSnapshot, as_of: datetime) -> None:
        """Remember rules, fills and client order ids."""
        self.rules.update((each.symbol, each) for each in account.instruments or ())
        for order in account.orders or ():
            self._note_id(order.client_order_id)
        for fill in account.fills or ():
            name = fill.client_order_id
            self._note_id(name)
            if name is not None:
                before = self.filled.pop(name, None)
                total = fill.amount if before is None else before.contracts + fill.amount
                self.filled[name] = SeenFill(name, total, as_of)
        _trim(self.filled)

    def count(self, account: AccountSnapshot, limits: LimitsRule, as_of: datetime) -> None:
        """Count the account's day."""
        until = self.counted_until
        if until is not None:
            fills = account.fills and tuple(each for each in account.fills if each.at > until)
            flows = account.flows and tuple(each for each in account.flows if each.at > until)
            account = replace(account, fills=fills, flows=flows)
        rules = {(account.account, symbol): rule for symbol, rule in self.rules.items()}
        self.day = next_day(self.day, account, rules, limits, as_of)

    def _note_id(self, name: str | None) -> None:
        if name is not None:
            self.ids.pop(name, None)
            self.ids[name] = None
            _trim(self.ids)


def _trim(kept: OrderedDict[str, SeenFill] | OrderedDict[str, None]) -> None:
    while len(kept) > SEEN_KEPT:
        kept.popitem(last=False)


class GateViewWriter:
    """An observer that writes the view. `connect` it to the run before the first tick."""

    def __init__(self, path: Path, policies: PolicySet, lock_folder: Path | None) -> None:
        self.path = path
        self._lock_folder = None if lock_folder is None else str(lock_folder)
        self._take(policies)
        self._memory: dict[str, _AccountMemory] = {}
        self._earlier = _earlier_days(path)
        self._sources: GateSources | None = None
        self._started_at: datetime | None = None
        self._back_until: datetime | None = None
        self._view: GateView | None = None
        self._caps: Mapping[str, RecoveryCap] = {}
        self._worker = Worker("gate-view", self._write)

    def connect(self, sources: GateSources) -> None:
        """Connect the writer to its run."""
        self._sources = sources
        self._started_at = sources.now()

    def reload(self, taken: TakenSet) -> None:
        """Judge by the limits of the next set from the next tick on."""
        self._take(taken.loaded.policies)

    def ticked(self, report: TickReport) -> None:
        """Put the view together, and wake the worker."""
        sources = self._sources
        if sources is None or self._started_at is None:
            return
        snapshot = report.snapshot
        if sources.off() > WENT_BACK:
            self._back_until = snapshot.as_of + AGREED_FOR
        now, counted = sources.now(), sources.monotonic()
        self._caps = sources.caps(snapshot.accounts)
        self._view = GateView(
            as_of=snapshot.as_of,
            run_started_at=self._started_at,
            policy_set=self._digest,
            accounts=tuple(
                self._account(account, now - timedelta(seconds=counted - sources.dated(account.account)), snapshot)
                for account in snapshot.accounts
            ),
            lock_folder=self._lock_folder,
            locks=snapshot.locks,
            clock_back_until=self._back_until,
            unrecorded=sources.unrecorded(),
        )
        self._worker.wake()

    @property
    def judges(self) -> tuple[str, ...]:
        return ("gate-view",)

    @property
    def alerts(self) -> Alerts:
        """A page while the view cannot be written: a gate that reads it denies entries."""
        problem = self._worker.problem
        if self._worker.hangs_for(HANGS_AFTER):
            problem = "the disk does not answer"
        text = None if problem is None else f"the gate's view {self.path} is not written, so that entries are denied"
        return alert_if("gate-view", None if text is None else f"{text}: {problem}")

    def close(self, timeout: float) -> bool:
        """Write the last view, for at most `timeout` seconds; whether it is written."""
        return self._worker.stop(timeout)

    def _take(self, policies: PolicySet) -> None:
        self._digest = policies.digest
        self._limits = {name: rule for rule in policies.limits for name in rule.accounts}

    def _write(self) -> None:
        view = self._view
        if view is not None:
            replace_file(self.path, encode_gate_view(view), is_private=True)

    def _account(self, account: AccountSnapshot, requested: datetime, snapshot: Snapshot) -> GateAccount:
        name, limits = account.account, self._limits.get(account.account)
        sources = self._sources
        assert sources is not None
        memory = self._memory.get(name)
        if memory is None:
            day, until = self._earlier.get(name, (None, None))
            memory = self._memory[name] = _AccountMemory(day, until)
        memory.observe(account, snapshot.as_of)
        if limits is not None:
            memory.count(account, limits, snapshot.as_of)
        enforces = sources.enforces.get(name)
        cap = self._caps.get(name)
        is_flagged = account.market in ("swap", "future")
        return GateAccount(
            state=replace(account, fills=None, flows=None, instruments=_rules_of(account, memory.rules)),
            reads=_read_times(account, requested),
            limits=None if limits is None else reduced_limits(limits, cap),
            enforced=None if enforces is None else ENFORCED if enforces and is_flagged else (),
            own=sources.in_flight(name),
            filled=tuple(memory.filled.values()),
            seen_ids=tuple(memory.ids),
            day=memory.day,
            pauses=(
                *_pauses_of(name, snapshot.locks),
                *(() if (pause := pause_of(cap)) is None else (pause,)),
            ),
            recovery=cap,
        )


def _pauses_of(account: str, locks: Iterable[WrittenLock]) -> Iterator[Pause]:
    """The pauses by hand that reach the account; that of a strategy is in the strategy's own lock file."""
    for lock in locks:
        if lock.command != "pause" or account not in lock.accounts or lock.scope.startswith("strategy/"):
            continue
        reason = f"{lock.reason or 'no reason given'}, by {lock.author or 'unknown'}"
        for part in lock.only or (LockPart("reduce_only", None),):
            yield Pause(lock.scope, reason, lock.since, part.side, part.symbols)


def _read_times(account: AccountSnapshot, requested: datetime) -> ReadTimes:
    """When the reads of an account began by the clock of the run. `requested`: when its poll was.

    Positions are read with every poll, after it was requested. The other reads are dated by the venue's clock, as far
    from that of the positions as they were apart.
    """
    positions = account.positions_as_of
    if account.quality != "ok" or account.positions is None or positions is None:
        return ReadTimes()
    orders = None if account.orders_as_of is None else requested + (account.orders_as_of - positions)
    fills = None if account.fills_as_of is None else requested + (account.fills_as_of - positions)
    return ReadTimes(requested, orders, fills)


def _rules_of(account: AccountSnapshot, rules: Mapping[str, Instrument]) -> tuple[Instrument, ...]:
    """The rules of every symbol that is held, ordered or watched: others have no mark to be judged by."""
    symbols: dict[str, None] = {}
    for each in account.positions or ():
        symbols[each.symbol] = None
    for order in account.orders or ():
        symbols[order.symbol] = None
    for price in account.watched or ():
        symbols[price.symbol] = None
    return tuple(rules[symbol] for symbol in symbols if symbol in rules)


def _earlier_days(path: Path) -> dict[str, tuple[DayState | None, datetime | None]]:
    """The days that an earlier run has counted, and until when; none where its file cannot be read."""
    try:
        view = decode_gate_view(path.read_bytes())
    except (OSError, MsgspecError, ValueError):
        return {}
    return {each.state.account: (each.day, view.as_of) for each in _counted(view.accounts)}


def _counted(accounts: Iterable[GateAccount]) -> Iterable[GateAccount]:
    return (each for each in accounts if each.day is not None)
