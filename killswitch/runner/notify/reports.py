"""Renders runbooks and reports of open incidents in a thread of its own, concurrently with the ticks.

A failure here is a problem that is reported while it lasts, and ends nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec.structs import replace

from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.document import Incident, RunbookFacts
from killswitch.incident.record.equity_curve import BEFORE, firings_of, points_before, points_since
from killswitch.incident.record.incident_books import books_key, encode_books, extended, kept_books
from killswitch.incident.record.incident_decisions import IncidentDecisions, encode_note, read_incidents, read_note
from killswitch.incident.record.value_corrections import (
    corrections_key,
    encode_corrections,
    kept_corrections,
    read_corrections,
)
from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.instant import SECOND, to_micros
from killswitch.model.snapshot import Snapshot
from killswitch.model.store import IncidentStore, decoded
from killswitch.model.tracing import NO_TRACER, Tracer, report_span
from killswitch.planning.exposures import Exposures
from killswitch.runner.observers import TickReport
from killswitch.runner.status_blob import LIVE_NAME, decode_view, last_tick, machines_now, started_as
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store
from killswitch.worker import Worker

CURVE_EVERY = 10 * SECOND
"""How often the equity curve of an open incident is updated (microseconds of the run's clock)."""
RENDERED_AT_LEAST = 60.0
"""Seconds after which an open incident is rendered again if only its equity has changed."""
PAUSE = 1.0
"""Least seconds between two passes: changes meanwhile are rendered together."""
PAUSE_FOR_WORK = 4.0
"""Factor of a pass's length for which the thread pauses after it: rendering takes at most a fifth of the time."""
STOP_TIMEOUT = 20.0
"""Seconds for which a stop waits for the last pass."""
STALLED_AFTER = 60.0
"""Seconds after which a pass counts as hanging in a disk: a problem, for which a stop does not wait."""
ENDED_LATELY = 5
"""Number of ended incidents that a start renders again: the previous run may have been killed before it did."""

_ENCODER = msgspec.json.Encoder(decimal_format="string")


class ReportRenderer:
    """An observer that keeps the files of open incidents up to date, and renders each once more after its reset."""

    def __init__(
        self,
        store: IncidentStore,
        store_at: str,
        folder: Path,
        *,
        tracer: Tracer = NO_TRACER,
        pause: float = PAUSE,
        pause_for_work: float = PAUSE_FOR_WORK,
        warmed_up: Callable[[], None] | None = None,
    ) -> None:
        self.store = store
        """The runner's store, for equity curves; everything is read from a read-only view at `store_at`."""
        self.store_at = store_at
        self.folder = folder
        self.tracer = tracer
        self.pause = pause
        self.pause_for_work = pause_for_work
        self.warmed_up = warmed_up
        """Called once, from the thread, when the rendering libraries are loaded."""
        self._worker = Worker("incident reports", self._step)
        self._rests_until = -math.inf
        self._last_progress: tuple[object, ...] = ()
        self._looked_at = 0
        self._open: frozenset[str] = frozenset()
        self._unsettled: set[str] = set()
        """Operator closes that were unfinished when they were last rendered."""
        self._books: dict[str, Exposures] = {}
        """Decision → the book in its tick, until it is kept with its incident."""
        self._first = True
        self._rendered: dict[str, tuple[bytes, float]] = {}
        """Incident → digest of its record as rendered, and when its files were written."""
        self._troubles: dict[str, str] = {}
        self._attempted = frozenset[str]()
        """The keys of everything that was rendered in this run, or failed to be."""

    @property
    def problem(self) -> str | None:
        """What could not be rendered, and why; None if everything was."""
        stalled = (self._stalled_message,) if self._stalled else ()
        return "; ".join((*stalled, *self._troubles.values())) or None

    @property
    def judges(self) -> tuple[str, ...]:
        """Only the incidents that were rendered in this run: older ones are not retried."""
        return ("reports/stalled", *(f"reports/{key}" for key in self._attempted))

    @property
    def alerts(self) -> Alerts:
        """A page for each document that could not be rendered; unknown before the first pass."""
        if self._stalled:
            return Alerts(alert_if("reports/stalled", self._stalled_message).found, ("reports",))
        found = together(alert_if(f"reports/{key}", text) for key, text in self._troubles.items())
        has_passed = self._rests_until > -math.inf
        return found if has_passed else found + Alerts(unknown=("reports",))

    @property
    def _stalled_message(self) -> str:
        return f"reports are stalled: {self.folder}, or its disk, accepts no writes"

    @property
    def _stalled(self) -> bool:
        return self._worker.hangs_for(STALLED_AFTER)

    def ticked(self, report: TickReport) -> None:
        """Request a pass if anything has changed. The thread starts with the first tick."""
        now = to_micros(report.snapshot.as_of)
        if report.decisions and (book := report.exposures()) is not None:
            self._books.update({each.id: book for each in report.decisions if not each.is_suspicion})
        progress = _what_moves(report.snapshot)
        has_changed = report.decisions or report.notices or report.snapshot.events or progress != self._last_progress
        due = bool(self._open or self._troubles) and now - self._looked_at >= CURVE_EVERY
        if has_changed or due or not self._worker.has_begun:
            self._last_progress, self._looked_at = progress, now
            self._worker.wake()

    def close(self, timeout: float = STOP_TIMEOUT) -> bool:
        """Run one last pass; whether it ended within `timeout` seconds."""
        return self._worker.stop(0.0 if self._stalled else timeout)

    def wait(self, timeout: float) -> bool:
        """Wait until everything requested so far is rendered, for at most `timeout` seconds; whether it is."""
        return self._worker.wait(timeout)

    def _step(self) -> None:
        """Run one pass, after the rest that the one before needs."""
        began = time.monotonic()
        if began < self._rests_until:
            self._worker.pause(self._rests_until - began)
            began = time.monotonic()
        self._tried("incidents", "the incidents cannot be read", self._pass)
        ended = time.monotonic()
        self._rests_until = ended + max(self.pause, (ended - began) * self.pause_for_work)

    def _pass(self) -> None:
        with closing(open_store(self.store_at, read_only=True)) as view:
            found = read_incidents(view)
            open_ids = {recorded.id for recorded in found if _is_open(recorded)}
            newest = found[-ENDED_LATELY:]
            wanted = open_ids | self._open | self._unsettled | self._troubles.keys()
            wanted |= {recorded.id for recorded in newest if self._first or recorded.is_manual}
            started = started_as(view, self.store_at)
            for recorded in found:
                if recorded.id in wanted:
                    self._one(view, recorded, started)
            self._open, self._first = frozenset(open_ids), False

    def _one(self, view: IncidentStore, recorded: IncidentDecisions, started: StartedAs) -> None:
        is_followed = _is_open(recorded) or recorded.id in self._open or view.incident_note(recorded.id) is None
        if is_followed:
            curve = f"the equity curve of incident {recorded.id} is not kept"
            self._tried(f"{recorded.id} curve", curve, lambda: self._store_curve(view, recorded))
        if is_followed or recorded.id in self._unsettled:
            books = f"exposure and P&L of incident {recorded.id} are not kept"
            self._tried(f"{recorded.id} books", books, lambda: self._keep_books(view, recorded))
        report = f"the report of incident {recorded.id} cannot be written"
        self._tried(recorded.id, report, lambda: self._render(view, recorded, started))

    def _store_curve(self, view: IncidentStore, recorded: IncidentDecisions) -> None:
        """Store the note of the incident, and the due points of its equity curve until its reset."""
        opening, reset = recorded.decisions[0], recorded.reset
        opened, known = to_micros(opening.as_of), view.equity_curve(recorded.id)
        since = known[-1].at + 1 if known else opened - BEFORE
        rows = view.rows(opening.policy, opening.scope, since)
        if reset is not None:
            rows = [row for row in rows if row.at <= to_micros(reset.as_of)]
        points = [] if known else points_before(rows, opened)
        newest = (points or known)[-1] if points or known else None
        points += points_since(rows, firings_of(recorded.decisions), newest)
        restating = read_corrections(view, opening)
        if restating != kept_corrections(view, opening.id):
            self.store.put_live(corrections_key(opening.id), encode_corrections(restating))
        if points or view.incident_note(recorded.id) is None:
            self.store.keep_incident(recorded.id, encode_note(read_note(view, opening)), points)

    def _keep_books(self, view: IncidentStore, recorded: IncidentDecisions) -> None:
        """Store exposure and P&L of the book in the tick that opened the incident, and of the newest tick."""
        opening, reset = recorded.decisions[0], recorded.reset
        status = decoded(decode_view, view.live(LIVE_NAME))
        newest = None if status is None else status.exposures or None
        if reset is not None:
            newest = self._books.get(reset.id, newest)
        kept = kept_books(view, recorded.id)
        found = extended(kept, self._books.get(opening.id), newest, opening, reset)
        if found != kept:
            self.store.put_live(books_key(recorded.id), encode_books(found))
        for each in (*recorded.decisions, *(() if reset is None else (reset,))):
            self._books.pop(each.id, None)

    def _render(self, view: IncidentStore, recorded: IncidentDecisions, started: StartedAs) -> None:
        from killswitch.incident.incident_builder import incident_of

        incident = incident_of(view, recorded, started, last_tick(view), machines_now(view))
        if recorded.is_manual:
            (self._unsettled.add if incident.state == "open" else self._unsettled.discard)(recorded.id)
        rendered, at = self._rendered.get(recorded.id, (b"", 0.0))
        digest = blake2b(_ENCODER.encode(_lasting_parts(incident)), digest_size=16).digest()
        is_recent = time.monotonic() - at < RENDERED_AT_LEAST and not self._worker.is_stopping
        if digest == rendered and (incident.state == "closed" or is_recent):
            return
        with report_span(self.tracer, recorded.id, recorded.decisions[0].as_of):
            self._files(incident, read_note(view, recorded.decisions[0]).runbooks)
        if self.warmed_up is not None:
            self.warmed_up()
            self.warmed_up = None
        self._rendered[recorded.id] = (digest, time.monotonic())

    def _files(self, incident: Incident, runbooks: Mapping[str, RunbookFacts]) -> None:
        """Write the runbooks, which people on call wait for, and then the report.

        A runbook that fails is replaced by a generic one with the current commands, and does not delay the report.
        """
        from killswitch.incident.report.rendering import generic_runbook, report, runbook, write_document
        from killswitch.incident.report.templates import RenderingError

        failed = []
        for stage in dict.fromkeys(firing.stage for firing in incident.firings if firing.level):
            try:
                rendered = runbook(incident, stage, runbooks.get(stage))
            except RenderingError as error:
                failed.append(error)
                rendered = generic_runbook(incident, stage, str(error))
            write_document(self.folder, incident.id, f"runbook-{stage}", rendered)
        write_document(self.folder, incident.id, "report", report(incident))
        if failed:
            raise failed[0]

    def _tried(self, key: str, what: str, do: Callable[[], None]) -> None:
        """Call `work`; a failure is a problem until it succeeds again."""
        try:
            do()
        except Exception as error:  # noqa: BLE001 - a defect in a page must end neither the run nor other pages
            cause = str(error) if isinstance(error, StoreError | OSError) else f"{type(error).__name__}: {error}"
            self._troubles = {**self._troubles, key: f"{what}: {cause}"}
        else:
            self._troubles = {name: text for name, text in self._troubles.items() if name != key}
        self._attempted |= {key}


def _is_open(recorded: IncidentDecisions) -> bool:
    """Whether the incident waits for a reset. An operator's close needs none: it is rendered when closings change."""
    return recorded.reset is None and not recorded.is_manual


def _what_moves(snapshot: Snapshot) -> tuple[object, ...]:
    """The progress of the closings, whose change changes a report."""
    return tuple((each.decision, each.status, each.residual) for each in snapshot.closings)


def _lasting_parts(incident: Incident) -> Incident:
    """The record without the values that change with every tick."""
    return replace(incident, as_of=incident.opened_at, lasted="", course=None, ahead=None)
