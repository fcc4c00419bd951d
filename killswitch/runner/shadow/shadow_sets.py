"""The shadow sets of a run: begun and ended between two ticks, given every snapshot after the tick has acted.

A shadow set sends nothing to a venue and writes no lock: what would have fired is a line of the run's log, and in the
store of the set. Where that differs from the deployed set, routes that name the policy `shadow` receive it. What is
wrong with a set is a warning about it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from killswitch.model.alert import NO_ALERTS, SHADOW_SETS, Alert, Alerts
from killswitch.model.applied_set import AppliedSet, PolicyFile, PolicyOrigin, folder_digest
from killswitch.model.instant import to_micros
from killswitch.model.store import BREACH_ANSWERS, FLAGS, LOCKED_BOOKS, OWN_QUANTITIES, REALISED, RECOVERY, Store
from killswitch.render.formats import count_of, instant
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.observers import TickReport
from killswitch.runner.shadow.child_process import COMMAND, ShadowProcess
from killswitch.runner.shadow.comparison import FiringComparison, difference_text
from killswitch.runner.shadow.evaluation import Fired, ShadowSeed, ShadowStart, fired
from killswitch.runner.shadow.record import (
    SHADOW,
    ShadowReason,
    ShadowRecord,
    encode_record,
    of_shadow,
    shadow_folder,
    shadow_records,
)
from killswitch.source.candidate import Candidate

MOST: Final = 4
"""Number of shadow sets at one time: each is a process."""
MEMORY: Final = 2 << 30
"""The most memory of the process of a shadow set, in bytes."""
KEPT_FOR: Final = timedelta(days=90)
"""How long files and store of a set that has ended are kept."""
STOP_WITHIN: Final = 5.0
"""Seconds that the end of a run waits for each process."""
MICROSECOND: Final = timedelta(microseconds=1)
_SEEDED: Final = (LOCKED_BOOKS, BREACH_ANSWERS, FLAGS, OWN_QUANTITIES, REALISED, RECOVERY)


class ShadowRefusedError(Exception):
    """A shadow set cannot begin; the message says why."""


class ActiveSet(Struct):
    """A shadow set that is evaluated."""

    record: ShadowRecord
    process: ShadowProcess
    firings: FiringComparison = field(default_factory=FiringComparison)


class ShadowSets:
    """An observer with the shadow sets that are active."""

    def __init__(
        self, store: Store, store_at: str, armed: Iterable[str], interval: float, log: Callable[[str], None],
        command: Sequence[str] = COMMAND, *, deployed: AppliedSet | None = None, previous_for: timedelta | None = None,
    ) -> None:  # fmt: skip
        """`armed`: the accounts that the run acts on. `log`: receives what would have fired, one line each.

        `deployed`: the set of the start. `previous_for`: for how long a set stays in shadow after another has taken
        its place; None: not at all.
        """
        self._store = store
        self._store_at = store_at
        self._armed = tuple(sorted(armed))
        self._interval = interval
        self._log = log
        self._command = command
        self._deployed = deployed
        self._previous_for = previous_for
        self._now: datetime | None = None
        """The last tick."""
        self._active: dict[str, ActiveSet] = {}
        self._differences: tuple[Alert, ...] = ()
        """What the last tick found."""

    def resume(self, now: datetime) -> None:
        """Continue the shadow sets of the run before, whose time is not over at `now`, and remove those of long ago."""
        for record in shadow_records(self._store):
            if record.is_active and (record.until is None or record.until > now):
                self._start(record, ShadowSeed(to_micros(now)))
            elif record.is_active:
                self._put(replace(record, ended_at=now))
            elif record.ended_at is not None and record.ended_at + KEPT_FOR < now:
                self._remove(record)

    def begin(
        self, files: Sequence[PolicyFile], origin: PolicyOrigin, until: datetime | None, now: datetime,
        reason: ShadowReason = "candidate",
    ) -> str:  # fmt: skip
        """Evaluate a set from the next tick on until `until`, and return its id.

        Call it between two ticks, on the thread of the run: it begins with the states of the deployed set after the
        last tick, at `now`. A set that is in shadow already continues, with the new end. ShadowRefusedError if it
        cannot begin; no error of the set itself is raised, here or later.
        """
        digest, id_ = folder_digest(files), _id_of(files)
        if (known := self._active.get(id_)) is not None:
            known.record = replace(known.record, until=until, reason=reason, origin=origin)
            self._put(known.record)
            return id_
        if len(self._active) >= MOST:
            raise ShadowRefusedError(f"{MOST} sets are in shadow already; end one first")
        folder = shadow_folder(self._store_at)
        try:
            _write(folder / id_, files)
        except (OSError, ValueError) as error:
            raise ShadowRefusedError(f"its files cannot be written to {folder / id_}: {error}") from error
        record = ShadowRecord(
            id=id_, reason=reason, origin=replace(origin, folder_digest=digest), begun_at=now, until=until,
            store_at=str(folder / f"{id_}.sqlite"),
        )  # fmt: skip
        self._put(record)
        live = {name: blob for name in _SEEDED if (blob := self._store.live(name))}
        self._start(record, ShadowSeed(to_micros(now), tuple(self._store.states()), live))
        return id_

    def end(self, id_: str, now: datetime) -> None:
        """End a shadow set, without waiting for its process; what it has recorded stays.

        Does nothing for one that is not active.
        """
        if (found := self._active.pop(id_, None)) is not None:
            self._put(replace(found.record, ended_at=now))
            threading.Thread(target=found.process.stop, args=(STOP_WITHIN,), name="shadow end", daemon=True).start()

    def reload(self, taken: TakenSet) -> None:
        """After another set was taken: it is no candidate any more, and the one before stays in shadow for its time.

        The store still has the states of the one before, because the first tick of the new one is not committed.
        """
        before, self._deployed = self._deployed, taken.in_force
        now, length = self._now, self._previous_for
        if now is None:
            return
        self.end(_id_of(taken.in_force.files), now)
        if before is not None and before.files and length:
            try:
                self.begin(before.files, before.origin, now + length, now, "previous")
            except ShadowRefusedError as error:
                self._log(f"the set before {taken.in_force.digest[:19]} does not stay in shadow: {error}")

    def time_of(self, digest: str) -> timedelta:
        """For how long the active set of this folder digest was in shadow, without gaps; zero for any other."""
        found = (it.process for it in self._active.values() if it.record.origin.folder_digest == digest)
        return timedelta(seconds=max((each.seconds for each in found), default=0.0))

    @property
    def active(self) -> tuple[ShadowRecord, ...]:
        """The shadow sets that are evaluated."""
        return tuple(each.record for each in self._active.values())

    @property
    def judges(self) -> tuple[str, ...]:
        return ("shadow",)

    @property
    def alerts(self) -> Alerts:
        """A warning for each set that is not evaluated, and each difference from the deployed set."""
        found = [*self._differences]
        for record, why in ((each.record, each.process.problem) for each in self._active.values()):
            if why is not None:
                text = f"the shadow set {record.id} of {record.origin.source} is not evaluated: {why}"
                found.append(Alert(f"shadow/{record.id}", "warning", text, over=f"the shadow set {record.id} goes on"))
        return Alerts(tuple(found))

    def ticked(self, report: TickReport) -> None:
        """Pass on the snapshot, record what was answered, and end what is over."""
        snapshot = report.snapshot
        self._now = snapshot.as_of
        deployed = [fired(each) for each in of_shadow(report.decisions)]
        differences: list[Alert] = []
        for id_, each in tuple(self._active.items()):
            record, process = each.record, each.process
            if record.until is not None and snapshot.as_of >= record.until:
                self.end(id_, snapshot.as_of)
                continue
            process.put(snapshot)
            process.check()
            seen, answers = process.seen, process.answers()
            digest = next((answer.digest for answer in reversed(answers) if answer.digest), record.digest)
            firings = [firing for answer in answers for firing in answer.fired]
            for firing in firings:
                self._log(_line(record, firing))
            each.firings.add(firings, deployed)
            for firing, what in each.firings.differences(seen, process.was_lost):
                differences.append(_difference(record, firing, what))
            after = replace(record, digest=digest, problem=process.problem or record.problem)
            if after != record:
                each.record = after
                self._put(after)
        self._differences = tuple(differences)

    def close(self, timeout: float = STOP_WITHIN) -> tuple[str, ...]:
        """Stop every process at the end of the run; the sets continue in the next run. A message for each problem."""
        problems = []
        for each in self._active.values():
            if not each.process.stop(timeout):
                problems.append(
                    f"the shadow set {each.record.id} did not end within {timeout:g} s: its last ticks are lost"
                )
        self._active.clear()
        return tuple(problems)

    def _start(self, record: ShadowRecord, seed: ShadowSeed) -> None:
        folder = shadow_folder(self._store_at) / record.id
        start = ShadowStart(
            folder=str(folder), store_at=record.store_at, source_at=self._store_at, armed=self._armed,
            commit=record.origin.commit, seed=seed,
            longest_gap=max(5.0, 3 * self._interval), memory=MEMORY,
        )  # fmt: skip
        self._active[record.id] = ActiveSet(record, ShadowProcess(record.id, lambda: start, self._command))

    def _remove(self, record: ShadowRecord) -> None:
        """Remove what is left of a set; of one whose files cannot be removed the record stays."""
        folder = shadow_folder(self._store_at)
        try:
            if (folder / record.id).exists():
                shutil.rmtree(folder / record.id)
            for file in folder.glob(f"{record.id}.sqlite*"):
                file.unlink(missing_ok=True)
        except OSError as error:
            self._log(f"the shadow set {record.id} of long ago cannot be removed: {error}")
            return
        self._store.put_live(f"{SHADOW}{record.id}", b"")

    def _put(self, record: ShadowRecord) -> None:
        self._store.put_live(f"{SHADOW}{record.id}", encode_record(record))


class RequiresShadow(Protocol):
    """A source of policies that has its head in shadow before it takes it."""

    @property
    def for_shadow(self) -> Candidate | None: ...

    def was_in_shadow(self, digest: str, micros: int) -> None: ...


class SourceShadows:
    """An observer that has the head of a source in shadow for as long as the source waits for it."""

    def __init__(self, sets: ShadowSets, source: RequiresShadow, name: str) -> None:
        """`name`: of the source."""
        self._sets = sets
        self._source = source
        self._name = name
        self._begun: str | None = None
        self._is_first = True
        self._refused: str | None = None

    @property
    def judges(self) -> tuple[str, ...]:
        return ("shadow",)

    @property
    def alerts(self) -> Alerts:
        """A warning while the head waits for time in shadow and cannot be in shadow."""
        if self._refused is None:
            return NO_ALERTS
        text = f"the head of the source {self._name} waits for its time in shadow, and cannot begin: {self._refused}"
        return Alerts((Alert("shadow/head", "warning", text, over="the head of the source is in shadow"),))

    def ticked(self, report: TickReport) -> None:
        """Begin with the head of the source, note how long that was in shadow, and end what it waits for no more."""
        head, now = self._source.for_shadow, report.snapshot.as_of
        wanted = None if head is None else _id_of(head.files)
        if self._is_first:  # one that the run before has left is ended, unless the source waits for it again
            left = (it for it in self._sets.active if it.reason == "candidate" and it.origin.source == self._name)
            self._begun, self._is_first = next((each.id for each in left), None), False
        if self._begun is not None and wanted != self._begun:
            self._sets.end(self._begun, now)
            self._begun = None
        self._refused = None
        if head is None:
            return
        if self._begun is None:
            origin = PolicyOrigin(source=self._name, ref=head.ref, commit=head.commit)
            try:
                self._begun = self._sets.begin(head.files, origin, None, now)
            except ShadowRefusedError as error:
                self._refused = str(error)
                return
        self._source.was_in_shadow(head.folder_digest, round(self._sets.time_of(head.folder_digest) / MICROSECOND))


def _id_of(files: Iterable[PolicyFile]) -> str:
    """The id of a set in shadow: the beginning of the digest of its folder."""
    return folder_digest(files).removeprefix("sha256:")[:20]


def _line(record: ShadowRecord, firing: Fired) -> str:
    return (
        f"shadow {record.id} ({record.origin.source}): {firing.stage} of {firing.policy} on {firing.scope} would have "
        f"fired at {instant(firing.as_of)}, with {count_of(firing.orders, 'order')}; nothing is sent"
    )


def _difference(record: ShadowRecord, firing: Fired, what: str) -> Alert:
    """A finding for those whose route names the policy `shadow`."""
    key = f"shadow/difference/{record.id}/{firing.policy}/{firing.stage}/{to_micros(firing.as_of)}"
    text = difference_text(record.id, record.origin.source, firing, what)
    return Alert(key, "warning", text, SHADOW_SETS, lasts=False)


def _write(folder: Path, files: Iterable[PolicyFile]) -> None:
    """Write the files of a set below `folder`. ValueError for a path that leads out of it."""
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{file.path!r} is no path in the folder")
        at = folder / path
        at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        at.write_bytes(file.content)
