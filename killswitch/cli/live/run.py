"""`ksctl run`: evaluate the policies at an interval, and act where armed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
    from killswitch.accounts.next_set import StoredStart
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.cli.live.run_outputs import RunOutputs
    from killswitch.cli.live.source_start import SourceStart
    from killswitch.execution.effects.performing import RunEnd
    from killswitch.lab.recording import BackgroundRecorder
    from killswitch.model.applied_set import AppliedSet
    from killswitch.model.clock import Clock
    from killswitch.model.snapshot import AccountSnapshot
    from killswitch.model.store import Store
    from killswitch.preflight.key_rights import KeyWarning
    from killswitch.runner.assembly import LockPaths
    from killswitch.runner.claims import RunClaims
    from killswitch.runner.hot_reload import ReloadAnswer, SetOfStart
    from killswitch.runner.loop import Runner, RunnerPace
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.shadow.shadow_sets import ShadowSets, SourceShadows
    from killswitch.runner.sources.policy_source import PolicySource


@options.verb(
    "ksctl run --policies policies --store ks.sqlite", "ksctl run --policies policies --store ks.sqlite --live"
)
@options.policies(required=False)
@click.option("--source", "source_at", type=options.UncheckedPath(dir_okay=False), metavar="FILE",
              help="In place of --policies: follow the source of policies that this file declares.")  # fmt: skip
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
    policies_at: tuple[Path, ...], source_at: Path | None, store_at: str, live: bool, unnotified: bool,
    another_runner: bool, interval: float, read_timeout: float, lock_dir: Path | None, lock_file: Path | None,
    shadow: str | None, record: Path | None, events_at: str | None, min_free: int, ticks: int | None,
    journal: str | None, output: str,
) -> int:  # fmt: skip
    """Evaluate the policies at an interval, and act where armed.

    Decisions go to stdout (with --output json, one killswitch.decision/v1 object per line), notices and progress to
    stderr. SIGTERM, SIGINT and SIGQUIT finish the current step, release the lease and exit 0. SIGHUP
    takes the policy files between two ticks, as `ksctl reload` does; SIGUSR1 and SIGUSR2 are ignored.

    With --source, the run begins with the set that the store has in force, also where the source cannot be read, and
    takes what the source proposes once it is verified, reviewed and approved; SIGHUP polls it now.

    Exits 1 if a stage has `exit_process`, once no close is in progress, and after an error; 69 if the run could not
    start, which includes every error before its first tick is complete.

    The OpenTelemetry variables (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT and so on)
    enable the export of traces and metrics.
    """
    if events_at == "-" and output == "json":
        raise click.UsageError("--events - and --output json both write to stdout: write the events to a file")
    if (source_at is None) == (not policies_at):
        raise click.UsageError("name either --policies or --source")
    write_in_background()
    from killswitch.runner.claims import ClaimHolder, RunClaims
    from killswitch.runner.lease import this_process

    with StartFailures() as start, RunClaims(ClaimHolder(this_process(), _absolute(store_at))) as claims:
        from killswitch.cli.live.source_start import start_source
        from killswitch.cli.session import lock_paths
        from killswitch.runner.loop import RunnerPace

        loaded_at, stored = time.time(), None
        source = None if source_at is None else start_source(source_at, store_at)
        if source is None:
            loaded, stored = _policies(policies_at, store_at)
        else:
            loaded = source.loaded
        locks = lock_paths(store_at, lock_dir, lock_file)
        accounts, found_before = _checked_accounts(
            loaded, store_at, locks, read_timeout, live=live, unnotified=unnotified, emergency=journal is not None
        )
        found_before += () if stored is None else (("page", stored_start_text(stored, policies_at)),)
        found_before += () if source is None or source.page is None else (("page", source.page),)
        found_before += _claimed(claims, loaded, accounts, locks, is_forced=another_runner)
        settings = _RunSettings(
            policies_at, store_at, live, unnotified, RunnerPace(interval, read_timeout), locks, record, events_at,
            min_free, ticks, journal, output == "json", found_before,
            loaded_at if stored is None else 0.0, None if stored is None else stored.in_force, shadow, source,
        )  # fmt: skip
        return _run(settings, loaded, accounts, start)


def _policies(policies_at: tuple[Path, ...], store_at: str) -> tuple[LoadedPolicies, StoredStart | None]:
    """The policies of the files; where these have mistakes, the last good set of the store, if it has one (P3)."""
    from killswitch.accounts.next_set import stored_start
    from killswitch.cli.session import load_policies, store_if_any

    try:
        return load_policies(policies_at), None
    except click.ClickException:
        with store_if_any(store_at) as store:
            stored = None if store is None else stored_start(store)
        if stored is None:
            raise
        print_note(stored_start_text(stored, policies_at))
        return stored.loaded, stored


def stored_start_text(stored: StoredStart, policies_at: tuple[Path, ...]) -> str:
    """Why a run starts with the set of the store, and the way out."""
    files = " ".join(map(str, policies_at))
    since = f"{stored.in_force.digest[:19]}, in force since {stored.in_force.at:%Y-%m-%d %H:%M} UTC"
    if stored.is_compiled:
        return (
            f"the policies in {files} have mistakes: this run goes on with the last good set of the store ({since}). "
            "Correct the files, as `ksctl validate` shows, then `ksctl reload` takes them"
        )
    return (
        f"NO POLICY IN FORCE: the policies in {files} have mistakes, and this program does not compile the last "
        f"good set of the store ({since}; {stored.why}). Latches, locks and open closes go on, and nothing new fires. "
        f"Correct the files, then `ksctl reload` takes them, or start ksctl {stored.in_force.program}"
    )


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
    unnotified: bool
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
    """Unix seconds just before the policies were read; 0 if they come from the store."""
    stored: AppliedSet | None
    """The last good set, if the run starts with it because the policy files could not be read."""
    shadow: str | None
    """The set of --shadow."""
    source: SourceStart | None = None
    """The source of --source."""


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
    from killswitch.runner.process import FirstAnswers, switch_threads_often
    from killswitch.runner.status_blob import keep_start

    clock, it = SystemClock(), settings
    with (
        open_outputs(loaded, it.store_at, it.events_at, clock) as outputs,
        acting_store(it.store_at, it.journal, it.locks) as store,
        open_reports(store, it.store_at, outputs.telemetry.tracer) as reports,
        _open_shadows(settings, loaded, accounts, store) as shadows,
    ):
        store_path = Path(it.store_at.removeprefix("sqlite:///") if it.journal in (None, "memory") else it.journal)
        _require_expected(settings, loaded, accounts, store)
        space = DiskSpace(store, store_path.parent, it.min_free, clock.monotonic)
        files = _next_sets(settings, loaded, store, clock)
        for_source = _shadows_of_source(shadows, files)
        thresholds = trigger_texts(loaded.policies)
        console = RunConsole(store, json=it.json, err=it.events_at == "-", thresholds=thresholds)
        runner = start.runner = assemble(
            loaded.policies, accounts, store, clock, it.pace,
            live=it.live, locks=it.locks, store_at=it.store_at,
            paths=tuple(str(path.resolve()) for path in it.policies_at), recorder=_recorder(it.record),
            observers=(
                console, reports, FirstAnswers(), space, files, ExpectationCheck(loaded.policies), *shadows,
                *for_source, *outputs.observers,
            ),
            tracer=outputs.telemetry.tracer, closing_observer=outputs.telemetry.closing_observer,
            timers=True, is_run=True, startup_notices=it.found_before, on_wait=print_note,
            on_acquired=partial(store.allow_memory, print_memory_entry), of_start=_set_of_start(settings, loaded),
        )  # fmt: skip
        for each in shadows:
            _begin_shadow(each, settings, runner.clock.now())
        _connect(files, runner, store, outputs)
        keep_start(store, loaded.policies.digest, loaded.runbooks, it.record)
        print_note(f"running {loaded.policies.digest}; {arming_summary(accounts, live=it.live)}")
        outputs.closings, outputs.notifications = runner.closings, runner.notifications
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


def _next_sets(
    settings: _RunSettings, loaded: LoadedPolicies, store: Store, clock: Clock
) -> PolicyFiles | PolicySource:
    """The part of the run that proposes the next set: the source, or the policy files at a request."""
    from killswitch.runner.policy_files import PolicyFiles

    if settings.source is not None:
        from killswitch.cli.live.source_start import followed_source

        return followed_source(settings.source, store, settings.store_at, clock)
    return PolicyFiles(settings.policies_at, loaded, settings.loaded_at, clock.monotonic)


def _connect(files: PolicyFiles | PolicySource, runner: Runner, store: Store, outputs: RunOutputs) -> None:
    """Let sets be proposed to the runner from now on, and metrics show where they come from."""
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.sources.source_alerts import source_gauges

    if isinstance(files, PolicyFiles):
        files.connect(runner.propose, store)
        outputs.policy_files = lambda: files.state
    else:
        files.follow(runner)
        outputs.source = lambda: source_gauges(files.condition)


@contextmanager
def _open_shadows(
    settings: _RunSettings, loaded: LoadedPolicies, accounts: Mapping[str, ArmedAccount], store: Store
) -> Iterator[tuple[ShadowSets, ...]]:
    """The shadow sets of a run, to be stopped at its end; none in an emergency, whose store is in memory."""
    from killswitch.runner.shadow.shadow_sets import ShadowSets

    if settings.journal is not None:
        yield ()
        return
    armed = [name for name, account in accounts.items() if account.armed]
    after = 0 if settings.source is None else settings.source.settings.shadow_after
    shadows = ShadowSets(
        store, settings.store_at, armed, settings.pace.interval, print_note,
        deployed=_set_of_start(settings, loaded).in_force, previous_for=timedelta(microseconds=after),
    )  # fmt: skip
    try:
        yield (shadows,)
    finally:
        for problem in shadows.close():
            print_note(problem)


def _shadows_of_source(shadows: tuple[ShadowSets, ...], files: PolicyFiles | PolicySource) -> tuple[SourceShadows, ...]:
    """What has the heads of a source in shadow before they are taken; nothing without a source."""
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.shadow.shadow_sets import SourceShadows

    if isinstance(files, PolicyFiles):
        return ()
    return tuple(SourceShadows(each, files, files.settings.name) for each in shadows)


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


async def _until_stopped(runner: Runner, ticks: int | None, files: PolicyFiles | PolicySource) -> RunEnd:
    """Run until stopped; a stop by a signal has its name. SIGHUP takes the policy files."""
    from msgspec.structs import replace

    stop = asyncio.Event()
    received: list[str] = []

    def on_signal(name: str) -> None:
        received.append(name)
        stop.set()

    handle_stop_signals(on_signal)
    ignore_foreign_signals(on_hangup=lambda: files.request(_print_reload, by="SIGHUP"))
    try:
        end = await runner.run(stop, ticks)
    finally:
        files.stop()
    return replace(end, reason=f"stopped by {received[0]}") if end.cause == "stop" and received else end


def _set_of_start(settings: _RunSettings, loaded: LoadedPolicies) -> SetOfStart:
    """The set of the start with its files, and what a later one has to offer as well."""
    from killswitch.accounts.next_set import program_version
    from killswitch.model.applied_set import AppliedSet, PolicyOrigin, folder_digest
    from killswitch.runner.hot_reload import SetOfStart

    def notified(following: LoadedPolicies) -> tuple[str, ...]:
        from killswitch.runner.notify.target_check import target_warnings

        found = (*following.unrouted, *target_warnings(following.policies))
        return tuple(f"{it.file}:{it.line}: {it.message}" for it in found)

    checks = (notified,) if settings.live and not settings.unnotified else ()
    if settings.source is not None:
        of_source = settings.source.in_force
        return SetOfStart(of_source if loaded.policies.digest == of_source.digest else None, checks)
    if settings.stored is not None:
        return SetOfStart(settings.stored if loaded.policies.digest == settings.stored.digest else None, checks)
    origin = PolicyOrigin(
        source=" ".join(map(str, settings.policies_at)), commit=loaded.policies.commit,
        folder_digest=folder_digest(loaded.files),
    )  # fmt: skip
    at = datetime.fromtimestamp(settings.loaded_at, UTC)
    in_force = AppliedSet(
        digest=loaded.policies.digest, at=at, program=program_version(), origin=origin, files=loaded.files
    )
    return SetOfStart(in_force, checks)


def _print_reload(answer: ReloadAnswer) -> None:
    """What became of the policy files after SIGHUP."""
    reasons = f": {'; '.join(answer.reasons)}" if answer.reasons else ""
    print_note(f"SIGHUP: the policy files are {answer.status}{reasons}")
    for line in answer.preview:
        print_note(f"  {line}")


def _recorder(path: Path | None) -> BackgroundRecorder | None:
    if path is None:
        return None
    from killswitch.lab.recording import BackgroundRecorder

    with options.file_errors(f"cannot record to {path}"):
        return BackgroundRecorder(path)
