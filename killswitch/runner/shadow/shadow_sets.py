"""The shadow sets of a run: begun and ended between two ticks, given every snapshot after the tick has acted.

A shadow set sends nothing to a venue, writes no lock and notifies nobody: what would have fired is a line of the run's
log, and in the store of the set. What is wrong with it is a warning about it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from msgspec.structs import replace

from killswitch.model.alert import NO_ALERTS, Alert, Alerts
from killswitch.model.applied_set import AppliedSet, PolicyFile, PolicyOrigin, folder_digest
from killswitch.model.instant import to_micros
from killswitch.model.store import BREACH_ANSWERS, FLAGS, LOCKED_BOOKS, OWN_QUANTITIES, REALISED, Store
from killswitch.render.formats import count_of, instant
from killswitch.runner.hot_reload import TakenSet
from killswitch.runner.observers import TickReport
from killswitch.runner.shadow.child_process import COMMAND, ShadowProcess
from killswitch.runner.shadow.evaluation import Fired, ShadowSeed, ShadowStart
from killswitch.runner.shadow.record import (
    SHADOW,
    ShadowReason,
    ShadowRecord,
    encode_record,
    shadow_folder,
    shadow_records,
)
from killswitch.source.candidate import Candidate

MOST: Final = 4
"""Number of shadow sets at one time: each is a process."""
MEMORY: Final = 2 << 30
"""The most memory of the process of a shadow set, in bytes."""
STOP_WITHIN: Final = 5.0
"""Seconds that the end of a run waits for each process."""
MICROSECOND: Final = timedelta(microseconds=1)
_SEEDED: Final = (LOCKED_BOOKS, BREACH_ANSWERS, FLAGS, OWN_QUANTITIES, REALISED)


class ShadowRefusedError(Exception):
    """A shadow set cannot begin; the message says why."""


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
        self._active: dict[str, tuple[ShadowRecord, ShadowProcess]] = {}

    def resume(self, now: datetime) -> None:
        """Continue the shadow sets of the run before, whose time is not over at `now`."""
        for record in shadow_records(self._store):
            if record.is_active and (record.until is None or record.until > now):
                self._start(record, ShadowSeed(to_micros(now)))
            elif record.is_active:
                self._put(replace(record, ended_at=now))

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
            record = replace(known[0], until=until, reason=reason, origin=origin)
            self._active[id_] = record, known[1]
            self._put(record)
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
            record, process = found
            self._put(replace(record, ended_at=now))
            threading.Thread(target=process.stop, args=(STOP_WITHIN,), name="shadow end", daemon=True).start()

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
        found = (process for record, process in self._active.values() if record.origin.folder_digest == digest)
        return timedelta(seconds=max((each.seconds for each in found), default=0.0))

    @property
    def active(self) -> tuple[ShadowRecord, ...]:
        """The shadow sets that are evaluated."""
        return tuple(record for record, _ in self._active.values())

    @property
    def judges(self) -> tuple[str, ...]:
        return ("shadow",)

    @property
    def alerts(self) -> Alerts:
        """A warning for each set that is not evaluated, or that misses snapshots."""
        found = []
        for record, process in self._active.values():
            why = process.problem
            if why is not None:
                text = f"the shadow set {record.id} of {record.origin.source} is not evaluated: {why}"
                found.append(Alert(f"shadow/{record.id}", "warning", text, over=f"the shadow set {record.id} goes on"))
        return Alerts(tuple(found))

    def ticked(self, report: TickReport) -> None:
        """Pass on the snapshot, record what was answered, and end what is over."""
        snapshot = report.snapshot
        self._now = snapshot.as_of
        for id_, (record, process) in tuple(self._active.items()):
            if record.until is not None and snapshot.as_of >= record.until:
                self.end(id_, snapshot.as_of)
                continue
            process.put(snapshot)
            process.check()
            digest = record.digest
            for answer in process.answers():
                digest = answer.digest or digest
                for fired in answer.fired:
                    self._log(_line(record, fired))
            after = replace(record, digest=digest, problem=process.problem or record.problem)
            if after != record:
                self._active[id_] = after, process
                self._put(after)

    def close(self, timeout: float = STOP_WITHIN) -> tuple[str, ...]:
        """Stop every process at the end of the run; the sets continue in the next run. A message for each problem."""
        problems = []
        for record, process in self._active.values():
            if not process.stop(timeout):
                problems.append(f"the shadow set {record.id} did not end within {timeout:g} s: its last ticks are lost")
        self._active.clear()
        return tuple(problems)

    def _start(self, record: ShadowRecord, seed: ShadowSeed) -> None:
        folder = shadow_folder(self._store_at) / record.id
        start = ShadowStart(
            folder=str(folder), store_at=record.store_at, source_at=self._store_at, armed=self._armed,
            commit=record.origin.commit, seed=seed,
            longest_gap=max(5.0, 3 * self._interval), memory=MEMORY,
        )  # fmt: skip
        self._active[record.id] = record, ShadowProcess(record.id, lambda: start, self._command)

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


def _line(record: ShadowRecord, fired: Fired) -> str:
    return (
        f"shadow {record.id} ({record.origin.source}): {fired.stage} of {fired.policy} on {fired.scope} would have "
        f"fired at {instant(fired.as_of)}, with {count_of(fired.orders, 'order')}; nothing is sent"
    )


def _write(folder: Path, files: Iterable[PolicyFile]) -> None:
    """Write the files of a set below `folder`. ValueError for a path that leads out of it."""
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{file.path!r} is no path in the folder")
        at = folder / path
        at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        at.write_bytes(file.content)
