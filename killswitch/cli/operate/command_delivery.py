"""Delivery of operator commands: send the command to the running runner, or run one tick in this process."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from msgspec import Struct

from killswitch.accounts.opening import LoadedPolicies, open_accounts
from killswitch.cli.console import print_memory_entry, write_in_background
from killswitch.cli.live.run_outputs import open_outputs, open_reports
from killswitch.cli.operate.command_output import (
    CommandRequest,
    is_lock_pending,
    is_lock_unwritten,
    print_outcome,
    print_pending,
    print_unfinished,
    printing_unfinished,
)
from killswitch.cli.operate.command_requirements import (
    REACHING,
    require_executor,
    require_its_policies,
    require_of_runner,
    require_of_tick,
)
from killswitch.cli.operate.single_tick import DecisionCollector, paced_seconds, run_one_tick
from killswitch.cli.session import (
    acting_store,
    load_policies,
    opened_store,
    store_if_any,
)
from killswitch.cli.terminal import print_note, print_section
from killswitch.gate.sentinel import sentinel_at, sentinel_of
from killswitch.incident.notify.message import trigger_texts
from killswitch.incident.record.incident_decisions import keep_runbooks
from killswitch.model.decision import Decision
from killswitch.model.effects import ProcessExit, of_kind
from killswitch.model.snapshot import Event
from killswitch.model.store import Store
from killswitch.operations import commands
from killswitch.operations.pages.wording import decision_section
from killswitch.operations.status import RunnerState, StoreStatus, runner_state, store_status
from killswitch.preflight.run_start import arming_summary, lock_paths, require_locks
from killswitch.runner import process
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.clock import SystemClock
from killswitch.runner.lease import LeaseRefusedError, end_misdated, is_misdated, is_running, misdated_message
from killswitch.runner.loop import RunnerPace
from killswitch.runner.status_blob import RunnerView, tick_time
from killswitch.signals.sessions import TradingSession
from killswitch.store.errors import StoreError
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

POLL = 0.1
"""Seconds between two reads of the store while waiting for a runner."""

LOCK_WAIT = 2.0
"""Seconds to wait for the runner to write the lock of a command, or to lift locks by hand."""

SEEN_WAIT = 15.0
"""Seconds to wait, after the orders of a close, until the runner has seen its accounts closed."""

PAUSE_FACTOR = 4.0
"""Minimum pause after a read of the journal, in multiples of its duration."""

DRAIN_SECONDS = 30.0
"""Seconds that the end of a command waits for pending output."""


class CommandSite(Struct, frozen=True):
    """Store, policies and locks of an operator command."""

    store_at: str
    policies_at: tuple[Path, ...]
    read_timeout: float
    lock_dir: Path | None
    lock_file: Path | None
    sentinel: Path | None = None
    """Left out: next to the store."""

    def policies(self, view: RunnerView | None) -> LoadedPolicies:
        """The policies of --policies, or those of the last runner."""
        paths = self.policies_at or tuple(Path(path) for path in (view.policies if view else ()))
        if not paths and (stored := self._stored()) is not None:
            return stored
        if not paths:
            raise click.UsageError(
                "name the policies and accounts with --policies: no runner has recorded them in this store"
            )
        try:
            return load_policies(paths)
        except click.ClickException as error:
            if self.policies_at:
                raise
            raise click.ClickException(
                f"{error.message}; these are the policies of the last runner; name others with --policies"
            ) from error

    def _stored(self) -> LoadedPolicies | None:
        """The last good set of the store, whose runner had it from a source and no folder; None if there is none."""
        from killswitch.accounts.next_set import stored_start

        with store_if_any(self.store_at) as store:
            stored = None if store is None else stored_start(store)
        return None if stored is None else stored.loaded

    def sessions(self) -> Mapping[str, TradingSession]:
        """The sessions of the policy files, by name."""
        with store_if_any(self.store_at) as store:
            view = None if store is None else store_status(store, datetime.now(UTC), 0).view
        return self.policies(view).sessions

    def locks(self, view: RunnerView | None) -> LockPaths:
        """The lock paths of the options, or those of the last runner."""
        folder, union = (view.lock_folder, view.union) if view else (None, None)
        return lock_paths(
            self.store_at, self.lock_dir or (Path(folder) if folder else None),
            self.lock_file or (Path(union) if union else None),
        )  # fmt: skip


def this_user() -> str:
    """Name of the user of this session, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def deliver(
    request: CommandRequest,
    site: CommandSite,
    *,
    live: bool,
    journal: str | None = None,
    confirm: Callable[[], None] | None = None,
) -> None:
    """Send the command to the running runner, or run one tick here.

    `journal`: in an emergency, where to journal in place of the store. `confirm`: asks before anything is changed, and
    raises if the answer is no.
    """
    if confirm is None:
        write_in_background(DRAIN_SECONDS)
    if journal is not None:
        _ask(confirm)
        with acting_store(site.store_at, journal, site.locks(None)) as store:
            _tick_here(request, store, site, _last_view(store), live=live, queued=None, emergency=True)
        return
    created = _created_store(request, site, live=live)
    _end_misdated(site.store_at)
    with created, _recording_refusal(request, site.store_at):
        _deliver(request, site, live=live, confirm=confirm)


