"""`ksctl run`: evaluate the policies at an interval, and act where armed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from killswitch.cli import options
from killswitch.cli.console import (
    print_memory_entry,
    run_next_to,
    write_in_background,
)
from killswitch.cli.live.run_console import RunConsole
from killswitch.cli.live.start_checks import StartFailures
from killswitch.cli.terminal import chosen_log, print_note
from killswitch.render.formats import count_of

if TYPE_CHECKING:
    from killswitch.accounts.arming import ArmedAccount
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.audit.anchor_settings import AnchorSettings
    from killswitch.cli.live.run_outputs import DeclaredRetention
    from killswitch.cli.live.starting_set import StartingSet
    from killswitch.execution.effects.performing import RunEnd
    from killswitch.gate.sentinel import SentinelWatch
    from killswitch.lab.recording import BackgroundRecorder
    from killswitch.model.store import Store
    from killswitch.model.tracing import Incidents
    from killswitch.preflight.key_rights import KeyWarning
    from killswitch.runner.assembly import LockPaths
    from killswitch.runner.hot_reload import ReloadAnswer
    from killswitch.runner.loop import Runner, RunnerPace
    from killswitch.runner.policy_files import PolicyFiles
    from killswitch.runner.sources.policy_source import PolicySource
    from killswitch.runner.tick_inputs import SpoolIntake
    from killswitch.server.child import ServerProcess
    from killswitch.watcher.own_beats import RunnerHeartbeat


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
@options.sentinel
@click.option("--shadow", metavar="DIR|REF",
              help="Evaluate another policy set next to this one, and act on nothing of it: a folder, or a git ref of "
                   "the repository of --policies. `ksctl shadow report` shows what it would have done.")  # fmt: skip
@click.option("--anchors", "anchors_at", type=options.UncheckedPath(dir_okay=False), metavar="FILE",
              help="Publish anchors of the record as this file declares; also after each firing, close and reset."
              )  # fmt: skip
@click.option("--retain", "retained_at", type=options.UncheckedPath(dir_okay=False), metavar="FILE",
              help="Remove what is older than this file declares, as often as it says: `ksctl store retain` in a "
                   "process next to the run. Not with --journal.")  # fmt: skip
@click.option("--record", type=Path, metavar="FILE", help="Append every snapshot to this recording.")
@click.option("--events", "events_at", metavar="FILE|-",
              help="Append events (JSON Lines) to FILE; with -, to stdout, and decisions go to stderr.")  # fmt: skip
@options.option("--min-free", type=options.SIZE, default="256MiB",
                help="Page when the disk of the store has less space than this.")  # fmt: skip
@click.option("--heartbeat", "heartbeat_to", metavar="DIR|URL", multiple=True,
              help="Send the heartbeat `runner` there after each tick: a way that a watcher listens on. May be given "
                   "more than once.")  # fmt: skip
@click.option("--ping", type=options.RECORD_TEXT, metavar="REFERENCE",
              help="Request this address after a tick, every 10 s: env:NAME or file:PATH with the address of a service "
                   "that notices when requests end.")  # fmt: skip
@click.option("--serve", "tokens_at", type=options.UncheckedPath(dir_okay=False), metavar="TOKENS",
              help="Start `ksctl serve` next to the run, with this file of tokens, and keep it up.")  # fmt: skip
@click.option("--serve-settings", "server_at", type=options.UncheckedPath(dir_okay=False), metavar="FILE",
              help="With --serve: its --settings.")  # fmt: skip
@options.option("--listen", default="127.0.0.1:8600", metavar="ADDRESS:PORT", help="With --serve: where it listens.")
@click.option("--ticks", type=click.IntRange(min=1), help="Stop after this many ticks. Default: run until SIGTERM.")
@options.journal
@options.log_format
@options.output
def run(
    policies_at: tuple[Path, ...], source_at: Path | None, store_at: str, live: bool, unnotified: bool,
    another_runner: bool, interval: float, read_timeout: float, lock_dir: Path | None, lock_file: Path | None,
    sentinel_at: Path | None, shadow: str | None, anchors_at: Path | None, retained_at: Path | None,
    record: Path | None, events_at: str | None, min_free: int, heartbeat_to: tuple[str, ...], ping: str | None,
    tokens_at: Path | None, server_at: Path | None, listen: str, ticks: int | None, journal: str | None, output: str,
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
    from killswitch.gate.sentinel import SentinelWatch, sentinel_of
    from killswitch.runner.claims import ClaimHolder, RunClaims
    from killswitch.runner.lease import this_process

    claim_holder = ClaimHolder(this_process(), str(Path(store_at.removeprefix("sqlite:///")).absolute()))
    served_by = _server(store_at, tokens_at, server_at, listen, sentinel_at)
    with StartFailures() as failures, RunClaims(claim_holder) as claims, served_by as served:
        from killswitch.audit.anchor_settings import read_anchor_settings
        from killswitch.cli.live.run_outputs import declared_retention
        from killswitch.cli.live.start_checks import checked_accounts
        from killswitch.cli.live.starting_set import starting_set
        from killswitch.preflight.run_start import claimed, lock_paths, unapprovable
        from killswitch.runner.loop import RunnerPace

        start = starting_set(policies_at, source_at, store_at)
        locks = lock_paths(store_at, lock_dir, lock_file)
        accounts, found_before = checked_accounts(
            start.loaded, store_at, locks, read_timeout, live=live, unnotified=unnotified, emergency=journal is not None
        )
        found_before += () if start.page is None else (("page", start.page),)
        of_claims = claimed(claims, start.loaded, accounts, locks, is_forced=another_runner)
        has_trust = start.source is not None and start.source.settings.trust is not None
        of_claims += unapprovable(start.loaded.policies, has_trust=has_trust)
        for _, text in of_claims:
            print_note(text)
        found_before += of_claims
        settings = _RunSettings(
            store_at, live, unnotified, RunnerPace(interval, read_timeout), locks, record, events_at, min_free, ticks,
            journal, output == "json", found_before, shadow, (*_own_heartbeat(heartbeat_to, ping), *served),
            SentinelWatch(sentinel_at or sentinel_of(store_at)),
            None if anchors_at is None else read_anchor_settings(anchors_at), declared_retention(retained_at, journal),
        )  # fmt: skip
        return _run(settings, start, accounts, failures)


class _RunSettings(Struct, frozen=True):
    """The options of a run, and the warnings of the checks before it."""

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
    shadow: str | None
    """The set of --shadow."""
    observers: tuple[RunnerHeartbeat | ServerProcess, ...]
    """What sends the runner's own heartbeats and keeps a server up, where that is wanted."""
    sentinel: SentinelWatch
    """What looks for the file whose existence halts everything."""
    anchors: AnchorSettings | None = None
    """Where anchors of the record are published."""
    retention: DeclaredRetention | None = None
    """What is removed of the store, and when."""


