"""`ksctl run`: evaluate the policies at an interval, and act where armed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli import EXIT_NOT_STARTED, options
from killswitch.cli.console import (
    handle_stop_signals,
    ignore_foreign_signals,
    print_memory_entry,
    write_in_background,
)
from killswitch.cli.live.run_console import RunConsole
from killswitch.cli.terminal import print_note, print_page
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.accounts.arming import ArmedAccount
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.execution.effects.performing import RunEnd
    from killswitch.lab.recording import BackgroundRecorder
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.model.store import Store
    from killswitch.preflight.key_rights import KeyWarning
    from killswitch.runner.assembly import LockPaths
    from killswitch.runner.claims import RunClaims
    from killswitch.runner.loop import Runner, RunnerPace
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.shadow.shadow_sets import ShadowSets


@options.verb(
    "ksctl run --policies policies --store ks.sqlite", "ksctl run --policies policies --store ks.sqlite --live"
)
@options.policies(required=True)
@options.store
@click.option("--live", is_flag=True, help="Act on accounts whose document says execution: live. Default: observe.")
@click.option("--unnotified", is_flag=True, help="With --live: start even if a recipient cannot be notified.")
@click.option(
    "--another-runner",
    is_flag=True,
    help="With --live: start even if another runner with another store lives and acts on an account.",
)
@options.option("--interval", type=options.DURATION, default="1s", help="Time between two ticks.")
@options.read_timeout("5s")
@options.lock_dir
@options.lock_file
@click.option("--shadow", metavar="DIR|REF",
              help="Evaluate another policy set next to this one, and act on nothing of it: a folder, or a git ref of "
                   "the repository of --policies. `ksctl shadow report` shows what it would have done.")  # fmt: skip
@click.option("--record", type=Path, metavar="FILE", help="Append every snapshot to this recording.")
@click.option("--events", "events_at", metavar="FILE|-",
              help="Append events (JSON Lines) to FILE; with -, to stdout, and decisions go to stderr.")  # fmt: skip
@options.option("--min-free", type=options.SIZE, default="256MiB",
                help="Page when the disk of the store has less space than this.")  # fmt: skip
@click.option("--ticks", type=click.IntRange(min=1), help="Stop after this many ticks. Default: run until SIGTERM.")
@options.journal
@options.output
def run(
    policies_at: tuple[Path, ...], store_at: str, live: bool, unnotified: bool, another_runner: bool, interval: float,
    read_timeout: float, lock_dir: Path | None, lock_file: Path | None, shadow: str | None, record: Path | None,
    events_at: str | None, min_free: int, ticks: int | None, journal: str | None, output: str,
) -> int:  # fmt: skip
    """Evaluate the policies at an interval, and act where armed.

    Decisions go to stdout (with --output json, one killswitch.decision/v1 object per line), notices and progress to
    stderr. SIGTERM, SIGINT and SIGQUIT finish the current step, release the lease and exit 0. SIGHUP
    says whether the policy files are those that run, and reloads nothing; SIGUSR1 and SIGUSR2 are ignored.

    Exits 1 if a stage has `exit_process`, once no close is in progress, and after an error; 69 if the run could not
    start, which includes every error before its first tick is complete.

    The OpenTelemetry variables (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT and so on)
    enable the export of traces and metrics.
    """
    if events_at == "-" and output == "json":
        raise click.UsageError("--events - and --output json both write to stdout: write the events to a file")
    write_in_background()
    from killswitch.runner.claims import ClaimHolder, RunClaims
    from killswitch.runner.lease import this_process

    with StartFailures() as start, RunClaims(ClaimHolder(this_process(), _absolute(store_at))) as claims:
        from killswitch.cli.session import load_policies, lock_paths
        from killswitch.runner.loop import RunnerPace

        loaded_at = time.time()
        loaded, locks = load_policies(policies_at), lock_paths(store_at, lock_dir, lock_file)
        accounts, found_before = _checked_accounts(
            loaded, store_at, locks, read_timeout, live=live, unnotified=unnotified, emergency=journal is not None
        )
        found_before += _claimed(claims, loaded, accounts, locks, is_forced=another_runner)
        settings = _RunSettings(
            policies_at, store_at, live, RunnerPace(interval, read_timeout), locks, record, events_at, min_free, ticks,
            journal, output == "json", found_before, loaded_at, shadow,
        )  # fmt: skip
        return _run(settings, loaded, accounts, start)


class NotStartedError(click.ClickException):
    """The run has failed before its first tick was complete."""

    exit_code = EXIT_NOT_STARTED


class StartFailures:
    """Turns every error before the end of the first tick into a NotStartedError; wrong usage stays wrong usage."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        """Set once there is one."""

    def __enter__(self) -> StartFailures:
        return self

    def __exit__(self, _type: object, error: BaseException | None, trace: TracebackType | None) -> None:
        has_started = self.runner is not None and self.runner.ticks > 0
        kept = (click.UsageError, click.Abort, click.exceptions.Exit)
        if has_started or not isinstance(error, Exception) or isinstance(error, kept):
            return
        if isinstance(error, click.ClickException):
            raise NotStartedError(error.message) from error
        if type(error).__module__.startswith("killswitch."):
            raise NotStartedError(str(error)) from error
        sys.excepthook(type(error), error, trace)
        raise NotStartedError(f"the run could not start: unexpected {type(error).__name__}: {error}") from error


class _RunSettings(Struct, frozen=True):
    """The options of a run, and the warnings of the checks before it."""

    policies_at: tuple[Path, ...]
    store_at: str
    live: bool
    pace: RunnerPace
    locks: LockPaths
    record: Path | None
    events_at: str | None
    min_free: int
    ticks: int | None
    journal: str | None
    json: bool
    found_before: tuple[KeyWarning, ...]
    loaded_at: float
    """Unix seconds just before the policies were read."""
    shadow: str | None
    """The set of --shadow."""


def _run(
    settings: _RunSettings, loaded: LoadedPolicies, accounts: dict[str, ArmedAccount], start: StartFailures
) -> int:
    """Run until the end; return the exit code."""
    from killswitch.cli.live.run_outputs import open_outputs, open_reports
    from killswitch.cli.session import acting_store, arming_summary
    from killswitch.incident.notify.message import trigger_texts
    from killswitch.runner import process
    from killswitch.runner.assembly import assemble
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.disk_space import DiskSpace
    from killswitch.runner.expectation_check import ExpectationCheck
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.process import FirstAnswers, switch_threads_often
    from killswitch.runner.status_blob import keep_start

    clock, it = SystemClock(), settings
    with (
        open_outputs(loaded, it.store_at, it.events_at, clock) as outputs,
        acting_store(it.store_at, it.journal, it.locks) as store,
        open_reports(store, it.store_at, outputs.telemetry.tracer) as reports,
        _open_shadows(settings, accounts, store) as shadows,
    ):
        store_path = Path(it.store_at.removeprefix("sqlite:///") if it.journal in (None, "memory") else it.journal)
        _require_expected(settings, loaded, accounts, store)
        space = DiskSpace(store, store_path.parent, it.min_free, clock.monotonic)
        files = PolicyFiles(it.policies_at, loaded.policies.digest, it.loaded_at, clock.monotonic)
        thresholds = trigger_texts(loaded.policies)
        console = RunConsole(store, json=it.json, err=it.events_at == "-", thresholds=thresholds)
        runner = start.runner = assemble(
            loaded.policies, accounts, store, clock, it.pace,
            live=it.live, locks=it.locks, store_at=it.store_at,
            paths=tuple(str(path.resolve()) for path in it.policies_at), recorder=_recorder(it.record),
            observers=(
                console, reports, FirstAnswers(), space, files, ExpectationCheck(loaded.policies), *shadows,
                *outputs.observers,
            ),
            tracer=outputs.telemetry.tracer, closing_observer=outputs.telemetry.closing_observer,
            timers=True, is_run=True, startup_notices=it.found_before, on_wait=print_note,
            on_acquired=partial(store.allow_memory, print_memory_entry),
        )  # fmt: skip
        for each in shadows:
            _begin_shadow(each, settings, runner.clock.now())
        keep_start(store, loaded.policies.digest, loaded.runbooks, it.record)
        print_note(f"running {loaded.policies.digest}; {arming_summary(accounts, live=it.live)}")
        outputs.closings, outputs.notifications = runner.closings, runner.notifications
        outputs.policy_files = lambda: files.state
        switch_threads_often()
        end = process.run(_until_stopped(runner, it.ticks, files))
        outputs.end_reason = end.reason
    if end.cause == "effect":
        print_note(end.reason)
    print_note(f"stopped after {count_of(console.ticks, 'tick')}; {console.stop_summary()}")
    for problem in filter(None, (*runner.stop_problems, store.trouble)):
        print_note(problem)
    if any(account.armed for account in accounts.values()):
        print_note("the lock files become stale now, which bots read as locked, until a runner is alive again")
    return end.exit_code


@contextmanager
def _open_shadows(
    settings: _RunSettings, accounts: Mapping[str, ArmedAccount], store: Store
) -> Iterator[tuple[ShadowSets, ...]]:
    """The shadow sets of a run, to be stopped at its end; none in an emergency, whose store is in memory."""
    from killswitch.runner.shadow.shadow_sets import ShadowSets

    if settings.journal is not None:
        yield ()
        return
    armed = [name for name, account in accounts.items() if account.armed]
    shadows = ShadowSets(store, settings.store_at, armed, settings.pace.interval, print_note)
    try:
        yield (shadows,)
    finally:
        for problem in shadows.close():
            print_note(problem)


def _begin_shadow(shadows: ShadowSets, settings: _RunSettings, now: datetime) -> None:
    """Continue the shadow sets of the run before, and begin that of --shadow: whatever is wrong with it ends no run."""
    from killswitch.cli.live.shadow import SOURCE, shadow_files
    from killswitch.runner.shadow.shadow_sets import ShadowRefusedError

    shadows.resume(now)
    begun: str | None = None
    if settings.shadow is not None:
        try:
            files, origin = shadow_files(settings.shadow, settings.policies_at)
            begun = shadows.begin(files, origin, None, now)
            print_note(f"shadow {begun}: the set of {settings.shadow} is evaluated next to this one; nothing is sent")
        except (click.ClickException, ShadowRefusedError) as error:
            print_note(f"nothing is in shadow: {error}")
    for record in shadows.active:
        if record.origin.source.startswith(SOURCE) and record.id != begun:
            shadows.end(record.id, now)


def _require_expected(
    settings: _RunSettings, loaded: LoadedPolicies, accounts: Mapping[str, ArmedAccount], store: Store
) -> None:
    """ClickException if this is a first start, and a policy touches more than it expects.

    Positions are read only if a policy states how many; an account that cannot be read refuses nothing.
    """
    from killswitch.accounts.opening import open_accounts, read_once
    from killswitch.planning.expectations import needs_positions
    from killswitch.runner import process
    from killswitch.runner.expectation_check import has_begun, refused_at_start

    stated = any(graph.expect is not None for graph in loaded.policies.graphs)
    if not stated or settings.journal is not None or has_begun(store, settings.locks.folder):
        return
    snapshots: tuple[AccountSnapshot, ...] = ()
    if needs_positions(loaded.policies):
        readers = open_accounts(loaded.accounts, live=False)
        snapshots = process.run(read_once(readers, settings.pace.read_timeout))
    refused = refused_at_start(loaded.policies, list(accounts.values()), snapshots)
    if refused:
        raise click.ClickException(
            f"{'; '.join(refused)}. This is a first start, and nothing was started: correct the scope, or `expect`"
        )


def _checked_accounts(
    loaded: LoadedPolicies, store_at: str, locks: LockPaths, read_timeout: float, *, live: bool, unnotified: bool,
    emergency: bool,
) -> tuple[dict[str, ArmedAccount], tuple[KeyWarning, ...]]:  # fmt: skip
    """Open the accounts, run all start-up checks, and return the warnings for the first tick."""
    from killswitch.accounts.opening import open_accounts, require_encrypted
    from killswitch.cli.session import require_locks
    from killswitch.preflight.key_rights import require_harmless_keys
    from killswitch.runner import process
    from killswitch.runner.process import make_room
    from killswitch.store.sqlite import exposure

    accounts = open_accounts(loaded.accounts, live=live)
    machine_warnings = [*require_locks(accounts, locks, store_at, emergency=emergency)]
    key_warnings: tuple[KeyWarning, ...] = ()
    if live:
        require_encrypted(loaded.accounts, loaded.places)
        key_warnings = process.run(require_harmless_keys(loaded.accounts, loaded.places, read_timeout))
        if not unnotified and any(account.armed for account in accounts.values()):
            _require_notified(loaded)
    machine_warnings += [warning for warning in (make_room(len(accounts)), exposure(store_at)) if warning is not None]
    for warning in machine_warnings:
        print_note(warning)
    return accounts, (*key_warnings, *(("warning", warning) for warning in machine_warnings))


def _absolute(store_at: str) -> str:
    return str(Path(store_at.removeprefix("sqlite:///")).absolute())


def _claimed(
    claims: RunClaims, loaded: LoadedPolicies, accounts: dict[str, ArmedAccount], locks: LockPaths, *, is_forced: bool
) -> tuple[KeyWarning, ...]:
    """Claim the armed accounts and the lock folder; AnotherRunnerError if a living run with another store has one."""
    from killswitch.accounts.validation import account_identity
    from killswitch.deadline import DeadlineError, call_within
    from killswitch.runner.assembly import FOLDER_TIMEOUT
    from killswitch.runner.claims import IN_LOCK_FOLDER, account_claim

    armed = [document for document in loaded.accounts if accounts[document.metadata.name].armed]
    if not armed:
        return ()
    files = {f"account {it.metadata.name}": account_claim(account_identity(it)) for it in armed}
    found = claims.take(files, is_forced=is_forced)
    folder = {f"the lock folder {locks.folder}": locks.folder / IN_LOCK_FOLDER}
    try:
        what = f"the lock folder {locks.folder}"
        found += call_within(FOLDER_TIMEOUT, what, lambda: claims.take(folder, is_forced=is_forced))
    except DeadlineError as error:
        found += (("warning", f"{error} Whether another runner uses it is unknown"),)
    for _, text in found:
        print_note(text)
    return found


def _require_notified(loaded: LoadedPolicies) -> None:
    """ClickException if a name under `notify` has no route, or a target cannot work from this machine."""
    from killswitch.policy.diagnostics.diagnostic import diagnostics_page
    from killswitch.runner.notify.target_check import target_warnings

    warnings = (*loaded.unrouted, *target_warnings(loaded.policies))
    if warnings:
        print_page(diagnostics_page(warnings), err=True)
        raise click.ClickException(
            "some recipients cannot be notified; nothing was started. Correct the NotificationRoutes, test them "
            "with `ksctl notify test --policies …`, or start with --unnotified"
        )


async def _until_stopped(runner: Runner, ticks: int | None, files: PolicyFiles) -> RunEnd:
    """Run until stopped; a stop by a signal has its name. SIGHUP reloads nothing: it says what the files are."""
    from msgspec.structs import replace

    stop = asyncio.Event()
    received: list[str] = []

    def on_signal(name: str) -> None:
        received.append(name)
        stop.set()

    handle_stop_signals(on_signal)
    ignore_foreign_signals(on_hangup=lambda: files.ask(lambda text: print_note(f"SIGHUP reloads nothing: {text}")))
    end = await runner.run(stop, ticks)
    return replace(end, reason=f"stopped by {received[0]}") if end.cause == "stop" and received else end


def _recorder(path: Path | None) -> BackgroundRecorder | None:
    if path is None:
        return None
    from killswitch.lab.recording import BackgroundRecorder

    with options.file_errors(f"cannot record to {path}"):
        return BackgroundRecorder(path)
