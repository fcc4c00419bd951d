"""The blob that `ksctl status` reads, and how the last run on a store was started."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict, replace

from killswitch.graph.limits import LimitsRule
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import Runbooks, keep_runbooks
from killswitch.model.clock import Clock
from killswitch.model.instant import from_micros
from killswitch.model.snapshot import AccountSnapshot, Closing, WrittenLock
from killswitch.model.store import RUNNER_VIEW, Store, decoded
from killswitch.planning.exposures import Exposures
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.operator.closes import OPERATOR, Orphan
from killswitch.planning.operator.restatement import KeptChange
from killswitch.planning.operator.unfinished_closes import UnfinishedClose
from killswitch.planning.recovery.recoveries import RecoveryView
from killswitch.planning.scopes.trigger_status import MachineStatus
from killswitch.runner.clock import ClockState, Timeline, now_after
from killswitch.runner.dead_man.timer_record import TimerView
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.observers import RunnerFacts, TickReport

LIVE_NAME = RUNNER_VIEW


class UnfinishedCloseView(Struct, frozen=True):
    """An operator's close that is not complete, by the id of its event.

    `accounts` cannot be polled; `unseen` are not seen closed yet, absent without one. After `until` nothing is
    ordered for it.
    """

    event: str
    accounts: tuple[str, ...]
    since: datetime
    until: datetime
    unseen: tuple[str, ...] | UnsetType = UNSET


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


class _RunView(RunnerFacts, frozen=True):
    """The fields of a `RunnerView` that come before the facts of the runner in JSON."""

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
    machines: tuple[MachineStatus, ...]
    closings: tuple[Closing, ...]
    problems: tuple[str, ...]
    orphans: tuple[Orphan, ...] = ()


class RunnerView(_RunView, frozen=True, kw_only=True):
    """The runner as of its last tick. Locks are not here: they are read from their files, as bots read them."""

    apart: float | None = None
    """The most seconds between two of the last ten scheduled ticks; null after the first. More than `interval` where a
    tick waited for an account that did not answer."""
    clock: ClockState | None = None
    """The timeline of the ticks when this was written."""
    unfinished_closes: tuple[UnfinishedCloseView, ...] = ()
    """Operator closes that are not complete; their commands are still pending."""
    strategies: tuple[str, ...] | UnsetType = UNSET
    """The scopes of the strategies whose lock files this run writes; absent without one."""
    changes: tuple[KeptChange, ...] | UnsetType = UNSET
    """Unexplained changes of equity that `ksctl restate` can settle, of every policy on every scope; absent without
    one."""
    needs_start: tuple[str, ...] | UnsetType = UNSET
    """What of the policy files waits for a start: accounts and dead-man switches; absent if nothing does."""
    exposures: Exposures | UnsetType = UNSET
    """Exposure and P&L by account, strategy and asset; absent in the view of a version without it."""
    recoveries: tuple[RecoveryView, ...] | UnsetType = UNSET
    """The ways back after resets that have begun; absent without one."""
    held: tuple[WrittenLock, ...] | UnsetType = UNSET
    """The locks by hand that are in their files: of locks, halts, pauses and closes; absent without one."""
    limits: tuple[LimitsRule, ...] | UnsetType = UNSET
    """The `Limits` documents in force, as written: a way back after a reset reduces them; absent without one."""


class LastTick(Struct, frozen=True):
    """The last tick as far as probes need it: fields of a `RunnerView`, perhaps one of another version."""

    owner: str
    as_of: datetime
    ticks: int
    interval: float
    clock: ClockState | None = None


def last_clock_state(view: RunnerView | None) -> ClockState | None:
    """The last state of a store's timeline; None if no tick is known."""
    return None if view is None else view.clock or ClockState(view.as_of)


_ENCODER = msgspec.json.Encoder(decimal_format="string")
_DECODER = msgspec.json.Decoder(RunnerView)

encode_view = _ENCODER.encode
decode_view = _DECODER.decode
decode_last_tick = msgspec.json.Decoder(LastTick).decode


def last_view(store: Store) -> RunnerView | None:
    """The view of the last tick on this store; None if there was none, or another version wrote it."""
    return decoded(decode_view, store.live(LIVE_NAME))


def account_view(snapshot: AccountSnapshot, *, armed: bool) -> AccountView:
    """The view of one account."""
    return AccountView(
        snapshot.account, snapshot.venue, snapshot.market, snapshot.currency, armed,
        snapshot.quality, snapshot.reason, snapshot.observed_at, snapshot.equity,
        None if snapshot.positions is None else len(snapshot.positions),
    )  # fmt: skip


def unfinished_close_views(unfinished: Mapping[str, UnfinishedClose]) -> tuple[UnfinishedCloseView, ...]:
    """The views of operator closes that are not complete."""
    return tuple(
        UnfinishedCloseView(
            id_, tuple(sorted(each.accounts)), from_micros(each.since), from_micros(each.until),
            tuple(sorted(each.unseen)) or UNSET,
        )
        for id_, each in unfinished.items()
    )  # fmt: skip


_RECORDING = "recording"


_DRILL: Final = "drill"
"""The live blob of a store on which a drill ran: nothing of it is real."""


def keep_start(
    store: Store, digest: str, runbooks: Runbooks, recording: Path | None, *, is_drill: bool = False
) -> None:
    """Store at the start of a run what reports need: the runbooks, the recording, and whether it is a drill."""
    keep_runbooks(store, digest, runbooks)
    # Not resolved: that would access a disk that may hang.
    store.put_live(_RECORDING, b"" if recording is None else str(recording.absolute()).encode())
    if is_drill:
        store.put_live(_DRILL, b"drill")