@contextmanager
def _created_store(request: CommandRequest, site: CommandSite, *, live: bool) -> Iterator[None]:
    """Create the store of a command that tightens where no runner ever ran: with --live, and with named --policies.

    A misspelled path must not begin a second store next to a runner: its claims of the accounts refuse that, and are
    held while the command lasts.
    """
    if not live or not site.policies_at or request.kind not in REACHING or _has_store(site.store_at):
        yield
        return
    from killswitch.preflight.run_start import claimed
    from killswitch.runner.claims import ClaimHolder, RunClaims
    from killswitch.runner.lease import this_process

    loaded = site.policies(None)
    accounts = open_accounts(loaded.accounts, live=True)
    holder = ClaimHolder(this_process(), str(Path(site.store_at.removeprefix("sqlite:///")).absolute()))
    with RunClaims(holder) as claims:
        for _, text in claimed(claims, loaded, accounts, site.locks(None), is_forced=False):
            print_note(text)
        open_store(site.store_at).close()
        print_note(f"no runner ever ran on {site.store_at}: the store is created")
        yield


def _has_store(store_at: str) -> bool:
    with store_if_any(store_at) as store:
        return store is not None


@contextmanager
def _recording_refusal(request: CommandRequest, store_at: str) -> Iterator[None]:
    """Put a refused attempt to apply a plan on record: the next tick writes the notice of it.

    It is spent or queued, or another command has become the runner at the same moment.
    """
    try:
        yield
    except (commands.SpentPlanError, LeaseRefusedError) as error:
        if request.plan is not None:
            author = request.command.author or "unknown"
            with opened_store(store_at, read_only=False) as store:
                now = tick_time(store, SystemClock())
                store.put_event(commands.refused_apply_event(request.plan, author, now, str(error)))
            print_note("the next tick puts this attempt on record: see `ksctl history`")
        raise


def _deliver(request: CommandRequest, site: CommandSite, *, live: bool, confirm: Callable[[], None] | None) -> None:
    require_executor(request, site.store_at, live=live)
    _ask(confirm)
    with opened_store(site.store_at, read_only=False) as store:
        status = store_status(store, datetime.now(UTC), 0)
        with printing_unfinished(store):
            unprocessed = None
            if status.runner.liveness == "alive" and status.view is not None:
                unprocessed = _send_to_runner(request, store, site.store_at, status, status.view)
                if unprocessed is None:
                    return
                now = runner_state(store.lease(), datetime.now(UTC))
                _require_continuation(request, unprocessed, status, now, live=live)
            _tick_here(request, store, site, status.view, live=live, queued=unprocessed)