@contextmanager
def _server(
    store_at: str, tokens_at: Path | None, server_at: Path | None, listen: str, sentinel_at: Path | None
) -> Iterator[tuple[ServerProcess, ...]]:
    """The server of --serve for as long as the run lasts; none without it."""
    if tokens_at is None:
        yield ()
        return
    from killswitch.server.child import ServerProcess

    settings: tuple[str, ...] = () if server_at is None else ("--settings", str(server_at))
    settings += () if sentinel_at is None else ("--sentinel", str(sentinel_at))
    options_of_server = (
        "--store",
        store_at,
        "--tokens",
        str(tokens_at),
        "--listen",
        listen,
        "--log-format",
        chosen_log(),
        *settings,
    )
    server = ServerProcess(options_of_server, Path(store_at.removeprefix("sqlite:///")))
    server.start()
    try:
        yield (server,)
    finally:
        server.stop()


def _own_heartbeat(destinations: tuple[str, ...], ping: str | None) -> tuple[RunnerHeartbeat, ...]:
    """The observer of --heartbeat and --ping; none without either."""
    if not destinations and ping is None:
        return ()
    from killswitch.accounts.credentials import CredentialError, resolve_one
    from killswitch.client.heartbeat import require_destination
    from killswitch.watcher.own_beats import RunnerHeartbeat

    try:
        for each in destinations:
            require_destination(each)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--heartbeat") from error
    try:
        address = None if ping is None else resolve_one(ping)
    except CredentialError as error:
        raise click.BadParameter(str(error), param_hint="--ping") from error
    if address is not None and not address.startswith(("http://", "https://")):
        raise click.BadParameter("what it refers to is no http(s) address", param_hint="--ping")
    return (RunnerHeartbeat(destinations, address),)


