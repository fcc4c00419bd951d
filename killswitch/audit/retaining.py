"""Retention: what is older than declared is removed, as far as the rest stays provable and nothing needs it.

What is kept of a store is always its end: everything from the first decision on that a restart or a person still needs.
Lines leave it when they are in sealed segments of the archive, which are verified before. A line of the record
announces each removal, with the digest of the checkpoint that is left of what was removed; another one answers it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from glob import glob
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from killswitch.audit.exporting import export_segments, keep_bodies, sealed_until
from killswitch.audit.log_files import (
    BODIES,
    AuditError,
    LogSegment,
    kept_segments,
    raw_lines,
    segments_of,
    sole_writer,
    start_of,
    verify_log,
    write_start,
)
from killswitch.audit.retention_clock import ClockDoubt, doubt_of_clock, retained_blob
from killswitch.audit.retention_needs import Need, needs_of
from killswitch.audit.retention_settings import FileClass, KeptFiles, RetentionSettings, kept_for
from killswitch.incident.record.checklist import file_name, incidents_folder
from killswitch.model.instant import to_micros
from killswitch.model.legible import legible
from killswitch.model.record_entry import Field, RecordEntry, private, with_known
from killswitch.model.store import RETAINED
from killswitch.record.anchors import Anchor, FetchedAnchor
from killswitch.record.checkpoint import RemovedLines
from killswitch.record.line import content_of, read_head, references_of
from killswitch.record.tree import TreeEdge
from killswitch.store.recorded import StoredLine, server_record_of
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store

RetainedClass = Literal["store", "server record", "archive", "incidents"] | FileClass
SERVER_ARCHIVE: Final = "server"
"""The folder below the archive with the segments of the server's record."""
_SQLITE: Final = b"SQLite format 3\0"
_LOCK_FILE: Final = re.compile(rb'\{\s*"locked"\s*:')
_MOST_OF_A_HEAD: Final = 4096


class Removal(Struct, frozen=True):
    """What was removed of one class, or would be.

    `through`: the number of the last line that is removed. `counts`: how many, by what they are. `kept_because`: what
    keeps things that are older than declared.
    """

    what: RetainedClass
    counts: dict[str, int]
    through: int | None = None
    kept_because: str | None = None