def _ask(confirm: Callable[[], None] | None) -> None:
    if confirm is not None:
        confirm()
        write_in_background(DRAIN_SECONDS)


def _last_view(store: Store) -> RunnerView | None:
    """The published state of the last runner, if readable: an emergency must not fail on it."""
    with suppress(StoreError):
        return store_status(store, datetime.now(UTC), 0).view
    return None


def tick_time_on(store_at: str) -> datetime:
    """The present time as ticks on that store are dated; wall clock without a store."""
    clock = SystemClock()
    with store_if_any(store_at) as store:
        return clock.now() if store is None else tick_time(store, clock)


def _end_misdated(store_at: str) -> None:
    """After the clock moved back under a lease, find out whether its holder is alive before delivering the command."""
    now = datetime.now(UTC)
    with store_if_any(store_at) as store:
        lease = None if store is None else store.lease()
    if lease is None or is_running(lease.owner) or not is_misdated(lease, now):
        return
    print_note(misdated_message(lease, now))
    with opened_store(store_at, read_only=False) as store:
        end_misdated(store, lease)


def _is_closing(store: Store, decision: Decision) -> bool:
    """Whether the close is in progress; pauses if so, because reading a long journal must not slow the runner."""
    began = time.monotonic()
    closing = commands.close_status(store, decision) == "closing"
    if closing:
        time.sleep(max(POLL, PAUSE_FACTOR * (time.monotonic() - began)))
    return closing


def is_runner_alive(store: Store) -> bool:
    """Whether a running runner holds the lease of the store."""
    return runner_state(store.lease(), datetime.now(UTC)).liveness == "alive"


def _require_continuation(
    request: CommandRequest, unprocessed: Event, status: StoreStatus, now: RunnerState, *, live: bool
) -> None:
    """The runner ended before it processed the command: execute it here with --live, otherwise leave it pending."""
    hangs = now.liveness == "silent" and now.is_process_running
    what = "hangs, and has not processed" if hangs else "ended before it processed"
    ended = f"the runner (pid {status.runner.pid}) {what} {unprocessed.id} ({request.kind})"
    if not live:
        raise click.ClickException(
            f"{ended}: the command waits, and the next tick of any runner on this store processes it"
        )
    print_note(f"{ended}: continuing from here")


def _send_to_runner(
    request: CommandRequest, store: Store, store_at: str, status: StoreStatus, view: RunnerView
) -> Event | None:
    """Let the runner process the command and print the result; returns the event if the runner ended before."""
    locked = commands.locked_scopes(status.locks)
    require_of_runner(request, status, view, locked)
    if request.lifts and not any(account.armed for account in view.accounts):
        print_note("locks stay unchanged: the runner is armed for no account")
    event = request.event(store)
    store.put_event(event)
    print_note(f"sent to the runner (pid {status.runner.pid}) as {event.id}")
    deadline = time.monotonic() + request.wait
    while commands.is_pending(store, event):
        if not is_runner_alive(store) and commands.is_pending(store, event):
            return event
        if time.monotonic() > deadline:
            if commands.is_unfinished(store, event):
                break
            raise click.ClickException(
                f"the runner has not processed {event.id} within {request.wait:g} s; its next tick will. "
                "See `ksctl status`"
            )
        time.sleep(POLL)
    answer = commands.answer_to(store, event)
    deadline += paced_seconds(answer)
    for decision in answer.decisions:
        while _is_closing(store, decision) and time.monotonic() < deadline and is_runner_alive(store):
            pass
    seen_by = min(deadline, time.monotonic() + SEEN_WAIT)  # ends once later polls show nothing of it
    while commands.is_pending(store, event) and time.monotonic() < seen_by and is_runner_alive(store):
        time.sleep(POLL)
    runner_locks = LockPaths(Path(view.lock_folder), None) if view.lock_folder else None
    # The tick writes and lifts locks right after it recorded that it processed the command.
    soon = min(deadline, time.monotonic() + LOCK_WAIT)
    while is_lock_unwritten(store, answer) and time.monotonic() < soon:
        time.sleep(POLL)
    is_refused = any(notice.kind == "nothing_selected" for notice in answer.notices)
    lifts_lock = request.scope in locked and not is_refused and commands.fired_again(store, answer) is None
    lifted_by = soon if request.kind in ("unlock", "resume") else deadline  # another lock on the scope may stay
    while lifts_lock and is_lock_pending(request, store, runner_locks) and time.monotonic() < lifted_by:
        time.sleep(POLL)
    print_outcome(request, store, answer, runner_locks, event, store_at)
    return None


