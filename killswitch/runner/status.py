"""What `ksctl status` reads: one small blob in the store, replaced at every tick."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

from killswitch.engine.state import Waiting
from killswitch.graph.nodes import Graph, PolicySet
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import AccountSnapshot, Closing
from killswitch.planning.orphans import Orphan
from killswitch.planning.readings import MachineStatus, Reading
from killswitch.planning.watch import Suspected
from killswitch.runner.clock import ClockState
from killswitch.runner.deadman_memory import TimerView
from killswitch.runner.listening import StreamView
from killswitch.signals.catalogue import CATALOGUE

LIVE_NAME = "runner"

Span = tuple[float | None, float | None]
"""An interval; null is an unbounded end."""

_UNITS = {spec.name: spec.unit for spec in CATALOGUE}


class TriggerStatus(Struct, frozen=True):
    """One trigger: its interval, its threshold as written, and how far it is from being true."""

    name: str
    place: str
    signal: str | None
    window: int | None
    """Microseconds."""
    unit: str | None
    value: Span | None
    threshold: str | None
    headroom: Span | None
    truth: bool | None
    held: bool
    confirmed: bool
    true_since: datetime | None
    unknown_because: str | None


class WaitingView(Struct, frozen=True):
    """A stage that fired while accounts could not be read, and whose close waits for them.

    `until`: when that ends, unless its triggers hold again before.
    """

    stage: str
    accounts: tuple[str, ...]
    since: datetime
    until: datetime


class SuspectedView(Struct, frozen=True):
    """A lock that was written because the stage would fire if a fall of equity was a loss; nothing has fired."""

    stage: str
    mode: str
    until: datetime | None


class MachineView(Struct, frozen=True):
    """One policy on one scope."""

    policy: str
    scope: str
    mode: str
    level: int
    stage: str | None
    fired_at: datetime | None
    cooldown_until: datetime | None
    decision: str | None
    triggers: tuple[TriggerStatus, ...]
    waiting: WaitingView | None = None
    suspected: SuspectedView | None = None
    """The last lock on suspicion; over once `until` has passed."""


class AccountView(Struct, frozen=True):
    """One account as the last tick read it."""

    account: str
    venue: str
    market: str
    currency: str
    armed: bool
    quality: str
    reason: str | None
    observed_at: datetime | None
    equity: Decimal | None
    positions: int | None


class OrphanView(Struct, frozen=True):
    """A latched stage whose policy or account is gone from the files: it stands, and only a hand ends it."""

    policy: str
    scope: str
    level: int
    stage: str | None


class RunnerView(Struct, frozen=True):
    """The runner as of its last tick. Locks are not here: they are read from their files, as bots read them."""

    owner: str
    started_at: datetime
    as_of: datetime
    ticks: int
    duration_ms: float
    interval: float
    live: bool
    policies: tuple[str, ...]
    policy_set: str
    lock_folder: str | None
    union: str | None
    accounts: tuple[AccountView, ...]
    machines: tuple[MachineView, ...]
    closings: tuple[Closing, ...]
    problems: tuple[str, ...]
    orphans: tuple[OrphanView, ...] = ()
    streams: tuple[StreamView, ...] = ()
    timers: tuple[TimerView, ...] = ()
    suspended: tuple[str, ...] = ()
    """Accounts whose broker refuses every new order by our word."""
    apart: float | None = None
    """The most seconds between two of the last ten scheduled ticks; null after the first. More than `interval` where a
    tick waited for an account that did not answer."""
    clock: ClockState | None = None
    """Where the timeline of the ticks was when this was written."""


def last_clock_state(view: RunnerView | None) -> ClockState | None:
    """Where the timeline of a store was left; None where no tick is known."""
    return None if view is None else view.clock or ClockState(view.as_of)


_ENCODER = msgspec.json.Encoder(decimal_format="string")
_DECODER = msgspec.json.Decoder(RunnerView)

encode_view = _ENCODER.encode
decode_view = _DECODER.decode


def account_view(snapshot: AccountSnapshot, *, armed: bool) -> AccountView:
    """What status shows of one account."""
    return AccountView(
        snapshot.account, snapshot.venue, snapshot.market, snapshot.currency, armed,
        snapshot.quality, snapshot.reason, snapshot.observed_at, snapshot.equity,
        None if snapshot.positions is None else len(snapshot.positions),
    )  # fmt: skip


def orphan_views(orphans: tuple[Orphan, ...]) -> tuple[OrphanView, ...]:
    """What status shows of latches that no machine answers for."""
    return tuple(OrphanView(each.policy, each.scope, each.level, each.stage) for each in orphans)


def machine_views(machines: tuple[MachineStatus, ...], policies: PolicySet) -> tuple[MachineView, ...]:
    """What status shows of the interpreter's machines."""
    graphs = {graph.policy: graph for graph in policies.graphs}
    return tuple(_machine_view(machine, graphs[machine.policy]) for machine in machines)


def _machine_view(machine: MachineStatus, graph: Graph) -> MachineView:
    return MachineView(
        machine.policy, machine.scope, machine.mode, machine.level, machine.stage, machine.fired_at,
        machine.cooldown_until, machine.decision,
        tuple(_trigger_status(reading, graph) for reading in machine.readings),
        _waiting(machine.waiting), _suspected(machine.suspected),
    )  # fmt: skip


def _waiting(waiting: Waiting | None) -> WaitingView | None:
    if waiting is None:
        return None
    since, until = from_micros(waiting.since), from_micros(waiting.until)
    return WaitingView(waiting.stage, waiting.accounts, since, until)


def _suspected(suspected: Suspected | None) -> SuspectedView | None:
    return None if suspected is None else SuspectedView(suspected.stage, suspected.lock.mode, suspected.lock.until)


def _trigger_status(reading: Reading, graph: Graph) -> TriggerStatus:
    trigger = reading.trigger
    signal = None if trigger.threshold is None else graph.signals[trigger.threshold.index]
    return TriggerStatus(
        name=trigger.name,
        place=f"{trigger.place.file}:{trigger.place.line}",
        signal=None if signal is None else signal.name,
        window=None if signal is None else signal.window,
        unit=None if signal is None else _UNITS.get(signal.name),
        value=_span(reading.value),
        threshold=None if trigger.threshold is None else f"{trigger.threshold.op} {trigger.threshold.written}",
        headroom=_span(reading.headroom),
        truth=reading.truth,
        held=reading.held,
        confirmed=reading.confirmed,
        true_since=reading.true_since,
        unknown_because=reading.unknown_because,
    )


def _span(interval: tuple[float, float] | None) -> Span | None:
    if interval is None:
        return None
    low, high = interval
    return (low if math.isfinite(low) else None, high if math.isfinite(high) else None)