class Retainer:
    """Removes what is older than declared from a store, its archive, and files of its runs."""

    def __init__(
        self, place: Path, settings: RetentionSettings, now: datetime, author: str, *, dry_run: bool = False
    ) -> None:
        """`place`: the store. `dry_run`: nothing is written anywhere."""
        self._place = place
        self._settings = settings
        self._now = now
        self._author = author
        self._dry_run = dry_run

    def retain(self) -> tuple[Removal, ...]:
        """Remove it, class after class. Raises AuditError and StoreError; what was removed before is on record.

        AuditError also where the record does not confirm the clock: nothing is removed then, and that is on record.
        """
        if not self._place.exists():
            raise AuditError(f"there is no store at {self._place}, so that nothing can be put on record: name another")
        try:
            with closing(open_store(str(self._place), read_only=self._dry_run)) as store:
                doubt = doubt_of_clock(store, self._now, self._settings.longest_gap)
                removed = self._removed(store) if doubt is None else self._doubted(store, doubt)
                if doubt is None and not any(each.counts for each in removed if each.what != "server record"):
                    self._leave_line(store, "nothing")
                if not self._dry_run:
                    store.put_live(RETAINED, retained_blob(self._now))
                return removed
        except OSError as error:
            what = f"{error.filename or self._place}: {error.strerror or error}"
            raise AuditError(f"the retention broke off ({what}): see `df` and its mode, and run it again") from error

    def _doubted(self, store: SqlStore, doubt: ClockDoubt) -> tuple[Removal, ...]:
        """Remove nothing, and leave a line: from now on the record shows how time goes on."""
        self._leave_line(store, "refused", doubt.why)
        if not doubt.is_young:
            raise AuditError(f"nothing is removed: {doubt.why}")
        return (Removal("store", {}, kept_because=doubt.why),)

    def _leave_line(self, store: SqlStore, result: str, why: str | None = None) -> None:
        """Put a retention that removes nothing on record."""
        if not self._dry_run:
            about: dict[str, Field | None] = {"what": "all", "result": result, "actor": private(self._author)}
            about["declared"] = self._settings.digest
            store.add_to_record([RecordEntry("retention", self._now, with_known(about), with_known({"why": why}))])

    def _removed(self, store: SqlStore) -> tuple[Removal, ...]:
        old = {name: self._old_files(name, files) for name, files in self._settings.file_classes.items()}
        needs = needs_of(store, self._now)
        found: list[Removal] = []
        declared = self._settings.store
        if declared is not None:
            before, archive = self._now - kept_for(declared.keep), Path(declared.archive)
            found.append(self._of_store("store", store, needs, archive, before))
            server = server_record_of(self._place)
            if server.exists():
                with closing(open_store(str(server), read_only=self._dry_run)) as other:
                    found.append(self._of_store("server record", other, (), archive / SERVER_ARCHIVE, before))
            if self._settings.archive is not None and archive.is_dir():
                found.append(self._of_archive(store, archive, self._now - kept_for(self._settings.archive.keep)))
        if self._settings.incidents is not None:
            keep = kept_for(self._settings.incidents.keep)
            files = old_incident_files(incidents_folder(str(self._place)), self._now - keep, needs)
            found.append(self._of_files(store, "incidents", files))
        found += [self._of_files(store, name, paths) for name, paths in old.items()]
        return tuple(found)

    def _of_store(
        self, what: RetainedClass, store: SqlStore, needs: Sequence[Need], archive: Path, before: datetime
    ) -> Removal:
        need = min((each for each in needs if each.since < before), default=None)
        before = before if need is None else need.since
        why = None if need is None else need.why
        last = last_before(store.record_lines(), before, store.waiting_line())
        if self._dry_run:
            count = max(0, last - store.record_start().number)
            return Removal(what, {"lines": count}, last or None, why)
        if last > store.record_start().number:
            archive.mkdir(parents=True, exist_ok=True)
            with sole_writer(archive):
                self._begin_behind(what, store, archive, last)
        rows = store.remove_before_start(to_micros(before))
        counts = {name: many for name, many in msgspec.structs.asdict(rows).items() if many}
        if counts:
            store.add_to_record([self._answer(what, counts, f"retention/{what}/{store.record_start().number}")])
        return Removal(what, counts, store.record_start().number or None, why)

    def _begin_behind(self, what: RetainedClass, store: SqlStore, archive: Path, last: int) -> None:
        """Export the lines up to `last`, and let the record begin behind them."""
        _archive(store, archive, last)
        before = store.record_checkpoint()
        removed = RemovedLines(store.record_start()).add_all(line.text for line in store.record_lines(1, last))
        _require_archived(archive, Anchor(removed.chain or "", removed.number, removed.root))
        checkpoint = removed.checkpoint()
        store.begin_record_at(checkpoint, before, self._announced(what, _facts(removed), checkpoint))

    def _of_archive(self, store: SqlStore, archive: Path, before: datetime) -> Removal:
        """Remove whole segments of the archive whose lines the store does not have any more."""
        with sole_writer(archive):
            return self._of_segments(store, archive, before)

    def _of_segments(self, store: SqlStore, archive: Path, before: datetime) -> Removal:
        begins = store.record_start()
        start, limit = start_of(archive), begins.number
        segments = kept_segments(archive, start)
        left = [each for each in segments_of(archive) if each not in segments]
        removed = RemovedLines(start)
        old: list[LogSegment] = []
        for segment, following in pairwise(segments):
            if following.first is None or following.first - 1 > limit:
                break
            texts = [raw.rstrip(b"\n") for raw in raw_lines(segment.path)]
            newest = content_of(texts[-1]) if texts else None
            if newest is None or datetime.fromisoformat(newest.at) >= before:
                break
            removed.add_all(texts)
            old.append(segment)
        counts = {"segments": len(old), "lines": removed.count} if old else {}
        if old or left:  # the checkpoint that is left must not be of lines that somebody has changed
            root = TreeEdge(limit, begins.hashes).root().hex()
            _require_archived(archive, Anchor(begins.chain or "", limit, root))
        if left and not self._dry_run:  # an interrupted removal, which is on record
            _delete(archive, left)
            store.add_to_record([self._answer("archive", {"segments": len(left)}, None)])
        if not old or self._dry_run:
            return Removal("archive", counts, removed.number or None)
        checkpoint = removed.checkpoint()
        entry = self._announced("archive", _facts(removed), checkpoint)
        store.add_to_record([entry])
        export_segments(store, archive, with_bodies=True, ends_segment=True, is_alone=True)  # with its announcement
        write_start(archive, checkpoint)
        _delete(archive, old)
        store.add_to_record([self._answer("archive", counts, entry.announces)])
        return Removal("archive", counts, removed.number)

    def _old_files(self, what: str, declared: KeptFiles) -> list[Path]:
        """Files that were last written before the declared time; a link is none.

        AuditError where one is part of the record, of the store or of its locks, and of no run: the pattern is wrong.
        """
        before = (self._now - kept_for(declared.keep)).timestamp()
        paths = [Path(each) for each in sorted(glob(declared.files))]  # noqa: PTH207 # the pattern is a whole path
        old = [each for each in paths if each.is_file() and not each.is_symlink() and each.stat().st_mtime < before]
        for path in old:
            why = self._other_use_of(path.resolve())
            if why is not None:
                raise AuditError(
                    f"nothing is removed: [{what}] files = {declared.files!r} also names {path}, {why}. Write a "
                    "pattern that names files of runs alone"
                )
        return old

    def _other_use_of(self, path: Path) -> str | None:
        """What a file is, where it is known to be none that a run has recorded."""
        place, store = self._place.resolve(), self._settings.store
        beside = path.relative_to(place.parent).parts[0] if path.is_relative_to(place.parent) else ""
        if beside == place.name or (beside.startswith(place.name) and ".jsonl" not in path.name):
            return "which belongs to the store"
        if store is not None and path.is_relative_to(Path(store.archive).resolve()):
            return "which is in the archive"
        with path.open("rb") as file:
            begin = file.read(_MOST_OF_A_HEAD)
        if begin.startswith(_SQLITE):
            return "which is a database"
        if read_head(begin) is not None:
            return "which is a segment of a record"
        return "which is a lock file" if _LOCK_FILE.match(begin) else None

    def _of_files(self, store: SqlStore, kind: RetainedClass, old: Sequence[Path]) -> Removal:
        """Remove these files, with their digests on record, and the folders of incidents that are empty then."""
        counts = {"files": len(old)} if old else {}
        if not old or self._dry_run:
            return Removal(kind, counts)
        entry = self._announced(
            kind, {"files": len(old)}, msgspec.json.encode([_file_facts(kind, each) for each in old])
        )
        store.add_to_record([entry])
        for path in old:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in old} if kind == "incidents" else ():
            with suppress(OSError):  # a report is written there again
                folder.rmdir()
        store.add_to_record([self._answer(kind, counts, entry.announces)])
        return Removal(kind, counts)

    def _announced(self, what: RetainedClass, fields: dict[str, Field], body: bytes) -> RecordEntry:
        """The entry that announces a removal; `body`: its checkpoint, or the list of its files."""
        about: dict[str, Field | None] = {**fields, "what": what, "result": "announced", "actor": private(self._author)}
        about["declared"] = self._settings.digest
        subject = f"retention/{what}/{fields.get('through', self._now.isoformat())}"
        return RecordEntry("retention", self._now, with_known(about), body=body, announces=subject)

    def _answer(self, what: RetainedClass, counts: dict[str, int], subject: str | None) -> RecordEntry:
        """The entry about what was removed; `subject` is None where an earlier removal had been interrupted."""
        details: dict[str, Field] = dict(counts)
        return RecordEntry("retention", self._now, {"what": what, "result": "removed"}, details, answers=subject)


