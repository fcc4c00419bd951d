"""Outputs of `ksctl run` for other programs: traces and metrics by the OTEL_* variables, and the event stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from killswitch.cli.options import file_errors
from killswitch.cli.terminal import hide_in_log, print_note
from killswitch.model.tracing import Incidents

if TYPE_CHECKING:
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.audit.anchor_settings import AnchorSettings
    from killswitch.audit.retention_settings import RetentionSettings
    from killswitch.journal.entries import ClosingObserver
    from killswitch.model.clock import Clock
    from killswitch.model.snapshot import Closing
    from killswitch.model.tracing import Tracer
    from killswitch.runner.event_emitter import EventEmitter
    from killswitch.runner.notify.reports import ReportRenderer
    from killswitch.runner.observers import Observer
    from killswitch.runner.policy_files import PolicyFilesState
    from killswitch.store.sql import SqlStore
    from killswitch.telemetry.background_writer import BackgroundWriter
    from killswitch.telemetry.metrics import AnchorGauges, NotificationCounts, SourceGauges
    from killswitch.telemetry.opened import Telemetry

Redact = Callable[[str], str]


class DeclaredRetention(Struct, frozen=True):
    """The file that declares the retention of a run, and what it has."""

    file: Path
    settings: RetentionSettings


class RunOutputs(Struct):
    """Observers and telemetry of a run. `end_reason` is in its last event."""

    telemetry: Telemetry
    observers: list[Observer] = field(default_factory=list)
    end_reason: str = "the run ended"
    closings: Callable[[], tuple[Closing, ...]] = tuple
    """Results of all closes, including those that ended after the last tick."""
    notifications: Callable[[], NotificationCounts | None] = lambda: None
    """Delivery counts of the outbox, read at every tick; set once the outbox exists."""
    policy_files: Callable[[], PolicyFilesState | None] = lambda: None
    """Whether the policy files are those that run; set in a run."""
    source: Callable[[], SourceGauges | None] = lambda: None
    """How the source of the policies is; set in a run with one."""
    emitter: EventEmitter | None = None
    """Writes the event stream; None without one."""

    incidents: Incidents = field(default_factory=Incidents)
    """The incidents that spans and log lines name."""

    @property
    def closing_observer(self) -> ClosingObserver:
        """What follows the journal of closes: traces, metrics, and the event stream."""
        if self.emitter is None:
            return self.telemetry.closing_observer
        from killswitch.runner.order_reconciliation import CombinedClosingObserver

        return CombinedClosingObserver(self.telemetry.closing_observer, self.emitter)

    anchors: Callable[[], AnchorGauges | None] = lambda: None
    """What no anchor covers; set in a run that publishes anchors."""


@contextmanager
def open_outputs(
    loaded: LoadedPolicies, store_at: str, events_at: str | None, clock: Clock, *, operator_command: bool = False
) -> Iterator[RunOutputs]:
    """Open telemetry and the event stream, and close them with the reason of the end.

    If the run fails, the reason is its error. ClickException if an output cannot be opened. `operator_command`:
    telemetry that cannot be opened prints a message, and the command continues.
    """
    from killswitch.telemetry.opened import SILENT, open_telemetry
    from killswitch.telemetry.settings import TelemetryError

    redactor_for = _redaction(loaded)
    store_path = str(Path(store_at.removeprefix("sqlite:///")).resolve())
    hide_in_log(redactor_for(()))
    incidents = Incidents()
    try:
        telemetry = open_telemetry(os.environ, clock, store=store_path, redaction=redactor_for, incidents=incidents)
    except TelemetryError as error:
        if not operator_command:
            raise
        print_note(f"no traces and no metrics: {error}")
        telemetry = SILENT
    outputs = RunOutputs(telemetry, incidents=incidents)
    writer, emitter = _events(outputs, events_at, redactor_for(()))
    if telemetry.providers is not None:
        from killswitch.runner.event_emitter import MetricsRecorder

        notifications = lambda: outputs.notifications()  # noqa: E731, PLW0108 - replaced later
        policy_files = lambda: outputs.policy_files()  # noqa: E731, PLW0108 - replaced later
        source = lambda: outputs.source()  # noqa: E731, PLW0108 - replaced later
        anchors = lambda: outputs.anchors()  # noqa: E731, PLW0108 - replaced later
        outputs.observers.append(MetricsRecorder(telemetry, notifications, policy_files, source, anchors))
    try:
        yield outputs
    except BaseException as error:
        outputs.end_reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        if writer is not None and emitter is not None:
            emitter.ended(clock.now(), outputs.end_reason, outputs.closings())
            if not writer.close():
                print_note(writer.problem or "the last events were not written in time")
        if not telemetry.shut_down() or telemetry.problems:
            print_note(
                "; ".join(telemetry.problems.values()) or "the last traces and metrics were not exported in time"
            )


@contextmanager
def open_reports(store: SqlStore, store_at: str, tracer: Tracer, **pauses: float) -> Iterator[ReportRenderer]:
    """Render runbooks and reports next to the store during a run, and once more at its end.

    `pauses` (`pause`, `pause_for_work`) override those of `ReportRenderer`.
    """
    from killswitch.incident.record.checklist import incidents_folder
    from killswitch.runner.notify.reports import STOP_TIMEOUT, ReportRenderer
    from killswitch.runner.process import freeze_garbage_collection

    reports = ReportRenderer(
        store, store_at, incidents_folder(store_at), tracer=tracer, warmed_up=freeze_garbage_collection, **pauses
    )
    try:
        yield reports
    finally:
        if not reports.close():
            print_note(
                f"the last reports were not rendered within {STOP_TIMEOUT:g} s; `ksctl report` renders them again"
            )
        elif reports.problem is not None:
            print_note(reports.problem)


@contextmanager
def open_anchors(settings: AnchorSettings | None, store: SqlStore, clock: Clock, outputs: RunOutputs) -> Iterator[None]:
    """Publish anchors during a run with these settings, and once more at its end; nothing without them."""
    if settings is None:
        yield
        return
    from killswitch.audit.anchor_worker import AT_END, AnchorWorker, publishers, tip_of_servers

    worker = AnchorWorker(
        store, publishers(settings), settings.seconds, clock.now, clock.monotonic, lambda: tip_of_servers(store.place)
    )
    outputs.observers.append(worker)
    outputs.anchors = worker.gauges
    try:
        yield
    finally:
        if not worker.finish():
            print_note(f"the last anchor was not published within {AT_END:g} s")


def declared_retention(file: Path | None, journal: str | None) -> DeclaredRetention | None:
    """What the file declares; None without one, and with --journal. Raises AuditError where it has no schedule."""
    if file is None:
        return None
    from killswitch.audit.log_files import AuditError
    from killswitch.audit.retention_settings import read_retention_settings

    settings = read_retention_settings(file)
    if settings.every is None:
        raise AuditError(f'{file} does not declare how often a run does it: add `every = "1d"`')
    if journal is not None:
        print_note("nothing is removed by --retain while --journal is used")
        return None
    return DeclaredRetention(file.absolute(), settings)


@contextmanager
def open_retention(
    declared: DeclaredRetention | None, store: SqlStore, store_at: str, clock: Clock, outputs: RunOutputs
) -> Iterator[None]:
    """Carry out the declared retention of the store on its schedule during a run; nothing without a declaration."""
    if declared is None:
        yield
        return
    from killswitch.audit.retention_worker import RetentionWorker
    from killswitch.embedding.run_parts import path_of_store

    place = path_of_store(store_at).absolute()
    worker = RetentionWorker(declared.file, declared.settings, place, store, clock.now, clock.monotonic)
    outputs.observers.append(worker)
    try:
        yield
    finally:
        if not worker.finish():
            print_note("the retention that is under way did not end in time, and was killed: the next one goes on")


def _events(outputs: RunOutputs, at: str | None, redact: Redact) -> tuple[BackgroundWriter | None, EventEmitter | None]:
    if at is None:
        return None, None
    from killswitch.runner.event_emitter import EventEmitter
    from killswitch.telemetry.background_writer import BackgroundWriter

    with file_errors(f"cannot write events to {at}"):
        writer = BackgroundWriter(1 if at == "-" else at, "events")
    emitter = outputs.emitter = EventEmitter(writer, redact)
    outputs.observers.append(emitter)
    return writer, emitter


def _redaction(loaded: LoadedPolicies) -> Callable[[Iterable[str]], Redact]:
    """Redaction of the credentials of all accounts and of further secrets."""
    from killswitch.accounts.credentials import resolve
    from killswitch.accounts.redaction import Redactor

    def redactor_for(further: Iterable[str]) -> Redact:
        secrets = [
            secret
            for account in loaded.accounts
            for secret in resolve(account.spec.credentials, account=account.metadata.name).values()
        ]
        return Redactor([*secrets, *further]).hide

    return redactor_for