def _run(settings: _RunSettings, start: StartingSet, accounts: dict[str, ArmedAccount], failures: StartFailures) -> int:
    """Run until the end; return the exit code."""
    from killswitch.cli.live import run_outputs
    from killswitch.cli.live.shadow import begin_shadow, open_shadows, shadow_observers
    from killswitch.cli.live.start_checks import require_expected
    from killswitch.cli.live.starting_set import connect, next_sets, set_of_start
    from killswitch.cli.session import acting_store
    from killswitch.embedding import run_parts
    from killswitch.preflight.run_start import arming_summary
    from killswitch.runner import process
    from killswitch.runner.assembly import assemble
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.disk_space import DiskSpace
    from killswitch.runner.expectation_check import ExpectationCheck
    from killswitch.runner.status_blob import keep_start

    clock, it, loaded, is_emergency = SystemClock(), settings, start.loaded, settings.journal is not None
    with (
        run_outputs.open_outputs(loaded, it.store_at, it.events_at, clock) as outputs,
        acting_store(it.store_at, it.journal, it.locks) as store,
        run_outputs.open_reports(store, it.store_at, outputs.telemetry.tracer) as reports,
        run_parts.open_gate_view(it.store_at, loaded, it.locks.folder, print_note) as gate_view,
        open_shadows(start, store, it.store_at, accounts, it.pace.interval, is_emergency=is_emergency) as shadows,
        run_outputs.open_anchors(it.anchors, store, clock, outputs),
        run_outputs.open_retention(it.retention, store, it.store_at, clock, outputs),
    ):
        store_path = run_parts.path_of_store(it.store_at) if it.journal in (None, "memory") else Path(it.journal)
        if not is_emergency:
            require_expected(loaded, accounts, store, it.locks.folder, it.pace.read_timeout)
        files = next_sets(start, store, it.store_at, clock)
        intake = run_parts.open_intake(store_path, store)
        console = _console(store, outputs.incidents, it, loaded)
        runner = failures.runner = assemble(
            loaded.policies, accounts, store, clock, it.pace,
            live=it.live, locks=it.locks, store_at=it.store_at,
            paths=tuple(str(path.resolve()) for path in start.policies_at), recorder=_recorder(it.record),
            observers=(
                console, reports, process.FirstAnswers(), files, ExpectationCheck(loaded.policies),
                DiskSpace(store, store_path.parent, it.min_free, clock.monotonic), *shadow_observers(shadows, files),
                *it.observers, gate_view, intake, it.sentinel, *outputs.observers,
            ),
            tracer=outputs.telemetry.tracer, closing_observer=outputs.closing_observer,
            incidents=outputs.incidents, timers=True, is_run=True, startup_notices=it.found_before, on_wait=print_note,
            on_acquired=partial(store.allow_memory, print_memory_entry),
            of_start=set_of_start(start, has_to_notify=it.live and not it.unnotified),
        )  # fmt: skip
        if shadows is not None:
            begin_shadow(shadows, it.shadow, start.policies_at, runner.clock.now())
        connect(files, runner, store, outputs)
        run_parts.connect_server(intake, runner, store_path)
        run_parts.connect_gate_view(gate_view, runner, accounts)
        keep_start(store, loaded.policies.digest, loaded.runbooks, it.record)
        print_note(f"running {loaded.policies.digest}; {arming_summary(accounts, live=it.live)}")
        outputs.closings, outputs.notifications = runner.closings, runner.notifications
        process.switch_threads_often()
        end = process.run(_until_stopped(runner, it.ticks, files, store_path, intake, it.sentinel))
        outputs.end_reason = end.reason
    is_armed = any(account.armed for account in accounts.values())
    _print_end(end, console, (*runner.stop_problems, store.trouble), is_armed=is_armed)
    return end.exit_code


def _console(store: Store, incidents: Incidents, settings: _RunSettings, loaded: LoadedPolicies) -> RunConsole:
    """What prints the run, with the thresholds as the policies write them."""
    from killswitch.incident.notify.message import trigger_texts

    texts, is_taken = trigger_texts(loaded.policies), settings.events_at == "-"
    return RunConsole(store, incidents, json=settings.json, err=is_taken, thresholds=texts)


def _print_end(end: RunEnd, console: RunConsole, problems: Iterable[str | None], *, is_armed: bool) -> None:
    """How the run has ended, and what it leaves behind."""
    if end.cause == "effect":
        print_note(end.reason)
    print_note(f"stopped after {count_of(console.ticks, 'tick')}; {console.stop_summary()}")
    for problem in filter(None, problems):
        print_note(problem)
    if is_armed:
        print_note("the lock files become stale now, which bots read as locked, until a runner is alive again")


async def _until_stopped(
    runner: Runner,
    ticks: int | None,
    files: PolicyFiles | PolicySource,
    store: Path,
    intake: SpoolIntake,
    sentinel: SentinelWatch,
) -> RunEnd:
    """Run until stopped. SIGHUP takes the policy files; a command in `store` or from a server begins a tick."""
    from killswitch.embedding.run_parts import following_inputs

    try:
        async with following_inputs(runner, store, intake, sentinel):
            return await run_next_to(
                intake.run(), runner, ticks, on_hangup=lambda: files.request(_print_reload, by="SIGHUP")
            )
    finally:
        files.stop()


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