def old_incident_files(folder: Path, before: datetime, needs: Iterable[Need]) -> list[Path]:
    """The files of incidents in which nothing was written since `before`, and which nobody needs any more.

    A folder with anything but files in it is none that a run has written, and stays.
    """
    needed, found = {file_name(each.incident) for each in needs}, []  # type: set[str], list[Path]
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        if each.is_symlink() or not each.is_dir() or each.name in needed:
            continue
        files = sorted(each.iterdir())
        is_of_run = all(file.is_file() and not file.is_symlink() for file in files)
        if is_of_run and all(file.stat().st_mtime < before.timestamp() for file in files):
            found += files
    return found


def last_before(lines: Iterable[StoredLine], before: datetime, waiting: int | None) -> int:
    """The number of the last line in front of the first one that is kept; 0 where all are.

    Kept is what was made at `before` or later, what cannot be read, and `waiting`, a line that is to be answered.
    """
    last = 0
    for line in lines:
        content = content_of(line.text)
        if content is None or line.number == waiting or datetime.fromisoformat(content.at) >= before:
            return last
        last = line.number
    return max(0, last - 1)  # the last line of all stays: the store's end is compared with it


def _archive(store: SqlStore, archive: Path, last: int) -> None:
    """Export the lines up to `last` with what they name, and end their segment, also one that another export began."""
    if sealed_until(archive) < last:
        export_segments(store, archive, with_bodies=True, until=last, ends_segment=True, is_alone=True)
    for line in store.record_lines(1, sealed_until(archive)):  # an earlier export may have left out the bodies
        keep_bodies(store, archive, line)


