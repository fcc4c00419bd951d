"""The status of a store: its runner, the last tick, the locks as bots read them, pending commands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from killswitch.accounts.arming import open_closes
from killswitch.deadline import DeadlineError, call_within
from killswitch.engine.alerts import read_state
from killswitch.gate.lock_merge import UNION_SCOPE, is_on_suspicion, scope_of
from killswitch.gate.lock_reader import read_file, read_lock
from killswitch.incident.record.results import Result, read_result
from killswitch.model.decision import Cause, Decision, Notice
from killswitch.model.flags import NO_FLAGS, Flag, Flags
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.legible import legible, one_line
from killswitch.model.snapshot import IN_PROGRESS, Event, LockPart, Residual
from killswitch.model.store import ALERTS, FLAGS, ROUTING, Lease, RouteCount, Store, decoded
from killswitch.model.words import Severity
from killswitch.operations.liveness_probe import ProbeResult, live_by_sign
from killswitch.operations.notifying import HeldMessage, SilenceView, held_messages, silence_views
from killswitch.operations.policy_sources import SourceStatus, source_status
from killswitch.planning.routing.state import read_routing
from killswitch.runner.dead_man.catastrophe_stops import LIVE_NAME as STOPS
from killswitch.runner.dead_man.catastrophe_stops import StopView, stop_views
from killswitch.runner.give_up_commands import unreadable_message
from killswitch.runner.lease import is_dead, is_misdated, is_running, pid_of
from killswitch.runner.shadow.record import ShadowRecord, shadow_records
from killswitch.runner.status_blob import LIVE_NAME, RunnerView, decode_last_tick, decode_view, is_of_drill
from killswitch.runner.tick_inputs import dated_heartbeats, last_heartbeats
from killswitch.store.errors import StoreError
from killswitch.watcher.watch import SwitchView, switch_views

STATUS_FORMAT = "killswitch.status/v1"

AN_HOUR = timedelta(hours=1)
MAX_SUSPICIONS = 5
SUSPICION_LOOK_BACK = 100
"""Number of the newest decisions that are searched for suspicions."""
A_DAY = timedelta(days=1)
MAX_MANUAL_CLOSES = 5
MANUAL_CLOSE_LOOK_BACK = 100
"""Number of the newest decisions that are searched for manual closes."""

LOCK_FOLDER_TIMEOUT = 2.0
"""Seconds to wait for the file system of the lock folder."""
MAX_LOCK_FILES = 5_000
"""Maximum lock files that are shown: a folder may be full of other files."""

Liveness = Literal["alive", "unrecorded", "silent", "gone"]
"""`alive`: it holds the lease. `unrecorded`: its lease expired, because the store takes no writes, and its process
answers that it ticks. `silent`: its lease expired, or its process is dead. `gone`: there is no lease."""


class RunnerState(Struct, frozen=True):
    """The runner of the store, as far as its lease shows."""

    liveness: Liveness
    owner: str | None
    pid: int | None
    generation: int | None
    lease_until: datetime | None
    why: str
    is_process_running: bool = False
    """Whether its process is seen to run on this machine; it may hang."""

    @property
    def is_alive(self) -> bool:
        """Whether it ticks, recorded or not."""
        return self.liveness in ("alive", "unrecorded")


class LockView(Struct, frozen=True):
    """A lock file as a bot reads it now. `until` is null for a lock without end."""

    file: str
    scope: str | None
    locked: bool
    mode: str | None
    reason: str
    stage: str | None
    until: datetime | None
    alive_until: datetime | None
    ordered: bool
    """Whether a lock was ordered, or the file is unreadable; else only staleness locks."""
    stale: bool
    """No runner keeps the file alive: that alone locks, whatever else the file says."""
    on_suspicion: bool = False
    """It is not known whether a fall was a loss, and no stage has fired."""
    wider: tuple[str, ...] = ()
    """The wider scopes whose locks this file contains."""
    has_own: bool = True
    """For an ordered lock: whether the scope itself is locked, and not only a wider one."""
    only: tuple[LockPart, ...] | UnsetType = UNSET
    """The parts of the scope that are locked; absent where all of it is."""


class OpenClosing(Struct, frozen=True):
    """A close that is planned and not finished on one account."""

    decision: str
    scope: str
    account: str
    result: Result
    left: tuple[Residual, ...] | None = None
    """Remaining positions as of the last tick; null if that tick could not read the account."""


class OperatorCloseResult(Struct, frozen=True):
    """A manual close and its result."""

    at: datetime
    decision: str
    scope: str
    author: str | None
    cause: Cause | None
    reason: str | None
    result: Result


class ActiveAlert(Struct, frozen=True):
    """What is wrong now, or was as of the last tick; `since` is when it began."""

    key: str
    severity: Severity
    since: datetime
    text: str
    scope: str
    """The scope that it is of; `runner` for what is wrong with the program itself."""


class HeartbeatView(Struct, frozen=True):
    """The last heartbeat of a bot. Its age counts from `counts_from`, the last one with new progress."""

    name: str
    at: datetime
    counts_from: datetime
    progress: int | None


class StoreStatus(Struct, frozen=True):
    """Everything that `ksctl status` shows. `view` is null if no runner has ticked on this store."""

    now: datetime
    runner: RunnerState
    view: RunnerView | None
    view_problem: str | None
    locks: tuple[LockView, ...]
    closings: tuple[OpenClosing, ...]
    pending: tuple[Event, ...]
    notices: tuple[Notice, ...]
    notifications: tuple[RouteCount, ...] = ()
    """Pending, delivered and given-up messages of each route to each target."""
    by_hand: tuple[OperatorCloseResult, ...] = ()
    """The newest manual closes of the last day, newest first; if there is none and no runner is alive, the last one."""
    problems: tuple[str, ...] = ()
    """Problems that no tick could report: closes without a runner, and a lock folder that does not answer."""
    suspicions: tuple[Decision, ...] = ()
    """The newest locks on suspicion of the last hour, newest first."""
    active_alerts: tuple[ActiveAlert, ...] = ()
    """What is wrong and was notified, the oldest first."""
    policy_files: Literal["as loaded", "changed", "broken"] | None = None
    """Whether the policy files are those of the last run: `changed` ones compile. Null where no runner has ticked."""
    flags: tuple[Flag, ...] = ()
    """The flags of operators that are in force."""
    pauses: tuple[Flag, ...] = ()
    """The pauses of policies that are in force; `scope` is policy/NAME."""
    shadows: tuple[ShadowRecord, ...] = ()
    """The policy sets that are in shadow."""
    heartbeats: tuple[HeartbeatView, ...] = ()
    """The last heartbeat of each name that was ever sent."""
    switches: tuple[SwitchView, ...] = ()
    """The dead man's switches of a watcher's store."""
    stops: tuple[StopView, ...] = ()
    """The catastrophe stop of each position, as of the last tick of a run that keeps them."""
    source: SourceStatus | None = None
    """The source of the policies; null where no runner has followed one."""
    silences: tuple[SilenceView, ...] = ()
    """The silences of messages that have not ended, by documents and by commands."""
    held: tuple[HeldMessage, ...] = ()
    """The messages that a silence, a mute time or another alert holds."""
    is_drill: bool = False
    """Whether the store is that of a drill: nothing in it is real."""
    format: str = STATUS_FORMAT


_DECODE_FLAGS = msgspec.json.Decoder(Flags).decode
encode_status = msgspec.json.Encoder(decimal_format="string").encode


def store_status(
    store: Store, now: datetime, notices: int, tick_now: datetime | None = None, sign: bytes | None = None
) -> StoreStatus:
    """Read everything once. StoreError if the store cannot be read; nothing else raises.

    `now` is the wall clock, which the lease and the locks go by. `tick_now`: the present time as ticks are
    dated, for the ages of decisions; None: `now`. `sign`: what the process that ticks on the store answers.
    """
    view, problem = _view(store)
    lease = store.lease()
    runner = _if_recorded(runner_state(lease, now, sign), view, live_by_sign(sign, lease, now), sign)
    open_work = open_closes(store)
    alerts = read_state(store.live(ALERTS)).active
    locks = () if view is None else locks_at(_as_path(view.lock_folder), _as_path(view.union), now)
    commands, flags = store.commands(), _flags(store, tick_now or now)
    routing = read_routing(store.live(ROUTING))
    unattended = () if runner.is_alive else tuple(_no_runner_problem(*each) for each in open_work)
    return StoreStatus(
        now=tick_now or now,
        runner=runner,
        view=view,
        view_problem=problem,
        locks=locks,
        closings=tuple(
            OpenClosing(each.id, each.scope, account, read_result(store, each), _remaining(view, each.id, account))
            for account, each in open_work
        ),
        pending=commands.events,
        notices=tuple(store.notices(notices)),
        notifications=tuple(store.outbox()),
        suspicions=_suspicions(store, tick_now or now),
        active_alerts=tuple(
            ActiveAlert(
                each.alert.key, each.severity, from_micros(each.since), each.alert.full_text, each.alert.group.scope
            )
            for each in alerts
        ),
        policy_files=None if view is None else _policy_files({each.alert.key for each in alerts}),
        flags=flags.read,
        pauses=tuple(flags.pauses.values()),
        source=source_status(store, tick_now or now),
        silences=silence_views(routing, tick_now or now),
        held=held_messages(routing),
        is_drill=is_of_drill(store),
        shadows=tuple(each for each in shadow_records(store) if each.is_active),
        heartbeats=_heartbeats(store, tick_now or now),
        switches=switch_views(store),
        stops=stop_views(store.live(STOPS)),
        by_hand=tuple(_operator_closes(store, tick_now or now, without_runner=not runner.is_alive)),
        problems=(
            *_not_recorded(runner),
            *_of_record(store),
            *unattended,
            *(unreadable_message(each) for each in commands.unreadable),
            *(lock.reason for lock in locks if lock.scope is None),
        ),
    )


def _of_record(store: Store) -> Iterator[str]:
    """That the end of the record was changed; one that cannot be read now is no sign of that."""
    with suppress(StoreError):
        if (why := store.record_trouble()) is not None:
            yield why


def _flags(store: Store, now: datetime) -> Flags:
    found = decoded(_DECODE_FLAGS, store.live(FLAGS))
    return NO_FLAGS if found is None else found.without_expired(now)[0]


def _heartbeats(store: Store, now: datetime) -> tuple[HeartbeatView, ...]:
    dates = dated_heartbeats(store, now)
    found = last_heartbeats(store).items()
    return tuple(HeartbeatView(name, each.at, dates[name], each.progress) for name, each in found)


def _remaining(view: RunnerView | None, decision: str, account: str) -> tuple[Residual, ...] | None:
    is_readable = view is not None and any(each.account == account and each.quality == "ok" for each in view.accounts)
    shown = () if view is None or not is_readable else view.closings
    in_progress = [each for each in shown if each.decision == decision and each.status in IN_PROGRESS]
    return tuple(it for each in in_progress for it in each.residual if it.account == account) if in_progress else None


def _no_runner_problem(account: str, decision: Decision) -> str:
    return (
        f"no runner works on the closing of decision {decision.id} on account {account}, because none is running: "
        "`ksctl run --live` continues with what is left, `ksctl status --watch` shows its progress"
    )


def _policy_files(alerts: Collection[str]) -> Literal["as loaded", "changed", "broken"]:
    """By the keys of the active alerts."""
    is_broken = any(key.startswith("policies/broken") for key in alerts)
    return "broken" if is_broken else "changed" if "policies/changed" in alerts else "as loaded"


def _not_recorded(runner: RunnerState) -> Iterator[str]:
    if runner.liveness == "unrecorded":
        yield (
            f"the runner (pid {runner.pid}) is alive, and its store takes no writes: its records since then are in its "
            "memory only, and are lost if it ends. Let it run, and free the disk of the store; what is shown here is "
            "as of the last write"
        )


def _suspicions(store: Store, now: datetime) -> tuple[Decision, ...]:
    newest = (stored.decision for stored in store.decisions(SUSPICION_LOOK_BACK))
    recent = (each for each in newest if each.is_suspicion and now - each.as_of <= AN_HOUR)
    return tuple(islice(recent, MAX_SUSPICIONS))


def _operator_closes(store: Store, now: datetime, *, without_runner: bool) -> Iterator[OperatorCloseResult]:
    newest = (each.decision for each in store.decisions(MANUAL_CLOSE_LOOK_BACK))
    closes = [each for each in newest if each.kind == "manual" and not each.is_hold]
    recent = [each for each in closes if now - each.as_of <= A_DAY][:MAX_MANUAL_CLOSES]
    for each in recent or (closes[:1] if without_runner else []):
        result = read_result(store, each)
        yield OperatorCloseResult(each.as_of, each.id, each.scope, each.author, each.cause, each.reason, result)


def runner_state(lease: Lease | None, now: datetime, sign: bytes | None = None) -> RunnerState:
    """Whether the holder of `lease` is running, as far as this process can tell, and the reason.

    `sign`: what the process that ticks on the store answers.
    """
    if lease is None:
        return RunnerState("gone", None, None, None, None, "no runner holds the lease")
    until = from_micros(lease.expires_at)
    liveness: Liveness = "silent"
    if is_dead(lease.owner):
        why = "its process died without releasing the lease"
    elif is_misdated(lease, now) and not is_running(lease.owner):
        why = "its lease is dated too far ahead: the clock was set back, and the lease was not renewed"
    elif lease.expires_at <= to_micros(now):
        why = "its lease expired without renewal"
    else:
        liveness, why = "alive", "it holds the lease"
    is_process_running = liveness == "alive" or is_running(lease.owner)
    if liveness == "silent" and (proof := live_by_sign(sign, lease, now)) is not None:
        liveness, why = "unrecorded", f"the store takes no writes; {proof.why}"
    elif liveness == "silent" and is_process_running:
        why = f"{why}; its process runs and does not answer, so it hangs, or is of an earlier version"
    return RunnerState(liveness, lease.owner, pid_of(lease.owner), lease.generation, until, why, is_process_running)


BEHIND_INTERVALS = 5
"""From this many intervals on a store is behind the process that ticks on it; at least `BEHIND`."""
BEHIND = timedelta(seconds=10)


def _if_recorded(
    runner: RunnerState, view: RunnerView | None, proof: ProbeResult | None, sign: bytes | None
) -> RunnerState:
    """The runner as `unrecorded` where its process has ticked on without its store, before its lease has expired."""
    if runner.liveness != "alive" or view is None or proof is None or sign is None:
        return runner
    behind = decode_last_tick(sign).as_of - view.as_of
    if behind < max(BEHIND, BEHIND_INTERVALS * timedelta(seconds=view.interval)):
        return runner
    return replace(runner, liveness="unrecorded", why=f"the store takes no writes; {proof.why}")


def _view(store: Store) -> tuple[RunnerView | None, str | None]:
    blob = store.live(LIVE_NAME)
    if blob is None:
        return None, "no runner has ticked on this store yet"
    try:
        return decode_view(blob), None
    except msgspec.DecodeError as error:
        return None, f"the last tick was written by another version of ksctl ({error})"


def locks_at(folder: Path | None, union: Path | None, now: datetime) -> tuple[LockView, ...]:
    """The lock files there, as a bot reads them at `now`; a place that does not answer is itself shown as a lock.

    Files of accounts, venues and the portfolio come first if the folder has more than `MAX_LOCK_FILES`.
    """
    found: tuple[LockView, ...] = ()
    if folder is not None:
        found += _read_within_timeout(f"the lock folder {folder}", folder, lambda: _locks_in(folder, union, now))
    if union is not None:
        found += _read_within_timeout(
            f"the lock file {union} for all scopes", union, lambda: (_lock(union, union, now),)
        )
    return found


def _read_within_timeout(what: str, path: Path, read: Callable[[], tuple[LockView, ...]]) -> tuple[LockView, ...]:
    try:
        return call_within(LOCK_FOLDER_TIMEOUT, what, read)
    except DeadlineError as error:
        return (
            LockView(
                file=str(path), scope=None, locked=True, mode="reduce_only", reason=str(error), stage=None, until=None,
                alive_until=None, ordered=True, stale=False,
            ),
        )  # fmt: skip


def _locks_in(folder: Path, union: Path | None, now: datetime) -> tuple[LockView, ...]:
    paths = (path for path in folder.glob("*.json") if path != union)
    shown = sorted(paths, key=lambda path: (not path.stem.startswith(("account__", "venue__", "portfolio")), path))
    return tuple(_lock(path, union, now) for path in sorted(shown[:MAX_LOCK_FILES]))


def _as_path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _lock(path: Path, union: Path | None, now: datetime) -> LockView:
    state, lock = read_lock(path, now), read_file(path).lock
    endless = lock is None or not lock.locked or lock.expires_ts > _YEAR_9000
    scopes = ((None if lock is None else lock.details.get("scopes")) or "").split(", ")
    return LockView(
        file=legible(str(path)),
        scope=one_line(lock.scope if lock is not None else UNION_SCOPE if path == union else scope_of(path)),
        locked=state.locked,
        mode=state.mode,
        reason=one_line(legible(state.reason)),
        stage=None if lock is None or lock.stage is None else one_line(lock.stage),
        until=None if lock is None or endless else _instant(lock.expires_ts),
        alive_until=None if lock is None else _instant(lock.alive_until),
        ordered=lock is None or lock.locked,
        on_suspicion=lock is not None and lock.locked and is_on_suspicion(lock),
        stale=lock is not None and lock.alive_until < now.timestamp(),
        wider=() if lock is None or lock.own is None else tuple(each for each in scopes if each != lock.scope),
        has_own=lock is None or lock.own is None or lock.own.locked,
        only=state.only or UNSET,
    )


_YEAR_9000 = 221_845_392_000.0


def _instant(seconds: float) -> datetime | None:
    """Unix seconds as an instant; None if it is out of range."""
    try:
        return from_micros(round(seconds * 1_000_000))
    except (OverflowError, ValueError):
        return None
