"""Publishes anchors in parallel with the ticks: at an interval, and at once after a firing, a close and a reset.

A publisher that fails is an entry of the record, an alert and a metric, and delays nothing. What an anchor covers is
the store's record up to its number: the entry about the anchor itself is the first one that it does not cover.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from killswitch.audit.anchor_settings import AnchorSettings, TimeStamps
from killswitch.audit.git_anchors import publish_commit
from killswitch.audit.log_files import AuditError, server_tip
from killswitch.audit.time_stamps import ANSWER_SUFFIX, fetch_time_stamp
from killswitch.gate.files import replace_file
from killswitch.model.alert import Alerts, alert_if, together
from killswitch.model.decision import Decision
from killswitch.model.record_entry import RecordEntry, with_known
from killswitch.model.snapshot import IN_PROGRESS, Snapshot
from killswitch.record.anchors import Anchor, anchor_text
from killswitch.store.errors import StoreError
from killswitch.store.record_chain import RecordTip
from killswitch.telemetry.metrics import AnchorGauges
from killswitch.worker import Worker

AT_END: Final = 5.0
"""Seconds that the end of a run waits for its last anchor."""


class AnchoredStore(Protocol):
    """The part of a store that anchors need."""

    @property
    def in_memory_because(self) -> str | None: ...

    def record_tip(self) -> RecordTip | None: ...

    def add_to_record(self, entries: Sequence[RecordEntry]) -> None: ...


class TickOutcome(Protocol):
    """The part of a tick's report that forces an anchor."""

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def decisions(self) -> tuple[Decision, ...]: ...


Publish = Callable[[tuple[Anchor, ...]], str | None]
"""Publishes anchors and returns where they are found; raises AuditError."""


def publishers(settings: AnchorSettings) -> dict[str, Publish]:
    """The publishers that the settings declare, by the names of their places."""
    folder, found = Path(settings.folder), {}  # type: Path, dict[str, Publish]
    if (git := settings.git) is not None:
        found["git"] = lambda anchors: publish_commit(git, folder / "git", anchors)
    for number, stamps in enumerate(settings.time_stamps, start=1):
        found["rfc3161" if number == 1 else f"rfc3161-{number}"] = partial(_stamp, stamps, folder, number)
    return found


def _stamp(settings: TimeStamps, folder: Path, number: int, anchors: tuple[Anchor, ...]) -> str:
    text = "".join(map(anchor_text, anchors)).encode()
    return str(_keep(folder, anchors, text, fetch_time_stamp(settings, text), number))


def _keep(folder: Path, anchors: tuple[Anchor, ...], text: bytes, answer: bytes, number: int) -> Path:
    """Keep a time stamp next to what it stamps. Raises AuditError."""
    last = max(each.number for each in anchors)
    file = folder / f"{last:012}-{number}.anchor"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(file, text)
        replace_file(file.with_suffix(ANSWER_SUFFIX), answer)
    except OSError as error:
        raise AuditError(f"the time stamp cannot be kept in {folder}: {error.strerror or error}") from error
    return file


class AnchorWorker:
    """An observer of a run that publishes anchors on a thread of its own."""

    def __init__(
        self,
        store: AnchoredStore,
        places: Mapping[str, Publish],
        every: float,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        others: Callable[[], tuple[Anchor, ...]] = tuple,
    ) -> None:
        """`every`: seconds between two anchors that nothing forces. `others`: the tips of other chains."""
        self._store = store
        self._places = dict(places)
        self._every = every
        self._now = now
        self._monotonic = monotonic
        self._others = others
        self._next = monotonic()
        self._closing: frozenset[tuple[str, str | None]] = frozenset()
        self._published = 0
        """Number of the newest anchor that any place has."""
        self._written = -1
        """Number of the last line that an anchor itself has written."""
        self._published_others: tuple[Anchor, ...] = ()
        self._problems: dict[str, str] = {}
        self._worker = Worker("anchors", self.publish)

    @property
    def judges(self) -> tuple[str, ...]:
        return ("anchor",)

    @property
    def alerts(self) -> Alerts:
        """A page for each place that has not got the newest anchor."""
        return together(alert_if(f"anchor/{place}", text) for place, text in self._problems.items())

    def gauges(self) -> AnchorGauges:
        """What metrics show, from memory and the store's tip."""
        tip = self._store.record_tip()
        uncovered = 0 if tip is None else max(0, tip.number - self._published)
        return AnchorGauges(uncovered, {place: place in self._problems for place in self._places})

    def ticked(self, report: TickOutcome) -> None:
        """Begin an anchor where one is due, or something forces it."""
        at_work = {(each.decision, each.scope) for each in report.snapshot.closings if each.status in IN_PROGRESS}
        is_forced = any(not each.is_suspicion for each in report.decisions) or bool(self._closing - at_work)
        self._closing = frozenset(at_work)
        if is_forced or self._monotonic() >= self._next:
            self._next = self._monotonic() + self._every
            self._worker.wake()

    def publish(self) -> None:
        """Publish the tip to every place; a step of the worker. Nothing is published again for an anchor's own line."""
        tip = self._store.record_tip()
        if tip is None or self._store.in_memory_because is not None:
            return
        others = self._others()
        is_known = tip.number in (self._published, self._written) and others == self._published_others
        if is_known and not self._problems:
            return
        anchors = (Anchor(tip.chain, tip.number, tip.root.hex()), *others)
        entries = []
        for place, publish in self._places.items():
            where, why = None, None
            try:
                where = publish(anchors)
            except (AuditError, OSError, ValueError) as error:
                why = str(error)
            if why is None:
                self._problems.pop(place, None)
                self._published = tip.number
            else:
                self._problems[place] = f"the anchor of line {tip.number} was not published to {place}: {why}"
            entries.append(anchor_entry(self._now(), place, anchors[0], where, why))
        self._published_others = others
        self._store.add_to_record(entries)
        self._written = tip.number + len(entries)

    def finish(self, timeout: float = AT_END) -> bool:
        """Publish once more, and end; whether that was done in time."""
        self._worker.wake()
        done = self._worker.wait(timeout)
        self._worker.begin_stop()
        return done


def tip_of_servers(store_at: str) -> tuple[Anchor, ...]:
    """The end of the chain of a store's servers, for `others`; empty where there is none, or none that can be read.

    One that cannot be read is not anchored, and prevents no anchor of the store: `ksctl audit verify` shows it.
    """
    try:
        tip = server_tip(Path(store_at.removeprefix("sqlite:///")))
    except StoreError:
        return ()
    return () if tip is None else (tip,)


def anchor_entry(at: datetime, place: str, anchor: Anchor, where: str | None, why: str | None) -> RecordEntry:
    """The entry about an anchor that was published, or could not be because of `why`."""
    fields = with_known({
        "place": place, "number": anchor.number, "root": anchor.root, "result": "failed" if why else "published",
    })  # fmt: skip
    return RecordEntry("anchor", at, fields, with_known({"where": where, "error": why}))