def _require_archived(archive: Path, known: Anchor) -> None:
    """Raise AuditError where the archive is not whole, or has other lines than the store has up to there, or had."""
    report = verify_log(archive, [FetchedAnchor(known, "the store")])
    states = {each.state for each in report.anchors}
    if report.breaks or report.altered.count or report.missing or states != {"confirmed"}:
        raise AuditError(
            f"nothing is removed: the archive {archive} does not have the lines of the store up to {known.number}. "
            f"Run `ksctl audit verify --log {archive}`, and name another folder where it was changed"
        )


def _delete(archive: Path, old: Sequence[LogSegment]) -> None:
    """Delete segments that lie before the beginning of the archive, after the bodies that only they name."""
    digests = {digest for segment in old for digest in _named_in(segment.path)}
    for segment in kept_segments(archive, start_of(archive)):
        digests.difference_update(_named_in(segment.path))
    for path in (*(archive / BODIES / each[:2] / each for each in digests), *(each.path for each in old)):
        path.unlink(missing_ok=True)


def _facts(removed: RemovedLines) -> dict[str, Field]:
    return {"through": removed.number, "lines": removed.count, "root": removed.root}


def _named_in(path: Path) -> Iterator[str]:
    for raw in raw_lines(path):
        content = content_of(raw.rstrip(b"\n"))
        if content is not None:
            yield from references_of(content)


def _file_facts(kind: RetainedClass, path: Path) -> tuple[str, int, str]:
    """Name, size and SHA-256 of a file; of an incident with the folder. Raises AuditError."""
    try:
        digest = sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        name = f"{path.parent.name}/{path.name}" if kind == "incidents" else path.name
        return legible(name), path.stat().st_size, digest.hexdigest()
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror or error}") from error