def _tick_here(
    request: CommandRequest, store: SqlStore, site: CommandSite, view: RunnerView | None, *, live: bool,
    queued: Event | None,
    emergency: bool = False,
) -> None:  # fmt: skip
    """Run one tick here. `queued`: an event that is already stored. `emergency`: continue without a lock folder."""
    loaded = site.policies(view)
    if not request.has_orders and not live and any(each.spec.execution == "live" for each in loaded.accounts):
        raise click.UsageError(
            "no runner is alive on this store, so this command would run one tick itself; unarmed, a stage that fires "
            "in that tick would be latched without any action. Add --live"
        )
    accounts = open_accounts(loaded.accounts, live=live)
    locks = site.locks(view)
    for warning in require_locks(accounts, locks, site.store_at, closes=request.has_orders, emergency=emergency):
        print_note(warning)
    require_of_tick(request, loaded.policies, accounts, locks, view)
    if site.policies_at and request.plan is not None:
        require_its_policies(request.plan, loaded)
    collector = DecisionCollector()
    with (
        open_outputs(loaded, site.store_at, None, SystemClock(), operator_command=True) as outputs,
        open_reports(store, site.store_at, outputs.telemetry.tracer) as reports,
    ):
        runner = assemble(
            loaded.policies, accounts, store, SystemClock(), RunnerPace(interval=1.0, read_timeout=site.read_timeout),
            live=live, locks=locks, store_at=site.store_at, observers=(collector, reports, *outputs.observers),
            tracer=outputs.telemetry.tracer, closing_observer=outputs.closing_observer,
            paths=tuple(str(path.resolve()) for path in site.policies_at) or (view.policies if view else ()),
            on_acquired=partial(store.allow_memory, print_memory_entry),
        )  # fmt: skip
        runner.sentinel = partial(sentinel_at, site.sentinel or sentinel_of(site.store_at))
        keep_runbooks(store, loaded.policies.digest, loaded.runbooks)
        print_note(f"no runner is alive here: running one tick; {arming_summary(accounts, live=live)}")
        armed = any(account.armed for account in accounts.values())
        if request.lifts and not armed:
            print_note("locks stay unchanged: no account is armed")
        print_pending(store)
        event = queued or request.event(store)
        try:
            process.run(run_one_tick(runner, store, event, request.wait))
        except BaseException:
            if commands.is_pending(store, event):
                print_note(
                    f"{event.id} ({request.kind}) still waits: the next tick of any runner on this store processes it"
                )
            raise
        # Print the answer first: pages and the last traces take time.
        answer = commands.answer_to(store, event)
        _print_other_decisions(collector.decisions, answer, loaded)
        if any(of_kind(decision.effects, ProcessExit) for decision in collector.decisions):
            print_note("no run is alive that `exit_process` could end: it is recorded as `no_run`, and nothing exits")
        print_unfinished(store)
        print_outcome(request, store, answer, locks if armed else None, event, site.store_at)


def _print_other_decisions(
    collected: Sequence[Decision], answer: commands.CommandAnswer, loaded: LoadedPolicies
) -> None:
    """Print the other decisions of the same ticks."""
    answered = {decision.id for decision in answer.decisions}
    for decision in (each for each in collected if each.id not in answered):
        what = "decided" if decision.kind in (None, "suspicion") else "processed"
        print_note(f"the same tick also {what}:")
        print_section(decision_section(decision, trigger_texts(loaded.policies)), err=True)