def is_of_drill(store: Store) -> bool:
    """Whether a drill ran on this store. StoreError if it cannot be read."""
    return store.live(_DRILL) is not None


def started_as(store: Store, store_at: str) -> StartedAs:
    """The store, policies and recording for the commands in a report. `store_at`: the store as named."""
    view, path, recording = last_view(store), full_path(store_at), recording_of(store)
    # A packed recording cannot be read while it is written, so it is not offered.
    replayed = str(recording) if recording is not None and recording.suffix == ".jsonl" else None
    if view is None:
        return StartedAs(path, is_drill=is_of_drill(store))
    return StartedAs(path, view.policies, view.live, replayed, is_of_drill(store))


def recording_of(store: Store) -> Path | None:
    """The recording of the last run on this store; None if it wrote none."""
    recording = (store.live(_RECORDING) or b"").decode()
    return Path(recording) if recording else None


def full_path(store_at: str) -> str:
    """The store as it can be named from every folder; empty for none."""
    return store_at if "://" in store_at or not store_at else str(Path(store_at).resolve())


def last_tick(store: Store) -> datetime | None:
    """The `as_of` of the last tick on this store; None if there is none that this version can read."""
    view = last_view(store)
    return None if view is None else view.as_of


def machines_now(store: Store) -> tuple[MachineStatus, ...]:
    """Every policy on every scope after the last tick on this store; none where it is not known."""
    view = last_view(store)
    return () if view is None else view.machines


def tick_time(store: Store | None, clock: Clock) -> datetime:
    """Now, as the next tick on the store would be dated; for commands and for ages."""
    return now_after(None if store is None else last_clock_state(last_view(store)), clock)


SPACING_TICKS = 10
"""Number of scheduled ticks whose longest spacing is shown."""


class StatusPublisher:
    """An observer that stores what `ksctl status` shows."""

    def __init__(
        self,
        store: Store,
        interpreter: Interpreter,
        armed: frozenset[str],
        timeline: Timeline,
        view: RunnerView,
    ) -> None:
        self.store = store
        self.interpreter = interpreter
        self.armed = armed
        self.timeline = timeline
        self.view = view
        """The run itself as `status` shows it; each tick completes it."""
        self._ticked_at: deque[datetime] = deque(maxlen=SPACING_TICKS)

    def reload(self, taken: TakenSet) -> None:
        """Show the next set from the next tick on."""
        needs_start = taken.proposed.needs_start or UNSET
        limits = taken.loaded.policies.limits or UNSET
        self.view = replace(self.view, policy_set=taken.in_force.digest, needs_start=needs_start, limits=limits)

    def show_strategies(self, scopes: Iterable[str]) -> None:
        """Show these as the scopes of strategies whose lock files the run writes."""
        self.view = replace(self.view, strategies=tuple(sorted(scopes)) or UNSET)

    def ticked(self, report: TickReport) -> None:
        snapshot = report.snapshot
        if snapshot.scheduled:
            self._ticked_at.append(snapshot.as_of)
        self._put(
            replace(
                self.view,
                as_of=snapshot.as_of,
                ticks=self.view.ticks + snapshot.scheduled,  # a pass woken by a push is not counted as a tick
                duration_ms=round(report.seconds * 1000, 3),
                accounts=tuple(account_view(each, armed=each.account in self.armed) for each in snapshot.accounts),
                machines=self.interpreter.status(),
                closings=snapshot.closings,
                problems=report.problems,
                orphans=self.interpreter.orphans(),
                apart=max((round((b - a).total_seconds(), 3) for a, b in pairwise(self._ticked_at)), default=None),
                clock=self.timeline.state(),
                unfinished_closes=unfinished_close_views(self.interpreter.unfinished_closes()),
                changes=self.interpreter.kept_changes() or UNSET,
                exposures=report.exposures() or UNSET,
                recoveries=self.interpreter.recoveries.views() or UNSET,
                held=tuple(each for each in snapshot.locks if each.policy == OPERATOR) or UNSET,
                **asdict(report.runner),
            )
        )

    def last_seen(self, accounts: tuple[AccountSnapshot, ...], closings: tuple[Closing, ...]) -> None:
        """Show what closes after the last tick have left, at a clean stop."""
        if self.view.clock is None:
            return
        newest = {each.account: account_view(each, armed=each.account in self.armed) for each in accounts}
        shown = tuple(
            newest[each.account] if each.account in newest and _is_newer(newest[each.account], each) else each
            for each in self.view.accounts
        )
        if shown != self.view.accounts or closings != self.view.closings:
            self._put(replace(self.view, accounts=shown, closings=closings))

    def stopped(self, timers: tuple[TimerView, ...], problems: tuple[str, ...]) -> None:
        """Update timers and problems at a clean stop."""
        if self.view.clock is not None:
            self._put(replace(self.view, timers=timers, problems=problems))

    def _put(self, view: RunnerView) -> None:
        self.view = view
        self.store.put_live(LIVE_NAME, encode_view(view))
        tick = LastTick(view.owner, view.as_of, view.ticks, view.interval, view.clock)
        self.store.leave_sign_of_life(_ENCODER.encode(tick))


def _is_newer(one: AccountView, other: AccountView) -> bool:
    """Whether the view `one`, which was applied later, is good and not known to be older than the other."""
    if one.quality != "ok":
        return False
    return one.observed_at is None or other.observed_at is None or one.observed_at >= other.observed_at
