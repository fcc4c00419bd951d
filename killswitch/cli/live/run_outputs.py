"""Outputs of `ksctl run` for other programs: traces and metrics by the OTEL_* variables, and the event stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from killswitch.cli.options import file_errors
from killswitch.cli.terminal import mention

if TYPE_CHECKING:
    from killswitch.accounts.opening import Written
    from killswitch.model.clock import Clock
    from killswitch.model.snapshot import Closing
    from killswitch.model.tracing import Tracer
    from killswitch.runner.event_emitter import EventTeller
    from killswitch.runner.notify.reports import Reporting
    from killswitch.runner.observers import Witness
    from killswitch.store.sql import SqlStore
    from killswitch.telemetry.background_writer import BackgroundWriter
    from killswitch.telemetry.metrics import Notifications
    from killswitch.telemetry.opened import Telemetry

Hide = Callable[[str], str]


@dataclass(slots=True)
class Watching:
    """Observers and telemetry of a run. `why` is the reason in its last event."""

    telemetry: Telemetry
    witnesses: list[Witness] = field(default_factory=list)
    why: str = "the run ended"
    closings: Callable[[], tuple[Closing, ...]] = tuple
    """Results of all closes, including those that ended after the last tick."""
    notifications: Callable[[], Notifications | None] = lambda: None
    """Delivery counts of the outbox, read at every tick; set once the outbox exists."""


@contextmanager
def watching(
    found: Written, store_at: str, events_at: str | None, clock: Clock, *, by_hand: bool = False
) -> Iterator[Watching]:
    """Open telemetry and the event stream, and close them with the reason of the end.

    A run that fails gives its error as the reason. ClickException if an output cannot be opened; `by_hand`: an operator
    command continues without telemetry that cannot be opened.
    """
    from killswitch.telemetry.opened import SILENT, open_telemetry
    from killswitch.telemetry.settings import TelemetryError

    discreet = _discreet(found)
    try:
        telemetry = open_telemetry(os.environ, found.policies, clock, store=_place(store_at), discreet=discreet)
    except TelemetryError as error:
        if not by_hand:
            raise
        mention(f"no traces and no metrics: {error}")
        telemetry = SILENT
    watch = Watching(telemetry)
    writer, teller = _events(watch, events_at, discreet(()))
    if telemetry.providers is not None:
        from killswitch.runner.event_emitter import Measuring

        watch.witnesses.append(Measuring(telemetry, lambda: watch.notifications()))  # noqa: PLW0108 - it is set later
    try:
        yield watch
    except BaseException as error:
        watch.why = f"{type(error).__name__}: {error}"
        raise
    finally:
        if writer is not None and teller is not None:
            teller.ended(clock.now(), watch.why, watch.closings())
            if not writer.close():
                mention(writer.problem or "the last events were not written in time")
        if not telemetry.shut_down() or telemetry.problem:
            mention(telemetry.problem or "the last traces and metrics were not exported in time")


@contextmanager
def reporting(store: SqlStore, store_at: str, tracer: Tracer, **pauses: float) -> Iterator[Reporting]:
    """Render runbooks and reports beside the store during a run, and once more at its end.

    `pauses` (`pause`, `pause_for_work`) override those of `Reporting`.
    """
    from killswitch.incident.report.rendering import folder_beside
    from killswitch.runner.notify.reports import LAST_WORDS, Reporting
    from killswitch.runner.process import leave_alone

    reports = Reporting(store, store_at, folder_beside(store_at), tracer=tracer, warmed_up=leave_alone, **pauses)
    try:
        yield reports
    finally:
        if not reports.close():
            mention(f"the last reports were not rendered within {LAST_WORDS:g} s; `ksctl report` renders them anew")
        elif reports.problem is not None:
            mention(reports.problem)


def _place(store_at: str) -> str:
    """The canonical path of the store."""
    return str(Path(store_at.removeprefix("sqlite:///")).resolve())


def _events(watch: Watching, events_at: str | None, hide: Hide) -> tuple[BackgroundWriter | None, EventTeller | None]:
    if events_at is None:
        return None, None
    from killswitch.runner.event_emitter import EventTeller
    from killswitch.telemetry.background_writer import BackgroundWriter

    with file_errors(f"cannot write events to {events_at}"):
        writer = BackgroundWriter(1 if events_at == "-" else events_at, "events")
    teller = EventTeller(writer, hide)
    watch.witnesses.append(teller)
    return writer, teller


def _discreet(found: Written) -> Callable[[Iterable[str]], Hide]:
    """Redaction of the credentials of all accounts and of further secrets."""
    from killswitch.accounts.credentials import resolve
    from killswitch.accounts.redaction import Redactor

    def discreet(further: Iterable[str]) -> Hide:
        known = [
            secret
            for account in found.accounts
            for secret in resolve(account.spec.credentials, account=account.metadata.name).values()
        ]
        return Redactor([*known, *further]).hide

    return discreet
